//! `cargo bench -p benches` measures everything that the project has an aim for, against other tokens, tokio's timer, Go's
//! context and what the machine itself needs, and ends with tables of all ratios and aims, of all contenders, and of
//! who was left out of what.
//!
//! A filter chooses among the benches, `create_drop` or `/cancel_tree$`, and among them the memory, as `memory`.
//!
//! With `--test` each bench is tried once. Either way the contenders are first held to what they promise:
//! see `contenders/check.rs`.
//!
//! The tables and figures are also written to `tree.md` and `tree.csv`, into the directory that the variable `REPORT`
//! names, or else `report` in the target directory.

mod beside;
#[path = "../contenders/mod.rs"]
mod contenders;
mod context;
mod figures;
mod go;
mod group;
mod lateness;
#[path = "../machine/mod.rs"]
mod machine;
mod memory;
mod million;
mod report;
mod small;
mod wake;

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use criterion::Criterion;

use figures::Figures;

fn main() -> io::Result<()> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .parent()
        .expect("Cargo puts its directory for benches below the target directory");
    let criterion_directory = target.join("criterion");
    let start = SystemTime::now();

    // `cargo bench` says so; without it, or with `--test`, the benches are only tried out.
    let has = |wanted: &str| env::args().any(|arg| arg == wanted);
    let is_listing = has("--list");
    let is_measuring = has("--bench") && !is_listing && !has("--test");
    // Ahead of the benches, whose freed memory would otherwise be what the children get.
    let memory = is_measuring.then(|| memory::of_each(filter().as_deref()));
    let go = is_measuring.then(go::compile);
    if !is_listing {
        contenders::check::all();
    }

    let mut criterion = Criterion::default()
        .output_directory(&criterion_directory)
        .without_plots()
        .nresamples(10_000)
        .configure_from_args();
    small::all(&mut criterion);
    beside::all(&mut criterion);
    million::all(&mut criterion);
    wake::all(&mut criterion);
    context::all(&mut criterion);
    group::all(&mut criterion);
    criterion.final_summary();

    if let Some((memory, go)) = memory.zip(go) {
        let mut figures = Figures::of_criterion(&criterion_directory, start)?;
        let has_contexts = figures.get("ctx_timeout_drop", "cancel_tree").is_some();
        let lateness = has_contexts.then(|| lateness::all(1000, 300));
        let with_memory = memory.iter().any(|(name, _)| *name == "cancel_tree");
        let go = go::run(go, &mut figures, with_memory, has("--quick"));
        let tables = report::tables(&figures, memory, lateness, Some(go));
        println!("\n{tables}");

        let directory = env::var_os("REPORT").map_or_else(|| target.join("report"), PathBuf::from);
        fs::create_dir_all(&directory)?;
        fs::write(directory.join("tree.md"), &tables)?;
        fs::write(directory.join("tree.csv"), figures.csv())?;
        println!("written to {}/tree.*", directory.display());
    } else if !is_listing {
        // Tried with all the others; a filter asks for some of those.
        if filter().is_none() {
            lateness::all(2, 2);
        }
        println!("\n{}", report::left_out(|_| true));
    }
    Ok(())
}

/// The first argument that is neither an option of criterion's nor the value of one.
fn filter() -> Option<String> {
    #[rustfmt::skip]
    const WITH_VALUE: [&str; 16] = [
        "-b", "-c", "-s", "--baseline", "--baseline-lenient", "--color", "--confidence-level", "--load-baseline",
        "--measurement-time", "--noise-threshold", "--nresamples", "--output-format", "--sample-size", "--save-baseline",
        "--significance-level", "--warm-up-time",
    ];
    let mut arguments = env::args().skip(1);
    while let Some(argument) = arguments.next() {
        if WITH_VALUE.contains(&argument.as_str()) {
            arguments.next();
        } else if !argument.starts_with('-') {
            return Some(argument);
        }
    }
    None
}
