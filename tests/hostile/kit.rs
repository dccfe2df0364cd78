//! The stage on which hostile code runs: a small tree, bystanders at every token of it, the things that
//! hostile code may do, and what has to hold afterwards.

use cancel_tree::{CancellationToken, Cause, Context, Registration};
use std::any::Any;
use std::cell::Cell;
use std::future::Future;
use std::io::Write;
use std::panic::{catch_unwind, panic_any, AssertUnwindSafe};
use std::pin::{pin, Pin};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{mpsc, Arc, Mutex, MutexGuard, Once, PoisonError, Weak};
use std::task::{Poll, RawWaker, RawWakerVTable, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

pub const MS: Duration = Duration::from_millis(1);
pub const FAR: Duration = Duration::from_secs(3600);
/// For what comes in time on any machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

// ----- deeds ----------------------------------------------------------------------------------

/// What hostile code does when it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    Nothing,
    Panic,
    /// … with a payload whose drop panics with a payload whose drop panics …
    PanicForEver,
    CancelOwn,
    CancelParent,
    CancelSibling,
    CancelEverything,
    CancelThenPanic,
    CreateHundreds,
    DropOwn,
    DropEverything,
    DropEverythingThenPanic,
    Wait,
    Register,
    Stop,
    StopAndWait,
    StopAsync,
    StopOnDrop,
    Detach,
    Forget,
    Contexts,
}

impl Deed {
    pub const ALL: [Deed; 21] = [
        Deed::Nothing,
        Deed::Panic,
        Deed::PanicForEver,
        Deed::CancelOwn,
        Deed::CancelParent,
        Deed::CancelSibling,
        Deed::CancelEverything,
        Deed::CancelThenPanic,
        Deed::CreateHundreds,
        Deed::DropOwn,
        Deed::DropEverything,
        Deed::DropEverythingThenPanic,
        Deed::Wait,
        Deed::Register,
        Deed::Stop,
        Deed::StopAndWait,
        Deed::StopAsync,
        Deed::StopOnDrop,
        Deed::Detach,
        Deed::Forget,
        Deed::Contexts,
    ];

    pub fn panics(self) -> bool {
        matches!(
            self,
            Deed::Panic
                | Deed::PanicForEver
                | Deed::CancelThenPanic
                | Deed::DropEverythingThenPanic
        )
    }

    fn drops_everything(self) -> bool {
        matches!(self, Deed::DropEverything | Deed::DropEverythingThenPanic)
    }

    fn stops(self) -> bool {
        matches!(
            self,
            Deed::Stop | Deed::StopAndWait | Deed::StopAsync | Deed::StopOnDrop
        )
    }
}

/// The payload of every panic that is meant.
pub struct Meant;

/// Its drop panics, with the same again.
struct MeantForEver;

impl Drop for MeantForEver {
    fn drop(&mut self) {
        // A payload that surfaces is dropped by the test, at rest.
        panic_any(MeantForEver);
    }
}

/// A panic that was caught: of the kind that was meant?
pub fn was_meant(payload: Box<dyn Any + Send>) -> bool {
    if payload.is::<MeantForEver>() {
        std::mem::forget(payload);
        return true;
    }
    payload.is::<Meant>()
}

/// Catches what `f` panics with. True: it did, as it was meant to.
pub fn panics(f: impl FnOnce()) -> bool {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(()) => false,
        Err(payload) => {
            assert!(was_meant(payload), "a panic that nobody meant");
            true
        }
    }
}

/// What is being played, by each test.
static NOW_PLAYING: Mutex<Vec<Arc<Mutex<String>>>> = Mutex::new(Vec::new());

