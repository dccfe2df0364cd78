//! The tables and the points of the plots.

use std::collections::HashMap;
use std::env;
use std::error::Error;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::contenders::is_ours;
use crate::counts::{Counts, Threads};
use crate::machine::cores;
use crate::measure;
use crate::model::{self, ASSUMPTIONS, CORES};
use crate::operations::{Operation, Visitor};

/// A point of the plot: operations per second.
#[derive(Serialize)]
struct Point<'a> {
    op: &'a str,
    contender: &'a str,
    cores: usize,
    modelled: f64,
    measured: Option<f64>,
}

/// What was measured of one operation of one contender.
struct Measured {
    /// Seconds, on one core: what the model starts from.
    time: f64,
    /// Operations per second: of one core, another time, and of two.
    rates: [f64; 2],
    /// Of two at the same shard.
    at_a_shard: Option<f64>,
}

type Key = (String, String);

struct Rates(HashMap<Key, Measured>);

impl Visitor for Rates {
    fn visit<O: Operation>(&mut self, contender: &'static str) {
        eprintln!("scale: measuring {} of {contender}", O::NAME);
        let alone = || measure::rate::<O>(&O::share(), Threads::One);
        let shared = O::share();
        let measured = Measured {
            time: 1.0 / alone(),
            rates: [alone(), measure::rate::<O>(&shared, Threads::Two)],
            // There are shards now.
            at_a_shard: is_ours(contender)
                .then(|| measure::rate::<O>(&shared, Threads::TwoAtAShard)),
        };
        self.0.insert((O::NAME.into(), contender.into()), measured);
    }
}

/// Measures, and writes it beside what was counted into the report's directory.
pub fn write(counts: &Path) -> Result<(), Box<dyn Error>> {
    let counts: Vec<Counts> = csv::Reader::from_path(counts)?
        .deserialize()
        .collect::<Result<_, _>>()?;
    let mut markdown = counted(&counts)?;
    let directory = PathBuf::from(env::var_os("REPORT").ok_or("REPORT names no directory")?);
    fs::create_dir_all(&directory)?;
    let mut points = csv::Writer::from_path(directory.join("scale.csv"))?;
    if !cores::has_two() {
        let skipped =
            "SKIPPED: the model, which needs two cores for what it is made of and checked by";
        writeln!(markdown, "\n{skipped}")?;
        points.write_record(["op", "contender", "cores", "modelled", "measured"])?;
    } else {
        modelled(&mut markdown, &mut points, &counts)?;
    }
    points.flush()?;
    fs::write(directory.join("scale.md"), &markdown)?;
    print!("{markdown}");
    Ok(())
}

fn of_threads(counts: &[Counts], threads: Threads) -> impl Iterator<Item = &Counts> {
    counts.iter().filter(move |c| c.threads == threads)
}

/// What was counted of the same on other threads.
fn beside<'a>(counts: &'a [Counts], one: &Counts, threads: Threads) -> Option<&'a Counts> {
    let is_it = |c: &&Counts| (&c.op, &c.contender) == (&one.op, &one.contender);
    of_threads(counts, threads).find(is_it)
}

fn counted(counts: &[Counts]) -> Result<String, Box<dyn Error>> {
    let mut text = String::from(
        "### What an operation does to shared memory\n\n\
        Counted in a build that writes down each access to an atomic, in the steady state: on one thread; and on one of\n\
        two that do the same on the same parent or token. *RMWs* are read-modify-writes; *lines* are cache lines that the\n\
        operation goes to, also for what is not atomic; *both's* lines are those that the other thread goes to too, and\n\
        *contended* those of them that one of the two writes. A *visit* is to come to a contended line from another one;\n\
        while a contended lock is held, each line is visited once. Lines are one more or less as the allocator places things.\n\
        Not seen: the allocator's own accesses, and those to the memory of the mutex tree's slabs, which makes it look better.\n\n\
        | what | contender | RMWs | stores | loads | lines | written | two threads: RMWs | lines | written | both's \
        | contended | visits |\n\
        | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for one in of_threads(counts, Threads::One) {
        let Counts {
            about, contender, ..
        } = one;
        let cells = [one.rmws, one.stores, one.loads, one.lines, one.written].map(short);
        write!(text, "| {about} | {contender} | {} |", cells.join(" | "))?;
        let cells = match beside(counts, one, Threads::Two) {
            Some(two) => [
                two.rmws,
                two.lines,
                two.written,
                two.shared,
                two.contended,
                two.visits,
            ]
            .map(short),
            None => ["–"; 6].map(String::from),
        };
        writeln!(text, " {} |", cells.join(" | "))?;
    }
    Ok(text)
}

