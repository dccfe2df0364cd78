//! Each test is a race, named by who meets whom. What every model checks besides its own
//! assertions: no node, waker or cause is leaked, used after it is gone or touched without an order.

mod any_of;
mod callback;
mod cancel;
mod cause;
mod clock;
mod create;
mod crew;
mod deadline;
mod foreign;
mod group;
mod moving;
mod noted;
mod park;
mod recycle;
mod registry;
mod release;
mod room;
mod service;
mod shard;
mod signals;
mod spawned;
mod starting;
mod visibility;
mod wait;
mod weak;
