//! Time as a test has it: it stands until somebody advances it. A clock has the deadlines of the contexts that are under
//! it, in order, and nothing of the service thread's: whoever advances it marks what is due, and then wakes and calls.
//!
//! An entry is armed, fires and is settled by the same word and the same steps as one of the timer's; but for the timer it does not
//! exist, for it is neither LINKED nor QUEUED. In place of the wheel there is a map under a lock. All that puts an entry into it,
//! moves it or takes it out has the lock; an entry leaves it before its node goes (`give_up`), so what is in it may be used
//! by the thread that has the lock.
//!
//! **Under the lock no user code runs.** Marking runs none. What is marked is woken and called when the lock is given back,
//! and wakers are cloned before and dropped after it. The time moves under the lock too, and not before all that is due by
//! then is marked: so a thread that arms a deadline finds that it has passed, or is found by the one that moves the time.

use super::clock;
use super::entry::{Entry, Seen};
use crate::sync::{
    Acquire, Arc, AtomicU64, Mutex, MutexGuard, OfUser, Panics, Release, UnsafeCell,
};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::future::Future;
use core::mem;
use core::pin::Pin;
use core::ptr::{self, NonNull};
use core::task::{Context, Poll, Waker};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// The time does not go further: 292 years.
const END: u64 = i64::MAX as u64;

/// A clock of tests: a handle of it.
#[derive(Clone)]
pub(crate) struct Clock(Arc<Shared>);

struct Shared {
    /// In nanoseconds, as `clock::nanos` counts them. Written under the lock.
    now: AtomicU64,
    state: Mutex<State>,
}

struct State {
    alarms: BTreeMap<Key, Registered>,
    /// How many have been set, and how many futures have been made.
    numbers: u64,
    watchers: Vec<Watcher>,
}

/// When it is due, in nanoseconds; and its number, for those of one instant are taken in the order in which they were set.
type Key = (u64, u64);

#[derive(Clone, Copy)]
struct Registered {
    entry: NonNull<Entry>,
    alarm: NonNull<Alarm>,
}

// SAFETY: a thread that has the lock may use what is registered.
unsafe impl Send for State {}

/// Beside the entry of a token that is under a clock: that clock, and where the entry is in it.
pub(crate) struct Alarm {
    clock: Clock,
    /// Used under the lock.
    key: UnsafeCell<Option<Key>>,
}

/// Where a token keeps its alarm: empty if it is not known to be under a clock.
pub(crate) struct AlarmCell(UnsafeCell<Option<Box<Alarm>>>);

/// One that waits for so many deadlines to be set.
struct Watcher {
    number: u64,
    least: usize,
    waker: OfUser<Waker>,
}

/// Deadlines that have been marked, to be woken and called: each by its pointer, FIRING.
struct Fired(Vec<NonNull<Entry>>);

impl Clock {
    /// It stands at the moment at which it is made.
    pub(crate) fn new() -> Clock {
        let now = clock::nanos(clock::now());
        Clock(Arc::new(Shared {
            now: AtomicU64::new(now),
            state: Mutex::new(State {
                alarms: BTreeMap::new(),
                numbers: 0,
                watchers: Vec::new(),
            }),
        }))
    }

    pub(crate) fn nanos(&self) -> u64 {
        // Acquire: pairs with `set_now`. Whoever sees the time sees what it has cancelled.
        self.0.now.load(Acquire)
    }

    pub(crate) fn now(&self) -> Instant {
        instant_at(self.nanos())
    }

    /// The time, not before that of what is being marked: whoever has seen a mark sees when that was.
    pub(crate) fn now_marked(&self) -> Instant {
        let _state = self.lock();
        self.now()
    }

    pub(crate) fn is_same(one: &Option<Clock>, other: &Option<Clock>) -> bool {
        match (one, other) {
            (Some(one), Some(other)) => one.address() == other.address(),
            (None, None) => true,
            _ => false,
        }
    }

    fn address(&self) -> *const () {
        ptr::from_ref::<Shared>(&self.0).cast()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that panics runs under it, but for want of memory.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The caller has the lock.
    fn set_now(&self, now: u64) {
        // Release: pairs with `nanos`.
        self.0.now.store(now, Release);
    }

    // ----- advancing it ---------------------------------------------------------------------------

    /// Moves the time on by so many nanoseconds, from one deadline to the next: what is due at one instant is marked, woken and
    /// called before the time moves on. All that others move it meanwhile, callbacks included, comes on top.
    pub(crate) fn advance(&self, by: u64) {
        let mut panics = Panics::default();
        let mut left = by;
        while let Some(fired) = self.step(&mut left) {
            fired.end(&mut panics);
        }
        panics.resume();
    }

    /// To the next deadline, if it is not further than `left`, which becomes less by it; otherwise by what is left.
    fn step(&self, left: &mut u64) -> Option<Fired> {
        let mut state = self.lock();
        let now = self.nanos();
        let next = state.next().map(|at| at.max(now));
        match next.filter(|at| *at <= END && at - now <= *left) {
            Some(at) => {
                *left -= at - now;
                let fired = state.fire(at);
                self.set_now(at);
                Some(fired)
            }
            None => {
                self.set_now(now.saturating_add(*left).min(END));
                None
            }
        }
    }

    /// Moves the time on to the next deadline, if there is one. The answer is by how much.
    pub(crate) fn advance_to_next(&self) -> Option<Duration> {
        let (by, fired) = {
            let mut state = self.lock();
            let now = self.nanos();
            let at = state.next().filter(|at| *at <= END)?.max(now);
            let fired = state.fire(at);
            self.set_now(at);
            (at - now, fired)
        };
        let mut panics = Panics::default();
        fired.end(&mut panics);
        panics.resume();
        Some(Duration::from_nanos(by))
    }

    // ----- what it says -----------------------------------------------------------------------

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.lock().next().map(instant_at)
    }

