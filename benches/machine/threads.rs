//! Two threads at work, started outside of what is measured.

use std::hint;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use super::cores;

/// Runs `measure` while a thread on another core does `op` over and over.
pub fn while_busy(op: impl Fn() + Sync, measure: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let _pinned = cores::pin(1);
            while !stop.load(Ordering::Relaxed) {
                op();
            }
        });
        let pinned = cores::pin(0);
        measure();
        drop(pinned);
        stop.store(true, Ordering::Relaxed);
    });
}

/// Gives `measure` a pair of threads, of which it is one, that do `op` at the same time.
///
/// The threads stay the same for the whole measurement, as those of a pool would.
pub fn two_at_once<F: Fn() + Sync>(op: F, measure: impl FnOnce(&Pair<'_, F>)) {
    let arrived = AtomicUsize::new(0);
    let (requests, inbox) = mpsc::channel();
    let (outbox, answers) = mpsc::channel();
    let (op, arrived) = (&op, &arrived);
    thread::scope(|scope| {
        scope.spawn(move || {
            let _pinned = cores::pin(1);
            for iters in inbox {
                let elapsed = time_together(arrived, iters, op);
                outbox.send(elapsed).expect("the other waits for it");
            }
        });
        let _pinned = cores::pin(0);
        measure(&Pair {
            op,
            arrived,
            requests,
            answers,
        });
    });
}

pub struct Pair<'a, F> {
    op: &'a F,
    arrived: &'a AtomicUsize,
    requests: Sender<u64>,
    answers: Receiver<Duration>,
}

impl<F: Fn()> Pair<'_, F> {
    /// The time that a thread needed for `iters` operations, as the mean of the two.
    pub fn run(&self, iters: u64) -> Duration {
        self.requests.send(iters).expect("the worker is alive");
        let mine = time_together(self.arrived, iters, self.op);
        let other = self.answers.recv().expect("the worker is alive");
        (mine + other) / 2
    }
}

fn time_together(arrived: &AtomicUsize, iters: u64, op: &impl Fn()) -> Duration {
    // A barrier that spins: one that parks would let the first thread run alone for as long as
    // the second needs to wake up.
    let complete = (arrived.fetch_add(1, Ordering::AcqRel) / 2 + 1) * 2;
    while arrived.load(Ordering::Acquire) < complete {
        hint::spin_loop();
    }
    let start = Instant::now();
    for _ in 0..iters {
        op();
    }
    start.elapsed()
}
