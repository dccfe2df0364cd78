#![doc = include_str!("../../docs/LOOM.md")]
