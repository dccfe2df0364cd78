//! Threads that are there already: to start some for every run would take longer than the run.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, Thread};

type Job = Box<dyn FnOnce() + Send>;

struct Worker {
    thread: Thread,
    job: Arc<Mutex<Option<Job>>>,
    /// How many jobs are over, and freed.
    finished: Arc<AtomicUsize>,
}

pub struct Pool {
    workers: Vec<Worker>,
}

/// So often a thread looks before it sleeps.
const LOOKS: usize = 500;

fn wait_until(mut there: impl FnMut() -> bool, sleep: impl Fn()) {
    for _ in 0..LOOKS {
        if there() {
            return;
        }
        std::hint::spin_loop();
    }
    while !there() {
        sleep();
    }
}

impl Pool {
    /// So many threads beside this one, which has to be the one that calls `run`. `prepare` is run by each of all
    /// once, before this returns.
    pub fn new(others: usize, prepare: fn()) -> Pool {
        let here = thread::current();
        let workers = (0..others).map(|_| {
            let job = Arc::new(Mutex::new(None::<Job>));
            let finished = Arc::new(AtomicUsize::new(0));
            let (theirs, over, here) = (job.clone(), finished.clone(), here.clone());
            let spawned = thread::spawn(move || loop {
                let mut next = None;
                let take = || {
                    next = theirs.try_lock().ok().and_then(|mut job| job.take());
                    next.is_some()
                };
                wait_until(take, thread::park);
                if let Some(next) = next {
                    next();
                    over.fetch_add(1, Ordering::AcqRel);
                    here.unpark();
                }
            });
            Worker {
                thread: spawned.thread().clone(),
                job,
                finished,
            }
        });
        let pool = Pool {
            workers: workers.collect(),
        };
        pool.run(vec![prepare; others + 1]);
        pool
    }

    /// Runs one of these on each thread, the first one here, all at once; their answers.
    pub fn run<T, F>(&self, jobs: Vec<F>) -> Vec<T>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let all = jobs.len();
        assert!(all <= self.workers.len() + 1);
        let arrived = Arc::new(AtomicUsize::new(0));
        let answers: Arc<Vec<Mutex<Option<T>>>> =
            Arc::new((0..all).map(|_| Mutex::new(None)).collect());
        let mut jobs = jobs.into_iter().enumerate().map(|(i, job)| {
            let (arrived, answers) = (arrived.clone(), answers.clone());
            move || {
                arrived.fetch_add(1, Ordering::AcqRel);
                wait_until(|| arrived.load(Ordering::Acquire) == all, thread::yield_now);
                let answer = job();
                *answers[i].lock().unwrap() = Some(answer);
            }
        });
        let Some(first) = jobs.next() else {
            return Vec::new();
        };
        let mut busy = Vec::new();
        for (worker, job) in self.workers.iter().zip(jobs) {
            busy.push((worker, worker.finished.load(Ordering::Acquire)));
            *worker.job.lock().unwrap() = Some(Box::new(job));
            worker.thread.unpark();
        }
        first();
        for (worker, before) in busy {
            let over = || worker.finished.load(Ordering::Acquire) != before;
            wait_until(over, thread::park);
        }
        let answers = answers.iter().map(|answer| answer.lock().unwrap().take());
        answers.flatten().collect()
    }
}
