//! Tasks of a group that come and go on several threads, with a limit or without, while others close it, cancel it, look
//! at it and wait until all are gone.

use crate::probes::{draw, operation, Alarm, Counted, Shared};
use cancel_tree::{Cause, Context, Full, Group, Member, Spawner};
use shuttle::{future, thread};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task;

const THREADS: usize = 3;
const OPERATIONS: usize = 40;

/// What is known beside the group.
#[derive(Default)]
struct Known {
    /// Tasks that are there for certain.
    there: usize,
    limit: Option<usize>,
    /// These have returned.
    is_closed: bool,
    is_cancelled: bool,
    is_joined: bool,
    cancel_has_begun: bool,
    /// Errors that tasks have returned, or are about to.
    errors: usize,
}

type Shelf = Arc<Shared<Known>>;

enum Task {
    Member(Member),
    Tracked(Pin<Box<dyn Future<Output = ()> + Send>>, Arc<Alarm>),
}

/// A future that waits for the group's end, or is through at once, or fails.
async fn work(known: Shelf, ctx: Context, how: usize, _counted: Counted) -> Result<(), Cause> {
    match how {
        0 => Ok(()),
        1 => {
            known.with(|known| known.errors += 1);
            Err(Cause::from("a task's"))
        }
        // Handed back, it takes no error's place.
        _ => Err(ctx.done().await.into()),
    }
}

struct Hand {
    spawner: Spawner,
    known: Shelf,
    tasks: Vec<Task>,
    never: Context,
    /// The errors of a group inside are its own: none is made there.
    is_inside: bool,
}

impl Hand {
    fn act(&mut self) {
        operation();
        match draw(12) {
            0..=2 => self.start(false),
            3..=4 => self.start(true),
            5..=6 if !self.tasks.is_empty() => {
                let i = draw(self.tasks.len());
                self.end(i);
            }
            7..=8 if !self.tasks.is_empty() => {
                let i = draw(self.tasks.len());
                self.go_on(i);
            }
            9 => self.wait_for_room(),
            10 => {
                let (there, over) = self.known.with(|k| (k.there, k.is_joined));
                assert!(!over || there == 0);
                let _ = self.spawner.is_empty();
            }
            _ => self.check(),
        }
    }

    fn check(&self) {
        let is_cancelled = self.known.with(|known| known.is_cancelled);
        let is_done = self.spawner.context().is_done();
        assert!(is_done || !is_cancelled, "a lost cancel");
        for task in &self.tasks {
            if let Task::Member(member) = task {
                assert!(member.context().is_done() || !is_cancelled);
            }
        }
    }

    /// Nobody comes in after the end, nor beyond the limit.
    fn is_in(&self, may: bool) {
        assert!(
            may,
            "started in a group that was closed, cancelled or joined"
        );
        self.known.with(|known| {
            known.there += 1;
            let limit = known.limit.unwrap_or(usize::MAX);
            assert!(known.there <= limit, "more than the limit");
        });
    }

    fn may(&self) -> bool {
        self.known
            .with(|k| !k.is_closed && !k.is_cancelled && !k.is_joined)
    }

    fn start(&mut self, tracked: bool) {
        let may = self.may();
        if tracked {
            let how = match draw(8) {
                0 if !self.is_inside => 1,
                1 => 0,
                _ => 2,
            };
            let known = self.known.clone();
            let counted = Counted::new();
            let started = self
                .spawner
                .track_with(|ctx| work(known, ctx, how, counted));
            if let Ok(task) = started {
                self.is_in(may);
                self.tasks.push(Task::Tracked(Box::pin(task), Alarm::new()));
            }
            return;
        }
        let started = match draw(2) {
            0 => self.spawner.enter(),
            _ => self.spawner.named("task").enter(),
        };
        match started {
            Ok(member) => {
                self.is_in(may);
                self.tasks.push(Task::Member(member));
            }
            Err(refused) => {
                let is_full = refused.cause().downcast_ref::<Full>().is_some();
                let limit = self.known.with(|known| known.limit);
                assert!(!is_full || limit.is_some(), "full, and there is no limit");
            }
        }
    }

