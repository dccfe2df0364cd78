//! Contexts below those of another kind.
