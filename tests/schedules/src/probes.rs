//! What is known beside the tree of what must hold there. All of it is plain data: shuttle's threads take turns on
//! one OS thread, and none is interrupted here.

use cancel_tree::{CancellationToken, Cause, Context, ContextError, Service};
use shuttle::rand::{thread_rng, RngCore};
use std::cell::{Cell, RefCell};
use std::fmt;
use std::sync::Arc;
use std::task::{Wake, Waker};

thread_local! {
    static VALUES: Cell<usize> = const { Cell::new(0) };
    static RECORDS: Cell<usize> = const { Cell::new(0) };
    /// What a callback has found to be wrong: a worker swallows its panic.
    static WRONG: Cell<Option<&'static str>> = const { Cell::new(None) };
    static OPERATIONS: Cell<u64> = const { Cell::new(0) };
}

/// One schedule: all that was made must be gone at its end.
pub fn life(body: fn()) {
    assert_eq!((cancel_tree::live(), VALUES.get()), (0, 0), "left over");
    body();
    Service::end_of_thread();
    assert_eq!(WRONG.get(), None);
    assert_eq!(cancel_tree::live(), 0, "memory of the tree that is leaked");
    assert_eq!(VALUES.get(), 0, "values of the user that are leaked");
}

/// Something the scenario does, at random.
pub fn draw(n: usize) -> usize {
    (thread_rng().next_u64() % n as u64) as usize
}

pub fn operation() {
    OPERATIONS.set(OPERATIONS.get() + 1);
}

pub fn take_operations() -> u64 {
    OPERATIONS.take()
}

/// What threads share that take turns.
#[derive(Default)]
pub struct Shared<T>(RefCell<T>);

// SAFETY: shuttle's threads are on one OS thread; nothing in `with` lets another one run.
unsafe impl<T> Sync for Shared<T> {}
// SAFETY: as above.
unsafe impl<T> Send for Shared<T> {}

impl<T> Shared<T> {
    pub fn new(value: T) -> Shared<T> {
        Shared(RefCell::new(value))
    }

    /// `f` must not touch the tree: RefCell notices if it does and another thread comes.
    pub fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        f(&mut self.0.borrow_mut())
    }
}

/// A value of the user's: dropped once.
pub struct Counted(Cell<u64>);

// SAFETY: as for `Shared`.
unsafe impl Sync for Counted {}

const ALIVE: u64 = 0x616c_6976_6521;

impl Counted {
    #[allow(clippy::new_without_default)]
    pub fn new() -> Counted {
        VALUES.set(VALUES.get() + 1);
        Counted(Cell::new(ALIVE))
    }

    fn check(&self) {
        assert_eq!(self.0.get(), ALIVE, "a value that is gone");
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.check();
            self.0.set(0);
            VALUES.set(VALUES.get() - 1);
        }
    }
}

/// Notes that it was woken.
pub struct Alarm {
    woken: Shared<usize>,
    polled: Cell<bool>,
    counted: Counted,
}

// SAFETY: as for `Shared`.
unsafe impl Sync for Alarm {}
// SAFETY: as for `Shared`.
unsafe impl Send for Alarm {}

impl Alarm {
    #[allow(clippy::new_without_default)]
    pub fn new() -> Arc<Alarm> {
        Arc::new(Alarm {
            woken: Shared::new(0),
            polled: Cell::new(false),
            counted: Counted::new(),
        })
    }

    pub fn waker(self: &Arc<Alarm>) -> Waker {
        self.clone().into()
    }

    /// The last poll with it was pending.
    pub fn set_polled(&self) {
        self.polled.set(true);
    }

    pub fn was_polled(&self) -> bool {
        self.polled.get()
    }

    pub fn has_rung(&self) -> bool {
        self.woken.with(|n| *n != 0)
    }
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.counted.check();
        self.woken.with(|n| *n += 1);
    }
}

/// Counts the runs of a callback: there is one at most.
#[derive(Clone, Default)]
pub struct Runs(Arc<Shared<usize>>);

