//! A node's own deadline, and its foreign parent: what may cancel it from outside the tree.
//!
//! The deadline's entry in the timer is part of the node's extension and outlives the node: when the
//! node goes, the extension goes to a pool, entry and all, for the next deadline that is
//! set on the thread that made it. `timer/entry.rs` and `timer/pool.rs` say why.

use super::cancel::{self, Cancel};
use super::cause::{Cause, ContextError};
use super::extension::{AnyOf, Extension};
use super::moving::Moving;
use super::timing::{Beside, Foreign, Signal, Starter, Target, Timing};
use super::word::State;
use super::{reclaim, start, Handle, Node};
use crate::sync::{Arc, Panics};
use crate::timer::clock::{self, Moment};
use crate::timer::entry::{Entry, Table, NEVER};
use crate::timer::job::Job;
use crate::timer::testing::{Alarm, Clock};
use crate::timer::trigger::Trigger;
use crate::timer::{self, pool};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::any::Any;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

static IS_ANY_BELOW_FOREIGN: AtomicBool = AtomicBool::new(false);

/// Whether there was ever a token whose deadline can be set later on.
static IS_ANY_MOVABLE: AtomicBool = AtomicBool::new(false);

/// How late the timer may be before a thread that waits acts on a deadline itself: 0.96 ms, which is less than it sleeps meanwhile.
const PATIENCE: Moment = 15_000;

/// What the timer does about the deadline of a node.
static TABLE: Table = Table {
    mark,
    wake,
    call,
    put_off,
    stands_for: None,
    free,
    #[cfg(feature = "testing")]
    due_apart,
};

/// # Safety
/// `Table::mark`.
unsafe fn mark(entry: NonNull<Entry>, budget: usize) -> bool {
    // SAFETY: FIRING keeps entry and node, until `call`.
    let (this, node) = unsafe { (entry.as_ref(), node_of(entry)) };
    let notes = this.notes();
    let mut cancel = if notes.is_null() {
        if let Some(timing) = node.link.extension().map(|extension| &extension.timing) {
            timing.note_due(this.look().deadline());
        }
        note_passed(node, this);
        // SAFETY: as above. The extension keeps the cause.
        unsafe { Cancel::begin(NonNull::from(node), deadline_cause(node)) }
    } else {
        // SAFETY: put there below, and taken out once.
        *unsafe { Box::from_raw(notes.cast::<Cancel>()) }
    };
    let through = cancel.mark(budget);
    let notes = match through.then(|| cancel.plain_rest()).flatten() {
        Some(rest) => ptr::without_provenance_mut(rest << 1 | PLAIN),
        None => Box::into_raw(Box::new(cancel)).cast(),
    };
    this.set_notes(notes);
    through
}

/// The notes are a number, and not a pointer.
const PLAIN: usize = 1;

/// Goes on with what `mark` has left.
///
/// # Safety
/// `mark` is through, and nobody else is at it.
unsafe fn go_on(entry: NonNull<Entry>, step: impl FnOnce(&mut Cancel)) {
    // SAFETY: FIRING keeps entry and node.
    let (notes, node) = unsafe { (entry.as_ref().notes(), node_of(entry)) };
    if notes.addr() & PLAIN != 0 {
        // SAFETY: of this node, by `mark`.
        step(&mut unsafe { Cancel::of_rest(NonNull::from(node), notes.addr() >> 1) });
    } else {
        // SAFETY: a box by `mark`, ours for now.
        step(unsafe { &mut *notes.cast::<Cancel>() });
    }
}

/// # Safety
/// `Table::wake`.
unsafe fn wake(entry: NonNull<Entry>) {
    let mut panics = Panics::default();
    // SAFETY: the caller's promise.
    unsafe { go_on(entry, |cancel| cancel.wake(&mut panics)) };
    panics.resume();
}

