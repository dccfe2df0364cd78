//! How a context came to be done, and who knows that. A name has a token of its own (`inspect`), and changes no answer.

#[derive(Clone, Copy)]
pub(super) enum Origin {
    /// The token so many steps above the context's: 0, or past those of names.
    Above(usize),
    /// It was done when it got its name.
    #[cfg(feature = "inspect")]
    Known {
        is_own_deadline: bool,
        any_of_source: Option<usize>,
    },
}
