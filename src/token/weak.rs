//! Handles that do not keep their token.

use super::token::CancellationToken;
use crate::tree::Weak;
use core::fmt;

/// # Weak handles
impl CancellationToken {
    /// Creates a handle that does not keep the token: for registries, and other code that wants to find a token for as
    /// long as it is in use.
    ///
    /// ```
    /// # use cancel_tree::CancellationToken;
    /// let token = CancellationToken::new();
    /// let weak = token.downgrade();
    /// assert_eq!(weak.upgrade(), Some(token.clone()));
    /// drop(token);
    /// assert_eq!(weak.upgrade(), None);
    /// ```
    ///
    /// Cost: a reference count; of a token's first one, an allocation more, or two, and 2 RMWs.
    #[must_use]
    pub fn downgrade(&self) -> WeakToken {
        WeakToken::new(self.handle().downgrade())
    }
}

/// A handle of a token that does not keep it; made by [`CancellationToken::downgrade`].
///
/// It keeps a few words of memory, and nothing of the tree. Children do not keep their parent from
/// going: once the last handle of a token is gone, [`upgrade`](Self::upgrade) returns `None`, though a cancel from above still
/// passes through to the children.
///
/// ```
/// use cancel_tree::{CancellationToken, WeakToken};
/// use std::collections::HashMap;
///
/// let mut requests: HashMap<u64, WeakToken> = HashMap::new();
/// let request = CancellationToken::new();
/// requests.insert(7, request.downgrade());
///
/// // "Stop request 7", if it is still there.
/// if let Some(token) = requests.get(&7).and_then(WeakToken::upgrade) {
///     token.cancel();
/// }
/// assert!(request.is_cancelled());
/// ```
#[derive(Clone)]
pub struct WeakToken {
    weak: Weak,
}

// As for the token.
impl core::panic::UnwindSafe for WeakToken {}
impl core::panic::RefUnwindSafe for WeakToken {}

impl WeakToken {
    fn new(weak: Weak) -> WeakToken {
        WeakToken { weak }
    }

    /// Returns a handle of the token, cancelled or not, or `None` once the last one is gone; it is then `None` for ever. (While a cancel passes through the
    /// token it may be kept a moment longer.) Never waits.
    ///
    /// Cost: 3 RMWs.
    #[must_use]
    pub fn upgrade(&self) -> Option<CancellationToken> {
        self.weak.upgrade().map(CancellationToken::from)
    }
}

impl fmt::Debug for WeakToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(WeakToken)")
    }
}
