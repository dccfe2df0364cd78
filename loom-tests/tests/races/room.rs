//! Rooms: a token's third waiter and those after it. Rooms have two seats here.

use cancel_tree::{rooms, set_thread_number, shard};
use cancel_tree_loom::{
    at_once, model, model_in_all_orders, poll, reached, spawn, Data, Probe, Reason, Runs, Token,
    USUAL,
};
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::Waker;

type Waiting = Pin<Box<dyn Future<Output = ()> + Send>>;

fn wait(token: &Token, waker: &Waker) -> (bool, Waiting) {
    let mut future: Waiting = Box::pin(token.clone().cancelled_owned());
    let ready = poll(&mut future, waker);
    (ready, future)
}

fn waiting(token: &Token, waker: &Waker) -> Waiting {
    let (ready, future) = wait(token, waker);
    assert!(!ready);
    future
}

/// A token whose next waiter sits in a room: one waits in its slot, and its list is as long as waiters make it.
struct Crowd {
    token: Token,
    waiting: Vec<Waiting>,
    _child: Token,
}

fn crowd(token: Token, probe: &Probe) -> Crowd {
    let waiting = vec![waiting(&token, &probe.waker())];
    let child = token.child_token();
    Crowd {
        token,
        waiting,
        _child: child,
    }
}

/// The same, and the room is there, with two free seats.
fn crowd_with_a_room(token: Token, probe: &Probe) -> Crowd {
    let crowd = crowd(token, probe);
    drop(waiting(&crowd.token, &probe.waker()));
    crowd
}

/// The same, and the room is full.
fn crowd_with_a_full_room(token: Token, probe: &Probe) -> Crowd {
    let mut crowd = crowd(token, probe);
    for _ in 0..2 {
        crowd.waiting.push(waiting(&crowd.token, &probe.waker()));
    }
    crowd
}

#[test]
fn seat_taken_vs_close() {
    model(USUAL, || {
        let first = Probe::new();
        let probe = Probe::new();
        let crowd = crowd_with_a_room(Token::new(), &first);
        let (token, waker) = (crowd.token.clone(), probe.waker());
        let task = spawn(move || wait(&token, &waker));
        crowd.token.cancel();
        let (ready, future) = task.join().unwrap();
        assert_eq!((first.woken(), probe.woken()), (1, !ready as usize));
        drop((future, crowd));
    });
}

/// The canceller comes from above: nobody but the room's word tells the waiter.
#[test]
fn seat_taken_vs_close_from_above() {
    model(USUAL, || {
        let first = Probe::new();
        let probe = Probe::new();
        let root = Token::new();
        let crowd = crowd_with_a_room(root.child_token(), &first);
        let (token, waker) = (crowd.token.clone(), probe.waker());
        let task = spawn(move || {
            let (ready, future) = wait(&token, &waker);
            if ready {
                reached(&token);
            }
            (ready, future)
        });
        root.cancel();
        let (ready, future) = task.join().unwrap();
        assert_eq!(probe.woken(), !ready as usize);
        drop((future, crowd));
    });
}

#[test]
fn seat_left_vs_close() {
    model(USUAL, || {
        let first = Probe::new();
        let probe = Probe::new();
        let other = Probe::new();
        let mut crowd = crowd(Token::new(), &first);
        let future = waiting(&crowd.token, &probe.waker());
        crowd.waiting.push(waiting(&crowd.token, &other.waker()));
        let task = spawn(move || drop(future));
        crowd.token.cancel();
        task.join().unwrap();
        assert!(probe.woken() <= 1);
        assert_eq!(other.woken(), 1);
    });
}

/// Who was woken does not take the waker back, and goes on as one who has seen the cancel.
#[test]
fn seat_polled_again_vs_close() {
    model(USUAL, || {
        let first = Probe::new();
        let probe = Probe::new();
        let crowd = crowd(Token::new(), &first);
        let mut future = waiting(&crowd.token, &probe.waker());
        let (token, waker) = (crowd.token.clone(), probe.waker());
        let task = spawn(move || {
            let ready = poll(&mut future, &waker);
            if ready {
                reached(&token);
            }
            (ready, future)
        });
        crowd.token.cancel();
        let (ready, future) = task.join().unwrap();
        assert!(probe.woken() <= 1 && (ready || probe.woken() == 1));
        drop(future);
    });
}