/// Meant panics are silent. The process's end by a panic too many says what was going on.
fn set_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let default = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let payload = info.payload();
            if payload.is::<Meant>() || payload.is::<MeantForEver>() {
                return;
            }
            let text = payload.downcast_ref::<&str>().copied().unwrap_or_default();
            if text.starts_with("panic in a ") {
                for playing in lock(&NOW_PLAYING).iter() {
                    let _ = writeln!(std::io::stderr(), "aborted in: {}", lock(playing));
                }
            }
            default(info);
        }));
    });
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `f` on a thread of its own, and fails if it takes for ever.
pub fn guarded(name: &str, f: impl FnOnce(&dyn Fn(String)) + Send + 'static) {
    set_hook();
    let at = Arc::new(Mutex::new(name.to_string()));
    lock(&NOW_PLAYING).push(at.clone());
    let (done, is_done) = mpsc::channel::<()>();
    let thread = thread::spawn({
        let at = at.clone();
        move || {
            let _done = done;
            f(&|name| *lock(&at) = name);
        }
    });
    let mut last = String::new();
    loop {
        match is_done.recv_timeout(PATIENCE) {
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            _ => {
                let now = lock(&at).clone();
                assert_ne!(now, last, "it hangs");
                last = now;
            }
        }
    }
    lock(&NOW_PLAYING).retain(|playing| !Arc::ptr_eq(playing, &at));
    if let Err(payload) = thread.join() {
        let text = payload.downcast_ref::<String>().cloned();
        let text = text.or(payload.downcast_ref::<&str>().map(|s| s.to_string()));
        let at = lock(&at).clone();
        panic!("{at}: {}", text.unwrap_or_default());
    }
}

thread_local! {
    /// How many deeds this thread is inside of. Without a destructor: it works at thread exit too.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// What stands in a waker, a callback, a value: it does its deed whenever it is run.
pub struct Act {
    world: Weak<World>,
    deed: Deed,
    begun: Arc<AtomicUsize>,
    over: Arc<AtomicUsize>,
}

impl Clone for Act {
    fn clone(&self) -> Act {
        Act {
            world: self.world.clone(),
            deed: self.deed,
            begun: self.begun.clone(),
            over: self.over.clone(),
        }
    }
}

impl Act {
    /// How often it was run.
    pub fn begun(&self) -> usize {
        self.begun.load(SeqCst)
    }

    pub fn run(&self) {
        struct Over<'a>(&'a Act);
        impl Drop for Over<'_> {
            fn drop(&mut self) {
                DEPTH.set(DEPTH.get() - 1);
                self.0.over.fetch_add(1, SeqCst);
            }
        }
        self.begun.fetch_add(1, SeqCst);
        DEPTH.set(DEPTH.get() + 1);
        let _over = Over(self);
        // What it does may run it again. Twice shows what nesting shows.
        if DEPTH.get() <= 2 {
            if let Some(world) = self.world.upgrade() {
                world.act(self.deed);
            }
        }
    }
}

/// Runs it when it is dropped.
pub struct OnDrop(pub Option<Act>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        if let Some(act) = self.0.take() {
            act.run();
        }
    }
}

impl std::fmt::Debug for OnDrop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OnDrop")
    }
}

impl std::fmt::Display for OnDrop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("hostile")
    }
}

impl std::error::Error for OnDrop {}

// ----- wakers ---------------------------------------------------------------------------------

/// A waker each of whose functions may be hostile. `_on_drop` runs with the last copy of it.
#[derive(Default)]
pub struct Hooks {
    pub on_clone: Option<Act>,
    pub on_wake: Option<Act>,
    _on_drop: Option<OnDrop>,
}

