//! `expected.csv`: what this crate's operations needed when it was last taken, and how far they are from it.

use std::collections::HashMap;
use std::env;
use std::error::Error;
use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::callgrind::Count;
use crate::contenders::{cancel_tree, CancelTree};

/// More than so many percent are a regression.
const PERCENT: f64 = 5.0;

#[derive(Deserialize, Serialize)]
struct Row {
    op: String,
    instructions: f64,
    rmws: f64,
    allocations: f64,
}

/// The compiler and the target, which all counts depend on: the file's first line.
fn toolchain() -> Result<String, Box<dyn Error>> {
    Ok(env::var("TOOLCHAIN").map_err(|_| "TOOLCHAIN is not set: see run.sh")?)
}

fn file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("expected.csv")
}

fn ours(counts: &[Count]) -> impl Iterator<Item = &Count> {
    counts
        .iter()
        .filter(|count| count.contender == cancel_tree::Token::NAME)
}

/// Two decimals are enough.
fn rounded(n: f64) -> f64 {
    (n * 100.0).round() / 100.0
}

/// Takes the file anew.
pub fn update(counts: &[Count]) -> Result<(), Box<dyn Error>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for count in ours(counts) {
        writer.serialize(Row {
            op: count.op.into(),
            instructions: rounded(count.instructions),
            rmws: rounded(count.rmws),
            allocations: rounded(count.allocations),
        })?;
    }
    let rows = String::from_utf8(writer.into_inner()?)?;
    fs::write(file(), format!("# {}\n{rows}", toolchain()?))?;
    Ok(())
}

/// Fails if something needs more than it did. The answer is what else there is to say. Of another compiler or target
/// the instructions are not compared; what is left differs with neither.
pub fn compare(counts: &[Count]) -> Result<String, Box<dyn Error>> {
    let text = fs::read_to_string(file())?;
    let (first, toolchain) = (text.lines().next().unwrap_or(""), toolchain()?);
    let taken_with = first.trim_start_matches("# ");
    let is_same = taken_with == toolchain;
    let percent = if is_same { PERCENT } else { f64::INFINITY };
    let mut expected = HashMap::new();
    let mut reader = csv::ReaderBuilder::new()
        .comment(Some(b'#'))
        .from_reader(text.as_bytes());
    for row in reader.deserialize() {
        let row: Row = row?;
        expected.insert(row.op.clone(), row);
    }
    let (mut more, mut less) = (Vec::new(), Vec::new());
    for count in ours(counts) {
        let Some(row) = expected.remove(count.op) else {
            more.push(format!("{}: not in expected.csv", count.op));
            continue;
        };
        let kinds = [
            (
                "instructions",
                row.instructions,
                count.instructions,
                percent,
            ),
            ("RMWs", row.rmws, count.rmws, 0.0),
            ("allocations", row.allocations, count.allocations, 0.0),
        ];
        for (kind, then, now, percent) in kinds {
            let now = rounded(now);
            let line = format!("{}: {now} {kind}, {then} were expected", count.op);
            if now > then * (1.0 + percent / 100.0) {
                more.push(line);
            } else if now < then * (1.0 - percent / 100.0) {
                less.push(line);
            }
        }
    }
    more.extend(
        expected
            .keys()
            .map(|op| format!("{op}: in expected.csv, and not counted")),
    );
    if !more.is_empty() {
        return Err(format!("more than expected:\n{}", more.join("\n")).into());
    }
    if !less.is_empty() {
        return Ok(format!(
            "instructions: less than expected, so take the file anew (run.sh --update):\n{}",
            less.join("\n")
        ));
    }
    if !is_same {
        return Ok(format!(
            "SKIPPED: the comparison of instructions, for expected.csv is of {taken_with}, and this is {toolchain}"
        ));
    }
    Ok(format!(
        "instructions: {} operations, all as expected ({toolchain})",
        ours(counts).count()
    ))
}
