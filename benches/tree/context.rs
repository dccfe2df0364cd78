//! Contexts: against tokio's timer, tokio-util's token, and Go's context.

use std::future::Future;
use std::hint::black_box;
use std::pin::pin;
use std::task::{self, Waker};
use std::time::{Duration, Instant};

use cancel_tree::Context;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion};
use tokio::runtime::Runtime;

use crate::small::open;

type Group<'a> = BenchmarkGroup<'a, WallTime>;

// What an operation returns is looked at where it is: to move it into the black box would cost a fifth of `with_cancel`.

/// The limit of a request.
const LIMIT: Duration = Duration::from_secs(30);

pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_time()
        .build()
        .expect("a runtime")
}

pub fn all(c: &mut Criterion) {
    let runtime = runtime();
    let _in_tokio = runtime.enter();
    let (parent, _guard) = Context::background().with_cancel();

    let mut group = open(c, "clock");
    group.bench_function("floor", |b| b.iter(|| black_box(Instant::now())));
    group.finish();

    let mut group = open(c, "ctx_cancel_drop");
    group.bench_function("cancel_tree", |b| {
        b.iter(|| {
            let pair = black_box(&parent).with_cancel();
            black_box(&pair);
        });
    });
    group.finish();

    let mut group = open(c, "ctx_timeout_drop");
    timeout_drop(&mut group, &parent);
    group.bench_function("tokio_sleep_unpolled", |b| {
        b.iter(|| {
            let sleep = tokio::time::sleep(LIMIT);
            black_box(&sleep);
        });
    });
    group.bench_function("tokio_sleep", |b| {
        b.iter(|| poll(tokio::time::sleep(LIMIT)))
    });
    group.finish();

    let mut group = open(c, "ctx_timeout_done_drop");
    group.bench_function("cancel_tree", |b| {
        b.iter(|| {
            let (ctx, _guard) = black_box(&parent).with_timeout(LIMIT);
            poll(ctx.done());
        });
    });
    group.finish();

    let mut group = open(c, "ctx_timeout_drop_among_100k");
    {
        let _live: Vec<_> = (0..100_000).map(|_| parent.with_timeout(LIMIT)).collect();
        timeout_drop(&mut group, &parent);
    }
    {
        let mut live: Vec<_> = (0..100_000)
            .map(|_| Box::pin(tokio::time::sleep(LIMIT)))
            .collect();
        for sleep in &mut live {
            poll(sleep.as_mut());
        }
        group.bench_function("tokio_sleep", |b| {
            b.iter(|| poll(tokio::time::sleep(LIMIT)))
        });
    }
    group.finish();

    let (with_deadline, _with_deadline_guard) = parent.with_timeout(10 * LIMIT);
    let mut group = open(c, "ctx_err");
    group.bench_function("cancel_tree", |b| {
        b.iter(|| black_box(&with_deadline).err());
    });
    group.finish();

    let deep = depth_100(&with_deadline);
    let mut group = open(c, "ctx_value");
    group.bench_function("cancel_tree", |b| {
        b.iter(|| black_box(&deep).value::<Numbered<0>>());
    });
    group.finish();
    let mut group = open(c, "ctx_value_miss");
    group.bench_function("cancel_tree", |b| {
        b.iter(|| black_box(&deep).value::<Numbered<1000>>());
    });
    group.finish();
    let mut group = open(c, "ctx_with_value");
    group.bench_function("cancel_tree", |b| {
        b.iter(|| {
            let ctx = black_box(&with_deadline).with_value(7u64);
            black_box(&ctx);
        });
    });
    group.finish();
}

fn timeout_drop(group: &mut Group, parent: &Context) {
    group.bench_function("cancel_tree", |b| {
        b.iter(|| {
            let pair = black_box(parent).with_timeout(LIMIT);
            black_box(&pair);
        });
    });
}

fn poll<F: Future>(future: F) {
    let mut future = pin!(future);
    let polled = future
        .as_mut()
        .poll(&mut task::Context::from_waker(Waker::noop()));
    assert!(black_box(polled).is_pending());
}

/// A type for each number, and so a key.
struct Numbered<const N: u32>(#[allow(dead_code)] u32);

fn depth_100(ctx: &Context) -> Context {
    fn ten<const N: u32>(ctx: &Context) -> Context {
        macro_rules! layers {
            ($ctx:expr, $($n:literal)*) => {{
                let mut ctx = $ctx.clone();
                $( ctx = ctx.with_value(Tens::<N, $n>($n)); )*
                ctx
            }};
        }
        layers!(ctx, 0 1 2 3 4 5 6 7 8 9)
    }
    struct Tens<const T: u32, const N: u32>(#[allow(dead_code)] u32);
    // The first layer is the one that is looked for.
    let ctx = ctx.with_value(Numbered::<0>(0));
    let ctx = ten::<1>(&ten::<0>(&ctx));
    let ctx = ten::<3>(&ten::<2>(&ctx));
    let ctx = ten::<5>(&ten::<4>(&ctx));
    let ctx = ten::<7>(&ten::<6>(&ctx));
    ten::<9>(&ten::<8>(&ctx))
}
