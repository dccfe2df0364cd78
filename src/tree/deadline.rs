//! What cancels a node from outside the tree, when it does: its own deadline that has passed, told by the timer or by a thread
//! that has noticed it before; or its foreign parent.

use super::cancel::{self, Cancel};
use super::cause::{Cause, ContextError};
use super::timing::Signal;
use super::word::State;
use super::{extension, reclaim, Handle, Node};
#[cfg(feature = "testing")]
use super::{moving::Moving, timing::Timing};
use crate::sync::Panics;
use crate::timer;
use crate::timer::clock::Moment;
use crate::timer::entry::{Entry, Table};
use crate::timer::job::Job;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::mem::MaybeUninit;
use core::ptr::{self, NonNull};

/// How late the timer may be before a thread that waits acts on a deadline itself: 0.96 ms, which is less than it sleeps meanwhile.
const PATIENCE: Moment = 15_000;

/// What the timer does about the deadline of a node.
pub(super) static TABLE: Table = Table {
    mark,
    wake,
    call,
    put_off,
    stands_for: None,
    free: extension::free_entry,
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
        if let Some(timing) = node.link.timing() {
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
    let moving = node.link.timing()?.moving()?;
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
    let cause = node.link.timing().and_then(|timing| {
        // SAFETY: written before the deadline was armed.
        timing.cause.with(|c| unsafe { (*c).clone() })
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
    /// Memory for one, from before the step on which others depend: whoever asks the allocator may be held up there.
    fn room() -> Box<MaybeUninit<Rest>> {
        Box::new_uninit()
    }

    /// To a worker.
    fn hand_on(
        mut room: Box<MaybeUninit<Rest>>,
        cancel: Cancel,
        kept: Handle,
        fires: Option<&Node>,
    ) {
        room.write(Rest {
            job: Job::that_wakes(Rest::wake_by_job, Rest::run_job),
            cancel,
            kept,
            fires: fires.map(NonNull::from),
        });
        // SAFETY: written just now.
        let rest = unsafe { room.assume_init() };
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
    if let Some(timing) = node.link.timing() {
        let left = timing.entry.trigger().finish();
        debug_assert!(!left);
    }
}

impl Handle {
    /// The deadline that it has from a parent of another kind has passed, which the timer may be about to find out.
    #[cold]
    pub(crate) fn expire_foreign(&self) {
        let node = self.node();
        if let Some(timing) = node.link.timing() {
            note_passed(node, &timing.entry);
        }
        self.cancel_with(ContextError::DeadlineExceeded.into());
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
            let due = node.link.timing().and_then(|timing| timing.due(passed));
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
        if node.word.load().is_cancelled() && self.mark_beside_others(node) {
            return true;
        }
        let Some(timing) = node.link.timing() else {
            return false;
        };
        // In the child of a `fork` there are no workers.
        let has_workers = timer::is_running() && !timer::is_in_parent();
        let room = has_workers.then(Rest::room);
        let mut moves = None;
        if let Some(moving) = timing.moving() {
            // Of this step and one that moves it, one is first.
            let mut seen = timing.entry.look();
            loop {
                let has_passed = timing.entry.has_passed();
                if seen.is_firing() && (has_passed || !moving.is_idle() || timer::is_in_parent()) {
                    // Somebody is at it, and that stands: but the caller is not to go on before it is done. In the child of
                    // a `fork` nobody else will, nor say when it was due, if that has not been noted.
                    if !has_passed {
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
                    moves = Some(node);
                    break;
                }
                seen = timing.entry.look();
            }
        }
        note_passed(node, &timing.entry);
        if let Some(room) = room {
            // SAFETY: the handle keeps the token and what is above (I5), and `Rest` has another one.
            let cancel = unsafe { Cancel::begin(NonNull::from(node), deadline_cause(node)) };
            if !cancel.is_first() && self.mark_beside_others(node) {
                moves.map(end_firing);
                return true;
            }
            // Whoever notices a deadline is about to go on, and a callback may take long, or wait for that.
            self.mark_and_hand_on(cancel, moves, room);
        } else {
            let mut panics = Panics::default();
            panics.catch(|| _ = cancel::cancel_because(node, deadline_cause(node)));
            moves.map(end_firing);
            panics.resume();
        }
        true
    }

    /// Somebody else has cancelled a token above, and is marking what is below, or stands still there. What the caller waits for is this
    /// token alone, so it marks the way down to it, and what is below: of many who wait each would pass all that is beside otherwise. Whoever has made that cancel
    /// wakes and calls here as well, and follows edges, which is not to be before all is marked. False: all is to be marked.
    fn mark_beside_others(&self, above: &Node) -> bool {
        // In the child of a `fork` who has cancelled it may be in the parent.
        if timer::is_in_parent() || !self.mark_way_from(above) {
            return false;
        }
        let node = self.node();
        let state = node.word.load();
        if state.only(State::PARENT.with(State::MARKED)) == State::PARENT {
            // It is done when the wait is over.
            cancel::mark_below(node, state);
        }
        true
    }

    /// False: there is no memory to note the way, or it leads through an edge of an `any_of`.
    fn mark_way_from(&self, above: &Node) -> bool {
        let mut way = Vec::new();
        let mut at = self.node();
        while !ptr::eq(at, above) {
            // SAFETY: held, or above what is held (I5).
            let Some(parent) = (unsafe { at.parent() }) else {
                return false;
            };
            if way.try_reserve(1).is_err() {
                return false;
            }
            way.push(at);
            at = parent;
        }
        // From above, as a walk does: what is marked has a parent that is cancelled.
        let mut kind = above.word.load();
        for node in way.into_iter().rev() {
            node.word.mark(kind.only(State::DEADLINE));
            kind = node.word.load();
        }
        true
    }

    /// Cancels the token, and has a worker do what may run user code. That a cause which has lost is dropped here runs none:
    /// somebody keeps it, or it has none.
    #[allow(dead_code)] // It depends on the features who needs it.
    pub(crate) fn cancel_by_worker(&self, cause: Cause) {
        let room = Rest::room();
        // SAFETY: the handle keeps the token, and `Rest` has another one.
        let cancel = unsafe { Cancel::begin(NonNull::from(self.node()), cause) };
        self.mark_and_hand_on(cancel, None, room);
    }

    /// The same, and the worker drops the handle too: with the last one of a token goes what others have left there, or above.
    #[allow(dead_code)] // It depends on the features who needs it.
    pub(crate) fn cancel_by_worker_and_drop(self, cause: Cause) {
        let room = Rest::room();
        // SAFETY: the handle keeps the token and what is above (I5), and goes along with the rest.
        let mut cancel = unsafe { Cancel::begin(NonNull::from(self.node()), cause) };
        cancel.mark(usize::MAX);
        Rest::hand_on(room, cancel, self, None);
    }

    /// What is left of a cancel of the token, or of one above it: has a worker wake tasks and threads and run callbacks.
    fn mark_and_hand_on(
        &self,
        mut cancel: Cancel,
        moves: Option<&Node>,
        room: Box<MaybeUninit<Rest>>,
    ) {
        cancel.mark(usize::MAX);
        if cancel.is_idle() {
            moves.map(end_firing);
            return;
        }
        Rest::hand_on(room, cancel, self.clone(), moves);
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
