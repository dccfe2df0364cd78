//! Who runs × what it does × where: every combination is played once.
//!
//! After each: nobody hangs; every bystander, waker or callback, was told exactly once, unless it was stopped or
//! dropped, and is gone; everything below a cancelled token was told when the cancel returned; hostile code
//! itself was run and is freed; a panic surfaced once where that is documented, and nowhere else.

use crate::kit::*;
use cancel_tree::{
    CancellationToken, Cause, Context, DoneSignal, ForeignContext, FutureExt, Registration,
};
use futures::executor::block_on;
use std::any::{Any, TypeId};
use std::future::Future;
use std::pin::Pin;
use std::sync::{mpsc, Arc, Mutex};
use std::task::{Poll, Waker};
use std::thread;
use std::time::Duration;

use Panics::{Always, Direct, Stay, StayIfQuick, Surface};

/// Hostile code that is told by a cancel of `parent`: at `own` and below, so that there are two of it.
fn below_parent(world: &World, act: Act, set: impl Fn(&CancellationToken, Act)) -> Trigger {
    for name in [Name::Own, Name::Child] {
        set(&world.get(name), act.clone());
    }
    let parent = world.get(Name::Parent);
    Box::new(move || parent.cancel())
}

fn captured(act: Act) -> impl FnOnce() + Send + 'static {
    let hostile = OnDrop(Some(act));
    move || {
        let _hostile = hostile;
        unreachable!("stopped, or never cancelled");
    }
}

fn stopped(world: &Arc<World>, act: Act, stop: fn(Registration)) -> Trigger {
    let registration = world.get(Name::Own).on_cancel(captured(act));
    Box::new(move || stop(registration))
}

/// A foreign context whose every part may be hostile.
#[derive(Default)]
struct Foreign {
    on_done: Option<Act>,
    on_deadline: Option<Act>,
    on_value: Option<Act>,
    subscription: Mutex<Option<OnDrop>>,
    future: Mutex<Option<Pin<Box<dyn Future<Output = Cause> + Send>>>>,
    signal: Option<mpsc::Sender<DoneSignal>>,
    _itself: Option<OnDrop>,
}

impl ForeignContext for Foreign {
    fn on_done(&self, signal: DoneSignal) -> Box<dyn Any + Send> {
        if let Some(act) = &self.on_done {
            act.run();
        }
        if let Some(tell) = &self.signal {
            tell.send(signal.clone()).expect("somebody waits");
        }
        match lock(&self.future).take() {
            Some(future) => signal.when_ready(future),
            None => Box::new(lock(&self.subscription).take()),
        }
    }

    fn deadline(&self) -> Option<std::time::Instant> {
        if let Some(act) = &self.on_deadline {
            act.run();
        }
        None
    }

    fn value(&self, _: TypeId) -> Option<&(dyn Any + Send + Sync)> {
        if let Some(act) = &self.on_value {
            act.run();
        }
        None
    }
}

/// A future that leaves its waker, is pending once, and may be hostile when it is polled again or dropped.
struct Pending {
    waker: mpsc::Sender<Waker>,
    polled: bool,
    on_poll: Option<Act>,
    _on_drop: OnDrop,
}

impl Pending {
    /// The future, and what wakes it.
    fn new(on_poll: Option<Act>, on_drop: Option<Act>) -> (Pending, mpsc::Receiver<Waker>) {
        let (waker, woken) = mpsc::channel();
        let pending = Pending {
            waker,
            polled: false,
            on_poll,
            _on_drop: OnDrop(on_drop),
        };
        (pending, woken)
    }
}

impl Future for Pending {
    type Output = Cause;

