//! The limit: how many tasks at once, and what waits for room, in order of arrival.
//!
//! Nobody waits for a lock: the queue belongs to whoever has the *turn*, and whoever comes meanwhile leaves a note in the word,
//! for which the one at it takes another turn (as `Drive` does in context/foreign.rs). New arrivals and those that give up are
//! strung on two stacks, from which the turn takes them. A waiter that gives up is taken out of the middle of the queue, so
//! memory is for those that wait.

use crate::sync::{
    AcqRel, Acquire, Arc, AtomicPtr, AtomicU64, AtomicU8, AtomicUsize, OneWaiter, Panics, Relaxed,
    Release, UnsafeCell,
};
use core::ptr;
use core::task::{Poll, Waker};

/// | bits | |
/// | --- | --- |
/// | 0, 1 | IDLE, BUSY, or AGAIN: whose turn it is |
/// | 2 | CLOSED |
/// | 3 to 31 | the waiters |
/// | 32 to 63 | permits that are out |
const IDLE: u64 = 0;
const BUSY: u64 = 1;
const AGAIN: u64 = 2;
const ROLE: u64 = 3;
const CLOSED: u64 = 4;
const WAITER: u64 = 8;
const WAITERS: u64 = (PERMIT - 1) & !7;
const PERMIT: u64 = 1 << 32;

/// What a waiter has come to.
const WAITING: u8 = 0;
const GRANTED: u8 = 1;
const REFUSED: u8 = 2;
const GONE: u8 = 3;

/// Without a limit.
const NONE: usize = usize::MAX;

pub(super) struct Limit {
    limit: AtomicUsize,
    word: AtomicU64,
    arrived: AtomicPtr<Waiting>,
    given_up: AtomicPtr<Waiting>,
    /// Of whoever has the turn.
    queue: UnsafeCell<Queue>,
}

// SAFETY: `queue`, the only field that is not Sync, is touched by whoever has the turn.
unsafe impl Sync for Limit {}
// SAFETY: what the queue points to is Send: see `Waiting`.
unsafe impl Send for Limit {}

struct Queue {
    first: *mut Waiting,
    last: *mut Waiting,
}

/// One that waits: counted by it and by the queue.
struct Waiting {
    state: AtomicU8,
    waiter: OneWaiter,
    links: UnsafeCell<Links>,
    /// In the stack of those that have given up.
    next_given_up: AtomicPtr<Waiting>,
    /// In the stack of arrivals; then, out of the queue, in the list of those to be woken.
    next: AtomicPtr<Waiting>,
    #[cfg(any(cancel_tree_loom, cancel_tree_shuttle))]
    _leak: crate::sync::Track<()>,
}

// SAFETY: `links` are of whoever has the turn.
unsafe impl Sync for Waiting {}
// SAFETY: as above; the pointers are to counted values of this type.
unsafe impl Send for Waiting {}

/// In the queue.
struct Links {
    before: *mut Waiting,
    after: *mut Waiting,
    is_queued: bool,
}

/// Someone's wait for room.
#[derive(Default)]
pub(super) struct Wait(Option<Arc<Waiting>>);

/// Those whose wait is over, in a list of their counts, the last to arrive first: to be woken when nothing is held.
#[must_use = "they sleep on"]
pub(super) struct Answered(*mut Waiting);

// SAFETY: the list is its own, of counts of what is Send and Sync.
unsafe impl Send for Answered {}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoRoom {
    Full,
    Closed,
}

impl Limit {
    pub(super) fn new() -> Limit {
        Limit {
            limit: AtomicUsize::new(NONE),
            word: AtomicU64::new(IDLE),
            arrived: AtomicPtr::new(ptr::null_mut()),
            given_up: AtomicPtr::new(ptr::null_mut()),
            queue: UnsafeCell::new(Queue {
                first: ptr::null_mut(),
                last: ptr::null_mut(),
            }),
        }
    }

    #[inline]
    pub(super) fn is_set(&self) -> bool {
        // Relaxed: whoever sets it while others start tasks has no order to ask for.
        self.limit.load(Relaxed) != NONE
    }

    pub(super) fn set(&self, limit: usize) -> Answered {
        // Relaxed: the turn that follows sees the new limit by way of the word.
        self.limit.store(limit, Relaxed);
        self.take_turns()
    }

