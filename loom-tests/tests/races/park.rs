//! A thread that waits, and what else its permit and its seat are used for.

use cancel_tree::parking::{self, until};
use cancel_tree_loom::{model, reached, spawn, Token, UNBOUNDED, USUAL};
use loom::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

/// A flag that orders nothing: the waiter sees it because it was told.
#[derive(Clone)]
struct Flag(Arc<AtomicBool>);

impl Flag {
    fn new() -> Flag {
        Flag(Arc::new(AtomicBool::new(false)))
    }

    fn set(&self) {
        self.0.store(true, Relaxed);
    }

    fn get(&self) -> bool {
        self.0.load(Relaxed)
    }
}

/// A thread that sets the flag, then tells who waits.
fn tell(flag: &Flag, waker: &Waker) -> loom::thread::JoinHandle<()> {
    let (flag, waker) = (flag.clone(), waker.clone());
    spawn(move || {
        flag.set();
        waker.wake();
    })
}

#[test]
fn told_vs_wait() {
    model(UNBOUNDED, || {
        let flag = Flag::new();
        let mut teller = None;
        until(|waker| {
            teller.get_or_insert_with(|| tell(&flag, waker));
            flag.get()
        });
        teller.unwrap().join().unwrap();
    });
}

/// Who finds that it has been told by one has to see what the other did as well.
#[test]
fn told_by_two_vs_wait() {
    model(USUAL, || {
        let (one, two) = (Flag::new(), Flag::new());
        let mut tellers = None;
        until(|waker| {
            tellers.get_or_insert_with(|| [tell(&one, waker), tell(&two, waker)]);
            // Both, always: a load that is left out is not ordered.
            one.get() & two.get()
        });
        for teller in tellers.unwrap() {
            teller.join().unwrap();
        }
    });
}

/// What is waited for takes the thread's permit for a sleep of its own.
#[test]
fn told_vs_park_within_the_wait() {
    model(UNBOUNDED, || {
        let flag = Flag::new();
        let mut teller = None;
        until(|waker| {
            let first = teller.is_none();
            teller.get_or_insert_with(|| tell(&flag, waker));
            // Looks, and takes the permit afterwards.
            let seen = flag.get();
            if first {
                parking::current().unpark();
                parking::park();
            }
            seen
        });
        teller.unwrap().join().unwrap();
    });
}

/// The wait within must not take what the outer one is told.
#[test]
fn told_vs_wait_within_the_wait() {
    model(USUAL, || {
        let (outer, inner) = (Flag::new(), Flag::new());
        let mut tellers = None;
        until(|waker| {
            if tellers.is_some() {
                return outer.get();
            }
            let first = tell(&outer, waker);
            // Looks, and waits for something else afterwards.
            let seen = outer.get();
            let mut second = None;
            until(|waker| {
                second.get_or_insert_with(|| tell(&inner, waker));
                inner.get()
            });
            tellers = Some([first, second.unwrap()]);
            seen
        });
        for teller in tellers.unwrap() {
            teller.join().unwrap();
        }
    });
}

/// A waker that somebody has kept from an earlier wait.
#[test]
fn late_wake_vs_next_wait() {
    model(USUAL, || {
        let kept = Mutex::new(None);
        until(|waker| {
            *kept.lock().unwrap() = Some(waker.clone());
            true
        });
        let late = kept.into_inner().unwrap().unwrap();
        let late = spawn(move || late.wake());
        let flag = Flag::new();
        let mut teller = None;
        until(|waker| {
            teller.get_or_insert_with(|| tell(&flag, waker));
            flag.get()
        });
        late.join().unwrap();
        teller.unwrap().join().unwrap();
    });
}

/// The same, when the thread that waited has gone.
#[test]
fn late_wake_vs_end_of_the_thread() {
    model(UNBOUNDED, || {
        let kept = Arc::new(Mutex::new(None));
        let slot = kept.clone();
        let sleeper = spawn(move || {
            until(|waker| {
                *slot.lock().unwrap() = Some(waker.clone());
                true
            });
        });
        let waker = kept.lock().unwrap().take();
        if let Some(waker) = waker {
            waker.wake();
        }
        sleeper.join().unwrap();
        drop(kept.lock().unwrap().take());
    });
}

/// Two waits in turn on one seat; the first may be over before its canceller has told it.
#[test]
fn two_waits_in_turn_vs_cancel_of_each() {
    // Too many executions at 3: bound 2.
    model(Some(2), || {
        let (one, two) = (Token::new(), Token::new());
        let (first, second) = (one.clone(), two.clone());
        let a = spawn(move || first.cancel());
        let b = spawn(move || second.cancel());
        one.blocking_wait();
        reached(&one);
        two.blocking_wait();
        reached(&two);
        a.join().unwrap();
        b.join().unwrap();
    });
}

/// Somebody else's permit comes while the thread waits: its next `park` finds it.
#[test]
fn permit_vs_wait() {
    model(UNBOUNDED, || {
        let token = Token::new();
        let (me, other) = (parking::current(), token.clone());
        let giver = spawn(move || {
            me.unpark();
            other.cancel();
        });
        token.blocking_wait();
        parking::park();
        giver.join().unwrap();
    });
}

/// The same with the permit and the cancel by two threads.
#[test]
fn permit_vs_wait_vs_cancel() {
    model(USUAL, || {
        let token = Token::new();
        let (me, other) = (parking::current(), token.clone());
        let giver = spawn(move || me.unpark());
        let canceller = spawn(move || other.cancel());
        token.blocking_wait();
        parking::park();
        giver.join().unwrap();
        canceller.join().unwrap();
    });
}

/// A thread that waits for a future: what wakes that, and the cancel, which comes after it. A lost wake-up is a deadlock.
#[test]
fn block_on_vs_wake_vs_cancel() {
    model(USUAL, || {
        let (flag, token) = (Flag::new(), Token::new());
        let other = token.clone();
        let canceller = spawn(move || other.cancel());
        let mut teller = None;
        let outcome = token.block_on(poll_fn(|cx| {
            teller.get_or_insert_with(|| tell(&flag, cx.waker()));
            match flag.get() {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        }));
        if outcome.is_none() {
            reached(&token);
        }
        if let Some(teller) = teller {
            teller.join().unwrap();
        }
        canceller.join().unwrap();
        assert!(token.block_on(std::future::pending::<()>()).is_none());
    });
}

/// What was ready before the cancel is not lost.
#[test]
fn block_on_vs_ready_and_cancel() {
    model(UNBOUNDED, || {
        let (flag, token) = (Flag::new(), Token::new());
        let mut teller = None;
        let outcome = token.block_on(poll_fn(|cx| {
            teller.get_or_insert_with(|| {
                let (flag, token, waker) = (flag.clone(), token.clone(), cx.waker().clone());
                spawn(move || {
                    flag.set();
                    waker.wake();
                    token.cancel();
                })
            });
            match flag.get() {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        }));
        assert!(outcome.is_some(), "lost");
        teller.unwrap().join().unwrap();
    });
}
