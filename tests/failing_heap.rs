//! An allocator that fails: the process ends with Rust's message, "memory allocation of … bytes failed", or
//! goes on and is right. Nothing in between: no crash, no hang, no wrong answer.
//!
//! On stable a failed allocation ends the process (`handle_alloc_error`), so what is left behind does not matter
//! then; what does is that no null is used, and that whatever goes on without what it asked for (a thread that
//! cannot be started) is right. The workload is run by this program again, in a process for each
//! allocation that fails.

use cancel_tree::{
    CancellationToken, Cause, Context, ContextError, DoneSignal, ForeignContext, FutureExt,
};
use futures::executor::block_on;
use std::alloc::{GlobalAlloc, Layout, System};
use std::any::Any;
use std::cell::Cell;
use std::env;
use std::future::Future;
use std::io::Read;
use std::pin::pin;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{mpsc, Arc, Mutex};
use std::task::{Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

const MS: Duration = Duration::from_millis(1);
const FAR: Duration = Duration::from_secs(3600);
const PATIENCE: Duration = Duration::from_secs(60);

struct Failing;

/// Allocations are counted, and fail, on the threads that the plan says.
static EVERYWHERE: AtomicBool = AtomicBool::new(false);
static COUNT: AtomicUsize = AtomicUsize::new(0);
/// From which on they fail, and from which on they do not any more.
static FIRST: AtomicUsize = AtomicUsize::new(usize::MAX);
static LAST: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static HERE: Cell<bool> = const { Cell::new(false) };
    /// This thread gets nothing, whatever the plan.
    static NOTHING_HERE: Cell<bool> = const { Cell::new(false) };
}

// SAFETY: hands on to the system's allocator, or says that there is no memory.
unsafe impl GlobalAlloc for Failing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if NOTHING_HERE.get() {
            return ptr::null_mut();
        }
        if EVERYWHERE.load(SeqCst) || HERE.get() {
            let n = COUNT.fetch_add(1, SeqCst);
            if n >= FIRST.load(SeqCst) && n <= LAST.load(SeqCst) {
                return ptr::null_mut();
            }
        }
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(memory, layout) };
    }
}

#[global_allocator]
static ALLOCATOR: Failing = Failing;

const PLAN: &str = "CANCEL_TREE_FAILING_HEAP";
const RIGHT: &str = "the workload was right";

/// What the child does: nothing fails without a plan.
#[test]
fn workload() {
    let plan = env::var(PLAN).unwrap_or_default();
    let mut words = plan.split(' ');
    let everywhere = words.next() == Some("everywhere");
    let mut number = |default| words.next().map_or(default, |n| n.parse().unwrap());
    let (first, last) = (number(usize::MAX), number(0));
    FIRST.store(first, SeqCst);
    LAST.store(last, SeqCst);
    EVERYWHERE.store(everywhere, SeqCst);
    HERE.set(true);

    tokens();
    waiters_and_callbacks();
    contexts();
    foreign_parents();
    threads();

    HERE.set(false);
    EVERYWHERE.store(false, SeqCst);
    println!("{RIGHT}: {}", COUNT.load(SeqCst));
}

fn tokens() {
    let root = CancellationToken::new();
    let other = CancellationToken::new();
    let mut tokens = vec![root.clone()];
    for i in 0..100 {
        let token = match i % 10 {
            0 => CancellationToken::any_of([&tokens[i], &other, &root]),
            _ => tokens[i / 2].child_token(),
        };
        drop(token.child_token());
        tokens.push(token);
    }
    assert!(tokens[40].cancel_with(String::from("forty")));
    assert_eq!(
        tokens[40].child_token().cause().unwrap().to_string(),
        "forty"
    );
    for i in (60..90).rev() {
        drop(tokens.remove(i));
    }
    assert!(!root.is_cancelled() && !other.is_cancelled());
    root.cancel_with(Cause::new(std::io::Error::other("root")));
    assert!(tokens.iter().all(CancellationToken::is_cancelled));
    assert_eq!(tokens[1].cause().unwrap().to_string(), "root");
}

fn waiters_and_callbacks() {
    let root = CancellationToken::new();
    let ran = Arc::new(AtomicUsize::new(0));
    let mut futures = Vec::new();
    for i in 0..20 {
        let token = root.child_token();
        let counting = ran.clone();
        let registration = token.on_cancel(move || {
            counting.fetch_add(1, SeqCst);
        });
        match i % 4 {
            0 => assert!(registration.stop()),
            1 => assert!(block_on(registration.stop_async())),
            2 => drop(registration.stop_on_drop()),
            _ => drop(registration),
        }
        for _ in 0..2 {
            let mut future = Box::pin(token.clone().cancelled_owned());
            let mut cx = std::task::Context::from_waker(Waker::noop());
            assert!(future.as_mut().poll(&mut cx).is_pending());
            futures.push(future);
        }
        assert!(!token.blocking_wait_timeout(Duration::from_nanos(1)));
    }
    root.cancel();
    assert_eq!(ran.load(SeqCst), 5);
    futures.into_iter().for_each(block_on);
    assert_eq!(block_on(async { 5 }.with_cancellation_token(&root)), None);
}

