//! The thread on the other core, which sees what the first one has done.

use std::hint;
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};

use crate::machine::cores;

/// From "all wait" to the cancel, so that whoever waits has fallen asleep.
const SETTLE: Duration = Duration::from_micros(100);

/// It stays the same for the whole run, as that of a pool would, and has a runtime for tasks.
pub struct OtherCore {
    jobs: Sender<Job>,
}

type Job = Box<dyn FnOnce(&Runtime) + Send>;

impl OtherCore {
    pub fn start() -> Self {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let run = move || {
            let _pinned = cores::pin(1);
            let _both = EndTogether;
            let runtime = Builder::new_current_thread().build().expect("a runtime");
            for job in inbox {
                job(&runtime);
            }
        };
        thread::Builder::new()
            .name("the other core".to_owned())
            .spawn(run)
            .expect("a thread");
        Self { jobs }
    }

    /// Does `wait` over there, calls `cancel` here a moment after `wait` has said that all wait, and returns the time
    /// from the call of `cancel` to the moment that `wait` returns.
    pub fn time<W>(&self, cancel: impl FnOnce(), wait: W) -> Duration
    where
        W: FnOnce(&Runtime, &Ready) -> Instant + Send + 'static,
    {
        let ready = Arc::new(Ready::default());
        let all_wait = ready.clone();
        let (outbox, ended) = mpsc::channel();
        let job = move |runtime: &Runtime| {
            let end = wait(runtime, &all_wait);
            outbox.send(end).expect("the first core waits for it");
        };
        self.jobs.send(Box::new(job)).expect("the thread is alive");

        while !ready.0.load(Ordering::Acquire) {
            relax();
        }
        let settled = Instant::now() + SETTLE;
        while Instant::now() < settled {
            relax();
        }
        let start = Instant::now();
        cancel();
        let end = ended.recv().expect("the thread is alive");
        assert!(end >= start, "cancelled before it was");
        end - start
    }
}

/// What `wait` says when all wait.
#[derive(Default)]
pub struct Ready(AtomicBool);

impl Ready {
    pub fn say(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Does nothing, so that the next look is a little later. Where both threads have one core, which is nothing to be
/// measured, the other gets it.
pub fn relax() {
    static ONE_CORE: LazyLock<bool> = LazyLock::new(|| !has_two_cores());
    if *ONE_CORE {
        thread::yield_now();
    } else {
        hint::spin_loop();
    }
}

/// Whether there is another core at all.
pub fn has_two_cores() -> bool {
    thread::available_parallelism().is_ok_and(|cores| cores.get() > 1)
}

/// Ends the program with the thread that has panicked, for the first core would spin for ever.
struct EndTogether;

impl Drop for EndTogether {
    fn drop(&mut self) {
        if thread::panicking() {
            process::exit(101);
        }
    }
}
