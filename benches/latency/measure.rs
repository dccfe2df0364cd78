//! One sample: from the call of `cancel()` to the last who learns of it on the other core.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task;

use crate::other_core::{relax, OtherCore};
use crate::shape::Shape;
use crate::tree::Tree;

pub struct Sample {
    pub latency: Duration,
    /// How long the observer needed to look at each leaf once, shortly before the cancel.
    pub scan: Option<Duration>,
}

/// Until an observer who goes from leaf to leaf, and stays with each until it is cancelled, has been at the last.
pub fn seen<T: Tree>(shape: &Arc<Shape>, other: &OtherCore) -> Sample {
    let tree = Arc::new(T::build(shape));
    let scan = Arc::new(OnceLock::new());
    let latency = other.time(|| tree.cancel(), {
        let (tree, shape, scan) = (tree.clone(), shape.clone(), scan.clone());
        move |_, ready| {
            let look_at_each = || {
                let begin = Instant::now();
                for &leaf in &shape.leaves {
                    assert!(!tree.is_cancelled(leaf), "a leaf is cancelled too early");
                }
                begin.elapsed()
            };
            // Once to fetch it all from the core that has built it.
            look_at_each();
            let round = look_at_each();
            scan.set(round).expect("set once");
            ready.say(round);
            for &leaf in &shape.leaves {
                while !tree.is_cancelled(leaf) {
                    relax();
                }
            }
            Instant::now()
        }
    });
    Sample {
        latency,
        scan: scan.get().copied(),
    }
}

/// What the tasks of a sample share.
struct Tasks<T> {
    tree: T,
    waiting: AtomicUsize,
    last: OnceLock<Instant>,
    end: Notify,
}

impl<T: Tree> Tasks<T> {
    async fn wait(self: Arc<Self>, leaf: usize) {
        // The runtime has one thread: once this is seen by another task, the wait has been polled as well.
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.tree.cancelled(leaf).await;
        if self.waiting.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.last.set(Instant::now()).expect("one is the last");
            self.end.notify_one();
        }
    }
}

/// Until the last of the tasks, one for each leaf, runs again.
pub fn task<T: Tree>(shape: &Arc<Shape>, other: &OtherCore) -> Sample {
    let tasks = Arc::new(Tasks {
        tree: T::build(shape),
        waiting: AtomicUsize::new(0),
        last: OnceLock::new(),
        end: Notify::new(),
    });
    let latency = other.time(|| tasks.tree.cancel(), {
        let (tasks, shape) = (tasks.clone(), shape.clone());
        move |runtime, ready| {
            runtime.block_on(async {
                for &leaf in &shape.leaves {
                    task::spawn(tasks.clone().wait(leaf));
                }
                while tasks.waiting.load(Ordering::Relaxed) < shape.leaves.len() {
                    task::yield_now().await;
                }
                ready.say(Duration::ZERO);
                tasks.end.notified().await;
            });
            *tasks.last.get().expect("the last has set it")
        }
    });
    Sample {
        latency,
        scan: None,
    }
}

/// Until the last of the parked threads, one for each leaf, is back from `wait()`.
pub fn thread<T: Tree>(shape: &Arc<Shape>, other: &OtherCore) -> Sample {
    let tree = Arc::new(T::build(shape));
    let latency = other.time(|| tree.cancel(), {
        let (tree, shape) = (tree.clone(), shape.clone());
        move |_, ready| {
            let begun = AtomicUsize::new(0);
            let all_back = Barrier::new(shape.leaves.len());
            let wait = |leaf| {
                begun.fetch_add(1, Ordering::Relaxed);
                tree.wait(leaf);
                let end = Instant::now();
                // A thread's end takes the core longer than to get on with the next one.
                all_back.wait();
                end
            };
            let wait = &wait;
            thread::scope(|scope| {
                // They are on the core of the one who starts them.
                let start = |&leaf| scope.spawn(move || wait(leaf));
                let threads: Vec<_> = shape.leaves.iter().map(start).collect();
                while begun.load(Ordering::Relaxed) < threads.len() {
                    thread::yield_now();
                }
                ready.say(Duration::ZERO);
                let ends = threads.into_iter().map(|it| it.join().expect("no panic"));
                ends.max().expect("there is a leaf")
            })
        }
    });
    Sample {
        latency,
        scan: None,
    }
}
