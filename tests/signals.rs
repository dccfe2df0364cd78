//! Signals that this process sends to itself. What ends a process is in tests/processes.
#![cfg(unix)]

mod cpu_time;

use cancel_tree::integrations::signals::{Signal, SignalGuard, Signals};
use cancel_tree::{Context, ContextError, GuardDropped};
use cpu_time::cpu_time;
use std::io::{self, Read, Write};
use std::mem::{zeroed, MaybeUninit};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

/// The process's signals are everybody's: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn raise(signal: Signal) {
    // SAFETY: no memory is passed; there is a handler.
    assert_eq!(unsafe { libc::raise(signal.number()) }, 0);
}

fn soon(ctx: &Context) -> Signal {
    let token = ctx.child_token();
    assert!(token.blocking_wait_timeout(Duration::from_secs(30)));
    let cause = ctx.cause().unwrap();
    assert_eq!(cause.kind(), ContextError::Cancelled);
    *cause.find().expect("a signal")
}

fn install(signals: Signals) -> SignalGuard {
    signals.install(&Context::background()).unwrap()
}

fn action(signal: Signal) -> libc::sigaction {
    let mut now = MaybeUninit::uninit();
    // SAFETY: it is written.
    unsafe {
        assert_eq!(
            libc::sigaction(signal.number(), ptr::null(), now.as_mut_ptr()),
            0
        );
        now.assume_init()
    }
}

fn set(signal: Signal, to: usize) -> libc::sigaction {
    set_with(signal, to, 0)
}

fn set_with(signal: Signal, to: usize, flags: i32) -> libc::sigaction {
    let was = action(signal);
    // SAFETY: zeros are a value of it; the functions of these tests only count, and raise.
    unsafe {
        let mut new: libc::sigaction = zeroed();
        new.sa_sigaction = to;
        new.sa_flags = flags as _;
        assert_eq!(
            libc::sigaction(signal.number(), &raw const new, ptr::null_mut()),
            0
        );
    }
    was
}

static BELOW: AtomicUsize = AtomicUsize::new(0);
static ABOVE: AtomicUsize = AtomicUsize::new(0);
static NEXT: AtomicUsize = AtomicUsize::new(0);

extern "C" fn below(_: i32) {
    BELOW.fetch_add(1, SeqCst);
}

/// Calls the one that was there before, as others do.
extern "C" fn above(number: i32) {
    ABOVE.fetch_add(1, SeqCst);
    type Full = extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void);
    let next = NEXT.load(SeqCst) as *const ();
    // SAFETY: that of the library, which hands the pointers on only.
    unsafe {
        std::mem::transmute::<*const (), Full>(next)(number, ptr::null_mut(), ptr::null_mut())
    };
}

#[test]
fn the_first_and_the_second() {
    let _alone = alone();
    let guard = install(Signals::new());
    assert!(!guard.context().is_done());
    raise(Signal::TERM);
    let signal = soon(guard.context());
    assert_eq!(
        (signal.name(), signal.number(), signal.exit_code()),
        ("SIGTERM", 15, 143)
    );
    assert!(!guard.forced().is_done());
    raise(Signal::INT);
    assert_eq!(soon(guard.forced()), Signal::INT);
    assert_eq!(soon(guard.context()), Signal::TERM);
}

#[test]
fn one_guard_at_a_time() {
    let _alone = alone();
    let ctx = Context::background();
    let guard = install(Signals::new());
    let error = Signals::new().install(&ctx).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
    raise(Signal::TERM);
    soon(guard.context());
    drop(guard);
    for _ in 0..3 {
        let guard = install(Signals::new());
        assert!(!guard.context().is_done());
        raise(Signal::INT);
        assert_eq!(soon(guard.context()), Signal::INT);
    }
}

#[test]
fn dropping_puts_back_what_was_there() {
    let _alone = alone();
    let before = [Signal::TERM, Signal::INT].map(|signal| action(signal).sa_sigaction);
    let guard = install(Signals::new());
    let ctx = guard.context().clone();
    let forced = guard.forced().clone();
    drop(guard);
    for done in [ctx, forced] {
        assert!(done.cause().unwrap().find::<GuardDropped>().is_some());
    }
    assert_eq!(
        [Signal::TERM, Signal::INT].map(|signal| action(signal).sa_sigaction),
        before
    );
}

#[test]
fn what_is_ignored_is_caught_and_ignored_again() {
    let _alone = alone();
    let was = set(Signal::HUP, libc::SIG_IGN);
    let guard = install(Signals::new().also(Signal::HUP));
    raise(Signal::HUP);
    assert_eq!(soon(guard.context()), Signal::HUP);
    drop(guard);
    raise(Signal::HUP);
    set(Signal::HUP, was.sa_sigaction);
}