#[test]
fn seat_polled_with_another_waker_vs_close() {
    model(USUAL, || {
        let first = Probe::new();
        let old = Probe::new();
        let new = Probe::new();
        let crowd = crowd(Token::new(), &first);
        let mut future = waiting(&crowd.token, &old.waker());
        let waker = new.waker();
        let task = spawn(move || (poll(&mut future, &waker), future));
        crowd.token.cancel();
        let (ready, future) = task.join().unwrap();
        if ready {
            assert!(old.woken() <= 1);
            assert_eq!(new.woken(), 0);
        } else {
            assert_eq!((old.woken(), new.woken()), (0, 1));
        }
        drop(future);
    });
}

/// The one seat that is left, or has been left, is one waiter's at a time.
#[test]
fn seat_taken_vs_left_vs_taken() {
    model(USUAL, || {
        let first = Probe::new();
        let one = Probe::new();
        let two = Probe::new();
        let mut crowd = crowd_with_a_full_room(Token::new(), &first);
        let leaver = crowd.waiting.pop();
        let (token, waker) = (crowd.token.clone(), one.waker());
        let task = spawn(move || waiting(&token, &waker));
        drop(leaver);
        let second = waiting(&crowd.token, &two.waker());
        let other = task.join().unwrap();
        crowd.token.cancel();
        assert_eq!((one.woken(), two.woken()), (1, 1));
        drop((other, second));
    });
}

/// A free seat is taken that has been somebody else's since the look at it.
#[test]
fn seat_taken_vs_taken_and_left() {
    model_in_all_orders(Some(2), || {
        let first = Probe::new();
        let one = Probe::new();
        let two = Probe::new();
        let crowd = crowd_with_a_room(Token::new(), &first);
        let (token, waker) = (crowd.token.clone(), one.waker());
        let task = spawn(move || waiting(&token, &waker));
        drop(waiting(&crowd.token, &two.waker()));
        let other = task.join().unwrap();
        crowd.token.cancel();
        assert_eq!((one.woken(), two.woken()), (1, 0));
        drop((other, crowd));
    });
}

// What the canceller did is visible to whoever learns of the cancel by the room.

#[test]
fn data_vs_seat_taken() {
    model_in_all_orders(Some(2), || {
        let data = Data::new();
        let (first, probe) = (Probe::new(), Probe::new());
        let crowd = crowd_with_a_room(Token::new(), &first);
        let (token, waker, there) = (crowd.token.clone(), probe.waker(), data.clone());
        let task = spawn(move || {
            let (ready, future) = wait(&token, &waker);
            if ready {
                there.read();
            }
            future
        });
        data.write();
        crowd.token.cancel();
        drop((task.join().unwrap(), crowd));
    });
}

#[test]
fn data_vs_seat_polled_with_another_waker() {
    model_in_all_orders(Some(2), || {
        let data = Data::new();
        let (first, old, new) = (Probe::new(), Probe::new(), Probe::new());
        let crowd = crowd_with_a_room(Token::new(), &first);
        let mut future = waiting(&crowd.token, &old.waker());
        let (waker, there) = (new.waker(), data.clone());
        let task = spawn(move || {
            if poll(&mut future, &waker) {
                there.read();
            }
            future
        });
        data.write();
        crowd.token.cancel();
        drop((task.join().unwrap(), crowd));
    });
}

#[test]
fn seat_left_and_taken_vs_close() {
    model(USUAL, || {
        let first = Probe::new();
        let probe = Probe::new();
        let mut crowd = crowd_with_a_full_room(Token::new(), &first);
        let leaver = crowd.waiting.pop();
        let (token, waker) = (crowd.token.clone(), probe.waker());
        let task = spawn(move || {
            drop(leaver);
            wait(&token, &waker)
        });
        crowd.token.cancel();
        let (ready, future) = task.join().unwrap();
        assert_eq!(probe.woken(), !ready as usize);
        drop(future);
    });
}

#[test]
fn first_room_vs_cancel() {
    model(USUAL, || {
        let first = Probe::new();
        let probe = Probe::new();
        let crowd = crowd(Token::new(), &first);
        let (token, waker) = (crowd.token.clone(), probe.waker());
        let task = spawn(move || wait(&token, &waker));
        crowd.token.cancel();
        let (ready, future) = task.join().unwrap();
        assert_eq!(probe.woken(), !ready as usize);
        drop(future);
    });
}

