//! `cargo bench` measures everything that the project has an aim for, against other tokens, tokio's timer, Go's
//! context and what the machine itself needs, and ends with tables of all ratios and aims, of all contenders, and of
//! who was left out of what.
//!
//! With `--test` each bench is tried once. Either way the contenders are first held to what they promise:
//! see `contenders/check.rs`.
//!
//! The tables are also written to the file that the variable `REPORT` names, or else to
//! `criterion-ratios.md` in the target directory.

mod beside;
#[path = "../contenders/mod.rs"]
mod contenders;
mod context;
mod go;
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

use report::Estimates;

fn main() -> io::Result<()> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .parent()
        .expect("Cargo puts its directory for benches below the target directory");
    let estimates = Estimates {
        directory: target.join("criterion"),
        since: SystemTime::now(),
    };

    // `cargo bench` says so; without it, or with `--test`, the benches are only tried out.
    let is_listing = env::args().any(|arg| arg == "--list");
    let is_measuring = env::args().any(|arg| arg == "--bench")
        && !is_listing
        && !env::args().any(|arg| arg == "--test");
    // Ahead of the benches, whose freed memory would otherwise be what the children get.
    let memory = is_measuring.then(memory::of_each);
    if !is_listing {
        contenders::check::all();
    }

    let mut criterion = Criterion::default()
        .output_directory(&estimates.directory)
        .without_plots()
        .nresamples(10_000)
        .configure_from_args();
    small::all(&mut criterion);
    beside::all(&mut criterion);
    million::all(&mut criterion);
    wake::all(&mut criterion);
    context::all(&mut criterion);
    criterion.final_summary();

    if let Some(memory) = memory {
        let mut table = report::table(&estimates, &memory);
        if estimates.has("ctx_timeout_drop/cancel_tree") {
            table += &report::contexts(&estimates, go::run(), &context::lateness());
        }
        table += &report::contenders(&estimates, &memory);
        let file =
            env::var_os("REPORT").map_or_else(|| target.join("criterion-ratios.md"), PathBuf::from);
        fs::write(&file, &table)?;
        println!("\n{table}\nwritten to {}", file.display());
    } else if !is_listing {
        println!("\n{}", report::left_out(|_| true));
    }
    Ok(())
}