#[test]
fn handlers_of_others_go_on() {
    let _alone = alone();
    let was = set(Signal::HUP, below as *const () as usize);
    let signals = Signals::new().also(Signal::HUP).end_at(0);
    let guard = install(signals.clone());
    let (a, b) = (BELOW.load(SeqCst), ABOVE.load(SeqCst));
    raise(Signal::HUP);
    soon(guard.context());
    assert_eq!(BELOW.load(SeqCst), a + 1);

    // One that comes later, and calls those before.
    let ours = set(Signal::HUP, above as *const () as usize);
    NEXT.store(ours.sa_sigaction, SeqCst);
    raise(Signal::HUP);
    soon(guard.forced());
    assert_eq!((BELOW.load(SeqCst), ABOVE.load(SeqCst)), (a + 2, b + 1));

    // It stays when the guard goes, and ours below it; the next guard finds it so.
    drop(guard);
    assert_eq!(
        action(Signal::HUP).sa_sigaction,
        above as *const () as usize
    );
    raise(Signal::HUP);
    assert_eq!((BELOW.load(SeqCst), ABOVE.load(SeqCst)), (a + 3, b + 2));
    // One that has not asked for it does not count it.
    let guard = install(Signals::new());
    raise(Signal::HUP);
    assert_eq!((BELOW.load(SeqCst), ABOVE.load(SeqCst)), (a + 4, b + 3));
    raise(Signal::TERM);
    assert_eq!(soon(guard.context()), Signal::TERM);
    assert!(!guard.forced().is_done());
    drop(guard);
    let guard = install(signals.clone());
    raise(Signal::HUP);
    soon(guard.context());
    assert_eq!((BELOW.load(SeqCst), ABOVE.load(SeqCst)), (a + 5, b + 4));

    // When it goes, all is as it was.
    set(Signal::HUP, ours.sa_sigaction);
    drop(guard);
    assert_eq!(
        action(Signal::HUP).sa_sigaction,
        below as *const () as usize
    );
    // And a handler that has come in between is not taken for one above.
    set(Signal::HUP, below as *const () as usize);
    let guard = install(signals);
    raise(Signal::HUP);
    soon(guard.context());
    drop(guard);
    set(Signal::HUP, was.sa_sigaction);
}

/// Calls nobody.
extern "C" fn other<const N: usize>(_: i32) {
    BELOW.fetch_add(N, SeqCst);
}

/// Ours has stayed below one that is on top no more: whether the one that is there instead calls it is not known.
#[test]
fn a_handler_in_the_place_of_the_one_above() {
    let _alone = alone();
    let was = set(Signal::HUP, below as *const () as usize);
    let signals = Signals::new().also(Signal::HUP).end_at(0);
    let guard = install(signals.clone());
    let ours = set(Signal::HUP, other::<1> as *const () as usize);
    drop(guard);
    // One that calls nobody, and one that calls ours.
    NEXT.store(ours.sa_sigaction, SeqCst);
    for other in [below as *const () as usize, above as *const () as usize] {
        set(Signal::HUP, other);
        for _ in 0..10 {
            let guard = install(signals.clone());
            let before = BELOW.load(SeqCst);
            raise(Signal::HUP);
            soon(guard.context());
            assert_eq!(BELOW.load(SeqCst), before + 1);
            assert!(!guard.forced().is_done(), "it is counted twice");
            raise(Signal::HUP);
            soon(guard.forced());
            drop(guard);
            assert_eq!(action(Signal::HUP).sa_sigaction, other);
        }
    }
    // When the others go, all is as it was: also while there is a guard.
    let guard = install(signals.clone());
    set(Signal::HUP, ours.sa_sigaction);
    raise(Signal::HUP);
    soon(guard.context());
    drop(guard);
    assert_eq!(
        action(Signal::HUP).sa_sigaction,
        below as *const () as usize
    );

    // Four times one above the other, and no more than that.
    let mut others = [other::<1>, other::<2>, other::<3>, other::<4>, other::<5>]
        .map(|other: extern "C" fn(i32)| other as *const () as usize)
        .into_iter();
    let mut next = others.next().unwrap();
    let error = loop {
        match signals.clone().install(&Context::background()) {
            Ok(guard) => {
                set(Signal::HUP, next);
                drop(guard);
                next = others.next().expect("an error");
                set(Signal::HUP, next);
            }
            Err(error) => break error,
        }
    };
    assert_eq!((others.next(), error.kind()), (None, io::ErrorKind::Other));
    set(Signal::HUP, libc::SIG_DFL);
    drop(install(signals));
    set(Signal::HUP, was.sa_sigaction);
}

