//! Many tasks and threads that wait on one token: more than have a place of their own, so that rooms are made, entered,
//! left, found full and closed by a cancel, all at once.

use crate::probes::{draw, operation, Alarm, Record};
use cancel_tree::{CancellationToken, WaitForCancellationFutureOwned};
use shuttle::{future, thread};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

const THREADS: usize = 3;
const OPERATIONS: usize = 60;
/// So many wait on each thread: more on all of them than are in the first two rooms.
const MOST: usize = 24;

type Known = (CancellationToken, Record);

struct Task {
    future: Pin<Box<WaitForCancellationFutureOwned>>,
    alarm: Arc<Alarm>,
}

pub fn run() {
    let (root, record) = (CancellationToken::new(), Record::root());
    let known = (root.child_token(), Record::below(&[&record]));
    // Where the first places are taken, rooms come at once.
    let mut first: Vec<Task> = (0..draw(12)).map(|_| Task::new(&known)).collect();
    first.iter_mut().for_each(|task| _ = task.poll(&known));
    let mut threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let known = known.clone();
            thread::spawn(move || work(&known))
        })
        .collect();
    let sleeper = known.clone();
    threads.push(thread::spawn(move || {
        match draw(2) {
            0 => sleeper.0.blocking_wait(),
            _ => future::block_on(sleeper.0.cancelled()),
        }
        sleeper.1.check(&sleeper.0);
        Vec::new()
    }));
    for _ in 0..draw(400) {
        thread::yield_now();
    }
    // Leaves while others come, and makes room.
    while !first.is_empty() && draw(3) != 0 {
        operation();
        drop(first.swap_remove(draw(first.len())));
    }
    operation();
    match draw(2) {
        0 => record.cancel(&root, |cause| root.cancel_with(cause)),
        _ => known.1.cancel(&known.0, |cause| known.0.cancel_with(cause)),
    }
    for task in &first {
        task.check();
    }
    drop(first);
    for thread in threads {
        for task in thread.join().unwrap() {
            task.check();
        }
    }
    known.1.check(&known.0);
}

fn work(known: &Known) -> Vec<Task> {
    let mut tasks: Vec<Task> = Vec::new();
    let mut children = Vec::new();
    for _ in 0..OPERATIONS {
        operation();
        match draw(12) {
            0..=6 if tasks.len() < MOST => {
                let mut task = Task::new(known);
                if task.poll(known).is_pending() {
                    tasks.push(task);
                }
            }
            7 | 8 if !tasks.is_empty() => drop(tasks.swap_remove(draw(tasks.len()))),
            9 if !tasks.is_empty() => {
                let i = draw(tasks.len());
                if draw(2) == 0 {
                    // Only the newest waker counts.
                    tasks[i].alarm = Alarm::new();
                }
                if tasks[i].poll(known).is_ready() {
                    drop(tasks.swap_remove(i));
                }
            }
            // Children live beside rooms.
            10 => children.push((known.0.child_token(), Record::below(&[&known.1]))),
            _ if !children.is_empty() => drop(children.swap_remove(draw(children.len()))),
            _ => known.1.check(&known.0),
        }
    }
    for (token, record) in &children {
        record.check(token);
    }
    tasks
}

impl Task {
    fn new((token, _): &Known) -> Task {
        Task {
            future: Box::pin(token.clone().cancelled_owned()),
            alarm: Alarm::new(),
        }
    }

    fn poll(&mut self, (_, record): &Known) -> Poll<()> {
        let must = record.must_be_done();
        let waker = self.alarm.waker();
        let poll = self.future.as_mut().poll(&mut Context::from_waker(&waker));
        assert!(poll.is_ready() || !must, "pending on a cancelled token");
        assert!(
            poll.is_pending() || record.may_be_done(),
            "ready for nothing"
        );
        if poll.is_pending() {
            self.alarm.set_polled();
        }
        poll
    }

    /// The cancel has returned.
    fn check(&self) {
        let lost = self.alarm.was_polled() && !self.alarm.has_rung();
        assert!(!lost, "a waker that was not woken");
    }
}