/// The cause takes the place in the node that the extension would take.
#[test]
fn first_room_vs_cancel_for_a_cause() {
    model(USUAL, || {
        let first = Probe::new();
        let probe = Probe::new();
        let crowd = crowd(Token::new(), &first);
        let (token, waker) = (crowd.token.clone(), probe.waker());
        let task = spawn(move || {
            let (ready, future) = wait(&token, &waker);
            (ready, token.cause().is_some(), future)
        });
        crowd.token.cancel_with(Reason::cause(1));
        let (ready, cause, future) = task.join().unwrap();
        assert!(cause || !ready);
        assert_eq!(probe.woken(), !ready as usize);
        drop(future);
    });
}

#[test]
fn second_room_vs_cancel() {
    model(USUAL, || {
        let first = Probe::new();
        let probe = Probe::new();
        let crowd = crowd_with_a_full_room(Token::new(), &first);
        let (token, waker) = (crowd.token.clone(), probe.waker());
        let task = spawn(move || wait(&token, &waker));
        crowd.token.cancel();
        let (ready, future) = task.join().unwrap();
        assert_eq!((first.woken(), probe.woken()), (3, !ready as usize));
        drop(future);
    });
}

/// Both make the first room of the token: one ring comes of it.
#[test]
fn first_room_vs_first_room() {
    model(USUAL, || {
        let first = Probe::new();
        let probe = Probe::new();
        let crowd = crowd(Token::new(), &first);
        let (token, waker) = (crowd.token.clone(), probe.waker());
        let task = spawn(move || waiting(&token, &waker));
        let mut all = vec![waiting(&crowd.token, &probe.waker())];
        all.push(task.join().unwrap());
        // Through the ring, which may have two free seats.
        all.extend((0..3).map(|_| waiting(&crowd.token, &probe.waker())));
        crowd.token.cancel();
        assert_eq!(probe.woken(), 5);
    });
}

/// Two put a room after the same one, and a third comes to both.
#[test]
fn next_room_vs_next_room() {
    model(Some(2), || {
        let first = Probe::new();
        let probe = Probe::new();
        let crowd = crowd_with_a_full_room(Token::new(), &first);
        let (token, waker) = (crowd.token.clone(), probe.waker());
        let task = spawn(move || waiting(&token, &waker));
        let one = waiting(&crowd.token, &probe.waker());
        let more: Vec<_> = (0..2)
            .map(|_| waiting(&crowd.token, &probe.waker()))
            .collect();
        let two = task.join().unwrap();
        crowd.token.cancel();
        assert_eq!((first.woken(), probe.woken()), (3, 4));
        drop((one, two, more));
    });
}

/// A waiter follows the ring while somebody else makes it longer.
#[test]
fn next_room_vs_seat_in_it() {
    // Too many executions at 3: bound 2.
    model(Some(2), || {
        let first = Probe::new();
        let probe = Probe::new();
        let mut crowd = crowd_with_a_full_room(Token::new(), &first);
        let leaver = crowd.waiting.pop();
        let (token, waker) = (crowd.token.clone(), probe.waker());
        let task = spawn(move || {
            let one = waiting(&token, &waker);
            (one, waiting(&token, &waker))
        });
        drop(leaver);
        let mine = waiting(&crowd.token, &probe.waker());
        let others = task.join().unwrap();
        crowd.token.cancel();
        assert_eq!((first.woken(), probe.woken()), (2, 3));
        drop((mine, others));
    });
}

/// Who leaves a room puts it on top of what was the top a moment ago: so the stack may become a ring, and who goes down it
/// has to come to an end.
#[test]
fn room_listed_vs_top_taken_off() {
    model(Some(2), || {
        let first = Probe::new();
        let probe = Probe::new();
        let crowd = crowd(Token::new(), &first);
        let wait = || waiting(&crowd.token, &probe.waker());
        // Three rooms; the first one, and under it the third one, have a free seat.
        let mut all: Vec<_> = (0..5).map(|_| wait()).collect();
        drop(all.remove(0));
        let leaver = all.remove(1);
        let (token, waker) = (crowd.token.clone(), probe.waker());
        let task = spawn(move || [waiting(&token, &waker), waiting(&token, &waker)]);
        drop(leaver);
        let [one, two] = task.join().unwrap();
        drop(one);
        all.push(two);
        all.extend((0..4).map(|_| wait()));
        crowd.token.cancel();
        assert_eq!((first.woken(), probe.woken()), (1, 8));
    });
}

