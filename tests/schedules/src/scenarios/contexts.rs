//! Contexts with deadlines, values and callbacks, on several threads, while another one turns the service.

use super::hand::stop_and_wait;
use crate::probes::{draw, operation, Counted, Record, Runs, Shared, Turns};
use cancel_tree::{Canceller, Context, Registration, Service};
use shuttle::thread;
use std::sync::Arc;

const THREADS: usize = 3;
const OPERATIONS: usize = 50;
const TIMES: u64 = 12;

/// A value, and the record that it must be found by.
struct Name(usize, #[allow(dead_code)] Counted);

#[derive(Clone)]
struct Known {
    ctx: Context,
    record: Record,
    canceller: Option<Canceller>,
    name: Option<usize>,
}

type Callback = (Registration, Record, Runs);

#[derive(Default)]
struct Hand {
    contexts: Vec<Known>,
    callbacks: Vec<Callback>,
    turns: Arc<Turns>,
}

pub fn run() {
    let turns = Arc::new(Turns::default());
    let mail: Arc<Shared<Vec<Known>>> = Arc::default();
    let (ctx, guard) = Context::background().with_cancel();
    let root = Known {
        ctx,
        record: Record::root(),
        canceller: Some(guard.canceller()),
        name: None,
    };
    guard.detach();
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let (mail, mut hand) = (mail.clone(), Hand::default());
            hand.turns = turns.clone();
            hand.contexts.push(root.clone());
            thread::spawn(move || {
                for _ in 0..OPERATIONS {
                    hand.act(&mail);
                }
                hand
            })
        })
        .collect();
    // This thread is the service.
    let mut service = Service::new();
    let mut time = 1;
    for _ in 0..draw(40) {
        operation();
        time = (time + draw(2) as u64).min(TIMES);
        turns.turn(time, || match draw(4) {
            0 => {
                // As two workers have it.
                let due = service.expire(Service::at(time));
                thread::spawn(move || due.fire()).join().unwrap();
            }
            _ => service.turn(Service::at(time)),
        });
    }
    let hands: Vec<Hand> = threads.into_iter().map(|t| t.join().unwrap()).collect();
    drop(mail.with(std::mem::take));
    drop(root);
    turns.turn(TIMES, || service.turn(Service::at(TIMES)));
    // What is left of callbacks off the thread runs here; who waits for it must not be before.
    service.turn(Service::at(TIMES));
    hands.into_iter().for_each(Hand::finish);
    // The cache of this thread, before the timer goes: what it has is not scheduled any more then.
    Service::end_of_thread();
    drop(service);
}

impl Hand {
    fn any(&self) -> Option<&Known> {
        (!self.contexts.is_empty()).then(|| &self.contexts[draw(self.contexts.len())])
    }

    fn add(&mut self, known: Known) {
        known.check();
        if self.contexts.len() < 10 {
            self.contexts.push(known);
        }
    }

    fn act(&mut self, mail: &Shared<Vec<Known>>) {
        operation();
        match draw(30) {
            0..=7 => self.create_timed(),
            8..=9 => self.create(),
            10..=11 => self.name(),
            12..=17 if !self.contexts.is_empty() => {
                drop(self.contexts.swap_remove(draw(self.contexts.len())));
            }
            18..=19 => {
                if let Some(known) = self.any() {
                    known.cancel();
                }
            }
            20..=21 => self.contexts.iter().for_each(Known::check),
            22..=24 => self.register(),
            25..=26 if !self.callbacks.is_empty() => {
                let (registration, _, runs) =
                    self.callbacks.swap_remove(draw(self.callbacks.len()));
                // Never waits: the service may be who has to run it.
                if registration.stop() {
                    assert_eq!(runs.count(), 0, "stopped, and has run");
                }
            }
            27 => self.either(),
            _ => {
                let mine = self.any().cloned();
                let theirs = mail.with(|mail| {
                    let theirs = (!mail.is_empty()).then(|| mail.swap_remove(draw(mail.len())));
                    mail.extend(mine);
                    theirs
                });
                self.contexts.extend(theirs);
            }
        }
    }

    fn create_timed(&mut self) {
        self.create_at(1 + draw(TIMES as usize) as u64);
    }

    fn create_at(&mut self, time: u64) {
        let Some(above) = self.any() else { return };
        let record = Record::timed(&[&above.record], &self.turns, time);
        let (ctx, guard) = above.ctx.with_deadline(Service::at(time));
        record.is_timed();
        let canceller = Some(guard.canceller());
        guard.detach();
        let name = above.name;
        self.add(Known {
            ctx,
            record,
            canceller,
            name,
        });
    }

    fn create(&mut self) {
        let Some(above) = self.any() else { return };
        let record = Record::below(&[&above.record]);
        let (ctx, guard) = above.ctx.with_cancel();
        let canceller = Some(guard.canceller());
        guard.detach();
        let name = above.name;
        self.add(Known {
            ctx,
            record,
            canceller,
            name,
        });
    }

    fn name(&mut self) {
        let Some(above) = self.any() else { return };
        let name = draw(1 << 20);
        let ctx = above.ctx.with_value(Name(name, Counted::new()));
        let mut known = above.clone();
        (known.ctx, known.name) = (ctx, Some(name));
        self.add(known);
    }