impl Hooks {
    const TABLE: &'static RawWakerVTable = &RawWakerVTable::new(
        |data| {
            // SAFETY: `data` is a counted pointer whose count stays with the waker that is cloned.
            let this = std::mem::ManuallyDrop::new(unsafe { Arc::<Hooks>::from_raw(data.cast()) });
            if let Some(act) = &this.on_clone {
                act.run();
            }
            RawWaker::new(Arc::into_raw(Arc::clone(&this)).cast(), Hooks::TABLE)
        },
        |data| {
            // SAFETY: waking by value uses up the waker and its count.
            let this = unsafe { Arc::<Hooks>::from_raw(data.cast()) };
            this.woken();
        },
        |data| {
            // SAFETY: as for the clone.
            let this = std::mem::ManuallyDrop::new(unsafe { Arc::<Hooks>::from_raw(data.cast()) });
            this.woken();
        },
        // SAFETY: dropping the waker gives its count back.
        |data| drop(unsafe { Arc::<Hooks>::from_raw(data.cast()) }),
    );

    fn woken(&self) {
        if let Some(act) = &self.on_wake {
            act.run();
        }
    }

    pub fn waker(self) -> Waker {
        let raw = RawWaker::new(Arc::into_raw(Arc::new(self)).cast(), Hooks::TABLE);
        // SAFETY: the table keeps the contract: hooks are Send and Sync, and the count follows the clones.
        unsafe { Waker::from_raw(raw) }
    }
}

pub fn on_wake(act: Act) -> Waker {
    Hooks {
        on_wake: Some(act),
        ..Hooks::default()
    }
    .waker()
}

pub fn on_clone(act: Act) -> Waker {
    Hooks {
        on_clone: Some(act),
        ..Hooks::default()
    }
    .waker()
}

pub fn on_last_drop(act: Act) -> Waker {
    Hooks {
        _on_drop: Some(OnDrop(Some(act))),
        ..Hooks::default()
    }
    .waker()
}

/// A waker that cancels the token when it is cloned, and whose clones are hostile when they are dropped.
pub fn cancelled_by_its_clone(token: CancellationToken, act: Act) -> Waker {
    struct Cancels(CancellationToken, Act);
    const TABLE: &RawWakerVTable = &RawWakerVTable::new(
        |data| {
            // SAFETY: `data` is a box's, which stays with the waker that is cloned.
            let Cancels(token, act) = unsafe { &*data.cast() };
            token.cancel();
            let clone = std::mem::ManuallyDrop::new(on_last_drop(act.clone()));
            RawWaker::new(clone.data(), clone.vtable())
        },
        // SAFETY: waking by value uses up the waker and its box.
        |data| drop(unsafe { Box::from_raw(data.cast::<Cancels>().cast_mut()) }),
        |_| (),
        // SAFETY: the same.
        |data| drop(unsafe { Box::from_raw(data.cast::<Cancels>().cast_mut()) }),
    );
    let data = Box::into_raw(Box::new(Cancels(token, act)));
    // SAFETY: the table keeps the contract: tokens and acts are Send and Sync, and each waker has what its data point to.
    unsafe { Waker::from_raw(RawWaker::new(data.cast(), TABLE)) }
}

pub fn poll<F: Future + ?Sized>(future: Pin<&mut F>, waker: &Waker) -> Poll<F::Output> {
    future.poll(&mut std::task::Context::from_waker(waker))
}

pub type Waiting = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Waits for the token with the waker, of which no other copy is left.
pub fn wait_with(token: &CancellationToken, waker: Waker) -> Waiting {
    let mut future: Waiting = Box::pin(token.clone().cancelled_owned());
    assert!(poll(future.as_mut(), &waker).is_pending());
    future
}

/// Forgets the value. It stays reachable, so that a leak checker finds other leaks only.
pub fn forget<T>(value: T) {
    struct Forgotten(#[allow(dead_code)] *mut ());
    // SAFETY: never touched again.
    unsafe impl Send for Forgotten {}
    static FORGOTTEN: Mutex<Vec<Forgotten>> = Mutex::new(Vec::new());

    let value = Box::into_raw(Box::new(value));
    lock(&FORGOTTEN).push(Forgotten(value.cast()));
}

// ----- the world ------------------------------------------------------------------------------

/// The tokens: `root` above `parent` above `own` and `sibling`; `child` below `own`; `other` is a root of
/// its own, and `any` is below `own` and `other`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    Root,
    Parent,
    Own,
    Child,
    Sibling,
    Other,
    Any,
}

const NAMES: [Name; 7] = [
    Name::Root,
    Name::Parent,
    Name::Own,
    Name::Child,
    Name::Sibling,
    Name::Other,
    Name::Any,
];

