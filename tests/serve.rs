//! A server's end without any server: futures that behave as they do. The real ones are in tests/processes.
#![cfg(any(unix, windows))]

use cancel_tree::integrations::serve::{
    Phase, Serve, Server, ServerFuture, ServerHandle, ServerReport, Shutdown,
};
use cancel_tree::integrations::signals::Signal;
use cancel_tree::{Cause, Context, ContextError, Group, Panicked};
use futures::executor::block_on;
use std::future::{pending, poll_fn, Future};
use std::io;
use std::pin::pin;
use std::sync::{mpsc, Arc, Mutex};
use std::task::{self, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(3600);
const SOON: Duration = Duration::from_secs(30);

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Without any wait that a test did not ask for.
fn serve() -> Serve {
    Serve::new(&Context::background())
        .lame_duck(Duration::ZERO)
        .graceful(LONG)
        .cancelled(LONG)
        .dropped(LONG)
}

/// For those that do not stop: as long as the others may take on a busy machine to be counted, in one of the attempts.
fn beside_others(attempt: impl Fn(Duration) -> Option<()>) {
    (0..5)
        .find_map(|n| attempt(millis(1500 << n)))
        .expect("those that stop are counted");
}

fn phases(report: &ServerReport) -> Vec<Phase> {
    report.phases.iter().map(|(phase, _)| *phase).collect()
}

/// A server that ends when it is told.
fn polite(server: &Server) -> impl Future<Output = io::Result<()>> + use<> {
    let graceful = server.graceful();
    async {
        graceful.await;
        Ok(())
    }
}

/// Runs it on a thread of its own.
fn run<F>(server: Server, future: F) -> thread::JoinHandle<ServerReport>
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    thread::spawn(move || block_on(server.run(future)))
}

fn until(handle: &ServerHandle, phase: Phase) {
    let begin = Instant::now();
    while handle.phase() < phase {
        assert!(begin.elapsed() < SOON, "{handle:?} instead of {phase}");
        thread::sleep(millis(1));
    }
}

#[test]
fn all_well() {
    let server = serve().lame_duck(millis(20)).start().unwrap();
    let handle = server.handle();
    assert!(!handle.is_ready());
    let future = polite(&server);
    let running = run(server, future);
    until(&handle, Phase::Serving);
    assert!(handle.is_ready() && !handle.closing().is_done());
    let member = handle.requests().enter().unwrap();
    assert!(handle.end(Signal::TERM));
    until(&handle, Phase::LameDuck);
    assert!(!handle.is_ready());
    // Served are all who come, also now.
    until(&handle, Phase::Graceful);
    let late = handle.requests().enter().unwrap();
    assert!(handle
        .closing()
        .cause()
        .is_none_or(|cause| cause.find() == Some(&Signal::TERM)));
    drop((member, late));
    let report = running.join().unwrap();
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.exit_code(), 0);
    assert_eq!(phases(&report), [Phase::LameDuck, Phase::Graceful]);
    assert!(report.phases[0].1 >= millis(20), "{report}");
    assert_eq!(report.cause.find(), Some(&Signal::TERM));
    assert!(
        report.to_string().starts_with("SIGTERM: ended in "),
        "{report}"
    );
    assert!(handle.closing().is_done());
    assert!(handle.requests().enter().is_err());
}

#[test]
fn an_interrupt_skips_the_lame_duck() {
    let server = serve().lame_duck(LONG).start().unwrap();
    let handle = server.handle();
    let future = polite(&server);
    let running = run(server, future);
    handle.end(Signal::INT);
    assert_eq!(phases(&running.join().unwrap()), [Phase::Graceful]);
}

#[test]
fn who_does_not_stop_is_named() {
    beside_others(stuck_beside_others);
}

