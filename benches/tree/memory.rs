//! What a child takes of the machine's memory.

use std::iter;

use crate::contenders::{self, CancelTree, Need, Visitor};
use crate::machine::memory::{give_back, resident_bytes, touched_room};

const CHILDREN: usize = 1_000_000;

/// Growth of the resident set, in bytes for each child.
#[derive(Clone, Copy)]
pub struct PerChild {
    /// For the first children of a token.
    pub first: f64,
    /// For as many again after those were dropped.
    pub recycled: f64,
}

/// By the name of the contender; nothing where the system does not tell the size of the resident set.
pub fn of_each() -> Vec<(&'static str, PerChild)> {
    struct Measure(Vec<(&'static str, PerChild)>);

    impl Visitor for Measure {
        fn visit<T: CancelTree>(&mut self) {
            let needs = [Need::Children, Need::Churn, Need::Crowd];
            if contenders::can::<T>("memory", &needs) {
                self.0.extend(per_child::<T>().map(|it| (T::NAME, it)));
            }
        }
    }

    let mut measured = Measure(Vec::new());
    contenders::each(&mut measured);
    measured.0
}

fn per_child<T: CancelTree>() -> Option<PerChild> {
    let root = T::root();
    let mut children = touched_room(&root, CHILDREN);
    give_back();
    let grow = |children: &mut Vec<T>, before: f64| {
        children.extend(iter::repeat_with(|| root.child()).take(CHILDREN));
        Some((resident_bytes()? - before) / CHILDREN as f64)
    };

    let empty = resident_bytes()?;
    let first = grow(&mut children, empty)?;
    let full = resident_bytes()?;
    children.clear();
    let recycled = grow(&mut children, full)?;
    Some(PerChild { first, recycled })
}