/// One that is to be called once (`SA_RESETHAND`) is, and leaves the system's default.
#[test]
fn a_handler_that_was_to_be_called_once_is() {
    let _alone = alone();
    let once = || set_with(Signal::HUP, below as *const () as usize, libc::SA_RESETHAND);
    let now = || action(Signal::HUP).sa_sigaction;
    let was = once();
    let signals = Signals::new().also(Signal::HUP).end_at(0);
    let before = BELOW.load(SeqCst);
    for n in 1..=2 {
        let guard = install(signals.clone());
        raise(Signal::HUP);
        assert_eq!(BELOW.load(SeqCst), before + n);
        raise(Signal::HUP);
        soon(guard.forced());
        assert_eq!(BELOW.load(SeqCst), before + n);
        drop(guard);
        assert_eq!(now(), libc::SIG_DFL);
        once();
    }
    // One that was not called is still to be.
    drop(install(signals));
    assert_eq!(now(), below as *const () as usize);
    raise(Signal::HUP);
    assert_eq!((BELOW.load(SeqCst), now()), (before + 3, libc::SIG_DFL));
    set(Signal::HUP, was.sa_sigaction);
}

/// Also if the signal comes while the guard is dropped.
#[test]
fn a_handler_that_was_to_be_called_once_is_while_the_guard_goes() {
    let _alone = alone();
    let was = action(Signal::HUP);
    let before = BELOW.load(SeqCst);
    for n in 1..=500 {
        set_with(Signal::HUP, below as *const () as usize, libc::SA_RESETHAND);
        let guard = install(Signals::new().also(Signal::HUP));
        let both = std::sync::Barrier::new(2);
        thread::scope(|scope| {
            scope.spawn(|| {
                both.wait();
                raise(Signal::HUP);
            });
            both.wait();
            (0..n).for_each(|_| std::hint::spin_loop());
            drop(guard);
        });
        assert_eq!(BELOW.load(SeqCst), before + n);
        assert_eq!(action(Signal::HUP).sa_sigaction, libc::SIG_DFL);
    }
    set(Signal::HUP, was.sa_sigaction);
}

extern "C" fn below_and_again(number: i32) {
    BELOW.fetch_add(1, SeqCst);
    // SAFETY: no memory is passed; it is to meet the system's default, or whoever counts signals.
    unsafe { libc::raise(number) };
}

/// The usual way to clean up and end by the signal nevertheless. What it raises is a second signal, and there is no third.
#[test]
fn a_handler_that_was_to_be_called_once_and_raises_its_signal() {
    const CHILD: &str = "CANCEL_TREE_RAISES_AGAIN";
    let Some(flags) = std::env::var_os(CHILD) else {
        for flags in [libc::SA_RESETHAND, libc::SA_RESETHAND | libc::SA_NODEFER] {
            let mut child = std::process::Command::new(std::env::current_exe().unwrap());
            let name = "a_handler_that_was_to_be_called_once_and_raises_its_signal";
            child.args(["--exact", name, "--nocapture"]);
            let status = child.env(CHILD, flags.to_string()).status().unwrap();
            assert_eq!(status.signal(), Some(libc::SIGTERM), "{status}");
        }
        return;
    };
    let flags = flags.to_str().unwrap().parse().unwrap();
    set_with(Signal::TERM, below_and_again as *const () as usize, flags);
    let guard = install(Signals::new());
    raise(Signal::TERM);
    soon(guard.forced());
    assert_eq!(BELOW.load(SeqCst), 1);
    drop(guard);
    raise(Signal::TERM);
}

/// The child of a `fork` lacks the timer thread that its parent had: what would never be told is refused.
#[test]
fn what_a_forked_child_cannot_be_told_is_refused() {
    let _alone = alone();
    let (ctx, _guard) = Context::background().with_timeout(Duration::from_millis(1));
    ctx.blocking_wait();
    let is_refused = |error: Option<io::Error>| {
        error.is_some_and(|error| error.kind() == io::ErrorKind::Unsupported)
    };
    // SAFETY: the child uses this crate and the allocator, which glibc and macOS make ready for that, and exits without running
    // what is registered for the end of the process.
    let child = unsafe {
        let child = libc::fork();
        if child == 0 {
            libc::alarm(20);
            let background = Context::background();
            let is_right = is_refused(Signals::new().install(&background).err());
            #[cfg(feature = "serve")]
            let is_right = is_right && {
                let serve = cancel_tree::integrations::serve::Serve::new(&background);
                is_refused(serve.start().err())
            };
            libc::_exit(if is_right { 0 } else { 1 });
        }
        child
    };
    assert!(child > 0, "no process to be had");
    let mut status = 0;
    // SAFETY: the pointer is to a number of our own.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(
        status, 0,
        "as waitpid tells it: the exit code << 8, or a signal"
    );
    // Here it is not.
    drop(install(Signals::new()));
}

