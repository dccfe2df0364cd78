//! Records of what has a name: who reads against who makes and ends.

use cancel_tree::{Key, Registry};
use cancel_tree_loom::{model_in_all_orders, spawn, Data, USUAL};
use loom::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use loom::sync::Arc;
use loom::thread::JoinHandle;

/// What a record stands for: readers find it written and not yet gone, and it goes once.
struct Thing {
    data: Data,
    /// What its maker does with it until it ends it, which no reader looks at.
    used: Arc<Data>,
    gone: Arc<AtomicUsize>,
}

impl Drop for Thing {
    fn drop(&mut self) {
        // A write after all reads: loom says if one of them is not ordered before it.
        self.data.write();
        self.used.write();
        self.gone.fetch_add(1, Relaxed);
    }
}

type Records = Arc<Registry<Thing>>;

fn thing(gone: &Arc<AtomicUsize>) -> Box<Thing> {
    let data = Data::new();
    data.write();
    let gone = gone.clone();
    let used = Arc::new(Data::new());
    Box::new(Thing { data, used, gone })
}

fn made(records: &Records, gone: &Arc<AtomicUsize>) -> Key<Thing> {
    let key = records.claim();
    records.put(&key, thing(gone));
    key
}

fn spawn_maker(records: &Records, gone: &Arc<AtomicUsize>) -> JoinHandle<Key<Thing>> {
    let (records, gone) = (records.clone(), gone.clone());
    spawn(move || made(&records, &gone))
}

fn read(records: &Records) -> usize {
    let mut met = 0;
    records.each(|_, thing| {
        thing.data.read();
        met += 1;
    });
    met
}

/// What is read is there, and goes once, whoever drops it.
#[test]
fn record_read_vs_end() {
    model_in_all_orders(USUAL, || {
        let (records, gone) = (Arc::new(Registry::new()), Arc::new(AtomicUsize::new(0)));
        let key = records.claim();
        let thing = thing(&gone);
        let used = thing.used.clone();
        records.put(&key, thing);
        let others = records.clone();
        let reader = spawn(move || read(&others));
        used.write();
        drop(records.end(key));
        assert!(reader.join().unwrap() <= 1);
        assert_eq!(gone.load(Relaxed), 1);
        assert_eq!(read(&records), 0);
    });
}

#[test]
fn record_end_vs_two_readers() {
    model_in_all_orders(Some(2), || {
        let (records, gone) = (Arc::new(Registry::new()), Arc::new(AtomicUsize::new(0)));
        let key = made(&records, &gone);
        let (a, b) = (records.clone(), records.clone());
        let first = spawn(move || read(&a));
        let second = spawn(move || read(&b));
        drop(records.end(key));
        first.join().unwrap();
        second.join().unwrap();
        assert_eq!(gone.load(Relaxed), 1);
    });
}

/// A reader sees the whole of what is new, or passes it over.
#[test]
fn record_claim_vs_read() {
    model_in_all_orders(USUAL, || {
        let (records, gone) = (Arc::new(Registry::new()), Arc::new(AtomicUsize::new(0)));
        let others = records.clone();
        let reader = spawn(move || read(&others));
        let key = made(&records, &gone);
        assert!(reader.join().unwrap() <= 1);
        assert_eq!(read(&records), 1);
        drop(records.end(key));
        assert_eq!(gone.load(Relaxed), 1);
    });
}

/// The next one in a record is not met as the last, and nothing of the last is lost.
#[test]
fn record_ends_and_is_claimed_vs_read() {
    model_in_all_orders(Some(2), || {
        let (records, gone) = (Arc::new(Registry::new()), Arc::new(AtomicUsize::new(0)));
        let key = made(&records, &gone);
        let others = records.clone();
        let reader = spawn(move || read(&others));
        drop(records.end(key));
        let next = records.claim();
        records.put(&next, thing(&gone));
        reader.join().unwrap();
        assert_eq!(read(&records), 1);
        assert_eq!(gone.load(Relaxed), 1);
        drop(records.end(next));
        assert_eq!(gone.load(Relaxed), 2);
    });
}

