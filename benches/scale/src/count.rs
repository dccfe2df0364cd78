//! The counting.

use std::collections::HashMap;
use std::error::Error;
use std::path::Path;
use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::contenders::is_ours;
use crate::counts::{Counts, Log, Of, Threads};
use crate::machine::cores;
use crate::operations::{Measure, Operation, Visitor};
use crate::shard;

/// What this crate's operations may need, and no more. They are exact: what needs less fails too, so that the
/// file says what is.
const EXPECTED: &str = include_str!("../expected.csv");

#[derive(Deserialize)]
struct Expected {
    op: String,
    threads: Threads,
    rmws: f64,
    /// None where it is one more or less, as the allocator places a node.
    contended: Option<f64>,
    busiest: f64,
}

/// Counts all, into a file, and compares.
pub fn all(file: &Path) -> Result<(), Box<dyn Error>> {
    let rows = csv::Reader::from_reader(EXPECTED.as_bytes()).into_deserialize();
    let mut expected: Vec<Expected> = rows.collect::<Result<_, _>>()?;
    if !cores::has_two() {
        println!("SKIPPED: what two threads do, for there is one core");
        expected.retain(|row| row.threads == Threads::One);
    }
    let mut counted = Counted {
        expected,
        counts: Vec::new(),
    };
    crate::each(&mut counted);
    let mut writer = csv::Writer::from_path(file)?;
    for counts in &counted.counts {
        writer.serialize(counts)?;
    }
    writer.flush()?;
    counted.compare()
}

struct Counted {
    expected: Vec<Expected>,
    counts: Vec<Counts>,
}

impl Counted {
    fn compare(self) -> Result<(), Box<dyn Error>> {
        let mut expected = HashMap::new();
        for row in self.expected {
            let Expected {
                rmws,
                contended,
                busiest,
                ..
            } = row;
            expected.insert((row.op, row.threads), (rmws, contended, busiest));
        }
        let (mut right, mut wrong) = (0, Vec::new());
        for counts in self
            .counts
            .iter()
            .filter(|counts| is_ours(&counts.contender))
        {
            let Counts { op, threads, .. } = counts;
            let [rmws, contended, busiest] =
                [counts.rmws, counts.contended, counts.visits_of_one].map(rounded);
            let then = expected.remove(&(op.clone(), *threads));
            let asked = then.and_then(|(_, asked, _)| asked.and(Some(contended)));
            let now = (rmws, asked, busiest);
            if then == Some(now) {
                right += 1;
            } else {
                wrong.push(format!(
                    "{op}, {threads:?}: {rmws} RMWs, {contended} contended lines, {busiest} visits to the busiest; \
                    expected.csv says {then:?}"
                ));
            }
        }
        let left = expected
            .keys()
            .map(|(op, threads)| format!("{op}, {threads:?}: not counted"));
        wrong.extend(left);
        if !wrong.is_empty() {
            return Err(wrong.join("\n").into());
        }
        println!("scale: {right} counts, all as expected");
        Ok(())
    }
}

/// To what `expected.csv` is written in: a parent among ten thousand children does not show.
fn rounded(n: f64) -> f64 {
    (n * 100.0).round() / 100.0
}

impl Visitor for Counted {
    fn visit<O: Operation>(&mut self, contender: &'static str) {
        let of = Of {
            op: O::NAME,
            about: O::ABOUT,
            contender,
            units: O::UNITS,
        };
        let mut alone = Alone::default();
        O::on(&O::share(), &mut alone);
        let nobody = Log::default();
        let one = alone.0.counts(&of, Threads::One, &nobody);
        self.counts.push(one);
        if cores::has_two() {
            let is_it = |row: &&Expected| (&*row.op, row.threads) == (O::NAME, Threads::Two);
            let row = self.expected.iter().find(is_it);
            let settles = is_ours(contender) && row.is_some_and(|row| row.contended == Some(0.0));
            let shared = O::share();
            let mut count = |threads, rounds| {
                let [first, second] = two::<O>(&shared, threads, rounds);
                self.counts.push(first.counts(&of, threads, &second));
            };
            count(Threads::Two, if settles { LONG } else { SHORT });
            if is_ours(contender) {
                // Where there are shards to be had, there are now.
                count(Threads::TwoAtAShard, SHORT);
            }
        }
    }
}

/// In the steady state, with nobody else about: of some runs the one that needs most.
#[derive(Default)]
struct Alone(Log);

const TO_WARM_UP: usize = 100;

impl Measure for Alone {
    fn afresh<S>(&mut self, mut ready: impl FnMut() -> S, mut run: impl FnMut(&mut S)) {
        for _ in 0..TO_WARM_UP {
            run(&mut ready());
        }
        for _ in 0..4 {
            let mut state = ready();
            let log = Log::of(|| run(&mut state));
            if log.rmws() >= self.0.rmws() {
                self.0 = log;
            }
        }
    }
}

/// What each of two threads does in a run on what they share, one after the other, after they have been at it together
/// until no line was contended any more, or for so many rounds.
fn two<O: Operation>(shared: &O::Shared, threads: Threads, rounds: usize) -> [Log; 2] {
    let barrier = Barrier::new(2);
    let logs = Mutex::default();
    thread::scope(|scope| {
        for me in 0..2 {
            let (barrier, logs) = (&barrier, &logs);
            scope.spawn(move || {
                if threads == Threads::TwoAtAShard {
                    shard::same(me, barrier);
                }
                let _pinned = cores::pin(me);
                let mut one = OneOfTwo {
                    me,
                    rounds,
                    unseen: O::UNITS.div_ceil(100) as usize,
                    barrier,
                    logs,
                };
                O::on(shared, &mut one);
            });
        }
    });
    logs.into_inner().expect("nobody panics with it")
}

struct OneOfTwo<'a> {
    me: usize,
    rounds: usize,
    /// Fewer contended lines than this do not show in the counts.
    unseen: usize,
    barrier: &'a Barrier,
    logs: &'a Mutex<[Log; 2]>,
}

/// Rounds: until a parent has shards, which threads have to run at the same time for; and for what stays contended.
const LONG: usize = 400;
const SHORT: usize = 4;
const TOGETHER: Duration = Duration::from_millis(25);

impl Measure for OneOfTwo<'_> {
    fn afresh<S>(&mut self, mut ready: impl FnMut() -> S, mut run: impl FnMut(&mut S)) {
        for _ in 0..self.rounds {
            self.barrier.wait();
            let start = Instant::now();
            while start.elapsed() < TOGETHER {
                run(&mut ready());
            }
            for turn in 0..2 {
                self.barrier.wait();
                if turn == self.me {
                    let mut alone = Alone::default();
                    alone.afresh(&mut ready, &mut run);
                    self.logs.lock().expect("nobody panics with it")[turn] = alone.0;
                }
            }
            self.barrier.wait();
            let logs = self.logs.lock().expect("nobody panics with it");
            if logs[0].contended(&logs[1]).len() < self.unseen {
                break;
            }
        }
    }
}
