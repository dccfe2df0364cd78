//! Threads that run user code on the service thread's behalf. They are started as needed, live on while
//! there is something to do, and go when there has been nothing for a while.
//!
//! The lock here is between the service thread and its workers only.

use super::entry::Entry;
use super::job::Job as Callback;
use crate::sync::Panics;
use core::ptr::NonNull;
use std::collections::VecDeque;
use std::mem;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long a worker waits for the next job before it goes.
const IDLE: Duration = Duration::from_secs(5);

enum Job {
    /// A deadline has passed; the entry is FIRING.
    Deadline(NonNull<Entry>),
    /// Somebody's, to be run.
    Callback(NonNull<Callback>),
}

// SAFETY: a FIRING entry is its holder's to go on with, on whatever thread, and so is a job.
unsafe impl Send for Job {}

struct Queue {
    jobs: VecDeque<Job>,
    /// How many of the workers are waiting for a job.
    idle: usize,
    workers: usize,
    /// One has been woken or started, and has not looked into the queue yet. No other is sent meanwhile: where
    /// threads wait for a processor, every job would get one that comes too late.
    coming: bool,
    /// How many jobs have been taken, how many it were when the service thread looked last, and when somebody was
    /// sent.
    taken: u64,
    seen: u64,
    when_sent: u64,
}

static QUEUE: Mutex<Queue> = Mutex::new(Queue {
    jobs: VecDeque::new(),
    idle: 0,
    workers: 0,
    coming: false,
    taken: 0,
    seen: 0,
    when_sent: 0,
});
static FILLED: Condvar = Condvar::new();

fn lock() -> MutexGuard<'static, Queue> {
    // No user code runs under the lock, so it cannot be poisoned in the middle of something.
    QUEUE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Deadlines have passed. One worker sees to them, one after the other; if one of them takes long, because
/// what it wakes does, `help_if_stuck` sends another.
pub(super) fn fire(entries: impl ExactSizeIterator<Item = NonNull<Entry>>) {
    if entries.len() != 0 {
        add(entries.map(Job::Deadline));
    }
}

/// A callback is to run. It must not wait for the end of another one that takes long.
pub(super) fn run(callback: NonNull<Callback>) {
    add([Job::Callback(callback)].into_iter());
}

fn add(jobs: impl Iterator<Item = Job>) {
    let mut queue = lock();
    if queue.jobs.is_empty() {
        // Nobody can have taken one of them before the first look.
        queue.seen = u64::MAX;
    }
    queue.jobs.extend(jobs);
    // Where all are at work, one of them will be through in a moment, or else `help_if_stuck` sends another.
    if queue.idle != 0 || queue.workers == 0 {
        send(queue);
    }
}

/// True while there are jobs that nobody has taken. If none was taken since the last time, another worker is sent.
pub(super) fn help_if_stuck() -> bool {
    let mut queue = lock();
    if queue.jobs.is_empty() {
        return false;
    }
    let stuck = queue.seen == queue.taken;
    queue.seen = queue.taken;
    if stuck {
        send(queue);
    }
    true
}

/// Somebody is to look into the queue, unless he is on his way already.
fn send(mut queue: MutexGuard<'_, Queue>) {
    if queue.coming {
        return;
    }
    queue.coming = true;
    queue.when_sent = queue.taken;
    if queue.idle != 0 {
        FILLED.notify_one();
        return;
    }
    queue.workers += 1;
    let nobody_else = queue.workers == 1;
    drop(queue);
    let spawned = thread::Builder::new()
        .name("cancel-tree worker".into())
        .spawn(work);
    if spawned.is_err() {
        let mut queue = lock();
        queue.workers -= 1;
        queue.coming = false;
        drop(queue);
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
    let mut idle_since = Instant::now();
    loop {
        // Here it comes, from wherever. If it was not the one that was sent, that one finds less to do.
        queue.coming = false;
        let mut others_are_stuck = queue.taken == queue.when_sent;
        while let Some(job) = take(&mut queue) {
            // This one may get stuck as well, and then the next callback needs somebody else. While others get on,
            // that can wait for `help_if_stuck`: a thread for each of many short callbacks is too many.
            let next_is_callback = matches!(queue.jobs.front(), Some(Job::Callback(_)));
            if mem::take(&mut others_are_stuck) && next_is_callback {
                send(queue);
            } else {
                drop(queue);
            }
            job.run();
            queue = lock();
            idle_since = Instant::now();
        }
        let Some(more) = IDLE.checked_sub(idle_since.elapsed()) else {
            queue.workers -= 1;
            return;
        };
        queue.idle += 1;
        let waited = FILLED.wait_timeout(queue, more);
        (queue, _) = waited.unwrap_or_else(PoisonError::into_inner);
        queue.idle -= 1;
    }
}

impl Job {
    /// Runs user code, whose panics have nobody to go to: the hook has told of them.
    fn run(self) {
        let mut panics = Panics::default();
        match self {
            // SAFETY: FIRING by the wheel.
            Job::Deadline(entry) => unsafe { Entry::fire(entry, &mut panics) },
            // SAFETY: out of the inbox, and run once.
            Job::Callback(callback) => panics.catch(|| unsafe { Callback::run(callback) }),
        }
        panics.swallow();
    }
}
