//! One function for the channels of five crates: a thread that takes what there is until the context is done.

use cancel_tree::{Context, ContextError};
use std::future::Future;
use std::thread;
use std::time::{Duration, Instant};

const MESSAGES: u32 = 2000;
const SOON: Duration = Duration::from_millis(50);

/// A channel of another crate.
trait Channel: Sized {
    type To: Send + 'static;
    type From: Send + 'static;
    fn new() -> (Self::To, Self::From);
    fn send(to: &mut Self::To, n: u32) -> impl Future<Output = bool>;
    fn recv(from: &mut Self::From) -> impl Future<Output = Option<u32>>;
}

macro_rules! channels {
    ($($name:ident: $new:expr, $To:ty, $From:ty, |$to:ident, $n:ident| $send:expr, |$from:ident| $recv:expr;)*) => {$(
        mod $name {
            use super::*;

            struct Its;

            impl Channel for Its {
                type To = $To;
                type From = $From;

                fn new() -> (Self::To, Self::From) {
                    $new
                }

                async fn send($to: &mut Self::To, $n: u32) -> bool {
                    $send
                }

                async fn recv($from: &mut Self::From) -> Option<u32> {
                    $recv
                }
            }

            #[test]
            fn all_arrive_and_a_cancel_ends_the_receiver() {
                super::all_arrive_and_a_cancel_ends_the_receiver::<Its>();
            }

            #[test]
            fn a_deadline_ends_a_sender_that_has_no_room() {
                super::a_deadline_ends_a_sender_that_has_no_room::<Its>();
            }

            #[test]
            fn the_senders_end_is_seen() {
                super::the_senders_end_is_seen::<Its>();
            }
        }
    )*};
}

channels! {
    flume_: flume::bounded(4), flume::Sender<u32>, flume::Receiver<u32>,
        |to, n| to.send_async(n).await.is_ok(), |from| from.recv_async().await.ok();
    kanal_: kanal::bounded_async(4), kanal::AsyncSender<u32>, kanal::AsyncReceiver<u32>,
        |to, n| to.send(n).await.is_ok(), |from| from.recv().await.ok();
    async_channel_: async_channel::bounded(4), async_channel::Sender<u32>, async_channel::Receiver<u32>,
        |to, n| to.send(n).await.is_ok(), |from| from.recv().await.ok();
    tokio_: tokio::sync::mpsc::channel(4), tokio::sync::mpsc::Sender<u32>, tokio::sync::mpsc::Receiver<u32>,
        |to, n| to.send(n).await.is_ok(), |from| from.recv().await;
    futures_: futures::channel::mpsc::channel(4), futures::channel::mpsc::Sender<u32>, futures::channel::mpsc::Receiver<u32>,
        |to, n| futures::SinkExt::send(to, n).await.is_ok(), |from| futures::StreamExt::next(from).await;
}

fn all_arrive_and_a_cancel_ends_the_receiver<C: Channel>() {
    let (ctx, guard) = Context::background().with_cancel();
    let (mut to, mut from) = C::new();
    let sender = thread::spawn({
        let ctx = ctx.clone();
        move || {
            for n in 0..MESSAGES {
                assert_eq!(ctx.block_on(C::send(&mut to, n)), Ok(true));
            }
            to
        }
    });
    let receiver = thread::spawn(move || {
        for n in 0..MESSAGES {
            assert_eq!(ctx.block_on(C::recv(&mut from)), Ok(Some(n)));
        }
        ctx.block_on(C::recv(&mut from))
    });
    let to = sender.join().unwrap();
    thread::sleep(SOON);
    guard.cancel();
    assert_eq!(receiver.join().unwrap(), Err(ContextError::Cancelled));
    drop(to);
}

fn a_deadline_ends_a_sender_that_has_no_room<C: Channel>() {
    let begin = Instant::now();
    let (ctx, _guard) = Context::background().with_timeout(SOON);
    let (mut to, mut from) = C::new();
    let mut sent = 0;
    let error = loop {
        match ctx.block_on(C::send(&mut to, sent)) {
            Ok(there) => assert!(there),
            Err(error) => break error,
        }
        sent += 1;
        assert!(sent < 10);
    };
    assert_eq!(error, ContextError::DeadlineExceeded);
    assert!(begin.elapsed() >= SOON);
    // What was in it is still there, and it still works.
    let background = Context::background();
    for n in 0..sent {
        assert_eq!(background.block_on(C::recv(&mut from)), Ok(Some(n)));
    }
}

fn the_senders_end_is_seen<C: Channel>() {
    let token = cancel_tree::CancellationToken::new();
    let (to, mut from) = C::new();
    thread::scope(|s| {
        s.spawn(move || {
            thread::sleep(SOON);
            drop(to);
        });
        assert_eq!(token.block_on(C::recv(&mut from)), Some(None));
    });
    token.cancel();
    assert_eq!(token.block_on(C::recv(&mut from)), None);
}
