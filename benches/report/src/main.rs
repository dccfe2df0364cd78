//! Makes the report of what the benchmarks have measured: fills in the generated parts of `BENCHMARKS.md` and draws
//! the plots beside it.
//!
//!     cancel-tree-report MEASURED DOCS
//!
//! MEASURED is the directory with `tree.md`, `tree.csv` and so on; what is not there is said to be missing. DOCS has
//! `BENCHMARKS.md`, and gets `plots/`.

mod document;
mod machine;
mod measured;
mod picture;
mod plots;

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::{env, fs};

/// What measures, by the names of its files, and the command that runs it alone.
const PROGRAMS: [(&str, &str); 4] = [
    ("tree", "cargo bench -p benches --bench tree"),
    ("latency", "cargo bench -p benches --bench latency"),
    ("scale", "benches/scale/run.sh"),
    ("instructions", "benches/instructions/run.sh"),
];

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [measured, docs] = &arguments[..] else {
        return Err("usage: cancel-tree-report MEASURED DOCS".into());
    };
    let (measured, docs) = (Path::new(measured), Path::new(docs));

    let mut parts = BTreeMap::from([("machine".to_owned(), machine::describe(measured)?)]);
    for (program, command) in PROGRAMS {
        let tables = measured::text(&measured.join(program).with_extension("md"))?;
        let missing = || format!("Not measured in this run: `{command}` was SKIPPED.");
        parts.insert(program.to_owned(), tables.unwrap_or_else(missing));
    }

    let directory = docs.join("plots");
    fs::create_dir_all(&directory)?;
    for (name, plot) in plots::all(measured)? {
        let [svg, png] = ["svg", "png"].map(|kind| directory.join(name).with_extension(kind));
        let part = match plot {
            Some(plot) => {
                fs::write(&png, picture::png(&plot.svg)?)?;
                fs::write(&svg, plot.svg)?;
                println!("{}, and as PNG", svg.display());
                format!("[![{}](plots/{name}.svg)](plots/{name}.png)", plot.title)
            }
            None => {
                // Those of an earlier run would pass for this one's.
                for file in [svg, png] {
                    if file.exists() {
                        fs::remove_file(file)?;
                    }
                }
                println!("SKIPPED: the plot {name}, for nothing of it was measured");
                "No plot: nothing of it was measured in this run.".to_owned()
            }
        };
        parts.insert(format!("plot {name}"), part);
    }

    let file = docs.join("BENCHMARKS.md");
    fs::write(&file, document::fill(&fs::read_to_string(&file)?, parts)?)?;
    println!("{}", file.display());
    Ok(())
}
