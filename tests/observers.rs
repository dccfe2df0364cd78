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
    // Names and causes stay in their line.
    let name = "b-task\u{2028}";
    let mut task = Box::pin(inner.named(name).track(pending::<()>()).unwrap());
    inner.cancel_with("b cause\nb forged");
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
            "INFO message=done name=\"b-inner\" at=… is_group=true kind=context cancelled cause=b cause b forged",
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

/// Counts, by what happened and the name.
#[derive(Clone, Default)]
struct Counts(Arc<Mutex<HashMap<String, usize>>>);

impl cancel_tree::inspect::Observer for Counts {
    fn tell(&self, event: &cancel_tree::inspect::Event<'_>) {
        use cancel_tree::inspect::Event;
        let what = match event {
            Event::Done {
                name: Some(name), ..
            } => format!("done {name}"),
            Event::FirstPoll { name, .. } => format!("first {name}"),
            Event::Gone {
                name, is_forced, ..
            } => format!("gone {name} {is_forced}"),
            _ => return,
        };
        *self.0.lock().unwrap().entry(what).or_default() += 1;
    }
}

impl Counts {
    fn observe() -> Counts {
        let counts = Counts::default();
        cancel_tree::inspect::observe(counts.clone());
        counts
    }

    fn of(&self, what: &str) -> usize {
        self.0.lock().unwrap().get(what).copied().unwrap_or(0)
    }
}

type Held = Mutex<Option<Pin<Box<dyn Future<Output = ()> + Send>>>>;

/// A task that is polled by whoever wakes it, as some executors do: before the canceller has come to any callback.
struct PolledByItsWaker(Held);

impl task::Wake for PolledByItsWaker {
    fn wake(self: Arc<Self>) {
        let waker = Waker::from(self.clone());
        let mut future = self.0.lock().unwrap();
        if let Some(running) = future.as_mut() {
            let answer = running
                .as_mut()
                .poll(&mut task::Context::from_waker(&waker));
            if answer.is_ready() {
                *future = None;
            }
        }
    }
}

#[test]
fn what_is_polled_by_its_waker_is_told() {
    let counts = Counts::observe();
    let (root, guard) = Context::background().with_cancel();
    let group = Group::new(&root);
    let task = |ctx: Context| async move {
        ctx.done().await;
    };
    let task = group.named("d-task").track_with(task).unwrap();
    let task = Arc::new(PolledByItsWaker(Mutex::new(Some(Box::pin(task)))));
    task::Wake::wake(task.clone());
    assert_eq!(counts.of("first d-task"), 0);
    guard.cancel();
    assert!(task.0.lock().unwrap().is_none());
    assert_eq!(counts.of("first d-task"), 1);
    assert_eq!(counts.of("gone d-task false"), 1);
}

/// A runtime's threads are at the tasks while the canceller wakes.
#[test]
fn each_of_many_tasks_is_told_once() {
    const MANY: usize = 1_000;
    let counts = Counts::observe();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap();
    let (root, guard) = Context::background().with_cancel();
    let group = Group::new(&root);
    let waiting = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    runtime.block_on(async {
        for _ in 0..MANY {
            let waiting = waiting.clone();
            let task = move |ctx: Context| async move {
                let mut done = pin!(ctx.done());
                let mut is_first = true;
                std::future::poll_fn(|cx| {
                    let answer = done.as_mut().poll(cx);
                    if std::mem::take(&mut is_first) {
                        waiting.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    }
                    answer
                })
                .await;
            };
            group.named("e-task").spawn(task).unwrap();
        }
    });
    until("all wait", || {
        waiting.load(std::sync::atomic::Ordering::Relaxed) == MANY
    });
    guard.cancel();
    runtime.block_on(group.join()).unwrap();
    assert_eq!(counts.of("first e-task"), MANY);
    assert_eq!(counts.of("gone e-task false"), MANY);
}

/// A future that is dropped by whoever wakes it, as where something else has won: what it holds goes before the canceller comes to any callback.
struct DroppedByItsWaker(Held);

impl task::Wake for DroppedByItsWaker {
    fn wake(self: Arc<Self>) {
        let future = self.0.lock().unwrap().take();
        drop(future);
    }
}

#[test]
fn what_is_let_go_when_it_is_woken_is_told() {
    let counts = Counts::observe();
    let (root, guard) = Context::background().with_cancel();
    let ctx = root.with_name("f-ctx");
    let group = Group::new(&ctx).child("f-group");
    let future = Box::pin(async move {
        ctx.done().await;
        drop(group);
    });
    let held = Arc::new(DroppedByItsWaker(Mutex::new(Some(future))));
    let waker = Waker::from(held.clone());
    {
        let mut future = held.0.lock().unwrap();
        let mut cx = task::Context::from_waker(&waker);
        assert!(future.as_mut().unwrap().as_mut().poll(&mut cx).is_pending());
    }
    guard.cancel();
    assert!(held.0.lock().unwrap().is_none());
    assert_eq!(counts.of("done f-ctx"), 1);
    assert_eq!(counts.of("done f-group"), 1);

    // What is let go before is not.
    let (root, guard) = Context::background().with_cancel();
    drop(root.with_name("f-before"));
    let stays = root.with_name("f-stays");
    guard.cancel();
    drop(root.with_name("f-born"));
    drop(stays);
    assert_eq!(counts.of("done f-before"), 0);
    assert_eq!(counts.of("done f-born"), 0);
    assert_eq!(counts.of("done f-stays"), 1);
}