fn stuck_beside_others(others: Duration) -> Option<()> {
    let serve = serve().graceful(millis(20));
    let server = serve.cancelled(others).dropped(millis(20)).start().unwrap();
    let handle = server.handle();
    let future = polite(&server);
    let (say, hear) = mpsc::channel::<()>();
    let requests = handle.requests();
    requests
        .named("polite")
        .spawn_thread(|ctx| _ = ctx.blocking_wait())
        .unwrap();
    requests
        .named("stubborn")
        .spawn_thread(move |_| _ = hear.recv())
        .unwrap();
    let shutdown = requests.context().clone();
    let running = run(server, future);
    handle.end(Signal::TERM);
    let report = running.join().unwrap();
    assert!(shutdown.cause().unwrap().find::<Shutdown>().is_some());
    let stuck = &report.tasks.stuck;
    if stuck.len() == 2 {
        return None;
    }
    assert_eq!(stuck.len(), 1, "{report}");
    assert_eq!(stuck[0].name.as_deref(), Some("stubborn"));
    assert_eq!(report.tasks.cancelled, 1, "{report}");
    assert_eq!(report.exit_code(), 143);
    assert_eq!(
        phases(&report),
        [Phase::Graceful, Phase::Cancelled, Phase::Dropped]
    );
    assert!(report.to_string().contains("stuck: stubborn"), "{report}");
    drop(say);
    Some(())
}

#[test]
fn a_server_that_goes_on_is_dropped() {
    struct Dropped(mpsc::Sender<()>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            let _ = self.0.send(());
            panic!("a future that panics when it is dropped");
        }
    }
    let serve = serve().graceful(millis(20)).cancelled(millis(20));
    let server = serve.start().unwrap();
    let handle = server.handle();
    let (say, hear) = mpsc::channel();
    let (dropped, member) = (Dropped(say), handle.requests().enter().unwrap());
    let running = run(server, async move {
        let _both = (dropped, member);
        pending().await
    });
    handle.end("enough");
    let report = running.join().unwrap();
    hear.try_recv().unwrap();
    assert!(matches!(report.server, ServerFuture::Dropped), "{report}");
    // What it held has gone with it.
    assert!(report.tasks.stuck.is_empty(), "{report}");
    assert_eq!(report.exit_code(), 1);
}

#[test]
fn force_skips_to_the_cancel() {
    for in_lame_duck in [true, false] {
        let lame_duck = if in_lame_duck { LONG } else { Duration::ZERO };
        let (forced, force) = Context::background().with_cancel();
        let serve = serve().lame_duck(lame_duck).force_with(&forced);
        let server = serve.start().unwrap();
        let handle = server.handle();
        handle
            .requests()
            .spawn_thread(|ctx| _ = ctx.blocking_wait())
            .unwrap();
        let future = polite(&server);
        let running = run(server, future);
        handle.end(Signal::TERM);
        until(&handle, Phase::LameDuck);
        force.cancel_with(Signal::TERM);
        let report = running.join().unwrap();
        assert!(report
            .phases
            .iter()
            .any(|(phase, _)| *phase == Phase::Cancelled));
        assert_eq!(report.tasks.cancelled, 1, "{report}");
        assert_eq!(report.exit_code(), 0);
    }
}

#[test]
fn force_without_an_end_is_an_end() {
    let serve = serve().lame_duck(LONG).cancelled(millis(20));
    let server = serve.start().unwrap();
    let handle = server.handle();
    handle.force(Signal::TERM);
    // Before it has served at all.
    let report = block_on(server.run(async { pending::<io::Result<()>>().await }));
    assert!(matches!(report.server, ServerFuture::Dropped), "{report}");
    assert_eq!(
        phases(&report),
        [Phase::Graceful, Phase::Cancelled, Phase::Dropped]
    );
}

#[test]
fn zero_bounds() {
    let zero = Duration::ZERO;
    let serve = serve().graceful(zero).cancelled(zero).dropped(LONG);
    let server = serve.start().unwrap();
    let handle = server.handle();
    let member = handle.requests().enter().unwrap();
    let held = member.context();
    let running = run(server, async move {
        let _member = member;
        pending().await
    });
    handle.end(Signal::TERM);
    let report = running.join().unwrap();
    assert!(held.is_done());
    assert!(report.tasks.stuck.is_empty(), "{report}");
}

#[test]
fn infinite_bounds() {
    let max = Duration::MAX;
    let serve = serve()
        .lame_duck(max)
        .graceful(max)
        .cancelled(max)
        .dropped(max);
    let server = serve.start().unwrap();
    let handle = server.handle();
    let running = run(server, async { pending().await });
    handle.end(Signal::TERM);
    until(&handle, Phase::LameDuck);
    thread::sleep(millis(30));
    assert_eq!(handle.phase(), Phase::LameDuck);
    handle.force("now");
    until(&handle, Phase::Cancelled);
    thread::sleep(millis(30));
    assert_eq!(handle.phase(), Phase::Cancelled);
    drop(handle);
    // It was asked for that: nothing ends it any more.
    assert!(!running.is_finished());
}

