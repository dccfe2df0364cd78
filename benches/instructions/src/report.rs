//! The table and the file for plots.

use std::env;
use std::error::Error;
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

use crate::callgrind::{self, Count, Counted};
use crate::compare;

/// Counts, reports, and compares or takes the expected counts anew.
pub fn all(update: bool) -> Result<(), Box<dyn Error>> {
    let directory = PathBuf::from(env::var_os("REPORT").ok_or("REPORT names no directory")?);
    let profiles = PathBuf::from(env::var_os("PROFILES").ok_or("PROFILES names no directory")?);
    fs::create_dir_all(&directory)?;
    fs::create_dir_all(&profiles)?;
    let Some(valgrind) = callgrind::version() else {
        let skipped = "SKIPPED: instruction counts: there is no valgrind here";
        println!("{skipped}");
        fs::write(
            directory.join("instructions.md"),
            format!("### Instructions\n\n{skipped}\n"),
        )?;
        fs::write(
            directory.join("instructions.csv"),
            "op,contender,instructions\n",
        )?;
        return Ok(());
    };

    let mut counted = Counted {
        directory: &profiles,
        counts: Ok(Vec::new()),
    };
    crate::each(&mut counted);
    let counts = counted.counts?;

    let mut rows = csv::Writer::from_path(directory.join("instructions.csv"))?;
    rows.write_record(["op", "contender", "instructions"])?;
    for count in &counts {
        rows.write_record([count.op, count.contender, &short(count.instructions)])?;
    }
    rows.flush()?;
    let table = table(&counts, &valgrind)?;
    fs::write(directory.join("instructions.md"), &table)?;
    print!("{table}");

    println!();
    if update {
        compare::update(&counts)?;
        println!("expected.csv was taken anew");
    } else {
        println!("{}", compare::compare(&counts)?);
    }
    Ok(())
}

fn table(counts: &[Count], valgrind: &str) -> Result<String, Box<dyn Error>> {
    let contenders = ["cancel_tree", "tokio_util", "mutex_tree"];
    let mut text = format!(
        "### Instructions\n\n\
        Of one thread, in the steady state, counted by callgrind ({valgrind}); without those of the allocator, and with\n\
        some 8 of the loop. In brackets: atomic read-modify-writes, and how often the allocator is asked for memory, where\n\
        it is. Where the clock is read it is by a system call, as valgrind has it.\n\n\
        | what | {} |\n| --- |{}\n",
        contenders.join(" | "),
        " --- |".repeat(contenders.len())
    );
    for ours in counts
        .iter()
        .filter(|count| count.contender == contenders[0])
    {
        write!(text, "| {} |", ours.about)?;
        for contender in contenders {
            let is_its = |count: &&Count| (count.op, count.contender) == (ours.op, contender);
            match counts.iter().find(is_its) {
                Some(count) => write!(
                    text,
                    " {} ({}",
                    short(count.instructions),
                    short(count.rmws)
                )?,
                None => {
                    text.push_str(" – |");
                    continue;
                }
            }
            let asked = counts
                .iter()
                .find(is_its)
                .map_or(0.0, |count| count.allocations);
            if asked > 0.0 {
                write!(text, ", {}", short(asked))?;
            }
            text.push_str(") |");
        }
        text.push('\n');
    }
    Ok(text)
}

/// Whole numbers as such.
fn short(n: f64) -> String {
    let rounded = format!("{n:.1}");
    rounded.trim_end_matches('0').trim_end_matches('.').into()
}
