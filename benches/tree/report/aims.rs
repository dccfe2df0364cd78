//! How far each aim is met.

use std::fmt::Write;

use super::{Ratio, RATIOS};
use crate::figures::Figures;
use crate::memory::PerChild;

/// What is aimed at, and what came out, in the same unit.
pub struct Aim {
    /// Infinite where there is none.
    pub limit: f64,
    pub measured: f64,
}

impl Aim {
    /// For the column of that name.
    pub fn met(&self) -> String {
        if self.limit.is_infinite() {
            "–".to_owned()
        } else if self.measured <= self.limit {
            "yes".to_owned()
        } else {
            let short = (self.measured / self.limit - 1.0) * 100.0;
            // Rounded up: it is not met.
            format!("**short by {} %**", short.ceil())
        }
    }

    /// For the column of that name.
    pub fn wanted(&self, unit: &str) -> String {
        if self.limit.is_finite() {
            format!("≤ {}{unit}", self.limit)
        } else {
            "–".to_owned()
        }
    }
}

/// The table of the tokens' aims, of the rows that this run has measured.
pub fn table(figures: &Figures, memory: &[(&str, PerChild)]) -> String {
    let mut table = String::from(
        "### Tokens: the aims\n\n\
         | what | aim | measured | met | cancel-tree | floor | tokio-util |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    let mut row = |what: &str, unit: &str, measured: String, aim: Aim, cells: [String; 3]| {
        writeln!(
            table,
            "| {what} | {} | {measured} | {} | {} |",
            aim.wanted(unit),
            aim.met(),
            cells.join(" | ")
        )
        .expect("a string takes everything");
    };
    for &Ratio {
        what,
        of,
        to,
        limit,
    } in RATIOS
    {
        let (Some(ours), Some(theirs)) = (figures.get(of, "cancel_tree"), figures.at(to)) else {
            continue;
        };
        let unit = match to.split_once('/') {
            Some((_, "tokio_util")) => " t",
            Some((_, "floor")) => " f",
            _ => "",
        };
        let measured = ours.median / theirs.median;
        let floor = (unit == " f").then_some(theirs);
        let cells = [Some(ours), floor, figures.get(of, "tokio_util")];
        row(
            what,
            unit,
            format!("{measured:.3}{unit}"),
            Aim { limit, measured },
            cells.map(|cell| cell.map_or("–".to_owned(), |figure| figure.to_string())),
        );
    }
    let of = |name| memory.iter().find(|(of, _)| *of == name).map(|(_, it)| it);
    if let (Some(ours), Some(theirs)) = (of("cancel_tree"), of("tokio_util")) {
        // A page here or there for the process itself is not the children's, hence not quite zero.
        let rows = [
            ("memory of a child", ours.first, theirs.first, 72.0),
            ("… when recycled", ours.recycled, theirs.recycled, 0.1),
        ];
        for (what, measured, theirs, limit) in rows {
            let bytes = |n: f64| format!("{n:.1} bytes");
            let cells = [bytes(measured), "–".to_owned(), bytes(theirs)];
            row(
                what,
                " bytes",
                bytes(measured),
                Aim { limit, measured },
                cells,
            );
        }
    }
    table
}