/// # Safety
/// `Table::call`.
unsafe fn call(entry: NonNull<Entry>) {
    let mut panics = Panics::default();
    // SAFETY: FIRING keeps entry and node; what `mark` has left is taken out once. After `finish` the entry may be gone,
    // and the node, if no handle is left to us.
    unsafe {
        let node = NonNull::from(node_of(entry));
        go_on(entry, |cancel| cancel.call(&mut panics));
        let notes = entry.as_ref().notes();
        if notes.addr() & PLAIN == 0 {
            drop(Box::from_raw(notes.cast::<Cancel>()));
        }
        if entry.as_ref().trigger().finish() {
            panics.catch(|| reclaim::release(node));
        }
    }
    panics.resume();
}

/// # Safety
/// `Table::put_off`.
unsafe fn put_off(entry: NonNull<Entry>) -> Option<Moment> {
    // SAFETY: FIRING keeps entry and node.
    let (this, node) = unsafe { (entry.as_ref(), node_of(entry)) };
    let moving = node.link.extension()?.timing.moving()?;
    moving.put_off(this.look().deadline())
}

/// # Safety
/// `Table::due_apart`.
#[cfg(feature = "testing")]
unsafe fn due_apart(entry: NonNull<Entry>, at: u64) -> Option<u64> {
    // SAFETY: registered: so the last owner has not been here, and the node and the whole extension, which the entry is the
    // first field of, stay while the clock's lock is the caller's.
    let (timing, node) = unsafe { (entry.cast::<Timing>().as_ref(), node_of(entry)) };
    if node.word.load().is_cancelled() {
        return None;
    }
    let idle = timing.moving().and_then(Moving::idle_due);
    Some(idle.map_or(at, |due| due.max(at)))
}

/// # Safety
/// `Table::free`.
unsafe fn free(entry: NonNull<Entry>) {
    // SAFETY: the first field of an extension, which nobody else has; the pointer is to all of it.
    unsafe { Extension::free(entry.cast()) };
}

/// # Safety
/// The entry is FIRING.
unsafe fn node_of<'a>(entry: NonNull<Entry>) -> &'a Node {
    // SAFETY: FIRING keeps the node.
    unsafe { &*entry.as_ref().owner().cast() }
}

/// What cancels the node is its deadline. Unless it is cancelled already.
fn note_passed(node: &Node, entry: &Entry) {
    if !node.word.load().is_cancelled() {
        entry.note_passed();
    }
}

/// Why a node is cancelled when its own deadline passes.
fn deadline_cause(node: &Node) -> Cause {
    let cause = node.link.extension().and_then(|extension| {
        // SAFETY: written before the deadline was armed.
        extension.timing.cause.with(|c| unsafe { (*c).clone() })
    });
    cause.unwrap_or(ContextError::DeadlineExceeded.into())
}

/// What is left of a cancel by a thread that has noticed a deadline before the timer did. `repr(C)`: found by its first
/// field.
#[repr(C)]
struct Rest {
    job: Job,
    cancel: Cancel,
    /// Keeps what is cancelled, which is this token or above it.
    kept: Handle,
    /// A deadline that can be moved is FIRING meanwhile.
    fires: Option<NonNull<Node>>,
}

impl Rest {
    /// To a worker.
    fn hand_on(cancel: Cancel, kept: Handle, fires: Option<NonNull<Node>>) {
        let rest = Box::new(Rest {
            job: Job::that_wakes(Rest::wake_by_job, Rest::run_job),
            cancel,
            kept,
            fires,
        });
        // SAFETY: the job is the box's, which is the job's from now on. The first field is where the whole is.
        unsafe { timer::run_on_worker(NonNull::from(Box::leak(rest)).cast()) };
    }

    /// # Safety
    /// `job` is one that `hand_on` has given to a worker, and has not been run.
    unsafe fn wake_by_job(job: NonNull<Job>) {
        // SAFETY: the box that was given away, of which the job is the first field; nobody else is at it.
        let rest = unsafe { job.cast::<Rest>().as_mut() };
        let mut panics = Panics::default();
        rest.cancel.wake(&mut panics);
        panics.resume();
    }

