//! Go's context beside ours, where a `go` is installed.
//!
//! A Go that is not there, is too old or fails is SKIPPED with the reason: the figures of all others are not lost for it.

use std::collections::BTreeMap;
use std::env::{self, consts::EXE_SUFFIX};
use std::ffi::OsString;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::{self, Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::figures::Figures;
use crate::machine::cores;
use crate::memory::PerChild;

/// The name of the contender.
pub const NAME: &str = "go";

/// What came of it.
pub struct Go {
    /// Or the reason why there are no figures of it.
    pub version: Result<String, String>,
    pub memory: Option<PerChild>,
}

/// The program that `benches/go` is compiled to.
pub struct Program {
    file: PathBuf,
    version: String,
}

/// What of it runs together, and how: with as many cores, for as long, and so many times. All of them together, and
/// the memory, take a minute and a half.
const RUNS: &[(&str, &str, &str, &str)] = &[
    ("One", "1", "200ms", "7"),
    ("Two", "2", "200ms", "7"),
    ("Million", "1", "1x", "5"),
];

/// What it has no counterpart of, each with the reason.
const LACKS: &[(&[&str], &str)] = &[
    (
        &["clone_drop", "read_beside_clones"],
        "a copy of a context is a copy of a pointer, which nobody counts",
    ),
    (
        &[
            "first_poll",
            "first_poll_second_waiter",
            "first_poll_deep",
            "first_poll_two_threads",
            "poll_again",
            "wait_cancel",
            "select_kept",
        ],
        "who waits is a goroutine that blocks: there is no future to poll, to keep or to drop",
    ),
    (
        &["touch", "touch_at", "extend"],
        "a context's deadline stays what it is; who wants one that moves has a timer, and a context to cancel",
    ),
    (
        &[
            "ctx_err_in_group",
            "ctx_timeout_drop_in_group",
            "ctx_err_movable",
            "ctx_timeout_drop_movable",
        ],
        "they are our own contexts beside each other",
    ),
    (
        &["drop_all"],
        "nothing is dropped: once all children are cancelled, the parent is left to the collector",
    ),
];

/// Why there is no figure of it for that bench.
pub fn why_not(bench: &str) -> &'static str {
    let lack = LACKS.iter().find(|(benches, _)| benches.contains(&bench));
    lack.map_or("`benches/go` does not have it", |&(_, because)| because)
}

/// Compiles the benchmarks with the `go` of the variable `GO`, or of the path. If that fails, one wants to know it
/// before all others were measured: says so, and returns why.
pub fn compile() -> Result<Program, String> {
    try_compile().inspect_err(|because| skip(because))
}

fn try_compile() -> Result<Program, String> {
    let named = env::var_os("GO").filter(|go| !go.is_empty());
    let is_named = named.is_some();
    let go = named.map_or(Ok("go".into()), findable).map_err(told)?;
    let run = |arguments: &[&str]| {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("go");
        let mut command = Command::new(&go);
        command.args(arguments).current_dir(directory);
        // Another one is not to be downloaded.
        command.env("GOTOOLCHAIN", "local");
        match command.output() {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !is_named => {
                Err("there is no `go` here (the variable GO names one)".to_owned())
            }
            output => output.map_err(told).and_then(succeeded).map_err(|because| {
                // Where it is installed is nothing for a report.
                let name = Path::new(&go).file_name().unwrap_or(&go);
                format!("`{} {}`: {because}", name.to_string_lossy(), arguments[0])
            }),
        }
    };

    let version = run(&["version"])?.trim().to_owned();
    let name = format!("benches-go{EXE_SUFFIX}");
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let output = file.to_str().ok_or("the target directory is not UTF-8")?;
    // Go does not overwrite what a link that was broken off has left.
    let _ = fs::remove_file(&file);
    run(&["test", "-c", "-o", output])?;
    Ok(Program { file, version })
}

/// From the directory of `benches/go` as well: a path that is relative is so to where we are.
fn findable(go: OsString) -> io::Result<OsString> {
    let is_path = Path::new(&go).components().nth(1).is_some();
    if is_path {
        path::absolute(go).map(Into::into)
    } else {
        Ok(go)
    }
}