    fn has_room(&self, word: u64) -> bool {
        // Relaxed: `set` takes a step on the word after its store, and the turn that follows acquires that.
        let limit = self.limit.load(Relaxed);
        limit == NONE || word / PERMIT < limit as u64
    }

    /// A permit at once, unless others wait for one.
    pub(super) fn try_take(&self) -> Result<(), NoRoom> {
        // Relaxed: a guess, which the CAS below checks.
        let mut seen = self.word.load(Relaxed);
        loop {
            if seen & CLOSED != 0 {
                return Err(NoRoom::Closed);
            }
            if seen & WAITERS != 0 || !self.has_room(seen) {
                return Err(NoRoom::Full);
            }
            // Acquire: pairs with `give_back`; whoever comes after a task sees what it did.
            match self
                .word
                .compare_exchange_weak(seen, seen + PERMIT, Acquire, Relaxed)
            {
                Ok(_) => return Ok(()),
                Err(now) => seen = now,
            }
        }
    }

    /// Gives a permit back, which goes to whoever waits first.
    pub(super) fn give_back(&self) -> Answered {
        // Release: pairs with `try_take` and with the turn that hands the permit on. Of this step and that by which a waiter
        // counts itself, the later sees the earlier.
        let seen = self.word.fetch_sub(PERMIT, Release);
        match seen & WAITERS {
            0 => Answered::nobody(),
            _ => self.take_turns(),
        }
    }

    /// Nobody gets a permit any more.
    pub(super) fn close(&self) -> Answered {
        // Relaxed: it is about the bit alone, which the turn that follows sees.
        self.word.fetch_or(CLOSED, Relaxed);
        self.take_turns()
    }

