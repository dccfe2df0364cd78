//! What one thread has of tokens, and does with them.

use crate::probes::{draw, operation, Alarm, Record, Runs, Shared};
use cancel_tree::{CancellationToken, Registration, WaitForCancellationFutureOwned};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;

pub type Known = (CancellationToken, Record);

/// Where threads leave things for each other.
pub type Mail = Arc<Shared<Vec<Known>>>;

#[derive(Default)]
pub struct Hand {
    pub tokens: Vec<Known>,
    callbacks: Vec<(Registration, Record, Runs)>,
    futures: Vec<(WaitForCancellationFutureOwned, Record, Arc<Alarm>)>,
    /// Callbacks without a registration.
    left: Vec<Runs>,
}

/// A hand is not let grow larger.
const MOST: usize = 10;

impl Hand {
    pub fn of(tokens: Vec<Known>) -> Hand {
        Hand {
            tokens,
            ..Hand::default()
        }
    }

    fn any(&self) -> Option<&Known> {
        (!self.tokens.is_empty()).then(|| &self.tokens[draw(self.tokens.len())])
    }

    fn take_any(&mut self) -> Option<Known> {
        (!self.tokens.is_empty()).then(|| self.tokens.swap_remove(draw(self.tokens.len())))
    }

    /// Something, at random.
    pub fn act(&mut self, mail: &Mail) {
        operation();
        match draw(40) {
            0..=9 => self.create(),
            10..=12 => self.clone_one(),
            13..=20 => drop(self.take_any()),
            21..=22 => self.cancel(),
            23..=25 => self.check(),
            26..=27 => self.create_any_of(),
            28..=30 => self.register(),
            31..=33 => self.unregister(),
            34..=35 => self.start_waiting(),
            36..=37 => self.go_on_waiting(),
            _ => self.swap(mail),
        }
    }

    fn create(&mut self) {
        let Some((token, record)) = self.any() else {
            return;
        };
        let child = (token.child_token(), Record::below(&[record]));
        if self.tokens.len() < MOST {
            self.tokens.push(child);
        }
    }

    fn clone_one(&mut self) {
        let Some((token, record)) = self.any() else {
            return;
        };
        let clone = (token.clone(), record.clone());
        if self.tokens.len() < MOST {
            self.tokens.push(clone);
        }
    }

    fn cancel(&mut self) {
        if let Some((token, record)) = self.any() {
            record.cancel(token, |cause| token.cancel_with(cause));
        }
    }

    pub fn check(&self) {
        for (token, record) in &self.tokens {
            record.check(token);
        }
    }

    fn create_any_of(&mut self) {
        let (Some(one), Some(other)) = (self.any(), self.any()) else {
            return;
        };
        let record = Record::below(&[&one.1, &other.1]);
        let token = CancellationToken::any_of([&one.0, &other.0]);
        record.check(&token);
        if self.tokens.len() < MOST {
            self.tokens.push((token, record));
        }
    }

    fn register(&mut self) {
        let Some((token, record)) = self.any() else {
            return;
        };
        let runs = Runs::default();
        let registration = token.on_cancel(runs.callback(record));
        let record = record.clone();
        match draw(4) {
            0 => self.left.push(runs),
            _ => self.callbacks.push((registration, record, runs)),
        }
    }

    fn unregister(&mut self) {
        if self.callbacks.is_empty() {
            return;
        }
        let i = draw(self.callbacks.len());
        let (registration, record, runs) = self.callbacks.swap_remove(i);
        match draw(4) {
            0 => self.left.push(runs),
            1 => {
                if registration.stop() {
                    assert_eq!(runs.count(), 0, "stopped, and has run");
                }
                self.left.push(runs);
            }
            2 => drop(registration.stop_on_drop()),
            _ => stop_and_wait(registration, &record, &runs),
        }
    }

    fn start_waiting(&mut self) {
        let Some((token, record)) = self.any() else {
            return;
        };
        let future = token.clone().cancelled_owned();
        self.futures.push((future, record.clone(), Alarm::new()));
    }

    fn go_on_waiting(&mut self) {
        if self.futures.is_empty() {
            return;
        }
        let i = draw(self.futures.len());
        let (future, record, alarm) = &mut self.futures[i];
        if draw(3) == 0 {
            // Only the newest waker counts.
            *alarm = Alarm::new();
        }
        let must = record.must_be_done();
        let waker = alarm.waker();
        let ready = Pin::new(future)
            .poll(&mut Context::from_waker(&waker))
            .is_ready();
        assert!(ready || !must, "pending below a cancelled token");
        if ready {
            assert!(record.may_be_done(), "ready for nothing");
        }
        if ready || draw(3) == 0 {
            drop(self.futures.swap_remove(i));
        } else {
            self.futures[i].2.set_polled();
        }
    }

    fn swap(&mut self, mail: &Mail) {
        let mine = self.take_any();
        let theirs = mail.with(|mail| {
            let theirs = (!mail.is_empty()).then(|| mail.swap_remove(draw(mail.len())));
            mail.extend(mine);
            theirs
        });
        self.tokens.extend(theirs);
    }

    /// The threads are through: what was promised has been kept.
    pub fn finish(mut self) {
        self.check();
        for (_, record, alarm) in &self.futures {
            let lost = alarm.was_polled() && record.must_be_done() && !alarm.has_rung();
            assert!(!lost, "a waker that was not woken");
        }
        for (registration, record, runs) in self.callbacks.drain(..) {
            stop_and_wait(registration, &record, &runs);
        }
        for runs in &self.left {
            assert!(runs.count() <= 1);
        }
    }
}

pub fn stop_and_wait(registration: Registration, record: &Record, runs: &Runs) {
    let must = record.must_be_done() && !record.is_being_cancelled();
    let stopped = registration.stop_and_wait();
    assert!(!(must && stopped), "a callback that has not run");
    assert_eq!(runs.count(), usize::from(!stopped), "the callback's runs");
}
