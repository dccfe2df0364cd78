//! A token that knows its parent, for those who have a signal but no tree of them.
//!
//! To cancel is to raise one's own signal, whatever is below: that is O(1). The price is paid by those who ask and who
//! wait, which is O(depth), for they look at each signal above.

use std::iter;
use std::sync::Arc;

pub struct Link<S> {
    pub signal: S,
    parent: Option<Arc<Link<S>>>,
}

impl<S> Link<S> {
    pub fn new(signal: S, parent: Option<Arc<Self>>) -> Arc<Self> {
        Arc::new(Self { signal, parent })
    }

    #[inline]
    pub fn parent(&self) -> Option<&Self> {
        self.parent.as_deref()
    }

    /// From this one up to the root.
    #[inline]
    pub fn up(&self) -> impl Iterator<Item = &S> {
        iter::successors(Some(self), |link| link.parent()).map(|link| &link.signal)
    }
}

impl<S> Drop for Link<S> {
    fn drop(&mut self) {
        // In a loop, for a long chain would need more stack than there is.
        let mut parent = self.parent.take();
        while let Some(mut link) = parent.and_then(Arc::into_inner) {
            parent = link.parent.take();
        }
    }
}
