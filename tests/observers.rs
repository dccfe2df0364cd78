//! What is told to `metrics` and to `tracing`, read back through a recorder and a subscriber of the test's own. One test each: both are of the process.

use cancel_tree::integrations;
use cancel_tree::{Context, Group};
use metrics::{
    Counter, CounterFn, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};
use std::collections::HashMap;
use std::future::{pending, Future};
use std::pin::{pin, Pin};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{self, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(30);

fn poll<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut task::Context::from_waker(Waker::noop()))
}

/// All values that came, by the name and its labels.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<HashMap<String, Vec<f64>>>>);

struct One(Heard, String);

impl Heard {
    fn one(&self, key: &Key) -> Arc<One> {
        let labels = key
            .labels()
            .map(|label| format!(" {}={}", label.key(), label.value()));
        let mut labels: Vec<String> = labels.collect();
        labels.sort();
        Arc::new(One(self.clone(), key.name().to_owned() + &labels.concat()))
    }

    fn of(&self, what: &str) -> Vec<f64> {
        self.0
            .lock()
            .unwrap()
            .get(what)
            .cloned()
            .unwrap_or_default()
    }
}

impl One {
    fn note(&self, value: f64) {
        let mut heard = self.0 .0.lock().unwrap();
        heard.entry(self.1.clone()).or_default().push(value);
    }
}

impl CounterFn for One {
    fn increment(&self, value: u64) {
        self.note(value as f64);
    }
    fn absolute(&self, _: u64) {
        unreachable!("only counted up");
    }
}

impl HistogramFn for One {
    fn record(&self, value: f64) {
        self.note(value);
    }
}

impl Recorder for Heard {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, unit: Option<Unit>, _: SharedString) {
        assert_eq!(unit, Some(Unit::Seconds));
    }
    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.one(key))
    }
    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        unreachable!("there are none");
    }
    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.one(key))
    }
}

/// Waits for what another thread is about to do.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < LONG, "{what}");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_recorder_of_metrics_hears_times_and_counts() {
    let heard = Heard::default();
    metrics::set_global_recorder(heard.clone()).ok().unwrap();
    integrations::metrics::install();
    integrations::metrics::install();

    let (root, guard) = Context::background().with_cancel();
    let ctx = root.with_name("a-ctx");
    let group = Group::new(&ctx);
    let mut told = Box::pin(group.named("a-told").track(pending::<()>()).unwrap());
    let lost = group.named("a-lost").track(pending::<()>()).unwrap();
    assert!(poll(told.as_mut()).is_pending());
    assert!(heard
        .of("cancel_tree_first_poll_seconds task=a-told")
        .is_empty());
    guard.cancel_with("any text");
    for _ in 0..3 {
        assert!(poll(told.as_mut()).is_pending());
    }
    assert_eq!(
        heard.of("cancel_tree_cancels_total kind=cancelled name=a-ctx"),
        [1.0]
    );
    let first = heard.of("cancel_tree_first_poll_seconds task=a-told");
    assert!(
        first.len() == 1 && (0.0..30.0).contains(&first[0]),
        "{first:?}"
    );
    assert!(heard.of("cancel_tree_gone_seconds task=a-told").is_empty());
    let (limit, end) = Context::background().with_cancel();
    end.cancel();
    let report = futures::executor::block_on(group.shutdown_with(&limit, Duration::ZERO));
    assert_eq!(report.stuck.len(), 2);
    assert_eq!(
        heard.of("cancel_tree_tasks_total outcome=stuck task=a-lost"),
        [1.0]
    );
    drop((told, lost));
    for name in ["a-told", "a-lost"] {
        let gone = heard.of(&format!("cancel_tree_gone_seconds task={name}"));
        assert!(
            gone.len() == 1 && (0.0..30.0).contains(&gone[0]),
            "{gone:?}"
        );
        assert_eq!(
            heard.of(&format!(
                "cancel_tree_tasks_total outcome=forced task={name}"
            )),
            [1.0]
        );
    }
    assert!(heard
        .of("cancel_tree_first_poll_seconds task=a-lost")
        .is_empty());

    // A task that ends without a cancel is no news.
    let other = Group::new(&Context::background());
    let quick = other.named("a-quick").track(async {}).unwrap();
    assert!(poll(pin!(quick)).is_ready());
    assert!(heard.of("cancel_tree_gone_seconds task=a-quick").is_empty());

    // What has its name before the deadline is told of it. A machine may be too slow for that: then with a longer one.
    let in_time = (0..12).map(|n| (n, Duration::from_millis(5 << n)));
    let (n, timed, _guard) = in_time
        .map(|(n, timeout)| {
            let (timed, guard) = Context::background().with_timeout(timeout);
            let timed = timed.with_name(format!("a-timed-{n}"));
            (n, timed, guard)
        })
        .find(|(_, timed, _)| timed.deadline().unwrap() > Instant::now())
        .expect("no attempt was in time");
    let lateness = format!("cancel_tree_deadline_lateness_seconds name=a-timed-{n}");
    until("the deadline is told", || !heard.of(&lateness).is_empty());
    let late = heard.of(&lateness);
    assert!(
        late.len() == 1 && (0.0..30.0).contains(&late[0]),
        "{late:?}"
    );
    let cancels = format!("cancel_tree_cancels_total kind=deadline_exceeded name=a-timed-{n}");
    until("the cancel is told", || heard.of(&cancels) == [1.0]);
    drop(timed);
}

