//! Go's context beside ours, where a `go` is installed.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::figures::Figures;
use crate::memory::PerChild;

/// The name of the contender.
pub const NAME: &str = "go";

pub struct Go {
    pub version: String,
    pub memory: Option<PerChild>,
}

/// What of `benches/go` runs together, and how: with as many cores, for as long, and so many times.
const RUNS: &[(&str, &str, &str, &str)] = &[
    ("One", "1", "100ms", "5"),
    ("Two", "2", "100ms", "5"),
    ("Million", "1", "1x", "5"),
];

/// Runs what this run has measured of ours with the `go` of the variable `GO`, or of the path, too, and adds it to
/// the figures. Says so if there is no Go.
pub fn run(figures: &mut Figures, is_quick: bool) -> io::Result<Option<Go>> {
    let named = env::var_os("GO");
    let is_named = named.is_some();
    let go = named.unwrap_or_else(|| "go".into());
    let version = match command(&go, &["version"]).output() {
        Ok(output) => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !is_named => {
            println!(
                "SKIPPED: Go's context, for there is no `go` here (the variable GO names one)"
            );
            return Ok(None);
        }
        Err(error) => {
            return Err(io::Error::other(format!(
                "{}: {error}",
                go.to_string_lossy()
            )))
        }
    };
    println!("\nGo's context, by {version}");

    // The last one is the other way to ask that Go has.
    let benches = [figures.ours(), vec!["read_select"]].concat().join("|");
    for (function, cores, duration, count) in RUNS {
        let pattern = format!("^Benchmark{function}$/^({benches})$");
        let count = if is_quick { "1" } else { count };
        let arguments = ["-cpu", cores, "-benchtime", duration, "-count", count];
        let mut samples: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for line in bench(&go, &pattern, &arguments)? {
            let name = line.name.split_once('/').map_or("", |(_, name)| name);
            let ns = line.value("ns/op").expect("each line of Go's has it");
            samples.entry(name.to_owned()).or_default().push(ns);
        }
        for (name, samples) in samples {
            figures.insert(&name, NAME, samples);
        }
    }

    // As ours is measured in each run.
    let mut memory = None;
    for line in bench(&go, "^BenchmarkMemory$", &["-cpu", "1", "-benchtime", "1x"])? {
        memory = line.value("first/op").zip(line.value("recycled/op"));
    }
    let memory = memory.map(|(first, recycled)| PerChild { first, recycled });
    Ok(Some(Go { version, memory }))
}

fn command(go: &OsString, arguments: &[&str]) -> Command {
    let mut command = Command::new(go);
    command
        .args(arguments)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/go"))
        .env("GOTOOLCHAIN", "local");
    command
}

/// A line of what `go test -bench` prints: a name, the iterations, and values with their units.
struct Line {
    name: String,
    values: Vec<(String, f64)>,
}

impl Line {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.strip_prefix("Benchmark")?.split_whitespace();
        let (name, _iterations) = (words.next()?, words.next()?);
        let words: Vec<&str> = words.collect();
        let values = words.chunks(2).map(|pair| match pair {
            [value, unit] => Some(((*unit).to_owned(), value.parse().ok()?)),
            _ => None,
        });
        Some(Self {
            // The number of cores comes last, unless it is one.
            name: name.split('-').next()?.to_owned(),
            values: values.collect::<Option<_>>()?,
        })
    }

    fn value(&self, unit: &str) -> Option<f64> {
        let found = self.values.iter().find(|(of, _)| of == unit);
        found.map(|&(_, value)| value)
    }
}

/// Runs the benchmarks of this pattern, and shows what they print meanwhile.
fn bench(go: &OsString, pattern: &str, arguments: &[&str]) -> io::Result<Vec<Line>> {
    let mut child = command(go, &["test", "-run", "^$", "-bench", pattern])
        .args(arguments)
        .stdout(Stdio::piped())
        .spawn()?;
    let output = child.stdout.take().expect("it is piped");
    let mut lines = Vec::new();
    for line in BufReader::new(output).lines() {
        let line = line?;
        println!("{line}");
        lines.extend(Line::parse(&line));
    }
    if child.wait()?.success() {
        Ok(lines)
    } else {
        Err(io::Error::other("the benchmarks in benches/go have failed"))
    }
}