    fn either(&mut self) {
        let (Some(one), Some(other)) = (self.any(), self.any()) else {
            return;
        };
        let known = Known {
            ctx: Context::any_of([&one.ctx, &other.ctx]),
            record: Record::below(&[&one.record, &other.record]),
            canceller: None,
            name: one.name,
        };
        self.add(known);
    }

    fn register(&mut self) {
        let Some(known) = self.any() else { return };
        let runs = Runs::default();
        let callback = runs.callback(&known.record);
        let registration = match draw(2) {
            0 => known.ctx.on_cancel(callback),
            _ => known.ctx.after_func(callback),
        };
        let record = known.record.clone();
        self.callbacks.push((registration, record, runs));
    }

    fn finish(mut self) {
        self.contexts.iter().for_each(Known::check);
        for (registration, record, runs) in self.callbacks.drain(..) {
            stop_and_wait(registration, &record, &runs);
        }
    }
}

impl Known {
    fn check(&self) {
        self.record.check(&self.ctx);
        let name = self.ctx.value::<Name>().map(|name| name.0);
        assert_eq!(name, self.name, "another's value");
    }

    fn cancel(&self) {
        if let Some(canceller) = &self.canceller {
            self.record
                .cancel(&self.ctx, |cause| canceller.cancel_with(cause));
        }
    }
}

/// Two threads make contexts, with deadlines that mostly come earlier than those before, so that entries are armed again
/// for earlier and move; another thread drops them, so that the entries go back to who made them, or to nobody when that
/// thread has ended.
pub fn handed() {
    let turns = Arc::new(Turns::default());
    let mail: Arc<Shared<Vec<Known>>> = Arc::default();
    let (ctx, guard) = Context::background().with_cancel();
    let root = Known {
        ctx,
        record: Record::root(),
        canceller: Some(guard.canceller()),
        name: None,
    };
    guard.detach();
    let makers: Vec<_> = (0..2)
        .map(|_| {
            let (mail, mut hand) = (mail.clone(), Hand::default());
            hand.turns = turns.clone();
            hand.contexts.push(root.clone());
            thread::spawn(move || {
                for i in 0..draw(40) {
                    operation();
                    let time = match draw(6) {
                        0 => 1 + draw(TIMES as usize) as u64,
                        _ => TIMES - (i as u64 % TIMES),
                    };
                    hand.create_at(time);
                    let made = hand.contexts.split_off(1);
                    mail.with(|mail| mail.extend(made));
                }
            })
        })
        .collect();
    let dropper = {
        let mail = mail.clone();
        thread::spawn(move || {
            for _ in 0..60 {
                operation();
                let one = mail
                    .with(|mail| (!mail.is_empty()).then(|| mail.swap_remove(draw(mail.len()))));
                match one {
                    None => thread::yield_now(),
                    Some(known) if draw(4) == 0 => known.cancel(),
                    Some(known) => known.check(),
                }
            }
        })
    };
    let mut service = Service::new();
    let mut time = 1;
    for _ in 0..draw(30) {
        operation();
        // Time stands still mostly, so that entries are moved more often than they come up.
        time = (time + u64::from(draw(4) == 0)).min(TIMES);
        turns.turn(time, || service.turn(Service::at(time)));
    }
    makers.into_iter().for_each(|maker| maker.join().unwrap());
    dropper.join().unwrap();
    turns.turn(TIMES, || service.turn(Service::at(TIMES)));
    for known in mail.with(std::mem::take) {
        known.check();
    }
    drop(root);
    Service::end_of_thread();
    drop(service);
}

/// The service's loop as it is: it sleeps when it finds nothing, and hands what it finds to workers, of which it starts some, if
/// they can be had. Others wait for what they do: a wake-up that is lost, or a thing that nobody is sent to, is a deadlock.
pub fn sleeping_service() {
    let stop = Arc::new(Shared::new(false));
    let service = {
        let stop = stop.clone();
        thread::spawn(move || {
            let can_be_had = || Some(draw(3) != 0);
            let mut service = Service::with_workers(std::iter::from_fn(can_be_had));
            while !stop.with(|stop| *stop) {
                service.run_until_something_comes();
                if draw(3) == 0 {
                    service.let_workers_go();
                }
            }
            service
        })
    };
    let clients: Vec<_> = (0..2)
        .map(|_| {
            thread::spawn(|| {
                for _ in 0..18 {
                    operation();
                    let (ctx, guard) = Context::background().with_deadline(Service::at(1));
                    let (record, runs) = (Record::root(), Runs::default());
                    let registration = ctx.after_func(runs.callback(&record));
                    if draw(4) == 0 {
                        assert!(registration.stop(), "stopped before the cancel");
                        continue;
                    }
                    record.cancel(&ctx, |cause| guard.cancel_with(cause));
                    assert!(!registration.stop_and_wait());
                    assert_eq!(runs.count(), 1);
                }
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
    stop.with(|stop| *stop = true);
    // The last that comes.
    let (ctx, guard) = Context::background().with_cancel();
    drop(ctx.after_func(|| ()));
    drop(guard);
    drop(service.join().unwrap());
}