#[test]
fn a_server_that_ends_or_fails_by_itself() {
    let server = serve().lame_duck(LONG).start().unwrap();
    let handle = server.handle();
    let member = handle.requests().enter().unwrap();
    let (done, held) = mpsc::channel();
    thread::spawn(move || {
        until(&handle, Phase::Graceful);
        drop(member);
        done.send(()).unwrap();
    });
    let report = block_on(server.run(async { Ok::<_, io::Error>(()) }));
    // It has waited for the request.
    held.recv_timeout(SOON).unwrap();
    assert!(report.is_clean(), "{report}");
    assert_eq!(phases(&report), [Phase::Graceful]);

    let server = serve().start().unwrap();
    let error = async { Err::<(), _>(io::Error::other("no descriptors")) };
    let report = block_on(server.run(error));
    let ServerFuture::Failed(cause) = &report.server else {
        panic!("{report}")
    };
    assert_eq!(cause.to_string(), "no descriptors");
    assert_eq!(report.exit_code(), 1);
}

#[test]
fn a_server_that_ends_on_the_event_that_ends_it_has_that_cause() {
    // Of the thread that keeps the time and the one that runs the server either may be the first.
    for _ in 0..20 {
        let (ending, guard) = Context::background().with_cancel();
        let server = serve()
            .end_with(&ending)
            .graceful(Duration::ZERO)
            .cancelled(Duration::ZERO);
        let server = server.dropped(millis(20)).start().unwrap();
        let handle = server.handle();
        let _stays = handle.requests().enter().unwrap();
        let runs = run(server, async {
            ending.cancelled_owned().await;
            Ok(())
        });
        until(&handle, Phase::Serving);
        guard.cancel_with(Signal::TERM);
        let report = runs.join().unwrap();
        assert!(matches!(report.server, ServerFuture::Ended), "{report}");
        assert_eq!(report.cause.find(), Some(&Signal::TERM), "{report}");
        assert_eq!(report.exit_code(), 143);
    }
}

#[test]
fn a_panic_of_the_server_is_reported() {
    let server = serve().start().unwrap();
    let report = block_on(server.run(async {
        if true {
            panic!("out of {}", "luck");
        }
        Ok::<_, io::Error>(())
    }));
    let ServerFuture::Failed(cause) = &report.server else {
        panic!("{report}")
    };
    assert_eq!(cause.find::<Panicked>().unwrap().message, "out of luck");
}

/// What it returns is user code too, where it is dropped and where it becomes an error.
#[test]
fn an_output_that_panics_is_reported() {
    struct PanicsInDrop;
    impl Drop for PanicsInDrop {
        fn drop(&mut self) {
            panic!("the output");
        }
    }
    struct PanicsInInto;
    impl From<PanicsInInto> for Box<dyn std::error::Error + Send + Sync> {
        fn from(_: PanicsInInto) -> Self {
            panic!("the error");
        }
    }
    let drops = serve().start().unwrap();
    let drops = block_on(drops.run(async { Ok::<_, io::Error>(PanicsInDrop) }));
    let converts = serve().start().unwrap();
    let converts = block_on(converts.run(async { Err::<(), _>(PanicsInInto) }));
    for (report, message) in [(drops, "the output"), (converts, "the error")] {
        let ServerFuture::Failed(cause) = &report.server else {
            panic!("{report}")
        };
        assert_eq!(cause.find::<Panicked>().unwrap().message, message);
    }
}

/// Causes are others' words, as names are, and stay in their line.
#[test]
fn a_cause_makes_no_lines_of_its_own() {
    let server = serve().start().unwrap();
    let handle = server.handle();
    let lines = "one\n  stuck: two\u{2028}";
    let task = handle
        .requests()
        .track(async { Err::<(), _>(lines) })
        .unwrap();
    block_on(task);
    let running = run(server, async { Err(io::Error::other("one\n  stuck: two")) });
    let report = running.join().unwrap();
    assert!(!report.to_string().contains(['\n', '\u{2028}']), "{report}");
    let server = serve().start().unwrap();
    let future = polite(&server);
    server.handle().end(lines);
    let report = block_on(server.run(future));
    assert!(
        report.to_string().starts_with("one   stuck: two : "),
        "{report}"
    );
}