    /// # Safety
    /// `job` is one that `hand_on` has given to a worker, and has been woken.
    unsafe fn run_job(job: NonNull<Job>) {
        // SAFETY: the box that was given away, of which the job is the first field.
        let rest = unsafe { Box::from_raw(job.cast::<Rest>().as_ptr()) };
        let Rest {
            mut cancel,
            kept,
            fires,
            ..
        } = *rest;
        let mut panics = Panics::default();
        cancel.call(&mut panics);
        drop(cancel);
        if let Some(node) = fires {
            // SAFETY: `kept` keeps it.
            end_firing(unsafe { node.as_ref() });
        }
        panics.catch(|| drop(kept));
        panics.resume();
    }
}

/// A thread that has noticed a deadline that can be moved is through. It holds the node: so nobody has left it a handle.
fn end_firing(node: &Node) {
    if let Some(extension) = node.link.extension() {
        let left = extension.timing.entry.trigger().finish();
        debug_assert!(!left);
    }
}

impl Handle {
    /// Has the timer cancel the token at `deadline`. The token is new: the handle is the only one, and nothing is
    /// below.
    #[inline]
    pub(crate) fn set_deadline(&self, deadline: Moment) {
        if deadline < NEVER {
            self.arm(self.put_extension(), deadline);
        }
    }

    /// The same, with that cause.
    #[cold]
    pub(crate) fn set_deadline_because(&self, deadline: Moment, cause: Cause) {
        if deadline >= NEVER {
            return;
        }
        let extension = self.put_extension();
        // SAFETY: the token's extension, which it has as long as it is held.
        let timing = &unsafe { extension.as_ref() }.timing;
        // SAFETY: neither is shared yet, nor is the deadline armed.
        timing.cause.with_mut(|c| unsafe { *c = Some(cause) });
        self.arm(extension, deadline);
    }

    /// The token is new, and is done from the beginning: the deadline that it was to have has passed.
    #[cold]
    pub(crate) fn expire_at_birth(&self, cause: Cause) {
        let extension = match cfg!(feature = "testing") {
            // A clock may have been noted.
            true => self.node().link.extension_raw(),
            false => None,
        };
        let extension = extension.unwrap_or_else(|| self.put_extension_unarmed());
        // SAFETY: the token's extension, which it has as long as it is held.
        let entry = unsafe { &extension.as_ref().timing.entry };
        entry.note_passed();
        self.cancel_with(cause);
    }

    /// The deadline that it has from a parent of another kind has passed, which the timer may be about to find out.
    #[cold]
    pub(crate) fn expire_foreign(&self) {
        let node = self.node();
        if let Some(extension) = node.link.extension() {
            note_passed(node, &extension.timing.entry);
        }
        self.cancel_with(ContextError::DeadlineExceeded.into());
    }

    /// The token so many steps above was cancelled by the deadline that was set for it, and not by one above, or by somebody.
    pub(crate) fn is_expired_itself(&self, steps: usize) -> bool {
        let node = self.node_above(steps);
        let state = node.word.load();
        let is_own = state.is_cancelled() && state.has_any(State::OWN);
        is_own
            && state.has_any(State::DEADLINE)
            && node
                .link
                .extension()
                .is_some_and(|e| e.timing.entry.has_passed())
    }

    /// An extension for a new token.
    #[inline]
    pub(super) fn put_extension(&self) -> NonNull<Extension> {
        let new = |entry| Extension::of_timing(Timing::with(entry)).cast();
        let extension = pool::take(&TABLE, new).cast();
        self.node().link.put_extension_unshared(extension);
        extension
    }

    #[inline]
    fn arm(&self, extension: NonNull<Extension>, deadline: Moment) {
        let node = self.0.as_ptr().cast();
        // SAFETY: out of the pool, or new. The pointer is to all of the extension, so that it can be freed through it. The last owner
        // settles the trigger before the node goes.
        unsafe { timer::arm(extension.cast(), node, deadline) };
    }

    /// A deadline that the token has, or something above it, has passed: cancels what had the earliest one, if it was not
    /// later than that.
    #[cold]
    pub(crate) fn expire(&self, passed: Moment) {
        self.expire_unless(passed, |_| false);
    }