#[derive(Debug, PartialEq)]
struct Id(usize);

fn contexts() {
    let (root, guard) = Context::background().with_cancel();
    let mut ctx = root.with_value(Id(0)).with_value("text");
    let mut guards = Vec::new();
    for i in 1..20 {
        let (below, guard) = ctx.with_timeout_cause(FAR, format!("late {i}"));
        guards.push(guard);
        ctx = below.with_value(Id(i));
        assert_eq!(ctx.value(), Some(&Id(i)));
        assert_eq!(ctx.value(), Some(&"text"));
    }
    assert!(ctx.to_string().contains("with_value"));
    let (say, hear) = mpsc::channel();
    let both = Context::any_of([&ctx, &Context::background().with_timeout(FAR).0]);
    drop(ctx.after_func(move || say.send("after").unwrap()));

    // A deadline that passes: for a thread that waits, and for one who does not look.
    let (short, _short_guard) = ctx.with_timeout_cause(MS, "short");
    let (tell, told) = mpsc::channel();
    drop(short.on_cancel(move || tell.send("told").unwrap()));
    assert_eq!(short.blocking_wait(), ContextError::DeadlineExceeded);
    assert_eq!(short.cause().unwrap().to_string(), "short");
    assert_eq!(told.recv_timeout(PATIENCE), Ok("told"));
    let _ = block_on(ctx.sleep(MS));
    assert_eq!(ctx.err(), None);

    guard.cancel_with("enough");
    assert!(both.is_done());
    assert_eq!(ctx.cause().unwrap().to_string(), "enough");
    assert_eq!(hear.recv_timeout(PATIENCE), Ok("after"));
}

fn foreign_parents() {
    #[derive(Clone, Default)]
    struct Foreign(Arc<Mutex<Vec<DoneSignal>>>);
    impl ForeignContext for Foreign {
        fn on_done(&self, signal: DoneSignal) -> Box<dyn Any + Send> {
            self.0.lock().unwrap().push(signal);
            Box::new(())
        }
    }
    struct Ready;
    impl ForeignContext for Ready {
        fn on_done(&self, signal: DoneSignal) -> Box<dyn Any + Send> {
            signal.when_ready(async { "ready" })
        }
    }
    let foreign = Foreign::default();
    let ctx = Context::below(foreign.clone());
    let child = ctx.child_token();
    assert!(!child.is_cancelled());
    for signal in foreign.0.lock().unwrap().drain(..) {
        assert!(signal.cancel_with("foreign"));
    }
    assert_eq!(child.cause().unwrap().to_string(), "foreign");
    let ctx = Context::below(Ready);
    assert_eq!(ctx.cause().unwrap().to_string(), "ready");
}

fn threads() {
    let token = CancellationToken::new();
    let (started, has_started) = mpsc::channel();
    let (go, may_go) = mpsc::channel::<()>();
    let registration = token.on_cancel(move || {
        started.send(()).unwrap();
        may_go.recv().unwrap();
    });
    let waiting = token.child_token();
    // A thread that cannot be started is an error here, and no more.
    let spawn = |f: Box<dyn FnOnce() + Send>| thread::Builder::new().spawn(f);
    let canceller = token.clone();
    let Ok(waiter) = spawn(Box::new(move || waiting.blocking_wait())) else {
        return;
    };
    let canceller = spawn(Box::new(move || canceller.cancel()));
    if let Ok(canceller) = canceller {
        has_started.recv_timeout(PATIENCE).unwrap();
        let mut stopping = pin!(registration.stop_async());
        let mut cx = std::task::Context::from_waker(Waker::noop());
        assert!(stopping.as_mut().poll(&mut cx).is_pending());
        go.send(()).unwrap();
        assert!(!block_on(stopping));
        canceller.join().unwrap();
    } else {
        let _ = registration.stop();
        token.cancel();
    }
    waiter.join().unwrap();
}

/// The workload with a plan, in a process of its own: how it ended, and what it said.
fn run(plan: &str) -> (ExitStatus, String, String) {
    let mut child: Child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "workload", "--nocapture", "--test-threads=1"])
        .env(PLAN, plan)
        .env("RUST_BACKTRACE", "0")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Both fit into a pipe.
    let limit = Instant::now() + 2 * PATIENCE;
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None if Instant::now() < limit => thread::sleep(MS),
            None => {
                child.kill().unwrap();
                panic!("plan {plan}: it hangs");
            }
        }
    };
    let (mut out, mut err) = (String::new(), String::new());
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut out)
        .unwrap();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut err)
        .unwrap();
    (status, out, err)
}

