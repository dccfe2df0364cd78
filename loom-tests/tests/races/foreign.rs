//! Contexts below those of another kind.

use cancel_tree::{Context, DoneSignal, ForeignContext, Service};
use cancel_tree_loom::{
    model, model_in_all_orders, poll, reason_of_context as reason_of, ContextError, Probe, Reason,
    Runs, USUAL,
};
use loom::alloc::Track;
use loom::cell::UnsafeCell;
use loom::sync::atomic::AtomicBool;
use loom::sync::Notify;
use loom::thread::JoinHandle;
use std::any::Any;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Wake, Waker};
use std::time::Instant;

/// A context of another kind: gives away its signal. Its locks are std's, which loom neither sees nor
/// orders; nothing of loom's happens under them.
#[derive(Default)]
struct Foreign {
    signal: Arc<Mutex<Option<DoneSignal>>>,
    deadline: Option<Instant>,
    dropped: Arc<AtomicUsize>,
}

/// What it returns: to be dropped once, by somebody who has seen all that was done before.
struct Subscription {
    dropped: Arc<AtomicUsize>,
    touched: UnsafeCell<()>,
    _leak: Track<()>,
}

// SAFETY: loom reports a race on the cell.
unsafe impl Send for Subscription {}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.touched.with_mut(|_| ());
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

impl ForeignContext for Foreign {
    fn on_done(&self, signal: DoneSignal) -> Box<dyn Any + Send> {
        *self.signal.lock().unwrap() = Some(signal);
        Box::new(Subscription {
            dropped: self.dropped.clone(),
            touched: UnsafeCell::new(()),
            _leak: Track::new(()),
        })
    }

    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }
}

/// A context below a foreign one, the signal, and how many subscriptions have been dropped.
fn below(deadline: Option<Instant>) -> (Context, DoneSignal, Arc<AtomicUsize>) {
    let foreign = Foreign {
        deadline,
        ..Foreign::default()
    };
    let (signal, dropped) = (foreign.signal.clone(), foreign.dropped.clone());
    let ctx = Context::below(foreign);
    let signal = signal.lock().unwrap().take().unwrap();
    (ctx, signal, dropped)
}

/// A thread that gives up what it has kept for its next contexts before it is joined.
fn spawn<T: 'static>(f: impl FnOnce() -> T + 'static) -> JoinHandle<T> {
    cancel_tree_loom::spawn(move || {
        let answer = f();
        Service::end_of_thread();
        answer
    })
}

fn turn(mut service: Service, n: u64) -> JoinHandle<Service> {
    spawn(move || {
        service.turn(Service::at(n));
        service
    })
}

