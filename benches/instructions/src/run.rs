//! One operation, as callgrind sees it.

use crate::heap;
use crate::operations::{Measure, Operation, Visitor};

/// The function that callgrind counts in.
pub const COUNTED: &str = "*::run::counted*";

/// Until free nodes, caches and slabs are there.
const TO_WARM_UP: u64 = 200;

/// So many runs are counted.
pub const RUNS: u64 = 20;

/// Runs one operation of one contender, and says on stdout how often it has asked for memory.
pub struct Run<'a> {
    pub op: &'a str,
    pub contender: &'a str,
}

impl Visitor for Run<'_> {
    fn visit<O: Operation>(&mut self, contender: &'static str) {
        if (O::NAME, contender) == (self.op, self.contender) {
            O::on(&O::share(), self);
        }
    }
}

impl Measure for Run<'_> {
    fn afresh<S>(&mut self, mut ready: impl FnMut() -> S, mut run: impl FnMut(&mut S)) {
        for _ in 0..TO_WARM_UP {
            run(&mut ready());
        }
        let mut asked = 0;
        for _ in 0..RUNS {
            let mut state = ready();
            asked += heap::asked_in(|| counted(&mut run, &mut state));
        }
        println!("{asked}");
    }
}

#[inline(never)]
fn counted<S>(run: &mut impl FnMut(&mut S), state: &mut S) {
    run(state);
}
