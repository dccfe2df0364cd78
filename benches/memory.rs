//! What a child takes of the machine's memory.

use std::fs;
use std::iter;

use crate::contenders::{self, CancelTree, Need, Visitor};

const CHILDREN: usize = 1_000_000;

/// Growth of the resident set, in bytes for each child.
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

/// An empty vector whose memory is in the resident set already, so that filling it costs the
/// contenders nothing but what they need themselves.
pub fn touched_room<T: Clone>(filler: &T, capacity: usize) -> Vec<T> {
    let mut room = vec![filler.clone(); capacity];
    room.clear();
    room
}

/// Returns freed memory to the system, so that whoever comes next starts cold.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        extern "C" {
            fn malloc_trim(pad: usize) -> std::ffi::c_int;
        }
        // SAFETY: it is the C library's own, declared as there, and only gives back what is free.
        unsafe { malloc_trim(0) };
    }
}

/// From where the kernel counts pages; the figures elsewhere are off by what each thread has not
/// yet added to them.
pub fn resident_bytes() -> Option<f64> {
    let rollup = fs::read_to_string("/proc/self/smaps_rollup").ok()?;
    let rss = rollup.lines().find_map(|line| line.strip_prefix("Rss:"))?;
    let kib: f64 = rss.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024.0)
}