#[test]
fn signal_vs_drop() {
    model_in_all_orders(USUAL, || {
        let (ctx, signal, dropped) = below(None);
        let thread = spawn(move || signal.cancel());
        drop(ctx);
        thread.join().unwrap();
        assert_eq!(dropped.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn signal_with_a_cause_vs_drop() {
    // Too many executions at 3: bound 2.
    model_in_all_orders(Some(2), || {
        let (ctx, signal, dropped) = below(None);
        let thread = spawn(move || drop(ctx));
        signal.cancel_with(Reason::cause(1));
        thread.join().unwrap();
        assert_eq!(dropped.load(Ordering::Relaxed), 1);
        assert!(!signal.cancel());
    });
}

#[test]
fn two_signals_at_once() {
    // Too many executions at 3: bound 2.
    model_in_all_orders(Some(2), || {
        let (ctx, signal, _) = below(None);
        let (other, same) = (signal.clone(), ctx.clone());
        let thread = spawn(move || {
            let first = other.cancel_with(Reason::cause(1));
            (first, reason_of(&same))
        });
        let first = signal.cancel_with(Reason::cause(2));
        let stands = reason_of(&ctx);
        let (other_first, seen) = thread.join().unwrap();
        assert!(first != other_first);
        assert_eq!(stands, if first { 2 } else { 1 });
        assert_eq!(seen, stands);
    });
}

#[test]
fn two_signals_vs_drop() {
    // Too many executions in all orders, or at 3.
    model(Some(2), || {
        let (ctx, signal, dropped) = below(None);
        let other = signal.clone();
        let one = spawn(move || other.cancel_with(Reason::cause(1)));
        let two = spawn(move || drop(ctx));
        signal.cancel_with(Reason::cause(2));
        one.join().unwrap();
        two.join().unwrap();
        assert_eq!(dropped.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn signal_vs_reader() {
    model_in_all_orders(USUAL, || {
        let (ctx, signal, _) = below(None);
        let thread = spawn(move || signal.cancel_with(Reason::cause(1)));
        if ctx.err().is_some() {
            assert_eq!(reason_of(&ctx), 1);
        }
        assert!(thread.join().unwrap());
        assert_eq!(reason_of(&ctx), 1);
    });
}

#[test]
fn signal_vs_first_poll() {
    model_in_all_orders(USUAL, || {
        let probe = Probe::new();
        let (ctx, signal, _) = below(None);
        let thread = spawn(move || signal.cancel());
        let mut done = ctx.done_owned();
        let ready = poll(&mut done, &probe.waker());
        assert!(thread.join().unwrap());
        assert_eq!(probe.woken(), !ready as usize);
        drop(done);
    });
}

#[test]
fn signal_vs_creation_below() {
    // Too many executions at 3: bound 2.
    model_in_all_orders(Some(2), || {
        let (ctx, signal, _) = below(None);
        let thread = spawn(move || signal.cancel_with(Reason::cause(1)));
        let (child, guard) = ctx.with_cancel();
        drop(ctx);
        thread.join().unwrap();
        assert_eq!(reason_of(&child), 1);
        guard.detach();
    });
}

#[test]
fn signal_vs_cancel_below() {
    model_in_all_orders(USUAL, || {
        let (ctx, signal, _) = below(None);
        let (child, guard) = ctx.with_cancel();
        let thread = spawn(move || signal.cancel_with(Reason::cause(1)));
        let first = guard.cancel_with(Reason::cause(2));
        let stands = reason_of(&child);
        assert_eq!(stands, if first { 2 } else { 1 });
        assert!(thread.join().unwrap());
        assert_eq!((reason_of(&ctx), reason_of(&child)), (1, stands));
    });
}

/// The signal is used on another thread while `below` is still at it.
#[test]
fn signal_vs_the_end_of_subscribing() {
    #[derive(Clone, Default)]
    struct AtOnce(Arc<Mutex<Option<JoinHandle<bool>>>>, Arc<AtomicUsize>);

    impl ForeignContext for AtOnce {
        fn on_done(&self, signal: DoneSignal) -> Box<dyn Any + Send> {
            let thread = spawn(move || signal.cancel_with(Reason::cause(1)));
            *self.0.lock().unwrap() = Some(thread);
            Box::new(Subscription {
                dropped: self.1.clone(),
                touched: UnsafeCell::new(()),
                _leak: Track::new(()),
            })
        }
    }

    // Too many executions at 3: bound 2.
    model_in_all_orders(Some(2), || {
        let dropped = Arc::<AtomicUsize>::default();
        let foreign = AtOnce(Arc::default(), dropped.clone());
        let ctx = Context::below(foreign.clone());
        let child = ctx.child_token();
        let thread = foreign.0.lock().unwrap().take().unwrap();
        drop(ctx);
        assert!(thread.join().unwrap());
        assert!(child.is_cancelled());
        drop(child);
        assert_eq!(dropped.load(Ordering::Relaxed), 1);
    });
}

/// The deadline passes on the timer's thread while `below` is still at it.
#[test]
fn deadline_vs_the_end_of_subscribing() {
    #[derive(Clone, Default)]
    struct Slow(Arc<Mutex<Option<JoinHandle<Service>>>>);

    impl ForeignContext for Slow {
        fn on_done(&self, _: DoneSignal) -> Box<dyn Any + Send> {
            *self.0.lock().unwrap() = Some(turn(Service::new(), 1));
            Box::new(())
        }

        fn deadline(&self) -> Option<Instant> {
            Some(Service::at(1))
        }
    }

    model(Some(2), || {
        let foreign = Slow::default();
        let ctx = Context::below(foreign.clone());
        let timer = foreign.0.lock().unwrap().take().unwrap();
        let mut service = timer.join().unwrap();
        service.turn(Service::at(1));
        assert_eq!(ctx.err(), Some(ContextError::DeadlineExceeded));
    });
}

#[test]
fn signal_vs_deadline() {
    model_in_all_orders(USUAL, || {
        let service = Service::new();
        let (ctx, signal, _) = below(Some(Service::at(1)));
        let timer = turn(service, 1);
        let first = signal.cancel_with(Reason::cause(1));
        let stands = reason_of(&ctx);
        assert_eq!(stands, first as usize);
        let _service = timer.join().unwrap();
        assert_eq!(reason_of(&ctx), stands);
    });
}

#[test]
fn signal_vs_deadline_vs_drop() {
    // Too many executions in all orders, or at 3.
    model(Some(2), || {
        let service = Service::new();
        let (ctx, signal, dropped) = below(Some(Service::at(1)));
        let timer = turn(service, 1);
        let thread = spawn(move || drop(ctx));
        signal.cancel();
        thread.join().unwrap();
        drop(timer.join().unwrap());
        assert_eq!(dropped.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn detached_callback_of_a_dropped_context_vs_signal() {
    // Too many executions at 3: bound 2.
    model_in_all_orders(Some(2), || {
        let runs = Runs::default();
        let (ctx, signal, dropped) = below(None);
        drop(ctx.on_cancel(runs.callback()));
        let thread = spawn(move || drop(ctx));
        signal.cancel();
        // Nobody has it any more, perhaps before the last owner asks.
        drop(signal);
        thread.join().unwrap();
        assert_eq!(runs.count(), 1);
        assert_eq!(dropped.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn detached_callback_of_a_dropped_context_vs_signal_and_deadline() {
    // Too many executions in all orders, or at 3.
    model(Some(2), || {
        let runs = Runs::default();
        let service = Service::new();
        let (ctx, signal, dropped) = below(Some(Service::at(1)));
        drop(ctx.on_cancel(runs.callback()));
        drop(ctx);
        let timer = turn(service, 1);
        signal.cancel();
        drop(timer.join().unwrap());
        assert_eq!(runs.count(), 1);
        assert_eq!(dropped.load(Ordering::Relaxed), 1);
    });
}

// ----- a future instead of callbacks ------------------------------------------------------------

/// What a future waits for, and its waker.
struct Events {
    flags: Vec<AtomicBool>,
    waker: Mutex<Option<Waker>>,
    /// How many futures have been dropped.
    dropped: AtomicUsize,
    /// The threads that are about to wake one.
    waking: Mutex<Vec<loom::thread::ThreadId>>,
}

impl Events {
    fn new(n: usize) -> Arc<Events> {
        Arc::new(Events {
            flags: (0..n).map(|_| AtomicBool::new(false)).collect(),
            waker: Mutex::new(None),
            dropped: AtomicUsize::new(0),
            waking: Mutex::default(),
        })
    }

    /// Nothing of the future's may be dropped in it.
    fn wake(&self, waker: Waker) {
        let me = loom::thread::current().id();
        self.waking.lock().unwrap().push(me);
        waker.wake();
        self.waking.lock().unwrap().retain(|other| *other != me);
    }

    fn happen(&self, n: usize) {
        self.flags[n].store(true, Ordering::Release);
    }

    fn waker(&self) -> Waker {
        self.waker.lock().unwrap().take().unwrap()
    }
}

/// Ready when all has happened; notices if two threads are at it at once.
struct All {
    events: Arc<Events>,
    started: bool,
    touched: UnsafeCell<()>,
    _leak: Track<()>,
}

// SAFETY: loom reports a race on the cell.
unsafe impl Send for All {}

impl All {
    fn new(events: &Arc<Events>) -> All {
        All {
            events: events.clone(),
            started: false,
            touched: UnsafeCell::new(()),
            _leak: Track::new(()),
        }
    }
}

impl Future for All {
    type Output = cancel_tree_loom::Cause;

    fn poll(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<Self::Output> {
        self.touched.with_mut(|_| ());
        if !self.started {
            self.started = true;
            let waker = cx.waker().clone();
            *self.events.waker.lock().unwrap() = Some(waker);
        }
        let mut flags = self.events.flags.iter();
        if flags.all(|flag| flag.load(Ordering::Acquire)) {
            return Poll::Ready(Reason::cause(1));
        }
        Poll::Pending
    }
}

impl Drop for All {
    fn drop(&mut self) {
        self.touched.with_mut(|_| ());
        let me = loom::thread::current().id();
        let waking = self.events.waking.lock().unwrap();
        assert!(!waking.contains(&me), "dropped by who wakes it");
        self.events.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

struct Eventful(Arc<Events>);

impl ForeignContext for Eventful {
    fn on_done(&self, signal: DoneSignal) -> Box<dyn Any + Send> {
        signal.when_ready(All::new(&self.0))
    }
}

fn eventful(n: usize) -> (Context, Arc<Events>, Waker) {
    let events = Events::new(n);
    let ctx = Context::below(Eventful(events.clone()));
    let waker = events.waker();
    (ctx, events, waker)
}

/// Two turns of the service, for what polls left behind too.
fn two_turns(mut service: Service) -> JoinHandle<Service> {
    spawn(move || {
        service.turn(Service::at(1));
        service.turn(Service::at(1));
        service
    })
}

/// Neither is lost, whichever finds what the other left.
#[test]
fn wake_vs_wake() {
    model_in_all_orders(USUAL, || {
        let service = Service::new();
        let (ctx, events, waker) = eventful(2);
        let (same, again) = (events.clone(), waker.clone());
        let thread = spawn(move || {
            same.happen(0);
            again.wake();
        });
        events.happen(1);
        waker.wake();
        thread.join().unwrap();
        // Nothing runs where it was woken.
        assert!(!ctx.is_done());
        drop(service);
        assert_eq!(reason_of(&ctx), 1);
    });
}

#[test]
fn wake_vs_poll() {
    model_in_all_orders(USUAL, || {
        let (ctx, events, waker) = eventful(2);
        let service = Service::new();
        events.happen(0);
        waker.wake_by_ref();
        let worker = turn(service, 1);
        events.happen(1);
        waker.wake();
        drop(worker.join().unwrap());
        assert_eq!(reason_of(&ctx), 1);
        assert_eq!(events.dropped.load(Ordering::Relaxed), 1);
    });
}

/// The second wake-up may find that the first is still to be seen to.
#[test]
fn two_wakes_vs_poll() {
    // Too many executions at 3: bound 2.
    model_in_all_orders(Some(2), || {
        let (ctx, events, waker) = eventful(2);
        let service = Service::new();
        waker.wake_by_ref();
        let worker = turn(service, 1);
        let (same, again) = (events.clone(), waker.clone());
        let thread = spawn(move || {
            same.happen(0);
            again.wake();
        });
        events.happen(1);
        waker.wake();
        thread.join().unwrap();
        drop(worker.join().unwrap());
        assert_eq!(reason_of(&ctx), 1);
    });
}

/// What the last poll has written is seen by the next one, on another worker.
#[test]
fn wake_vs_polls_of_two_workers() {
    // Too many executions at 3: bound 2.
    model_in_all_orders(Some(2), || {
        let (ctx, events, waker) = eventful(2);
        let (mut one, mut other) = (Service::new(), Service::new());
        waker.wake_by_ref();
        let worker = spawn(move || {
            one.turn(Service::at(1));
            one
        });
        let thread = spawn(move || {
            other.turn(Service::at(1));
            other
        });
        events.happen(0);
        events.happen(1);
        waker.wake();
        drop(worker.join().unwrap());
        drop(thread.join().unwrap());
        assert_eq!(reason_of(&ctx), 1);
    });
}

#[test]
fn wake_vs_close() {
    model_in_all_orders(USUAL, || {
        let service = Service::new();
        let (ctx, events, waker) = eventful(1);
        let thread = spawn(move || drop(ctx));
        events.happen(0);
        waker.wake();
        thread.join().unwrap();
        // Not polled again: what it waited for happened after the context had gone, or before the worker looked.
        assert_eq!(events.dropped.load(Ordering::Relaxed), 1);
        drop(service);
    });
}

#[test]
fn poll_vs_close() {
    // Too many executions at 3: bound 2.
    model_in_all_orders(Some(2), || {
        let service = Service::new();
        let (ctx, events, waker) = eventful(1);
        waker.wake_by_ref();
        let worker = turn(service, 1);
        drop(ctx);
        let service = worker.join().unwrap();
        // The future goes with the context, not with the last waker.
        assert_eq!(events.dropped.load(Ordering::Relaxed), 1);
        drop(service);
        drop(waker);
    });
}

/// Wakes itself in every poll but the first.
struct Restless(All);

impl Future for Restless {
    type Output = cancel_tree_loom::Cause;

    fn poll(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<Self::Output> {
        let again = self.0.started;
        let poll = Pin::new(&mut self.0).poll(cx);
        if again {
            cx.waker().wake_by_ref();
        }
        poll
    }
}

/// The worker that is to give the job away again finds that nobody wants it any more, or whoever closes finds it given away.
#[test]
fn poll_of_one_that_wakes_itself_vs_close() {
    struct Below(Arc<Events>);

    impl ForeignContext for Below {
        fn on_done(&self, signal: DoneSignal) -> Box<dyn Any + Send> {
            signal.when_ready(Restless(All::new(&self.0)))
        }
    }

    // Too many executions at 3: bound 2.
    model_in_all_orders(Some(2), || {
        let service = Service::new();
        let events = Events::new(1);
        let ctx = Context::below(Below(events.clone()));
        events.waker().wake();
        let worker = turn(service, 1);
        drop(ctx);
        drop(worker.join().unwrap());
        assert_eq!(events.dropped.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn ready_vs_close() {
    // Too many executions at 3: bound 2.
    model_in_all_orders(Some(2), || {
        let service = Service::new();
        let (ctx, events, waker) = eventful(1);
        events.happen(0);
        waker.wake();
        let worker = turn(service, 1);
        drop(ctx);
        drop(worker.join().unwrap());
        assert_eq!(events.dropped.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn wake_vs_poll_vs_close() {
    // Too many executions in all orders, or at 3.
    model(Some(2), || {
        let service = Service::new();
        let (ctx, events, waker) = eventful(2);
        waker.wake_by_ref();
        let worker = turn(service, 1);
        let thread = spawn(move || drop(ctx));
        events.happen(0);
        waker.wake();
        thread.join().unwrap();
        drop(worker.join().unwrap());
        assert_eq!(events.dropped.load(Ordering::Relaxed), 1);
    });
}

/// A context that is held: what is ready cancels it, whoever wakes once more meanwhile.
#[test]
fn wake_vs_ready() {
    model_in_all_orders(USUAL, || {
        let service = Service::new();
        let (ctx, events, waker) = eventful(1);
        events.happen(0);
        waker.wake_by_ref();
        let worker = turn(service, 1);
        waker.wake();
        let service = worker.join().unwrap();
        assert_eq!(reason_of(&ctx), 1);
        assert_eq!(events.dropped.load(Ordering::Relaxed), 1);
        drop(service);
    });
}

/// Gives its waker to another thread while it is polled for the first time.
#[derive(Clone)]
struct Early(Arc<Mutex<Option<JoinHandle<()>>>>, Arc<Events>);

struct Polled(Early, All);

impl Future for Polled {
    type Output = cancel_tree_loom::Cause;

    fn poll(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<Self::Output> {
        if !self.1.started {
            let (waker, events) = (cx.waker().clone(), self.0 .1.clone());
            let thread = spawn(move || {
                events.happen(0);
                waker.wake();
            });
            *self.0 .0.lock().unwrap() = Some(thread);
            self.1.started = true;
        }
        Pin::new(&mut self.1).poll(cx)
    }
}

impl ForeignContext for Early {
    fn on_done(&self, signal: DoneSignal) -> Box<dyn Any + Send> {
        signal.when_ready(Polled(self.clone(), All::new(&self.1)))
    }
}

#[test]
fn wake_vs_the_first_poll() {
    model_in_all_orders(USUAL, || {
        let service = Service::new();
        let early = Early(Arc::default(), Events::new(1));
        let ctx = Context::below(early.clone());
        let thread = early.0.lock().unwrap().take().unwrap();
        thread.join().unwrap();
        drop(service);
        assert_eq!(reason_of(&ctx), 1);
        assert_eq!(ctx.err(), Some(ContextError::Cancelled));
    });
}

#[test]
fn wake_vs_the_first_poll_vs_a_worker() {
    // Too many executions at 3: bound 2.
    model_in_all_orders(Some(2), || {
        let worker = two_turns(Service::new());
        let early = Early(Arc::default(), Events::new(1));
        let ctx = Context::below(early.clone());
        let thread = early.0.lock().unwrap().take().unwrap();
        thread.join().unwrap();
        drop(worker.join().unwrap());
        assert_eq!(reason_of(&ctx), 1);
    });
}

// ----- a future that is woken only when it is ready ---------------------------------------------

struct Precise(Arc<Events>, Mutex<Option<DoneSignal>>);

impl ForeignContext for Precise {
    fn on_done(&self, signal: DoneSignal) -> Box<dyn Any + Send> {
        *self.1.lock().unwrap() = Some(signal.clone());
        signal.when_woken(All::new(&self.0))
    }
}

fn precise() -> (Context, Arc<Events>, Waker) {
    let events = Events::new(1);
    let ctx = Context::below(Precise(events.clone(), Mutex::default()));
    let waker = events.waker();
    (ctx, events, waker)
}

#[test]
fn woken_vs_woken() {
    // Too many executions at 3: bound 2.
    model_in_all_orders(Some(2), || {
        let service = Service::new();
        let (ctx, events, waker) = precise();
        let (same, again, below) = (events.clone(), waker.clone(), ctx.child_token());
        let thread = spawn(move || {
            same.wake(again);
            assert!(below.is_cancelled());
        });
        events.wake(waker);
        assert_eq!(ctx.err(), Some(ContextError::Cancelled));
        thread.join().unwrap();
        drop(service);
    });
}

#[test]
fn woken_vs_woken_vs_drop() {
    // Too many executions in all orders, or at 3.
    model(Some(2), || {
        let service = Service::new();
        let (ctx, events, waker) = precise();
        let (same, again) = (events.clone(), waker.clone());
        let one = spawn(move || same.wake(again));
        let two = spawn(move || drop(ctx));
        events.wake(waker);
        one.join().unwrap();
        two.join().unwrap();
        drop(service);
        assert_eq!(events.dropped.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn woken_vs_drop() {
    model_in_all_orders(USUAL, || {
        let service = Service::new();
        let (ctx, events, waker) = precise();
        let thread = spawn(move || drop(ctx));
        events.wake(waker);
        thread.join().unwrap();
        drop(service);
        assert_eq!(events.dropped.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn woken_vs_worker() {
    model_in_all_orders(USUAL, || {
        let runs = Runs::default();
        let probe = Probe::new();
        let (ctx, events, waker) = precise();
        let below = ctx.child_token();
        let callback = below.on_cancel(runs.callback());
        let mut done = ctx.done_owned();
        assert!(!poll(&mut done, &probe.waker()));
        let worker = turn(Service::new(), 1);
        events.wake(waker);
        assert!(below.is_cancelled());
        drop(worker.join().unwrap());
        assert_eq!((runs.count(), probe.woken()), (1, 1));
        assert!(!callback.stop());
        drop(done);
    });
}

/// What it wakes is woken by a worker that only wakes, while another one is in a callback that waits for that.
#[test]
fn woken_vs_a_callback_that_waits_for_it() {
    struct Ringing(Arc<Notify>);

    impl Wake for Ringing {
        fn wake(self: Arc<Self>) {
            self.0.notify();
        }
    }

    model(Some(2), || {
        let mut service = Service::new();
        let woken = Arc::new(Notify::new());
        let (ctx, events, waker) = precise();
        let mut done = ctx.done_owned();
        assert!(!poll(&mut done, &Arc::new(Ringing(woken.clone())).into()));
        let (slow, guard) = Context::background().with_deadline(Service::at(1));
        guard.detach();
        drop(slow.on_cancel(move || woken.wait()));
        let first = service.expire(Service::at(1)).share();
        let round = first.clone();
        let thread = spawn(move || round.serve());
        events.wake(waker);
        let second = service.expire(Service::at(1)).share();
        first.set_next(&second);
        second.clone().serve_waking();
        thread.join().unwrap();
        second.serve();
        drop(done);
        drop(service);
    });
}

/// Of two workers, one wakes and one runs; it is run when it has been woken, and is gone then.
#[test]
fn woken_vs_two_workers() {
    model(Some(2), || {
        let mut service = Service::new();
        let (runs, probe) = (Runs::default(), Probe::new());
        let (ctx, events, waker) = precise();
        drop(ctx.on_cancel(runs.callback()));
        let mut done = ctx.clone().done_owned();
        assert!(!poll(&mut done, &probe.waker()));
        events.wake(waker);
        let round = service.expire(Service::at(1)).share();
        let other = round.clone();
        let thread = spawn(move || other.serve());
        round.serve();
        thread.join().unwrap();
        assert_eq!((runs.count(), probe.woken()), (1, 1));
        drop((done, ctx));
        drop(service);
        assert_eq!(events.dropped.load(Ordering::Relaxed), 1);
    });
}

/// Without a callback, whose turn would wake whoever still waits.
#[test]
fn woken_vs_worker_with_a_task_only() {
    model(USUAL, || {
        let probe = Probe::new();
        let (ctx, events, waker) = precise();
        let below = ctx.child_token();
        let mut done = ctx.done_owned();
        assert!(!poll(&mut done, &probe.waker()));
        let worker = turn(Service::new(), 1);
        events.wake(waker);
        assert!(below.is_cancelled());
        drop(worker.join().unwrap());
        assert_eq!(probe.woken(), 1);
        drop(done);
    });
}

#[test]
fn woken_vs_worker_vs_drop() {
    // Too many executions in all orders, or at 3.
    model(Some(2), || {
        let (ctx, events, waker) = precise();
        let worker = turn(Service::new(), 1);
        let thread = spawn(move || drop(ctx));
        events.wake(waker);
        thread.join().unwrap();
        drop(worker.join().unwrap());
        assert_eq!(events.dropped.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn woken_vs_signal() {
    // Too many executions at 3: bound 2.
    model_in_all_orders(Some(2), || {
        let service = Service::new();
        let events = Events::new(1);
        let parent = Arc::new(Precise(events.clone(), Mutex::default()));
        struct Same(Arc<Precise>);
        impl ForeignContext for Same {
            fn on_done(&self, signal: DoneSignal) -> Box<dyn Any + Send> {
                self.0.on_done(signal)
            }
        }
        let ctx = Context::below(Same(parent.clone()));
        let (waker, signal) = (events.waker(), parent.1.lock().unwrap().take().unwrap());
        let below = ctx.child_token();
        let thread = spawn(move || {
            let first = signal.cancel();
            assert!(ctx.is_done());
            first
        });
        events.wake(waker);
        assert!(below.is_cancelled());
        thread.join().unwrap();
        drop(below);
        drop(service);
        assert_eq!(events.dropped.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn woken_vs_cancel_of_another_source() {
    // Too many executions at 3: bound 2.
    model_in_all_orders(Some(2), || {
        let service = Service::new();
        let (ctx, events, waker) = precise();
        let (other, guard) = Context::background().with_cancel();
        let either = Context::any_of([&other, &ctx]).child_token();
        let thread = spawn(move || {
            guard.cancel_with(Reason::cause(2));
            Service::end_of_thread();
        });
        events.wake(waker);
        assert!(either.is_cancelled() && ctx.is_done());
        thread.join().unwrap();
        drop((ctx, either, other));
        drop(service);
        assert_eq!(events.dropped.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn woken_vs_the_first_poll() {
    #[derive(Clone)]
    struct Racing(Early);

    impl ForeignContext for Racing {
        fn on_done(&self, signal: DoneSignal) -> Box<dyn Any + Send> {
            signal.when_woken(Polled(self.0.clone(), All::new(&self.0 .1)))
        }
    }

    model_in_all_orders(USUAL, || {
        let service = Service::new();
        let early = Early(Arc::default(), Events::new(1));
        let ctx = Context::below(Racing(early.clone()));
        let thread = early.0.lock().unwrap().take().unwrap();
        thread.join().unwrap();
        assert_eq!(ctx.err(), Some(ContextError::Cancelled));
        drop(ctx);
        drop(service);
        assert_eq!(early.1.dropped.load(Ordering::Relaxed), 1);
    });
}
