//! The snapshot as a graph for `dot`.

use super::{says_more, shown, Kind, Snapshot};
use crate::group::info::leaves_line;
use alloc::string::{String, ToString};
use core::fmt::Write;

pub(super) fn of(snapshot: &Snapshot) -> String {
    let mut out = String::from("digraph cancel_tree {\n  rankdir=LR;\n  node [fontname=sans];\n");
    for node in snapshot.nodes() {
        let mut label = match &node.name {
            Some(name) => name.to_string(),
            None => node.at.to_string(),
        };
        if let Some(done) = &node.done {
            let _ = write!(label, "\n{}", done.kind);
            if says_more(&done.cause) {
                let _ = write!(label, ": {}", shown(&done.cause));
            }
        }
        if let Some(situation) = node.situation {
            let _ = write!(label, "\n{situation}");
        }
        let shape = match node.kind {
            Kind::Context => "ellipse",
            Kind::Group => "folder",
            _ => "box",
        };
        let _ = write!(out, "  \"{}\" [shape={shape}, label=\"", node.id);
        escape(&label, &mut out);
        out.push('"');
        if node.situation.is_some() {
            out.push_str(", color=red");
        }
        out.push_str("];\n");
        if let Some(above) = snapshot.above(node) {
            let _ = writeln!(out, "  \"{}\" -> \"{}\";", above.id, node.id);
        }
    }
    out.push_str("}\n");
    out
}

/// For a string in quotes.
fn escape(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            // It reads entities in strings, too.
            '&' => out.push_str("&amp;"),
            c if leaves_line(c) => out.push(' '),
            c => out.push(c),
        }
    }
}