impl Runs {
    pub fn callback(&self, record: &Record) -> impl FnOnce() + Send + 'static {
        let (runs, record, counted) = (self.clone(), record.clone(), Counted::new());
        move || {
            runs.0.with(|n| *n += 1);
            for (holds, otherwise) in [
                (counted.0.get() == ALIVE, "a value that is gone"),
                (runs.count() == 1, "a callback that runs twice"),
                (record.may_be_done(), "a callback for nothing"),
            ] {
                if !holds {
                    WRONG.set(Some(otherwise));
                }
                assert!(holds, "{otherwise}");
            }
        }
    }

    pub fn count(&self) -> usize {
        self.0.with(|n| *n)
    }
}

/// The error in a cause: by its number it says who cancelled.
pub struct Reason(usize, Counted);

impl fmt::Debug for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "reason {}", self.0)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl std::error::Error for Reason {}

/// What a token or a context says of itself.
pub trait Subject {
    fn done(&self) -> bool;
    fn why(&self) -> Option<Cause>;
}

impl Subject for CancellationToken {
    fn done(&self) -> bool {
        self.is_cancelled()
    }
    fn why(&self) -> Option<Cause> {
        self.cause()
    }
}

impl Subject for Context {
    fn done(&self) -> bool {
        self.is_done()
    }
    fn why(&self) -> Option<Cause> {
        let cause = self.cause();
        if let Some(cause) = &cause {
            assert_eq!(self.err(), Some(cause.kind()));
        }
        cause
    }
}

/// The clock of a schedule: turns of the service, each at a time. See [`Record::timed`].
#[derive(Default)]
pub struct Turns {
    /// How many have begun, and at which time the last.
    begun: Cell<(usize, u64)>,
    /// Which was the last to end, and its time.
    ended: Cell<(usize, u64)>,
}

// SAFETY: as for `Shared`.
unsafe impl Sync for Turns {}
// SAFETY: as for `Shared`.
unsafe impl Send for Turns {}

impl Turns {
    /// The time of the last turn that has begun.
    pub fn begun_at(&self) -> u64 {
        self.begun.get().1
    }

    /// One turn of the service, done by `turn`; times do not go back.
    pub fn turn(&self, time: u64, turn: impl FnOnce()) {
        let number = self.begun.get().0 + 1;
        self.begun.set((number, time));
        turn();
        self.ended.set((number, time));
    }
}

struct Deadline {
    turns: Arc<Turns>,
    /// A turn that began later has it in the wheel.
    made_at: Cell<usize>,
    time: u64,
}

impl Deadline {
    /// A turn that has ended has seen to it.
    fn is_over(&self) -> bool {
        let (turn, time) = self.turns.ended.get();
        turn > self.made_at.get() && time >= self.time
    }
}

/// How the cancel of what is above comes.
#[derive(Default)]
enum Way {
    /// With its cause, and before the call returns.
    #[default]
    Tree,
    /// Before the call returns, without a cause.
    Waker,
    /// With its cause, by a turn of the service that begins at this time or later.
    Worker(Deadline),
}

struct Inner {
    number: usize,
    above: Vec<Record>,
    way: Way,
    deadline: Option<Deadline>,
    /// How many cancels of it have begun, have returned.
    begun: Cell<usize>,
    ended: Cell<usize>,
    /// Whether one was told that it was the first.
    won: Cell<bool>,
    /// The cause that was seen.
    seen: Cell<Option<usize>>,
}

/// What is known of one token or context: who is above, who has cancelled it, which cause was seen.
#[derive(Clone)]
pub struct Record(Arc<Inner>);

// SAFETY: as for `Shared`.
unsafe impl Sync for Inner {}
// SAFETY: as for `Shared`.
unsafe impl Send for Inner {}

/// Done because of a deadline, whichever.
const BY_DEADLINE: usize = usize::MAX;
/// Done because a waker was woken.
const BY_WAKER: usize = usize::MAX - 1;

impl Record {
    fn with(above: Vec<Record>, deadline: Option<Deadline>) -> Record {
        Record::by(Way::Tree, above, deadline)
    }

    fn by(way: Way, above: Vec<Record>, deadline: Option<Deadline>) -> Record {
        RECORDS.set(RECORDS.get() + 1);
        Record(Arc::new(Inner {
            number: RECORDS.get(),
            above,
            way,
            deadline,
            begun: Cell::new(0),
            ended: Cell::new(0),
            won: Cell::new(false),
            seen: Cell::new(None),
        }))
    }

    pub fn root() -> Record {
        Record::with(Vec::new(), None)
    }