#[test]
fn dropping_it_in_any_phase_cancels_the_requests() {
    for phase in [
        None,
        Some(Phase::Starting),
        Some(Phase::Serving),
        Some(Phase::LameDuck),
        Some(Phase::Graceful),
        Some(Phase::Cancelled),
        Some(Phase::Dropped),
    ] {
        let bound = |of| match phase {
            Some(phase) if phase > of => Duration::ZERO,
            _ => LONG,
        };
        let serve = Serve::new(&Context::background())
            .lame_duck(bound(Phase::LameDuck))
            .graceful(bound(Phase::Graceful))
            .cancelled(bound(Phase::Cancelled).min(SOON))
            .dropped(bound(Phase::Dropped).min(SOON));
        let server = serve.start().unwrap();
        let handle = server.handle();
        let request = handle.requests().context().clone();
        // One that stays until it is told, and, for the last phase, does not hear.
        let (say, hear) = mpsc::channel::<()>();
        let is_deaf = phase >= Some(Phase::Cancelled);
        handle
            .requests()
            .spawn_thread(move |ctx| match is_deaf {
                true => _ = hear.recv(),
                false => _ = ctx.blocking_wait(),
            })
            .unwrap();
        match phase {
            None => drop(server),
            Some(phase) => {
                let mut run = Box::pin(server.run(pending::<io::Result<()>>()));
                if phase >= Phase::Serving {
                    block_on(poll_fn(|cx| {
                        assert!(run.as_mut().poll(cx).is_pending());
                        Poll::Ready(())
                    }));
                }
                if phase > Phase::Serving {
                    handle.end(Signal::TERM);
                    until(&handle, phase);
                }
                drop(run);
            }
        }
        assert!(
            request.child_token().blocking_wait_timeout(SOON),
            "{phase:?}"
        );
        drop(say);
        until(&handle, Phase::Ended);
    }
}

#[test]
fn an_executor_that_is_stuck_is_said_elsewhere() {
    beside_others(stuck_executor_beside_others);
}

fn stuck_executor_beside_others(others: Duration) -> Option<()> {
    let (say, hear) = mpsc::channel();
    let serve = serve()
        .graceful(millis(20))
        .cancelled(others)
        .dropped(millis(20))
        .when_stuck(move |report| say.send(report).unwrap());
    let server = serve.start().unwrap();
    let handle = server.handle();
    let (back, block) = mpsc::channel::<()>();
    let running = run(server, async move {
        let _ = block.recv();
        pending().await
    });
    handle
        .requests()
        .named("asks")
        .spawn_thread(|ctx| _ = ctx.blocking_wait())
        .unwrap();
    handle.end(Signal::TERM);
    let report = hear.recv_timeout(SOON).unwrap();
    assert!(matches!(report.server, ServerFuture::Stuck), "{report}");
    // The others were told all the same.
    if report.tasks.cancelled == 0 && report.tasks.stuck.len() == 1 {
        return None;
    }
    assert_eq!(report.tasks.cancelled, 1, "{report}");
    assert_eq!(report.exit_code(), 143);
    // If it comes back after all, it gets the same.
    drop(back);
    let late = running.join().unwrap();
    assert_eq!(late.to_string(), report.to_string());
    Some(())
}

#[test]
fn callbacks_that_block_hold_nothing_up() {
    let serve = serve().graceful(millis(20)).cancelled(millis(20));
    let server = serve.start().unwrap();
    let handle = server.handle();
    let (say, hear) = mpsc::channel::<()>();
    let hear = Arc::new(Mutex::new(hear));
    let block = || {
        let hear = hear.clone();
        move || _ = hear.lock().unwrap().recv()
    };
    let registrations = [
        handle.closing().on_cancel(block()),
        handle.requests().context().on_cancel(block()),
    ];
    let running = run(server, pending());
    handle.end(Signal::TERM);
    let report = running.join().unwrap();
    assert!(matches!(report.server, ServerFuture::Dropped), "{report}");
    drop(say);
    drop(registrations);
}