    /// The same, by a thread that has slept until then. If it stood still in the middle of that, others would wait for it; and the timer
    /// knows what else has passed, above. So it is left to the timer, as long as that is not late.
    #[cold]
    pub(crate) fn expire_asleep(&self, passed: Moment) {
        let is_timer_there = timer::is_running() && !timer::is_in_parent();
        self.expire_unless(passed, |due| {
            is_timer_there && passed < due.saturating_add(PATIENCE)
        });
    }

    fn expire_unless(&self, passed: Moment, is_left: impl Fn(Moment) -> bool) {
        // What has been moved on meanwhile, or the timer is at.
        let mut without = Vec::new();
        while let Some((due, node)) = self.first_due(passed, &without) {
            if is_left(due) || self.expire_above(node, due, passed) {
                return;
            }
            without.push(ptr::from_ref(node));
        }
    }

    /// What has the earliest deadline, of the token and all above, if that has passed.
    fn first_due(&self, passed: Moment, without: &[*const Node]) -> Option<(Moment, &Node)> {
        let mut first: Option<(Moment, &Node)> = None;
        self.each_above(|node| {
            let extension = node.link.extension();
            let due = extension.and_then(|extension| extension.timing.due(passed));
            if let Some(due) = due.filter(|due| first.is_none_or(|(other, _)| *due < other)) {
                if !without.contains(&ptr::from_ref(node)) {
                    first = Some((due, node));
                }
            }
            true
        });
        first
    }

    /// Cancels the token, or one above it, whose deadline has passed. False: it has not, or the timer is to say whether it has.
    fn expire_above(&self, node: &Node, due: Moment, passed: Moment) -> bool {
        let Some(timing) = node.link.extension().map(|extension| &extension.timing) else {
            return false;
        };
        let mut moves = None;
        if let Some(moving) = timing.moving() {
            // Of this step and one that moves it, one is first.
            let mut seen = timing.entry.look();
            loop {
                if seen.is_firing() && (!moving.is_idle() || timer::is_in_parent()) {
                    // The timer is at it, and that stands: but the caller is not to go on before it is done. In the child of
                    // a `fork` nobody else will, nor say when it was due, if that has not been noted.
                    if !timing.entry.has_passed() {
                        timing.note_due(due);
                    }
                    break;
                }
                if !seen.is_armed() || seen.deadline() > passed {
                    // It has been moved, or is through, or the timer is to say whether it has been touched.
                    return false;
                }
                if timing.entry.begin(seen) {
                    timing.note_due(due);
                    moves = Some(NonNull::from(node));
                    break;
                }
                seen = timing.entry.look();
            }
        }
        note_passed(node, &timing.entry);
        // In the child of a `fork` there are no workers.
        if timer::is_running() && !timer::is_in_parent() {
            self.cancel_above_by_worker(node, moves);
        } else {
            let mut panics = Panics::default();
            panics.catch(|| _ = cancel::cancel_because(node, deadline_cause(node)));
            if moves.is_some() {
                end_firing(node);
            }
            panics.resume();
        }
        true
    }

    /// Cancels the token, or one above it, because its deadline has passed, and has a worker wake tasks and threads and run
    /// callbacks: whoever notices the deadline is about to go on, and a callback may take long, or wait for that.
    fn cancel_above_by_worker(&self, node: &Node, moves: Option<NonNull<Node>>) {
        self.mark_and_hand_on(node, deadline_cause(node), moves);
    }

    /// Cancels the token, and has a worker do what may run user code. That of the cause, if it is not taken, is none: somebody
    /// keeps it, or it has none.
    #[allow(dead_code)] // It depends on the features who needs it.
    pub(crate) fn cancel_by_worker(&self, cause: Cause) {
        self.mark_and_hand_on(self.node(), cause, None);
    }

