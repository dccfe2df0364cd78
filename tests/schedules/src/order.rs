//! The order in which threads take turns, and all else that is drawn: from one seed for each schedule, so
//! that a schedule is run again by its seed alone. (shuttle's own PCT scheduler needs the schedules before,
//! from which it learns how long one is.)

use rand_core::{RngCore, SeedableRng};
use rand_pcg::Pcg64Mcg;
use shuttle::scheduler::{Schedule, Scheduler, Task, TaskId};
use std::cell::Cell;
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::rc::Rc;

#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    /// At each step any thread; how often the one at work stays is drawn for each schedule.
    Random,
    /// Probabilistic concurrency testing: the thread of the highest priority, and a few points at which the
    /// one at work becomes the last.
    Pct,
}

pub struct Order {
    kind: Kind,
    seeds: std::ops::Range<u64>,
    /// The seed of the schedule that is being run, for who reports it.
    pub seed: Rc<Cell<u64>>,
    pub steps: Rc<Cell<u64>>,
    /// Where the seed is noted too, for a process that dies of it.
    note: Option<File>,
    /// How long a schedule is, about: where points are drawn from.
    length: u64,
    rng: Pcg64Mcg,
    /// One in so many steps changes threads.
    leave: u64,
    priorities: HashMap<TaskId, u64>,
    points: Vec<u64>,
    last: u64,
    now: u64,
}

impl Order {
    pub fn new(kind: Kind, seeds: std::ops::Range<u64>, length: u64) -> Order {
        Order {
            kind,
            seeds,
            seed: Rc::default(),
            steps: Rc::default(),
            note: std::env::var_os("SCHEDULES_NOTE")
                .map(|path| File::create(path).expect("a file")),
            length,
            rng: Pcg64Mcg::seed_from_u64(0),
            leave: 1,
            priorities: HashMap::new(),
            points: Vec::new(),
            last: 0,
            now: 0,
        }
    }

    fn below(&mut self, n: u64) -> u64 {
        self.rng.next_u64() % n
    }

    fn priority(&mut self, task: TaskId) -> u64 {
        let rng = &mut self.rng;
        // Above all that were made the last.
        *self
            .priorities
            .entry(task)
            .or_insert_with(|| rng.next_u64() | 1 << 63)
    }
}

impl Scheduler for Order {
    fn new_execution(&mut self) -> Option<Schedule> {
        let seed = self.seeds.next()?;
        self.seed.set(seed);
        if let Some(note) = &self.note {
            let line = format!("{seed:<20}\n");
            note.write_all_at(line.as_bytes(), 0)
                .expect("room for a seed");
        }
        self.rng = Pcg64Mcg::seed_from_u64(seed);
        self.leave = 1 << self.below(6);
        self.priorities.clear();
        let depth = 1 + self.below(8);
        let length = self.length;
        self.points = (0..depth).map(|_| self.below(length)).collect();
        self.last = 1 << 62;
        self.now = 0;
        Some(Schedule::new(seed))
    }

    fn next_task(
        &mut self,
        runnable: &[&Task],
        current: Option<TaskId>,
        is_yielding: bool,
    ) -> Option<TaskId> {
        self.steps.set(self.steps.get() + 1);
        if let [only] = runnable {
            return Some(only.id());
        }
        self.now += 1;
        let stays = current.filter(|c| !is_yielding && runnable.iter().any(|t| t.id() == *c));
        if self.kind == Kind::Random {
            if let Some(current) = stays {
                if self.below(self.leave) != 0 {
                    return Some(current);
                }
            }
            let i = self.below(runnable.len() as u64);
            return Some(runnable[i as usize].id());
        }
        if let Some(current) = current {
            if is_yielding || self.points.contains(&self.now) {
                self.last -= 1;
                self.priorities.insert(current, self.last);
            }
        }
        runnable
            .iter()
            .map(|task| task.id())
            .max_by_key(|&id| self.priority(id))
    }

    fn next_u64(&mut self) -> u64 {
        self.rng.next_u64()
    }
}