impl Name {
    /// Whether a cancel of this one reaches `other`.
    fn reaches(self, other: Name) -> bool {
        match self {
            Name::Root => other != Name::Other,
            Name::Parent => !matches!(other, Name::Other | Name::Root),
            Name::Own => matches!(other, Name::Own | Name::Child | Name::Any),
            Name::Other => matches!(other, Name::Other | Name::Any),
            _ => self == other,
        }
    }
}

/// Somebody who does no harm, and must come to none.
struct Bystander {
    at: Name,
    is_waker: bool,
    told: AtomicUsize,
    gone: AtomicUsize,
}

/// Where the bystander stands: in a waker or in a callback.
struct Standing(Arc<Bystander>);

impl Drop for Standing {
    fn drop(&mut self) {
        self.0.gone.fetch_add(1, SeqCst);
    }
}

impl Wake for Standing {
    fn wake(self: Arc<Self>) {
        self.0.told.fetch_add(1, SeqCst);
    }
}

#[derive(Default)]
pub struct World {
    tokens: Mutex<Vec<(Name, CancellationToken)>>,
    /// Registrations that deeds may take, hostile ones among them.
    registrations: Mutex<Vec<Registration>>,
    /// Futures of bystanders and of others.
    futures: Mutex<Vec<Waiting>>,
    /// What has only to be kept until the end.
    things: Mutex<Vec<Box<dyn Any + Send>>>,
    bystanders: Mutex<Vec<Arc<Bystander>>>,
    /// Callbacks of bystanders that a deed has stopped.
    stopped: AtomicUsize,
    /// Registrations of others than bystanders.
    strangers: AtomicUsize,
    /// What was wrong, seen where a panic would mean something else.
    wrong: Mutex<Vec<String>>,
}

impl World {
    pub fn new() -> Arc<World> {
        let root = CancellationToken::new();
        let parent = root.child_token();
        let own = parent.child_token();
        let other = CancellationToken::new();
        let tokens = vec![
            (Name::Child, own.child_token()),
            (Name::Sibling, parent.child_token()),
            (Name::Any, CancellationToken::any_of([&own, &other])),
            (Name::Root, root),
            (Name::Parent, parent),
            (Name::Own, own),
            (Name::Other, other),
        ];
        let world = Arc::new(World::default());
        *lock(&world.tokens) = tokens;
        world
    }

    /// The token, if somebody still has it.
    pub fn find(&self, name: Name) -> Option<CancellationToken> {
        let tokens = lock(&self.tokens);
        let found = tokens.iter().find(|(n, _)| *n == name);
        found.map(|(_, token)| token.clone())
    }

    pub fn get(&self, name: Name) -> CancellationToken {
        self.find(name).expect("the world is new")
    }

    /// Whether `own` is, as far as anybody can tell.
    pub fn is_cancelled(&self) -> bool {
        self.find(Name::Own).is_none_or(|own| own.is_cancelled())
    }

    pub fn act_of(self: &Arc<World>, deed: Deed) -> Act {
        Act {
            world: Arc::downgrade(self),
            deed,
            begun: Arc::default(),
            over: Arc::default(),
        }
    }

    pub fn keep(&self, thing: impl Any + Send) {
        lock(&self.things).push(Box::new(thing));
    }

    pub fn keep_future(&self, future: Waiting) {
        lock(&self.futures).push(future);
    }

    pub fn keep_registration(&self, registration: Registration) {
        self.strangers.fetch_add(1, SeqCst);
        lock(&self.registrations).push(registration);
    }