#[test]
fn a_task_that_panics_ends_the_server() {
    let server = serve().start().unwrap();
    let handle = server.handle();
    let future = polite(&server);
    handle
        .requests()
        .named("odd")
        .spawn_thread::<_, ()>(|_| panic!("as it is meant to"))
        .unwrap();
    let report = block_on(server.run(future));
    assert!(report.cause.find::<Panicked>().is_some(), "{report}");
    assert!(report.tasks.cause.is_some(), "{report}");

    // An error does not.
    let server = serve().start().unwrap();
    let handle = server.handle();
    let future = polite(&server);
    let (say, hear) = mpsc::channel();
    let task = handle.requests().spawn_thread(move |_| {
        say.send(()).unwrap();
        Err::<(), _>("no")
    });
    task.unwrap();
    hear.recv().unwrap();
    let mut run = pin!(server.run(future));
    block_on(poll_fn(|cx| {
        assert!(run.as_mut().poll(cx).is_pending());
        Poll::Ready(())
    }));
    assert!(handle.is_ready());
    handle.end(Signal::TERM);
    assert!(block_on(run).tasks.cause.is_some());
}

#[test]
fn an_executor_without_time_for_the_drop_is_not_stuck() {
    let zero = Duration::ZERO;
    for is_polite in [true, false] {
        let (say, hear) = mpsc::channel();
        let serve = serve()
            .graceful(if is_polite { LONG } else { zero })
            .cancelled(zero)
            .dropped(zero)
            .when_stuck(move |report| say.send(report).unwrap());
        let server = serve.start().unwrap();
        let handle = server.handle();
        let polite = polite(&server);
        let running = run(server, async move {
            match is_polite {
                true => polite.await,
                false => pending().await,
            }
        });
        let begin = Instant::now();
        handle.end(Signal::TERM);
        let report = running.join().unwrap();
        // Of the second that the executor has to take the report.
        let quick = begin.elapsed() < Duration::from_secs(1);
        assert_eq!(report.is_clean(), is_polite, "{report}");
        // It goes with the conductor, which has not called it.
        assert!(hear.recv().is_err() || !quick, "{report}");
    }
}

#[derive(Debug)]
struct NoSource;

impl std::fmt::Display for NoSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("it has to end")
    }
}

impl std::error::Error for NoSource {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        panic!("whoever looks for a signal in it meets this")
    }
}

#[test]
fn a_cause_that_panics_when_it_is_looked_at_ends_the_server_as_others_do() {
    let serve = serve().graceful(millis(20)).cancelled(millis(20));
    let server = serve.start().unwrap();
    let handle = server.handle();
    let running = run(server, async { pending().await });
    handle.end(Cause::with_kind(ContextError::Cancelled, NoSource));
    let report = running.join().unwrap();
    assert!(matches!(report.server, ServerFuture::Dropped), "{report}");
    assert_eq!(report.cause.to_string(), "it has to end");
}

/// One that cannot even be shown.
#[derive(Debug)]
struct Unspeakable;

impl std::fmt::Display for Unspeakable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("it begins")?;
        panic!("whoever shows it meets this")
    }
}

impl std::error::Error for Unspeakable {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        panic!("whoever looks for a signal in it meets this")
    }
}

#[test]
fn a_stuck_server_can_be_shown_whatever_its_errors_do() {
    let zero = Duration::ZERO;
    let hostile = || Cause::with_kind(ContextError::Cancelled, Unspeakable);
    let (say, hear) = mpsc::channel();
    // As main does it, whose process ends here.
    let serve = serve()
        .graceful(zero)
        .cancelled(zero)
        .dropped(millis(1))
        .when_stuck(move |report| say.send((report.to_string(), report.exit_code())).unwrap());
    let server = serve.start().unwrap();
    let handle = server.handle();
    let (failed, has_failed) = mpsc::channel();
    let task = handle.requests().spawn_thread(move |_| {
        failed.send(()).unwrap();
        Err::<(), _>(hostile())
    });
    task.unwrap();
    has_failed.recv().unwrap();
    while !handle.requests().is_empty() {
        thread::yield_now();
    }
    let (back, block) = mpsc::channel::<()>();
    let running = run(server, async move {
        let _ = block.recv();
        pending().await
    });
    handle.end(hostile());
    let (text, code) = hear.recv_timeout(SOON).unwrap();
    assert!(text.starts_with("it begins: ended in "), "{text}");
    assert!(text.contains("first error: it begins"), "{text}");
    assert_eq!(code, 1);
    drop(back);
    let failed = ServerFuture::Failed(hostile()).to_string();
    assert_eq!(failed, "the server failed: it begins");
    running.join().unwrap();
}

