//! Steps of a driver of the test's own, to which nothing comes out of the inbox: that is the process's.
#![cfg(not(any(cancel_tree_loom, cancel_tree_by_hand)))]

use super::{Driver, Entry, Job, Moment, Tick};
use crate::timer::entry::Table;
use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::ptr::{self, NonNull};

// Not those of the source, so that another one is noticed.
const DUE: usize = 512;
const TAKEN_IN: usize = 256;
const MOVED_DOWN: usize = 256;
const MARKS: usize = 64;
const LARGE: usize = 16;
const MARKS_OF_LARGE: usize = 512;
const PATIENCE: Tick = 8;
const ROUND: usize = 16_384;

/// When something is due: so near that it is put at once where it is taken out.
const SOON: Tick = 60;

/// What has been done to all of them.
#[derive(Default)]
struct Seen {
    /// Whose, and how much of it, in the order in which it was marked.
    marks: RefCell<Vec<(usize, usize)>>,
    /// How many have been marked through; and, for each that has been woken, how many that were then.
    through: Cell<usize>,
    woken: RefCell<Vec<usize>>,
    run: RefCell<Vec<usize>>,
}

#[repr(C)]
struct Deadline {
    entry: Entry,
    number: usize,
    /// How much is to be marked.
    left: Cell<usize>,
    seen: Rc<Seen>,
}

static TABLE: Table = Table {
    mark: Deadline::mark,
    wake: Deadline::wake,
    call: |_| (),
    put_off: |_| None,
    stands_for: None,
    free: |_| unreachable!("it is owned"),
    #[cfg(feature = "testing")]
    due_apart: |_, _| unreachable!("it is under no clock"),
};

impl Deadline {
    /// # Safety
    /// The first field of one, which is there.
    unsafe fn of<'a>(entry: NonNull<Entry>) -> &'a Deadline {
        // SAFETY: the caller's promise.
        unsafe { entry.cast().as_ref() }
    }

    /// # Safety
    /// As for `Table::mark`.
    unsafe fn mark(entry: NonNull<Entry>, budget: usize) -> bool {
        // SAFETY: a test's, which keeps it.
        let this = unsafe { Deadline::of(entry) };
        let marks = this.left.get().min(budget);
        this.left.set(this.left.get() - marks);
        this.seen.marks.borrow_mut().push((this.number, marks));
        let is_through = this.left.get() == 0;
        if is_through {
            this.seen.through.set(this.seen.through.get() + 1);
        }
        is_through
    }

    /// # Safety
    /// As for `Table::wake`.
    unsafe fn wake(entry: NonNull<Entry>) {
        // SAFETY: a test's, which keeps it.
        let seen = unsafe { &Deadline::of(entry).seen };
        seen.woken.borrow_mut().push(seen.through.get());
    }
}

#[repr(C)]
struct Run {
    job: Job,
    number: usize,
    seen: Rc<Seen>,
}

impl Run {
    /// # Safety
    /// As for `Job::run`.
    unsafe fn run(job: NonNull<Job>) {
        // SAFETY: the first field of a test's, which keeps it.
        let this = unsafe { job.cast::<Run>().as_ref() };
        this.seen.run.borrow_mut().push(this.number);
    }
}

/// What one step has done.
struct Turn {
    marks: Vec<(usize, usize)>,
    /// How many deadlines have been handed out, in all.
    woken: usize,
    /// The jobs that were.
    run: Vec<usize>,
}

impl Turn {
    /// How much was marked of one after the other.
    fn marks(&self) -> Vec<usize> {
        self.marks.iter().map(|(_, marks)| *marks).collect()
    }

    fn whose(&self) -> Vec<usize> {
        self.marks.iter().map(|(number, _)| *number).collect()
    }
}

/// (What it takes in was never pushed, so afterwards nobody in this process has to pause who pushes.)
struct Stage {
    driver: Driver,
    now: Tick,
    seen: Rc<Seen>,
    kept: Vec<Vec<Deadline>>,
    /// In the place of what the inbox has: it is not looked into where there is something.
    no_entry: Entry,
    no_job: Job,
}

impl Stage {
    fn new() -> Stage {
        Stage {
            driver: Driver::new(),
            now: 0,
            seen: Rc::default(),
            kept: Vec::new(),
            no_entry: Entry::homeless(&TABLE),
            no_job: Job::new(|_| ()),
        }
    }

