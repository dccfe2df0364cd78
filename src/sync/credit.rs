//! How far to look for what stands free in a list that never gets shorter, before it is made longer.
//!
//! Such a look goes on from where the last one ended, round and round. If the list grew whenever the next few are taken,
//! then those that stay would be passed in each round, and make it grow in each: without end. If each look went round the whole
//! list first, then many that come at once would cost their square. So what was found pays for the looks to come.
//!
//! Where more than a quarter of a list is found free, a round pays for passing all of it, and adds nothing. So a list of which n are taken
//! at most grows to four thirds of n, and once more by what it takes to pass those n with nothing paid: as much again, if a list
//! grows by as many as were looked at. Of the looks that go further than the few that each may have, there are no more than `PAYS` for
//! each that was found.
//!
//! Advice, and plain stores: of two threads that look at once, one's payment may be lost.

#[cfg(not(cancel_tree_loom))]
use super::{AtomicUsize, Relaxed};

/// So many looks are paid for by what was found.
#[cfg(not(cancel_tree_loom))]
const PAYS: usize = 4;

/// Of one list. In loom's models, nothing: they have no room for a second round.
pub(crate) struct Credit {
    /// So many looks are paid for; no more than there are in the list.
    #[cfg(not(cancel_tree_loom))]
    paid: AtomicUsize,
    /// How long the list is.
    #[cfg(not(cancel_tree_loom))]
    length: AtomicUsize,
}

impl Credit {
    super::const_where_possible! {
        /// For a list that is empty.
        pub(crate) fn new() -> Credit {
            Credit {
                #[cfg(not(cancel_tree_loom))]
                paid: AtomicUsize::new(0),
                #[cfg(not(cancel_tree_loom))]
                length: AtomicUsize::new(0),
            }
        }
    }
}

#[cfg(not(cancel_tree_loom))]
impl Credit {
    /// How many to look at, these or more.
    pub(crate) fn looks(&self, at_least: usize) -> usize {
        // Relaxed, here and below: nothing is decided on it but how far to go.
        self.paid.load(Relaxed).max(at_least)
    }

    /// The last of so many looks has found something.
    pub(crate) fn found(&self, looks: usize) {
        let paid = (self.paid.load(Relaxed) + PAYS).saturating_sub(looks);
        // Beyond a whole round: when all are taken, it would pay for one round after the other.
        self.paid
            .store(paid.min(self.length.load(Relaxed)), Relaxed);
    }

    /// So many looks have found nothing.
    pub(crate) fn found_nothing(&self, looks: usize) {
        let paid = self.paid.load(Relaxed).saturating_sub(looks);
        self.paid.store(paid, Relaxed);
    }

    /// The list got longer by so many.
    pub(crate) fn grown(&self, by: usize) {
        self.length.fetch_add(by, Relaxed);
    }
}

#[cfg(cancel_tree_loom)]
impl Credit {
    pub(crate) fn looks(&self, at_least: usize) -> usize {
        at_least
    }

    pub(crate) fn found(&self, _: usize) {}

    pub(crate) fn found_nothing(&self, _: usize) {}

    pub(crate) fn grown(&self, _: usize) {}
}

#[cfg(all(test, not(cancel_tree_loom)))]
mod tests {
    use super::{Credit, PAYS};
    use alloc::vec::Vec;

    const AT_LEAST: usize = 16;

    /// A list, what of it is taken, and where the last look ended.
    struct List {
        credit: Credit,
        taken: Vec<bool>,
        at: usize,
        looked: usize,
        found: usize,
    }

    impl List {
        fn new() -> List {
            List {
                credit: Credit::new(),
                taken: Vec::new(),
                at: 0,
                looked: 0,
                found: 0,
            }
        }

        fn take(&mut self) -> usize {
            let most = self.credit.looks(AT_LEAST);
            for looks in 1..=if self.taken.is_empty() { 0 } else { most } {
                self.at = (self.at + 1) % self.taken.len();
                self.looked += 1;
                if !self.taken[self.at] {
                    self.taken[self.at] = true;
                    self.found += 1;
                    self.credit.found(looks);
                    return self.at;
                }
            }
            self.credit.found_nothing(most);
            self.credit.grown(1);
            self.taken.push(true);
            self.taken.len() - 1
        }
    }

    #[test]
    fn a_list_follows_the_peak_and_looks_are_paid_for() {
        for stay in [0, 1, 15, 16, 100, 1000] {
            for come in [1, 2, 10, 100, 1000] {
                let mut list = List::new();
                for _ in 0..stay {
                    list.take();
                }
                for _ in 0..100_000 / come {
                    let places: Vec<_> = (0..come).map(|_| list.take()).collect();
                    places.iter().for_each(|&place| list.taken[place] = false);
                }
                let (peak, kept) = (stay + come, list.taken.len());
                assert!(
                    kept <= peak * 4 / 3 + peak / AT_LEAST + 1,
                    "{kept}, of {stay} and {come}"
                );
                let paid = PAYS * list.found + AT_LEAST * (list.found + kept);
                assert!(
                    list.looked <= paid,
                    "{} looks, of {stay} and {come}",
                    list.looked
                );
            }
        }
    }
}
