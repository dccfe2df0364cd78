//! The snapshot for programs: the schema is in docs/INSPECT.md.

use super::{says_more, shown, Node, Situation, Snapshot};
use alloc::string::String;
use core::fmt::{Display, Write};
use core::time::Duration;
use std::time::Instant;

pub(super) fn of(snapshot: &Snapshot) -> String {
    let mut out = Object::begin(String::with_capacity(256 * snapshot.nodes().len()));
    out.text("schema", "cancel-tree/1");
    out.number("took_us", snapshot.took().as_micros());
    out.key("nodes");
    out.text.push('[');
    for (i, node) in snapshot.nodes().iter().enumerate() {
        if i != 0 {
            out.text.push(',');
        }
        let text = core::mem::take(&mut out.text);
        out.text = write_node(snapshot, node, Object::begin(text));
    }
    out.text.push(']');
    out.end()
}

fn write_node(snapshot: &Snapshot, node: &Node, mut out: Object) -> String {
    let ago = |at: Instant| snapshot.at().saturating_duration_since(at);
    out.show("id", node.id);
    if let Some(above) = snapshot.above(node) {
        out.show("above", above.id);
    }
    out.text("kind", node.kind.name());
    if let Some(name) = &node.name {
        out.text("name", name);
    }
    out.show("at", node.at);
    if let Some(since) = node.since {
        out.millis("for_ms", ago(since));
    }
    if let Some(done) = &node.done {
        out.object("done", |out| {
            out.text(
                "kind",
                match done.kind {
                    crate::tree::ContextError::Cancelled => "cancelled",
                    crate::tree::ContextError::DeadlineExceeded => "deadline_exceeded",
                },
            );
            if says_more(&done.cause) {
                out.text("cause", &shown(&done.cause));
            }
            if let Some(at) = done.at {
                out.millis("for_ms", ago(at));
            }
            out.truth("own", done.is_own);
            if let Some(by) = &done.by {
                out.text("by", by);
            }
        });
    }
    if let Some(progress) = &node.progress {
        if progress.work == super::Work::Future {
            out.number("polls", progress.polls);
            out.truth("is_polling", progress.is_polling);
        }
        if let Some(since) = &progress.since_cancel {
            let told = snapshot
                .above(node)
                .and_then(|group| group.done.as_ref()?.at);
            out.object("since_cancel", |out| {
                let times = match progress.work {
                    super::Work::Thread => "looks",
                    _ => "polls",
                };
                out.number(times, since.times);
                if let Some((first, told)) = since.first.zip(told) {
                    out.millis("first_ms", first.saturating_duration_since(told));
                }
                if let Some(last) = since.last {
                    out.millis("last_for_ms", ago(last));
                }
            });
        }
    }
    if let Some(situation) = node.situation {
        out.text(
            "situation",
            match situation {
                Situation::NotPolled => "not_polled",
                Situation::GoesOn => "goes_on",
                Situation::NotLooked => "not_looked",
                Situation::StillHeld => "still_held",
                Situation::NeverWoken => "never_woken",
            },
        );
    }
    out.end()
}

/// An object that is being written.
struct Object {
    text: String,
    is_empty: bool,
}

impl Object {
    fn begin(mut text: String) -> Object {
        text.push('{');
        Object {
            text,
            is_empty: true,
        }
    }

    fn end(mut self) -> String {
        self.text.push('}');
        self.text
    }

    fn key(&mut self, key: &str) {
        if !core::mem::replace(&mut self.is_empty, false) {
            self.text.push(',');
        }
        self.text.push('"');
        self.text.push_str(key);
        self.text.push_str("\":");
    }

    fn text(&mut self, key: &str, value: &str) {
        self.key(key);
        self.text.push('"');
        let _ = Escaped(&mut self.text).write_str(value);
        self.text.push('"');
    }

    fn show(&mut self, key: &str, value: impl Display) {
        self.key(key);
        self.text.push('"');
        let _ = write!(Escaped(&mut self.text), "{value}");
        self.text.push('"');
    }

    fn number(&mut self, key: &str, value: impl Display) {
        self.key(key);
        let _ = write!(self.text, "{value}");
    }

    fn millis(&mut self, key: &str, value: Duration) {
        self.number(key, value.as_millis());
    }

    fn truth(&mut self, key: &str, value: bool) {
        self.number(key, value);
    }

    fn object(&mut self, key: &str, write: impl FnOnce(&mut Object)) {
        self.key(key);
        let mut inner = Object::begin(core::mem::take(&mut self.text));
        write(&mut inner);
        self.text = inner.end();
    }
}

/// What is written here stands in a JSON string.
pub(super) struct Escaped<'a>(pub(super) &'a mut String);

impl Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        for c in text.chars() {
            match c {
                '"' => self.0.push_str("\\\""),
                '\\' => self.0.push_str("\\\\"),
                '\n' => self.0.push_str("\\n"),
                '\t' => self.0.push_str("\\t"),
                c if c < ' ' => write!(self.0, "\\u{:04x}", c as u32)?,
                c => self.0.push(c),
            }
        }
        Ok(())
    }
}
