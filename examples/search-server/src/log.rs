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
    let log = LOG.get_or_init(Log::start);
    let Ok(place) = log.places.enter() else {
        log.lost.fetch_add(1, Relaxed);
        return;
    };
    let line = Line(format!("{text}\n"), place);
    if let Err(SendError(line)) = log.queue.send(line) {
        // There is no thread for it.
        write(&line.0);
    }
}

/// How many lines there was no room for.
pub fn lost() -> u64 {
    LOG.get().map_or(0, |log| log.lost.load(Relaxed))
}

/// Waits until what was said is written, before the process ends. Not for long, if nobody reads it.
pub fn flush() {
    if let Some(log) = LOG.get() {
        let (limit, _guard) = Context::background().with_timeout(FLUSH);
        let _ = limit.block_on(log.places.wait_idle());
    }
}

/// How many lines may wait to be written.
const ROOM: usize = 4096;

const FLUSH: Duration = Duration::from_secs(1);

static LOG: OnceLock<Log> = OnceLock::new();

/// A thread writes the lines: if the error output is a pipe that nobody reads, it is that thread that waits, and the server goes on.
struct Log {
    /// Each line is a member until it is written.
    places: Group,
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
        Log {
            places: Group::new(&Context::background().with_name("log")).limit(ROOM),
            queue,
            lost,
        }
    }
}

/// Whole; and if it cannot be written, there is nowhere to say so.
fn write(line: &str) {
    let _ = io::stderr().lock().write_all(line.as_bytes());
}
