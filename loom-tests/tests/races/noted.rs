//! What is noted of what has a name, against who reads it: of tasks, of threads, of names; and who is told.

use cancel_tree::noted::{each, each_since, observe, tell, Event, Name, Observer, Task, Thread};
use cancel_tree::Context;
use cancel_tree_loom::{model_in_all_orders, spawn, Token, USUAL};
use loom::cell::UnsafeCell;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::Arc;

/// Whoever finds the first poll since the cancel knows what came before.
#[test]
fn first_poll_since_the_cancel_vs_report() {
    model_in_all_orders(USUAL, || {
        let task = Arc::new(Task::new());
        let reader = task.clone();
        let thread = spawn(move || reader.times());
        task.poll(false);
        task.poll(true);
        assert!(thread.join().unwrap() <= 1, "polls from before the cancel");
        assert_eq!(task.times(), 1);
    });
}

/// Whoever finds that a thread has the task finds that it has looked.
#[test]
fn task_becomes_a_thread_vs_report() {
    model_in_all_orders(USUAL, || {
        let task = Arc::new(Task::new());
        task.poll(true);
        let reader = task.clone();
        let thread = spawn(move || reader.times());
        task.is_thread_that_has_looked();
        assert_eq!(thread.join().unwrap(), 1);
    });
}

/// What tells it to stop is asked as it was when it was said.
#[test]
fn task_is_told_by_a_context_of_its_own_vs_report() {
    model_in_all_orders(USUAL, || {
        let task = Arc::new(Task::new());
        let (ctx, guard) = Context::background().with_cancel();
        let reader = task.clone();
        let thread = spawn(move || reader.is_told(true));
        guard.cancel();
        task.is_told_by(&ctx);
        assert!(thread.join().unwrap());
    });
}

/// Whoever finds that a thread has looked finds when.
#[test]
fn look_of_a_thread_vs_report() {
    model_in_all_orders(USUAL, || {
        let thread = Thread::new();
        let reader = thread.clone();
        let other = spawn(move || reader.told());
        thread.look();
        let (times, when) = other.join().unwrap();
        assert!(times == 0 || when, "it has looked, and nobody knows when");
    });
}

/// Whoever finds when something was cancelled finds who has done it.
#[test]
fn cancel_of_a_name_vs_snapshot() {
    model_in_all_orders(Some(2), || {
        let token = Token::new();
        let name = Name::new(&token);
        let other = token.clone();
        let thread = spawn(move || other.cancel());
        each(|is_cancelled, is_noted, by| {
            assert!(is_cancelled || !is_noted);
            assert!(by.is_some() || !is_noted);
        });
        thread.join().unwrap();
        let mut met = 0;
        each(|is_cancelled, is_noted, _| met += usize::from(is_cancelled && is_noted));
        assert_eq!(met, 1);
        drop(name);
    });
}

/// Of the canceller and a task that has found out, whoever comes first says since when; so nobody finds out and has no time.
#[test]
fn cancel_of_a_name_vs_first_poll() {
    model_in_all_orders(USUAL, || {
        let token = Token::new();
        let name = Name::new(&token);
        let other = token.clone();
        let thread = spawn(move || other.cancel());
        let mut found = None;
        each_since(|is_cancelled, since, _| {
            assert_eq!(is_cancelled, since.is_some());
            found = since;
        });
        thread.join().unwrap();
        each_since(|_, since, by| {
            assert!(by.is_some());
            assert!(found.is_none() || found == since, "two times");
        });
        drop(name);
    });
}

/// Whoever lets go of a name that is cancelled tells it, unless the canceller does.
#[test]
fn end_of_a_name_vs_cancel_is_told_once() {
    model_in_all_orders(USUAL, || {
        let counts = Arc::new([const { AtomicUsize::new(0) }; 2]);
        observe(Told::new(&counts));
        let token = Token::new();
        let name = Name::new(&token);
        let other = token.clone();
        let thread = spawn(move || other.cancel());
        let is_cancelled = token.is_cancelled();
        drop(name);
        thread.join().unwrap();
        let told = counts[1].load(Relaxed);
        assert!(told <= 1, "told twice");
        assert!(told == 1 || !is_cancelled, "told to nobody");
    });
}

/// A reader that puts away the name takes back the note, which the canceller may be at.
#[test]
fn end_of_a_name_vs_snapshot_vs_cancel() {
    model_in_all_orders(Some(1), || {
        let token = Token::new();
        let name = Name::new(&token);
        let other = token.clone();
        let canceller = spawn(move || other.cancel());
        let reader = spawn(|| {
            let mut met = 0;
            each(|_, _, _| met += 1);
            met
        });
        drop(name);
        assert!(reader.join().unwrap() <= 1);
        canceller.join().unwrap();
        each(|_, _, _| panic!("it has ended"));
    });
}

/// It stays for ever, so it has nothing of which loom says that it is leaked.
struct Told {
    made: UnsafeCell<bool>,
    /// How often it began, and came to an end: a panic in it is nobody else's.
    counts: Arc<[AtomicUsize; 2]>,
}

// SAFETY: loom reports every race on the cell.
unsafe impl Send for Told {}
// SAFETY: as above.
unsafe impl Sync for Told {}

impl Told {
    fn new(counts: &Arc<[AtomicUsize; 2]>) -> Told {
        let (made, counts) = (UnsafeCell::new(false), counts.clone());
        // SAFETY: nobody else has it yet.
        made.with_mut(|made| unsafe { *made = true });
        Told { made, counts }
    }
}

impl Observer for Told {
    fn tell(&self, _: &Event<'_>) {
        self.counts[0].fetch_add(1, Relaxed);
        // SAFETY: loom checks it.
        assert!(self.made.with(|made| unsafe { *made }));
        self.counts[1].fetch_add(1, Relaxed);
    }
}

/// Whoever is told is told whole, and both are told in the end.
#[test]
fn observer_comes_vs_another_one_vs_what_happens() {
    model_in_all_orders(Some(2), || {
        let counts = Arc::new([const { AtomicUsize::new(0) }; 2]);
        let counted = counts.clone();
        let first = spawn(move || observe(Told::new(&counted)));
        let third = spawn(tell);
        observe(Told::new(&counts));
        third.join().unwrap();
        first.join().unwrap();
        let before = counts[1].load(Relaxed);
        assert!(before <= 2);
        assert_eq!(before, counts[0].load(Relaxed), "told half");
        tell();
        assert_eq!(counts[1].load(Relaxed), before + 2);
    });
}