// How rooms are found. Who waits follows pointers that others have written a moment ago, and what they lead to has to be
// there for it, too: also where it has seen nothing else of the others, and comes by a pointer that it has read before.
// So it has its futures from the beginning: to clone a token or to drop one is to learn what others have done.

/// A future that does not wait yet.
fn idle(token: &Token) -> Waiting {
    Box::pin(token.clone().cancelled_owned())
}

fn begin(mut future: Waiting, waker: &Waker) -> Waiting {
    assert!(!poll(&mut future, waker));
    future
}

/// A room that was on top goes there again, above one that is new: who has come to it before that goes down to the new one.
#[test]
fn room_listed_again_above_a_new_one_vs_way_down() {
    model_in_all_orders(Some(2), || {
        let first = Probe::new();
        let probe = Probe::new();
        let mut crowd = crowd_with_a_full_room(Token::new(), &first);
        let leaver = crowd.waiting.pop();
        let (future, waker) = (idle(&crowd.token), probe.waker());
        let task = spawn(move || begin(future, &waker));
        let mine = at_once(|| {
            let new = waiting(&crowd.token, &probe.waker());
            drop(leaver);
            new
        });
        let other = task.join().unwrap();
        crowd.token.cancel();
        assert_eq!((first.woken(), probe.woken()), (2, 2));
        drop((mine, other));
    });
}

/// The same, and who has come to it before that puts the new one under another room, and goes down from there.
#[test]
fn room_listed_again_above_a_new_one_vs_room_listed() {
    model_in_all_orders(Some(2), || {
        let first = Probe::new();
        let probe = Probe::new();
        let mut crowd = crowd_with_a_full_room(Token::new(), &first);
        let below = crowd.waiting.pop().unwrap();
        for _ in 0..2 {
            crowd.waiting.push(waiting(&crowd.token, &first.waker()));
        }
        let leaver = crowd.waiting.pop();
        let (future, wakers) = (idle(&crowd.token), [probe.waker(), probe.waker()]);
        let task = spawn(move || {
            // Leaves the room, which is listed by that, and takes the seat again.
            let below = begin(below, &wakers[0]);
            [below, begin(future, &wakers[1])]
        });
        let mine = at_once(|| {
            let new = waiting(&crowd.token, &probe.waker());
            drop(leaver);
            new
        });
        let others = task.join().unwrap();
        crowd.token.cancel();
        assert_eq!((first.woken(), probe.woken()), (3, 3));
        drop((mine, others));
    });
}

/// A room that is full is taken off, and what comes to the top by that is new.
#[test]
fn room_taken_off_a_new_one_vs_seat_in_that() {
    // Too many executions at 2: bound 1.
    model(Some(1), || {
        let first = Probe::new();
        let probe = Probe::new();
        let mut crowd = crowd_with_a_full_room(Token::new(), &first);
        let leaver = crowd.waiting.pop();
        let (future, waker) = (idle(&crowd.token), probe.waker());
        let task = spawn(move || begin(future, &waker));
        let mine = at_once(|| {
            let new = waiting(&crowd.token, &probe.waker());
            drop(leaver);
            let more = [0; 2].map(|_| waiting(&crowd.token, &probe.waker()));
            (new, more)
        });
        let other = task.join().unwrap();
        crowd.token.cancel();
        assert_eq!((first.woken(), probe.woken()), (2, 4));
        drop((mine, other));
    });
}

/// A token with shards, in each of which a room is full.
fn crowd_in_shards(first: &Probe) -> Crowd {
    let token = Token::new();
    let child = token.child_token();
    shard(&token);
    let waiting = (0..6).map(|i| {
        set_thread_number(1 + i / 3);
        waiting(&token, &first.waker())
    });
    let waiting = waiting.collect();
    Crowd {
        token,
        waiting,
        _child: child,
    }
}

/// A thread whose own rooms are full sits down in one that another thread has made a moment ago.
#[test]
fn new_room_vs_seat_in_it_by_another_shard() {
    model_in_all_orders(Some(2), || {
        let first = Probe::new();
        let probe = Probe::new();
        let crowd = crowd_in_shards(&first);
        let (future, waker) = (idle(&crowd.token), probe.waker());
        let task = spawn(move || {
            set_thread_number(1);
            begin(future, &waker)
        });
        let mine = waiting(&crowd.token, &probe.waker());
        let other = task.join().unwrap();
        assert!((3..=4).contains(&rooms(&crowd.token)));
        crowd.token.cancel();
        assert_eq!((first.woken(), probe.woken()), (6, 2));
        drop((mine, other));
    });
}

