//! Contexts below parents of another kind: a list of signals, and futures of another tree, which workers poll or whose
//! waker tells.

use crate::probes::{draw, operation, Counted, Record, Shared, Turns};
use cancel_tree::{CancellationToken, Cause, Context, DoneSignal, ForeignContext, Service};
use shuttle::{future, thread};
use std::any::Any;
use std::sync::Arc;

const THREADS: usize = 3;
const OPERATIONS: usize = 40;

/// How a parent tells.
#[derive(Clone, Copy)]
enum Kind {
    /// It has a list of those to tell.
    List,
    /// It is a token of another tree, and a future that now and then yields waits for it.
    Ready,
    /// The same, with a future that is woken once only.
    Woken,
}

#[derive(Clone)]
struct Parent {
    signals: Arc<Shared<(Option<Cause>, Vec<DoneSignal>)>>,
    token: CancellationToken,
    kind: Kind,
    /// How often the future that is polled yields before it waits.
    yields: usize,
    turns: Arc<Turns>,
}

impl Parent {
    /// A context below, and what is known of it.
    fn below(&self, above: &Record) -> Known {
        let ctx = Context::below(self.clone());
        let record = match self.kind {
            Kind::List => Record::below(&[above]),
            Kind::Ready => Record::asked_in(&self.turns, self.yields, CANCELLED, above),
            Kind::Woken => Record::woken_by(above),
        };
        record.check(&ctx);
        (ctx, record)
    }
}

/// The time of turns that begin when the parent has been cancelled.
const CANCELLED: u64 = 1;

impl ForeignContext for Parent {
    fn on_done(&self, signal: DoneSignal) -> Box<dyn Any + Send> {
        let (token, counted) = (self.token.clone(), Counted::new());
        match self.kind {
            Kind::List => {}
            Kind::Ready => {
                let yields = self.yields;
                return signal.when_ready(async move {
                    let _counted = counted;
                    for _ in 0..yields {
                        future::yield_now().await;
                    }
                    token.cancelled().await;
                    token.cause().expect("cancelled")
                });
            }
            Kind::Woken => {
                return signal.when_woken(async move {
                    let _counted = counted;
                    token.cancelled().await;
                });
            }
        }
        let over = self.signals.with(|(over, signals)| {
            if over.is_none() {
                signals.push(signal.clone());
            }
            over.clone()
        });
        if let Some(cause) = over {
            signal.cancel_with(cause);
        }
        Box::new(counted)
    }
}

type Known = (Context, Record);

pub fn run() {
    let (token, record) = (CancellationToken::new(), Record::root());
    let parent = Parent {
        signals: Arc::default(),
        token: token.clone(),
        kind: [Kind::List, Kind::Ready, Kind::Woken][draw(3)],
        yields: draw(3),
        turns: Arc::default(),
    };
    // This thread is the service too.
    let mut service = Service::new();
    let turns = parent.turns.clone();
    let mut turn = |time| {
        operation();
        turns.turn(time, || match draw(4) {
            0 => {
                // As a worker has it.
                let due = service.expire(Service::at(time));
                thread::spawn(move || due.fire()).join().unwrap();
            }
            _ => service.turn(Service::at(time)),
        });
    };
    let mail: Arc<Shared<Vec<Known>>> = Arc::default();
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let (parent, record, mail) = (parent.clone(), record.clone(), mail.clone());
            thread::spawn(move || work(&parent, &record, &mail))
        })
        .collect();
    for _ in 0..draw(150) {
        thread::yield_now();
        if draw(20) == 0 {
            turn(0);
        }
    }
    operation();
    // The signals are told by two threads at once, some of them twice.
    let signals = parent.signals.clone();
    record.cancel(&token, |cause| {
        let mine = signals.with(|(over, signals)| {
            *over = Some(cause.clone());
            std::mem::take(signals)
        });
        let twice = mine.clone();
        let (one, other) = (cause.clone(), cause.clone());
        let helper = thread::spawn(move || {
            for signal in twice.into_iter().rev() {
                signal.cancel_with(one.clone());
            }
        });
        for signal in mine {
            signal.cancel_with(other.clone());
        }
        helper.join().unwrap();
        token.cancel_with(cause)
    });
    for _ in 0..draw(4) {
        turn(CANCELLED);
        thread::yield_now();
    }
    let threads: Vec<Vec<Known>> = threads.into_iter().map(|t| t.join().unwrap()).collect();
    // What yields, more than once.
    (0..3).for_each(|_| turn(CANCELLED));
    for known in threads {
        for (ctx, record) in known {
            record.check(&ctx);
        }
    }
    for (ctx, record) in mail.with(std::mem::take) {
        record.check(&ctx);
    }
    signals.with(std::mem::take);
    Service::end_of_thread();
    drop(service);
}

fn work(parent: &Parent, above: &Record, mail: &Shared<Vec<Known>>) -> Vec<Known> {
    let mut mine: Vec<Known> = Vec::new();
    for _ in 0..OPERATIONS {
        operation();
        match draw(10) {
            0..=3 => {
                mine.push(parent.below(above));
            }
            4..=5 if !mine.is_empty() => {
                let (ctx, above) = &mine[draw(mine.len())];
                let record = Record::below(&[above]);
                let (ctx, guard) = ctx.with_cancel();
                if draw(4) == 0 {
                    record.cancel(&ctx, |cause| guard.cancel_with(cause));
                }
                guard.detach();
                mine.push((ctx, record));
            }
            6..=7 if !mine.is_empty() => drop(mine.swap_remove(draw(mine.len()))),
            8 if !mine.is_empty() => {
                let one = mine.swap_remove(draw(mine.len()));
                let other = mail.with(|mail| {
                    mail.push(one);
                    (mail.len() > 1).then(|| mail.swap_remove(draw(mail.len())))
                });
                mine.extend(other);
            }
            _ => mine.iter().for_each(|(ctx, record)| record.check(ctx)),
        }
    }
    mine
}
