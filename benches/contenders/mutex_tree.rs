//! The textbook's answer, which is also Go's: a mutex in each node, around a set of children and one of waiters.
//!
//! As good as it gets without leaving the book: slabs instead of hash maps, a flag that is read without the lock, no
//! recursion, wakers that are called outside of the lock, and no system call for a token that nobody waits for.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::thread::{self, Thread};

use slab::{IntoIter, Slab};

use super::sync::{Arc, AtomicBool, Mutex, MutexGuard, Weak};
use super::CancelTree;

#[derive(Clone)]
pub struct Token(Arc<Node>);

pub struct Node {
    /// And the place among its children. A child keeps its parent; a parent does not keep its children.
    parent: Option<(Arc<Node>, usize)>,
    /// Set under the lock, and nothing is added below it afterwards.
    is_cancelled: AtomicBool,
    below: Mutex<Below>,
}

#[derive(Default)]
struct Below {
    children: Slab<Weak<Node>>,
    waiters: Slab<Waiter>,
}

enum Waiter {
    Task(Waker),
    Thread(Thread),
}

impl Node {
    fn new(parent: Option<(Arc<Node>, usize)>, is_cancelled: bool) -> Arc<Self> {
        Arc::new(Self {
            parent,
            is_cancelled: AtomicBool::new(is_cancelled),
            below: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Below> {
        self.below.lock().expect("nobody panics with it")
    }

    #[inline]
    fn is_cancelled(&self) -> bool {
        self.is_cancelled.load(Ordering::Acquire)
    }

    /// Leaves the parent, if there is one, for the caller to drop.
    fn unlink(&mut self) -> Option<Arc<Node>> {
        let (parent, place) = self.parent.take()?;
        // Gone already if the parent was cancelled, for then it let go of all.
        parent.lock().children.try_remove(place);
        Some(parent)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // In a loop, for a long chain would need more stack than there is.
        let mut parent = self.unlink();
        while let Some(mut node) = parent.and_then(Arc::into_inner) {
            parent = node.unlink();
        }
    }
}

impl CancelTree for Token {
    const NAME: &'static str = "mutex_tree";
    const ABOUT: &'static str = "a mutex in each node, as textbooks and Go have it, with slabs";
    const PACKAGE: Option<&'static str> = None;

    fn root() -> Self {
        Self(Node::new(None, false))
    }

    fn child(&self) -> Self {
        let mut below = self.0.lock();
        if self.0.is_cancelled() {
            return Self(Node::new(None, true));
        }
        let place = below.children.vacant_entry();
        let child = Node::new(Some((self.0.clone(), place.key())), false);
        place.insert(Arc::downgrade(&child));
        Self(child)
    }

    fn cancel(&self) {
        // Children that are still to come; nothing for a leaf.
        let mut to_cancel: Vec<IntoIter<Weak<Node>>> = Vec::new();
        let mut node = self.0.clone();
        loop {
            let Below { children, waiters } = {
                let mut below = node.lock();
                node.is_cancelled.store(true, Ordering::Release);
                // Nothing is left of a node that was cancelled before.
                mem::take(&mut *below)
            };
            for (_, waiter) in waiters {
                match waiter {
                    Waiter::Task(waker) => waker.wake(),
                    Waiter::Thread(thread) => thread.unpark(),
                }
            }
            if !children.is_empty() {
                to_cancel.push(children.into_iter());
            }
            node = loop {
                let Some(siblings) = to_cancel.last_mut() else {
                    return;
                };
                let child = siblings.next().and_then(|(_, child)| child.upgrade());
                if siblings.len() == 0 {
                    to_cancel.pop();
                }
                if let Some(child) = child {
                    break child;
                }
            };
        }
    }

    #[inline]
    fn is_cancelled(&self) -> bool {
        self.0.is_cancelled()
    }

    fn cancelled(&self) -> impl Future<Output = ()> + Send {
        Cancelled {
            node: &self.0,
            place: None,
        }
    }

    fn wait(&self) {
        let mut below = self.0.lock();
        if !self.0.is_cancelled() {
            below.waiters.insert(Waiter::Thread(thread::current()));
        }
        drop(below);
        while !self.0.is_cancelled() {
            thread::park();
        }
    }
}

struct Cancelled<'a> {
    node: &'a Node,
    /// Among the waiters, once polled.
    place: Option<usize>,
}

impl Future for Cancelled<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.node.is_cancelled() {
            return Poll::Ready(());
        }
        let mut below = self.node.lock();
        // As nobody sets it while the lock is held.
        if self.node.is_cancelled() {
            return Poll::Ready(());
        }
        let former = match self.place {
            Some(place) => match &mut below.waiters[place] {
                Waiter::Task(waker) if waker.will_wake(cx.waker()) => None,
                waiter => Some(mem::replace(waiter, Waiter::Task(cx.waker().clone()))),
            },
            None => {
                self.place = Some(below.waiters.insert(Waiter::Task(cx.waker().clone())));
                None
            }
        };
        drop(below);
        // It is the user's, and may do anything, if only outside of the lock.
        drop(former);
        Poll::Pending
    }
}

impl Drop for Cancelled<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            // Gone already if the token was cancelled.
            let _waiter = self.node.lock().waiters.try_remove(place);
        }
    }
}
