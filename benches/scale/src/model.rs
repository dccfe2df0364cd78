//! How many operations a second so many cores do, on paper.

use crate::counts::Counts;

/// Cores that the model is asked about.
pub const CORES: [usize; 5] = [1, 2, 8, 64, 192];

/// The model in words, for the report.
pub const ASSUMPTIONS: &str = "\
A model, not a measurement. All cores do the same operation on the same parent or token, over and over:

- On one core an operation takes what was measured here, *t*. A second core changes that by what it takes to fetch cache
  lines, and by nothing else.
- A line that two cores go to and one of them writes is fetched anew at each visit, for *c*: as long as it takes
  here until a line that the other core has just written can be written. Lines that all only read cost nothing.
- Such a line serves one core at a time, *c* per visit. A lock keeps others out for as long as it is held: for the visits
  meanwhile, and for a part of *t*, taken to be the part of the operation's accesses that are made then.
- So *n* cores do the lesser of *n* / (*t* + visits × *c*) and 1 / (the time for which the busiest line or lock is taken).
- Left out: that a core may do several operations before it lets a line go, the more the longer *c* is; memory that is
  further away from some cores than from others (*c* is that of two cores of this machine; between sockets it is several
  times as long), bandwidth, the allocator, second attempts after a lost race, threads that a lock puts to sleep, more
  than 64 threads at one parent's 64 shards, cores that share a cache or a core's units.
";

/// `alone` is the time of one operation on one core, `transfer` that of a line from one to another, in seconds.
/// `together` is counted on two threads.
pub fn rate(cores: usize, alone: f64, transfer: f64, together: &Counts) -> f64 {
    if cores == 1 {
        return 1.0 / alone;
    }
    let each = alone + together.visits * transfer;
    let line = together.visits_of_one * transfer;
    let lock = together.locked * alone + together.visits_locked * transfer;
    let taken = line.max(lock);
    (cores as f64 / each).min(1.0 / taken)
}