#[test]
fn a_signal_just_before_the_drop_is_the_cause() {
    let _alone = alone();
    for _ in 0..200 {
        let guard = install(Signals::new());
        let ctx = guard.context().clone();
        raise(Signal::TERM);
        drop(guard);
        assert_eq!(soon(&ctx), Signal::TERM);
    }
}

#[test]
fn a_callback_that_panics_at_the_drop_takes_no_signal_away() {
    let _alone = alone();
    for _ in 0..200 {
        let guard = install(Signals::new());
        let (ctx, forced) = (guard.context().clone(), guard.forced().clone());
        drop(ctx.on_cancel(|| std::panic::resume_unwind(Box::new("as it is meant to"))));
        raise(Signal::TERM);
        raise(Signal::INT);
        // Whoever is the first to cancel meets it: this, or a worker.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(guard)));
        // (Two workers may be at it, and then the second is below no first.)
        let _either = soon(&ctx);
        assert_eq!(soon(&forced), Signal::INT);
    }
}

#[test]
fn signals_from_many_threads_while_guards_come_and_go() {
    let _alone = alone();
    let was = set(Signal::HUP, below as *const () as usize);
    let before = BELOW.load(SeqCst);
    const THREADS: usize = 4;
    const EACH: usize = 500;
    thread::scope(|scope| {
        let senders: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..EACH {
                        raise(Signal::HUP);
                        thread::yield_now();
                    }
                })
            })
            .collect();
        let mut seen = 0;
        while senders.iter().any(|sender| !sender.is_finished()) {
            let guard = install(Signals::new().also(Signal::HUP).end_at(0));
            let ctx = guard.context().clone();
            thread::yield_now();
            drop(guard);
            seen += usize::from(ctx.cause().unwrap().find::<Signal>().is_some());
        }
        println!("{seen} guards have seen a signal");
    });
    // `raise` is over when the handler is: none was lost to the handler below.
    assert_eq!(BELOW.load(SeqCst), before + THREADS * EACH);
    set(Signal::HUP, was.sa_sigaction);
}

#[test]
fn a_callback_that_blocks_does_not_keep_the_second_from_forcing() {
    let _alone = alone();
    let guard = install(Signals::new());
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let (say, hear) = std::sync::mpsc::channel();
    let registration = guard.context().on_cancel(move || {
        say.send(()).unwrap();
        let _ = wait.recv();
    });
    raise(Signal::TERM);
    hear.recv().unwrap();
    raise(Signal::TERM);
    assert_eq!(soon(guard.forced()), Signal::TERM);
    drop(go);
    drop(registration);
}

/// As what makes itself a daemon does. The dispatcher's pipe is gone with the others; so it looks every so often, and signals
/// arrive.
#[test]
#[cfg(target_os = "linux")]
fn every_descriptor_is_closed() {
    const CHILD: &str = "CANCEL_TREE_CLOSES_DESCRIPTORS";
    if std::env::var_os(CHILD).is_none() {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "every_descriptor_is_closed", "--nocapture"]);
        let status = child.env(CHILD, "").status().unwrap();
        assert_eq!(status.code(), Some(7), "{status}");
        return;
    }
    let guard = install(Signals::new());
    // SAFETY: nothing of this process uses them from here on; the ones of the dispatcher are never closed by it.
    unsafe {
        for descriptor in 3..1024 {
            libc::close(descriptor);
        }
    }
    // Whoever gets the numbers next is left alone.
    thread::sleep(Duration::from_millis(200));
    let mut others: Vec<_> = (0..8).map(|_| UnixStream::pair().unwrap()).collect();
    for (_, other) in &mut others {
        other.set_nonblocking(true).unwrap();
    }
    // It takes some hundredths of a second; one that runs in circles, all of it, or what it is given of it, each time.
    let is_little = |spent: &Duration| *spent < Duration::from_millis(150);
    let mut spent = Vec::new();
    while spent.len() < 3 && !spent.last().is_some_and(is_little) {
        let before = cpu_time();
        thread::sleep(Duration::from_secs(1));
        spent.push(cpu_time() - before);
    }
    raise(Signal::TERM);
    let first = soon(guard.context());
    assert_eq!(first, Signal::TERM);
    for (one, other) in &mut others {
        let nothing = other.read(&mut [0; 8]).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        one.write_all(b"all of it").unwrap();
    }
    thread::sleep(Duration::from_millis(100));
    for (_, other) in &mut others {
        let mut all = [0; 16];
        assert_eq!(other.read(&mut all).unwrap(), 9);
    }
    assert!(spent.iter().any(is_little), "{spent:?} of a second");
    std::process::exit(7);
}
