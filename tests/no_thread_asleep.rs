//! A thread that sleeps already when the timer's thread is needed for the first time, and cannot be started. Each play is a process of its
//! own, for the thread stays: one that takes its address space away for a while.
#![cfg(all(target_os = "linux", target_pointer_width = "64"))]

mod address_space;
mod own_threads;

use address_space::Limited;
#[cfg(feature = "process")]
use cancel_tree::integrations::process::Supervised;
use cancel_tree::{Context, ContextError, DoneSignal, ForeignContext, Group};
use futures::task::AtomicWaker;
use std::any::Any;
use std::future::{pending, poll_fn, Future};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{mpsc, Arc};
use std::task::Poll;
use std::thread;
use std::time::Duration;

const SOON: Duration = Duration::from_millis(200);
/// By then a thread sleeps that was told to.
const ASLEEP: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(10);
const PASSED: ContextError = ContextError::DeadlineExceeded;

type Wait = Box<dyn FnOnce() + Send>;
type Deed = Box<dyn FnOnce()>;

/// What a thread sleeps in, and what needs the timer's thread then, and ends that.
type Play = fn() -> (Wait, Deed);

fn movable(wait: fn(&Context)) -> (Wait, Deed) {
    movable_above(Context::clone, wait)
}

fn movable_above(below: fn(&Context) -> Context, wait: fn(&Context)) -> (Wait, Deed) {
    let (ctx, guard) = Context::background().with_movable_deadline(None);
    let ctx = below(&ctx);
    (
        Box::new(move || wait(&ctx)),
        Box::new(move || {
            assert!(guard.set_timeout(SOON));
            // It stays.
            std::mem::forget(guard);
        }),
    )
}

#[derive(Clone, Default)]
struct Event(Arc<(AtomicBool, AtomicWaker)>);

impl Event {
    fn set(&self) {
        self.0 .0.store(true, SeqCst);
        self.0 .1.wake();
    }

