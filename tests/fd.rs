//! The descriptor that is readable when a context is done.
#![cfg(unix)]

mod first_callback;

use cancel_tree::integrations::fd::DoneFd;
use cancel_tree::{CancellationToken, Context};
use first_callback::is_told_before;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_millis(20);
const FOR_EVER: i32 = -1;

fn poll(fd: impl AsFd, timeout: i32) -> bool {
    let mut fds = [libc::pollfd {
        fd: fd.as_fd().as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    }];
    // SAFETY: one entry, as is said.
    let ready = unsafe { libc::poll(fds.as_mut_ptr(), 1, timeout) };
    assert!(ready >= 0);
    assert_eq!(fds[0].revents & (libc::POLLNVAL | libc::POLLERR), 0);
    ready == 1
}

#[test]
fn it_is_readable_once_the_context_is_done_and_stays_so() {
    let (ctx, guard) = Context::background().with_cancel();
    let (done, again) = (ctx.done_fd().unwrap(), ctx.done_fd().unwrap());
    assert!(!poll(&done, 0) && !poll(&again, 0));
    guard.cancel();
    for done in [done, again, ctx.done_fd().unwrap()] {
        assert!(poll(&done, 0));
        assert!(poll(&done, 0));
    }
}

#[test]
fn a_sleeper_is_woken_by_a_cancel_and_by_a_deadline() {
    let token = CancellationToken::new();
    let done = token.done_fd().unwrap();
    let sleeper = thread::spawn(move || poll(&done, FOR_EVER));
    thread::sleep(SOON);
    token.cancel();
    assert!(sleeper.join().unwrap());
    let begin = Instant::now();
    let (ctx, _guard) = Context::background().with_timeout(SOON);
    assert!(poll(ctx.done_fd().unwrap(), FOR_EVER));
    assert!(begin.elapsed() >= SOON && ctx.is_done());
}

/// As threads are woken that wait by themselves, before the first callback: that may wait for them.
#[test]
fn it_is_readable_before_the_first_callback() {
    let of: [fn(&Context) -> io::Result<DoneFd>; 2] =
        [|ctx| ctx.done_fd(), |ctx| ctx.child_token().done_fd()];
    for done in of {
        is_told_before(
            Context::background().with_cancel(),
            |ctx| done(ctx).unwrap(),
            |done| assert!(poll(&done, FOR_EVER)),
        );
    }
}

#[test]
fn a_context_that_is_never_done_has_one_too() {
    assert!(!poll(Context::background().done_fd().unwrap(), 1));
    let (ctx, guard) = Context::background().with_cancel();
    let done = ctx.done_fd().unwrap();
    guard.detach();
    drop(ctx);
    assert!(!poll(done, 1));
}

/// Whoever gets the number next is not told what was meant for it.
#[test]
fn a_number_that_is_used_again_is_left_alone() {
    let over = AtomicBool::new(false);
    thread::scope(|s| {
        for _ in 0..2 {
            s.spawn(|| {
                while !over.load(Relaxed) {
                    // The lowest numbers that are free: those just given up.
                    let (a, b) = UnixStream::pair().unwrap();
                    thread::yield_now();
                    assert!(!poll(&a, 0) && !poll(&b, 0));
                }
            });
        }
        for _ in 0..4000 {
            let token = CancellationToken::new();
            let done = token.done_fd().unwrap();
            thread::scope(|s| {
                s.spawn(|| token.cancel());
                drop(done);
            });
        }
        over.store(true, Relaxed);
    });
}

#[cfg(target_os = "linux")]
#[test]
fn a_duplicate_outlives_it_as_it_was() {
    let token = CancellationToken::new();
    let duplicate: OwnedFd = token
        .done_fd()
        .unwrap()
        .as_fd()
        .try_clone_to_owned()
        .unwrap();
    token.cancel();
    assert!(!poll(&duplicate, 0));
    let done = token.done_fd().unwrap();
    let duplicate: OwnedFd = done.as_fd().try_clone_to_owned().unwrap();
    drop(done);
    assert!(poll(&duplicate, 0));
}

/// In a process of its own: this one shares its descriptors with other tests.
#[test]
fn without_descriptors_it_is_an_error() {
    if std::env::var_os("WITHOUT_DESCRIPTORS").is_none() {
        let me = std::env::current_exe().unwrap();
        let name = "without_descriptors_it_is_an_error";
        let child = std::process::Command::new(me)
            .args(["--exact", name])
            .env("WITHOUT_DESCRIPTORS", "1")
            .output()
            .unwrap();
        assert!(child.status.success(), "{child:?}");
        return;
    }
    let token = CancellationToken::new();
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the structure is there to be written.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) };
    limit.rlim_cur = 64;
    // SAFETY: the structure is there to be read.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
    let mut kept = Vec::new();
    let error = loop {
        match token.done_fd() {
            Ok(done) => kept.push(done),
            Err(error) => break error,
        }
        assert!(kept.len() < 64);
    };
    assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
    // Those that are there still work, and those that are given up make room.
    kept.pop();
    kept.push(token.done_fd().unwrap());
    token.cancel();
    assert!(kept.iter().all(|done| poll(done, 0)));
}