static EVENTS: OnceLock<Mutex<Vec<String>>> = OnceLock::new();

/// Writes down level, target and fields.
struct Writes;

struct Fields(String);

impl tracing::field::Visit for Fields {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        // How long and where: others' business.
        let value = match field.name() {
            "at" | "after_ms" | "late_ms" => "…".to_owned(),
            _ => format!("{value:?}"),
        };
        self.0 += &format!(" {}={value}", field.name());
    }
}

impl tracing::Subscriber for Writes {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target() == "cancel_tree"
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        unreachable!("there are none");
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        let mut fields = Fields(event.metadata().level().to_string());
        event.record(&mut fields);
        EVENTS
            .get_or_init(Mutex::default)
            .lock()
            .unwrap()
            .push(fields.0);
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[test]
fn a_subscriber_of_tracing_hears_an_event_for_each_phase() {
    tracing::subscriber::set_global_default(Writes).unwrap();
    integrations::tracing::install();
    let group = Group::new(&Context::background());
    let inner = group.child("b-inner");
    // Names stay in their line.
    let name = "b-task\u{2028}";
    let mut task = Box::pin(inner.named(name).track(pending::<()>()).unwrap());
    inner.cancel_with("b cause");
    assert!(poll(task.as_mut()).is_pending());
    drop(task);
    let heard = EVENTS.get().unwrap().lock().unwrap();
    let own: Vec<&str> = heard
        .iter()
        .map(String::as_str)
        .filter(|e| e.contains("b-"))
        .collect();
    assert_eq!(
        own,
        [
            "INFO message=done name=\"b-inner\" at=… is_group=true kind=context cancelled cause=b cause",
            "DEBUG message=first poll since the cancel task=\"b-task \" at=… after_ms=…",
            "WARN message=gone task=\"b-task \" at=… after_ms=… is_forced=true",
        ]
    );
}

/// An observer that panics is nobody's affair.
#[test]
fn an_observer_that_panics_changes_nothing() {
    struct Panics;
    impl cancel_tree::inspect::Observer for Panics {
        fn tell(&self, event: &cancel_tree::inspect::Event<'_>) {
            if let cancel_tree::inspect::Event::Gone { name: "c-task", .. } = event {
                panic!("on purpose");
            }
        }
    }
    cancel_tree::inspect::observe(Panics);
    let group = Group::new(&Context::background());
    let task = group.named("c-task").track(pending::<()>()).unwrap();
    group.cancel();
    drop(task);
    assert!(group.is_empty());
    group.join_blocking().unwrap();
}
