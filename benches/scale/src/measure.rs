//! The measuring: rates of operations, and what it takes to pass a cache line on.

use std::hint;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::counts::Threads;
use crate::machine::cores;
use crate::operations::{Measure, Operation};
use crate::shard;

/// So long is a sample, and so many there are; their median counts. Much shorter than a scheduler lets one run, and begun
/// when all threads are running: what else the machine does spoils a few of them, and no more.
const SAMPLE: Duration = Duration::from_micros(200);
const SAMPLES: usize = 500;

const WARM_UP: Duration = Duration::from_millis(50);

/// The clock is read after so long a time at the earliest: it takes some 25 ns.
const BATCH: Duration = Duration::from_micros(10);

/// Operations per second of all threads, each on a core of its own, at work on the same parent or token.
pub fn rate<O: Operation>(shared: &O::Shared, who: Threads) -> f64 {
    let threads = match who {
        Threads::One => 1,
        Threads::Two | Threads::TwoAtAShard => 2,
    };
    let barrier = Barrier::new(threads);
    let arrived = AtomicUsize::new(0);
    let rates = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for core in 0..threads {
            let (barrier, arrived, rates) = (&barrier, &arrived, &rates);
            scope.spawn(move || {
                if who == Threads::TwoAtAShard {
                    shard::same(core, barrier);
                }
                let _pinned = cores::pin(core);
                let mut sampled = Sampled {
                    threads,
                    arrived,
                    rates,
                };
                O::on(shared, &mut sampled);
            });
        }
    });
    let runs: f64 = rates
        .into_inner()
        .expect("nobody panics with it")
        .iter()
        .sum();
    runs * O::UNITS as f64
}

struct Sampled<'a> {
    threads: usize,
    arrived: &'a AtomicUsize,
    rates: &'a Mutex<Vec<f64>>,
}

impl Sampled<'_> {
    /// A barrier that spins: one that parks would let the first thread run alone until the second has woken up.
    fn meet(&self) {
        let complete =
            (self.arrived.fetch_add(1, Ordering::AcqRel) / self.threads + 1) * self.threads;
        while self.arrived.load(Ordering::Acquire) < complete {
            hint::spin_loop();
        }
    }

    /// `batch` says how many runs it has made, and how long they took.
    fn sample(&mut self, mut batch: impl FnMut() -> (u64, Duration)) {
        let mut one = || {
            let (mut runs, mut time) = (0, Duration::ZERO);
            while time < SAMPLE {
                let (more, took) = batch();
                runs += more;
                time += took;
            }
            runs as f64 / time.as_secs_f64()
        };
        // To warm up, and to have shards if it comes to that.
        let start = Instant::now();
        while start.elapsed() < WARM_UP {
            one();
        }
        let samples = (0..SAMPLES).map(|_| {
            self.meet();
            one()
        });
        let samples = samples.collect();
        self.rates
            .lock()
            .expect("nobody panics with it")
            .push(median(samples));
    }
}

impl Measure for Sampled<'_> {
    fn again(&mut self, mut run: impl FnMut()) {
        let mut batch = 1;
        self.sample(|| {
            let start = Instant::now();
            for _ in 0..batch {
                run();
            }
            let took = start.elapsed();
            let runs = batch;
            if took < BATCH {
                batch *= 2;
            }
            (runs, took)
        });
    }

    fn afresh<S>(&mut self, mut ready: impl FnMut() -> S, mut run: impl FnMut(&mut S)) {
        self.sample(|| {
            let mut state = ready();
            let start = Instant::now();
            run(&mut state);
            (1, start.elapsed())
        });
    }
}

#[repr(align(128))]
struct Line(AtomicUsize);

/// Seconds until a line that another core has just written is here and written: two threads count up in turn.
pub fn transfer() -> f64 {
    const TURNS: usize = 1000;
    let line = Line(AtomicUsize::new(0));
    let take_turns = |me: usize, samples: &mut Vec<f64>| {
        let _pinned = cores::pin(me);
        let mut start = Instant::now();
        for turn in (me..SAMPLES * TURNS).step_by(2) {
            while line.0.load(Ordering::Acquire) != turn {
                hint::spin_loop();
            }
            line.0.store(turn + 1, Ordering::Release);
            if turn % TURNS == me {
                samples.push(start.elapsed().as_secs_f64() / TURNS as f64);
                start = Instant::now();
            }
        }
    };
    let mut samples = Vec::new();
    thread::scope(|scope| {
        scope.spawn(|| take_turns(1, &mut Vec::new()));
        take_turns(0, &mut samples);
    });
    median(samples)
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}
