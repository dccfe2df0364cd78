//! What the measuring programs have written.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::Deserialize;

/// A line of `tree.csv`: the median, and the 5th and 95th percentile.
#[derive(Deserialize)]
pub struct Tree {
    pub bench: String,
    pub contender: String,
    pub ns: f64,
    pub low: f64,
    pub high: f64,
}

/// A line of `latency.csv`, in nanoseconds; without what its samples are too few for.
#[derive(Deserialize)]
pub struct Latency {
    pub what: String,
    pub shape: String,
    pub n: f64,
    pub contender: String,
    pub p50: f64,
    pub p90: Option<f64>,
}

/// A line of `scale.csv`, in operations per second.
#[derive(Deserialize)]
pub struct Scale {
    pub op: String,
    pub contender: String,
    pub cores: f64,
    pub modelled: f64,
    pub measured: Option<f64>,
}

/// The lines of a CSV file with a header; none if it is not there.
pub fn lines<T: DeserializeOwned>(file: &Path) -> Result<Vec<T>, csv::Error> {
    match File::open(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        file => csv::Reader::from_reader(file?).deserialize().collect(),
    }
}

/// The text of a file, if it is there.
pub fn text(file: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        text => text.map(Some),
    }
}
