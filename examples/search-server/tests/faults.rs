//! Under faults: clients that vanish, backends that are slow, hang, are killed and come back, bursts, and signals in the middle. Nothing
//! leaks, no accepted search is without its event, and each end has a bound.
//!
//! For some seconds; `FAULTS=600 ENDS=100 cargo test --release --test faults -- --nocapture` is the long form.

mod common;

use common::{events_in, eventually, Answer, Dir, Port, Server};
use std::collections::HashSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

/// Numbers that look random, the same in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

fn connect(to: SocketAddr, id: &str, query: &str, accept: &str) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(to).ok()?;
    stream.set_read_timeout(Some(2 * common::BUSY)).unwrap();
    let head = format!(
        "GET /search?{query} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Request-Id: {id}\r\nAccept: {accept}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).ok()?;
    Some(stream)
}

/// One client after the other, each with a bad habit, until `stop`. The ids of those that were answered.
fn clients(
    to: SocketAddr,
    name: u64,
    round: u64,
    stop: &AtomicBool,
    count: &AtomicU64,
) -> Vec<String> {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15 ^ (name + 1) << 8 ^ round << 32);
    let mut answered = Vec::new();
    for number in 0.. {
        if stop.load(Relaxed) {
            break;
        }
        count.fetch_add(1, Relaxed);
        let id = format!("{round}-{name}-{number}");
        let timeout = 1 + dice.below(150);
        let most = 1 + dice.below(200);
        let query = format!("q=tea&timeout={timeout}ms&n={most}");
        match dice.below(6) {
            // It sends, and goes.
            0 => drop(connect(to, &id, &query, "*/*")),
            // It sends, looks at its watch, and goes, long before the limit.
            1 => {
                let stream = connect(to, &id, "q=tea&timeout=60s", "*/*");
                thread::sleep(Duration::from_millis(dice.below(20)));
                drop(stream);
            }
            // It reads some of the events.
            2 => {
                if let Some(mut stream) =
                    connect(to, &id, "q=tea&timeout=60s&n=1000", "text/event-stream")
                {
                    let _ = stream.read(&mut [0; 300]);
                }
            }
            // It does not know what it wants.
            3 => {
                if let Some(stream) = connect(to, &id, "q=&timeout=50", "*/*") {
                    Answer::read(stream);
                }
            }
            // It waits for the answer, in one form or the other.
            habit => {
                let accept = if habit == 4 {
                    "*/*"
                } else {
                    "text/event-stream"
                };
                if let Some(stream) = connect(to, &id, &query, accept) {
                    let answer = Answer::read(stream);
                    if answer.status == 200 {
                        answered.push(id);
                    }
                }
            }
        }
    }
    answered
}

/// Descriptors, and KiB in memory.
fn holds(server: &Server) -> Option<(usize, u64)> {
    let process = format!("/proc/{}", server.id());
    let descriptors = fs::read_dir(format!("{process}/fd")).ok()?.count();
    let status = fs::read_to_string(format!("{process}/status")).ok()?;
    let memory = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some((
        descriptors,
        memory.trim().trim_end_matches(" kB").parse().ok()?,
    ))
}

