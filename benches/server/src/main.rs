//! The front of `examples/search-server` that searches by itself, without the library: the same files, the same threads, the same JSON, a line of the
//! log and an event for each search.
//!
//!     server-without timeout|token DIR ADDR:PORT EVENTS
//!
//! `timeout`: tokio's `timeout` around the search, and what axum does when a client goes, which is to drop the handler. A thread that searches
//! notices neither, until it wants to hand over a hit. `token`: beside that a token of tokio-util's for each search below one of the server's, which
//! the handler's end cancels, which a signal cancels when the time to finish is over, and which the threads ask before each file.

#[path = "../../../examples/search-server/src/duration.rs"]
#[allow(dead_code)]
mod duration;
#[path = "../../../examples/search-server/src/query.rs"]
#[allow(dead_code)]
mod query;

use axum::extract::{RawQuery, State};
use axum::http::{header, HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::Router;
use memchr::memmem::Finder;
use memchr::{memchr, memchr_iter, memrchr};
use query::Query;
use serde_json::{json, Value};
use std::fs::{self, File, OpenOptions};
use std::future::IntoFuture;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, Semaphore};
use tokio_util::sync::CancellationToken;

const LONGEST_FILE: u64 = 4 << 20;
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// For so long a search may go on after the signal.
const FINISH: Duration = Duration::from_millis(100);

struct Files {
    root: PathBuf,
    paths: Vec<PathBuf>,
    threads: Arc<Semaphore>,
    each: usize,
    has_token: bool,
    /// Above each search's.
    token: CancellationToken,
    events: File,
    last: AtomicU64,
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [mode, root, listen, events] = args.as_slice() else {
        eprintln!("server-without timeout|token DIR ADDR:PORT EVENTS");
        std::process::exit(2);
    };
    let has_token = match mode.as_str() {
        "timeout" => false,
        "token" => true,
        _ => panic!("timeout, or token"),
    };
    let each = std::thread::available_parallelism().map_or(2, usize::from);
    let files = Arc::new(Files {
        root: root.into(),
        paths: list(Path::new(root)),
        threads: Arc::new(Semaphore::new(2 * each)),
        each,
        has_token,
        token: CancellationToken::new(),
        events: OpenOptions::new()
            .append(true)
            .create(true)
            .open(events)
            .unwrap(),
        last: AtomicU64::new(0),
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind(listen).await.unwrap();
        println!("listening on http://{}", listener.local_addr().unwrap());
        let app = Router::new()
            .route("/search", get(search))
            .with_state(files.clone());
        let mut term =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap();
        let serve = axum::serve(listener, app).with_graceful_shutdown(async move {
            term.recv().await;
            if files.has_token {
                tokio::spawn(async move {
                    tokio::time::sleep(FINISH).await;
                    files.token.cancel();
                });
            }
        });
        serve.into_future().await.unwrap();
    });
    // The runtime's drop waits for the threads that still search.
}

fn list(root: &Path) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    let mut directories = vec![PathBuf::new()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(root.join(&directory))
            .into_iter()
            .flatten()
            .flatten()
        {
            let path = directory.join(entry.file_name());
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => directories.push(path),
                Ok(kind) if kind.is_file() => paths.push(path),
                _ => {}
            }
        }
    }
    paths
}

async fn search(
    State(files): State<Arc<Files>>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Response {
    let query = match Query::parse(query.as_deref().unwrap_or("")) {
        Ok(query) => query,
        Err(text) => return (StatusCode::BAD_REQUEST, text + "\n").into_response(),
    };
    let began = Instant::now();
    let id = headers.get("x-request-id").and_then(|id| id.to_str().ok());
    let id = id.map(str::to_owned).unwrap_or_else(|| {
        let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        format!(
            "{:x}-{}",
            began.as_micros(),
            files.last.fetch_add(1, Relaxed)
        )
    });
    let token = files.token.child_token();
    let _guard = files.has_token.then(|| token.clone().drop_guard());
    let (found, mut hits) = mpsc::channel(64);
    tokio::spawn(start(files.clone(), query.clone(), token.clone(), found));
    let mut all = Vec::new();
    let collect = async {
        while let Some(hit) = hits.recv().await {
            all.push(hit);
            if all.len() == query.most {
                return "enough";
            }
        }
        if token.is_cancelled() {
            "shutdown"
        } else {
            "complete"
        }
    };
    let ended = tokio::time::timeout(query.timeout, collect).await;
    let ended = ended.unwrap_or("limit");
    let (took, hits) = (began.elapsed(), all.len());
    eprintln!(
        "[{id}] search {:?}: {ended}, {hits} hits, {took:.1?}",
        query.text
    );
    let took = took.as_micros() as u64;
    let answer = json!({
        "complete": ended == "complete",
        "ended": ended,
        "count": hits,
        "took_us": took,
        "request_id": id,
        "query": &*query.text,
        "hits": all,
    });
    let json = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        ),
        (X_REQUEST_ID, HeaderValue::try_from(&id).unwrap()),
    ];
    tokio::task::spawn_blocking(move || {
        let event = json!({ "id": id, "query": &*query.text, "ended": ended, "hits": hits, "took_us": took });
        let _ = { &files.events }.write_all(format!("{event}\n").as_bytes());
    });
    (json, answer.to_string() + "\n").into_response()
}

async fn start(
    files: Arc<Files>,
    query: Query,
    token: CancellationToken,
    found: mpsc::Sender<Value>,
) {
    let next = Arc::new(AtomicUsize::new(0));
    for _ in 0..files.each {
        let place = files.threads.clone().acquire_owned().await.unwrap();
        if next.load(Relaxed) >= files.paths.len() || token.is_cancelled() {
            return;
        }
        let (files, next, query) = (files.clone(), next.clone(), query.clone());
        let (token, found) = (token.clone(), found.clone());
        tokio::task::spawn_blocking(move || {
            let _place = place;
            files.work(&query.text, &token, &next, &found);
        });
    }
}

impl Files {
    fn work(
        &self,
        text: &str,
        token: &CancellationToken,
        next: &AtomicUsize,
        found: &mpsc::Sender<Value>,
    ) {
        let finder = Finder::new(text);
        let mut bytes = Vec::new();
        while let Some(path) = self.paths.get(next.fetch_add(1, Relaxed)) {
            if self.has_token && token.is_cancelled() {
                return;
            }
            if !self.read(path, &mut bytes).unwrap_or(false) {
                continue;
            }
            let (mut at, mut number) = (0, 1);
            while let Some(offset) = finder.find(&bytes[at..]) {
                let hit = at + offset;
                let begin = memrchr(b'\n', &bytes[at..hit]).map_or(at, |line| at + line + 1);
                let end = memchr(b'\n', &bytes[hit..]).map_or(bytes.len(), |line| hit + line);
                number += memchr_iter(b'\n', &bytes[at..begin]).count();
                let line = String::from_utf8_lossy(&bytes[begin..end]);
                let line: String = line.trim().chars().take(160).collect();
                let hit =
                    json!({ "path": path.display().to_string(), "line": number, "text": line });
                if found.blocking_send(hit).is_err() {
                    return;
                }
                at = (end + 1).min(bytes.len());
                number += 1;
            }
        }
    }

    fn read(&self, path: &Path, bytes: &mut Vec<u8>) -> io::Result<bool> {
        bytes.clear();
        let file = File::open(self.root.join(path))?;
        file.take(LONGEST_FILE + 1).read_to_end(bytes)?;
        let start = &bytes[..bytes.len().min(1 << 13)];
        Ok(bytes.len() as u64 <= LONGEST_FILE && memchr(0, start).is_none())
    }
}