    /// Has one come for each, as if out of the inbox: the first one is looked at first.
    fn put(&mut self, deadlines: impl IntoIterator<Item = (Moment, usize)>) {
        assert!(self.driver.entries.is_null());
        let new = |(number, (moment, left))| {
            let entry = Entry::homeless(&TABLE);
            entry.arm(ptr::null_mut(), moment);
            Deadline {
                entry,
                number,
                left: Cell::new(left),
                seen: self.seen.clone(),
            }
        };
        let all: Vec<_> = deadlines.into_iter().enumerate().map(new).collect();
        for deadline in all.iter().rev() {
            let entry = NonNull::from(deadline).cast::<Entry>();
            deadline
                .entry
                .queue
                .store(self.driver.entries, super::Relaxed);
            self.driver.entries = entry.as_ptr();
        }
        self.kept.push(all);
    }

    /// So many, with one thing to mark each, all of them due at that tick.
    fn put_alike(&mut self, deadlines: usize, tick: Tick) {
        self.put((0..deadlines).map(|_| (moment_of(tick), 1)));
    }

    /// Goes on to where they are due, and has taken them in before.
    fn go_on_to(&mut self, tick: Tick) {
        while !self.driver.entries.is_null() {
            assert!(self.turn().marks.is_empty());
        }
        self.now = tick;
    }

    fn turn(&mut self) -> Turn {
        let driver = &mut self.driver;
        if driver.entries.is_null() {
            driver.entries = ptr::from_ref(&self.no_entry).cast_mut();
        }
        if !driver.has_jobs() {
            driver.jobs = ptr::from_ref(&self.no_job).cast_mut();
        }
        if let Some(round) = driver.turn(self.now) {
            while round.things().wake_one() {}
            while round.things().call_one() {}
        }
        Turn {
            marks: self.seen.marks.take(),
            woken: self.seen.woken.borrow().len(),
            run: self.seen.run.take(),
        }
    }

    /// How many are marked in each step until nothing is left.
    fn turns(&mut self) -> Vec<usize> {
        let mut turns = Vec::new();
        loop {
            let turn = self.turn();
            if turn.marks.is_empty() {
                return turns;
            }
            turns.push(turn.marks.len());
        }
    }
}

fn moment_of(tick: Tick) -> Moment {
    tick << 11
}

#[test]
fn nothing_is_woken_before_all_that_is_due_is_marked() {
    let mut stage = Stage::new();
    stage.put_alike(8 * DUE, SOON);
    stage.go_on_to(SOON);
    for _ in 0..7 {
        assert_eq!(stage.turn().woken, 0);
    }
    assert_eq!(stage.turn().woken, 8 * DUE);
    assert_eq!(*stage.seen.woken.borrow(), vec![8 * DUE; 8 * DUE]);
}

#[test]
fn nothing_is_woken_before_all_below_what_is_due_is_marked() {
    let mut stage = Stage::new();
    let much = MARKS + 2 * LARGE * MARKS_OF_LARGE;
    stage.put([much, 1].map(|below| (moment_of(SOON), below)));
    stage.go_on_to(SOON);
    for woken in [0, 0, 2] {
        assert_eq!(stage.turn().woken, woken);
    }
    assert_eq!(*stage.seen.woken.borrow(), [2, 2]);
}

#[test]
fn what_is_marked_waits_for_so_many_ticks_at_most() {
    let mut stage = Stage::new();
    stage.put_alike(30 * DUE, SOON);
    stage.go_on_to(SOON);
    let mut handed = 0;
    for since in (0..=PATIENCE).chain(0..=PATIENCE) {
        let turn = stage.turn();
        assert_eq!(turn.marks.len(), DUE);
        if since == PATIENCE {
            handed += 9 * DUE;
        }
        assert_eq!(turn.woken, handed);
        stage.now += 1;
    }
}

#[test]
fn so_many_are_handed_out_though_there_are_more() {
    let mut stage = Stage::new();
    stage.put_alike(ROUND + 2 * DUE, SOON);
    stage.go_on_to(SOON);
    for turn in 1..=34 {
        let handed = match turn {
            32 | 33 => ROUND,
            34 => ROUND + 2 * DUE,
            _ => 0,
        };
        assert_eq!(stage.turn().woken, handed);
    }
}

