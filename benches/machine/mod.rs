//! The machine that is measured on: its cores, its memory, and what it needs for the least that can be done.

// Each bench has its own copy of this, and not all need everything.
#![allow(dead_code)]

pub mod cores;
pub mod floor;
pub mod memory;
pub mod threads;