    /// The same, and the worker drops the handle too: with the last one of a token goes what others have left there, or above.
    #[allow(dead_code)] // It depends on the features who needs it.
    pub(crate) fn cancel_by_worker_and_drop(self, cause: Cause) {
        // SAFETY: the handle keeps the token and what is above (I5), and goes along with the rest.
        let mut cancel = unsafe { Cancel::begin(NonNull::from(self.node()), cause) };
        cancel.mark(usize::MAX);
        Rest::hand_on(cancel, self, None);
    }

    fn mark_and_hand_on(&self, node: &Node, cause: Cause, moves: Option<NonNull<Node>>) {
        // SAFETY: the handle keeps the token and what is above (I5), and `Rest` has another one.
        let mut cancel = unsafe { Cancel::begin(NonNull::from(node), cause) };
        cancel.mark(usize::MAX);
        if cancel.is_idle() {
            if moves.is_some() {
                end_firing(node);
            }
            return;
        }
        Rest::hand_on(cancel, self.clone(), moves);
    }

    /// Whether there was ever a parent of another kind in this process: a load.
    pub(crate) fn is_any_below_foreign() -> bool {
        // Relaxed: who asks for a token that is below one has got it from the thread that has stored this.
        IS_ANY_BELOW_FOREIGN.load(Relaxed)
    }

    /// Whether it has a parent of another kind, or something above has.
    #[cold]
    pub(crate) fn is_below_foreign(&self) -> bool {
        let mut found = false;
        self.each_above(|node| {
            let extension = node.link.extension();
            found = extension.is_some_and(|extension| extension.timing.foreign().is_some());
            !found
        });
        found
    }

    /// When the deadline is that was set, to be asked for by those below. The token is new, as for `set_deadline`.
    #[inline]
    pub(crate) fn note_deadline(&self, deadline: Instant) {
        let extension = self.node().link.extension_raw();
        let extension = extension.unwrap_or_else(|| self.put_extension_unarmed());
        // SAFETY: the token's extension, which it has as long as it is held.
        let exact = unsafe { &extension.as_ref().timing.exact };
        // SAFETY: the node is not shared, and the timer does not look at this.
        exact.with_mut(|exact| unsafe { *exact = Some(deadline) });
    }

    /// An extension for a new token whose deadline is none for the timer: it is too far away, or has passed.
    #[cold]
    fn put_extension_unarmed(&self) -> NonNull<Extension> {
        let extension = self.put_extension();
        // SAFETY: the token's extension, which it has as long as it is held.
        let entry = unsafe { &extension.as_ref().timing.entry };
        entry.set_owner(ptr::null_mut());
        extension
    }

    /// The earliest of the deadlines that the token has, and those above it; and whether one of them can be moved. Of those of one
    /// clock.
    pub(crate) fn deadline(&self, clock: &Option<Clock>) -> (Option<Instant>, bool) {
        let (mut earliest, mut moves) = (None, false);
        self.each_above(|node| {
            if let Some(timing) = node.link.extension().map(|extension| &extension.timing) {
                if !Clock::is_same(&timing.alarm().map(Alarm::clock), clock) {
                    return true;
                }
                let own = match timing.moving() {
                    Some(moving) => {
                        moves = true;
                        moving.deadline(&timing.entry)
                    }
                    // SAFETY: written before the node was shared, and not changed while it is held.
                    None => timing.exact.with(|e| unsafe { *e }),
                };
                earliest = earliest.into_iter().chain(own).min();
            }
            true
        });
        (earliest, moves)
    }

    /// Whether one of these deadlines can become an earlier one: whoever moves it sets it to what they like. (An idle timeout only
    /// becomes later.)
    #[allow(dead_code)] // It depends on the features who needs it.
    pub(crate) fn may_be_sooner(&self) -> bool {
        let mut found = false;
        self.each_above(|node| {
            let timing = node.link.extension().map(|extension| &extension.timing);
            let moving = timing.and_then(Timing::moving);
            found = moving.is_some_and(|moving| !moving.is_idle());
            !found
        });
        found
    }

