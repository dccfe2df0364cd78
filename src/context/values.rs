//! Values, found by their type.
//!
//! Each value is a layer on top of those before it. A layer has a table of the nearest layer for each type
//! below it, so a look-up asks the newest layer and its table, and a chain of any length costs the
//! same, found or not. The table is copied by the next layer: programs have a few types of values, and
//! most contexts none or one.

use super::chain::Chain;
use super::ForeignContext;
#[cfg(feature = "inspect")]
use super::{name, Looks};
use crate::sync::OfUser;
use crate::timer::testing::Clock;
use alloc::boxed::Box;
use alloc::vec;
use core::any::{type_name, Any, TypeId};
use core::hash::{Hash, Hasher};
use core::ptr;
use std::sync::Arc;

#[derive(Clone)]
pub(super) struct Values(Option<Arc<Layer>>);

pub(super) struct Layer {
    key: TypeId,
    value: OfUser<Box<dyn Any + Send + Sync>>,
    type_name: &'static str,
    /// The steps that led to the value.
    chain: Chain,
    before: Values,
    /// The nearest layer before this one for each type, hashed with open addressing; a power of two of
    /// places, at least one of them empty; or no places at all.
    table: Box<[*const Layer]>,
    /// How many types the table has.
    types: usize,
    /// The clock of tests that the context is under.
    clock: Option<Clock>,
    /// Of the thread that the context was made for.
    #[cfg(feature = "inspect")]
    looks: Option<Arc<Looks>>,
    /// The nearest name that the context was given, or one that it was derived from.
    #[cfg(feature = "inspect")]
    name: Option<Arc<name::Record>>,
    /// Asked last.
    foreign: Option<OfUser<Arc<dyn ForeignContext>>>,
}

// SAFETY: the pointers are to layers that `before` keeps, which are Send and Sync like the rest.
unsafe impl Send for Layer {}
// SAFETY: as above.
unsafe impl Sync for Layer {}

/// The type of a layer that has no value, but a clock.
#[cfg(feature = "testing")]
struct OfClock;

/// The type of a layer that has no value, but notes when a thread looks.
#[cfg(feature = "inspect")]
struct OfLooks;

/// The type of a layer that has no value, but a name.
#[cfg(feature = "inspect")]
struct OfName;

/// The type of the bottom layer of a context below a foreign one: it has no value.
struct Bottom;

impl Values {
    pub(super) const fn none() -> Values {
        Values(None)
    }

    /// Values of a foreign context.
    pub(super) fn of_foreign(foreign: Arc<dyn ForeignContext>, chain: Chain) -> Values {
        let mut layer = Layer::on(Values::none(), Bottom, chain);
        layer.foreign = Some(OfUser::new(foreign));
        Values(Some(Arc::new(layer)))
    }

    pub(super) fn with<T: Send + Sync + 'static>(&self, value: T, chain: Chain) -> Values {
        Values(Some(Arc::new(Layer::on(self.clone(), value, chain))))
    }

    /// The clock of tests that these are under. Found without asking for a type, for every deadline asks.
    #[inline]
    pub(super) fn clock(&self) -> Option<Clock> {
        self.0.as_deref()?.clock.clone()
    }

    #[cfg(feature = "testing")]
    pub(super) fn with_clock(&self, clock: &Clock, chain: Chain) -> Values {
        let mut layer = Layer::on(self.clone(), OfClock, chain);
        layer.clock = Some(clock.clone());
        Values(Some(Arc::new(layer)))
    }

    #[cfg(not(feature = "testing"))]
    pub(super) fn with_clock(&self, clock: &Clock, _: Chain) -> Values {
        match *clock {}
    }

    #[cfg(feature = "inspect")]
    pub(super) fn with_looks(&self, looks: Arc<Looks>, chain: Chain) -> Values {
        let mut layer = Layer::on(self.clone(), OfLooks, chain);
        layer.looks = Some(looks);
        Values(Some(Arc::new(layer)))
    }

    #[cfg(feature = "inspect")]
    pub(super) fn with_name(&self, name: name::Record, chain: Chain) -> Values {
        let mut layer = Layer::on(self.clone(), OfName, chain);
        layer.name = Some(Arc::new(name));
        Values(Some(Arc::new(layer)))
    }

    #[cfg(feature = "inspect")]
    pub(super) fn name(&self) -> Option<&name::Record> {
        self.0.as_deref()?.name.as_deref()
    }

    /// Somebody has looked at a context that has these, and it is done.
    #[cfg(feature = "inspect")]
    #[inline]
    pub(super) fn note_look(&self) {
        let newest = self.0.as_deref();
        if let Some(looks) = newest.and_then(|newest| newest.looks.as_deref()) {
            looks.note();
        }
    }

    #[inline]
    pub(super) fn get<T: Send + Sync + 'static>(&self) -> Option<&T> {
        self.get_by_id(TypeId::of::<T>())?.downcast_ref()
    }

    #[inline]
    pub(super) fn get_by_id(&self, key: TypeId) -> Option<&(dyn Any + Send + Sync)> {
        self.0.as_deref()?.find(key)
    }

    pub(super) fn newest(&self) -> Option<&Layer> {
        // The bottom is no step of its own.
        self.0
            .as_deref()
            .filter(|layer| layer.key != TypeId::of::<Bottom>())
    }
}