    /// At each token a future that waits, a callback that can be stopped and one that cannot. (Where all
    /// handles go, callbacks of `any` stay until a source is cancelled, as documented.)
    pub fn add_bystanders(&self, deed: Deed) {
        for name in NAMES {
            let token = self.get(name);
            let standing = |is_waker| {
                let bystander = Arc::new(Bystander {
                    at: name,
                    is_waker,
                    told: AtomicUsize::new(0),
                    gone: AtomicUsize::new(0),
                });
                lock(&self.bystanders).push(bystander.clone());
                Standing(bystander)
            };
            let waker = Waker::from(Arc::new(standing(true)));
            self.keep_future(wait_with(&token, waker));
            if name == Name::Any && deed.drops_everything() {
                continue;
            }
            for kept in [true, false] {
                let standing = standing(false);
                let registration = token.on_cancel(move || {
                    standing.0.told.fetch_add(1, SeqCst);
                });
                if kept {
                    lock(&self.registrations).push(registration);
                }
            }
        }
    }

    fn note(&self, holds: bool, what: &str) {
        if !holds {
            lock(&self.wrong).push(what.to_string());
        }
    }

    fn cancel(&self, name: Name) {
        if let Some(token) = self.find(name) {
            token.cancel();
        }
    }

    fn take_registrations(&self) -> Vec<Registration> {
        std::mem::take(&mut lock(&self.registrations))
    }

    fn stop_by(&self, how: impl Fn(Registration) -> bool) {
        for registration in self.take_registrations() {
            if how(registration) {
                self.stopped.fetch_add(1, SeqCst);
            }
        }
    }

    /// User code: nothing of the world is locked while the library is called.
    fn act(&self, deed: Deed) {
        match deed {
            Deed::Nothing => {}
            Deed::Panic => panic_any(Meant),
            Deed::PanicForEver => panic_any(MeantForEver),
            Deed::CancelOwn => self.cancel(Name::Own),
            Deed::CancelParent => self.cancel(Name::Parent),
            Deed::CancelSibling => self.cancel(Name::Sibling),
            Deed::CancelEverything => self.cancel_everything(),
            Deed::CancelThenPanic => {
                self.cancel_everything();
                panic_any(Meant);
            }
            Deed::CreateHundreds => self.create_hundreds(),
            Deed::DropOwn => {
                let own = |(name, _): &(Name, _)| matches!(name, Name::Own | Name::Child);
                let mut tokens = lock(&self.tokens);
                let gone: Vec<_> = (0..tokens.len())
                    .rev()
                    .filter(|i| own(&tokens[*i]))
                    .collect();
                let gone: Vec<_> = gone.into_iter().map(|i| tokens.remove(i)).collect();
                drop(tokens);
                drop(gone);
            }
            Deed::DropEverything => self.drop_everything(),
            Deed::DropEverythingThenPanic => {
                self.drop_everything();
                panic_any(Meant);
            }
            Deed::Wait => self.wait(),
            Deed::Register => {
                for name in NAMES {
                    let Some(token) = self.find(name) else {
                        continue;
                    };
                    let ran = Arc::new(AtomicUsize::new(0));
                    let r = ran.clone();
                    let registration = token.on_cancel(move || {
                        r.fetch_add(1, SeqCst);
                    });
                    let stopped = registration.stop();
                    self.note(stopped != (ran.load(SeqCst) == 1), "stopped and run");
                    drop(token.on_cancel(|| ()));
                    let waker = Waker::from(Arc::new(Noop));
                    let mut future: Waiting = Box::pin(token.cancelled_owned());
                    let _ = poll(future.as_mut(), &waker);
                    self.keep_future(future);
                }
            }
            Deed::Stop => self.stop_by(Registration::stop),
            Deed::StopAndWait => self.stop_by(Registration::stop_and_wait),
            Deed::StopAsync => {
                self.stop_by(|r| futures::executor::block_on(r.stop_async()));
            }
            Deed::StopOnDrop => {
                for registration in self.take_registrations() {
                    drop(registration.stop_on_drop());
                }
            }
            Deed::Detach => drop(self.take_registrations()),
            Deed::Forget => self.forget_all_kinds(),
            Deed::Contexts => self.contexts(),
        }
    }

    fn cancel_everything(&self) {
        if let Some(token) = self.find(Name::Own) {
            token.cancel_with("a hostile cause");
        }
        self.cancel(Name::Root);
        if let Some(token) = self.find(Name::Other) {
            token.cancel_with(String::from("another one"));
        }
    }