    /// Whether the timer's threads may come to be needed for what is above, though nobody has needed them: by a deadline that is set,
    /// or becomes an earlier one, or by a parent of another kind.
    #[cold]
    pub(crate) fn may_need_timer(&self) -> bool {
        // Relaxed, as there: mostly there is none, and no climb.
        if !IS_ANY_MOVABLE.load(Relaxed) && !Handle::is_any_below_foreign() {
            return false;
        }
        let mut found = false;
        self.each_above(|node| {
            let timing = node.link.extension().map(|extension| &extension.timing);
            found = timing.is_some_and(|timing| {
                let moving = timing.moving();
                // A clock of tests needs no thread.
                timing.foreign().is_some()
                    || moving.is_some_and(|m| !m.is_idle() && m.clock.is_none())
            });
            !found
        });
        found
    }

    /// An extension for a new token, which is under that clock.
    #[inline]
    pub(super) fn put_extension_by(&self, clock: Option<Clock>) -> NonNull<Extension> {
        match clock {
            None => self.put_extension(),
            Some(clock) => self.put_extension_apart(clock),
        }
    }

    /// The same. Its entry is in no pool, and the timer has never seen it.
    #[cold]
    fn put_extension_apart(&self, clock: Clock) -> NonNull<Extension> {
        let link = &self.node().link;
        if let Some(noted) = link.extension_raw() {
            return noted;
        }
        let extension = Extension::of_timing(Timing::with(Entry::homeless(&TABLE)));
        let timing = &link.put_extension_unshared(extension).timing;
        // SAFETY: the token is new.
        unsafe { timing.alarm.put(clock) };
        extension
    }

    /// The token is new, and under that clock, as is what will be below it.
    pub(crate) fn note_clock(&self, clock: Clock) {
        // What is done has no time.
        if !self.is_cancelled() {
            self.put_extension_apart(clock);
        }
    }

    /// The clock of tests that the token is under: the nearest that was noted.
    #[cfg(feature = "testing")]
    pub(crate) fn clock(&self) -> Option<Clock> {
        let mut found = None;
        self.each_above(|node| {
            let timing = node.link.extension().map(|extension| &extension.timing);
            found = timing.and_then(Timing::alarm).map(Alarm::clock);
            found.is_none()
        });
        found
    }

    #[cfg(not(feature = "testing"))]
    #[inline(always)]
    pub(crate) fn clock(&self) -> Option<Clock> {
        None
    }

    /// Has a clock of tests cancel the token at that time. One that has passed by now, for the time may have moved on since the
    /// caller looked at it, is as one that has passed at birth. The token is new, or cancelled.
    #[cold]
    pub(crate) fn set_deadline_by(&self, clock: Clock, at: Instant, cause: Option<Cause>) {
        if self.is_cancelled() {
            return;
        }
        let extension = self.put_extension_apart(clock);
        // SAFETY: the token's extension, which it has as long as it is held.
        let timing = unsafe { &extension.as_ref().timing };
        let nanos = clock::nanos(at);
        if let Some(cause) = &cause {
            // SAFETY: neither is shared yet, nor is the deadline armed.
            unsafe { timing.set_cause(cause.clone()) };
        }
        self.note_deadline(at);
        let alarm = timing.alarm();
        let is_armed = alarm
            .filter(|_| clock::moment_of(nanos) < NEVER)
            // SAFETY: new, and the pointer is to all of the extension. The last owner settles the trigger before the node
            // goes, and then takes the entry out of the clock.
            .is_none_or(|alarm| unsafe {
                alarm.arm(extension.cast(), self.0.as_ptr().cast(), nanos)
            });
        if !is_armed {
            self.expire_at_birth(cause.unwrap_or(ContextError::DeadlineExceeded.into()));
        }
    }

