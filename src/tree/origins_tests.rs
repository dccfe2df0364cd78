//! How many steps it takes to find whose own cancel many nodes inherit.

use super::Origins;
use crate::tree::cause::ContextError;
use crate::tree::{Handle, Node};
use alloc::vec;
use alloc::vec::Vec;
use core::ptr;

/// Chains below a root, each of as many as it is told, the second one with an own cancel at its tenth.
fn chains(lengths: [usize; 2]) -> (Handle, [Vec<Handle>; 2]) {
    let root = Handle::root();
    let chains = lengths.map(|length| {
        let mut chain = vec![root.child()];
        for i in 1..length {
            chain.push(chain[i - 1].child());
        }
        chain
    });
    chains[1][9].cancel_with(ContextError::DeadlineExceeded.into());
    root.cancel();
    (root, chains)
}

/// The answer, and the steps it took, so many at a time.
fn find(origins: &mut Origins, node: &Node, budget: usize) -> (*const Node, usize) {
    let mut steps = 0;
    loop {
        if let Some((origin, left)) = origins.find(node, budget) {
            return (origin, steps + budget - left);
        }
        steps += budget;
    }
}

#[test]
fn many_searches_along_one_chain_are_linear_in_any_order() {
    const N: usize = 5_000;
    let (root, [chain, other]) = chains([N, N]);
    let orders: [&dyn Fn(usize) -> usize; 4] = [&|i| i, &|i| N - 1 - i, &|i| i * 7919 % N, &|i| {
        if i % 2 == 0 {
            i
        } else {
            N - i
        }
    }];
    for order in orders {
        for budget in [1, 7, usize::MAX / 2] {
            let mut origins = Origins::new();
            let mut steps = 0;
            for i in (0..N).map(order) {
                let (origin, more) = find(&mut origins, chain[i].node(), budget);
                assert!(ptr::eq(origin, root.node()), "{i}");
                let (origin, others) = find(&mut origins, other[i].node(), budget);
                let expected = if i < 9 { &root } else { &other[9] };
                assert!(ptr::eq(origin, expected.node()), "{i}");
                steps += more + others;
            }
            assert!(steps < 2 * N * 40, "{steps}");
        }
    }
}

/// Its notes say nothing, and the next one along the same way is right.
#[test]
fn a_search_that_is_left_half_way_leads_nobody_astray() {
    let (root, [chain, other]) = chains([500, 500]);
    let mut origins = Origins::new();
    for i in (100..500).step_by(3) {
        assert!(origins.find(chain[i].node(), i - 40).is_none());
        let (origin, _) = find(&mut origins, other[i].node(), usize::MAX);
        assert!(ptr::eq(origin, other[9].node()));
    }
    for handle in &chain {
        let (origin, _) = find(&mut origins, handle.node(), 10);
        assert!(ptr::eq(origin, root.node()));
    }
    let (origin, steps) = find(&mut origins, root.node(), 1);
    assert!(ptr::eq(origin, root.node()) && steps == 1);
}
