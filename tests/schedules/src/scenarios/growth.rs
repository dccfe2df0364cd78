//! Children of one parent, made by several threads at once, so that it is sharded: against its cancel, a cancel
//! above, and its drop.

use crate::probes::{draw, operation, Record, Runs};
use cancel_tree::CancellationToken;
use shuttle::thread;

const CREATORS: usize = 4;
const OPERATIONS: usize = 50;

pub fn run() {
    let (root, root_record) = (CancellationToken::new(), Record::root());
    let (parent, parent_record) = (root.child_token(), Record::below(&[&root_record]));
    let creators: Vec<_> = (0..CREATORS)
        .map(|_| {
            let (parent, record) = (parent.clone(), parent_record.clone());
            thread::spawn(move || create(parent, record))
        })
        .collect();
    let (ending, after) = (draw(4), draw(60));
    let canceller = {
        let (parent, record) = (parent.clone(), parent_record.clone());
        thread::spawn(move || {
            for _ in 0..after {
                thread::yield_now();
            }
            operation();
            match ending {
                0 => record.cancel(&parent, |cause| parent.cancel_with(cause)),
                1 => root_record.cancel(&root, |cause| root.cancel_with(cause)),
                // The root goes first, or the parent.
                2 => drop((root, parent)),
                _ => drop((parent, root)),
            }
        })
    };
    // A sixth, who drops its handle and comes back from below.
    let child = (parent.child_token(), Record::below(&[&parent_record]));
    drop(parent);
    for _ in 0..draw(20) {
        operation();
        drop(child.0.child_token());
        child.1.check(&child.0);
    }
    canceller.join().unwrap();
    child.1.check(&child.0);
    for creator in creators {
        for (token, record) in creator.join().unwrap() {
            record.check(&token);
        }
    }
}

fn create(parent: CancellationToken, above: Record) -> Vec<(CancellationToken, Record)> {
    let stays = draw(2) == 0;
    let mut parent = Some(parent);
    let mut children = Vec::new();
    for i in 0..OPERATIONS {
        operation();
        if i == OPERATIONS / 2 && !stays {
            parent = None;
        }
        match (&parent, draw(8)) {
            (Some(parent), 0..=3) => {
                let record = Record::below(&[&above]);
                let child = parent.child_token();
                record.check(&child);
                children.push((child, record));
            }
            (Some(parent), 4) => {
                let runs = Runs::default();
                let registration = parent.on_cancel(runs.callback(&above));
                super::hand::stop_and_wait(registration, &above, &runs);
            }
            (_, 5) if !children.is_empty() => {
                let (token, record) = &children[draw(children.len())];
                record.check(token);
            }
            _ if !children.is_empty() => drop(children.swap_remove(draw(children.len()))),
            _ => {}
        }
    }
    children
}