/// Two put a room after the same one; one of them goes on from its own to the other one, of which it has seen nothing else.
#[test]
fn next_room_vs_next_room_and_on_to_that() {
    // Too many executions at 2: bound 1.
    model_in_all_orders(Some(1), || {
        let first = Probe::new();
        let probe = Probe::new();
        let crowd = crowd_with_a_full_room(Token::new(), &first);
        let [one, two, three, four] = [0; 4].map(|_| (idle(&crowd.token), probe.waker()));
        let task = spawn(move || at_once(|| begin(one.0, &one.1)));
        let mine = [two, three, four].map(|(future, waker)| begin(future, &waker));
        let other = task.join().unwrap();
        crowd.token.cancel();
        assert_eq!((first.woken(), probe.woken()), (3, 4));
        drop((mine, other));
    });
}

/// Fills `seats` more, and says how many rooms there are.
fn rooms_when_full(crowd: &mut Crowd, probe: &Probe, seats: usize) -> usize {
    for _ in 0..seats {
        crowd.waiting.push(waiting(&crowd.token, &probe.waker()));
    }
    rooms(&crowd.token)
}

/// Two waiters make a room each, or enter the other's. Both rooms are in the ring, and in the end all their seats are found: those of
/// `rooms`.
fn two_rooms_and_all_are_found(crowd: fn(Token, &Probe) -> Crowd, rooms: usize) {
    model(Some(2), move || {
        let first = Probe::new();
        let probe = Probe::new();
        let mut crowd = crowd(Token::new(), &first);
        let (token, waker) = (crowd.token.clone(), probe.waker());
        let task = spawn(move || waiting(&token, &waker));
        let mine = waiting(&crowd.token, &probe.waker());
        let other = task.join().unwrap();
        assert_eq!(rooms_when_full(&mut crowd, &probe, 4), rooms);
        crowd.token.cancel();
        assert_eq!(probe.woken(), 6);
        drop((mine, other));
    });
}

#[test]
fn first_room_vs_first_room_and_all_are_found() {
    two_rooms_and_all_are_found(crowd, 3);
}

#[test]
fn next_room_vs_next_room_and_all_are_found() {
    two_rooms_and_all_are_found(crowd_with_a_full_room, 4);
}

/// Who leaves says that its room is in the stack: that changes nothing else of its word.
#[test]
fn seat_left_in_a_full_room_off_the_stack_vs_close() {
    model_in_all_orders(Some(2), || {
        let first = Probe::new();
        let probe = Probe::new();
        let mut crowd = crowd_with_a_full_room(Token::new(), &first);
        let future = waiting(&crowd.token, &probe.waker());
        let leaver = crowd.waiting.pop();
        let token = crowd.token.clone();
        let canceller = spawn(move || token.cancel());
        drop(leaver);
        canceller.join().unwrap();
        assert!((2..=3).contains(&first.woken()));
        assert_eq!(probe.woken(), 1);
        drop((crowd, future));
    });
}

/// Each waker is taken by one canceller.
#[test]
fn close_vs_close_from_above() {
    model(USUAL, || {
        let first = Probe::new();
        let root = Token::new();
        let crowd = crowd_with_a_full_room(root.child_token(), &first);
        let token = crowd.token.clone();
        let thread = spawn(move || token.cancel());
        root.cancel();
        thread.join().unwrap();
        assert_eq!(first.woken(), 3);
    });
}

/// The canceller comes to the room twice, for there is a callback: who is refused then may find its waker taken.
#[test]
fn seat_taken_vs_close_and_calls() {
    model(USUAL, || {
        let data = Data::new();
        let (first, probe) = (Probe::new(), Probe::new());
        let crowd = crowd_with_a_room(Token::new(), &first);
        let runs = Runs::default();
        drop(crowd.token.on_cancel(runs.callback()));
        let (token, there) = (crowd.token.clone(), data.clone());
        let canceller = spawn(move || {
            there.write();
            token.cancel();
        });
        let (ready, future) = wait(&crowd.token, &probe.waker());
        if ready {
            data.read();
        }
        canceller.join().unwrap();
        assert_eq!((probe.woken(), runs.count()), (!ready as usize, 1));
        drop((future, crowd));
    });
}

