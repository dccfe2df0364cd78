//! The descriptor in a loop of mio.
#![cfg(unix)]

use cancel_tree::Context;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::Duration;

const DONE: Token = Token(0);
const PEER: Token = Token(1);

#[test]
fn a_loop_that_serves_until_the_context_is_done() {
    let (ctx, guard) = Context::background().with_timeout(Duration::from_secs(60));
    let (mut theirs, ours) = std::os::unix::net::UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let mut ours = mio::net::UnixStream::from_std(ours);
    let serving = thread::spawn(move || {
        let done = ctx.done_fd().unwrap();
        let mut poll = Poll::new().unwrap();
        let mut events = Events::with_capacity(8);
        let fd = done.as_raw_fd();
        poll.registry()
            .register(&mut SourceFd(&fd), DONE, Interest::READABLE)
            .unwrap();
        poll.registry()
            .register(&mut ours, PEER, Interest::READABLE)
            .unwrap();
        let mut sum = 0;
        loop {
            poll.poll(&mut events, None).unwrap();
            if events.iter().any(|event| event.token() == PEER) {
                let mut bytes = [0; 16];
                while let Ok(n @ 1..) = ours.read(&mut bytes) {
                    sum += bytes[..n].iter().map(|&b| u32::from(b)).sum::<u32>();
                }
            }
            if events.iter().any(|event| event.token() == DONE) {
                assert!(ctx.is_done());
                poll.registry().deregister(&mut SourceFd(&fd)).unwrap();
                return sum;
            }
        }
    });
    for n in 1..=10 {
        theirs.write_all(&[n]).unwrap();
        thread::sleep(Duration::from_millis(1));
    }
    thread::sleep(Duration::from_millis(50));
    guard.cancel();
    assert_eq!(serving.join().unwrap(), 55);
}

/// A registration that comes late is told all the same: the loop may be edge-triggered.
#[test]
fn one_that_is_done_is_told_at_the_registration() {
    let (ctx, guard) = Context::background().with_cancel();
    guard.cancel();
    let done = ctx.done_fd().unwrap();
    let mut poll = Poll::new().unwrap();
    let fd = done.as_raw_fd();
    poll.registry()
        .register(&mut SourceFd(&fd), DONE, Interest::READABLE)
        .unwrap();
    let mut events = Events::with_capacity(8);
    poll.poll(&mut events, Some(Duration::from_secs(60)))
        .unwrap();
    assert!(events
        .iter()
        .any(|event| event.token() == DONE && event.is_readable()));
}
