//! How many operations a second so many cores do, on paper.

use crate::counts::Counts;
use crate::shard::SHARDS;

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
- A parent of ours that several threads make children of, or wait for, has 64 shards. Up to 64 cores have one each, and the
  counts are those of two threads at different ones. More cores share them evenly, 192 by three: those at one shard do
  what the rule above says with the counts of two threads at one, and all together 64 times that. A node belongs to
  one thread from its claim until it is free again: there its lines, and those of nodes below it, are visited once.
- Left out: that a core may do several operations before it lets a line go, the more the longer *c* is; memory that is
  further away from some cores than from others (*c* is that of two cores of this machine; between sockets it is several
  times as long), bandwidth, the allocator, second attempts after a lost race, threads that a lock puts to sleep,
  that fewer than 64 threads share a shard too if others have taken numbers between theirs, cores that share a cache or a
  core's units.
";

/// Operations per second of so many cores, as evenly over the shards as can be. `apart` is counted on two threads,
/// `at_a_shard` on two that are at the same one: for who has shards.
pub fn rate(
    cores: usize,
    alone: f64,
    transfer: f64,
    apart: &Counts,
    at_a_shard: Option<&Counts>,
) -> f64 {
    let at_most = together(cores, alone, transfer, apart);
    let Some(at_a_shard) = at_a_shard else {
        return at_most;
    };
    let of_shard = |cores| together(cores, alone, transfer, at_a_shard);
    let (each, left) = (cores / SHARDS, cores % SHARDS);
    let of_shards = (SHARDS - left) as f64 * of_shard(each) + left as f64 * of_shard(each + 1);
    of_shards.min(at_most)
}

/// The same, whatever shards there are. `alone` is the time of one operation on one core, `transfer` that of a line from one
/// to another, in seconds. `counts` are of two threads.
pub fn together(cores: usize, alone: f64, transfer: f64, counts: &Counts) -> f64 {
    if cores == 1 {
        return 1.0 / alone;
    }
    let each = alone + counts.visits * transfer;
    let line = counts.visits_of_one * transfer;
    let lock = counts.locked * alone + counts.visits_locked * transfer;
    let taken = line.max(lock);
    (cores as f64 / each).min(1.0 / taken)
}