fn modelled(
    text: &mut String,
    points: &mut csv::Writer<fs::File>,
    counts: &[Counts],
) -> Result<(), Box<dyn Error>> {
    let transfer = measure::transfer();
    let mut rates = Rates(HashMap::new());
    crate::each(&mut rates);

    write!(
        text,
        "\n### On many cores, by a model\n\n{ASSUMPTIONS}\n\
        *c* was {:.1} ns. Millions of operations per second, of all cores together; what was measured is marked so, the\n\
        rest is the model's. At one core the model is a measurement, and what stands beside it another one.\n\n\
        | what | contender | *t* | 1 core | measured | 2 cores | measured | model is off by | 8 cores | 64 cores | 192 cores |\n\
        | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
        transfer * 1e9
    )?;
    let mut errors = Vec::new();
    for together in of_threads(counts, Threads::Two) {
        let Counts {
            op,
            about,
            contender,
            ..
        } = together;
        let key = (op.clone(), contender.clone());
        let Measured { time, rates, .. } = &rates.0[&key];
        let at_a_shard = beside(counts, together, Threads::TwoAtAShard);
        let mut cells = Vec::new();
        for cores in CORES {
            let modelled = model::rate(cores, *time, transfer, together, at_a_shard);
            let measured = rates.get(cores - 1).copied();
            cells.push(millions(modelled));
            cells.extend(measured.map(millions));
            if cores == 2 {
                let error = 100.0 * (modelled / rates[1] - 1.0);
                cells.push(format!("{error:+.0} %"));
                errors.push(error.abs());
            }
            points.serialize(Point {
                op,
                contender,
                cores,
                modelled,
                measured,
            })?;
        }
        let nanoseconds = time * 1e9;
        writeln!(
            text,
            "| {about} | {contender} | {nanoseconds:.1} ns | {} |",
            cells.join(" | ")
        )?;
    }
    writeln!(text, "\nAt two cores {}", how_far_off(errors))?;
    two_at_a_shard(text, counts, &rates, transfer)
}

/// The model of a shard, and what it is checked by.
fn two_at_a_shard(
    text: &mut String,
    counts: &[Counts],
    rates: &Rates,
    transfer: f64,
) -> Result<(), Box<dyn Error>> {
    text.push_str(
        "\n### Two threads at one shard\n\n\
        What the model of more than 64 cores is made of: two threads whose numbers are the same modulo 64, as those of 65 that\n\
        make children of one parent are. Counted as above, but that the lines of claimed nodes are visited once; the *busiest*\n\
        line is the shard's own. Rates are in millions per second, of both cores together.\n\n\
        | what | RMWs | lines | contended | visits | of the busiest | 2 cores | measured | model is off by |\n\
        | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    let mut errors = Vec::new();
    for both in of_threads(counts, Threads::TwoAtAShard) {
        let apart = beside(counts, both, Threads::Two).map_or(0.0, |apart| apart.contended);
        if apart >= 1.0 || both.contended < 1.0 {
            // It goes through no shard.
            continue;
        }
        let measured = &rates.0[&(both.op.clone(), both.contender.clone())];
        let modelled = model::together(2, measured.time, transfer, both);
        let measured = measured.at_a_shard.ok_or("a shard was not measured")?;
        let counted = [
            both.rmws,
            both.lines,
            both.contended,
            both.visits,
            both.visits_of_one,
        ];
        let error = 100.0 * (modelled / measured - 1.0);
        errors.push(error.abs());
        writeln!(
            text,
            "| {} | {} | {} | {} | {error:+.0} % |",
            both.about,
            counted.map(short).join(" | "),
            millions(modelled),
            millions(measured)
        )?;
    }
    writeln!(
        text,
        "\nThere {} A row for which it is too low here is likely to be too low at 192 cores as well.",
        how_far_off(errors)
    )?;
    Ok(())
}

fn how_far_off(mut errors: Vec<f64>) -> String {
    errors.sort_by(f64::total_cmp);
    format!(
        "the model is off by {:.0} % in the median of the rows, and by {:.0} % at worst.",
        errors[errors.len() / 2],
        errors[errors.len() - 1]
    )
}

/// Whole numbers as such.
fn short(n: f64) -> String {
    let rounded = format!("{n:.2}");
    rounded.trim_end_matches('0').trim_end_matches('.').into()
}

fn millions(rate: f64) -> String {
    let millions = rate / 1e6;
    let decimals = if millions < 10.0 {
        2
    } else if millions < 100.0 {
        1
    } else {
        0
    };
    format!("{millions:.decimals$}")
}
