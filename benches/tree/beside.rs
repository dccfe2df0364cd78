//! What a thread does while another is at work on the same tree, and the loop of a task that waits for its cancel beside
//! other things.

use std::hint::{self, black_box};
use std::iter;
use std::mem;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, Criterion, SamplingMode};
use futures::FutureExt;
use tokio::sync::mpsc;

use crate::contenders::{each_contender, CancelTree};
use crate::machine::floor::Flag;
use crate::machine::{cores, threads};
use crate::small::poll_and_drop;

type Group<'a> = BenchmarkGroup<'a, WallTime>;

/// Stands in for what is busy while a floor is measured.
type Ours = cancel_tree::CancellationToken;

pub fn all(c: &mut Criterion) {
    if cores::has_two() {
        beside_another_thread(c);
    }

    let mut group = open(c, "select_anew");
    select_floor(&mut group);
    each_contender!(select_anew, &mut group, [Async]);
    group.finish();

    let mut group = open(c, "select_kept");
    select_floor(&mut group);
    each_contender!(select_kept, &mut group, [Async]);
    group.finish();
}

fn beside_another_thread(c: &mut Criterion) {
    let mut group = open(c, "create_drop_beside_cancels");
    each_contender!(create_drop_beside_cancels, &mut group, [Children, Churn]);
    group.finish();

    let mut group = open(c, "read_beside_waits");
    let busy = Ours::root();
    read_floor(&mut group, || {
        black_box(poll_and_drop(&busy));
    });
    each_contender!(read_beside_waits, &mut group, [Async]);
    group.finish();

    let mut group = open(c, "read_beside_clones");
    let busy = Ours::root();
    read_floor(&mut group, || drop(black_box(busy.clone())));
    each_contender!(read_beside_clones, &mut group, [CloneToCancel]);
    group.finish();

    let mut group = open(c, "cancel_beside_reads");
    each_contender!(cancel_beside_reads, &mut group, [Children, Churn]);
    group.finish();
}

/// In less time than where there are aims.
fn open<'a>(c: &'a mut Criterion, name: &str) -> Group<'a> {
    let mut group = c.benchmark_group(name);
    group
        .sampling_mode(SamplingMode::Flat)
        .sample_size(50)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800));
    group
}

/// The other thread makes siblings, each of which it cancels and drops.
fn create_drop_beside_cancels<T: CancelTree>(group: &mut Group) {
    let parent = T::root();
    threads::while_busy(
        || black_box(parent.child()).cancel(),
        || {
            group.bench_function(T::NAME, |b| {
                b.iter(|| drop(black_box(black_box(&parent).child())));
            });
        },
    );
}

/// The other core is as busy as it is for `cancel_tree`, but with a token of its own.
fn read_floor(group: &mut Group, op: impl Fn() + Sync) {
    let flag = Flag::new();
    threads::while_busy(op, || {
        group.bench_function("floor", |b| b.iter(|| black_box(&flag).is_set()));
    });
}

fn read_while<T: CancelTree>(group: &mut Group, op: impl Fn(&T) + Sync) {
    let token = T::root();
    threads::while_busy(
        || op(&token),
        || {
            group.bench_function(T::NAME, |b| b.iter(|| black_box(&token).is_cancelled()));
        },
    );
}

fn read_beside_waits<T: CancelTree>(group: &mut Group) {
    read_while(group, |token: &T| {
        black_box(poll_and_drop(token));
    });
}

fn read_beside_clones<T: CancelTree>(group: &mut Group) {
    read_while(group, |token: &T| drop(black_box(token.clone())));
}

/// A token with ten children, and a hundred less one below each of those.
struct Thousand<T> {
    top: T,
    below: Vec<T>,
}

impl<T: CancelTree> Thousand<T> {
    fn new(parent: &T) -> Self {
        let top = parent.child();
        let mut below = Vec::with_capacity(1000);
        for _ in 0..10 {
            let child = top.child();
            below.extend(iter::repeat_with(|| child.child()).take(99));
            below.push(child);
        }
        Self { top, below }
    }
}

/// The tokens that the other thread reads, over and over.
struct Shown<T> {
    now: Mutex<Arc<Thousand<T>>>,
    /// How often it has begun at the first of them.
    passes: AtomicUsize,
}

impl<T: CancelTree> Shown<T> {
    fn read(&self) {
        let tokens = self.now.lock().expect("nobody panics with it").clone();
        self.passes.fetch_add(1, Ordering::Release);
        for token in &tokens.below {
            black_box(token.is_cancelled());
        }
    }

    /// Returns when they are being read.
    fn show(&self, tokens: &Arc<Thousand<T>>) {
        let former = {
            let mut now = self.now.lock().expect("nobody panics with it");
            mem::replace(&mut *now, tokens.clone())
        };
        drop(former);
        let before = self.passes.load(Ordering::Acquire);
        // The first that begins from here on may still have taken the former ones.
        while self.passes.load(Ordering::Acquire) < before + 2 {
            hint::spin_loop();
        }
    }
}

fn cancel_beside_reads<T: CancelTree>(group: &mut Group) {
    let root = T::root();
    let shown = Shown {
        now: Mutex::new(Arc::new(Thousand::new(&root))),
        passes: AtomicUsize::new(0),
    };
    threads::while_busy(
        || shown.read(),
        || {
            group.bench_function(T::NAME, |b| {
                b.iter_batched_ref(
                    || {
                        let tokens = Arc::new(Thousand::new(&root));
                        shown.show(&tokens);
                        tokens
                    },
                    |tokens| tokens.top.cancel(),
                    BatchSize::PerIteration,
                );
            });
        },
    );
}

/// A turn of a task's loop: it waits for its cancel and for a message, which is there already.
macro_rules! turn {
    ($messages:ident, $cancelled:expr) => {{
        let (sender, receiver) = &mut $messages;
        sender.send(()).expect("the receiver is there");
        async {
            tokio::select! {
                biased;
                () = $cancelled => false,
                message = receiver.recv() => message.is_some(),
            }
        }
        .now_or_never()
    }};
}

/// The message alone.
fn select_floor(group: &mut Group) {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    group.bench_function("floor", |b| {
        b.iter(|| {
            sender.send(()).expect("the receiver is there");
            black_box(receiver.recv().now_or_never())
        });
    });
}

/// Each turn makes the future again, and drops it.
fn select_anew<T: CancelTree>(group: &mut Group) {
    let token = T::root();
    let mut messages = mpsc::unbounded_channel();
    group.bench_function(T::NAME, |b| {
        b.iter(|| {
            let went_on = turn!(messages, black_box(&token).cancelled());
            assert_eq!(went_on, Some(true));
        });
    });
}

/// One future for all turns, polled again in each.
fn select_kept<T: CancelTree>(group: &mut Group) {
    let token = T::root();
    let mut cancelled = pin!(token.cancelled());
    let mut messages = mpsc::unbounded_channel();
    group.bench_function(T::NAME, |b| {
        b.iter(|| {
            let went_on = turn!(messages, black_box(&mut cancelled).as_mut());
            assert_eq!(went_on, Some(true));
        });
    });
}