/// At a moment without requests the group is closed. One that begins just before that is waited for as the others are.
#[test]
fn who_begins_while_the_group_is_being_closed_is_waited_for() {
    for attempt in 0..150 {
        let server = serve().start().unwrap();
        let handle = server.handle();
        // Places that the close comes to one by one.
        let many = (0..5000).map(|_| handle.requests().enter().unwrap());
        drop(many.collect::<Vec<_>>());
        let client = thread::spawn({
            let handle = handle.clone();
            move || {
                for n in 0_u32.. {
                    let Ok(member) = handle.requests().enter() else {
                        return;
                    };
                    if handle.phase() >= Phase::Graceful {
                        // It ends when it is told to, and soon otherwise.
                        let token = member.context().child_token();
                        token.blocking_wait_timeout(millis(10));
                    }
                    drop(member);
                    for _ in 0..n.wrapping_mul(2_654_435_761) >> 17 {
                        std::hint::spin_loop();
                    }
                }
            }
        });
        let future = polite(&server);
        let running = run(server, future);
        until(&handle, Phase::Serving);
        thread::sleep(millis(2));
        handle.end(Signal::TERM);
        let report = running.join().unwrap();
        client.join().unwrap();
        assert_eq!(phases(&report), [Phase::Graceful], "{attempt}: {report}");
        assert!(report.tasks.stuck.is_empty(), "{attempt}: {report}");
        assert_eq!(report.exit_code(), 0);
    }
}

/// A shield has its time under a server, too: from the cancel of the requests, and not beyond the drop of the server's future.
#[test]
fn a_shield_has_the_grace_of_the_servers_context() {
    for is_short in [true, false] {
        let ctx = Context::background().with_grace(if is_short { LONG } else { Duration::MAX });
        let serve = Serve::new(&ctx)
            .lame_duck(Duration::ZERO)
            .graceful(millis(20))
            .cancelled(if is_short { LONG } else { millis(20) })
            .dropped(LONG);
        let server = serve.start().unwrap();
        let handle = server.handle();
        let (say, hear) = mpsc::channel();
        let saves = handle.requests().named("saves").spawn_thread(move |ctx| {
            ctx.blocking_wait();
            let shield = ctx.shield();
            let slept = match is_short {
                true => shield.blocking_sleep(millis(50)),
                false => Err(shield.blocking_wait()),
            };
            say.send((ctx.cause().unwrap(), slept, shield.cause()))
                .unwrap();
        });
        saves.unwrap();
        let future = polite(&server);
        let running = run(server, future);
        handle.end(Signal::TERM);
        let (first, slept, second) = hear.recv_timeout(SOON).unwrap();
        assert!(first.find::<Shutdown>().is_some(), "{first}");
        let report = running.join().unwrap();
        assert!(report.tasks.stuck.is_empty(), "{report}");
        assert_eq!(
            (report.tasks.cancelled, report.exit_code()),
            (1, 0),
            "{report}"
        );
        assert!(report.tasks.cause.is_none(), "{report}");
        if is_short {
            assert_eq!((slept, second.is_none()), (Ok(()), true));
            assert_eq!(phases(&report), [Phase::Graceful, Phase::Cancelled]);
        } else {
            assert_eq!(slept, Err(ContextError::Cancelled));
            assert!(second.unwrap().find::<Shutdown>().is_some());
            assert_eq!(
                phases(&report),
                [Phase::Graceful, Phase::Cancelled, Phase::Dropped]
            );
        }
    }
}

