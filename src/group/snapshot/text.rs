//! A tree for people: a line for each.

use super::{says_more, DoneInfo, Kind, Node, Snapshot};
use crate::group::info::{in_line, one_line};
use alloc::vec::Vec;
use core::fmt;

/// Levels that are shown as such: a line is no longer than a page is wide, however deep the tree.
const MOST: usize = 24;

pub(super) fn write(snapshot: &Snapshot, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let nodes = snapshot.nodes();
    let count = |of: fn(&Node) -> bool| nodes.iter().filter(|node| of(node)).count();
    write!(
        f,
        "{} contexts, {} groups, {} tasks; {} do not stop",
        count(|node| node.kind == Kind::Context),
        count(|node| node.kind == Kind::Group),
        count(|node| node.kind.is_task()),
        count(|node| node.situation.is_some()),
    )?;
    let lasts = lasts(nodes);
    // Of each level above, whether something comes after it.
    let mut goes_on: Vec<bool> = Vec::new();
    for (node, is_last) in nodes.iter().zip(lasts) {
        let depth = node.depth as usize;
        goes_on.truncate(depth);
        f.write_str("\n")?;
        for more in goes_on.iter().skip(1).take(MOST) {
            f.write_str(if *more { "│  " } else { "   " })?;
        }
        if depth > 0 {
            f.write_str(if is_last { "└─ " } else { "├─ " })?;
        }
        if depth > MOST + 1 {
            write!(f, "[level {depth}] ")?;
        }
        goes_on.push(!is_last);
        write_node(snapshot, node, f)?;
    }
    Ok(())
}

/// Of each, whether it is the last one of its level.
fn lasts(nodes: &[Node]) -> Vec<bool> {
    // From the end: which levels have been met since a higher one was.
    let mut met: Vec<bool> = Vec::new();
    let mut lasts: Vec<bool> = nodes
        .iter()
        .rev()
        .map(|node| {
            let depth = node.depth as usize;
            met.truncate(depth + 1);
            met.resize(depth + 1, false);
            !core::mem::replace(&mut met[depth], true)
        })
        .collect();
    lasts.reverse();
    lasts
}

fn write_node(snapshot: &Snapshot, node: &Node, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match &node.name {
        Some(name) => write!(f, "{} ({}, {}", one_line(name), node.kind, node.at)?,
        None => write!(f, "a {} ({}", node.kind, node.at)?,
    }
    if let Some(since) = node.since {
        let age = snapshot.at().saturating_duration_since(since);
        write!(f, ", for {age:.1?}")?;
    }
    f.write_str(")")?;
    if let Some(progress) = &node.progress {
        return write!(f, ": {progress}");
    }
    if let Some(done) = &node.done {
        f.write_str(": ")?;
        write_done(snapshot, done, f)?;
    }
    if let Some(situation) = node.situation {
        write!(f, "; {situation}")?;
    }
    Ok(())
}

fn write_done(snapshot: &Snapshot, done: &DoneInfo, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "{}", done.kind)?;
    if done.is_own {
        f.write_str(" itself")?;
    }
    if let Some(at) = done.at {
        let ago = snapshot.at().saturating_duration_since(at);
        write!(f, " {ago:.1?} ago")?;
    }
    if let Some(by) = &done.by {
        write!(f, " by {}", one_line(by))?;
    }
    if says_more(&done.cause) {
        write!(f, ": {}", in_line(&done.cause))?;
    }
    Ok(())
}