    /// Holds nothing, so that the others' places come free.
    fn wait_for_room(&mut self) {
        while !self.tasks.is_empty() {
            self.end(0);
        }
        let may = self.may();
        let room = future::block_on(self.spawner.enter_when(&self.never));
        if let Ok(member) = room {
            self.is_in(may);
            self.tasks.push(Task::Member(member));
        }
    }

    fn go_on(&mut self, i: usize) {
        let must = self.known.with(|known| known.is_cancelled);
        let Task::Tracked(future, alarm) = &mut self.tasks[i] else {
            return;
        };
        if draw(3) == 0 {
            *alarm = Alarm::new();
        }
        let waker = alarm.waker();
        // What it leaves is gone from here on, perhaps.
        self.known.with(|known| known.there -= 1);
        let polled = future.as_mut().poll(&mut task::Context::from_waker(&waker));
        if polled.is_ready() {
            drop(self.tasks.swap_remove(i));
        } else {
            alarm.set_polled();
            self.known.with(|known| known.there += 1);
            assert!(!must, "pending below a cancelled group");
        }
    }

    fn end(&mut self, i: usize) {
        let task = self.tasks.swap_remove(i);
        self.known.with(|known| known.there -= 1);
        match task {
            Task::Member(member) if !self.is_inside && draw(8) == 0 => {
                self.known.with(|known| known.errors += 1);
                member.run(|_ctx| Err::<(), _>("a member's"));
            }
            other => drop(other),
        }
    }

    fn finish(mut self) {
        for task in &self.tasks {
            if let Task::Tracked(_, alarm) = task {
                let is_cancelled = self.known.with(|known| known.is_cancelled);
                let lost = alarm.was_polled() && is_cancelled && !alarm.has_rung();
                assert!(!lost, "a waker that was not woken");
            }
        }
        while !self.tasks.is_empty() {
            self.end(0);
        }
    }
}

pub fn run() {
    let known = Shelf::default();
    let limit = (draw(2) == 0).then(|| 1 + draw(3));
    known.with(|known| known.limit = limit);
    let (above, guard) = Context::background().with_cancel();
    let group = Group::new(&above);
    let group = Arc::new(match limit {
        Some(limit) => group.limit(limit),
        None => group,
    });
    let inside = (draw(2) == 0).then(|| group.child("inside"));
    let threads: Vec<_> = (0..THREADS)
        .map(|i| {
            // Those of the group inside count here too; its limit is none.
            let inside = inside.as_ref().filter(|_| i == 0 && limit.is_none());
            let spawner = inside.map_or(group.spawner(), |inside| inside.spawner());
            let mut hand = Hand {
                spawner,
                known: known.clone(),
                tasks: Vec::new(),
                never: Context::background(),
                is_inside: inside.is_some(),
            };
            thread::spawn(move || {
                for _ in 0..OPERATIONS {
                    hand.act();
                }
                hand.finish();
            })
        })
        .collect();
    let joiner = {
        let group = group.clone();
        thread::spawn(move || {
            for _ in 0..draw(60) {
                thread::yield_now();
            }
            future::block_on(group.wait_idle());
            drop(group.running());
        })
    };
    for _ in 0..draw(150) {
        thread::yield_now();
    }
    operation();
    match draw(4) {
        0 => {
            group.close();
            known.with(|known| known.is_closed = true);
        }
        1 => {
            known.with(|known| known.cancel_has_begun = true);
            group.cancel_with("its owner's");
            known.with(|known| known.is_cancelled = true);
        }
        2 => {
            known.with(|known| known.cancel_has_begun = true);
            guard.cancel();
            known.with(|known| known.is_cancelled = true);
        }
        _ => {}
    }
    let answer = future::block_on(group.join());
    known.with(|known| {
        assert_eq!(known.there, 0, "joined, and a task is there");
        known.is_joined = true;
        match answer {
            Ok(()) => assert_eq!(known.errors, 0, "an error that is lost"),
            Err(cause) => {
                let text = cause.to_string();
                let is_tasks = text == "a task's" || text == "a member's";
                assert!(known.errors > 0 || !is_tasks, "an error that nobody made");
                assert!(known.errors == 0 || is_tasks, "not the first error: {text}");
            }
        }
    });
    for thread in threads {
        thread.join().unwrap();
    }
    joiner.join().unwrap();
    assert!(group.is_empty() && group.enter().is_err());
    guard.detach();
}