/// A handler may have a grace of its own. Its shields end with the server as well, whether the server's context has a grace or none.
#[test]
fn a_grace_of_a_handlers_own_is_over_when_the_server_is_dropped() {
    let root = Context::background();
    let graced = root.with_grace(LONG);
    for ctx in [&root, &graced] {
        for is_dropped in [true, false] {
            let serve = Serve::new(ctx).lame_duck(Duration::ZERO);
            let serve = serve.graceful(millis(20)).dropped(LONG);
            let serve = serve.cancelled(if is_dropped { millis(20) } else { LONG });
            let server = serve.start().unwrap();
            let handle = server.handle();
            let (say, hear) = mpsc::channel();
            let (go, wait) = mpsc::channel();
            // Of what is none of the server's tasks.
            let left = handle.requests().context().with_grace(LONG).shield();
            let saves = handle.requests().named("saves").spawn_thread(move |ctx| {
                let (other, _guard) = Context::background().with_cancel();
                let both = Context::any_of([&other, &ctx]).with_grace(LONG).shield();
                let ctx = ctx.with_grace(LONG);
                let before = ctx.shield();
                ctx.blocking_wait();
                let after = ctx.shield();
                let shields = [before, after, both];
                let cause = |shield: &Context| shield.cause();
                say.send(shields.each_ref().map(cause)).unwrap();
                if is_dropped {
                    _ = shields.each_ref().map(Context::blocking_wait);
                } else {
                    wait.recv().unwrap();
                }
                say.send(shields.each_ref().map(cause)).unwrap();
            });
            saves.unwrap();
            let future = polite(&server);
            let running = run(server, future);
            handle.end(Signal::TERM);
            let at_first = hear.recv_timeout(SOON).unwrap();
            if !is_dropped {
                assert!(at_first.iter().all(Option::is_none) && !left.is_done());
                go.send(()).unwrap();
            }
            for cause in hear.recv_timeout(SOON).unwrap() {
                assert_eq!(cause.is_some(), is_dropped);
                assert!(cause.is_none_or(|cause| cause.find::<Shutdown>().is_some()));
            }
            let report = running.join().unwrap();
            assert!(report.tasks.stuck.is_empty(), "{report}");
            assert_eq!(report.exit_code(), 0, "{report}");
            assert_eq!(phases(&report).contains(&Phase::Dropped), is_dropped);
            // None outlives the server.
            left.blocking_wait_timeout(SOON);
            assert!(left.cause().unwrap().find::<Shutdown>().is_some());
        }
    }
}

/// Without a grace there is no time after the cancel: such a shield is done when its context is.
#[test]
fn a_shield_without_a_grace_is_a_plain_child_under_a_server() {
    let server = serve().graceful(millis(20)).start().unwrap();
    let handle = server.handle();
    let (say, hear) = mpsc::channel();
    let saves = handle.requests().spawn_thread(move |ctx| {
        let (other, _guard) = Context::background().with_cancel();
        let both = [
            Context::any_of([&ctx, &other]).shield(),
            Context::any_of([&other, &ctx]).shield(),
        ];
        let (below, _guard_below) = ctx.with_cancel();
        let shields = [&ctx.shield(), &below.shield(), &both[0], &both[1]];
        assert!(!shields
            .iter()
            .any(|shield| shield.is_done() || shield.is_shielded()));
        ctx.blocking_wait();
        let are_done = shields.map(Context::is_done);
        say.send((are_done, ctx.shield().cause())).unwrap();
    });
    saves.unwrap();
    // The own end of a group that was made under no grace is a cancel like any other: it begins the graces inside.
    let group = Group::new(handle.requests().context());
    let ctx = group.context().with_grace(LONG);
    group.cancel();
    assert!(ctx.is_done() && !ctx.shield().is_done());
    let future = polite(&server);
    let running = run(server, future);
    handle.end(Signal::TERM);
    let (are_done, cause) = hear.recv_timeout(SOON).unwrap();
    assert_eq!(are_done, [true; 4]);
    assert!(cause.unwrap().find::<Shutdown>().is_some());
    let report = running.join().unwrap();
    assert_eq!(phases(&report), [Phase::Graceful, Phase::Cancelled]);
    assert_eq!(report.exit_code(), 0, "{report}");
}

#[test]
fn a_limit_bounds_how_many_requests_there_are() {
    let server = serve().limit(2).start().unwrap();
    let handle = server.handle();
    let requests = handle.requests();
    let first = requests.enter().unwrap();
    let _second = requests.spawn_thread(|ctx| _ = ctx.blocking_wait());
    assert!(requests.enter().unwrap_err().is_full());
    drop(first);
    let _third = requests.enter().unwrap();
    assert!(requests.enter().unwrap_err().is_full());

    // More room lets in who waits.
    let ctx = Context::background();
    let mut fourth = pin!(requests.enter_when(&ctx));
    block_on(poll_fn(|cx| {
        assert!(fourth.as_mut().poll(cx).is_pending());
        Poll::Ready(())
    }));
    handle.set_limit(3);
    let Poll::Ready(_fourth) = block_on(poll_fn(|cx| Poll::Ready(fourth.as_mut().poll(cx)))) else {
        panic!("there is room");
    };
    assert!(requests.enter().unwrap_err().is_full());
    handle.set_limit(usize::MAX);
    assert!(requests.enter().is_ok());
}

