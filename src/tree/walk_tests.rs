//! Walks in steps: how far one goes, and that nothing else depends on it.

use super::Walk;
use crate::tree::cause::{Cause, ContextError};
use crate::tree::why::origin_of;
use crate::tree::word::State;
use crate::tree::{Handle, Node};
use alloc::vec;
use alloc::vec::Vec;
use core::ptr;
use std::time::Instant;

/// A chain of so many below the root, which is visited before its two siblings. In it others' cancels are half way, one below the
/// other: every tenth.
fn tree(length: usize) -> Vec<Handle> {
    let root = Handle::root();
    // The youngest first.
    let mut all: Vec<_> = (0..2).map(|_| root.child()).collect();
    let mut chain = vec![root.child()];
    for i in 0..length {
        chain.push(chain[i].child());
    }
    for i in (0..length).step_by(10).rev() {
        let kind = [ContextError::Cancelled, ContextError::DeadlineExceeded][i / 10 % 2];
        chain[i].cancel_with(Cause::from(kind));
    }
    all.extend(chain);
    root.cancel();
    all.insert(0, root);
    all
}

/// What a visitor sees, and how many steps it takes.
fn visits(root: &Node, budget: usize) -> (Vec<(*const Node, bool, *const Node)>, usize) {
    let mut seen = Vec::new();
    let mut steps = 1;
    let mut walk = Walk::new(root, root.word.load());
    let mut visit = |node: &Node, from: super::From| {
        let by_deadline = from.kind.has_any(State::DEADLINE);
        // SAFETY: the root is cancelled, so it is a node of the tree.
        let origin = origin_of(unsafe { &*from.origin });
        seen.push((ptr::from_ref(node), by_deadline, origin));
        node.word.load().without(State::MARKED)
    };
    while walk.step::<true>(budget, &mut visit).is_none() {
        steps += 1;
    }
    (seen, steps)
}

#[test]
fn a_walk_in_steps_sees_what_one_at_once_does() {
    let all = tree(95);
    let root = all[0].node();
    let (at_once, steps) = visits(root, usize::MAX);
    assert_eq!((at_once.len(), steps), (all.len() - 1, 1));
    let origins = |seen: &[(_, _, *const Node)]| {
        let mut origins: Vec<_> = seen.iter().map(|(_, _, origin)| *origin).collect();
        origins.dedup();
        origins.len()
    };
    // That of the root, of each tenth, and of the root again.
    assert_eq!(origins(&at_once), 12);
    for budget in 1..120 {
        assert_eq!(visits(root, budget).0, at_once, "{budget}");
    }
}

#[test]
fn the_way_back_from_the_end_of_a_chain_is_in_steps_too() {
    const N: usize = 10_000;
    let all = tree(N);
    let (_, steps) = visits(all[0].node(), 100);
    assert!((2 * N / 100..2 * N / 100 + 3).contains(&steps), "{steps}");
}

/// One below the other: a chain, and at its end many that are half way.
#[test]
fn who_leaves_others_does_not_look_for_what_is_far_above() {
    const N: usize = 10_000;
    let walk = |others: bool| {
        let root = Handle::root();
        let mut chain = vec![root.child()];
        for i in 0..N {
            chain.push(chain[i].child());
        }
        let ends: Vec<_> = (0..N).map(|_| chain[N].child()).collect();
        let below: Vec<_> = ends.iter().map(Handle::child).collect();
        if others {
            for end in ends.iter().chain([&chain[0]]) {
                end.cancel();
            }
        }
        root.cancel();
        let times = (0..3).map(|_| {
            let start = Instant::now();
            let mut walk = Walk::new(root.node(), root.node().word.load());
            let rest = walk.step::<true>(usize::MAX, |node, _| {
                node.word.load().without(State::MARKED)
            });
            assert!(rest.is_some());
            start.elapsed()
        });
        let shortest = times.min().unwrap();
        drop(below);
        shortest
    };
    let (without, with) = (walk(false), walk(true));
    assert!(with < 20 * without, "{with:?}, without others {without:?}");
}
