//! What the feature `inspect` costs. `benches/inspect/run.sh` builds it without and with the feature, and prints both.

use cancel_tree::{CancellationToken, Context, Group};
use std::future::{pending, Future};
use std::hint::black_box;
use std::pin::pin;
use std::task::{self, Waker};
#[cfg(feature = "inspect")]
use std::time::Duration;
use std::time::Instant;

/// How long this thread has been on a processor: on a busy machine the rest says nothing. Where the system does not say, what time it is.
#[cfg(feature = "inspect")]
fn on_processor() -> Duration {
    let said = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanos = said.and_then(|text| text.split(' ').next()?.parse().ok());
    nanos.map_or_else(|| BEGIN.with(Instant::elapsed), Duration::from_nanos)
}

#[cfg(feature = "inspect")]
thread_local! {
    static BEGIN: Instant = Instant::now();
}

/// Nanoseconds of one, the best of some rounds.
fn best(rounds: usize, many: u32, mut work: impl FnMut()) -> f64 {
    let round = |work: &mut dyn FnMut()| {
        let begin = Instant::now();
        for _ in 0..many {
            work();
        }
        begin.elapsed().as_nanos() as f64 / f64::from(many)
    };
    (0..rounds)
        .map(|_| round(&mut work))
        .fold(f64::INFINITY, f64::min)
}

fn print(what: &str, value: f64, unit: &str) {
    println!("{what:<60} {value:>10.1} {unit}");
}

fn main() {
    let cx = &mut task::Context::from_waker(Waker::noop());
    let group = Group::new(&Context::background());
    let make = best(20, 20_000, || {
        drop(black_box(group.track(pending::<()>()).unwrap()));
    });
    print("a task without a name, made and dropped", make, "ns");
    let named = best(20, 20_000, || {
        drop(black_box(
            group.named("flush").track(pending::<()>()).unwrap(),
        ));
    });
    print("a task with a name, made and dropped", named, "ns");
    // In the room that the last ones have left.
    let mut made: Vec<_> = Vec::with_capacity(10_000);
    for _ in 0..20 {
        made.clear();
        made.extend((0..10_000).map(|_| group.named("flush").track(pending::<()>()).unwrap()));
    }
    let only = (0..20)
        .map(|_| {
            made.clear();
            let begin = Instant::now();
            made.extend((0..10_000).map(|_| group.named("flush").track(pending::<()>()).unwrap()));
            begin.elapsed().as_nanos() as f64 / 10_000.0
        })
        .fold(f64::INFINITY, f64::min);
    made.clear();
    print("  made only, 10,000 of them", only, "ns");
    let clock = best(20, 100_000, || _ = black_box(Instant::now()));
    print("  of which a reading of the clock", clock, "ns");
    let mut task = pin!(group.track(pending::<()>()).unwrap());
    let poll = best(20, 100_000, || {
        let _ = black_box(task.as_mut().poll(cx));
    });
    print("a poll of one without a name", poll, "ns");
    let mut task = pin!(group.named("flush").track(pending::<()>()).unwrap());
    let poll = best(20, 100_000, || {
        let _ = black_box(task.as_mut().poll(cx));
    });
    print("a poll of one with a name", poll, "ns");
    let root = CancellationToken::new();
    let token = best(20, 100_000, || drop(black_box(root.child_token())));
    print("a token, made and dropped", token, "ns");
    let (above, _guard) = Context::background().with_cancel();
    let context = best(20, 100_000, || drop(black_box(above.with_cancel())));
    print("a context, made and dropped", context, "ns");
    let new = best(20, 5_000, || drop(black_box(Group::new(&above))));
    print("a group, made and dropped", new, "ns");
    let name = best(20, 5_000, || drop(black_box(above.with_name("part"))));
    print("a context with a name, made and dropped", name, "ns");
    #[cfg(feature = "inspect")]
    snapshots();
}

