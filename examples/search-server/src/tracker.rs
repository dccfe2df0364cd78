//! Every search is an event that must not be lost.

use crate::log;
use cancel_tree::{Context, Group, Report};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Writes events in the background. Nobody waits for that, until the end: [`shutdown`](Tracker::shutdown) waits for all, within a bound, and
/// names those that were not written.
pub struct Tracker {
    events: Group,
    to: Arc<Sink>,
}

enum Sink {
    Out,
    File(PathBuf, File),
}

impl Tracker {
    /// Events are appended to the file, a line each; without one they go to the output.
    ///
    /// # Errors
    ///
    /// The file cannot be opened.
    pub fn new(file: Option<&Path>) -> io::Result<Tracker> {
        let to = match file {
            None => Sink::Out,
            Some(path) => {
                let file = OpenOptions::new().append(true).create(true).open(path)?;
                Sink::File(path.to_owned(), file)
            }
        };
        // An event that fails ends no other.
        let events = Group::new(&Context::background().with_name("events")).keep_going();
        Ok(Tracker {
            events,
            to: Arc::new(to),
        })
    }

    /// Accepts an event, and returns at once.
    pub fn event(&self, id: &str, line: String) {
        let to = self.to.clone();
        let write = move |_ctx| {
            let line = line + "\n";
            let written = match &*to {
                Sink::Out => io::stdout().lock().write_all(line.as_bytes()),
                // One write of a file that is appended to: lines do not mix.
                Sink::File(_, file) => { file }.write_all(line.as_bytes()),
            };
            if let Err(error) = &written {
                let to = match &*to {
                    Sink::Out => "the output".into(),
                    Sink::File(path, _) => path.display().to_string(),
                };
                // Not lost: it is here.
                log::plain(&format!(
                    "cannot write to {to} ({error}) the event {}",
                    line.trim_end()
                ));
            }
            written
        };
        let task = self.events.named(format!("event {id}"));
        if let Err(refused) = task.spawn_blocking(write) {
            // The group is closed, or the runtime goes: written by whoever brought it.
            let write = refused.into_inner();
            let _ = write(Context::background());
        }
    }

    /// How many are not written yet.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Waits until all are written, or until `limit` is done; the report names the others.
    pub fn shutdown(&self, limit: &Context) -> Report {
        self.events.shutdown_blocking(limit)
    }
}