/// What was printed; or all that was complained about, and as an error the first line that says something.
fn succeeded(output: Output) -> Result<String, String> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let complaints = String::from_utf8_lossy(&output.stderr);
    eprint!("{complaints}");
    // A compiler's messages begin with the package, behind a `#`.
    let mut lines = complaints.lines().map(str::trim);
    let first = lines.find(|line| !line.is_empty() && !line.starts_with('#'));
    Err(first.map_or(output.status.to_string(), str::to_owned))
}

fn told(error: io::Error) -> String {
    error.to_string()
}

/// At the start of a line, whatever was printed before.
fn skip(because: &str) {
    println!("\nSKIPPED: Go's context: {because}");
}

/// Runs what this run has measured of ours, and adds it to the figures: all of it, or nothing if any of it fails.
pub fn run(
    program: Result<Program, String>,
    figures: &mut Figures,
    with_memory: bool,
    is_quick: bool,
) -> Go {
    let ran = program.and_then(|program| {
        let (samples, memory) = program
            .run(&figures.ours(), with_memory, is_quick)
            .inspect_err(|because| skip(because))?;
        for (bench, samples) in samples {
            figures.insert(&bench, NAME, samples);
        }
        Ok((program.version, memory))
    });
    match ran {
        Ok((version, memory)) => Go {
            version: Ok(version),
            memory,
        },
        Err(because) => Go {
            version: Err(because),
            memory: None,
        },
    }
}

/// By the name of the bench.
type Samples = BTreeMap<String, Vec<f64>>;

impl Program {
    fn run(
        &self,
        benches: &[&str],
        with_memory: bool,
        is_quick: bool,
    ) -> Result<(Samples, Option<PerChild>), String> {
        println!("\nGo's context, by {}", self.version);
        let mut benches = benches.to_vec();
        if benches.contains(&"ctx_err") {
            // The other way to ask that Go has.
            benches.push("read_select");
        }
        let benches = benches.join("|");

        let mut samples = Samples::new();
        for (function, cores, duration, count) in RUNS {
            let pattern = format!("^Benchmark{function}$/^({benches})$");
            let count = if is_quick { "1" } else { count };
            for line in self.bench(&pattern, cores, duration, count)? {
                let name = line.name.split_once('/').map_or("", |(_, name)| name);
                let ns = line.value("ns/op")?;
                samples.entry(name.to_owned()).or_default().push(ns);
            }
        }

        let mut memory = None;
        if with_memory {
            for line in self.bench("^BenchmarkMemory$", "1", "1x", "1")? {
                memory = Some(PerChild {
                    first: line.value("first/op")?,
                    recycled: line.value("recycled/op")?,
                });
            }
        }
        Ok((samples, memory))
    }

    /// Runs the benchmarks of this pattern, and shows what they print meanwhile.
    fn bench(
        &self,
        pattern: &str,
        cores: &str,
        duration: &str,
        count: &str,
    ) -> Result<Vec<Line>, String> {
        let mut command = Command::new(&self.file);
        command.args(["-test.run", "^$", "-test.bench", pattern]);
        command.args(["-test.cpu", cores, "-test.benchtime", duration]);
        command.args(["-test.count", count, "-test.timeout", "10m"]);
        command.stdout(Stdio::piped());
        // A process starts on the cores of the thread that starts it. Where there are two, goroutines have no core of
        // their own.
        let pinned = (cores == "1").then(|| cores::pin(0));
        let mut child = command.spawn().map_err(told)?;
        drop(pinned);

        let output = child.stdout.take().expect("it is piped");
        let mut lines = Vec::new();
        for line in BufReader::new(output).lines() {
            let line = line.map_err(told)?;
            println!("{line}");
            lines.extend(Line::parse(&line));
        }
        let status = child.wait().map_err(told)?;
        if status.success() {
            Ok(lines)
        } else {
            Err(format!(
                "the benchmarks in benches/go have failed: {status}"
            ))
        }
    }
}

/// A line of what Go's benchmarks print: a name, the iterations, and values with their units.
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

    fn value(&self, unit: &str) -> Result<f64, String> {
        let found = self.values.iter().find(|(of, _)| of == unit);
        let missing = || format!("{} has no {unit}", self.name);
        found.map(|&(_, value)| value).ok_or_else(missing)
    }
}