/// What was there before the walk is met once, whatever is made beside it.
#[test]
fn record_pushed_vs_walk() {
    model_in_all_orders(USUAL, || {
        let (records, gone) = (Arc::new(Registry::new()), Arc::new(AtomicUsize::new(0)));
        let key = made(&records, &gone);
        let maker = spawn_maker(&records, &gone);
        let mut met = Vec::new();
        records.each(|number, _| met.push(number));
        assert!(met.iter().filter(|n| n.record == 1).count() == 1);
        assert!(met.len() <= 2);
        let other = maker.join().unwrap();
        assert_eq!(read(&records), 2);
        drop(records.end(key));
        drop(records.end(other));
        assert_eq!(gone.load(Relaxed), 2);
    });
}

/// Both have a record, and both are met.
fn make_beside_another(records: &Records, gone: &Arc<AtomicUsize>) {
    let maker = spawn_maker(records, gone);
    let key = made(records, gone);
    let other = maker.join().unwrap();
    assert_eq!(read(records), 2);
    drop(records.end(key));
    drop(records.end(other));
    assert_eq!(gone.load(Relaxed), 2);
}

/// Two that claim at once have a record each.
#[test]
fn record_claim_vs_claim() {
    model_in_all_orders(USUAL, || {
        let (records, gone) = (Arc::new(Registry::new()), Arc::new(AtomicUsize::new(0)));
        let free = records.claim();
        drop(records.end(free));
        make_beside_another(&records, &gone);
    });
}

/// Two that find nothing free make records at once, and neither's is lost.
#[test]
fn record_pushed_vs_record_pushed() {
    model_in_all_orders(USUAL, || {
        let (records, gone) = (Arc::new(Registry::new()), Arc::new(AtomicUsize::new(0)));
        make_beside_another(&records, &gone);
    });
}

/// What a hint leads to was made by another thread.
#[test]
fn record_claimed_by_the_hint_of_another_thread() {
    model_in_all_orders(Some(1), || {
        let records = Arc::new(Registry::<Thing>::new());
        let old = records.claim();
        let others = records.clone();
        let maker = spawn(move || {
            let key = others.claim();
            drop(others.end(key));
        });
        let key = records.claim();
        assert_ne!(records.number(&old).record, records.number(&key).record);
        drop(records.end(old));
        drop(records.end(records.claim()));
        maker.join().unwrap();
        drop(records.end(key));
    });
}

/// The chain of hints goes on from one thread's record to another's.
#[test]
fn record_ends_on_top_of_another_threads() {
    model_in_all_orders(Some(1), || {
        let records = Arc::new(Registry::<Thing>::new());
        let old = records.claim();
        let (a, b) = (records.clone(), records.clone());
        let maker = spawn(move || drop(a.end(a.claim())));
        let ender = spawn(move || drop(b.end(old)));
        let keys = [records.claim(), records.claim()];
        let numbers = keys.map(|key| records.number(&key).record);
        assert_ne!(numbers[0], numbers[1]);
        maker.join().unwrap();
        ender.join().unwrap();
    });
}

/// Who finds a record by a look around, and not by a hint, goes on from where the last one has ended.
#[test]
fn record_claimed_by_a_look_around_vs_its_end() {
    model_in_all_orders(USUAL, || {
        let records = Arc::new(Registry::<Thing>::new());
        let data = Data::new();
        let key = records.claim();
        let (others, written) = (records.clone(), data.clone());
        let thread = spawn(move || {
            let key = others.claim();
            if others.number(&key).generation > 1 {
                written.read();
            }
            drop(others.end(key));
        });
        data.write();
        drop(records.end(key));
        thread.join().unwrap();
    });
}