/// Of a group with one task that is stuck, beside others.
#[cfg(feature = "inspect")]
fn report(beside: &str) {
    let (limit, guard) = Context::background().with_cancel();
    guard.cancel();
    let mut times: Vec<f64> = (0..15)
        .map(|_| {
            let group = Group::new(&Context::background());
            let _task = group.named("flush").track(pending::<()>()).unwrap();
            let begin = on_processor();
            let report = group.shutdown_blocking(&limit);
            let took = (on_processor() - begin).as_secs_f64() * 1e3;
            assert_eq!(report.tree.unwrap().nodes().len(), 2);
            took
        })
        .collect();
    times.sort_by(f64::total_cmp);
    println!("a report with a stuck task, on its processor, beside");
    print(&format!("  {beside}: the median"), times[7], "ms");
}

#[cfg(feature = "inspect")]
fn snapshots() {
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
    const MANY: usize = 100_000;
    let group = Group::new(&Context::background());
    let tasks: Vec<_> = (0..MANY)
        .map(|_| group.named("flush").track(pending::<()>()).unwrap())
        .collect();
    let mut times: Vec<f64> = (0..15)
        .map(|_| {
            let begin = on_processor();
            let snapshot = cancel_tree::inspect::snapshot();
            let took = (on_processor() - begin).as_secs_f64() * 1e3;
            assert!(snapshot.nodes().len() > MANY);
            took
        })
        .collect();
    times.sort_by(f64::total_cmp);
    print(
        "a snapshot of 100,000 named tasks, on its processor: the median",
        times[7],
        "ms",
    );
    print("  the worst of 15", times[14], "ms");
    let snapshot = cancel_tree::inspect::snapshot();
    let begin = on_processor();
    let json = black_box(snapshot.json());
    print(
        "  and as JSON",
        (on_processor() - begin).as_secs_f64() * 1e3,
        "ms",
    );
    print("  which is", json.len() as f64 / 1e6, "MB");
    report("100,000 named tasks of another group");
    let (ctx, _guard) = Context::background().with_cancel();
    let names: Vec<_> = (0..MANY).map(|_| ctx.with_name("part")).collect();
    report("100,000 named contexts, and those tasks");
    drop(names);

    // A thread that makes, polls and drops named tasks of that group, while another one takes one snapshot after the other, and
    // while it does not: in turns.
    let (walks, ends) = (AtomicBool::new(false), AtomicBool::new(false));
    let (alone, beside) = std::thread::scope(|scope| {
        let walker = scope.spawn(|| {
            let mut snapshots = 0;
            while !ends.load(Relaxed) {
                if walks.load(Relaxed) {
                    black_box(&cancel_tree::inspect::snapshot());
                    snapshots += 1;
                } else {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            assert!(snapshots > 10);
        });
        let cx = &mut task::Context::from_waker(Waker::noop());
        let (mut alone, mut beside) = (Vec::new(), Vec::new());
        for turn in 0..40 {
            walks.store(turn % 2 == 1, Relaxed);
            std::thread::sleep(Duration::from_millis(100));
            let begin = on_processor();
            for _ in 0..500_000 {
                let mut task = pin!(group.named("beside").track(pending::<()>()).unwrap());
                let _ = black_box(task.as_mut().poll(cx));
            }
            let took = (on_processor() - begin).as_nanos() as f64 / 500_000.0;
            if turn % 2 == 1 {
                &mut beside
            } else {
                &mut alone
            }
            .push(took);
        }
        ends.store(true, Relaxed);
        walker.join().unwrap();
        alone.sort_by(f64::total_cmp);
        beside.sort_by(f64::total_cmp);
        (alone[10], beside[10])
    });
    print("a named task, made, polled and dropped, alone", alone, "ns");
    print("  while another thread takes snapshots", beside, "ns");
    print("  slower by", (beside / alone - 1.0) * 100.0, "%");
    drop(tasks);
}