    /// How many deadlines are there that have not passed.
    pub(crate) fn deadlines(&self) -> usize {
        self.lock().count()
    }

    /// A future that is ready when there are so many.
    pub(crate) fn watch(&self, least: usize) -> Watch {
        Watch {
            clock: self.clone(),
            least,
            number: None,
            is_ready: false,
        }
    }
}

fn instant_at(nanos: u64) -> Instant {
    // What the clock cannot express has not been reached by it: END.
    clock::instant_at(nanos).unwrap_or_else(clock::now)
}

impl State {
    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// When the next deadline is due. What has been put off by use, or is not needed any more, is put in order by that.
    fn next(&mut self) -> Option<u64> {
        loop {
            let (&key, &registered) = self.alarms.first_key_value()?;
            match registered.due(key.0) {
                Some(at) if at == key.0 => return Some(at),
                later => self.put(registered, later),
            }
        }
    }

    /// Puts it where it belongs; `None`: nowhere.
    fn put(&mut self, registered: Registered, at: Option<u64>) {
        // SAFETY: registered, or about to be, and the lock is ours.
        let alarm = unsafe { registered.alarm.as_ref() };
        let new = at.map(|at| (at, self.number()));
        // SAFETY: under the lock.
        let old = alarm
            .key
            .with_mut(|key| unsafe { mem::replace(&mut *key, new) });
        if let Some(old) = old {
            self.alarms.remove(&old);
        }
        if let Some(new) = new {
            self.alarms.insert(new, registered);
        }
    }

    /// Marks what is due by then, in order.
    fn fire(&mut self, by: u64) -> Fired {
        let mut fired = Vec::new();
        while self.next().is_some_and(|at| at <= by) {
            let Some((_, &registered)) = self.alarms.first_key_value() else {
                break;
            };
            let entry = registered.entry;
            // SAFETY: registered, and the lock is ours. FIRING by the step, it is ours until `Fired::end`.
            unsafe {
                if !entry.as_ref().begin(entry.as_ref().look()) {
                    // The last owner was faster: `next` takes it out.
                    continue;
                }
                self.put(registered, None);
                entry.as_ref().set_notes(ptr::null_mut());
                while !Entry::mark(entry, usize::MAX) {}
            }
            fired.push(entry);
        }
        Fired(fired)
    }

    /// What is not needed any more is taken out, so that it is counted once.
    fn count(&mut self) -> usize {
        self.alarms.retain(|key, registered| {
            let is_needed = registered.due(key.0).is_some();
            if !is_needed {
                // SAFETY: registered, and the lock is ours.
                let alarm = unsafe { registered.alarm.as_ref() };
                // SAFETY: under the lock.
                alarm.key.with_mut(|key| unsafe { *key = None });
            }
            is_needed
        });
        self.alarms.len()
    }

    /// Takes out those that have waited for as many deadlines as there are now.
    fn take_content(&mut self) -> Vec<Watcher> {
        // Counting takes a look at each, which is not worth it at each one that is set on the way there.
        let all = self.alarms.len();
        if !self.watchers.iter().any(|watcher| watcher.least <= all) {
            return Vec::new();
        }
        let count = self.count();
        let all = mem::take(&mut self.watchers);
        let (content, others) = all.into_iter().partition(|w| w.least <= count);
        self.watchers = others;
        content
    }
}

impl Registered {
    /// When it is due, if that was to be at `at`. `None`: nobody needs it any more.
    fn due(&self, at: u64) -> Option<u64> {
        // SAFETY: registered, and the lock is the caller's.
        unsafe {
            if !self.entry.as_ref().look().is_armed() {
                return None;
            }
            Entry::due_apart(self.entry, at)
        }
    }
}

impl Fired {
    /// Wakes tasks and threads, then calls callbacks. The lock is not the caller's.
    fn end(self, panics: &mut Panics) {
        for entry in &self.0 {
            // SAFETY: FIRING by `fire`, and marked through.
            panics.catch(|| unsafe { Entry::wake(*entry) });
        }
        for entry in self.0 {
            // SAFETY: the same, and woken. It is not used again.
            panics.catch(|| unsafe { Entry::call(entry) });
        }
    }
}

