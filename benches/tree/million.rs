//! Trees of a million tokens, and a token with a hundred thousand waiters.

use std::future::Future;
use std::iter;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, Criterion, SamplingMode};

use crate::contenders::{each_contender, CancelTree};
use crate::machine::floor::{Lines, Linked};
use crate::machine::memory;

type Group<'a> = BenchmarkGroup<'a, WallTime>;

const MILLION: usize = 1_000_000;

/// Each tree is used once, as a cancelled one is of no further use.
const ONCE: BatchSize = BatchSize::PerIteration;

pub fn all(c: &mut Criterion) {
    let mut group = open(c, "cancel_wide");
    group.bench_function("floor", |b| {
        let lines = Lines::new(MILLION);
        b.iter_batched(|| lines.clear(), |()| lines.set_all(), ONCE);
    });
    each_contender!(cancel_wide, &mut group, [Children, Crowd]);
    group.finish();

    let mut group = open(c, "cancel_churned");
    each_contender!(cancel_churned, &mut group, [Children, Churn, Crowd]);
    group.finish();

    let mut group = open(c, "cancel_chain");
    group.bench_function("floor", |b| {
        let list = Linked::new(MILLION);
        b.iter_batched(|| list.clear(), |()| list.set_all(), ONCE);
    });
    each_contender!(cancel_chain, &mut group, [Children, Depth]);
    group.finish();

    let mut group = open(c, "cancel_ten_ary");
    each_contender!(cancel_ten_ary, &mut group, [Children, Crowd]);
    group.finish();

    let mut group = open(c, "cancel_waiters");
    each_contender!(cancel_waiters, &mut group, [Async, ManyWaits]);
    group.finish();

    let mut group = open(c, "build_cold");
    each_contender!(build_cold, &mut group, [Children, Crowd]);
    group.finish();

    let mut group = open(c, "drop_children");
    each_contender!(drop_children, &mut group, [Children, Churn, Crowd]);
    group.finish();

    let mut group = open(c, "drop_all");
    each_contender!(drop_all, &mut group, [Children, Churn, Crowd]);
    group.finish();
}

fn open<'a>(c: &'a mut Criterion, name: &str) -> Group<'a> {
    let mut group = c.benchmark_group(name);
    // To build the tree anew takes most of the time, hence a few samples of one iteration each,
    // also where criterion warns that it had no time for more.
    group
        .sample_size(15)
        .sampling_mode(SamplingMode::Flat)
        .warm_up_time(Duration::from_millis(1))
        .measurement_time(Duration::from_millis(100));
    group
}

fn cancel_wide<T: CancelTree>(group: &mut Group) {
    group.bench_function(T::NAME, |b| {
        b.iter_batched_ref(Tree::<T>::wide, |tree| tree.root.cancel(), ONCE);
    });
}

fn cancel_churned<T: CancelTree>(group: &mut Group) {
    group.bench_function(T::NAME, |b| {
        b.iter_batched_ref(Tree::<T>::churned, |tree| tree.root.cancel(), ONCE);
    });
}

fn cancel_chain<T: CancelTree>(group: &mut Group) {
    group.bench_function(T::NAME, |b| {
        b.iter_batched_ref(Tree::<T>::chain, |tree| tree.root.cancel(), ONCE);
    });
}

fn cancel_ten_ary<T: CancelTree>(group: &mut Group) {
    group.bench_function(T::NAME, |b| {
        b.iter_batched_ref(Tree::<T>::ten_ary, |tree| tree.root.cancel(), ONCE);
    });
}

/// A hundred thousand tasks wait for one token. Their wakers do nothing: it is the way to them that is measured.
fn cancel_waiters<T: CancelTree>(group: &mut Group) {
    let once = || {
        let token = T::root();
        let mut waits: Vec<_> = iter::repeat_with(|| Box::pin(token.cancelled()))
            .take(100_000)
            .collect();
        let cx = &mut Context::from_waker(Waker::noop());
        for wait in &mut waits {
            assert!(wait.as_mut().poll(cx).is_pending());
        }
        let start = Instant::now();
        token.cancel();
        let took = start.elapsed();
        assert!(waits
            .iter_mut()
            .all(|wait| wait.as_mut().poll(cx).is_ready()));
        took
    };
    group.bench_function(T::NAME, |b| {
        b.iter_custom(|iters| (0..iters).map(|_| once()).sum());
    });
}

fn build_cold<T: CancelTree>(group: &mut Group) {
    group.bench_function(T::NAME, |b| {
        b.iter_batched_ref(
            || {
                let tree = Tree::<T>::bare();
                memory::give_back();
                tree
            },
            |tree| tree.widen(),
            ONCE,
        );
    });
}

/// Without the parent, which lives on: to a contender that keeps its children's memory for the
/// next ones this is less work than `drop_all`.
fn drop_children<T: CancelTree>(group: &mut Group) {
    group.bench_function(T::NAME, |b| {
        b.iter_batched_ref(Tree::<T>::wide, |tree| tree.rest.clear(), ONCE);
    });
}

fn drop_all<T: CancelTree>(group: &mut Group) {
    group.bench_function(T::NAME, |b| {
        b.iter_batched(Tree::<T>::wide, drop, ONCE);
    });
}

/// A root, and the handles that keep everything below it alive.
struct Tree<T> {
    rest: Vec<T>,
    root: T,
}

impl<T: CancelTree> Tree<T> {
    /// A root alone, but with room for a million handles.
    fn bare() -> Self {
        let root = T::root();
        let rest = memory::touched_room(&root, MILLION);
        Self { rest, root }
    }

    /// Fills up to a million children of the root.
    fn widen(&mut self) {
        let missing = MILLION - self.rest.len();
        self.rest
            .extend(iter::repeat_with(|| self.root.child()).take(missing));
    }

    fn wide() -> Self {
        let mut tree = Self::bare();
        tree.widen();
        tree
    }

    /// As wide, after two million children were dropped and made again in random order.
    fn churned() -> Self {
        let mut tree = Self::wide();
        let mut random = Random(0x9E37_79B9_7F4A_7C15);
        for _ in 0..4 {
            random.shuffle(&mut tree.rest);
            tree.rest.truncate(MILLION / 2);
            tree.widen();
        }
        tree
    }

    fn chain() -> Self {
        let mut tree = Self::bare();
        for i in 0..MILLION {
            let last = i.checked_sub(1).map_or(&tree.root, |i| &tree.rest[i]);
            let next = last.child();
            tree.rest.push(next);
        }
        tree
    }

    /// Six levels below the root, ten children each: 1,111,111 tokens, built level by level.
    fn ten_ary() -> Self {
        let mut tree = Self::bare();
        for i in 0..111_111_usize {
            for _ in 0..10 {
                let parent = i.checked_sub(1).map_or(&tree.root, |i| &tree.rest[i]);
                let child = parent.child();
                tree.rest.push(child);
            }
        }
        tree
    }
}

/// Marsaglia's xorshift: the same churn in every run and for every contender.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}