    fn drop_everything(&self) {
        let tokens = std::mem::take(&mut *lock(&self.tokens));
        let futures = std::mem::take(&mut *lock(&self.futures));
        let things = std::mem::take(&mut *lock(&self.things));
        drop((tokens, futures, things, self.take_registrations()));
    }

    fn create_hundreds(&self) {
        for name in [Name::Parent, Name::Own, Name::Any, Name::Other] {
            let Some(token) = self.find(name) else {
                continue;
            };
            let was = token.is_cancelled();
            let mut kept = Vec::new();
            for i in 0..150 {
                let child = token.child_token();
                let below = child.child_token();
                self.note(
                    !was || child.is_cancelled() && below.is_cancelled(),
                    "born live below a cancelled one",
                );
                if i % 2 == 0 {
                    kept.push((child, below));
                }
            }
            self.keep(kept);
        }
    }

    fn wait(&self) {
        let fresh = CancellationToken::new();
        self.note(!fresh.blocking_wait_timeout(MS), "cancelled by nobody");
        self.note(
            !fresh.blocking_wait_deadline(Instant::now()),
            "cancelled by nobody",
        );
        self.note(
            Context::background().blocking_wait_timeout(MS).is_none(),
            "the background is done",
        );
        for name in [Name::Own, Name::Any] {
            if let Some(token) = self.find(name) {
                let was = token.is_cancelled();
                self.note(token.blocking_wait_timeout(MS) || !was, "cancelled no more");
            }
        }
        fresh.cancel();
        fresh.blocking_wait();
        let (ctx, _guard) = Context::background().with_timeout(MS);
        ctx.blocking_wait();
        self.note(ctx.is_done(), "waited for nothing");
    }

    fn forget_all_kinds(&self) {
        for name in [Name::Own, Name::Any] {
            let Some(token) = self.find(name) else {
                continue;
            };
            forget(token.clone());
            forget(token.child_token().drop_guard());
            let mut future = Box::pin(token.cancelled());
            let _ = poll(future.as_mut(), Waker::noop());
            forget(future);
            let mut owned = Box::pin(token.clone().cancelled_owned());
            let _ = poll(owned.as_mut(), Waker::noop());
            forget(owned);
            forget(token.on_cancel(|| ()));
            forget(token.on_cancel(|| ()).stop_on_drop());
            let ctx = token.context();
            let (below, guard) = ctx.with_timeout(FAR);
            let mut done = Box::pin(below.done());
            let _ = poll(done.as_mut(), Waker::noop());
            forget(done);
            forget(guard);
        }
    }

    fn contexts(&self) {
        let base = match self.find(Name::Own) {
            Some(token) => token.context(),
            None => Context::background(),
        };
        let was = base.is_done();
        let (ctx, guard) = base.with_timeout_cause(FAR, "late");
        let (below, below_guard) = ctx.with_value(7_u8).with_deadline(Instant::now() + FAR);
        self.note(below.value() == Some(&7_u8), "the value is lost");
        let _ = poll(pin!(below.done()), Waker::noop());
        let _ = below.blocking_sleep(Duration::from_micros(100));
        let stopped = below.after_func(|| ()).stop();
        self.note(
            !was || below.is_done() && !stopped,
            "live below what is done",
        );
        drop(below.on_cancel(|| ()));
        guard.cancel_with("enough");
        self.note(
            below.is_done() && below.cause().is_some(),
            "its cancel is lost",
        );
        drop((ctx, below_guard));
        let (done, _guard) = base.with_timeout_cause(Duration::ZERO, String::from("past"));
        self.note(done.is_done(), "a deadline in the past");
    }

    /// What holds as soon as a cancel of `top` has returned.
    fn check_cancelled(&self, top: Name, deed: Deed) {
        if deed.drops_everything() || deed.stops() {
            return;
        }
        for bystander in lock(&self.bystanders).iter() {
            assert!(
                !top.reaches(bystander.at) || bystander.told.load(SeqCst) == 1,
                "the bystander at {:?} (waker: {}) was told {} times when cancel returned",
                bystander.at,
                bystander.is_waker,
                bystander.told.load(SeqCst),
            );
        }
    }

