//! What the search server is worth: it, and the same without the library, under the same load. A table to the output; what it does meanwhile to the
//! error output.
//!
//!     measure-server [--quick] DIR SEARCH-SERVER SERVER-WITHOUT [GO-SERVER]
//!
//! Requests come from wrk; the clients that go, from here. CPU time is the process's own clock, asked from outside.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{exit, Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_millis(50);
/// A text that is found at once, and one that is nowhere.
const COMMON: &str = "q=unsafe&n=20&timeout=1s";
const NOWHERE: &str = "q=no+such+text+at+all";
/// Nothing here takes longer, unless it hangs.
const BOUND: Duration = Duration::from_secs(600);

fn main() {
    let mut args: Vec<String> = env::args().skip(1).collect();
    let quick = args.first().is_some_and(|first| first == "--quick");
    args.drain(..usize::from(quick));
    let [dir, with, without, go @ ..] = args.as_slice() else {
        eprintln!("measure-server [--quick] DIR SEARCH-SERVER SERVER-WITHOUT [GO-SERVER]");
        exit(2);
    };
    let plan = match quick {
        true => Plan {
            rounds: 1,
            load: 1,
            long: 2,
            gone: 3,
        },
        false => Plan {
            rounds: 3,
            load: 5,
            long: 20,
            gone: 5,
        },
    };
    let any = ["127.0.0.1:0", "/dev/null"];
    let listen = ["--listen", any[0], "--events", any[1], "--root", dir];
    let bounds = ["--lame-duck", "0s", "--graceful", "100ms"];
    let mut all = vec![
        Contender::new("cancel-tree", with, &[&listen[..], &bounds].concat()),
        Contender::new(
            "tokio's `timeout`",
            without,
            &[&["timeout", dir][..], &any].concat(),
        ),
        Contender::new(
            "tokio-util's token by hand",
            without,
            &[&["token", dir][..], &any].concat(),
        ),
    ];
    if let [go] = go {
        all.push(Contender::new(
            "Go",
            go,
            &[&[dir.as_str()][..], &any].concat(),
        ));
    }
    let wrk = Command::new("wrk").arg("-v").output().is_ok();
    let script = env::temp_dir().join(format!("measure-server-{}.lua", std::process::id()));
    fs::write(&script, DONE).expect("a temporary file");
    let wrk = wrk.then_some(&script);
    for round in 0..plan.rounds {
        for contender in &mut all {
            eprintln!("round {} of {}: {}", round + 1, plan.rounds, contender.name);
            contender.measure(&plan, wrk, round + 1 == plan.rounds);
        }
    }
    let _ = fs::remove_file(&script);
    print(&all, wrk.is_some());
}

struct Plan {
    rounds: usize,
    /// Seconds of each load, and more of one for the memory.
    load: u64,
    long: u64,
    /// How many clients go.
    gone: u32,
}

/// A row of the table, which holds a value of each round.
#[derive(Clone, Copy)]
enum Row {
    Alone,
    Rate,
    Median,
    P99,
    P999,
    CpuEach,
    BeyondMedian,
    Beyond99,
    Beyond999,
    Debt,
    GoneRate,
    GoneMedian,
    Gone99,
    GoneCpu,
    GoneLast,
    Before,
    After,
    End,
    Answered,
}

/// What each row is, and how many digits it has behind the point.
const ROWS: [(&str, usize); 19] = [
    ("one search of all files, alone, ms", 0),
    ("16 clients, 20 hits each: answers a second", 0),
    ("… median, ms", 2),
    ("… 99th percentile, ms", 2),
    ("… 99.9th percentile, ms", 2),
    ("… CPU time for an answer, ms", 3),
    (
        "8 clients with a limit of 50 ms that is met: median beyond it, ms",
        2,
    ),
    ("… 99th percentile beyond it, ms", 2),
    ("… 99.9th percentile beyond it, ms", 2),
    ("… CPU time in the second after the last answer, ms", 0),
    (
        "the 16 clients, while others come, 5 a second, and go after 50 ms: answers a second",
        0,
    ),
    ("… median, ms", 2),
    ("… 99th percentile, ms", 2),
    (
        "CPU time for a search whose client has gone, from then on, ms",
        2,
    ),
    ("… until the last of it, ms", 0),
    ("memory when it has searched once, MiB", 1),
    ("… after the long load, MiB", 1),
    ("from SIGTERM to the end, with 4 searches under way, ms", 0),
    ("… of these 4, answered", 0),
];

