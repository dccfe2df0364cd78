//! What is counted, for `GET /metrics`.

use crate::log;
use crate::search::Ended;
use crate::work::Searches;
use cancel_tree::integrations::tower::Counts;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Numbers, but for one: nothing is published with them, so all is Relaxed.
#[derive(Default)]
pub struct Metrics {
    /// Those that are there.
    pub searches: Searches,
    /// Threads that search files now.
    pub working: AtomicU64,
    /// Files that were searched.
    pub files: AtomicU64,
    /// Files that could not be read.
    pub unreadable: AtomicU64,
    begun: AtomicU64,
    hits: AtomicU64,
    ended: [AtomicU64; Self::ENDS.len()],
    stop: Histogram,
}

impl Metrics {
    /// How a search may end; [`Why::label`](crate::search::Why::label).
    pub const ENDS: [&str; 10] = [
        "complete",
        "unreadable",
        "enough",
        "limit",
        "not_taken",
        "client_gone",
        "backend",
        "files_gone",
        "shutdown",
        "other",
    ];

    pub fn begun(&self) {
        self.begun.fetch_add(1, Relaxed);
    }

    /// One more thread searches, until this goes.
    pub fn work(&self) -> impl Drop + use<'_> {
        counted(&self.working)
    }

    pub fn ended(&self, ended: &Ended) {
        self.hits.fetch_add(ended.hits as u64, Relaxed);
        let label = ended.why.label();
        let at = Self::ENDS.iter().position(|end| *end == label);
        if let Some(at) = at {
            self.ended[at].fetch_add(1, Relaxed);
        }
        if let Some(stop) = ended.stop {
            self.stop.add(stop);
        }
    }

    /// In the text format of Prometheus. Of the events: how many are not written yet, are in the log only, and are lost.
    pub fn text(&self, requests: Counts, tasks: usize, events: (usize, (u64, u64))) -> String {
        let mut text = String::new();
        let mut one = |name: &str, kind: &str, help: &str, values: &[(String, u64)]| {
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for (labels, value) in values {
                let _ = writeln!(text, "{name}{labels} {value}");
            }
        };
        let plain = |value: u64| [(String::new(), value)];
        let load = |value: &AtomicU64| plain(value.load(Relaxed));
        one(
            "search_begun_total",
            "counter",
            "Searches that were begun.",
            &load(&self.begun),
        );
        let ended = Self::ENDS.iter().zip(&self.ended);
        let ended = ended.map(|(end, count)| (format!("{{by=\"{end}\"}}"), count.load(Relaxed)));
        let ended: Vec<_> = ended.collect();
        one(
            "search_ended_total",
            "counter",
            "Searches of which nothing is left, by what ended them.",
            &ended,
        );
        one(
            "search_hits_total",
            "counter",
            "Lines that were found.",
            &load(&self.hits),
        );
        one(
            "search_files_total",
            "counter",
            "Files that were searched.",
            &load(&self.files),
        );
        one(
            "search_unreadable_total",
            "counter",
            "Files that could not be read.",
            &load(&self.unreadable),
        );
        one(
            "search_working",
            "gauge",
            "Threads that search files.",
            &load(&self.working),
        );
        one(
            "search_tasks",
            "gauge",
            "Requests and searches that are there.",
            &plain(tasks as u64),
        );
        one(
            "search_events",
            "gauge",
            "Events that are not written yet.",
            &plain(events.0 as u64),
        );
        one(
            "search_events_in_log_total",
            "counter",
            "Events that are in the log only, since they could not be written.",
            &plain(events.1 .0),
        );
        one(
            "search_events_lost_total",
            "counter",
            "Events that there was no room for in the log either.",
            &plain(events.1 .1),
        );
        one(
            "search_log_lost_total",
            "counter",
            "Lines of the log that there was no room for.",
            &plain(log::lost()),
        );
        let requests = [
            ("received", requests.received),
            ("expired_on_arrival", requests.expired_on_arrival),
            ("refused", requests.refused),
            ("cut_by_deadline", requests.cut_by_deadline),
            ("client_gone", requests.client_gone),
            ("failed", requests.failed),
        ];
        let requests = requests.map(|(what, count)| (format!("{{what=\"{what}\"}}"), count));
        one(
            "search_requests_total",
            "counter",
            "What has become of requests.",
            &requests,
        );
        self.stop.text(&mut text);
        text
    }
}

/// One more, until this goes.
pub fn counted(count: &AtomicU64) -> impl Drop + use<'_> {
    struct Counted<'a>(&'a AtomicU64);
    impl Drop for Counted<'_> {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Relaxed);
        }
    }
    count.fetch_add(1, Relaxed);
    Counted(count)
}

/// From the word to stop until nobody works any more.
#[derive(Default)]
struct Histogram {
    buckets: [AtomicU64; Self::BOUNDS.len()],
    count: AtomicU64,
    micros: AtomicU64,
}

impl Histogram {
    /// In microseconds, and as Prometheus writes them.
    const BOUNDS: [(u64, &str); 7] = [
        (100, "0.0001"),
        (300, "0.0003"),
        (1_000, "0.001"),
        (3_000, "0.003"),
        (10_000, "0.01"),
        (100_000, "0.1"),
        (1_000_000, "1"),
    ];

    fn add(&self, took: Duration) {
        let took = took.as_micros() as u64;
        let at = Self::BOUNDS.iter().position(|(bound, _)| took <= *bound);
        if let Some(at) = at {
            self.buckets[at].fetch_add(1, Relaxed);
        }
        self.count.fetch_add(1, Relaxed);
        self.micros.fetch_add(took, Relaxed);
    }

    fn text(&self, text: &mut String) {
        let name = "search_stop_seconds";
        let _ = writeln!(text, "# HELP {name} From the word to stop until nobody works for the search.\n# TYPE {name} histogram");
        let mut sum = 0;
        for ((_, bound), bucket) in Self::BOUNDS.iter().zip(&self.buckets) {
            sum += bucket.load(Relaxed);
            let _ = writeln!(text, "{name}_bucket{{le=\"{bound}\"}} {sum}");
        }
        // Read after the buckets, and never less than they are together.
        let count = self.count.load(Relaxed).max(sum);
        let seconds = self.micros.load(Relaxed) as f64 / 1e6;
        let _ = writeln!(
            text,
            "{name}_bucket{{le=\"+Inf\"}} {count}\n{name}_sum {seconds}\n{name}_count {count}"
        );
    }
}
