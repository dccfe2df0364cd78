//! Tokens of two trees: made, cloned, dropped, cancelled, waited for, handed from one thread to another.

use super::hand::{Hand, Known, Mail};
use crate::probes::{draw, Record};
use cancel_tree::CancellationToken;
use shuttle::thread;
use std::sync::Arc;

const THREADS: usize = 4;
const OPERATIONS: usize = 60;

pub fn run() {
    let roots: Vec<Known> = (0..2)
        .map(|_| (CancellationToken::new(), Record::root()))
        .collect();
    let mail = Mail::default();
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let mail = Arc::clone(&mail);
            let mut hand = Hand::of(
                roots
                    .iter()
                    .map(|(t, r)| (t.child_token(), Record::below(&[r])))
                    .collect(),
            );
            thread::spawn(move || {
                for _ in 0..OPERATIONS {
                    hand.act(&mail);
                }
                hand
            })
        })
        .collect();
    // A cancel from above, somewhere in between.
    let in_between = draw(2) == 0;
    let cancel = |(token, record): &Known| record.cancel(token, |cause| token.cancel_with(cause));
    if in_between {
        for _ in 0..draw(100) {
            thread::yield_now();
        }
        cancel(&roots[0]);
    }
    let hands: Vec<Hand> = threads.into_iter().map(|t| t.join().unwrap()).collect();
    drop(mail.with(std::mem::take));
    // All of them: a callback left on an `any_of` token stays until a source is cancelled.
    roots.iter().for_each(cancel);
    hands.into_iter().for_each(Hand::finish);
}
