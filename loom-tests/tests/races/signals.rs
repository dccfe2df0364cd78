//! Signals: the handler, the drop of the guard, and the dispatcher, around one word and one letter.

use cancel_tree::integrations::signals::models::{dispatch, Inbox, Letter, Received, Word};
use cancel_tree_loom::{model, spawn, Data, UNBOUNDED, USUAL};
use loom::sync::{Arc, Notify};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

const TERM: u8 = 15;
const INT: u8 = 2;
const HUP: u8 = 1;
const ALL: [u8; 2] = [TERM, INT];

/// A signal is told by the drop, or is nobody's: never both, never neither.
#[test]
fn signal_vs_drop() {
    model(UNBOUNDED, || {
        let word = Arc::new(Word::new());
        word.open(3, ALL).unwrap();
        let handler = spawn({
            let word = word.clone();
            move || word.receive(TERM)
        });
        let [first, second] = word.close().signals();
        let is_counted = handler.join().unwrap() == Received::Counted;
        assert_eq!(first, is_counted.then_some(TERM));
        assert_eq!(second, None);
        assert!(word.look().is_none());
    });
}

/// Each is another one, and one of them is the last.
#[test]
fn three_signals_at_once() {
    model(USUAL, || {
        let word = Arc::new(Word::new());
        word.open(3, ALL).unwrap();
        let handlers = [TERM, INT].map(|signal| {
            let word = word.clone();
            spawn(move || word.receive(signal))
        });
        let mine = word.receive(TERM);
        let [a, b] = handlers.map(|handler| handler.join().unwrap());
        let ends = [mine, a, b];
        let many = |what| ends.iter().filter(|ends| **ends == what).count();
        assert_eq!((many(Received::Ends), many(Received::Counted)), (1, 2));
        let [first, second] = word.close().signals();
        assert!(first.is_some() && second.is_some());
    });
}

/// One guard at a time, and each comes after what the one before did.
#[test]
fn open_vs_open() {
    model(UNBOUNDED, || {
        let word = Arc::new(Word::new());
        let data = Data::new();
        let guard = {
            let (word, data) = (word.clone(), data.clone());
            move || {
                let epoch = word.open(3, ALL);
                if epoch.is_some() {
                    data.write();
                    word.close();
                }
                epoch
            }
        };
        let other = spawn(guard.clone());
        let (mine, other) = (guard(), other.join().unwrap());
        assert!(mine.is_some() || other.is_some());
        assert_ne!(mine, other);
    });
}

/// The letter is told, and what it holds was written before.
#[test]
fn signal_vs_dispatcher() {
    model(USUAL, || {
        let word = Arc::new(Word::new());
        let inbox = Arc::new(Inbox::new());
        let woken = Arc::new(Notify::new());
        let dispatcher = spawn({
            let (word, inbox, woken) = (word.clone(), inbox.clone(), woken.clone());
            move || {
                let mut letter: Option<Box<Letter<Data>>> = None;
                loop {
                    woken.wait();
                    if let Some((to, [Some(signal), _])) = dispatch(&word, &inbox, &mut letter) {
                        to.read();
                        return signal;
                    }
                }
            }
        });
        let epoch = word.open(3, ALL).unwrap();
        // Below another handler ours may be called before the letter is there.
        let handler = spawn({
            let (word, woken) = (word.clone(), woken.clone());
            move || {
                assert_eq!(word.receive(TERM), Received::Counted);
                woken.notify();
            }
        });
        let to = Data::new();
        to.write();
        inbox.put(Letter { epoch, to });
        woken.notify();
        handler.join().unwrap();
        assert_eq!(dispatcher.join().unwrap(), TERM);
    });
}

/// A letter is taken, or replaced: never both.
#[test]
fn letter_vs_letter() {
    struct Counted(std::sync::Arc<AtomicUsize>);
    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_add(1, Relaxed);
        }
    }
    model(UNBOUNDED, || {
        let inbox = Arc::new(Inbox::new());
        let gone = std::sync::Arc::new(AtomicUsize::new(0));
        inbox.put(Counted(gone.clone()));
        let reader = spawn({
            let inbox = inbox.clone();
            move || usize::from(inbox.take().is_some())
        });
        inbox.put(Counted(gone.clone()));
        let taken = reader.join().unwrap() + usize::from(inbox.take().is_some());
        assert!(taken >= 1);
        assert_eq!(gone.load(Relaxed), 2);
    });
}

/// A guard goes and the next one comes, while a signal is being told: it is told to the one that it was counted for, or, if that
/// has gone, by its drop.
#[test]
fn signal_vs_the_next_guard() {
    model(USUAL, || {
        let word = Arc::new(Word::new());
        let inbox = Arc::new(Inbox::new());
        let told = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
        let epoch = word.open(0, ALL).unwrap();
        inbox.put(Letter { epoch, to: 0 });
        let handler = spawn({
            let (word, inbox, told) = (word.clone(), inbox.clone(), told.clone());
            move || {
                let received = word.receive(TERM);
                // The dispatcher, when it is woken by that.
                let mut letter = None;
                if let Some((to, [Some(_), _])) = dispatch(&word, &inbox, &mut letter) {
                    told[*to].fetch_add(1, Relaxed);
                }
                // A look without the letter, that the next guard's wake makes good.
                (received, letter)
            }
        });
        let [first, _] = word.close().signals();
        let epoch = word.open(0, ALL).unwrap();
        inbox.put(Letter { epoch, to: 1 });
        let (received, mut letter) = handler.join().unwrap();
        if let Some((to, [Some(_), _])) = dispatch(&word, &inbox, &mut letter) {
            told[*to].fetch_add(1, Relaxed);
        }
        let [second, _] = word.close().signals();
        let told = [0, 1].map(|guard| told[guard].load(Relaxed) > 0);
        match received {
            Received::Inactive => assert_eq!((first, second, told), (None, None, [false; 2])),
            _ if first.is_some() => assert_eq!((second, told[1]), (None, false)),
            _ => assert_eq!((second, told), (Some(TERM), [false, true])),
        }
    });
}

/// A handler may stay that a guard before had installed: what the next one has not asked for is that one's, or nobody's.
#[test]
fn signal_vs_a_guard_that_asks_for_others() {
    model(UNBOUNDED, || {
        let word = Arc::new(Word::new());
        word.open(3, [HUP]).unwrap();
        let handler = spawn({
            let word = word.clone();
            move || word.receive(HUP)
        });
        let [first, _] = word.close().signals();
        word.open(3, ALL).unwrap();
        let is_counted = handler.join().unwrap() == Received::Counted;
        assert_eq!(first, is_counted.then_some(HUP));
        assert_eq!(word.receive(HUP), Received::Inactive);
        assert_eq!(word.receive(TERM), Received::Counted);
        assert_eq!(word.close().signals(), [Some(TERM), None]);
    });
}
