//! Runs scenarios in orders that are drawn: see run.sh.
//!
//!     cancel-tree-schedules SCHEDULES [SEED [SCENARIO [KIND]]]
//!
//! So many of each scenario and each kind of order, or of those named, with the seeds from this one on.

#[cfg(not(cancel_tree_shuttle))]
compile_error!("run the schedules by tests/schedules/run.sh, which sets the cfgs that they need");

mod heap;
mod order;
mod probes;
mod scenarios;

use order::{Kind, Order};
use std::cell::Cell;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Instant;

const KINDS: [(&str, Kind); 2] = [("random", Kind::Random), ("pct", Kind::Pct)];
const BUILD: &str = if cfg!(cancel_tree_small) {
    "small"
} else {
    "real"
};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize, or: u64| args.get(i).map_or(or, |n| n.parse().expect("a number"));
    let (count, seed) = (number(0, 100), number(1, 0));
    let wanted = |i: usize, name: &str| args.get(i).is_none_or(|w| w == name);
    let (mut done, mut asked) = (0, 0);
    for scenario in scenarios::ALL {
        for (kind_name, kind) in KINDS {
            if wanted(2, scenario.name) && wanted(3, kind_name) {
                asked += count;
                match run(scenario, kind_name, kind, seed..seed + count) {
                    Some(n) => done += n,
                    None => return ExitCode::FAILURE,
                }
            }
        }
    }
    if done != asked || done == 0 {
        eprintln!("{done} schedules of {asked}");
        return ExitCode::FAILURE;
    }
    println!("all {done} schedules passed");
    ExitCode::SUCCESS
}

fn run(
    scenario: &'static scenarios::Scenario,
    kind_name: &str,
    kind: Kind,
    seeds: std::ops::Range<u64>,
) -> Option<u64> {
    let first = seeds.start;
    let order = Order::new(kind, seeds, scenario.steps);
    let (seed, steps) = (order.seed.clone(), order.steps.clone());
    let mut config = shuttle::Config::new();
    config.silence_warnings = true;
    config.failure_persistence = shuttle::FailurePersistence::None;
    config.stack_size = 0x20000;
    config.max_steps = shuttle::MaxSteps::FailAfter(scenario.steps as usize * 50);
    let again = |seed: &Rc<Cell<u64>>| {
        let (n, seed) = (seed.get() - first + 1, seed.get());
        eprintln!(
            "FAILED at schedule {n}; again: tests/schedules/run.sh again {BUILD} {} {kind_name} {seed}",
            scenario.name
        );
    };
    eprintln!(
        "{} {kind_name} {BUILD}, seeds from {first} on",
        scenario.name
    );
    let begin = Instant::now();
    let runner = shuttle::Runner::new(order, config);
    let body = scenario.run;
    let outcome = catch_unwind(AssertUnwindSafe(|| runner.run(move || probes::life(body))));
    let Ok(schedules) = outcome else {
        again(&seed);
        return None;
    };
    let seconds = begin.elapsed().as_secs_f64();
    let operations = probes::take_operations();
    let per = |n: u64| n / (schedules as u64).max(1);
    println!(
        "{:<12} {kind_name:<7} {BUILD:<6} {schedules:>8} schedules {:>3} threads {:>4} operations {:>6} steps each {:>8.0} a second",
        scenario.name,
        scenario.threads,
        per(operations),
        per(steps.get()),
        schedules as f64 / seconds,
    );
    Some(schedules as u64)
}
