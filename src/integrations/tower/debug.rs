//! `GET /debug/cancel`: what does not stop, for people and programs (features `inspect` and `tower`).

use crate::group::snapshot::{all, end_elsewhere, Snapshot};
use crate::sync::Panics;
use alloc::string::{String, ToString};
use bytes::Bytes;
use core::convert::Infallible;
use core::future::{ready, Ready};
use core::hash::{BuildHasher, Hasher};
use core::pin::Pin;
use core::task::{self, Poll};
use http::header::{HeaderValue, ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderName, Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use std::collections::hash_map::RandomState;
use tower_service::Service;

/// A service that answers with the [snapshot](crate::inspect::snapshot) of what has a name in this process: a page for people, JSON, text, or a
/// graph for `dot`. Put it with the server's other pages for operators, as at `/debug/cancel`. It shows the
/// program's names and causes (never values), so it needs the same protection as those pages.
///
/// | asked for by | answer |
/// | --- | --- |
/// | `?format=html`, or `Accept: text/html` | the page: live, one file, nothing from outside |
/// | `?format=json`, or `Accept: application/json` | the object whose schema is in docs/INSPECT.md |
/// | `?format=dot` | a graph |
/// | `?format=text`, or anything else | the tree as text |
///
/// Only GET and HEAD are answered. The snapshot is taken and written in `call`, by the calling thread: some 100 ns for each task that has a
/// name to meet it, and 400 to 500 more to write it as JSON. So a process with very many of them calls it behind `spawn_blocking` of its runtime.
/// Destructors of others that end meanwhile run on a thread of callbacks, and what panics in them is nobody's affair. (In the child of a fork that lacks
/// the parent's timer thread they run here.)
///
/// ```
/// use cancel_tree::integrations::tower::DebugService;
/// use http::Request;
/// use tower_service::Service;
///
/// # futures::executor::block_on(async {
/// // With axum: Router::new().route_service("/debug/cancel", DebugService::new())
/// let request = Request::get("/debug/cancel?format=json").body(()).unwrap();
/// let response = DebugService::new().call(request).await.unwrap();
/// assert_eq!(response.headers()["content-type"], "application/json");
/// # });
/// ```
#[derive(Clone, Debug, Default)]
pub struct DebugService(());

/// The whole of an answer of [`DebugService`].
#[derive(Debug, Default)]
pub struct DebugBody(Option<Bytes>);

const PAGE: &str = include_str!("debug.html");

#[derive(Clone, Copy, PartialEq, Debug)]
enum Format {
    Html,
    Json,
    Dot,
    Text,
}

impl DebugService {
    /// Creates the service.
    #[must_use]
    pub fn new() -> DebugService {
        DebugService(())
    }
}

impl Format {
    fn of<B>(request: &Request<B>) -> Format {
        let asked = request.uri().query().and_then(|query| {
            let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs
                .filter(|(key, _)| *key == "format")
                .map(|(_, value)| value)
                .next_back()
        });
        let accepted = || {
            let all = request.headers().get_all(ACCEPT).iter();
            let types = all.filter_map(|value| value.to_str().ok());
            let types = types.flat_map(|value| value.split(','));
            let mut types = types.filter_map(|value| {
                let mut parts = value.split(';').map(str::trim);
                let wanted = parts.next()?;
                let is_refused = |part: &str| part.eq_ignore_ascii_case("q=0");
                (!parts.any(is_refused)).then_some(wanted)
            });
            // The first that there is: browsers begin with what they like best.
            types.find_map(|wanted| {
                let known = [
                    ("text/html", Format::Html),
                    ("application/json", Format::Json),
                    ("text/vnd.graphviz", Format::Dot),
                    ("text/plain", Format::Text),
                ];
                let mut known = known.into_iter();
                known.find_map(|(name, format)| wanted.eq_ignore_ascii_case(name).then_some(format))
            })
        };
        match asked {
            Some("html") => Format::Html,
            Some("json") => Format::Json,
            Some("dot") => Format::Dot,
            Some(_) => Format::Text,
            None => accepted().unwrap_or(Format::Text),
        }
    }

    fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Format::Html => "text/html; charset=utf-8",
            Format::Json => "application/json",
            Format::Dot => "text/vnd.graphviz; charset=utf-8",
            Format::Text => "text/plain; charset=utf-8",
        })
    }
}

/// A word that nobody can guess, for what the page itself brings along: so nothing that a name or a cause says could run.
fn nonce() -> String {
    let random = || RandomState::new().build_hasher().finish();
    alloc::format!("{:016x}{:016x}", random(), random())
}

/// What was written of a snapshot. Others' destructors must not hold this thread up, nor panic here: they run elsewhere, when it has been
/// written.
fn written(write: impl FnOnce(&Snapshot) -> String) -> String {
    let (snapshot, panics) = all(Panics::leaving());
    let written = write(&snapshot);
    // Before what was met is let go: so each cause that it has is still somebody else's too.
    drop(snapshot);
    end_elsewhere(panics);
    written
}

fn answer(format: Format) -> Response<DebugBody> {
    let mut policy = None;
    let text = match format {
        Format::Html => {
            let nonce = nonce();
            policy = HeaderValue::try_from(alloc::format!(
                "default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; \
                 connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
            ))
            .ok();
            PAGE.replace("NONCE", &nonce)
        }
        Format::Json => written(Snapshot::json),
        Format::Dot => written(Snapshot::dot),
        Format::Text => written(|snapshot| snapshot.to_string() + "\n"),
    };
    let mut response = Response::new(DebugBody(Some(text.into())));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, format.content_type());
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let nosniff = HeaderValue::from_static("nosniff");
    headers.insert(HeaderName::from_static("x-content-type-options"), nosniff);
    if let Some(policy) = policy {
        headers.insert(HeaderName::from_static("content-security-policy"), policy);
    }
    response
}

impl<B> Service<Request<B>> for DebugService {
    type Response = Response<DebugBody>;
    type Error = Infallible;
    type Future = Ready<Result<Response<DebugBody>, Infallible>>;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let method = request.method();
        if *method != Method::GET && *method != Method::HEAD {
            let mut response = Response::new(DebugBody(None));
            *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
            let allowed = HeaderValue::from_static("GET, HEAD");
            response.headers_mut().insert(ALLOW, allowed);
            return ready(Ok(response));
        }
        let mut response = answer(Format::of(&request));
        if *method == Method::HEAD {
            // Said here, for a body that is not there says 0. Not every server leaves one out by itself.
            let length = response.body().size_hint().lower();
            let headers = response.headers_mut();
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
            *response.body_mut() = DebugBody(None);
        }
        ready(Ok(response))
    }
}

impl Body for DebugBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::Format;
    use http::Request;

    #[test]
    fn what_is_asked_for_is_answered() {
        let of = |uri: &str, accept: &str| {
            let request = Request::get(uri).header("accept", accept).body(());
            Format::of(&request.unwrap())
        };
        let chromium = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        assert_eq!(of("/", chromium), Format::Html);
        assert_eq!(of("/?a=b&format=json", chromium), Format::Json);
        assert_eq!(of("/?format=dot", "*/*"), Format::Dot);
        assert_eq!(of("/", "*/*"), Format::Text);
        assert_eq!(of("/", "application/json; q=1, text/html"), Format::Json);
        assert_eq!(of("/?format=nothing", chromium), Format::Text);
    }
}
