//! `cargo bench` measures everything that the project has an aim for, against tokio-util, tokio's timer, Go's
//! context and what the machine itself needs, and ends with tables of all ratios and aims.
//!
//! The table is also written to the file that the variable `REPORT` names, or else to
//! `criterion-ratios.md` in the target directory.

mod contender;
mod context;
mod cores;
mod floor;
mod go;
mod memory;
mod million;
mod report;
mod small;
mod threads;
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
    let is_measuring = env::args().any(|arg| arg == "--bench")
        && !env::args().any(|arg| arg == "--test" || arg == "--list");
    // Ahead of the benches, whose freed memory would otherwise be what the children get.
    let memory = is_measuring.then(|| {
        (
            memory::per_child::<cancel_tree::CancellationToken>(),
            memory::per_child::<tokio_util::sync::CancellationToken>(),
        )
    });

    let mut criterion = Criterion::default()
        .output_directory(&estimates.directory)
        .without_plots()
        .nresamples(10_000)
        .configure_from_args();
    small::all(&mut criterion);
    million::all(&mut criterion);
    wake::all(&mut criterion);
    context::all(&mut criterion);
    criterion.final_summary();

    if let Some((ours, theirs)) = memory {
        let mut table = report::table(&estimates, ours, theirs);
        if estimates.has("ctx_timeout_drop/cancel_tree") {
            table += &report::contexts(&estimates, go::run(), &context::lateness());
        }
        let file =
            env::var_os("REPORT").map_or_else(|| target.join("criterion-ratios.md"), PathBuf::from);
        fs::write(&file, &table)?;
        println!("\n{table}\nwritten to {}", file.display());
    }
    Ok(())
}