    fn heard(&self) -> impl Future<Output = ()> + Send + 'static {
        let event = self.clone();
        poll_fn(move |cx| {
            event.0 .1.register(cx.waker());
            match event.0 .0.load(SeqCst) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
    }
}

impl ForeignContext for Event {
    fn on_done(&self, signal: DoneSignal) -> Box<dyn Any + Send> {
        signal.when_woken(self.heard())
    }
}

const PLAYS: &[(&str, Play)] = &[
    ("a movable deadline, context", || {
        movable(|ctx| assert_eq!(ctx.blocking_wait(), PASSED))
    }),
    ("a movable deadline, token below", || {
        movable(|ctx| ctx.child_token().blocking_wait())
    }),
    ("a movable deadline, future", || {
        movable(|ctx| assert_eq!(ctx.block_on(pending::<()>()), Err(PASSED)))
    }),
    ("a movable deadline, one of several above", || {
        let below = |ctx: &Context| {
            let (other, guard) = Context::background().with_cancel();
            guard.detach();
            Context::any_of([&other, ctx])
        };
        movable_above(below, |ctx| assert_eq!(ctx.blocking_wait(), PASSED))
    }),
    ("a movable deadline, the limit of a group's end", || {
        movable(|limit| {
            let group = Group::new(&Context::background());
            let _member = group.enter();
            let report = group.shutdown_blocking(limit);
            assert_eq!(report.stuck.len(), 1);
        })
    }),
    ("a movable deadline, room in a group", || {
        movable(|ctx| {
            let group = Group::new(&Context::background()).limit(1);
            let _member = group.enter();
            assert!(group.enter_when_blocking(ctx).is_err());
        })
    }),
    ("a movable deadline, above a group", || {
        movable(|ctx| {
            let group = Group::new(ctx);
            let task = group.enter().unwrap();
            drop(group.context().on_cancel(move || drop(task)));
            let _ = group.join_blocking();
        })
    }),
    ("a movable deadline, above a group, its outcomes", || {
        movable(|ctx| {
            let group = Group::new(ctx);
            let mut outcomes = group.outcomes::<()>();
            let task = Box::pin(
                outcomes
                    .track(pending::<Result<(), ContextError>>())
                    .unwrap(),
            );
            let task = std::sync::Mutex::new(Some(Box::pin(task)));
            drop(
                group
                    .context()
                    .on_cancel(move || drop(task.lock().unwrap().take())),
            );
            assert!(outcomes.next_blocking().unwrap().is_err());
        })
    }),
    #[cfg(feature = "process")]
    ("a movable deadline, a child process", || {
        let (ctx, guard) = Context::background().with_movable_deadline(None);
        use std::process::Stdio;
        let mut command = Command::new("sleep");
        command
            .arg("60")
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = Supervised::new(command).spawn(&ctx).unwrap();
        (
            Box::new(move || assert!(child.blocking_wait().unwrap().stopped.is_some())),
            Box::new(move || {
                assert!(guard.set_timeout(SOON));
                std::mem::forget(guard);
            }),
        )
    }),
    (
        "what the thread itself begins when it has been woken",
        || {
            let event = Event::default();
            let is_set = event.clone();
            (
                Box::new(move || {
                    let ctx = Context::background();
                    let waits = async {
                        is_set.heard().await;
                        ctx.sleep(SOON).await
                    };
                    assert_eq!(ctx.block_on(waits), Ok(Ok(())));
                }),
                Box::new(move || event.set()),
            )
        },
    ),
    ("a grace", || {
        let (server, shutdown) = Context::background().with_cancel();
        let shield = server.with_grace(SOON).shield();
        (
            Box::new(move || assert_eq!(shield.blocking_wait(), PASSED)),
            Box::new(move || drop(shutdown)),
        )
    }),
    ("a foreign parent, token below", || {
        let event = Event::default();
        let token = Context::below(event.clone()).child_token();
        (
            Box::new(move || token.blocking_wait()),
            Box::new(move || event.set()),
        )
    }),
];

/// Whether threads are to be had when the sleep begins.
#[derive(Clone, Copy, Debug)]
enum AtFirst {
    Yes,
    No,
}

fn play(play: Play, at_first: AtFirst) {
    let (wait, deed) = play();
    let (go, may_go) = mpsc::channel();
    let (say, over) = mpsc::channel();
    let waiter = thread::spawn(move || {
        say.send(()).unwrap();
        may_go.recv().unwrap();
        wait();
        say.send(()).unwrap();
    });
    // A thread that is about to begin needs memory.
    over.recv().unwrap();
    // Room for what is small; none for a thread's stack.
    let limited = || Limited::to(256 << 10);
    let from_the_first = matches!(at_first, AtFirst::No).then(limited);
    go.send(()).unwrap();
    thread::sleep(ASLEEP);
    let limited = from_the_first.unwrap_or_else(limited);
    deed();
    thread::sleep(ASLEEP / 2);
    let threads = own_threads::names().len();
    drop(limited);
    if matches!(at_first, AtFirst::No) {
        assert_eq!(threads, 0, "a thread was to be had");
    }
    over.recv_timeout(PATIENCE).expect("it sleeps on");
    waiter.join().unwrap();
}

/// How often a thread has gone to sleep.
fn sleeps_of(thread: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/self/task/{thread}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.unwrap().trim().parse().unwrap()
}

/// Nothing that is above needs the timer: no thread is started, and the sleep is one.
fn play_without() {
    let (ctx, guard) = Context::background().with_cancel();
    let (say, hear) = mpsc::channel();
    let waiter = thread::spawn(move || {
        let own = std::fs::read_link("/proc/thread-self").unwrap();
        say.send(own.file_name().unwrap().to_owned()).unwrap();
        ctx.child_token().blocking_wait();
    });
    let thread = hear.recv().unwrap().into_string().unwrap();
    thread::sleep(ASLEEP);
    let before = sleeps_of(&thread);
    thread::sleep(SOON);
    assert_eq!(sleeps_of(&thread), before);
    assert_eq!(own_threads::names().len(), 0);
    guard.cancel();
    waiter.join().unwrap();
}

#[test]
fn a_thread_that_sleeps_already_is_woken_once_the_timers_can_be_had() {
    const WHICH: &str = "CANCEL_TREE_PLAY";
    let number = |(i, at_first)| 2 * i + at_first as usize;
    let all = (0..PLAYS.len()).flat_map(|i| [(i, AtFirst::Yes), (i, AtFirst::No)]);
    if let Ok(which) = std::env::var(WHICH) {
        let which: usize = which.parse().unwrap();
        return match all.clone().find(|&one| number(one) == which) {
            Some((i, at_first)) => play(PLAYS[i].1, at_first),
            None => play_without(),
        };
    }
    let mut failed = Vec::new();
    let mut run = |which: usize, name: String| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let output = command
            .arg("--nocapture")
            .env(WHICH, which.to_string())
            .output();
        let output = output.unwrap();
        if !output.status.success() {
            println!("{name}: {}", String::from_utf8_lossy(&output.stderr));
            failed.push(name);
        }
    };
    for one in all.clone() {
        let (i, at_first) = one;
        run(
            number(one),
            format!("{}, threads at first: {at_first:?}", PLAYS[i].0),
        );
    }
    run(2 * PLAYS.len(), "no timer".into());
    assert!(failed.is_empty(), "{failed:#?}");
}
