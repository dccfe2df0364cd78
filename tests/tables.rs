//! The tables of the guide, row by row: what stands in the right column is there, and does what the left one does.

use cancel_tree::{
    CancellationToken, Cause, Context, ContextError, DoneSignal, ForeignContext, Group,
    IdleTimeout, StaticToken,
};
use std::any::{Any, TypeId};
use std::sync::{mpsc, Arc, Mutex};
use std::time::{Duration, Instant};

const MINUTE: Duration = Duration::from_secs(60);

fn now<F: std::future::Future>(future: F) -> F::Output {
    futures::executor::block_on(future)
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Refusal;

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("refused")
    }
}

impl std::error::Error for Refusal {}

#[test]
fn from_go_contexts() {
    // Background, TODO
    assert_eq!(Context::background().err(), None);
    assert!(!Context::todo().can_be_done());
    // WithCancel, defer cancel()
    let (ctx, guard) = Context::background().with_cancel();
    let canceller = guard.canceller();
    assert!(canceller.cancel());
    assert_eq!(ctx.check(), Err(ContextError::Cancelled));
    let (ctx, guard) = Context::background().with_cancel();
    guard.detach();
    assert!(!ctx.is_done());
    // WithCancelCause, Cause
    let (ctx, guard) = Context::background().with_cancel();
    assert!(guard.cancel_with(Cause::new(Refusal)));
    assert!(!guard.cancel_with("too late"));
    let cause = ctx.cause().unwrap();
    assert_eq!(cause.kind(), ContextError::Cancelled);
    // errors.Is, errors.As
    assert!(cause == ContextError::Cancelled);
    assert_eq!(cause.find::<Refusal>(), Some(&Refusal));
    // WithDeadline, WithTimeout and their causes; Deadline
    let root = Context::background();
    let (ctx, _guard) = root.with_deadline(Instant::now() + MINUTE);
    assert!(ctx.deadline().is_some() && ctx.remaining().is_some());
    let (ctx, _guard) = root.with_timeout(Duration::MAX);
    assert_eq!(ctx.deadline(), None);
    let (ctx, _guard) = root.with_deadline_cause(Instant::now(), Cause::new(Refusal));
    assert!(ctx.cause().unwrap() == ContextError::DeadlineExceeded);
    let (ctx, _guard) = root.with_timeout_cause(Duration::ZERO, "the search took too long");
    assert_eq!(ctx.cause().unwrap().to_string(), "the search took too long");
    // Done, as a task and as a thread
    now(ctx.done());
    assert!(now(ctx.run(std::future::pending::<()>())).is_err());
    assert_eq!(ctx.blocking_wait(), ContextError::DeadlineExceeded);
    assert!(now(ctx.sleep(MINUTE)).is_err());
    assert!(ctx.blocking_sleep(MINUTE).is_err());
    assert!(ctx.block_on(std::future::pending::<()>()).is_err());
    // WithValue, WithoutCancel
    let ctx = ctx.with_value(7_u8).without_cancel();
    assert_eq!((ctx.value(), ctx.err()), (Some(&7_u8), None));
    // Cleaning up
    let (ctx, guard) = root.with_cancel();
    let ctx = ctx.with_grace(MINUTE);
    let shield = ctx.shield();
    guard.cancel();
    assert!(ctx.is_done() && !shield.is_done() && shield.is_shielded());
    // Deadlines that move
    let (ctx, guard) = root.with_idle_timeout(MINUTE);
    guard.touch();
    assert!(!ctx.is_done());
    let (ctx, _guard) = root.with_idle_timeout(Duration::from_millis(1));
    ctx.blocking_wait();
    assert!(ctx.cause().unwrap().find::<IdleTimeout>().is_some());
    assert!(ctx.is_own_deadline());
    let (ctx, guard) = root.with_movable_deadline(Instant::now() + MINUTE);
    assert!(guard.extend(MINUTE) && ctx.remaining() > Some(MINUTE));
    // AfterFunc
    let (ctx, guard) = root.with_cancel();
    assert!(ctx.after_func(|| ()).stop());
    assert!(ctx.on_cancel(|| ()).stop_and_wait());
    assert!(now(ctx.on_cancel(|| ()).stop_async()));
    drop(ctx.after_func(|| ()).stop_on_drop());
    drop(ctx.after_func(|| ()).stop_and_wait_on_drop());
    let (say, hear) = mpsc::channel();
    drop(ctx.after_func(move || say.send(()).unwrap()));
    guard.cancel();
    hear.recv_timeout(MINUTE).unwrap();
    // Merging two
    let both = Context::any_of([&root, &ctx]);
    assert_eq!((both.is_done(), both.any_of_source()), (true, Some(1)));
    // String
    assert!(both.to_string().contains("any_of"));
}

