//! Contexts below parents of another kind: a list of signals, and a future of another tree.

use crate::probes::{draw, operation, Counted, Record, Shared};
use cancel_tree::{CancellationToken, Cause, Context, DoneSignal, ForeignContext, Service};
use shuttle::thread;
use std::any::Any;
use std::sync::Arc;

const THREADS: usize = 3;
const OPERATIONS: usize = 40;

/// A parent that is a list of those to tell, or a token of another tree.
#[derive(Clone)]
struct Parent {
    signals: Arc<Shared<(Option<Cause>, Vec<DoneSignal>)>>,
    token: CancellationToken,
    by_future: bool,
}

impl ForeignContext for Parent {
    fn on_done(&self, signal: DoneSignal) -> Box<dyn Any + Send> {
        if self.by_future {
            let token = self.token.clone();
            return signal.when_ready(async move {
                token.cancelled().await;
                token.cause().expect("cancelled")
            });
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
        Box::new(Counted::new())
    }
}

type Known = (Context, Record);

pub fn run() {
    let (token, record) = (CancellationToken::new(), Record::root());
    let parent = Parent {
        signals: Arc::default(),
        token: token.clone(),
        by_future: draw(2) == 0,
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
    for thread in threads {
        for (ctx, record) in thread.join().unwrap() {
            record.check(&ctx);
        }
    }
    for (ctx, record) in mail.with(std::mem::take) {
        record.check(&ctx);
    }
    signals.with(std::mem::take);
    Service::end_of_thread();
}

fn work(parent: &Parent, above: &Record, mail: &Shared<Vec<Known>>) -> Vec<Known> {
    let mut mine: Vec<Known> = Vec::new();
    for _ in 0..OPERATIONS {
        operation();
        match draw(10) {
            0..=3 => {
                let record = Record::below(&[above]);
                let ctx = Context::below(parent.clone());
                record.check(&ctx);
                mine.push((ctx, record));
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
