//! Which groups a thread is inside of: those whose tasks it is running.

use super::body::Body;
use super::place::Place;
use crate::sync::local;
use core::cell::Cell;
use core::ptr::{self, NonNull};

/// A call is known to be made inside so many groups: the outermost ones. (Tasks of one group in a row are one.)
const DEEP: usize = 16;

local! {
    /// Of which groups this thread is running tasks.
    static INSIDE: Inside = Inside::new();
}

/// Addresses, which are compared and never followed: where stacks are switched on a thread, whoever came first may go first, and its
/// stack and its group with it.
struct Inside {
    many: Cell<usize>,
    /// The outermost first.
    bodies: [Cell<*const Body>; DEEP],
}

impl Inside {
    const fn new() -> Inside {
        Inside {
            many: Cell::new(0),
            bodies: [const { Cell::new(ptr::null()) }; DEEP],
        }
    }
}

/// While a task of a group runs on this thread: how many did so before.
struct Entered(usize);

impl Entered {
    #[inline]
    fn new(body: NonNull<Body>) -> Entered {
        INSIDE.with(|inside| {
            let before = inside.many.get();
            let around = inside.bodies.get(before.wrapping_sub(1));
            if around.is_some_and(|around| ptr::eq(around.get(), body.as_ptr())) {
                // Its drop leaves that one there.
                return Entered(before);
            }
            if let Some(last) = inside.bodies.get(before) {
                last.set(body.as_ptr());
            }
            inside.many.set(before + 1);
            Entered(before)
        })
    }
}

impl Drop for Entered {
    #[inline]
    fn drop(&mut self) {
        // What came before may have gone first: then there are fewer.
        INSIDE.with(|inside| inside.many.set(inside.many.get().min(self.0)));
    }
}

/// Runs it as a part of this place's task.
#[inline]
pub(super) fn inside<R>(place: &Place, run: impl FnOnce() -> R) -> R {
    let _entered = Entered::new(place.body());
    run()
}

/// Whether the caller is a task of this group, or is run by one.
pub(super) fn is_inside(body: NonNull<Body>) -> bool {
    INSIDE.with(|inside| {
        let mut known = inside.bodies.iter().take(inside.many.get());
        known.any(|known| ptr::eq(known.get(), body.as_ptr()))
    })
}

#[cfg(all(test, not(cancel_tree_loom)))]
mod tests {
    use super::*;
    use crate::context::Context;

    fn body() -> NonNull<Body> {
        Body::allocate(&Context::background(), None, None)
    }

    /// As where stacks are switched: the first one goes first.
    #[test]
    fn tasks_of_a_thread_may_end_in_any_order() {
        let bodies = [body(), body(), body()];
        let [a, b, c] = bodies;
        for another_comes in [false, true] {
            let (first, second) = (Entered::new(a), Entered::new(b));
            assert!(is_inside(a) && is_inside(b) && !is_inside(c));
            drop(first);
            assert!(!is_inside(a));
            let third = another_comes.then(|| Entered::new(c));
            drop(second);
            assert_eq!(is_inside(c), another_comes);
            drop(third);
            // Nothing is left of them.
            assert!(!bodies.into_iter().any(is_inside));
        }
        for body in bodies {
            // SAFETY: the handle that it was made with.
            unsafe { Body::release(body) };
        }
    }

    /// They leave room for those of other groups, which they may run.
    #[test]
    fn tasks_of_one_group_in_a_row_are_one() {
        let (a, b) = (body(), body());
        let row: [_; DEEP + 3] = core::array::from_fn(|_| Entered::new(a));
        let other = Entered::new(b);
        assert!(is_inside(a) && is_inside(b));
        drop(other);
        for entered in row.into_iter().rev() {
            assert!(is_inside(a) && !is_inside(b));
            drop(entered);
        }
        assert!(!is_inside(a));
        for body in [a, b] {
            // SAFETY: the handle that it was made with.
            unsafe { Body::release(body) };
        }
    }

    #[test]
    fn the_outermost_groups_are_known_however_deep_it_goes() {
        let bodies: [_; DEEP + 3] = core::array::from_fn(|_| body());
        let mut entered = bodies.map(|body| Some(Entered::new(body)));
        for (i, body) in bodies.into_iter().enumerate() {
            assert_eq!(is_inside(body), i < DEEP);
        }
        while let Some(last) = entered.iter_mut().rev().find_map(Option::take) {
            drop(last);
        }
        for body in bodies {
            assert!(!is_inside(body));
            // SAFETY: the handle that it was made with.
            unsafe { Body::release(body) };
        }
    }
}
