//! The counting.

use std::collections::HashMap;
use std::error::Error;
use std::path::Path;
use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::contenders::{cancel_tree, CancelTree};
use crate::counts::{Counts, Log, Of};
use crate::machine::cores;
use crate::operations::{Measure, Operation, Visitor};

/// What this crate's operations may need, and no more. They are exact: what needs less fails too, so that the
/// file says what is.
const EXPECTED: &str = include_str!("../expected.csv");

#[derive(Deserialize)]
struct Expected {
    op: String,
    threads: usize,
    rmws: f64,
    contended: f64,
}

/// Counts all, into a file, and compares.
pub fn all(file: &Path) -> Result<(), Box<dyn Error>> {
    let mut counted = Counted(Vec::new());
    crate::each(&mut counted);
    let mut writer = csv::Writer::from_path(file)?;
    for counts in &counted.0 {
        writer.serialize(counts)?;
    }
    writer.flush()?;
    compare(&counted.0)
}

fn compare(counted: &[Counts]) -> Result<(), Box<dyn Error>> {
    let mut expected = HashMap::new();
    let mut rows: Vec<Expected> = csv::Reader::from_reader(EXPECTED.as_bytes())
        .deserialize()
        .collect::<Result<_, _>>()?;
    if !crate::has_two_cores() {
        println!("SKIPPED: what two threads do, for there is one core");
        rows.retain(|row| row.threads == 1);
    }
    for row in rows {
        expected.insert((row.op, row.threads), (row.rmws, row.contended));
    }
    let mut wrong = Vec::new();
    for counts in counted
        .iter()
        .filter(|c| c.contender == cancel_tree::Token::NAME)
    {
        let now = (rounded(counts.rmws), rounded(counts.contended));
        let then = expected.remove(&(counts.op.clone(), counts.threads));
        if then != Some(now) {
            let Counts { op, threads, .. } = counts;
            wrong.push(format!(
                "{op}, {threads} thread(s): {now:?} RMWs and contended lines; expected.csv says {then:?}"
            ));
        }
    }
    wrong.extend(
        expected
            .keys()
            .map(|(op, threads)| format!("{op}, {threads} thread(s): not counted")),
    );
    if wrong.is_empty() {
        println!("scale: {} counts, all as expected", counted.len());
        return Ok(());
    }
    Err(wrong.join("\n").into())
}

/// To what `expected.csv` is written in: a parent among ten thousand children does not show.
fn rounded(n: f64) -> f64 {
    (n * 100.0).round() / 100.0
}

struct Counted(Vec<Counts>);

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
        self.0.push(alone.0.counts(&of, None));
        if crate::has_two_cores() {
            let [first, second] = two::<O>();
            self.0.push(first.counts(&of, Some(&second)));
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
/// until no line was contended any more, or it is clear that this is how it stays.
fn two<O: Operation>() -> [Log; 2] {
    let shared = O::share();
    let barrier = Barrier::new(2);
    let logs = Mutex::default();
    thread::scope(|scope| {
        for me in 0..2 {
            let (shared, barrier, logs) = (&shared, &barrier, &logs);
            scope.spawn(move || {
                let _pinned = cores::pin(me);
                O::on(shared, &mut OneOfTwo { me, barrier, logs });
            });
        }
    });
    logs.into_inner().expect("nobody panics with it")
}

struct OneOfTwo<'a> {
    me: usize,
    barrier: &'a Barrier,
    logs: &'a Mutex<[Log; 2]>,
}

const ROUNDS: usize = 20;
const TOGETHER: Duration = Duration::from_millis(25);

impl Measure for OneOfTwo<'_> {
    fn afresh<S>(&mut self, mut ready: impl FnMut() -> S, mut run: impl FnMut(&mut S)) {
        for _ in 0..ROUNDS {
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
            if logs[0].contended(&logs[1]).is_empty() {
                break;
            }
        }
    }
}
