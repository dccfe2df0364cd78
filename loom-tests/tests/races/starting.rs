//! The start of the service's thread.

use cancel_tree::starting::{self, Bed, OneThread};
use cancel_tree::{Context, Service};
use cancel_tree_loom::{model, model_in_all_orders, spawn, UNBOUNDED, USUAL};
use loom::thread::JoinHandle;
use std::cell::RefCell;
use std::sync::Arc;

type One = Arc<OneThread<Bed>>;

/// Starts a thread that sleeps until it is woken, if it is the one that stays: whether it was.
fn start(one: &One) -> Option<JoinHandle<bool>> {
    let started = RefCell::new(None);
    one.start(|| {
        let bed = Bed::new();
        let (one, own) = (one.clone(), bed.clone());
        started.replace(Some(spawn(move || {
            let stays = one.stay(&own);
            if stays {
                own.sleep();
            }
            stays
        })));
        Some(bed)
    });
    started.take()
}

/// Whether a thread was started, and is the one that stays.
fn stays(started: Option<JoinHandle<bool>>) -> usize {
    started.map_or(0, |thread| usize::from(thread.join().unwrap()))
}

/// Who has started it finds it running, and can wake it.
#[test]
fn start_vs_its_thread() {
    model_in_all_orders(UNBOUNDED, || {
        let one = One::new(OneThread::new());
        assert!(!one.is_running() && !one.is_missing());
        let started = start(&one);
        assert!(one.is_running() && !one.is_missing());
        one.start(|| unreachable!());
        one.wake();
        assert_eq!(stays(started), 1);
    });
}

/// Of the threads that they start one stays, and both can wake it.
#[test]
fn start_vs_start() {
    // Too many executions at 3: bound 2.
    model_in_all_orders(Some(2), || {
        let one = One::new(OneThread::new());
        let also = one.clone();
        let other = spawn(move || {
            let started = start(&also);
            assert!(also.is_running());
            also.wake();
            stays(started)
        });
        let started = start(&one);
        assert!(one.is_running());
        one.wake();
        assert_eq!(stays(started) + other.join().unwrap(), 1);
        assert!(!one.is_missing());
    });
}

/// Whoever comes by starts it after a start that has failed.
#[test]
fn start_that_fails_vs_start_vs_look() {
    model_in_all_orders(USUAL, || {
        let one = One::new(OneThread::new());
        // Nobody needs it.
        one.look(|| unreachable!());
        let also = one.clone();
        let other = spawn(move || {
            let started = start(&also);
            also.wake();
            stays(started)
        });
        one.start(|| None);
        assert!(one.is_missing() || one.is_running());
        // Not again if it is there.
        let is_there = one.is_running();
        let tried = RefCell::new(false);
        one.look(|| {
            tried.replace(true);
            None
        });
        assert!(!(is_there && tried.take()));
        assert_eq!(other.join().unwrap(), 1);
        assert!(one.is_running());
    });
}

/// It stays missing until somebody comes by.
#[test]
fn look_vs_look_after_a_start_that_has_failed() {
    model(USUAL, || {
        fn look(one: &One) -> usize {
            let started = RefCell::new(None);
            one.look(|| {
                let bed = Bed::new();
                let (one, own) = (one.clone(), bed.clone());
                started.replace(Some(spawn(move || usize::from(one.stay(&own)))));
                Some(bed)
            });
            assert!(one.is_running());
            started.take().map_or(0, |thread| thread.join().unwrap())
        }
        let one = One::new(OneThread::new());
        one.start(|| None);
        assert!(one.is_missing() && !one.is_running());
        let also = one.clone();
        let other = spawn(move || look(&also));
        assert_eq!(look(&one) + other.join().unwrap(), 1);
    });
}

// ----- with the inbox ---------------------------------------------------------------------------

std::thread_local! {
    /// Of the execution that this OS thread is at.
    static STAGE: RefCell<Stage> = RefCell::default();
}

#[derive(Default)]
struct Stage {
    /// How many callbacks are to run yet.
    left: usize,
    /// Whether the next start fails.
    fails: bool,
    started: Vec<JoinHandle<()>>,
}

fn stage<R>(f: impl FnOnce(&mut Stage) -> R) -> R {
    STAGE.with(|stage| f(&mut stage.borrow_mut()))
}

/// A service thread that goes when all callbacks have run.
fn spawn_service() -> Option<Bed> {
    let fails = stage(|stage| std::mem::take(&mut stage.fails));
    if fails {
        return None;
    }
    let bed = Bed::new();
    let own = bed.clone();
    let thread = spawn(move || {
        if starting::stay(&own) {
            let mut service = Service::new();
            while stage(|stage| stage.left) != 0 {
                service.run_until_something_comes();
            }
        }
        Service::end_of_thread();
    });
    stage(|stage| stage.started.push(thread));
    Some(bed)
}

fn begin(left: usize, fails: bool) {
    let started = Vec::new();
    let new = Stage {
        left,
        fails,
        started,
    };
    stage(|stage| *stage = new);
    starting::starts_by(spawn_service);
}

/// Until the threads that were started are gone.
fn end() {
    while let Some(thread) = stage(|stage| stage.started.pop()) {
        thread.join().unwrap();
    }
}

/// Has a callback run by the service.
fn push() {
    let (ctx, guard) = Context::background().with_cancel();
    guard.cancel();
    drop(ctx.after_func(|| stage(|stage| stage.left -= 1)));
    drop(ctx);
    Service::end_of_thread();
}

/// What is pushed is not slept through: the thread's first look finds it, or the thread is woken.
#[test]
fn push_vs_the_start_by_another_push() {
    // Too many executions at 3: bound 2.
    model(Some(2), || {
        begin(2, false);
        let other = spawn(push);
        push();
        other.join().unwrap();
        end();
    });
}

/// What was pushed before the thread could be had is found by it, whoever starts it then.
#[test]
fn push_whose_start_fails_vs_push() {
    // Too many executions at 3: bound 2.
    model(Some(2), || {
        begin(2, true);
        let other = spawn(push);
        push();
        other.join().unwrap();
        end();
    });
}
