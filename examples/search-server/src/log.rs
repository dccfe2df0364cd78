//! Lines of the log, each with the id of its request.

use axum::http::{HeaderName, HeaderValue};
use cancel_tree::integrations::tower::Carried;
use cancel_tree::Context;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

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

/// A line to the error output, under the request's id.
pub fn line(ctx: &Context, text: &str) {
    plain(&format!("[{}] {text}", request_id(ctx)));
}

/// A line that belongs to no request.
pub fn plain(text: &str) {
    // Whole, and if nobody reads it the server goes on.
    let _ = std::io::stderr()
        .lock()
        .write_all(format!("{text}\n").as_bytes());
}
