//! `cargo test` here runs what docs/RECIPES.md says.
#![doc = include_str!("../../../docs/RECIPES.md")]