/// A context of another kind: done when its owner says so.
#[derive(Clone, Default)]
struct Theirs {
    told: Arc<Mutex<Vec<DoneSignal>>>,
    user: &'static str,
}

impl ForeignContext for Theirs {
    fn on_done(&self, signal: DoneSignal) -> Box<dyn Any + Send> {
        self.told.lock().unwrap().push(signal);
        Box::new(())
    }

    fn value(&self, key: TypeId) -> Option<&(dyn Any + Send + Sync)> {
        (key == TypeId::of::<&str>()).then_some(&self.user)
    }
}

#[test]
fn from_go_interfaces() {
    // Implementing Context
    let theirs = Theirs {
        user: "ada",
        ..Theirs::default()
    };
    let (ctx, _guard) = Context::below(theirs.clone()).with_cancel();
    assert_eq!((ctx.value(), ctx.err()), (Some(&"ada"), None));
    for signal in theirs.told.lock().unwrap().drain(..) {
        assert!(signal.cancel_with(Cause::new(Refusal)));
    }
    assert_eq!(ctx.cause().unwrap().find::<Refusal>(), Some(&Refusal));
}

/// A goroutine that selects on a channel and `ctx.Done()`
#[cfg(feature = "crossbeam-channel")]
#[test]
fn from_go_select() {
    use crossbeam_channel::{never, select};
    let (ctx, guard) = Context::background().with_cancel();
    let done = ctx.done_receiver();
    guard.cancel();
    select! {
        recv(never::<()>()) -> _ => unreachable!("nobody sends"),
        recv(done.receiver()) -> end => assert!(end.is_err()),
    }
}

/// `SetReadDeadline` in `AfterFunc`
#[cfg(all(unix, feature = "fd"))]
#[test]
fn from_go_read_deadlines() {
    use std::os::fd::{AsFd, AsRawFd};
    let (ctx, guard) = Context::background().with_cancel();
    let done = ctx.done_fd().unwrap();
    let (read, _write) = std::os::unix::net::UnixStream::pair().unwrap();
    let readable = || {
        let mut both = [read.as_raw_fd(), done.as_fd().as_raw_fd()].map(|fd| libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        });
        // SAFETY: two entries, as is said.
        let ready = unsafe { libc::poll(both.as_mut_ptr(), 2, 0) };
        (ready, both[1].revents == libc::POLLIN)
    };
    assert_eq!(readable(), (0, false));
    guard.cancel();
    assert_eq!(readable(), (1, true));
}

/// `exec.CommandContext`, `cmd.Cancel`, `cmd.WaitDelay`
#[cfg(all(unix, feature = "process"))]
#[test]
fn from_go_exec() {
    use cancel_tree::integrations::process::Supervised;
    let run = |program, args: &[&str]| {
        let mut command = std::process::Command::new(program);
        command.args(args);
        Supervised::new(command)
    };
    let root = Context::background();
    assert!(run("true", &[]).blocking_run(&root).unwrap().success());
    // One that nobody ignores: SIGINT is ignored by what a script has started in the background.
    let told = run("sleep", &["3600"]).signal(libc::SIGUSR1).grace(MINUTE);
    let (ctx, guard) = root.with_cancel();
    let running = told.pipe_delay(MINUTE).spawn(&ctx).unwrap();
    guard.cancel_with("took too long");
    let ended = running.blocking_wait().unwrap();
    assert_eq!(ended.stopped.unwrap().to_string(), "took too long");
    assert!(!ended.killed);
}

/// `signal.NotifyContext`
#[cfg(all(unix, feature = "signals"))]
#[test]
fn from_go_signals() {
    use cancel_tree::integrations::signals::{Signal, Signals};
    let signals = Signals::new().install(&Context::background()).unwrap();
    let ctx = signals.context().clone();
    assert!(!ctx.is_done());
    // SAFETY: no memory is passed, and there is a handler.
    assert_eq!(unsafe { libc::raise(libc::SIGTERM) }, 0);
    assert!(ctx.blocking_wait_timeout(MINUTE).is_some());
    assert_eq!(ctx.cause().unwrap().find(), Some(&Signal::TERM));
    assert!(!signals.forced().is_done());
}