    pub fn below(above: &[&Record]) -> Record {
        Record::with(above.iter().map(|&r| r.clone()).collect(), None)
    }

    /// Below something that tells it by a waker.
    pub fn woken_by(above: &Record) -> Record {
        Record::by(Way::Waker, vec![above.clone()], None)
    }

    /// Below something that a worker asks in turns: that of `time` will find it done, but so many find nothing. To be
    /// made after what it is about.
    pub fn asked_in(turns: &Arc<Turns>, nothing: usize, time: u64, above: &Record) -> Record {
        let way = Way::Worker(Deadline {
            turns: turns.clone(),
            made_at: Cell::new(turns.begun.get().0 + nothing),
            time,
        });
        Record::by(way, vec![above.clone()], None)
    }

    /// With a deadline; [`Record::is_timed`] when it has been set.
    pub fn timed(above: &[&Record], turns: &Arc<Turns>, time: u64) -> Record {
        let deadline = Deadline {
            turns: turns.clone(),
            made_at: Cell::new(usize::MAX),
            time,
        };
        Record::with(above.iter().map(|&r| r.clone()).collect(), Some(deadline))
    }

    pub fn is_timed(&self) {
        let deadline = self.0.deadline.as_ref().expect("made by `timed`");
        deadline.made_at.set(deadline.turns.begun.get().0);
    }

    fn any(&self, what: &dyn Fn(&Inner) -> bool) -> bool {
        what(&self.0) || self.0.above.iter().any(|above| above.any(what))
    }

    /// A cancel of it, or of what is above, is on its way: of two that overlap one may return while the other is about to
    /// wake or to call.
    pub fn is_being_cancelled(&self) -> bool {
        self.any(&|r| r.begun.get() != r.ended.get())
    }

    /// Who asks now must find it done.
    pub fn must_be_done(&self) -> bool {
        let this = &self.0;
        if this.ended.get() != 0 || this.deadline.as_ref().is_some_and(Deadline::is_over) {
            return true;
        }
        match &this.way {
            Way::Worker(turn) => turn.is_over(),
            _ => this.above.iter().any(Record::must_be_done),
        }
    }

    fn may_have_expired(&self) -> bool {
        let due = |d: &Deadline| d.turns.begun.get().1 >= d.time;
        self.any(&|r| r.deadline.as_ref().is_some_and(due))
    }

    pub fn may_be_done(&self) -> bool {
        self.any(&|r| r.begun.get() != 0) || self.may_have_expired()
    }

    /// What it says of itself must agree with what has been done.
    #[track_caller]
    pub fn check(&self, subject: &impl Subject) {
        let must = self.must_be_done();
        let done = subject.done();
        assert!(done || !must, "a lost cancel");
        if !done {
            return;
        }
        let cause = subject.why().expect("done without a cause");
        let number = match cause.downcast_ref::<Reason>() {
            Some(reason) => {
                reason.1.check();
                assert_eq!(cause.kind(), ContextError::Cancelled);
                let given = self.any(&|r| r.number == reason.0 && r.begun.get() != 0);
                assert!(given, "a cause that nobody above gave");
                reason.0
            }
            None if cause.kind() == ContextError::Cancelled => {
                let woken = |r: &Inner| {
                    let is_told = matches!(r.way, Way::Waker);
                    is_told && r.above.iter().any(Record::may_be_done)
                };
                assert!(self.any(&woken), "no cause");
                BY_WAKER
            }
            None => {
                assert!(self.may_have_expired(), "too early");
                BY_DEADLINE
            }
        };
        if let Some(before) = self.0.seen.replace(Some(number)) {
            assert_eq!(before, number, "another cause than before");
        }
    }

    /// Cancels by `cancel`, which is given the cause and says whether it was the first.
    #[track_caller]
    pub fn cancel(&self, subject: &impl Subject, cancel: impl FnOnce(Cause) -> bool) {
        self.0.begun.set(self.0.begun.get() + 1);
        let number = self.0.number;
        let first = cancel(Cause::new(Reason(number, Counted::new())));
        self.0.ended.set(self.0.ended.get() + 1);
        self.check(subject);
        if first {
            assert!(!self.0.won.replace(true), "two were the first");
        }
        let mine = self.0.seen.get() == Some(number);
        assert!(mine || !first, "the first one's cause does not stand");
    }
}