    /// A root below a parent of another kind: `subscribe` is given the signal by which that cancels the
    /// token, and what it returns is dropped when the token goes.
    pub(crate) fn below_foreign(
        deadline: Option<(Moment, Instant)>,
        subscribe: impl FnOnce(Signal) -> Box<dyn Any + Send>,
    ) -> Handle {
        IS_ANY_BELOW_FOREIGN.store(true, Relaxed);
        let handle = Handle::root();
        match deadline {
            Some((_, exact)) => handle.note_deadline(exact),
            None => {
                let extension = Extension::new(AnyOf::No, Box::default());
                handle.node().link.put_extension_unshared(extension);
            }
        }
        let node = handle.node();
        let Some(timing) = node.link.extension().map(|extension| &extension.timing) else {
            unreachable!("put there just now");
        };
        let signal = Arc::new(Target {
            trigger: Trigger::armed(),
            node: NonNull::from(node),
        });
        let set = |foreign| timing.set_beside(Beside::Foreign(foreign));
        set(Foreign {
            signal: signal.clone(),
            _subscription: Box::new(()),
        });
        // User code. It may signal at once; if it panics, the handle's drop settles everything.
        let subscription = subscribe(Signal(signal.clone()));
        set(Foreign {
            signal,
            _subscription: subscription,
        });
        // Last: from here on the timer looks at what is beside the deadline.
        if let Some((deadline, _)) = deadline.filter(|(deadline, _)| *deadline < NEVER) {
            if let Some(extension) = node.link.extension_raw() {
                handle.arm(extension, deadline);
            }
        }
        handle
    }
}

impl Handle {
    /// The token's deadline can be moved; there is none yet. The token is new.
    pub(crate) fn make_movable(&self, moving: Arc<Moving>, cause: Option<Cause>) {
        let timing = self.put_movable(&moving);
        timing.set_moving(moving);
        if let Some(cause) = cause {
            // SAFETY: neither is shared yet, nor is the deadline armed.
            unsafe { timing.set_cause(cause) };
        }
    }

    /// What the timing of a token is whose deadline can be moved, by what is not there yet. The token is new.
    fn put_movable(&self, moving: &Moving) -> &Timing {
        if !moving.is_idle() && !IS_ANY_MOVABLE.load(Relaxed) {
            IS_ANY_MOVABLE.store(true, Relaxed);
        }
        let extension = self.put_extension_by(moving.clock.clone());
        // SAFETY: the token's extension, which it has as long as it is held.
        let timing = unsafe { &extension.as_ref().timing };
        timing.entry.set_owner(self.0.as_ptr().cast());
        timing
    }

    /// Gives the token a deadline so many nanoseconds after `soft` is cancelled; after now, if it is already. `because` makes
    /// its cause of that of `soft`, which the token keeps, and by which it is not kept. Both are new.
    pub(crate) fn start_with(
        &self,
        soft: &Handle,
        moving: Arc<Moving>,
        after: u64,
        because: fn(Cause) -> Cause,
    ) {
        let hard = self.make_startable(moving, soft);
        if let Err(refused) = soft.put_waker(start::waker(hard, soft, after, because)) {
            refused.wake();
        }
    }

    /// The token's deadline can be moved; there is none yet. The answer is the right to [start](Signal::start_deadline) it, without
    /// holding the token, which keeps `soft`. The token is new.
    fn make_startable(&self, moving: Arc<Moving>, soft: &Handle) -> Signal {
        let signal = Arc::new(Target {
            trigger: Trigger::armed(),
            node: self.0,
        });
        let starter = Starter {
            signal: signal.clone(),
            soft: soft.clone(),
        };
        let timing = self.put_movable(&moving);
        timing.set_beside(Beside::Moving(moving, Some(starter)));
        Signal(signal)
    }
}

impl Signal {
    /// True: this call cancelled the token. When it returns the token is cancelled, or gone.
    pub(crate) fn cancel(&self, cause: Cause) -> bool {
        if !self.begin() {
            return false;
        }
        let mut panics = Panics::default();
        let mut first = false;
        // SAFETY: FIRING by the step above, which keeps the node.
        panics.catch(|| first = cancel::cancel_because(unsafe { self.node().as_ref() }, cause));
        // SAFETY: the same.
        unsafe { self.finish(&mut panics) };
        panics.resume();
        first
    }
}

#[cfg(all(test, unix, not(any(cancel_tree_loom, cancel_tree_by_hand, miri))))]
#[path = "deadline_tests.rs"]
mod tests;