struct Contender {
    name: &'static str,
    program: PathBuf,
    args: Vec<String>,
    values: [Vec<f64>; ROWS.len()],
    long: Option<u64>,
}

impl Contender {
    fn new(name: &'static str, program: &str, args: &[&str]) -> Contender {
        Contender {
            name,
            program: program.into(),
            args: args.iter().map(ToString::to_string).collect(),
            values: Default::default(),
            long: None,
        }
    }

    fn measure(&mut self, plan: &Plan, wrk: Option<&PathBuf>, is_last: bool) {
        let start = || Server::start(&self.program, &self.args);
        let server = start();
        let values = &mut self.values;
        let mut add = |row: Row, value: f64| values[row as usize].push(value);
        // Twice: the first one reads the disk.
        let all = format!("{NOWHERE}&timeout=60s");
        server.ask(&all);
        let begin = Instant::now();
        server.ask(&all);
        add(Row::Alone, ms(begin.elapsed()));
        let before = server.memory();
        if let Some(wrk) = wrk {
            let cpu = server.cpu();
            let load = server.load(wrk, 16, plan.load, COMMON);
            add(Row::CpuEach, ms(server.cpu() - cpu) / load.requests as f64);
            add(Row::Rate, load.rate);
            let rows = [Row::Median, Row::P99, Row::P999];
            rows.into_iter()
                .zip(load.ms)
                .for_each(|(row, ms)| add(row, ms));
            if is_last {
                let load = server.load(wrk, 16, plan.long, COMMON);
                self.long = Some(load.requests);
                add(Row::Before, before);
                add(Row::After, server.memory());
            }
            // Each of these with a server of its own: what one leaves behind is not the next one's.
            drop(server);
            let server = start();
            let met = format!("{NOWHERE}&timeout={}ms", LIMIT.as_millis());
            let load = server.load(wrk, 8, plan.load, &met);
            let cpu = server.cpu();
            sleep(Duration::from_secs(1));
            add(Row::Debt, ms(server.cpu() - cpu));
            let rows = [Row::BeyondMedian, Row::Beyond99, Row::Beyond999];
            let rows = rows.into_iter().zip(load.ms);
            rows.for_each(|(row, after)| add(row, after - ms(LIMIT)));
            drop(server);
            let server = start();
            let stop = AtomicBool::new(false);
            thread::scope(|scope| {
                scope.spawn(|| {
                    while !stop.load(Relaxed) {
                        let stream = server.send(&format!("{NOWHERE}&timeout=30s"));
                        sleep(LIMIT);
                        drop(stream);
                        sleep(3 * LIMIT);
                    }
                });
                let load = server.load(wrk, 16, plan.load, COMMON);
                stop.store(true, Relaxed);
                add(Row::GoneRate, load.rate);
                add(Row::GoneMedian, load.ms[0]);
                add(Row::Gone99, load.ms[1]);
            });
        }
        let server = start();
        let (mut cpu, mut last) = (Duration::ZERO, Duration::ZERO);
        for _ in 0..plan.gone {
            server.idle();
            let stream = server.send(&format!("{NOWHERE}&timeout=30s"));
            sleep(LIMIT);
            let begin = server.cpu();
            drop(stream);
            last += server.idle();
            cpu += server.cpu() - begin;
        }
        add(Row::GoneCpu, ms(cpu / plan.gone));
        add(Row::GoneLast, ms(last / plan.gone));
        let asked: Vec<_> = (0..4)
            .map(|_| server.send(&format!("{NOWHERE}&timeout=30s")))
            .collect();
        sleep(2 * LIMIT);
        let begin = Instant::now();
        server.end();
        let answered = asked.into_iter().filter(|stream| {
            let mut answer = String::new();
            let _ = { stream }.read_to_string(&mut answer);
            answer.starts_with("HTTP/1.1 ") && answer.ends_with("}\n")
        });
        let answered = answered.count();
        server.ended();
        add(Row::End, ms(begin.elapsed()));
        add(Row::Answered, answered as f64);
    }
}

fn ms(took: Duration) -> f64 {
    took.as_secs_f64() * 1e3
}

struct Server {
    child: Child,
    address: SocketAddr,
}

struct Load {
    requests: u64,
    /// A second.
    rate: f64,
    /// The median, and the 99th and the 99.9th percentile.
    ms: [f64; 3],
}

