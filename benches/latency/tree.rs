//! What is cancelled: the tree of a contender, or the least that could take its place.

use std::future::{poll_fn, Future};
use std::iter;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use futures::executor::block_on;
use futures::task::AtomicWaker;

use crate::contenders::CancelTree;
use crate::shape::Shape;

pub trait Tree: Send + Sync + 'static {
    fn build(shape: &Shape) -> Self;

    /// Cancels the root.
    fn cancel(&self);

    // By the number of the token.
    fn is_cancelled(&self, token: usize) -> bool;
    fn cancelled(&self, token: usize) -> impl Future<Output = ()> + Send;
    fn wait(&self, token: usize);
}

/// A contender's tokens, all of which somebody holds.
pub struct Tokens<T>(Vec<T>);

impl<T: CancelTree> Tree for Tokens<T> {
    fn build(shape: &Shape) -> Self {
        let mut tokens = Vec::with_capacity(shape.len() + 1);
        tokens.push(T::root());
        for &parent in &shape.parents {
            let token = tokens[parent].child();
            tokens.push(token);
        }
        Self(tokens)
    }

    fn cancel(&self) {
        self.0[0].cancel();
    }

    fn is_cancelled(&self, token: usize) -> bool {
        self.0[token].is_cancelled()
    }

    fn cancelled(&self, token: usize) -> impl Future<Output = ()> + Send {
        self.0[token].cancelled()
    }

    fn wait(&self, token: usize) {
        self.0[token].wait();
    }
}

/// A flag for each token, in a row and a cache line each, and nothing that needs to be found: whatever the shape, they
/// are set one after the other, and whoever waits for one is woken at once.
pub struct Row(Vec<Flag>);

#[derive(Default)]
#[repr(align(64))]
struct Flag {
    bits: AtomicUsize,
    waker: AtomicWaker,
}

const SET: usize = 1;
const AWAITED: usize = 2;

impl Flag {
    fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.waker.register(cx.waker());
        // Release, so that `cancel` finds the waker; Acquire, as for everybody who reads a flag.
        match self.bits.fetch_or(AWAITED, Ordering::AcqRel) & SET {
            0 => Poll::Pending,
            _ => Poll::Ready(()),
        }
    }
}

impl Tree for Row {
    fn build(shape: &Shape) -> Self {
        let flags = iter::repeat_with(Flag::default);
        Self(flags.take(shape.len() + 1).collect())
    }

    fn cancel(&self) {
        for flag in &self.0 {
            if flag.bits.fetch_or(SET, Ordering::AcqRel) & AWAITED != 0 {
                flag.waker.wake();
            }
        }
    }

    fn is_cancelled(&self, token: usize) -> bool {
        self.0[token].bits.load(Ordering::Acquire) & SET != 0
    }

    fn cancelled(&self, token: usize) -> impl Future<Output = ()> + Send {
        poll_fn(move |cx| self.0[token].poll(cx))
    }

    fn wait(&self, token: usize) {
        block_on(self.cancelled(token));
    }
}
