//! What an operation does to shared memory, in numbers.

use serde::{Deserialize, Serialize};

/// Who is at work on the same parent or token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Threads {
    #[serde(rename = "1")]
    One,
    #[serde(rename = "2")]
    Two,
    /// Whose children go to the same shard, if they go to any.
    #[serde(rename = "2 at a shard")]
    TwoAtAShard,
}

/// Of one operation; a fraction where one run of it is many.
#[derive(Serialize, Deserialize)]
pub struct Counts {
    pub op: String,
    pub about: String,
    pub contender: String,
    pub threads: Threads,

    pub rmws: f64,
    pub stores: f64,
    pub loads: f64,
    /// Cache lines that the operation goes to, and of these that it writes.
    pub lines: f64,
    pub written: f64,

    /// Lines that the other thread goes to as well.
    pub shared: f64,
    /// Of these, that one of the two writes.
    pub contended: f64,
    /// How often the operation comes to a contended line from another one. While it holds a contended lock, to each once.
    /// Of two at a shard, to those of the nodes that it claims once as well.
    pub visits: f64,
    /// The same, of the line with most.
    pub visits_of_one: f64,
    /// The same, while it holds a lock whose word is on a contended line.
    pub visits_locked: f64,
    /// The part of its accesses that it makes while it holds that lock.
    pub locked: f64,
}

#[cfg(cancel_tree_counting)]
pub use counting::{Log, Of};

#[cfg(cancel_tree_counting)]
mod counting {
    use super::{Counts, Threads};
    use std::collections::{HashMap, HashSet};

    use cancel_tree::counting::{accesses, Access, Kind};

    const LINE: usize = 64;

    /// What a thread did in one run.
    #[derive(Clone, Default)]
    pub struct Log {
        accesses: Vec<Access>,
        /// The words of the mutexes that it locked.
        locked: Vec<usize>,
    }

    /// Whose counts these are.
    pub struct Of {
        pub op: &'static str,
        pub about: &'static str,
        pub contender: &'static str,
        pub units: u64,
    }

    fn writes(kind: Kind) -> bool {
        matches!(kind, Kind::Store | Kind::Rmw | Kind::Write)
    }

    impl Log {
        pub fn of(run: impl FnOnce()) -> Log {
            crate::counted::locked();
            let accesses = accesses(run);
            let locked = crate::counted::locked();
            Log { accesses, locked }
        }

        pub fn rmws(&self) -> usize {
            self.of_kind(Kind::Rmw)
        }

        fn of_kind(&self, kind: Kind) -> usize {
            self.accesses.iter().filter(|a| a.kind == kind).count()
        }

        /// Each line, and whether it is written.
        fn lines(&self) -> HashMap<usize, bool> {
            let mut lines = HashMap::new();
            for access in &self.accesses {
                *lines.entry(access.address / LINE).or_insert(false) |= writes(access.kind);
            }
            lines
        }

        /// Lines that both go to and one of them writes.
        pub fn contended(&self, other: &Log) -> Vec<usize> {
            let others = other.lines();
            let contended = |(line, mine): (&usize, &bool)| {
                others
                    .get(line)
                    .is_some_and(|theirs| *mine || *theirs)
                    .then_some(*line)
            };
            self.lines().iter().filter_map(contended).collect()
        }

        /// The lines of contended nodes that the operation claims: that of the first read-modify-write, and what it
        /// comes to later and not before. They are its alone until it gives them back.
        fn claimed(&self, contended: &[usize]) -> HashSet<usize> {
            let is_claim = |access: &Access| {
                access.kind == Kind::Rmw && contended.contains(&(access.address / LINE))
            };
            let Some(claim) = self.accesses.iter().position(is_claim) else {
                return HashSet::new();
            };
            let mut lines = self.accesses.iter().map(|access| access.address / LINE);
            let before: HashSet<usize> = lines.by_ref().take(claim).collect();
            // Its word has been looked at before.
            let first = lines.next();
            first
                .into_iter()
                .chain(lines.filter(|line| !before.contains(line)))
                .collect()
        }

        /// `others` is of another thread, if there is one.
        pub fn counts(&self, of: &Of, threads: Threads, others: &Log) -> Counts {
            let (lines, theirs) = (self.lines(), others.lines());
            let contended = self.contended(others);
            let claimed = match threads {
                Threads::TwoAtAShard => self.claimed(&contended),
                Threads::One | Threads::Two => HashSet::new(),
            };

            let mut visits: HashMap<usize, usize> = HashMap::new();
            let (mut visits_locked, mut locked) = (0, 0);
            // The lock that is held, and the lines that are here: while it is held they stay.
            let (mut lock, mut here) = (None, Vec::new());
            for access in &self.accesses {
                let line = access.address / LINE;
                let is_lock = access.kind == Kind::Rmw && self.locked.contains(&access.address);
                let word = is_lock.then_some(access.address);
                let gives_back = is_lock && lock == word;
                if lock.is_none() {
                    here.retain(|here| *here == line);
                    if contended.contains(&line) {
                        lock = word;
                    }
                }
                let is_kept = claimed.contains(&line) && visits.contains_key(&line);
                let is_visit = contended.contains(&line) && !here.contains(&line) && !is_kept;
                here.push(line);
                if is_visit {
                    *visits.entry(line).or_default() += 1;
                }
                if lock.is_some() {
                    visits_locked += usize::from(is_visit);
                    locked += 1;
                }
                if gives_back {
                    lock = None;
                }
            }
            let per_unit = |n: usize| n as f64 / of.units as f64;
            Counts {
                op: of.op.into(),
                about: of.about.into(),
                contender: of.contender.into(),
                threads,
                rmws: per_unit(self.rmws()),
                stores: per_unit(self.of_kind(Kind::Store)),
                loads: per_unit(self.of_kind(Kind::Load)),
                lines: per_unit(lines.len()),
                written: per_unit(lines.values().filter(|written| **written).count()),
                shared: per_unit(
                    lines
                        .keys()
                        .filter(|line| theirs.contains_key(line))
                        .count(),
                ),
                contended: per_unit(contended.len()),
                visits: per_unit(visits.values().sum()),
                visits_of_one: per_unit(visits.values().copied().max().unwrap_or(0)),
                visits_locked: per_unit(visits_locked),
                locked: locked as f64 / self.accesses.len().max(1) as f64,
            }
        }
    }
}