impl Layer {
    fn on<T: Send + Sync + 'static>(before: Values, value: T, chain: Chain) -> Layer {
        let (table, types) = match before.0.as_deref() {
            Some(newest) => newest.table_with_this(),
            None => (Box::default(), 0),
        };
        Layer {
            key: TypeId::of::<T>(),
            value: OfUser::new(Box::new(value)),
            type_name: type_name::<T>(),
            chain,
            foreign: before
                .0
                .as_deref()
                .and_then(|newest| newest.foreign.clone()),
            clock: before.clock(),
            #[cfg(feature = "inspect")]
            looks: before.0.as_deref().and_then(|newest| newest.looks.clone()),
            #[cfg(feature = "inspect")]
            name: before.0.as_deref().and_then(|newest| newest.name.clone()),
            before,
            table,
            types,
        }
    }

    pub(super) fn type_name(&self) -> &'static str {
        self.type_name
    }

    pub(super) fn chain(&self) -> Chain {
        self.chain
    }

    pub(super) fn before(&self) -> Option<&Values> {
        Some(&self.before)
    }

    #[inline]
    fn find(&self, key: TypeId) -> Option<&(dyn Any + Send + Sync)> {
        if self.key == key {
            return Some(&**self.value);
        }
        match self.place_of(key).map(|place| self.table[place]) {
            Some(layer) if !layer.is_null() => {
                // SAFETY: `before` keeps the layers of the table.
                Some(unsafe { &**(*layer).value })
            }
            _ => self.foreign.as_ref()?.value(key),
        }
    }

    /// Where the type is in the table, or would be.
    #[inline]
    fn place_of(&self, key: TypeId) -> Option<usize> {
        place(&self.table, key)
    }

    /// The table that the next layer has.
    fn table_with_this(&self) -> (Box<[*const Layer]>, usize) {
        let known = self
            .place_of(self.key)
            .is_some_and(|place| !self.table[place].is_null());
        let types = self.types + usize::from(!known);
        let len = (types + types / 2 + 1).next_power_of_two();
        let mut table;
        if len == self.table.len() {
            table = self.table.clone();
        } else {
            table = vec![ptr::null(); len].into_boxed_slice();
            for layer in self.table.iter().copied().filter(|layer| !layer.is_null()) {
                // SAFETY: `before` keeps the layers of the table.
                insert(&mut table, unsafe { (*layer).key }, layer);
            }
        }
        insert(&mut table, self.key, self);
        (table, types)
    }
}

#[inline]
fn place(table: &[*const Layer], key: TypeId) -> Option<usize> {
    let mask = table.len().checked_sub(1)?;
    let mut place = hash(key) & mask;
    loop {
        let layer = table[place];
        // SAFETY: the layers of a table are kept by what has the table. An empty place ends the loop.
        if layer.is_null() || unsafe { (*layer).key } == key {
            return Some(place);
        }
        place = (place + 1) & mask;
    }
}

fn insert(table: &mut [*const Layer], key: TypeId, layer: *const Layer) {
    if let Some(place) = place(table, key) {
        table[place] = layer;
    }
}

/// A `TypeId` is a hash already; this lets it out.
#[inline]
fn hash(key: TypeId) -> usize {
    #[derive(Default)]
    struct Out(u64);
    impl Hasher for Out {
        fn finish(&self) -> u64 {
            self.0
        }
        fn write(&mut self, bytes: &[u8]) {
            for byte in bytes {
                self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
            }
        }
        fn write_u64(&mut self, value: u64) {
            self.0 = value;
        }
    }
    let mut out = Out::default();
    key.hash(&mut out);
    out.finish() as usize
}

impl Drop for Layer {
    /// Layer by layer, not one inside the other: a chain may be long.
    fn drop(&mut self) {
        let mut before = self.before.0.take();
        while let Some(mut layer) = before.and_then(Arc::into_inner) {
            before = layer.before.0.take();
        }
    }
}
