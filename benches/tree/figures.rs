//! What this run has measured: criterion's samples and Go's, each as a median and its spread.

use std::collections::BTreeMap;
use std::fmt;
use std::fmt::Write;
use std::fs;
use std::io;
use std::path::Path;
use std::time::SystemTime;

use serde_json::Value;

/// The median of some samples in nanoseconds, and their 5th and 95th percentile.
///
/// Not the confidence interval of the median: that says how well the median of this run is known, and shrinks with
/// each sample, while one wants to know how far the machine makes single measurements differ.
#[derive(Clone, Copy)]
pub struct Figure {
    pub median: f64,
    pub low: f64,
    pub high: f64,
}

impl Figure {
    /// Of one sample or more.
    pub fn of(mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        // Between two samples in proportion, as criterion's own median is.
        let quantile = |q: f64| {
            let place = q * (samples.len() - 1) as f64;
            let (below, above) = (place.floor() as usize, place.ceil() as usize);
            samples[below] + (samples[above] - samples[below]) * place.fract()
        };
        Self {
            median: quantile(0.5),
            low: quantile(0.05),
            high: quantile(0.95),
        }
    }
}

/// As in `12.7 ns (12.5–13.4)`.
impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let (scale, unit) = unit(self.median);
        let [median, low, high] =
            [self.median, self.low, self.high].map(|ns| three_digits(ns / scale));
        write!(f, "{median} {unit} ({low}–{high})")
    }
}

/// As in `12.7 ns`.
pub fn time(ns: f64) -> String {
    let (scale, unit) = unit(ns);
    format!("{} {unit}", three_digits(ns / scale))
}

fn unit(ns: f64) -> (f64, &'static str) {
    match ns {
        _ if ns < 1e3 => (1.0, "ns"),
        _ if ns < 1e6 => (1e3, "µs"),
        _ => (1e6, "ms"),
    }
}

fn three_digits(number: f64) -> String {
    let decimals = match number {
        _ if number < 9.995 => 2,
        _ if number < 99.95 => 1,
        _ => 0,
    };
    format!("{number:.decimals$}")
}

/// By bench and contender.
#[derive(Default)]
pub struct Figures(BTreeMap<(String, String), Figure>);

impl Figures {
    /// All that criterion has put into its directory since then: the machine of an earlier run was another one, if
    /// only by its noise.
    pub fn of_criterion(directory: &Path, since: SystemTime) -> io::Result<Self> {
        let mut figures = Self::default();
        for bench in subdirectories(directory)? {
            for contender in subdirectories(&directory.join(&bench))? {
                let file = directory
                    .join(&bench)
                    .join(&contender)
                    .join("new/sample.json");
                // Each of them also has a directory for its report, without samples.
                let Ok(about) = fs::metadata(&file) else {
                    continue;
                };
                if about.modified()? >= since {
                    let sample = serde_json::from_slice(&fs::read(&file)?)?;
                    let times = per_iteration(&sample).ok_or_else(|| {
                        io::Error::other(format!("{}: not what it was", file.display()))
                    })?;
                    figures.insert(&bench, &contender, times);
                }
            }
        }
        Ok(figures)
    }

    /// Of one sample or more.
    pub fn insert(&mut self, bench: &str, contender: &str, samples: Vec<f64>) {
        let id = (bench.to_owned(), contender.to_owned());
        self.0.insert(id, Figure::of(samples));
    }

    pub fn get(&self, bench: &str, contender: &str) -> Option<Figure> {
        let id = (bench.to_owned(), contender.to_owned());
        self.0.get(&id).copied()
    }

    /// By an id such as `create_drop/tokio_util`.
    pub fn at(&self, id: &str) -> Option<Figure> {
        let (bench, contender) = id.split_once('/')?;
        self.get(bench, contender)
    }

    /// The benches that this crate has taken part in.
    pub fn ours(&self) -> Vec<&str> {
        let ours = self.0.keys().filter(|(_, name)| name == "cancel_tree");
        ours.map(|(bench, _)| bench.as_str()).collect()
    }

    pub fn csv(&self) -> String {
        let mut csv = String::from("bench,contender,ns,low,high\n");
        for ((bench, contender), Figure { median, low, high }) in &self.0 {
            writeln!(csv, "{bench},{contender},{median:.4},{low:.4},{high:.4}")
                .expect("a string takes everything");
        }
        csv
    }
}

/// The names of the directories in this one; none if it is not there, as when nothing was measured.
fn subdirectories(directory: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            names.extend(entry.file_name().into_string());
        }
    }
    Ok(names)
}

/// The times of criterion's samples, each divided by its number of iterations.
fn per_iteration(sample: &Value) -> Option<Vec<f64>> {
    let numbers = |name| {
        let numbers = sample.get(name)?.as_array()?.iter().map(Value::as_f64);
        numbers.collect::<Option<Vec<f64>>>()
    };
    let (times, iters) = (numbers("times")?, numbers("iters")?);
    let all = !times.is_empty() && times.len() == iters.len();
    all.then(|| times.iter().zip(iters).map(|(t, n)| t / n).collect())
}
