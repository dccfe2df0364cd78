//! Threads that run user code on the service thread's behalf. They are started as needed, live on while
//! there is something to do, and go when there has been nothing for a while.
//!
//! The lock here is between the service thread and its workers only.

use crate::callback::Callback;
use crate::sync::{Arc, Panics};
use crate::timer::entry::Entry;
use core::ptr::NonNull;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// How long a worker waits for the next job before it goes.
const IDLE: Duration = Duration::from_secs(5);

enum Job {
    /// A deadline has passed; the entry is FIRING.
    Deadline(NonNull<Entry>),
    /// An `after_func` callback.
    Callback(Arc<Callback>),
}

// SAFETY: a FIRING entry is its holder's to go on with, on whatever thread.
unsafe impl Send for Job {}

struct Queue {
    jobs: VecDeque<Job>,
    /// How many of the workers are waiting for a job.
    idle: usize,
    workers: usize,
    /// How many jobs have been taken, and how many it were when the service thread looked last.
    taken: u64,
    seen: u64,
}

static QUEUE: Mutex<Queue> = Mutex::new(Queue {
    jobs: VecDeque::new(),
    idle: 0,
    workers: 0,
    taken: 0,
    seen: 0,
});
static FILLED: Condvar = Condvar::new();

fn lock() -> MutexGuard<'static, Queue> {
    // No user code runs under the lock, so it cannot be poisoned in the middle of something.
    QUEUE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Deadlines have passed. One worker sees to them, one after the other; if one of them takes long, because
/// what it wakes does, `help_if_stuck` sends another.
pub(super) fn fire(entries: impl ExactSizeIterator<Item = NonNull<Entry>>) {
    if entries.len() == 0 {
        return;
    }
    let mut queue = lock();
    if queue.jobs.is_empty() {
        // Nobody can have taken one of them before the first look.
        queue.seen = u64::MAX;
    }
    queue.jobs.extend(entries.map(Job::Deadline));
    if queue.idle == 0 && queue.workers == 0 {
        hire(queue);
    } else {
        FILLED.notify_one();
    }
}

/// A callback is to run. It must not wait for another one to end.
pub(super) fn run(callback: Arc<Callback>) {
    let mut queue = lock();
    queue.jobs.push_back(Job::Callback(callback));
    if queue.idle < queue.jobs.len() {
        hire(queue);
    } else {
        FILLED.notify_one();
    }
}

/// True while there are jobs that nobody has taken. If none was taken since the last time, there is
/// one worker more now.
pub(super) fn help_if_stuck() -> bool {
    let mut queue = lock();
    if queue.jobs.is_empty() {
        return false;
    }
    let stuck = queue.seen == queue.taken;
    queue.seen = queue.taken;
    if stuck {
        hire(queue);
    }
    true
}

fn hire(mut queue: MutexGuard<'_, Queue>) {
    queue.workers += 1;
    let nobody_else = queue.workers == 1;
    drop(queue);
    let spawned = thread::Builder::new()
        .name("cancel-tree worker".into())
        .spawn(work);
    if spawned.is_err() {
        lock().workers -= 1;
        if nobody_else {
            // No thread to be had: better late than never.
            loop {
                let job = take(&mut lock());
                let Some(job) = job else { break };
                job.run();
            }
        }
    }
}

fn take(queue: &mut Queue) -> Option<Job> {
    let job = queue.jobs.pop_front()?;
    queue.taken += 1;
    Some(job)
}

fn work() {
    let mut queue = lock();
    loop {
        while let Some(job) = take(&mut queue) {
            drop(queue);
            job.run();
            queue = lock();
        }
        queue.idle += 1;
        let waited = FILLED.wait_timeout_while(queue, IDLE, |queue| queue.jobs.is_empty());
        let (back, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        queue = back;
        queue.idle -= 1;
        if timeout.timed_out() && queue.jobs.is_empty() {
            queue.workers -= 1;
            return;
        }
    }
}

impl Job {
    /// Runs user code, whose panics have nobody to go to: the hook has told of them.
    fn run(self) {
        let mut panics = Panics::default();
        match self {
            // SAFETY: FIRING by the wheel.
            Job::Deadline(entry) => unsafe { Entry::fire(entry, &mut panics) },
            Job::Callback(callback) => {
                panics.catch(|| callback.run());
                panics.catch(|| drop(callback));
            }
        }
        panics.swallow();
    }
}