/// What wrk says at its end. It counts in microseconds.
const DONE: &str = r#"
done = function(summary, latency, requests)
    local errors = summary.errors
    io.write(string.format("DONE %d %d %d %d %d %d\n", summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
        latency:percentile(99.9), errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
"#;

impl Server {
    fn start(program: &PathBuf, args: &[String]) -> Server {
        let mut command = Command::new(program);
        command
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = command.spawn().expect("a server");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let address = lines.find_map(|line| {
            let line = line.expect("a line");
            line.strip_prefix("listening on http://")?.parse().ok()
        });
        let address = address.expect("a server that listens");
        Server { child, address }
    }

    fn send(&self, query: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).expect("a server that listens");
        stream.set_read_timeout(Some(BOUND)).expect("a bound");
        let head = format!("GET /search?{query} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).expect("a request");
        stream
    }

    fn ask(&self, query: &str) {
        let mut answer = String::new();
        let _ = self.send(query).read_to_string(&mut answer);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    fn load(&self, script: &PathBuf, clients: u32, seconds: u64, query: &str) -> Load {
        let mut wrk = Command::new("wrk");
        wrk.args([
            "-t1",
            &format!("-c{clients}"),
            &format!("-d{seconds}s"),
            "--timeout",
            "10s",
            "-s",
        ]);
        wrk.arg(script)
            .arg(format!("http://{}/search?{query}", self.address));
        let output = wrk.output().expect("wrk");
        let text = String::from_utf8_lossy(&output.stdout);
        let done = text.lines().find_map(|line| line.strip_prefix("DONE "));
        let numbers: Vec<f64> = done
            .unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)))
            .split(' ')
            .map(|number| number.parse().expect("a number"))
            .collect();
        if numbers[5] > 0.0 {
            eprintln!("{} errors", numbers[5]);
        }
        Load {
            requests: numbers[0] as u64,
            rate: numbers[0] / numbers[1] * 1e6,
            ms: [numbers[2], numbers[3], numbers[4]].map(|us| us / 1e3),
        }
    }

    /// What the process has used of all CPUs.
    fn cpu(&self) -> Duration {
        let mut clock = 0;
        let mut time = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: both places are there during the calls, and of the types that are wanted; the child was not waited for.
        let failed = unsafe {
            libc::clock_getcpuclockid(self.child.id() as i32, &mut clock)
                | libc::clock_gettime(clock, &mut time)
        };
        assert_eq!(failed, 0, "no clock of the process");
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    }

    /// Waits until it uses no CPU any more: less than a hundredth for 50 ms. Returns how long that took, without those.
    fn idle(&self) -> Duration {
        let begin = Instant::now();
        let (mut since, mut used) = (begin, self.cpu());
        loop {
            sleep(Duration::from_millis(2));
            let now = Instant::now();
            let cpu = self.cpu();
            if cpu - used > Duration::from_micros(500) {
                (since, used) = (now, cpu);
            } else if now - since > Duration::from_millis(50) {
                return since - begin;
            }
            assert!(now - begin < BOUND, "it works on");
        }
    }

    /// In MiB.
    fn memory(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("what the system says of the process");
        let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = kib.and_then(|kib| kib.trim().strip_suffix(" kB"));
        kib.expect("its memory").parse::<f64>().expect("a number") / 1024.0
    }

    fn end(&self) {
        // SAFETY: no memory is passed; the child was not waited for, so the number is its own.
        unsafe { libc::kill(self.child.id() as i32, libc::SIGTERM) };
    }

    fn ended(mut self) {
        let begin = Instant::now();
        while self.child.try_wait().expect("a child").is_none() {
            assert!(begin.elapsed() < BOUND, "it does not end");
            sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn print(all: &[Contender], has_wrk: bool) {
    let names: Vec<_> = all.iter().map(|contender| contender.name).collect();
    println!(
        "| | {} |\n| --- |{}",
        names.join(" | "),
        " --- |".repeat(all.len())
    );
    for (row, (what, digits)) in ROWS.iter().enumerate() {
        if all[0].values[row].is_empty() {
            continue;
        }
        print!("| {what} |");
        for contender in all {
            let mut values = contender.values[row].clone();
            values.sort_by(f64::total_cmp);
            let (least, most) = (values[0], values[values.len() - 1]);
            let median = values[values.len() / 2];
            if values.len() > 1 {
                print!(" {median:.digits$} ({least:.digits$}–{most:.digits$}) |");
            } else {
                print!(" {median:.digits$} |");
            }
        }
        println!();
    }
    if has_wrk {
        let long = all
            .iter()
            .map(|contender| contender.long.unwrap_or(0).to_string());
        let long: Vec<_> = long.collect();
        println!("| requests in the long load | {} |", long.join(" | "));
    } else {
        println!("\nSKIPPED: what needs a load, for there is no wrk here.");
    }
}