    /// Brings everything to its end, and says that nobody came to harm.
    /// A worker may be about to let go of the last handle until `limit`.
    fn finish(self: Arc<World>, deed: Deed, limit: Instant) {
        for name in [Name::Root, Name::Other] {
            if let Some(token) = self.find(name) {
                assert!(
                    !panics(|| _ = token.cancel_with(Cause::from("the end"))),
                    "a panic surfaced later"
                );
                assert!(token.is_cancelled());
            }
        }
        for name in NAMES {
            if let Some(token) = self.find(name) {
                assert!(token.is_cancelled(), "{name:?} was not reached");
                assert!(token.cause().is_some());
                assert!(token.child_token().is_cancelled());
            }
        }
        let futures = std::mem::take(&mut *lock(&self.futures));
        for mut future in futures {
            assert!(
                poll(future.as_mut(), Waker::noop()).is_ready(),
                "a future is not ready"
            );
        }
        self.drop_everything();
        let bystanders = std::mem::take(&mut *lock(&self.bystanders));
        let gone = |bystander: &Arc<Bystander>| bystander.gone.load(SeqCst) == 1;
        while !bystanders.iter().all(gone) && Instant::now() < limit {
            thread::sleep(MS / 10);
        }
        for bystander in &bystanders {
            let (told, gone) = (bystander.told.load(SeqCst), bystander.gone.load(SeqCst));
            let Bystander { at, is_waker, .. } = **bystander;
            assert_eq!(gone, 1, "leaked or dropped twice, at {at:?} ({is_waker})");
            assert!(told <= 1, "told {told} times, at {at:?} ({is_waker})");
            let may_miss = deed.drops_everything() || deed.stops() && !is_waker;
            assert!(told == 1 || may_miss, "lost, at {at:?} (waker: {is_waker})");
        }
        // StopOnDrop does not say what it has done.
        if deed.stops() && deed != Deed::StopOnDrop {
            let callbacks = bystanders.iter().filter(|b| !b.is_waker);
            let ran: usize = callbacks.clone().map(|b| b.told.load(SeqCst)).sum();
            let stopped = self.stopped.load(SeqCst);
            let all = callbacks.count();
            assert!(
                (all..=all + self.strangers.load(SeqCst)).contains(&(ran + stopped)),
                "of {all} callbacks {ran} have run and {stopped} were stopped"
            );
        }
        assert_eq!(*lock(&self.wrong), [""; 0]);
        // A worker may be about to let go.
        while Arc::strong_count(&self) != 1 && Instant::now() < limit {
            thread::sleep(MS / 10);
        }
        assert_eq!(Arc::strong_count(&self), 1);
    }
}

struct Noop;

impl Wake for Noop {
    fn wake(self: Arc<Self>) {}
}

// ----- plays ----------------------------------------------------------------------------------

/// Where a trigger is pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    Plain,
    /// In a destructor that runs because of a panic.
    Unwinding,
    /// In the destructor of a thread-local of the user's, after the library's own are gone.
    ThreadExitOursGone,
    /// … before.
    ThreadExitOursThere,
}

pub type Trigger = Box<dyn FnOnce() + Send>;

/// What becomes of a panic of the hostile code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Panics {
    /// One of them surfaces where the trigger is pulled; none if that thread is unwinding.
    Surface,
    /// It is the user's own call that panics: `poll` when it clones the waker, a closure that is passed in. While
    /// unwinding that is Rust's abort, and not for us to prevent.
    Direct,
    /// Nobody is there to be told: a worker thread, a payload.
    Stay,
    /// The same; but where the machine is slow the deadline may have passed before there was a callback.
    StayIfQuick,
    /// Other code panics here, whatever the deed.
    Always,
}

