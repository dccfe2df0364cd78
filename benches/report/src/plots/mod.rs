//! Which plots there are, and what goes into which.

mod bars;
mod lines;
mod sheet;
mod style;

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;

use crate::measured::{self, Latency, Scale, Tree};
use bars::{Bar, Bars};
use lines::{Line, Lines, Point};
use style::Quantity;

pub struct Plot {
    pub title: &'static str,
    pub svg: String,
}

/// The operations on trees of so many tokens each: their plot is by token.
const TREES: [(&str, f64); 7] = [
    ("cancel_wide", 1_000_000.0),
    ("cancel_churned", 1_000_000.0),
    ("cancel_chain", 1_000_000.0),
    ("cancel_ten_ary", 1_111_111.0),
    ("build_cold", 1_000_000.0),
    ("drop_children", 1_000_000.0),
    ("drop_all", 1_000_000.0),
];

/// A plot by its name; none where nothing of it was measured.
type Named = (&'static str, Option<Plot>);

/// All of them.
pub fn all(measured: &Path) -> Result<Vec<Named>, Box<dyn Error>> {
    let file = |name: &str| measured.join(name).with_extension("csv");
    let tree: Vec<Tree> = measured::lines(&file("tree"))?;
    let latency: Vec<Latency> = measured::lines(&file("latency"))?;
    let scale: Vec<Scale> = measured::lines(&file("scale"))?;
    Ok(vec![
        ("operations", operations(&tree)?),
        ("trees", trees(&tree)?),
        ("contexts", contexts(&tree)?),
        ("latency-seen", latencies(
            &latency,
            "seen",
            "From cancel() to the last of N tokens seen cancelled, by the shape of the tree (lower is better)",
        )?),
        ("latency-task", latencies(
            &latency,
            "task",
            "From cancel() to the last of N waiting tasks running, by the shape of the tree (lower is better)",
        )?),
        ("latency-thread", latencies(
            &latency,
            "thread",
            "From cancel() to the last of N waiting threads running, by the shape of the tree (lower is better)",
        )?),
        ("scaling", scaling(&scale)?),
    ])
}

type Drawn = Result<Option<Plot>, Box<dyn Error>>;

fn tokens_of(bench: &str) -> Option<f64> {
    let tree = TREES.iter().find(|(name, _)| *name == bench);
    tree.map(|&(_, tokens)| tokens)
}

fn operations(tree: &[Tree]) -> Drawn {
    let is_one =
        |bench: &str| tokens_of(bench).is_none() && !bench.starts_with("ctx_") && bench != "clock";
    bars(
        "The time of one operation, shorter is better (each panel has its own log scale; the mark: 5th to 95th percentile)",
        tree.iter().filter(|line| is_one(&line.bench)).map(|line| (line, 1.0)),
        4,
    )
}

fn trees(tree: &[Tree]) -> Drawn {
    bars(
        "Trees of a million tokens: the time for each token (log scale; event_listener and watch cancel only the root)",
        tree.iter()
            .filter_map(|line| Some((line, tokens_of(&line.bench)?))),
        4,
    )
}

fn contexts(tree: &[Tree]) -> Drawn {
    bars(
        "Contexts: the time of one operation, shorter is better (each panel has its own log scale)",
        tree.iter()
            .filter(|line| line.bench.starts_with("ctx_"))
            .map(|line| (line, 1.0)),
        4,
    )
}

/// A panel for each bench, a bar for each contender.
fn bars<'a>(
    title: &'static str,
    lines: impl Iterator<Item = (&'a Tree, f64)>,
    columns: usize,
) -> Drawn {
    let mut panels: BTreeMap<(usize, &str), Vec<Bar>> = BTreeMap::new();
    for (line, count) in lines {
        let (place, _) = style::bench(&line.bench);
        panels.entry((place, &line.bench)).or_default().push(Bar {
            name: line.contender.clone(),
            value: line.ns / count,
            low: line.low / count,
            high: line.high / count,
        });
    }
    // Without us there is nothing to compare.
    panels.retain(|_, bars| bars.iter().any(|bar| bar.name == "cancel_tree"));
    if panels.is_empty() {
        return Ok(None);
    }
    let panels = panels.into_iter().map(|((_, bench), mut bars)| {
        bars.sort_by_key(|bar| style::place(&bar.name));
        (style::bench(bench).1, bars)
    });
    let bars = Bars {
        panels: panels.collect(),
        quantity: Quantity::Time,
    };
    let svg = bars.draw(title, columns)?;
    Ok(Some(Plot { title, svg }))
}

fn latencies(latency: &[Latency], what: &str, title: &'static str) -> Drawn {
    let lines = latency.iter().filter(|line| line.what == what).map(|line| {
        let point = Point {
            x: line.n,
            y: line.p50,
            up_to: line.p90,
            is_line: true,
            is_measured: true,
        };
        (line.shape.as_str(), line.contender.as_str(), point)
    });
    self::lines(
        title,
        lines,
        Lines {
            panels: Vec::new(),
            x_label: "tokens (N)",
            y_label: "median, and up to p90",
            y: Quantity::Time,
        },
    )
}

fn scaling(scale: &[Scale]) -> Drawn {
    let titles: Vec<String> = scale.iter().map(|line| style::bench(&line.op).1).collect();
    let points = scale.iter().zip(&titles).flat_map(|(line, title)| {
        let point = |y, is_measured: bool| {
            let point = Point {
                x: line.cores,
                y,
                up_to: None,
                is_line: !is_measured,
                is_measured,
            };
            (title.as_str(), line.contender.as_str(), point)
        };
        let measured = line.measured.map(|y| point(y, true));
        [Some(point(line.modelled, false)), measured]
            .into_iter()
            .flatten()
    });
    lines(
        "Throughput over cores: a model (lines), and what was measured (dots); higher is better",
        points,
        Lines {
            panels: Vec::new(),
            x_label: "cores",
            y_label: "operations per second",
            y: Quantity::Rate,
        },
    )
}

/// A panel for each of the first names, a line for each of the second.
fn lines<'a>(
    title: &'static str,
    points: impl Iterator<Item = (&'a str, &'a str, Point)>,
    mut lines: Lines,
) -> Drawn {
    for (panel, name, point) in points {
        // In the order of the file, which its program has chosen.
        let panels = &mut lines.panels;
        let at = panels
            .iter()
            .position(|(it, _)| it == panel)
            .unwrap_or_else(|| {
                panels.push((panel.to_owned(), Vec::new()));
                panels.len() - 1
            });
        let of_panel: &mut Vec<Line> = &mut panels[at].1;
        let at = of_panel
            .iter()
            .position(|it| it.name == name)
            .unwrap_or_else(|| {
                of_panel.push(Line {
                    name: name.to_owned(),
                    points: Vec::new(),
                });
                of_panel.len() - 1
            });
        of_panel[at].points.push(point);
    }
    if lines.panels.is_empty() {
        return Ok(None);
    }
    let svg = lines.draw(title, 3)?;
    Ok(Some(Plot { title, svg }))
}
