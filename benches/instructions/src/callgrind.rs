//! Callgrind: how it is run, and what it says.

use std::env;
use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::heap::UNCOUNTED;
use crate::operations::{Operation, Visitor};
use crate::run::{COUNTED, RUNS};

/// Of one run of an operation; a fraction where that is many.
pub struct Count {
    pub op: &'static str,
    pub about: &'static str,
    pub contender: &'static str,
    pub instructions: f64,
    /// Atomic read-modify-writes, which callgrind calls global bus events.
    pub rmws: f64,
    pub allocations: f64,
}

/// None if there is no valgrind.
pub fn version() -> Option<String> {
    let output = Command::new("valgrind").arg("--version").output().ok()?;
    let version = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| version.trim().into())
}

/// Counts each operation, in a process of its own.
pub struct Counted<'a> {
    /// For callgrind's own output.
    pub directory: &'a Path,
    pub counts: Result<Vec<Count>, Box<dyn Error>>,
}

impl Visitor for Counted<'_> {
    fn visit<O: Operation>(&mut self, contender: &'static str) {
        if let Ok(counts) = &mut self.counts {
            match count::<O>(self.directory, contender) {
                Ok(count) => counts.push(count),
                Err(wrong) => {
                    self.counts = Err(format!("{} of {contender}: {wrong}", O::NAME).into());
                }
            }
        }
    }
}

fn count<O: Operation>(directory: &Path, contender: &'static str) -> Result<Count, Box<dyn Error>> {
    eprintln!("instructions: counting {} of {contender}", O::NAME);
    let file = directory.join(format!("{}.{contender}.callgrind", O::NAME));
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet", "--collect-bus=yes"])
        .arg(format!("--toggle-collect={COUNTED}"))
        .arg(format!("--toggle-collect={UNCOUNTED}"))
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(env::current_exe()?)
        .args(["run", O::NAME, contender])
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(format!("valgrind ended with {}", output.status).into());
    }
    let asked: u64 = String::from_utf8(output.stdout)?.trim().parse()?;
    let profile = fs::read_to_string(&file)?;
    let total =
        |event| of_event(&profile, event).ok_or(format!("no {event} in {}", file.display()));
    let per_unit = |n: u64| n as f64 / (RUNS * O::UNITS) as f64;
    let instructions = total("Ir")?;
    if instructions == 0 {
        return Err("nothing was counted: has callgrind found the function?".into());
    }
    Ok(Count {
        op: O::NAME,
        about: O::ABOUT,
        contender,
        instructions: per_unit(instructions),
        rmws: per_unit(total("Ge")?),
        allocations: per_unit(asked),
    })
}

/// The total of an event: a line names the events, another one has their totals. Zeros at the end are left out.
fn of_event(profile: &str, event: &str) -> Option<u64> {
    let rest_of = |start| profile.lines().find_map(|line| line.strip_prefix(start));
    let column = rest_of("events:")?
        .split_whitespace()
        .position(|name| name == event)?;
    match rest_of("totals:")?.split_whitespace().nth(column) {
        Some(total) => total.parse().ok(),
        None => Some(0),
    }
}