impl Alarm {
    pub(crate) fn clock(&self) -> Clock {
        self.clock.clone()
    }

    /// Arms the entry beside it, about `owner`, for so many nanoseconds. False: that has passed, and nothing is armed.
    ///
    /// # Safety
    /// The caller owns the entry, which has never been armed, and keeps it where it is; the pointer may be used for what the
    /// entry is a part of. `owner` is good until it is disarmed or finished.
    pub(crate) unsafe fn arm(&self, entry: NonNull<Entry>, owner: *mut (), at: u64) -> bool {
        let content = {
            let mut state = self.clock.lock();
            if at <= self.clock.nanos() {
                return false;
            }
            // SAFETY: the caller's promise.
            unsafe { entry.as_ref() }.arm_apart(owner, clock::moment_of(at));
            state.put(self.registered(entry), Some(at));
            state.take_content()
        };
        wake(content);
        true
    }

    /// Moves the deadline of the entry beside it, or takes it away, if its word still is what was seen; if not, the answer is
    /// what it is.
    ///
    /// # Safety
    /// As for `arm`; the caller keeps what the entry is about, and has seen that it is not FIRING. Its owner is set.
    pub(crate) unsafe fn move_to(
        &self,
        entry: NonNull<Entry>,
        seen: Seen,
        to: Option<u64>,
    ) -> Result<(), Seen> {
        let content = {
            let mut state = self.clock.lock();
            // SAFETY: the caller's promise.
            unsafe { entry.as_ref() }.move_apart(seen, to.map(clock::moment_of))?;
            state.put(self.registered(entry), to);
            state.take_content()
        };
        wake(content);
        Ok(())
    }

    /// If the deadline has been moved to what is past, it fires now.
    pub(crate) fn catch_up(&self, to: Option<u64>) {
        if to.is_some_and(|to| to <= self.clock.nanos()) {
            self.clock.advance(0);
        }
    }

    fn registered(&self, entry: NonNull<Entry>) -> Registered {
        Registered {
            entry,
            alarm: NonNull::from(self),
        }
    }
}

/// User code.
fn wake(content: Vec<Watcher>) {
    let mut panics = Panics::default();
    for watcher in content {
        panics.catch(|| watcher.waker.into_inner().wake());
    }
    panics.resume();
}

impl AlarmCell {
    pub(crate) fn new() -> AlarmCell {
        AlarmCell(UnsafeCell::new(None))
    }

    #[inline]
    pub(crate) fn get(&self) -> Option<&Alarm> {
        // SAFETY: written before its token was shared, and emptied by its last owner.
        self.0.with(|alarm| unsafe { (*alarm).as_deref() })
    }

    /// # Safety
    /// The token is the caller's alone, and there is none yet.
    pub(crate) unsafe fn put(&self, clock: Clock) {
        let alarm = Box::new(Alarm {
            clock,
            key: UnsafeCell::new(None),
        });
        // SAFETY: the caller's promise.
        self.0.with_mut(|a| unsafe { *a = Some(alarm) });
    }

    /// Takes the entry out of the clock, and lets that go.
    ///
    /// # Safety
    /// The caller is the token's last owner, and the entry's trigger is settled.
    #[inline]
    pub(crate) unsafe fn give_up(&self) {
        if let Some(alarm) = self.get() {
            alarm.leave();
            // SAFETY: the caller's promise; the clock does not know it any more.
            drop(self.0.with_mut(|alarm| unsafe { (*alarm).take() }));
        }
    }
}

impl Alarm {
    fn leave(&self) {
        let mut state = self.clock.lock();
        // SAFETY: under the lock.
        if let Some(key) = self.key.with_mut(|key| unsafe { (*key).take() }) {
            state.alarms.remove(&key);
        }
    }
}

/// Ready when so many deadlines are set.
pub(crate) struct Watch {
    clock: Clock,
    least: usize,
    /// Of what it has left in the clock.
    number: Option<u64>,
    is_ready: bool,
}

impl State {
    fn take_watcher(&mut self, number: u64) -> Option<Watcher> {
        let at = self.watchers.iter().position(|w| w.number == number)?;
        Some(self.watchers.swap_remove(at))
    }
}

impl Future for Watch {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let mut waker = Some(OfUser::new(cx.waker().clone()));
        let mut state = this.clock.lock();
        let before = this.number.take().and_then(|n| state.take_watcher(n));
        this.is_ready |= state.count() >= this.least;
        if !this.is_ready {
            let number = state.number();
            this.number = Some(number);
            state.watchers.extend(waker.take().map(|waker| Watcher {
                number,
                least: this.least,
                waker,
            }));
        }
        drop(state);
        // User code.
        drop((before, waker));
        match this.is_ready {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let left = self.number.take().and_then(|number| {
            let mut state = self.clock.lock();
            state.take_watcher(number)
        });
        drop(left);
    }
}