/// A parent and its child, say, whose cause is that of whichever is marked first.
#[test]
fn of_what_is_due_in_one_step_the_earlier_one_is_marked_first() {
    for offsets in [[2, 1, 0], [0, 1, 2], [1, 2, 0]] {
        let moments = offsets.map(|offset| (moment_of(SOON) - offset, 1));
        let in_order = || {
            let mut order = [0, 1, 2];
            order.sort_by_key(|number| moments[*number]);
            order
        };
        let mut stage = Stage::new();
        stage.put(moments);
        stage.go_on_to(SOON);
        assert_eq!(stage.turn().whose(), in_order());
        // Those that come too late for the wheel.
        let mut stage = Stage::new();
        stage.now = SOON;
        stage.put(moments);
        assert_eq!(stage.turn().whose(), in_order());
    }
}

#[test]
fn a_step_is_bounded_by_what_is_due() {
    let mut stage = Stage::new();
    stage.put_alike(100_000, SOON);
    stage.go_on_to(SOON);
    let turns = stage.turns();
    assert_eq!(turns.len(), 100_000_usize.div_ceil(DUE));
    assert!(turns.iter().all(|marked| *marked <= DUE));
}

/// So a later one may be marked before some of an earlier moment.
#[test]
fn a_step_is_shared_among_the_moments_that_are_due() {
    for (ticks, each) in [(1, 512), (2, 256), (32, 16)] {
        let mut stage = Stage::new();
        let deadlines = (0..ticks as usize * 2 * DUE).map(|number| number / (2 * DUE));
        stage.put(deadlines.map(|tick| (moment_of(SOON + tick as Tick), 1)));
        stage.go_on_to(SOON - 1);
        stage.now = SOON + ticks - 1;
        let mut marked = vec![0; ticks as usize];
        for number in stage.turn().whose() {
            marked[number / (2 * DUE)] += 1;
        }
        assert_eq!(marked, vec![each; ticks as usize]);
    }
}

#[test]
fn a_step_is_bounded_by_what_has_come() {
    let mut stage = Stage::new();
    stage.now = SOON;
    stage.put_alike(10 * TAKEN_IN, SOON);
    assert_eq!(stage.turns(), [TAKEN_IN; 10]);
}

#[test]
fn a_step_is_bounded_by_what_is_to_be_moved_down() {
    let mut stage = Stage::new();
    let far = 1000 * SOON;
    stage.put_alike(10 * MOVED_DOWN, far);
    // Its time has come before it was moved.
    stage.go_on_to(far);
    assert_eq!(stage.turns(), [MOVED_DOWN; 10]);
}

#[test]
fn a_step_is_bounded_by_what_is_below() {
    let mut stage = Stage::new();
    stage.put([(moment_of(SOON), 100_000)]);
    stage.go_on_to(SOON);
    assert_eq!(stage.turn().marks(), [MARKS]);
    for _ in 0..12 {
        assert_eq!(stage.turn().marks(), [MARKS_OF_LARGE; LARGE]);
    }
    let left = 100_000 - MARKS - 12 * LARGE * MARKS_OF_LARGE;
    let last = stage.turn().marks();
    assert_eq!(last.iter().sum::<usize>(), left);
    assert_eq!(last.len(), left.div_ceil(MARKS_OF_LARGE));
}

#[test]
fn those_that_have_much_below_take_turns() {
    let mut stage = Stage::new();
    stage.put([(moment_of(SOON), MARKS + 2 * MARKS_OF_LARGE); 20]);
    stage.go_on_to(SOON);
    assert_eq!(stage.turn().marks(), [MARKS; 20]);
    let went_on: Vec<_> = (0..3).flat_map(|_| stage.turn().whose()).collect();
    assert_eq!(
        went_on,
        [Vec::from_iter(0..20), Vec::from_iter(0..20)].concat()
    );
}

#[test]
fn jobs_are_handed_out_in_order_and_so_many_in_a_step() {
    let mut stage = Stage::new();
    let new = |number| Run {
        job: Job::new(Run::run),
        number,
        seen: stage.seen.clone(),
    };
    let jobs: Vec<_> = (0..4000).map(new).collect();
    // The last one first, as they are in the inbox.
    for run in &jobs {
        let job = NonNull::from(run).cast::<Job>();
        run.job.next.store(stage.driver.jobs, super::Relaxed);
        stage.driver.jobs = job.as_ptr();
    }
    let turns: Vec<_> = (0..6).map(|_| stage.turn().run).collect();
    // Three steps turn their order and part of another one; what is left of that hands out.
    let lengths: Vec<_> = turns.iter().map(Vec::len).collect();
    assert_eq!(lengths, [0, 0, 0, 1120, 2048, 832]);
    assert_eq!(turns.concat(), Vec::from_iter(0..4000));
}
