//! The thread on the other core, which sees what the first one has done.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::hint;
use std::process;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, LazyLock, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};

use crate::machine::cores;

/// From "all wait" to the cancel at least, so that whoever waits has fallen asleep.
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

        let round = loop {
            match ready.0.get() {
                Some(&round) => break round,
                None => relax(),
            }
        };
        let settled = Instant::now() + SETTLE + at_random(round.max(SETTLE));
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
pub struct Ready(OnceLock<Duration>);

impl Ready {
    /// Whoever does not sleep, but looks at something over and over, says how long a `round` of that takes: the cancel
    /// comes at any point of it.
    pub fn say(&self, round: Duration) {
        self.0.set(round).expect("said once");
    }
}

/// Somewhere between nothing and that.
fn at_random(most: Duration) -> Duration {
    // Each hasher of std has keys of its own.
    let random = RandomState::new().hash_one(());
    most.mul_f64(random as f64 / u64::MAX as f64)
}

/// Does nothing, so that the next look is a little later. Where both threads have one core, which is nothing to be
/// measured, the other gets it.
pub fn relax() {
    static ONE_CORE: LazyLock<bool> = LazyLock::new(|| !cores::has_two());
    if *ONE_CORE {
        thread::yield_now();
    } else {
        hint::spin_loop();
    }
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