    fn push(stack: &AtomicPtr<Waiting>, link: &AtomicPtr<Waiting>, waiting: *mut Waiting) {
        // Relaxed: a guess, which the CAS below checks.
        let mut seen = stack.load(Relaxed);
        loop {
            // Relaxed: published by the CAS below.
            link.store(seen, Relaxed);
            // Release: pairs with the turn's swap. What is linked to comes with it, by the release sequence: all steps on a
            // stack are RMWs.
            match stack.compare_exchange_weak(seen, waiting, Release, Relaxed) {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
    }

    /// Does what there is to do, or leaves it to whoever is at it.
    fn take_turns(&self) -> Answered {
        // Relaxed: a guess, which the CAS below checks.
        let mut seen = self.word.load(Relaxed);
        loop {
            let role = if seen & ROLE == IDLE { BUSY } else { AGAIN };
            // AcqRel, by an RMW also where AGAIN is set: the release half tells whoever has the turn of what we have left, the
            // acquire half takes the queue over from whoever had it.
            match self
                .word
                .compare_exchange_weak(seen, seen & !ROLE | role, AcqRel, Relaxed)
            {
                Ok(_) if role == BUSY => break,
                Ok(_) => return Answered::nobody(),
                Err(now) => seen = now,
            }
        }
        let mut answered = Answered::nobody();
        loop {
            self.turn(&mut answered);
            // Relaxed: a guess, which the CAS below checks.
            let mut seen = self.word.load(Relaxed);
            let again = loop {
                let is_again = seen & ROLE == AGAIN;
                let role = if is_again { BUSY } else { IDLE };
                // AcqRel: the release half hands the queue on to whoever takes the turn next, the acquire half pairs with
                // whoever has set AGAIN.
                match self
                    .word
                    .compare_exchange_weak(seen, seen & !ROLE | role, AcqRel, Relaxed)
                {
                    Ok(_) => break is_again,
                    Err(now) => seen = now,
                }
            };
            if !again {
                return answered;
            }
        }
    }

    /// By whoever has the turn.
    fn turn(&self, answered: &mut Answered) {
        self.queue.with_mut(|queue| {
            // SAFETY: the turn is ours.
            let queue = unsafe { &mut *queue };
            // Those that gave up first: each had arrived before, so it is in the queue when the arrivals have been
            // taken in. Acquire: pairs with `push`.
            let mut gone = self.given_up.swap(ptr::null_mut(), Acquire);
            self.take_in(queue);
            while !gone.is_null() {
                // SAFETY: the count of whoever gave up came with the stack.
                let waiting = unsafe { Arc::from_raw(gone.cast_const()) };
                // Relaxed: stored before the push, which the swap has acquired.
                gone = waiting.next_given_up.load(Relaxed);
                // SAFETY: the turn is ours, and so are the links.
                if waiting.links.with(|links| unsafe { (*links).is_queued }) {
                    let at = Arc::as_ptr(&waiting).cast_mut();
                    // SAFETY: it is in the queue.
                    drop(unsafe { self.unlink(queue, at) });
                }
            }
            self.grant(queue, answered);
        });
    }

    fn take_in(&self, queue: &mut Queue) {
        // Acquire: pairs with `push`.
        let mut newest = self.arrived.swap(ptr::null_mut(), Acquire);
        let mut oldest: *mut Waiting = ptr::null_mut();
        while !newest.is_null() {
            // SAFETY: the queue's count of each came with the stack.
            let waiting = unsafe { &*newest };
            // Relaxed, here and below: stored before the push, which the swap has acquired; then the turn's.
            let next = waiting.next.load(Relaxed);
            waiting.next.store(oldest, Relaxed);
            oldest = newest;
            newest = next;
        }
        while !oldest.is_null() {
            // SAFETY: as above.
            let waiting = unsafe { &*oldest };
            let next = waiting.next.load(Relaxed);
            let links = Links {
                before: queue.last,
                after: ptr::null_mut(),
                is_queued: true,
            };
            // SAFETY: the turn is ours, and so are the links.
            waiting.links.with_mut(|own| unsafe { *own = links });
            match queue.last.is_null() {
                true => queue.first = oldest,
                // SAFETY: what is in the queue is counted by it; as above.
                false => unsafe { (*queue.last).links.with_mut(|l| (*l).after = oldest) },
            }
            queue.last = oldest;
            oldest = next;
        }
    }

    /// # Safety
    /// The turn is the caller's, and `at` is in the queue.
    unsafe fn unlink(&self, queue: &mut Queue, at: *mut Waiting) -> Arc<Waiting> {
        // SAFETY: the queue's count.
        let waiting = unsafe { Arc::from_raw(at.cast_const()) };
        // SAFETY: the turn is the caller's, and so are the links, here and of the neighbours, which are counted.
        unsafe {
            let (before, after) = waiting.links.with_mut(|links| {
                (*links).is_queued = false;
                ((*links).before, (*links).after)
            });
            match before.is_null() {
                true => queue.first = after,
                false => (*before).links.with_mut(|links| (*links).after = after),
            }
            match after.is_null() {
                true => queue.last = before,
                false => (*after).links.with_mut(|links| (*links).before = before),
            }
        }
        // Relaxed: it orders nothing; the turn's end does.
        self.word.fetch_sub(WAITER, Relaxed);
        waiting
    }

    /// Hands out what there is.
    fn grant(&self, queue: &mut Queue, answered: &mut Answered) {
        while !queue.first.is_null() {
            // Relaxed: a guess, which the CAS below checks.
            let mut seen = self.word.load(Relaxed);
            let answer = loop {
                if seen & CLOSED != 0 {
                    break REFUSED;
                }
                if !self.has_room(seen) {
                    return;
                }
                // Acquire: pairs with `give_back`. A permit is counted before it is granted.
                match self
                    .word
                    .compare_exchange_weak(seen, seen + PERMIT, Acquire, Relaxed)
                {
                    Ok(_) => break GRANTED,
                    Err(now) => seen = now,
                }
            };
            // SAFETY: it is in the queue.
            let waiting = unsafe { self.unlink(queue, queue.first) };
            // Release: pairs with `poll`, which gets the permit with what its former owners did. Failure: of this step and
            // that of the one that gives up one is the first, and that is all.
            let state = &waiting.state;
            if state
                .compare_exchange(WAITING, answer, Release, Relaxed)
                .is_ok()
            {
                // Relaxed: read by this thread, in `wake`.
                waiting.next.store(answered.0, Relaxed);
                answered.0 = Arc::into_raw(waiting).cast_mut();
            } else if answer == GRANTED {
                // It has given up; it, or the next turn, finds it in the other stack and out of the queue.
                // Relaxed: what was done with the permit was released by `give_back`, whose release sequence this goes on with.
                self.word.fetch_sub(PERMIT, Relaxed);
            }
        }
    }
}

impl Answered {
    fn nobody() -> Answered {
        Answered(ptr::null_mut())
    }

    /// In order of arrival. The limit may be gone.
    pub(super) fn wake(self, panics: &mut Panics) {
        let (mut newest, mut to_wake) = (self.0, ptr::null_mut::<Waiting>());
        while !newest.is_null() {
            // SAFETY: the queue's count of each came with the list.
            let next = unsafe { &(*newest).next };
            let older = next.load(Relaxed);
            next.store(to_wake, Relaxed);
            to_wake = newest;
            newest = older;
        }
        // User code.
        while !to_wake.is_null() {
            // SAFETY: the queue's count of each came with the list.
            let waiting = unsafe { Arc::from_raw(to_wake.cast_const()) };
            // Relaxed: this thread's own list, linked in `grant`.
            to_wake = waiting.next.load(Relaxed);
            panics.catch(|| waiting.waiter.wake());
            panics.catch(|| drop(waiting));
        }
    }
}

impl Wait {
    pub(super) fn is_new(&self) -> bool {
        self.0.is_none()
    }

    /// Ready with a permit, or with the reason why there will be none. After a panic, which is a waker's, it waits as before.
    pub(super) fn poll(&mut self, limit: &Limit, waker: &Waker) -> Poll<Result<(), NoRoom>> {
        if self.0.is_none() {
            match limit.try_take() {
                Err(NoRoom::Full) => {}
                answer => return Poll::Ready(answer),
            }
            let waiting = Arc::new(Waiting {
                state: AtomicU8::new(WAITING),
                waiter: OneWaiter::default(),
                links: UnsafeCell::new(Links {
                    before: ptr::null_mut(),
                    after: ptr::null_mut(),
                    is_queued: false,
                }),
                next_given_up: AtomicPtr::new(ptr::null_mut()),
                next: AtomicPtr::new(ptr::null_mut()),
                #[cfg(any(cancel_tree_loom, cancel_tree_shuttle))]
                _leak: crate::sync::Track::new(()),
            });
            waiting.waiter.register(waker);
            let queued = Arc::into_raw(waiting.clone()).cast_mut();
            // Relaxed: of this step and the one that gives a permit back or closes, the later sees the earlier. Counted
            // before it arrives (the push's Release): a turn takes it out again only after.
            limit.word.fetch_add(WAITER, Relaxed);
            Limit::push(&limit.arrived, &waiting.next, queued);
            self.0 = Some(waiting);
            let mut panics = Panics::default();
            limit.take_turns().wake(&mut panics);
            panics.resume();
        } else if let Some(waiting) = &self.0 {
            waiting.waiter.register(waker);
        }
        let Some(waiting) = &self.0 else {
            return Poll::Pending;
        };
        // Acquire: pairs with `grant`.
        match waiting.state.load(Acquire) {
            WAITING => Poll::Pending,
            answer => {
                // User code, while what came is still the wait's. Nothing is left for the drop of a count.
                drop(waiting.waiter.take());
                self.0 = None;
                Poll::Ready(match answer {
                    GRANTED => Ok(()),
                    _ => Err(NoRoom::Closed),
                })
            }
        }
    }

    /// Gives up: a permit that has come meanwhile goes back.
    pub(super) fn leave(&mut self, limit: &Limit, panics: &mut Panics) {
        let Some(waiting) = self.0.take() else {
            return;
        };
        let waker = waiting.waiter.take();
        // Relaxed, both: of this step and the turn's one is the first, and that is all. What was done with a permit that goes
        // back at once is in the word's release sequence.
        match waiting
            .state
            .compare_exchange(WAITING, GONE, Relaxed, Relaxed)
        {
            Ok(_) => {
                let raw = Arc::into_raw(waiting).cast_mut();
                // SAFETY: counted, and the count goes with the stack.
                Limit::push(&limit.given_up, unsafe { &(*raw).next_given_up }, raw);
                limit.take_turns().wake(panics);
            }
            Err(GRANTED) => limit.give_back().wake(panics),
            Err(_) => {}
        }
        panics.catch(|| drop(waker));
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        // What has given up was taken out by a turn that followed, and a wait that goes on holds the group: so whoever is
        // here was forgotten (`mem::forget`). Its waker goes by being woken.
        // Relaxed: nobody else has it any more.
        let are_forgotten = self.word.load(Relaxed) & WAITERS != 0;
        #[cfg(cancel_tree_loom)]
        assert!(!are_forgotten, "no model forgets anybody");
        if are_forgotten {
            let mut panics = Panics::default();
            self.close().wake(&mut panics);
            panics.resume();
        }
    }
}
