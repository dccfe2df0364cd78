//! Hostile user code: whatever runs on the library's behalf does the worst it can, and nobody else may
//! come to harm.

mod depth;
mod kit;
mod matrix;
mod pile_up;