fn was_aborted(status: ExitStatus) -> bool {
    #[cfg(unix)]
    return std::os::unix::process::ExitStatusExt::signal(&status) == Some(6);
    #[cfg(not(unix))]
    return !status.success();
}

/// Every allocation of the workload fails once, alone or with all that follow.
fn each_fails(where_: &str, all_that_follow: bool) {
    let (status, out, err) = run(&format!("{where_} {} 0", usize::MAX));
    assert!(status.success(), "nothing fails: {out}{err}");
    let (_, rest) = out.split_once(RIGHT).expect("it says that it was right");
    let number = rest.trim_start_matches(": ").lines().next();
    let allocations: usize = number.unwrap_or_default().parse().unwrap();
    assert!(allocations > 300, "{allocations} allocations");

    // Where the end of a process is slow, some of them.
    let step = if cfg!(target_os = "linux") { 1 } else { 23 };
    let (mut right, mut ended) = (0, 0);
    for first in (0..allocations).step_by(step) {
        let last = if all_that_follow { usize::MAX } else { first };
        let plan = format!("{where_} {first} {last}");
        let (status, out, err) = run(&plan);
        if status.success() {
            assert!(out.contains(RIGHT), "plan {plan}: {out}{err}");
            right += 1;
        } else {
            assert!(
                was_aborted(status) && err.contains("memory allocation of "),
                "plan {plan}: {status}\n{out}{err}"
            );
            ended += 1;
        }
    }
    println!("{where_}: of {allocations} allocations, {ended} ended the process, {right} did not");
    assert!(ended > 0);
}

#[test]
#[cfg_attr(miri, ignore)]
fn one_allocation_fails() {
    each_fails("here", false);
}

#[test]
#[cfg_attr(miri, ignore)]
fn one_allocation_of_any_thread_fails() {
    each_fails("everywhere", false);
}

#[test]
#[cfg_attr(miri, ignore)]
fn from_one_allocation_on_all_fail() {
    each_fails("everywhere", true);
}

/// Two cancels come to an `any_of` token at the same time, and the second has no memory to note which it has met: it helps
/// the first instead, and wakes nobody who is not cancelled yet.
#[test]
#[cfg_attr(miri, ignore)]
fn a_cancel_without_memory_beside_another() {
    const CHILDREN: usize = 100_000;
    struct Woken {
        token: CancellationToken,
        early: Arc<AtomicUsize>,
    }
    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            let is_early = !self.token.is_cancelled();
            self.early.fetch_add(is_early.into(), SeqCst);
        }
    }
    let early = Arc::new(AtomicUsize::new(0));
    let mut overlapped = 0;
    let mut round = 0;
    // In half of the rounds both are under way at once, also on one processor: were it in none, nothing would be shown.
    while round < 40 || (overlapped == 0 && round < 400) {
        let sources = [(); 2].map(|()| CancellationToken::new());
        let target = CancellationToken::any_of(&sources);
        // The target is below one of its sources: so the second is led to it by an edge, or finds it on its way.
        let first = sources[round % 2].clone();
        let second = sources[1 - round % 2].clone();
        let children: Vec<_> = (0..CHILDREN).map(|_| target.child_token()).collect();
        let mut waiting = Vec::new();
        for token in children.iter().step_by(50) {
            let waker = Waker::from(Arc::new(Woken {
                token: token.clone(),
                early: early.clone(),
            }));
            let mut future = Box::pin(token.clone().cancelled_owned());
            let mut cx = std::task::Context::from_waker(&waker);
            assert!(future.as_mut().poll(&mut cx).is_pending());
            waiting.push(future);
            let (callback, early) = (token.child_token(), early.clone());
            drop(token.on_cancel(move || {
                early.fetch_add((!callback.is_cancelled()).into(), SeqCst);
            }));
        }
        thread::scope(|scope| {
            scope.spawn(|| first.cancel());
            while !target.is_cancelled() {
                std::hint::spin_loop();
            }
            overlapped += usize::from(!children.iter().all(CancellationToken::is_cancelled));
            NOTHING_HERE.set(true);
            second.cancel();
            NOTHING_HERE.set(false);
        });
        assert!(children.iter().all(CancellationToken::is_cancelled));
        waiting.into_iter().for_each(block_on);
        assert_eq!(early.load(SeqCst), 0, "round {round}");
        round += 1;
    }
    println!("{overlapped} of {round} overlapped");
    assert!(overlapped > 0, "they have never met");
}
