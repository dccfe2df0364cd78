//! User code that can be counted: wakers, causes, values, panics.

use cancel_tree::{Cause, Context, ContextError, GraceOver, GuardDropped, IdleTimeout, Panicked};
use std::error::Error;
use std::fmt;
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::task::Wake;

/// Counts how often it is rung; may panic then.
#[derive(Default)]
pub struct Bell {
    rings: AtomicUsize,
    panics: bool,
}

impl Bell {
    pub fn new(panics: bool) -> Arc<Bell> {
        let rings = AtomicUsize::new(0);
        Arc::new(Bell { rings, panics })
    }

    pub fn rings(&self) -> usize {
        self.rings.load(Ordering::Acquire)
    }

    pub fn ring(&self) {
        self.rings.fetch_add(1, Ordering::AcqRel);
        if self.panics {
            planned_panic();
        }
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }
}

/// Panics of user code that nobody has caught yet.
static PLANNED: AtomicUsize = AtomicUsize::new(0);

struct Planned;

/// Unwinds past the panic hook, which would end the run.
pub fn planned_panic() -> ! {
    PLANNED.fetch_add(1, Ordering::Relaxed);
    resume_unwind(Box::new(Planned));
}

/// Runs what may run user code. None: that panicked; it has to come out here then, and only then.
pub fn catching<T>(f: impl FnOnce() -> T) -> Option<T> {
    let before = PLANNED.load(Ordering::Relaxed);
    let result = catch_unwind(AssertUnwindSafe(f));
    let planned = PLANNED.swap(before, Ordering::Relaxed) - before;
    match result {
        Ok(value) => {
            assert_eq!(planned, 0, "a panic was lost");
            Some(value)
        }
        Err(payload) if payload.is::<Planned>() => {
            assert_ne!(planned, 0, "a panic came out twice");
            None
        }
        Err(payload) => resume_unwind(payload),
    }
}

/// Runs what keeps panics of user code to itself; also, whether there were any.
pub fn keeping<T>(f: impl FnOnce() -> T) -> (T, bool) {
    let before = PLANNED.load(Ordering::Relaxed);
    let value = f();
    (value, PLANNED.swap(before, Ordering::Relaxed) != before)
}

/// The same for what workers run: panics of user code end there, and none comes out.
pub fn on_a_worker(f: impl FnOnce()) {
    keeping(f);
}

/// The number of the cause that the drop of a guard gives; 0 and 1 are those of the two kinds.
pub const GUARD_DROPPED: u32 = 2;
/// That of idle timeouts.
pub const IDLE: u32 = 3;
/// That of a group of which a task has panicked.
pub const PANICKED: u32 = 4;
/// That of the first cause of a user's.
pub const FIRST_CAUSE: u32 = 5;
/// The number of a grace's end is that of the cause that began it, and this.
pub const OVER: u32 = 1 << 24;

/// The number of the end of a grace that began with that cause, or with such an end.
pub fn over(first: u32) -> u32 {
    first % OVER + OVER
}

/// A cause: known by its number, and alive as long as `_life` is held.
pub struct Reason {
    pub number: u32,
    _life: Arc<()>,
}

impl Reason {
    pub fn cause(number: u32, kind: ContextError, life: &Arc<()>) -> Cause {
        let _life = life.clone();
        Cause::with_kind(kind, Reason { number, _life })
    }

    pub fn number_of(cause: &Cause) -> u32 {
        if let Some(reason) = cause.downcast_ref::<Reason>() {
            reason.number
        } else if let Some(end) = cause.downcast_ref::<GraceOver>() {
            over(Reason::number_of(end.first()))
        } else if cause.downcast_ref::<GuardDropped>().is_some() {
            GUARD_DROPPED
        } else if cause.downcast_ref::<IdleTimeout>().is_some() {
            IDLE
        } else if cause.downcast_ref::<Panicked>().is_some() {
            PANICKED
        } else {
            match cause.downcast_ref::<ContextError>() {
                Some(ContextError::Cancelled) => 0,
                Some(ContextError::DeadlineExceeded) => 1,
                None => panic!("a cause from nowhere: {cause:?}"),
            }
        }
    }
}

impl fmt::Debug for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "reason {}", self.number)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl Error for Reason {}

/// How many types of values there are.
pub const KINDS: usize = 7;

pub struct Value<const KIND: usize> {
    pub number: u32,
    _life: Arc<()>,
}

impl<const KIND: usize> Value<KIND> {
    pub fn new(number: u32, life: &Arc<()>) -> Self {
        let _life = life.clone();
        Value { number, _life }
    }

    fn of(ctx: &Context) -> Option<u32> {
        ctx.value::<Value<KIND>>().map(|value| value.number)
    }

    fn on(ctx: &Context, number: u32, life: &Arc<()>) -> (Context, &'static str) {
        let value = Value::<KIND>::new(number, life);
        (ctx.with_value(value), std::any::type_name::<Value<KIND>>())
    }
}

/// The new context, and the value's type.
pub fn with_value(
    ctx: &Context,
    kind: usize,
    number: u32,
    life: &Arc<()>,
) -> (Context, &'static str) {
    match kind {
        0 => Value::<0>::on(ctx, number, life),
        1 => Value::<1>::on(ctx, number, life),
        2 => Value::<2>::on(ctx, number, life),
        3 => Value::<3>::on(ctx, number, life),
        4 => Value::<4>::on(ctx, number, life),
        5 => Value::<5>::on(ctx, number, life),
        _ => Value::<6>::on(ctx, number, life),
    }
}

pub fn values_of(ctx: &Context) -> [Option<u32>; KINDS] {
    [
        Value::<0>::of(ctx),
        Value::<1>::of(ctx),
        Value::<2>::of(ctx),
        Value::<3>::of(ctx),
        Value::<4>::of(ctx),
        Value::<5>::of(ctx),
        Value::<6>::of(ctx),
    ]
}