    fn poll(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<Cause> {
        if std::mem::replace(&mut self.polled, true) {
            if let Some(act) = &self.on_poll {
                act.run();
            }
            return Poll::Ready("ready".into());
        }
        let _ = self.waker.send(cx.waker().clone());
        Poll::Pending
    }
}

/// Waits for a callback that is running on another thread, with this waker, until the callback is over.
/// The callback does `at_end` last.
fn wait_for_running(
    token: CancellationToken,
    waker: Waker,
    at_end: impl FnOnce() + Send + 'static,
) {
    let (started, has_started) = mpsc::channel();
    let (go, may_go) = mpsc::channel::<()>();
    let registration = token.on_cancel(move || {
        started.send(()).expect("somebody waits");
        let _ = may_go.recv();
        at_end();
    });
    let canceller = thread::spawn(move || panics(|| token.cancel()));
    has_started.recv().expect("it runs");
    let mut stopping = Box::pin(registration.stop_async());
    assert!(poll(stopping.as_mut(), &waker).is_pending());
    drop(waker);
    go.send(()).expect("it waits");
    canceller.join().expect("a cancel that ends");
    assert_eq!(
        poll(stopping.as_mut(), Waker::noop()),
        Poll::Ready(false),
        "over, and its waiter does not know"
    );
}

const ROLES: &[Role] = &[
    // ----- wakers -----
    Role {
        name: "waker, woken",
        panics: Surface,
        cancels: Some(Name::Parent),
        least: 2,
        set_up: |world, act| {
            below_parent(world, act, |token, act| {
                world.keep_future(wait_with(token, on_wake(act)));
            })
        },
    },
    Role {
        name: "waker, woken through any_of",
        panics: Surface,
        cancels: Some(Name::Other),
        least: 2,
        set_up: |world, act| {
            let any = world.get(Name::Any);
            world.keep_future(wait_with(&any, on_wake(act.clone())));
            world.keep_future(wait_with(&any.child_token(), on_wake(act)));
            let other = world.get(Name::Other);
            Box::new(move || other.cancel())
        },
    },
    Role {
        name: "waker, woken by a dropped DropGuard",
        panics: Surface,
        cancels: Some(Name::Parent),
        least: 2,
        set_up: |world, act| {
            for name in [Name::Own, Name::Child] {
                world.keep_future(wait_with(&world.get(name), on_wake(act.clone())));
            }
            let guard = world.get(Name::Parent).drop_guard();
            Box::new(move || drop(guard))
        },
    },
    Role {
        name: "waker, woken by a dropped CancelGuard",
        panics: Surface,
        cancels: None,
        least: 2,
        set_up: |world, act| {
            let (ctx, guard) = world.get(Name::Own).context().with_timeout(FAR);
            for act in [act.clone(), act] {
                world.keep_future(wait_with(&ctx.child_token(), on_wake(act)));
            }
            Box::new(move || drop((ctx, guard)))
        },
    },
    Role {
        name: "waker, dropped after it was woken",
        panics: Surface,
        cancels: Some(Name::Parent),
        least: 2,
        set_up: |world, act| {
            below_parent(world, act, |token, act| {
                world.keep_future(wait_with(token, on_last_drop(act)));
            })
        },
    },
    Role {
        name: "waker, cloned by the first poll",
        panics: Direct,
        cancels: None,
        least: 1,
        set_up: |world, act| {
            let mut future = Box::pin(world.get(Name::Own).cancelled_owned());
            let waker = on_clone(act);
            Box::new(move || _ = poll(future.as_mut(), &waker))
        },
    },
    Role {
        name: "waker, cloned by a later poll",
        panics: Direct,
        cancels: None,
        least: 1,
        set_up: |world, act| {
            let mut future = Box::pin(world.get(Name::Own).context().done_owned());
            assert!(poll(future.as_mut(), Waker::noop()).is_pending());
            let waker = on_clone(act);
            Box::new(move || _ = poll(future.as_mut(), &waker))
        },
    },
    Role {
        name: "waker, first at its token, which its clone has cancelled",
        panics: Surface,
        cancels: Some(Name::Own),
        least: 1,
        set_up: |world, act| {
            let own = world.get(Name::Own);
            let mut future = Box::pin(own.child_token().cancelled_owned());
            let waker = cancelled_by_its_clone(own, act);
            Box::new(move || assert!(poll(future.as_mut(), &waker).is_ready()))
        },
    },
    Role {
        name: "waker, given up with its future",
        panics: Surface,
        cancels: None,
        least: 1,
        set_up: |world, act| {
            let future = wait_with(&world.get(Name::Own), on_last_drop(act));
            Box::new(move || drop(future))
        },
    },
    Role {
        name: "waker, first at its token, given up with its future",
        panics: Surface,
        cancels: None,
        least: 1,
        set_up: |world, act| {
            let future = wait_with(&world.get(Name::Own).child_token(), on_last_drop(act));
            Box::new(move || drop(future))
        },
    },
    Role {
        name: "waker, given up with a context's future",
        panics: Surface,
        cancels: None,
        least: 1,
        set_up: |world, act| {
            let mut future = Box::pin(world.get(Name::Own).context().done_owned());
            assert!(poll(future.as_mut(), &on_last_drop(act)).is_pending());
            Box::new(move || drop(future))
        },
    },
    Role {
        name: "waker, replaced by another poll",
        panics: Surface,
        cancels: None,
        least: 1,
        set_up: |world, act| {
            let mut future = wait_with(&world.get(Name::Own), on_last_drop(act));
            let world = world.clone();
            Box::new(move || {
                assert!(poll(future.as_mut(), Waker::noop()).is_pending() || world.is_cancelled());
                // It goes later.
                world.keep(future);
            })
        },
    },
    Role {
        name: "waker, first at its token, replaced by another poll",
        panics: Surface,
        cancels: None,
        least: 1,
        set_up: |world, act| {
            let mut future = wait_with(&world.get(Name::Own).child_token(), on_last_drop(act));
            let world = world.clone();
            Box::new(move || {
                assert!(poll(future.as_mut(), Waker::noop()).is_pending() || world.is_cancelled());
                // It goes later.
                world.keep(future);
            })
        },
    },
    Role {
        name: "waker of a forgotten future, dropped with its token",
        panics: Surface,
        cancels: None,
        least: 1,
        set_up: |world, act| {
            let token = world.get(Name::Own).child_token();
            let mut future = Box::pin(token.cancelled());
            assert!(poll(future.as_mut(), &on_last_drop(act)).is_pending());
            forget(future);
            Box::new(move || drop(token))
        },
    },
    Role {
        name: "waker of a forgotten future, dropped with its tree",
        panics: Surface,
        cancels: None,
        least: 2,
        set_up: |_, act| {
            let root = CancellationToken::new();
            let leaf = root.child_token().child_token();
            for token in [&root, &leaf] {
                let mut future = Box::pin(token.cancelled());
                assert!(poll(future.as_mut(), &on_last_drop(act.clone())).is_pending());
                forget(future);
            }
            Box::new(move || drop((leaf, root)))
        },
    },
    Role {
        name: "waker of stop_async, woken",
        panics: Stay,
        cancels: None,
        least: 1,
        set_up: |world, act| {
            let token = world.get(Name::Own).child_token();
            Box::new(move || wait_for_running(token, on_wake(act), || ()))
        },
    },
    Role {
        name: "waker of stop_async, woken after a callback that panics",
        panics: Stay,
        cancels: None,
        least: 1,
        set_up: |world, act| {
            let token = world.get(Name::Own).child_token();
            Box::new(move || wait_for_running(token, on_wake(act), || std::panic::panic_any(Meant)))
        },
    },
    Role {
        name: "waker of stop_async, dropped after a callback that panics",
        panics: Stay,
        cancels: None,
        least: 1,
        set_up: |world, act| {
            let token = world.get(Name::Own).child_token();
            Box::new(move || {
                wait_for_running(token, on_last_drop(act), || std::panic::panic_any(Meant))
            })
        },
    },
    // ----- callbacks -----
    Role {
        name: "callback, registration kept",
        panics: Surface,
        cancels: Some(Name::Parent),
        least: 2,
        set_up: |world, act| {
            below_parent(world, act, |token, act| {
                world.keep_registration(token.on_cancel(move || act.run()));
            })
        },
    },
    Role {
        name: "callback, detached",
        panics: Surface,
        cancels: Some(Name::Parent),
        least: 2,
        set_up: |world, act| {
            below_parent(world, act, |token, act| {
                drop(token.on_cancel(move || act.run()));
            })
        },
    },
    Role {
        name: "callback, its token dropped",
        panics: Surface,
        cancels: Some(Name::Parent),
        least: 2,
        set_up: |world, act| {
            below_parent(world, act, |token, act| {
                drop(token.child_token().on_cancel(move || act.run()));
            })
        },
    },
    Role {
        name: "callback, its any_of token dropped",
        panics: Surface,
        cancels: Some(Name::Other),
        least: 2,
        set_up: |world, act| {
            let other = world.get(Name::Other);
            for act in [act.clone(), act] {
                let any = CancellationToken::any_of([&world.get(Name::Own), &other]);
                drop(any.on_cancel(move || act.run()));
            }
            Box::new(move || other.cancel())
        },
    },
    Role {
        name: "callback, at once",
        panics: Surface,
        cancels: None,
        least: 1,
        set_up: |world, act| {
            let token = world.get(Name::Own).child_token();
            token.cancel();
            Box::new(move || drop(token.on_cancel(move || act.run())))
        },
    },
    Role {
        name: "callback, at a deadline",
        panics: StayIfQuick,
        cancels: None,
        least: 2,
        set_up: |world, act| {
            let base = world.get(Name::Own).context();
            Box::new(move || {
                let (ctx, guard) = base.with_timeout(MS);
                guard.detach();
                let again = act.clone();
                drop(ctx.on_cancel(move || again.run()));
                drop(ctx.on_cancel(move || act.run()));
            })
        },
    },
    Role {
        name: "callback of after_func",
        panics: Stay,
        cancels: None,
        least: 2,
        set_up: |world, act| {
            let (ctx, guard) = world.get(Name::Own).context().with_cancel();
            let again = act.clone();
            drop(ctx.after_func(move || again.run()));
            drop(ctx.after_func(move || act.run()));
            Box::new(move || drop((ctx, guard)))
        },
    },
    // ----- what callbacks capture -----
    Role {
        name: "captured, dropped by stop",
        panics: Surface,
        cancels: None,
        least: 1,
        set_up: |world, act| stopped(world, act, |registration| _ = registration.stop()),
    },
    Role {
        name: "captured, dropped by stop_and_wait",
        panics: Surface,
        cancels: None,
        least: 1,
        set_up: |world, act| stopped(world, act, |registration| _ = registration.stop_and_wait()),
    },
    Role {
        name: "captured, dropped by stop_async",
        panics: Surface,
        cancels: None,
        least: 1,
        set_up: |world, act| stopped(world, act, |registration| drop(registration.stop_async())),
    },
    Role {
        name: "captured, dropped by StopOnDrop",
        panics: Surface,
        cancels: None,
        least: 1,
        set_up: |world, act| stopped(world, act, |registration| drop(registration.stop_on_drop())),
    },
    Role {
        name: "captured by after_func, dropped by stop",
        panics: Surface,
        cancels: None,
        least: 1,
        set_up: |world, act| {
            let registration = world.get(Name::Own).context().after_func(captured(act));
            Box::new(move || _ = registration.stop())
        },
    },
    Role {
        name: "captured, dropped where it can never run",
        panics: Surface,
        cancels: None,
        least: 1,
        set_up: |_, act| Box::new(move || drop(Context::background().after_func(captured(act)))),
    },
    Role {
        name: "captured, dropped with the tree by the last token",
        panics: Surface,
        cancels: None,
        least: 3,
        set_up: |_, act| {
            let root = CancellationToken::new();
            let child = root.child_token();
            drop(root.on_cancel(captured(act.clone())));
            drop(child.on_cancel(captured(act.clone())));
            drop(child.child_token().on_cancel(captured(act)));
            drop(root);
            Box::new(move || drop(child))
        },
    },
    Role {
        name: "captured, dropped with the tree by the last registration",
        panics: Surface,
        cancels: None,
        least: 3,
        set_up: |_, act| {
            let root = CancellationToken::new();
            drop(root.on_cancel(captured(act.clone())));
            drop(root.child_token().on_cancel(captured(act.clone())));
            let last = root.child_token().on_cancel(captured(act));
            Box::new(move || drop(last))
        },
    },
    // ----- causes -----
    Role {
        name: "cause, rejected",
        panics: Surface,
        cancels: None,
        least: 1,
        set_up: |world, act| {
            let token = world.get(Name::Own).child_token();
            token.cancel();
            let cause = Cause::new(OnDrop(Some(act)));
            Box::new(move || _ = token.cancel_with(cause))
        },
    },
    Role {
        name: "cause, rejected inside of a cancel that panics",
        panics: Always,
        cancels: Some(Name::Parent),
        least: 1,
        set_up: |world, act| {
            below_parent(world, act, |token, act| {
                let again = token.clone();
                let cause = Cause::new(OnDrop(Some(act)));
                drop(token.on_cancel(move || _ = again.cancel_with(cause)));
                drop(token.on_cancel(|| std::panic::panic_any(Meant)));
            })
        },
    },
    Role {
        name: "cause, dropped with its token",
        panics: Surface,
        cancels: None,
        least: 1,
        set_up: |world, act| {
            let token = world.get(Name::Own).child_token();
            token.cancel_with(Cause::new(OnDrop(Some(act))));
            Box::new(move || drop(token))
        },
    },
    Role {
        name: "causes, dropped with their tree",
        panics: Surface,
        cancels: None,
        least: 2,
        set_up: |world, act| {
            let any = CancellationToken::any_of([&world.get(Name::Own), &world.get(Name::Other)]);
            let child = any.child_token();
            child.cancel_with(Cause::new(OnDrop(Some(act.clone()))));
            any.cancel_with(Cause::new(OnDrop(Some(act))));
            drop(any);
            Box::new(move || drop(child))
        },
    },
    Role {
        name: "cause of a deadline, not needed any more",
        panics: Surface,
        cancels: None,
        least: 1,
        set_up: |world, act| {
            let base = world.get(Name::Own).context();
            let pair = base.with_timeout_cause(FAR, Cause::new(OnDrop(Some(act))));
            Box::new(move || drop(pair))
        },
    },
    Role {
        name: "causes of deadlines, of a chain that goes at once",
        panics: Surface,
        cancels: None,
        least: 3,
        set_up: |world, act| {
            let mut ctx = world.get(Name::Own).context();
            for i in 0..3 {
                let cause = Cause::new(OnDrop(Some(act.clone())));
                let (below, guard) = ctx.with_timeout_cause(FAR / (i + 1), cause);
                guard.detach();
                ctx = below;
            }
            Box::new(move || drop(ctx))
        },
    },
    Role {
        name: "cause of a deadline, not needed at all",
        panics: Surface,
        cancels: None,
        least: 1,
        set_up: |world, act| {
            let (base, guard) = world.get(Name::Own).context().with_timeout(FAR);
            let cause = Cause::new(OnDrop(Some(act)));
            Box::new(move || {
                let _guard = guard;
                drop(base.with_timeout_cause(2 * FAR, cause));
            })
        },
    },
    Role {
        name: "cause of a deadline, below what is done",
        panics: Surface,
        cancels: None,
        least: 1,
        set_up: |world, act| {
            let (base, guard) = world.get(Name::Own).context().with_cancel();
            guard.cancel();
            let cause = Cause::new(OnDrop(Some(act)));
            Box::new(move || drop(base.with_timeout_cause(FAR, cause)))
        },
    },
    Role {
        name: "cause of a deadline in the past",
        panics: Surface,
        cancels: None,
        least: 1,
        set_up: |world, act| {
            let base = world.get(Name::Own).context();
            let cause = Cause::new(OnDrop(Some(act)));
            let pair = base.with_timeout_cause(Duration::ZERO, cause);
            Box::new(move || drop(pair))
        },
    },
    // ----- values -----
    Role {
        name: "value, dropped with its context",
        panics: Surface,
        cancels: None,
        least: 1,
        set_up: |world, act| {
            let ctx = world.get(Name::Own).context();
            let ctx = ctx.with_value(OnDrop(Some(act)));
            Box::new(move || drop(ctx))
        },
    },
    Role {
        name: "values, a chain of them",
        panics: Surface,
        cancels: None,
        least: 4,
        set_up: |world, act| {
            let (ctx, guard) = world.get(Name::Own).context().with_timeout(FAR);
            let mut ctx = ctx.with_value(1_u8);
            for act in [act.clone(), act.clone(), act.clone(), act] {
                ctx = ctx.with_value(OnDrop(Some(act))).with_value("between");
            }
            Box::new(move || drop((ctx, guard)))
        },
    },
    // ----- foreign contexts -----
    Role {
        name: "foreign context, asked for its deadline",
        panics: Direct,
        cancels: None,
        least: 1,
        set_up: |_, act| {
            let on_deadline = Some(act);
            let foreign = Foreign {
                on_deadline,
                ..Foreign::default()
            };
            Box::new(move || drop(Context::below(foreign)))
        },
    },
    Role {
        name: "foreign context, subscribed to",
        panics: Direct,
        cancels: None,
        least: 1,
        set_up: |_, act| {
            let on_done = Some(act);
            let foreign = Foreign {
                on_done,
                ..Foreign::default()
            };
            Box::new(move || drop(Context::below(foreign)))
        },
    },
    Role {
        name: "foreign context, asked for a value",
        panics: Direct,
        cancels: None,
        least: 1,
        set_up: |_, act| {
            let on_value = Some(act);
            let ctx = Context::below(Foreign {
                on_value,
                ..Foreign::default()
            });
            Box::new(move || assert!(ctx.with_value(1_u8).value::<u16>().is_none()))
        },
    },
    Role {
        name: "foreign context, its subscription dropped",
        panics: Surface,
        cancels: None,
        least: 1,
        set_up: |_, act| {
            let ctx = Context::below(Foreign {
                subscription: Mutex::new(Some(OnDrop(Some(act)))),
                ..Foreign::default()
            });
            Box::new(move || drop(ctx))
        },
    },
    Role {
        name: "foreign context and its subscription, dropped",
        panics: Surface,
        cancels: None,
        least: 2,
        set_up: |_, act| {
            let ctx = Context::below(Foreign {
                subscription: Mutex::new(Some(OnDrop(Some(act.clone())))),
                _itself: Some(OnDrop(Some(act))),
                ..Foreign::default()
            });
            let ctx = ctx.with_value("above");
            Box::new(move || drop(ctx))
        },
    },
    Role {
        name: "waker, woken by a foreign signal",
        panics: Surface,
        cancels: None,
        least: 2,
        set_up: |world, act| {
            let (signal, signals) = mpsc::channel();
            let ctx = Context::below(Foreign {
                signal: Some(signal),
                ..Foreign::default()
            });
            for act in [act.clone(), act] {
                world.keep_future(wait_with(&ctx.child_token(), on_wake(act)));
            }
            let signal = signals.recv().expect("subscribed to");
            Box::new(move || {
                signal.cancel_with("foreign");
                drop(ctx);
            })
        },
    },
    Role {
        name: "foreign future, polled",
        panics: Stay,
        cancels: None,
        least: 1,
        set_up: |world, act| {
            let (future, woken) = Pending::new(Some(act), None);
            let ctx = Context::below(Foreign {
                future: Mutex::new(Some(Box::pin(future))),
                ..Foreign::default()
            });
            let waker = woken.recv().expect("polled");
            // A worker polls it, if it is there.
            world.keep(ctx);
            Box::new(move || waker.wake())
        },
    },
    Role {
        name: "foreign future, dropped when it is ready",
        panics: Stay,
        cancels: None,
        least: 1,
        set_up: |_, act| {
            let (future, woken) = Pending::new(None, Some(act));
            let ctx = Context::below(Foreign {
                future: Mutex::new(Some(Box::pin(future))),
                ..Foreign::default()
            });
            let waker = woken.recv().expect("polled");
            Box::new(move || {
                waker.wake();
                let done = ctx.blocking_wait_timeout(PATIENCE);
                assert!(done.is_some(), "it was ready, and the cancel is lost");
            })
        },
    },
    Role {
        name: "foreign future, dropped with its context",
        panics: Surface,
        cancels: None,
        least: 1,
        set_up: |_, act| {
            let (future, woken) = Pending::new(None, Some(act));
            let ctx = Context::below(Foreign {
                future: Mutex::new(Some(Box::pin(future))),
                ..Foreign::default()
            });
            let waker = woken.recv().expect("polled");
            Box::new(move || {
                drop(ctx);
                drop(waker);
            })
        },
    },
    // ----- what else the user passes -----
    Role {
        name: "future of run_until_cancelled, dropped unpolled",
        panics: Direct,
        cancels: None,
        least: 1,
        set_up: |world, act| {
            let token = world.get(Name::Own).child_token();
            token.cancel();
            let (future, _) = Pending::new(None, Some(act));
            Box::new(move || {
                assert!(block_on(future.with_cancellation_token_owned(token)).is_none());
            })
        },
    },
    Role {
        name: "iterator of any_of",
        panics: Direct,
        cancels: None,
        least: 1,
        set_up: |world, act| {
            let tokens = [world.get(Name::Own), world.get(Name::Other)];
            Box::new(move || {
                let hostile = tokens.iter().inspect(|token| {
                    if **token == tokens[1] {
                        act.run();
                    }
                });
                drop(CancellationToken::any_of(hostile));
            })
        },
    },
    Role {
        name: "iterator of any_of, dropped",
        panics: Direct,
        cancels: None,
        least: 1,
        set_up: |_, act| {
            let hostile = OnDrop(Some(act));
            let none = std::iter::from_fn(move || {
                let _ = &hostile;
                None
            });
            Box::new(move || drop(CancellationToken::any_of(none)))
        },
    },
    Role {
        name: "payloads of panics, dropped",
        panics: Always,
        cancels: Some(Name::Parent),
        // The first one surfaces, and is forgotten here.
        least: 2,
        set_up: |world, act| {
            for _ in 0..3 {
                let payload = Payload(Some(OnDrop(Some(act.clone()))));
                drop(
                    world
                        .get(Name::Own)
                        .on_cancel(move || std::panic::resume_unwind(Box::new(payload))),
                );
            }
            let parent = world.get(Name::Parent);
            Box::new(move || {
                let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    parent.cancel();
                }));
                let Err(payload) = caught else {
                    // While unwinding it has been swallowed.
                    assert!(thread::panicking());
                    return;
                };
                let mut payload = payload.downcast::<Payload>().expect("the first one");
                // At rest: its own drop is not the library's business.
                drop(payload.0.take().and_then(|mut hostile| hostile.0.take()));
                std::panic::panic_any(Meant);
            })
        },
    },
];

struct Payload(Option<OnDrop>);

fn play_all(setting: Setting) {
    guarded("the matrix", move |note| {
        let mut failed = Vec::new();
        for role in ROLES {
            for deed in Deed::ALL {
                if setting == Setting::Unwinding && role.panics == Direct && deed.panics() {
                    continue;
                }
                let name = format!("{} × {deed:?} × {setting:?}", role.name);
                note(name.clone());
                if std::panic::catch_unwind(|| play(role, deed, setting)).is_err() {
                    println!("failed: {name}");
                    failed.push(name);
                }
            }
        }
        assert!(failed.is_empty(), "{} failed: {failed:#?}", failed.len());
    });
}

#[test]
fn plain() {
    play_all(Setting::Plain);
}

#[test]
fn while_unwinding() {
    play_all(Setting::Unwinding);
}

#[test]
fn at_thread_exit_when_our_locals_are_gone() {
    play_all(Setting::ThreadExitOursGone);
}

#[test]
fn at_thread_exit_before_our_locals_go() {
    play_all(Setting::ThreadExitOursThere);
}