#[test]
fn nothing_leaks_and_nothing_is_lost() {
    let lasts = Duration::from_secs(setting("FAULTS", 4));
    let ends = setting("ENDS", 2);
    let names: Vec<_> = (0..60).map(|number| format!("{number}.txt")).collect();
    let text = "tea and water\n".repeat(20);
    let files: Vec<_> = names
        .iter()
        .map(|name| (name.as_str(), text.as_str()))
        .collect();
    let (dir, out) = (Dir::new(&files), Dir::new(&[]));
    let file = out.file("events");
    let quick = Server::backend(&dir, &[]);
    let hangs = Server::backend(&dir, &["--slow", "100h"]);
    // It comes back at the same address, which nobody else is given meanwhile.
    let port = Port::new();
    let address = port.address.to_string();
    let comes_back = ["--slow", "5ms", "--listen", &address];
    let slow = Server::backend(&dir, &comes_back);
    let backends = [quick.address, hangs.address, slow.address];
    let events = file.to_str().unwrap();
    let args = ["--lame-duck", "0s", "--graceful", "1s", "--events", events];
    let front = Server::front(&backends, &args);
    let to = front.address;
    // The threads and connections that there are from the first requests on.
    for _ in 0..20 {
        front.get("/search?q=tea&timeout=50ms", "");
    }
    let before = holds(&front);
    let (stop, count) = (AtomicBool::new(false), AtomicU64::new(0));
    let killed = AtomicU64::new(0);
    let begin = Instant::now();
    let (mut answered, _slow) = thread::scope(|scope| {
        let (stop, count, killed) = (&stop, &count, &killed);
        let (dir, comes_back) = (&dir, &comes_back);
        let askers: Vec<_> = (0..6)
            .map(|name| scope.spawn(move || clients(to, name, 0, stop, count)))
            .collect();
        let burst = scope.spawn(move || {
            for round in 0.. {
                if stop.load(Relaxed) {
                    return;
                }
                let all: Vec<_> = (0..60)
                    .map(|number| {
                        connect(
                            to,
                            &format!("burst-{round}-{number}"),
                            "q=tea&timeout=100ms",
                            "*/*",
                        )
                    })
                    .collect();
                for (number, stream) in all.into_iter().flatten().enumerate() {
                    if number % 2 == 0 {
                        Answer::read(stream);
                    }
                }
                thread::sleep(Duration::from_millis(300));
            }
        });
        let killer = scope.spawn(move || {
            let mut slow = slow;
            while !stop.load(Relaxed) {
                thread::sleep(Duration::from_millis(400));
                drop(slow);
                killed.fetch_add(1, Relaxed);
                thread::sleep(Duration::from_millis(100));
                slow = Server::backend(dir, comes_back);
            }
            slow
        });
        while begin.elapsed() < lasts {
            thread::sleep(Duration::from_millis(50));
        }
        stop.store(true, Relaxed);
        let answered = askers.into_iter().flat_map(|asker| asker.join().unwrap());
        let answered: HashSet<String> = answered.collect();
        burst.join().unwrap();
        (answered, killer.join().unwrap())
    });

    // All is gone: what works, what waits, what is open.
    front.wait_until("search_tasks", |tasks| tasks == 0);
    front.wait_until("search_events", |events| events == 0);
    let begun = front.metric("search_begun_total");
    assert_eq!(
        events_in(&file).len() as u64,
        begun,
        "each search is one event"
    );
    if let Some((descriptors, memory)) = before {
        eventually("no more descriptors than before", || {
            // A connection to each backend may be a new one, and one is being closed.
            (holds(&front)?.0 <= descriptors + 4).then_some(())
        });
        let (_, now) = holds(&front).unwrap();
        println!("memory: {memory} KiB before, {now} KiB after {begun} searches");
        assert!(
            now < memory + 64 * 1024,
            "{memory} KiB before, {now} KiB now"
        );
    }
    println!(
        "{} clients, {begun} searches, {} of them waited for; {} times a backend was killed",
        count.load(Relaxed),
        answered.len(),
        killed.load(Relaxed)
    );

    // Signals in the middle.
    drop(front);
    for round in 1..=ends {
        // All have some seconds to stop, which is enough in one of the attempts.
        let stops = (1..=3).any(|attempt| {
            let front = Server::front(&backends, &args);
            let (stop, to) = (AtomicBool::new(false), front.address);
            thread::scope(|scope| {
                let (stop, count) = (&stop, &count);
                let number = attempt * ends + round;
                let askers: Vec<_> = (0..4)
                    .map(|name| scope.spawn(move || clients(to, name, number, stop, count)))
                    .collect();
                thread::sleep(Duration::from_millis(100 + 37 * (round % 10)));
                front.signal(libc::SIGTERM);
                let (code, said) = front.ended();
                stop.store(true, Relaxed);
                let answers = askers.into_iter().flat_map(|asker| asker.join().unwrap());
                let is_well = code == Some(0);
                if !is_well {
                    println!("attempt {attempt}: {code:?}, {said:#?}");
                }
                // An event that was not written is named.
                let is_named = |id: &String| said.iter().any(|line| line.contains(id));
                answered.extend(answers.filter(|id| is_well || !is_named(id)));
                is_well
            })
        });
        assert!(stops, "they do not stop");
    }
    let written: HashSet<String> = events_in(&file)
        .iter()
        .map(|event| event["id"].as_str().unwrap().to_owned())
        .collect();
    let lost: Vec<_> = answered.difference(&written).collect();
    assert!(
        lost.is_empty(),
        "{} of {} are lost: {lost:?}",
        lost.len(),
        answered.len()
    );
}