pub struct Role {
    pub name: &'static str,
    pub panics: Panics,
    /// Which token the trigger cancels.
    pub cancels: Option<Name>,
    /// How often the hostile code runs at least.
    pub least: usize,
    pub set_up: fn(&Arc<World>, Act) -> Trigger,
}

/// Makes the library's thread-locals.
fn use_the_library() {
    let token = CancellationToken::new();
    assert!(!token.blocking_wait_timeout(Duration::ZERO));
    let _ = token.context().with_timeout(FAR);
    assert!(!token.is_cancelled());
}

/// Pulls the trigger in that setting. True: a meant panic came out of it.
pub fn pull(trigger: Trigger, setting: Setting) -> bool {
    struct Unwound(Option<Trigger>);
    impl Drop for Unwound {
        fn drop(&mut self) {
            assert!(thread::panicking());
            self.0.take().expect("once")();
        }
    }
    struct AtExit(Option<(Trigger, mpsc::Sender<bool>)>);
    impl Drop for AtExit {
        fn drop(&mut self) {
            let (trigger, answer) = self.0.take().expect("once");
            answer.send(panics(trigger)).expect("somebody waits");
        }
    }
    thread_local! {
        static AT_EXIT: std::cell::RefCell<AtExit> = const { std::cell::RefCell::new(AtExit(None)) };
    }
    match setting {
        Setting::Plain => panics(trigger),
        Setting::Unwinding => {
            struct First;
            let payload = catch_unwind(AssertUnwindSafe(|| {
                let _unwound = Unwound(Some(trigger));
                std::panic::resume_unwind(Box::new(First));
            }));
            assert!(payload.is_err_and(|payload| payload.is::<First>()));
            false
        }
        Setting::ThreadExitOursGone | Setting::ThreadExitOursThere => {
            let (say, hear) = mpsc::channel();
            let thread = thread::spawn(move || {
                // Destroyed in the opposite order of their first use.
                let set = || AT_EXIT.with(|at| at.borrow_mut().0 = Some((trigger, say)));
                if setting == Setting::ThreadExitOursGone {
                    set();
                    use_the_library();
                } else {
                    use_the_library();
                    set();
                }
            });
            thread.join().expect("a thread that ends");
            hear.recv().expect("run at exit")
        }
    }
}

/// One role, one deed, one setting.
pub fn play(role: &Role, deed: Deed, setting: Setting) {
    let world = World::new();
    world.add_bystanders(deed);
    let act = world.act_of(deed);
    let (begun, over) = (act.begun.clone(), act.over.clone());
    let trigger = (role.set_up)(&world, act);
    world.add_bystanders(deed);
    assert_eq!(begun.load(SeqCst), 0, "too early");

    let panicked = pull(trigger, setting);
    let expected = match role.panics {
        _ if setting == Setting::Unwinding => false,
        Panics::Surface | Panics::Direct => deed.panics(),
        Panics::Stay => false,
        Panics::StayIfQuick => panicked && deed.panics(),
        Panics::Always => true,
    };
    assert_eq!(panicked, expected, "whether a panic surfaces");
    // One may have dropped or stopped the other.
    let least = match deed {
        _ if deed.drops_everything() || deed.stops() => 1,
        // The panic came before the other one was set up.
        _ if role.panics == Panics::StayIfQuick && panicked => 1,
        _ => role.least,
    };
    // Workers run it soon, all others have run it.
    let patience = match role.panics {
        Panics::Stay | Panics::StayIfQuick => PATIENCE,
        _ => Duration::ZERO,
    };
    let limit = Instant::now() + patience;
    while over.load(SeqCst) < least || over.load(SeqCst) != begun.load(SeqCst) {
        assert!(
            Instant::now() < limit,
            "the hostile code ran {} times",
            over.load(SeqCst)
        );
        thread::sleep(MS / 10);
    }
    if let Some(top) = role.cancels {
        world.check_cancelled(top, deed);
    }
    world.finish(deed, limit);
    drop(begun);
    while Arc::strong_count(&over) != 1 {
        assert!(Instant::now() < limit, "the hostile code was leaked");
        thread::sleep(MS / 10);
    }
}