/// Who is refused has its waker back before it has said that it takes it: no second canceller does.
#[test]
fn seat_refused_vs_close_vs_close() {
    model(Some(2), || {
        let first = Probe::new();
        let probe = Probe::new();
        let crowd = crowd_with_a_room(Token::new(), &first);
        let cancellers = [0; 2].map(|_| {
            let token = crowd.token.clone();
            spawn(move || token.cancel())
        });
        let (ready, future) = wait(&crowd.token, &probe.waker());
        for thread in cancellers {
            thread.join().unwrap();
        }
        assert_eq!(probe.woken(), !ready as usize);
        drop((future, crowd));
    });
}

#[test]
fn seat_taken_vs_close_vs_close_from_above() {
    model(Some(2), || {
        let first = Probe::new();
        let probe = Probe::new();
        let root = Token::new();
        let crowd = crowd_with_a_room(root.child_token(), &first);
        let (token, waker) = (crowd.token.clone(), probe.waker());
        let task = spawn(move || wait(&token, &waker));
        let token = crowd.token.clone();
        let thread = spawn(move || token.cancel());
        root.cancel();
        let (ready, future) = task.join().unwrap();
        thread.join().unwrap();
        assert_eq!(probe.woken(), !ready as usize);
        drop((future, crowd));
    });
}

/// The memory stays for the canceller above, or goes before it comes.
#[test]
fn token_with_a_room_dropped_vs_cancel_of_the_parent() {
    model(USUAL, || {
        let first = Probe::new();
        let root = Token::new();
        let crowd = crowd_with_a_full_room(root.child_token(), &first);
        let thread = spawn(move || drop(crowd));
        root.cancel();
        thread.join().unwrap();
        assert!(first.woken() <= 3);
    });
}

/// The place is taken by another token, which has waiters of its own.
#[test]
fn token_with_a_room_dropped_and_next_token_vs_cancel_of_the_parent() {
    model(Some(2), || {
        let first = Probe::new();
        let probe = Probe::new();
        let root = Token::new();
        let crowd = crowd_with_a_room(root.child_token(), &first);
        let (above, waker) = (root.clone(), probe.waker());
        let thread = spawn(move || {
            drop(crowd);
            let next = above.child_token();
            let mut ready = Vec::new();
            let mut all = Vec::new();
            for _ in 0..2 {
                let (is, future) = wait(&next, &waker);
                ready.push(is);
                all.push(future);
            }
            (ready, all)
        });
        root.cancel();
        let (ready, all) = thread.join().unwrap();
        assert_eq!(probe.woken(), ready.iter().filter(|ready| !**ready).count());
        drop(all);
    });
}

/// The own cancel of a token does not freeze it: who lets it go last resets what is below.
#[test]
fn cancelled_token_with_a_room_dropped_vs_cancel_of_the_parent() {
    model(USUAL, || {
        let first = Probe::new();
        let root = Token::new();
        let crowd = crowd_with_a_full_room(root.child_token(), &first);
        let thread = spawn(move || {
            crowd.token.cancel();
            drop(crowd);
        });
        root.cancel();
        thread.join().unwrap();
        assert!(first.woken() <= 3);
    });
}

/// What forgotten futures leave in a room goes with the tree, or is woken.
#[test]
fn forgotten_futures_in_a_room_vs_cancel_of_the_parent() {
    model(USUAL, || {
        let probe = Probe::new();
        let root = Token::new();
        let child = root.child_token();
        let leaf = child.child_token();
        for _ in 0..3 {
            let mut future = child.cancelled();
            assert!(!poll(&mut future, &probe.waker()));
            mem::forget(future);
        }
        let thread = spawn(move || drop((child, leaf)));
        root.cancel();
        thread.join().unwrap();
        assert!(probe.woken() <= 3);
    });
}

#[test]
fn forgotten_futures_in_a_room_of_a_root() {
    model(USUAL, || {
        let first = Probe::new();
        let probe = Probe::new();
        let root = Token::new();
        let crowd = crowd(root.child_token(), &first);
        for _ in 0..3 {
            let mut future = Box::pin(root.cancelled());
            assert!(!poll(&mut future, &probe.waker()));
            mem::forget(future);
        }
        let thread = spawn(move || drop(crowd));
        drop(root);
        thread.join().unwrap();
        assert_eq!(probe.woken(), 0);
    });
}
