//! Operations on tokens, of any contender; and some on ours alone.

use std::future::Future;
use std::hint::black_box;
use std::marker::PhantomData;
use std::pin::pin;
use std::task::{Context, Waker};

use cancel_tree::CancellationToken;

use super::{operations, Measure, Operation};
use crate::contenders::CancelTree;

// Polls use a waker that is free to clone and to drop.
operations! {
    Read<T: CancelTree>, "read", "read the flag", T::root(),
    |token: &T, measure| measure.again(|| {
        black_box(black_box(token).is_cancelled());
    });

    RootDrop<T: CancelTree>, "root_drop", "create + drop a root", (),
    |_nothing: &(), measure| measure.again(|| drop(black_box(T::root())));

    CreateFirst<T: CancelTree>, "create_first", "create the first child of a parent", (),
    |_nothing: &(), measure| measure.afresh(
        || (T::root(), None),
        |(parent, child)| *child = Some(black_box(black_box(&*parent).child())),
    );

    CreateDrop<T: CancelTree>, "create_drop", "create + drop a child", T::root(),
    |parent: &T, measure| measure.again(|| drop(black_box(black_box(parent).child())));

    CreateCancelDrop<T: CancelTree>, "create_cancel_drop", "create + cancel + drop a child", T::root(),
    |parent: &T, measure| measure.again(|| {
        let child = black_box(parent).child();
        black_box(&child).cancel();
    });

    Request<T: CancelTree>, "request", "a request: child, 3 grandchildren, cancel, drop all", T::root(),
    |server: &T, measure| measure.again(|| {
        let request = black_box(server).child();
        let tasks = black_box([request.child(), request.child(), request.child()]);
        request.cancel();
        drop(tasks);
    });

    CloneDrop<T: CancelTree>, "clone_drop", "clone + drop", T::root(),
    |token: &T, measure| measure.again(|| drop(black_box(black_box(token).clone())));

    FirstPoll<T: CancelTree>, "first_poll", "first poll + drop of `cancelled()`", T::root(),
    |token: &T, measure| measure.again(|| {
        let context = &mut Context::from_waker(Waker::noop());
        black_box(pin!(black_box(token).cancelled()).poll(context).is_ready());
    });

    PollAgain<T: CancelTree>, "poll_again", "poll `cancelled()` again", T::root(),
    |token: &T, measure| {
        // One waker for all: who asks for the no-op waker twice may get two that look different.
        let context = &mut Context::from_waker(Waker::noop());
        let mut future = pin!(token.cancelled());
        assert!(future.as_mut().poll(context).is_pending());
        measure.again(|| {
            black_box(black_box(&mut future).as_mut().poll(context).is_ready());
        });
    };

    WaitCancel<T: CancelTree>, "wait_cancel", "a wait that ends: child, first poll, cancel, poll, drop", T::root(),
    |parent: &T, measure| measure.again(|| {
        let context = &mut Context::from_waker(Waker::noop());
        let token = black_box(parent).child();
        let mut future = pin!(token.cancelled());
        black_box(future.as_mut().poll(context).is_pending());
        black_box(&token).cancel();
        black_box(future.poll(context).is_ready());
    });

    OnCancel, "on_cancel_stop", "`on_cancel` + `stop`", CancellationToken::new(),
    |token: &CancellationToken, measure| measure.again(|| {
        let captured = black_box(7);
        let callback = move || {
            black_box(captured);
        };
        black_box(black_box(token).on_cancel(callback).stop());
    });

    AnyOf, "any_of_drop", "`any_of` two tokens + drop", [CancellationToken::new(), CancellationToken::new()],
    |sources: &[CancellationToken; 2], measure| measure.again(|| {
        drop(black_box(CancellationToken::any_of(black_box(sources))));
    });
}

/// Cancel a token with `N` children that wait for nothing; per node.
pub struct CancelWide<T, const N: usize>(PhantomData<T>);

impl<T: CancelTree, const N: usize> Operation for CancelWide<T, N> {
    const NAME: &'static str = "cancel_node";
    const ABOUT: &'static str = "cancel a wide tree, per node";
    const UNITS: u64 = N as u64 + 1;

    type Shared = T;

    fn share() -> T {
        T::root()
    }

    fn on(root: &T, measure: &mut impl Measure) {
        measure.afresh(
            || {
                let parent = root.child();
                let children: Vec<T> = (0..N).map(|_| parent.child()).collect();
                (parent, children)
            },
            |(parent, _)| black_box(&*parent).cancel(),
        );
    }
}
