//! A cell of the tables: what is measured, of which tree; who can; and their samples, taken in turns.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::contenders::{self, CancelTree, Need, Visitor};
use crate::measure::{self, Sample};
use crate::other_core::OtherCore;
use crate::shape::{Kind, Shape};
use crate::tree::{Row, Tokens, Tree};

/// A cell takes as long as this; longer for as many samples as a p99 needs, if it has them in time; and however long it
/// takes for the fewest.
const AT_LEAST: Duration = Duration::from_secs(1);
const FOR_A_P99: (usize, Duration) = (100, Duration::from_secs(4));
const FEWEST: usize = 11;

const MILLION: usize = 1_000_000;

#[derive(Clone, Copy, PartialEq)]
pub enum What {
    Seen,
    Task,
    Thread,
}

impl What {
    pub const ALL: [Self; 3] = [Self::Seen, Self::Task, Self::Thread];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Seen => "seen",
            Self::Task => "task",
            Self::Thread => "thread",
        }
    }

    /// What a contender has to have for a tree of that shape.
    fn needs(self, shape: &Shape) -> Vec<Need> {
        let has_many_waits = self == Self::Task && shape.leaves.len() > 1 && shape.reach >= MILLION;
        let asked = [
            (Need::Children, true),
            (Need::Crowd, shape.width > 1000),
            (Need::Depth, shape.depth > 1000),
            (Need::Million, shape.len() >= MILLION),
            (Need::Async, self == Self::Task),
            (Need::ManyWaits, has_many_waits),
            (Need::Blocking, self == Self::Thread),
        ];
        let needed = asked.iter().filter(|(_, is_needed)| *is_needed);
        needed.map(|&(need, _)| need).collect()
    }
}

/// What is measured for all who can, one beside the other.
#[derive(Clone, Copy)]
pub struct Cell {
    pub what: What,
    pub kind: Kind,
    /// How many tokens are below the root.
    pub len: usize,
}

impl Cell {
    pub fn id(&self) -> String {
        format!("{}/{}/{}", self.what.name(), self.kind.name(), self.len)
    }
}

/// In the order of the tables.
pub fn all(is_measuring: bool) -> Vec<Cell> {
    const SIZES: [usize; 7] = [1, 10, 100, 1000, 10_000, 100_000, MILLION];
    // A hundred threads are as many as a program has that parks them.
    let most = |what| match what {
        _ if !is_measuring => 10,
        What::Thread => 100,
        What::Seen | What::Task => MILLION,
    };
    // One token has no shape.
    let fewest = |kind| match kind {
        Kind::Flat => 1,
        _ => 10,
    };
    let mut cells = Vec::new();
    for what in What::ALL {
        for kind in [Kind::Flat, Kind::Chain, Kind::Binary, Kind::TenAry] {
            let sizes = SIZES.into_iter();
            let sizes = sizes.filter(|len| (fewest(kind)..=most(what)).contains(len));
            cells.extend(sizes.map(|len| Cell { what, kind, len }));
        }
        if what != What::Thread {
            let kind = Kind::Directories;
            let len = kind.shape(0).len();
            cells.push(Cell { what, kind, len });
        }
    }
    cells
}

/// A contender in a cell.
pub struct Entrant {
    pub name: &'static str,
    sample: fn(&Arc<Shape>, &OtherCore) -> Sample,
    pub latency: Histogram<u64>,
    pub scan: Histogram<u64>,
}

/// Who takes part in a cell, the floor first, and who does not.
struct Entrants {
    what: What,
    needs: Vec<Need>,
    these: Vec<Entrant>,
    left_out: Vec<(&'static str, &'static str)>,
}

impl Entrants {
    fn enter<T: Tree>(&mut self, name: &'static str) {
        let histogram = || Histogram::new(3).expect("three digits are possible");
        self.these.push(Entrant {
            name,
            sample: match self.what {
                What::Seen => measure::seen::<T>,
                What::Task => measure::task::<T>,
                What::Thread => measure::thread::<T>,
            },
            latency: histogram(),
            scan: histogram(),
        });
    }
}

impl Visitor for Entrants {
    fn visit<T: CancelTree>(&mut self) {
        match contenders::why_not::<T>(&self.needs) {
            None => self.enter::<Tokens<T>>(T::NAME),
            Some(because) => self.left_out.push((T::NAME, because)),
        }
    }
}

/// A cell with its samples, and who was left out of it and why.
pub struct Measured {
    pub cell: Cell,
    pub entrants: Vec<Entrant>,
    pub left_out: Vec<(&'static str, &'static str)>,
}

/// Takes samples in turns, so that a slow drift of the machine does not end up in the ratios; one each if not
/// `at_length`. Says before each what it is of.
pub fn measure(cell: Cell, other: &OtherCore, at_length: bool, say: impl Fn(String)) -> Measured {
    let shape = Arc::new(cell.kind.shape(cell.len));
    let mut entrants = Entrants {
        what: cell.what,
        needs: cell.what.needs(&shape),
        these: Vec::new(),
        left_out: Vec::new(),
    };
    entrants.enter::<Row>("floor");
    contenders::each(&mut entrants);

    let begin = Instant::now();
    let count = entrants.these.len();
    for round in 1.. {
        for turn in 0..count {
            // Another one begins each time.
            let entrant = &mut entrants.these[(round + turn) % count];
            say(format!("{}, {}", cell.id(), entrant.name));
            let Sample { latency, scan } = (entrant.sample)(&shape, other);
            let ns = |time: Duration| time.as_nanos() as u64;
            entrant.latency.record(ns(latency)).expect("it resizes");
            if let Some(scan) = scan {
                entrant.scan.record(ns(scan)).expect("it resizes");
            }
        }
        if !at_length || is_enough(round, begin.elapsed()) {
            break;
        }
    }
    Measured {
        cell,
        entrants: entrants.these,
        left_out: entrants.left_out,
    }
}

fn is_enough(samples: usize, elapsed: Duration) -> bool {
    let (wanted, in_time) = FOR_A_P99;
    samples >= FEWEST && elapsed >= AT_LEAST && (samples >= wanted || elapsed >= in_time)
}
