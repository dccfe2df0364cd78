//! `cargo bench -p benches --bench latency` measures how long a cancel takes to arrive: from the call of `cancel()` on one core
//! to the last leaf that is *seen* cancelled, the last *task* that runs again, the last parked *thread* that is back,
//! on another. Percentiles, for trees of several shapes and sizes.
//!
//! A filter chooses what has it in its name, `task/flat` or `/1000000`. With `--quick` each tree is sampled once; with
//! `--test`, or under `cargo test --benches`, small ones only, and nothing is told but that it works.
//!
//! The tables are also written to `latency.md` and `latency.csv`, into the directory that the variable `REPORT` names,
//! or else `report` in the target directory.

mod cell;
#[path = "../contenders/mod.rs"]
mod contenders;
#[path = "../machine/mod.rs"]
mod machine;
mod measure;
mod other_core;
mod report;
mod shape;
mod tree;
mod watchdog;

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};
use lexopt::{Arg, ValueExt};

use machine::cores;
use other_core::OtherCore;
use watchdog::Watchdog;

struct Options {
    is_measuring: bool,
    is_quick: bool,
    is_listing: bool,
    filter: Option<String>,
}

impl Options {
    fn parse() -> Result<Self, lexopt::Error> {
        // `cargo bench` says `--bench`; without it, or with `--test`, all is only tried out.
        let [mut bench, mut test, mut list, mut quick] = [false; 4];
        let mut filter = None;
        let mut arguments = lexopt::Parser::from_env();
        while let Some(argument) = arguments.next()? {
            match argument {
                Arg::Long("bench") => bench = true,
                Arg::Long("test") => test = true,
                Arg::Long("list") => list = true,
                Arg::Long("quick") => quick = true,
                Arg::Value(text) if filter.is_none() => filter = Some(text.string()?),
                other => return Err(other.unexpected()),
            }
        }
        Ok(Self {
            is_measuring: bench && !test,
            is_quick: quick,
            is_listing: list,
            filter,
        })
    }
}

fn main() -> ExitCode {
    run().map_or_else(
        |error| {
            eprintln!("latency: {error}");
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}

fn run() -> Result<(), Box<dyn Error>> {
    let Options {
        is_measuring,
        is_quick,
        is_listing,
        filter,
    } = Options::parse()?;
    shape::check();
    let mut cells = cell::all(is_measuring);
    if let Some(filter) = filter {
        cells.retain(|cell| cell.id().contains(&filter));
    }
    if is_listing {
        for cell in &cells {
            println!("{}: benchmark", cell.id());
        }
    }
    if is_listing || cells.is_empty() {
        return Ok(());
    }
    if is_measuring && !cores::has_two() {
        println!("SKIPPED: the time from one core to another, for there is one");
        return Ok(());
    }

    contenders::check::all();
    let other = OtherCore::start();
    let watchdog = Watchdog::start();
    let _pinned = cores::pin(0);
    let progress = ProgressBar::new(cells.len() as u64).with_style(ProgressStyle::with_template(
        "{bar:30} {pos}/{len} {elapsed} {msg}",
    )?);
    let mut measured = Vec::new();
    for cell in cells {
        let begin = Instant::now();
        let of_cell = cell::measure(cell, &other, is_measuring && !is_quick, |what| {
            progress.set_message(what.clone());
            watchdog.watch(what);
        });
        progress.suspend(|| {
            if is_measuring {
                println!(
                    "{} {:.1} s",
                    report::summary(&of_cell),
                    begin.elapsed().as_secs_f64()
                );
            } else {
                println!("Testing {}: success", cell.id());
            }
        });
        progress.inc(1);
        measured.push(of_cell);
    }
    progress.finish_and_clear();

    if is_measuring {
        let tables = report::tables(&measured);
        let directory = env::var_os("REPORT").map_or_else(default_directory, PathBuf::from);
        fs::create_dir_all(&directory)?;
        fs::write(directory.join("latency.md"), &tables)?;
        fs::write(directory.join("latency.csv"), report::csv(&measured))?;
        println!("\n{tables}\nwritten to {}/latency.*", directory.display());
    }
    Ok(())
}

fn default_directory() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent();
    let target = target.expect("Cargo puts its directory for benches below the target directory");
    target.join("report")
}