#[test]
fn from_go_groups() {
    let (limit, _guard) = Context::background().with_timeout(MINUTE);
    // errgroup
    let group = Group::new(&limit);
    group
        .spawn_thread(|ctx| ctx.blocking_sleep(MINUTE))
        .unwrap();
    group
        .spawn_thread(|_ctx| Err::<(), _>("the first"))
        .unwrap();
    assert_eq!(group.join_blocking().unwrap_err().to_string(), "the first");
    // SetLimit, TryGo
    let group = Group::new(&limit).limit(1);
    let member = group.enter().unwrap();
    assert!(group.spawn_thread(|_ctx| ()).unwrap_err().is_full());
    group.set_limit(2);
    let second = group.enter_when_blocking(&limit).unwrap();
    // WaitGroup
    drop((member, second));
    now(group.wait_idle());
    assert_eq!(
        (group.len(), group.is_closed(), group.running().len()),
        (0, false, 0)
    );
    // Shutdown(ctx)
    assert!(group.shutdown_blocking(&limit).is_clean());
    assert!(group.enter().is_err());
}

#[test]
fn from_task_tracker() {
    let (limit, _guard) = Context::background().with_timeout(MINUTE);
    let group = Group::new(&limit);
    let tracked = group.track(async {}).unwrap();
    let with = group.track_with(|ctx| async move { ctx.check() }).unwrap();
    assert_eq!(group.len(), 2);
    now(async {
        tracked.await;
        with.await;
        group.wait_idle().await;
        group.join_until(&limit).await.unwrap().unwrap();
        group.join().await.unwrap();
        assert!(group.shutdown(&limit).await.is_clean());
    });
    // JoinSet
    let group = Group::new(&limit);
    let mut outcomes = group.outcomes::<u8>();
    outcomes.spawn_thread(|_ctx| Ok::<_, Cause>(1)).unwrap();
    assert_eq!(now(outcomes.next()).unwrap().unwrap(), 1);
    assert!(now(outcomes.next()).is_none());
}

/// `tracker.spawn`, `JoinSet::spawn`, on tokio
#[cfg(feature = "tokio")]
#[tokio::test]
async fn from_task_tracker_on_tokio() {
    let (limit, _guard) = Context::background().with_timeout(MINUTE);
    let group = Group::new(&limit).limit(2);
    let gone = |ctx: Context| async move { _ = ctx.done().await };
    group.spawn(gone).unwrap();
    group.spawn_blocking(|ctx| _ = ctx.blocking_wait()).unwrap();
    let refused = group.try_spawn(|_ctx| async {}).unwrap_err();
    assert!(refused.is_full());
    group.set_limit(3);
    let third = group.spawn_when(&limit, |_ctx| async {}).await;
    assert!(third.is_ok());
    group.cancel();
    let report = group.shutdown(&limit).await;
    // The one that blocks a thread may have ended before it was counted.
    assert!(
        (2..=3).contains(&(report.done + report.cancelled)) && report.stuck.is_empty(),
        "{report}"
    );
    assert!(group.spawn(|_ctx| async {}).is_err());
    // JoinSet
    let group = Group::new(&limit);
    let mut outcomes = group.outcomes::<u8>();
    outcomes.spawn(|_ctx| async { Ok::<_, Cause>(1) }).unwrap();
    assert_eq!(outcomes.next().await.unwrap().unwrap(), 1);
}

#[test]
fn from_others() {
    // std::stop_source, CancellationTokenSource
    let source = CancellationToken::new();
    let only_told = Context::background().child_token();
    assert!(!only_told.is_cancelled());
    // CreateLinkedTokenSource
    let linked = CancellationToken::any_of([&source, &only_told]);
    // std::stop_callback, Register
    let callback = source.on_cancel(|| ()).stop_and_wait_on_drop();
    drop(callback);
    // CancelAfter, TryReset
    let (_ctx, guard) = Context::background().with_movable_deadline(None);
    assert!(guard.set_timeout(MINUTE) && guard.take_away());
    source.cancel();
    assert_eq!(linked.any_of_source(), Some(0));
    // ThrowIfCancellationRequested, ensureActive
    let ctx = source.context();
    assert_eq!(ctx.check(), Err(ContextError::Cancelled));
    assert!(ctx.check_cause().is_err());
    // Job, SupervisorJob, coroutineScope, nursery
    let group = Group::new(&Context::background());
    let child = group.child("db").keep_going();
    child.spawn_thread(|_ctx| Err::<(), _>("kept")).unwrap();
    assert!(child.join_blocking().is_err());
    group.join_blocking().unwrap();
    let sum = Group::scope(&Context::background(), |scope| {
        scope.spawn_thread(|_ctx| ()).unwrap();
        1
    });
    assert_eq!(sum.unwrap(), 1);
    // one for the program
    static STOP: StaticToken = StaticToken::new();
    assert!(!STOP.token().is_cancelled());
}
