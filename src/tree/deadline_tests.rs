//! What the parent's timer was at when a child was forked, which has none: the moment cannot be had from outside.

#[path = "../../tests/forked/mod.rs"]
mod forked;

use super::super::timing::Timing;
use crate::{Context, ContextError};
use forked::status_of;
use std::time::{Duration, Instant};

const PERIOD: Duration = Duration::from_millis(20);

/// The timer has taken it, which the child has a copy of.
fn take(ctx: &Context) -> &Timing {
    let node = ctx.token().expect("it can be done").handle().node();
    let timing = node.link.timing().expect("it has a deadline");
    assert!(timing.entry.begin(timing.entry.look()));
    timing
}

#[test]
fn an_idle_timeout_that_was_firing_at_a_fork_shows_its_deadline() {
    let child = || {
        let (ctx, guard) = Context::background().with_idle_timeout(PERIOD);
        std::thread::sleep(PERIOD / 2);
        guard.touch();
        let deadline = ctx.deadline();
        take(&ctx);
        match (ctx.blocking_wait(), ctx.deadline()) {
            (ContextError::DeadlineExceeded, shown) if shown == deadline => 0,
            _ => 1,
        }
    };
    assert_eq!(status_of(child), 0);
}

#[test]
fn an_idle_timeout_that_had_passed_before_a_fork_shows_that_deadline() {
    let child = || {
        let (ctx, guard) = Context::background().with_idle_timeout(PERIOD);
        let deadline = ctx.deadline();
        let timing = take(&ctx);
        // The first half of what marks it.
        timing.note_due(timing.entry.look().deadline());
        timing.entry.note_passed();
        std::thread::sleep(PERIOD / 2);
        // Too late.
        guard.touch();
        match (ctx.blocking_wait(), ctx.deadline()) {
            (ContextError::DeadlineExceeded, shown) if shown == deadline => 0,
            _ => 1,
        }
    };
    assert_eq!(status_of(child), 0);
}

/// Whether an idle timeout has passed is the timer's to say, which is at it; another one that has passed below is not held up by that.
#[test]
fn what_is_left_to_the_timer_hides_no_other() {
    let (outer, _outer) = Context::background().with_idle_timeout(PERIOD);
    let (inner, guard) = outer.with_movable_deadline(Instant::now() + 100 * PERIOD);
    let timing = take(&outer);
    std::thread::sleep(PERIOD + PERIOD / 4);
    guard.set(Instant::now());
    assert!(inner.is_done() && !outer.is_done());
    assert!(!timing.entry.trigger().finish());
}
