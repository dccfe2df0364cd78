//! A deadline that is far away leaves nothing behind until then: memory follows the contexts that live, not
//! those that were made. One test, for the count is the process's.

mod counting;

use cancel_tree::Context;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(30);
/// A node, its extension, and what they cost at most: several times over.
const EACH: isize = 1000;
/// What may wait for the timer's next look at all entries, and lie in the caches of two threads.
const ROOM: isize = (2 * 4096 + 2 * 512) * EACH;

/// Fails if the peak during `f` is more than so many contexts' above what was in use before, and so it is each time: a timer that gets no
/// processor looks at nothing.
fn takes_at_most(contexts: isize, what: &str, mut f: impl FnMut()) {
    let before = counting::in_use();
    let mut peaks = Vec::new();
    while peaks.len() < 3 {
        let kept = counting::in_use() - before;
        let ((), _, peak) = counting::grows(&mut f);
        let peak = kept + peak;
        println!("{what}: {} KiB at the peak", peak / 1024);
        if peak <= contexts * EACH + ROOM {
            return;
        }
        peaks.push(peak);
    }
    panic!("{what}: {peaks:?} bytes");
}

/// So many deadlines of one moment pass, and the contexts go.
fn pass_at_once(number: usize) {
    let at = Instant::now() + Duration::from_secs(2);
    let (say, hear) = mpsc::channel();
    let all: Vec<_> = (0..number)
        .map(|i| {
            let pair = Context::background().with_deadline(at);
            // It is the timer that notices them: nobody asks.
            if i % 1000 == 0 {
                let say = say.clone();
                drop(pair.0.on_cancel(move || say.send(()).unwrap()));
            }
            pair
        })
        .collect();
    drop(say);
    assert_eq!(hear.iter().count(), number.div_ceil(1000));
    drop(all);
}

/// Fails if the timer and its workers keep what they needed for many deadlines at once. (The few that pass first fill the pool of entries.)
fn shrinks_after_a_peak() {
    const LEFT: isize = 16 << 10;
    pass_at_once(2000);
    // The timer frees what the pool had no room for.
    thread::sleep(Duration::from_millis(500));
    let before = counting::in_use();
    pass_at_once(100_000);
    let begin = Instant::now();
    let left = || counting::in_use() - before;
    while left() > LEFT {
        assert!(begin.elapsed() < LIMIT, "{} bytes stay", left());
        thread::sleep(Duration::from_millis(10));
    }
    println!(
        "after a peak: {} bytes, {:?} later",
        left(),
        begin.elapsed()
    );
}

/// Two threads make contexts and two others drop them, more than the timer takes in: how late deadlines are beside that, the
/// middle of all.
fn pushed_hard() -> Duration {
    let end = Instant::now() + Duration::from_secs(2);
    let mut late = Vec::new();
    thread::scope(|scope| {
        for _ in 0..2 {
            let (send, receive) = mpsc::sync_channel(1);
            scope.spawn(move || {
                while Instant::now() < end {
                    let some = (0..3000).map(|_| Context::background().with_timeout(LIMIT));
                    send.send(Vec::from_iter(some)).unwrap();
                }
            });
            scope.spawn(move || receive.iter().for_each(drop));
        }
        while Instant::now() < end {
            let (ctx, _guard) = Context::background().with_timeout(Duration::from_millis(5));
            let (say, hear) = mpsc::channel();
            // It is the timer that notices it: nobody asks.
            drop(ctx.on_cancel(move || say.send(Instant::now()).unwrap()));
            let noticed = hear.recv_timeout(LIMIT).expect("it has passed");
            late.push(noticed.saturating_duration_since(ctx.deadline().unwrap()));
        }
    });
    late.sort();
    late[late.len() / 2]
}

#[test]
fn memory_follows_what_lives() {
    shrinks_after_a_peak();

    // More than pools have room for: one lot in each channel, and one on each side of it.
    takes_at_most(2 * 3 * 3000, "pushed hard", || {
        // In one of the attempts, as other programs may keep the processors busy.
        let mut late = Vec::new();
        let is_good = |_| {
            late.push(pushed_hard());
            late.last().unwrap() < &Duration::from_millis(50)
        };
        assert!((0..3).any(is_good), "{late:?}");
        println!("beside it deadlines are late by {late:?}");
    });
    let (server, _guard) = Context::background().with_cancel();

    takes_at_most(1, "one after the other", || {
        for _ in 0..500_000 {
            drop(server.with_timeout(LIMIT));
        }
    });
    takes_at_most(1, "below the background", || {
        for _ in 0..500_000 {
            drop(Context::background().with_timeout(LIMIT));
        }
    });
    takes_at_most(1, "of all lengths", || {
        for i in 0..500_000 {
            let limit = Duration::from_millis([1, 20, 1000, 30_000, 3_600_000][i % 5]);
            drop(server.with_timeout(limit));
        }
    });
    takes_at_most(20_000, "in waves", || {
        for _ in 0..20 {
            let wave: Vec<_> = (0..20_000).map(|_| server.with_timeout(LIMIT)).collect();
            drop(wave);
        }
    });
    takes_at_most(1000, "made here, dropped there", || {
        let (send, receive) = mpsc::sync_channel(1000);
        let other = thread::spawn(move || receive.iter().for_each(drop));
        for _ in 0..300_000 {
            send.send(server.with_timeout(LIMIT)).unwrap();
        }
        drop(send);
        other.join().unwrap();
    });
    takes_at_most(100, "on short-lived threads", || {
        for _ in 0..300 {
            thread::scope(|scope| {
                scope.spawn(|| {
                    let some: Vec<_> = (0..100).map(|_| server.with_timeout(LIMIT)).collect();
                    drop(some);
                });
            });
        }
    });
}
