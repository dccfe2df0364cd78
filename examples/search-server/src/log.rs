//! Lines of the log, each with the id of its request.

use axum::http::{HeaderName, HeaderValue};
use cancel_tree::integrations::tower::Carried;
use cancel_tree::{Context, Group, Member};
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{channel, SendError, Sender};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Where a request's id is said: by clients, to backends, and in answers.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The request's id. It is a value of the context, so that what is between the handler and the line need not know of it.
pub fn request_id(ctx: &Context) -> &str {
    let carried = ctx.value::<Carried>();
    let id = carried.and_then(|carried| carried.headers().get(REQUEST_ID));
    id.and_then(|id| id.to_str().ok()).unwrap_or("-")
}

/// Keeps what came, if it can stand in a line; else a new one.
pub fn id_or_new(came: Option<&HeaderValue>) -> HeaderValue {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let fits = |id: &&HeaderValue| {
        (1..=128).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
    };
    came.filter(fits).cloned().unwrap_or_else(|| {
        let number = LAST.fetch_add(1, Relaxed);
        let began = SystemTime::now().duration_since(UNIX_EPOCH);
        let began = began.map_or(0, |began| began.as_micros() as u64);
        let id = HeaderValue::from_str(&format!("{began:x}-{number}"));
        id.expect("digits")
    })
}

/// A line to the error output, under the request's id. Nobody waits until it is written.
pub fn line(ctx: &Context, text: &str) {
    plain(&format!("[{}] {text}", request_id(ctx)));
}

/// A line that belongs to no request.
pub fn plain(text: &str) {
    let log = log();
    match log.lines.enter() {
        Ok(place) => log.put(text, place),
        Err(_) => _ = log.lost.fetch_add(1, Relaxed),
    }
}

/// A line with an event that is nowhere else. There is room for these apart, whatever else there is to say. Whether there was.
pub fn event(text: &str) -> bool {
    let log = log();
    let place = log.events.enter();
    place.map(|place| log.put(text, place)).is_ok()
}

/// What is said once, at the end: there is always room for it.
pub fn last(text: &str) {
    let log = log();
    // A member for each line: while somebody reads, there are fewer of them.
    for line in text.lines() {
        // Nobody closes the group.
        _ = log.last.enter().map(|place| log.put(line, place));
    }
}

/// How many lines there was no room for.
pub fn lost() -> u64 {
    LOG.get().map_or(0, |log| log.lost.load(Relaxed))
}

/// Waits until what was said is written, before the process ends. As long as somebody reads it, and not for long.
pub fn flush() {
    let Some(log) = LOG.get() else {
        return;
    };
    let all = [&log.lines, &log.events, &log.last];
    let left = || all.iter().map(|group| group.len()).sum::<usize>();
    for _ in 0..FLUSHES {
        let before = left();
        let (limit, _guard) = Context::background().with_timeout(FLUSH);
        for group in all {
            let _ = limit.block_on(group.wait_idle());
        }
        if left() == 0 || left() == before {
            return;
        }
    }
}

/// How many lines may wait to be written, and how many events.
const ROOM: usize = 4096;

/// If nothing is written for so long, nobody reads it.
const FLUSH: Duration = Duration::from_secs(1);
const FLUSHES: usize = 5;

static LOG: OnceLock<Log> = OnceLock::new();

fn log() -> &'static Log {
    LOG.get_or_init(Log::start)
}

/// A thread writes the lines: if the error output is a pipe that nobody reads, it is that thread that waits, and the server goes on.
struct Log {
    /// Each line is a member of one of these until it is written.
    lines: Group,
    events: Group,
    last: Group,
    queue: Sender<Line>,
    lost: Arc<AtomicU64>,
}

struct Line(String, Member);

impl Log {
    fn start() -> Log {
        let (queue, lines) = channel();
        let lost = Arc::new(AtomicU64::new(0));
        let thread = thread::Builder::new().name("log".into());
        // Without it, `queue` says so.
        let _ = thread.spawn({
            let lost = lost.clone();
            move || {
                let mut told = 0;
                for Line(line, place) in lines {
                    write(&line);
                    drop(place);
                    let now = lost.load(Relaxed);
                    if now > told {
                        write(&format!("{} lines of the log are missing\n", now - told));
                        told = now;
                    }
                }
            }
        });
        let group = |name: &'static str| Group::new(&Context::background().with_name(name));
        Log {
            lines: group("log").limit(ROOM),
            events: group("events in the log").limit(ROOM),
            last: group("last words"),
            queue,
            lost,
        }
    }

    fn put(&self, text: &str, place: Member) {
        if let Err(SendError(line)) = self.queue.send(Line(format!("{text}\n"), place)) {
            // There is no thread for it.
            write(&line.0);
        }
    }
}

/// Whole; and if it cannot be written, there is nowhere to say so.
fn write(line: &str) {
    let _ = io::stderr().lock().write_all(line.as_bytes());
}
