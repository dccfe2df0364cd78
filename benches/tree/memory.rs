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

/// By the name of the contender, of those that the filter takes; nothing where the system does not tell the size of
/// the resident set.
pub fn of_each(filter: Option<&str>) -> Vec<(&'static str, PerChild)> {
    struct Measure<'a> {
        filter: Option<&'a str>,
        measured: Vec<(&'static str, PerChild)>,
    }

    impl Visitor for Measure<'_> {
        fn visit<T: CancelTree>(&mut self) {
            let needs = [Need::Children, Need::Churn, Need::Crowd];
            let is_taken = self.filter.is_none_or(|filter| takes(filter, T::NAME));
            if is_taken && contenders::can::<T>("memory", &needs) {
                let measured = per_child::<T>().map(|it| (T::NAME, it));
                self.measured.extend(measured);
            }
        }
    }

    let mut measure = Measure {
        filter,
        measured: Vec::new(),
    };
    contenders::each(&mut measure);
    measure.measured
}

/// Whether a filter takes this of that contender, as `memory` does, `/tokio_util`, and `memory/tokio_util$`. To criterion
/// it is a regular expression, but that keeps to itself what it takes: here the text counts.
fn takes(filter: &str, contender: &str) -> bool {
    let (bench, of) = filter.split_once('/').unwrap_or((filter, ""));
    (bench.is_empty() || bench.contains("memory")) && (of.is_empty() || of.contains(contender))
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