/// Who waits for room when the group is closed is told elsewhere.
#[test]
fn a_waker_that_waits_for_room_holds_nothing_up() {
    struct Bad(Mutex<Option<mpsc::Receiver<()>>>);
    impl Wake for Bad {
        fn wake(self: Arc<Self>) {
            let hear = self.0.lock().unwrap().take();
            match hear {
                Some(hear) => drop(hear.recv()),
                None => panic!("the waker"),
            }
        }
    }
    let (say, hear) = mpsc::channel::<()>();
    for hear in [Some(hear), None] {
        // The group's cancel wakes it, too, if it comes first, and one that blocks keeps that from others: so it ends by its bounds.
        let ends = serve().limit(1).graceful(millis(20));
        let server = ends.cancelled(millis(20)).dropped(millis(20)).start();
        let server = server.unwrap();
        let handle = server.handle();
        let requests = handle.requests().clone();
        let _one = requests.enter().unwrap();
        let ctx = Context::background();
        let mut waits = Box::pin(requests.enter_when(&ctx));
        let waker = Waker::from(Arc::new(Bad(Mutex::new(hear))));
        let mut cx = task::Context::from_waker(&waker);
        assert!(waits.as_mut().poll(&mut cx).is_pending());
        let future = polite(&server);
        let running = run(server, future);
        handle.end(Signal::TERM);
        let report = running.join().unwrap();
        let all = [Phase::Graceful, Phase::Cancelled, Phase::Dropped];
        assert_eq!(phases(&report), all);
    }
    drop(say);
}

/// Also where it ends by itself, and nothing else has cancelled the requests' context.
#[test]
fn no_shield_is_done_before_its_context() {
    let server = serve().start().unwrap();
    let requests = server.handle().requests().context().clone();
    let left = requests.with_grace(LONG).shield();
    let (say, hear) = mpsc::channel();
    let is_done = {
        let requests = requests.clone();
        move || requests.is_done()
    };
    let _registration = left.on_cancel(move || say.send(is_done()).unwrap());
    // Nor does one that blocks, on the other, hold it up.
    let (go, blocks) = mpsc::channel::<()>();
    drop(requests.on_cancel(move || _ = blocks.recv()));
    let future = polite(&server);
    server.handle().end(Signal::TERM);
    let report = run(server, future).join().unwrap();
    assert_eq!(phases(&report), [Phase::Graceful]);
    assert!(hear.recv_timeout(SOON).unwrap());
    drop(go);
}

/// Also where workers have others' callbacks to call: they wake first.
#[test]
fn the_phases_are_told_in_their_order_and_an_executor_in_time() {
    let attempt = || {
        let (others, begin) = Context::background().with_cancel();
        for _ in 0..500 {
            drop(others.after_func(|| {
                let begin = Instant::now();
                while begin.elapsed() < millis(2) {}
            }));
        }
        let (stuck, is_stuck) = mpsc::channel();
        let server = serve().graceful(Duration::ZERO).dropped(millis(100));
        let server = server.when_stuck(move |_| stuck.send(()).unwrap());
        let server = server.start().unwrap();
        let handle = server.handle();
        let (say, hear) = mpsc::channel();
        let request = handle.requests().spawn_thread({
            let handle = handle.clone();
            move |ctx| {
                ctx.blocking_wait();
                say.send(handle.closing().is_done()).unwrap();
            }
        });
        request.unwrap();
        begin.cancel();
        let future = polite(&server);
        let running = run(server, future);
        handle.end(Signal::TERM);
        assert!(hear.recv_timeout(SOON).unwrap(), "cancelled before that");
        let report = running.join().unwrap();
        assert_eq!(report.exit_code(), 0, "{report}");
        is_stuck.recv().is_err()
    };
    assert!((0..5).any(|_| attempt()), "it is not stuck");
}
