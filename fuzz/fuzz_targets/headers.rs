//! Headers as anybody may send them, through the layers for requests in and out, against an oracle that reads digits by
//! hand: each says a time, none, or is malformed, and nothing panics. What is formatted parses, and never to less.
//!
//! The input is text. The first line is settings, a letter each; every other line is a header, `name:value`, of the response if it begins
//! with `<`.
//!
//! `fuzz/run.sh 1800 headers`
#![no_main]

use bytes::Bytes;
use cancel_tree::integrations::tower::{
    grpc_timeout, Carried, ContextLayer, DeadlineHeader, Malformed, PropagateLayer,
};
use cancel_tree::{Context, Service as Timer};
use http::header::{HeaderMap, HeaderName, HeaderValue, CONTENT_TYPE};
use http::{Method, Request, Response, StatusCode, Version};
use http_body::{Body, Frame};
use libfuzzer_sys::fuzz_target;
use std::convert::Infallible;
use std::future::{ready, Future};
use std::pin::{pin, Pin};
use std::task::{self, Poll, Waker};
use std::time::Duration;
use tower_layer::Layer;
use tower_service::Service;

const MILLIS: HeaderName = HeaderName::from_static("x-ms");
const SECONDS: HeaderName = HeaderName::from_static("x-s");
const HOUR: u64 = 3600;

fuzz_target!(|input: &[u8]| {
    timeouts(input);
    let mut timer = Timer::new();
    request(input);
    timer.turn(std::time::Instant::now());
});

/// So many digits at most, and nothing else.
fn digits(text: &[u8], most: usize) -> Option<u128> {
    let text = std::str::from_utf8(text).ok()?;
    let right = (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    // What 128 bits do not hold is more than anything.
    right.then(|| text.parse().unwrap_or(u128::MAX))
}

fn grpc(text: &[u8]) -> Option<Duration> {
    let (unit, number) = text.split_last()?;
    let number = digits(number, 8)? as u64;
    Some(match unit {
        b'H' => Duration::from_secs(number * HOUR),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

/// The vectors: what is said is what the oracle reads, and back.
fn timeouts(input: &[u8]) {
    for text in input.split(|byte| *byte == b'\n') {
        let parsed = grpc_timeout::parse(text);
        assert_eq!(parsed.ok(), grpc(text));
        if let Ok(time) = parsed {
            let formatted = grpc_timeout::format(time);
            assert!(formatted.len() <= 9);
            // Eight digits say it exactly, for eight digits have said it.
            assert_eq!(grpc_timeout::parse(&formatted), Ok(time));
        }
        // Any time at all: no less, and hardly more.
        if let Ok(number) = <[u8; 12]>::try_from(text.get(..12).unwrap_or_default()) {
            let (secs, nanos) = number.split_at(8);
            let secs = u64::from_le_bytes(secs.try_into().unwrap());
            let nanos = u32::from_le_bytes(nanos.try_into().unwrap()) % 1_000_000_000;
            let time = Duration::new(secs, nanos);
            let back = grpc_timeout::parse(grpc_timeout::format(time)).unwrap();
            assert!(back >= time.min(Duration::from_secs(99_999_999 * HOUR)));
        }
    }
}

/// What a header that is believed says: none, a time, or nothing that can be understood.
fn said(
    headers: &HeaderMap,
    name: &HeaderName,
    read: impl Fn(&[u8]) -> Option<Duration>,
) -> Result<Option<Duration>, ()> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => read(value.as_bytes()).map(Some).ok_or(()),
        (Some(_), Some(_)) => Err(()),
    }
}

fn number(text: &[u8], most: usize) -> Option<u64> {
    digits(text, most).map(|number| u64::try_from(number).unwrap_or(u64::MAX))
}

/// Frames, one byte each; then trailers, if it is to.
struct Frames {
    left: usize,
    trailers: bool,
    lies: bool,
}

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(if self.left > 0 {
            self.left -= 1;
            Some(Ok(Frame::data(Bytes::from_static(b"x"))))
        } else if std::mem::take(&mut self.trailers) {
            Some(Ok(Frame::trailers(HeaderMap::new())))
        } else {
            None
        })
    }

    fn is_end_stream(&self) -> bool {
        !self.lies && self.left == 0 && !self.trailers
    }
}

/// Gives each request the response that was chosen, and looks at its context.
struct Handler {
    response: Option<Response<Frames>>,
    seen: Option<Context>,
}

impl Service<Request<()>> for &mut Handler {
    type Response = Response<Frames>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Response<Frames>, Infallible>>;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        self.seen = request.extensions().get::<Context>().cloned();
        ready(Ok(self.response.take().unwrap()))
    }
}

fn request(input: &[u8]) {
    let mut lines = input.split(|byte| *byte == b'\n');
    let settings = lines.next().unwrap_or_default();
    let has = |letter: u8| settings.contains(&letter);
    let count = |letter: u8| settings.iter().filter(|byte| **byte == letter).count();
    let mut request = Request::new(());
    let mut response = Response::new(Frames {
        left: count(b'f').min(64),
        trailers: has(b't'),
        lies: has(b'l'),
    });
    for line in lines {
        let (headers, line) = match line.split_first() {
            Some((b'<', line)) => (response.headers_mut(), line),
            _ => (request.headers_mut(), line),
        };
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let (Some(name), Some(value)) = (parts.next(), parts.next()) else {
            continue;
        };
        let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
        else {
            continue;
        };
        headers.append(name, value);
    }
    *request.method_mut() = if has(b'h') {
        Method::HEAD
    } else if has(b'c') {
        Method::CONNECT
    } else if has(b'g') {
        Method::GET
    } else {
        Method::POST
    };
    if has(b'2') {
        *request.version_mut() = Version::HTTP_2;
    }
    // As from a layer around this one.
    let (outer, _guard) = Context::background().with_cancel();
    if has(b'o') {
        request.extensions_mut().insert(outer.with_value(7_u8));
    }
    if has(b'1') {
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    } else if has(b'0') {
        *response.status_mut() = StatusCode::NO_CONTENT;
    }

    let all = [
        DeadlineHeader::GRPC,
        DeadlineHeader::CONNECT,
        DeadlineHeader::millis(MILLIS),
        DeadlineHeader::seconds(SECONDS),
    ];
    let background = Context::background();
    let mut layer = ContextLayer::new(&background)
        .deadline_from(all)
        .carry([HeaderName::from_static("baggage")]);
    let rejects = has(b'r');
    if rejects {
        layer = layer.malformed(Malformed::Reject);
    }
    let (max, default) = (Duration::from_secs(HOUR), Duration::from_secs(60));
    if has(b'm') {
        layer = layer.max(max);
    }
    if has(b'd') {
        layer = layer.default_timeout(default);
    }
    if has(b'z') {
        layer = layer.ceiling(0.0, Duration::from_secs(1));
    }

    // The oracle.
    let headers = request.headers().clone();
    let content = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let content = content.unwrap_or_default().to_ascii_lowercase();
    let is_grpc = *request.method() == Method::POST
        && content
            .strip_prefix(b"application/grpc")
            .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ' | b'-')));
    let grpc_said = match is_grpc {
        true => said(&headers, &HeaderName::from_static("grpc-timeout"), grpc),
        false => Ok(None),
    };
    let millis = |most| move |text: &[u8]| number(text, most).map(Duration::from_millis);
    let connect = HeaderName::from_static("connect-timeout-ms");
    let every = [
        grpc_said,
        said(&headers, &connect, millis(10)),
        said(&headers, &MILLIS, millis(usize::MAX)),
        said(&headers, &SECONDS, |text| {
            number(text, usize::MAX).map(Duration::from_secs)
        }),
    ];
    let is_malformed = every.iter().any(Result::is_err);
    let mut earliest = every.iter().filter_map(|said| said.ok().flatten()).min();
    let status = response.status();
    let (mut expected, mut grpc_status) = (status, None);
    if rejects && is_malformed {
        (expected, grpc_status) = (StatusCode::BAD_REQUEST, Some("13"));
    } else if earliest.is_some_and(|said| said.is_zero()) {
        if has(b'z') {
            earliest = None;
        } else {
            (expected, grpc_status) = (StatusCode::GATEWAY_TIMEOUT, Some("4"));
        }
    }
    let is_handled = grpc_status.is_none();
    if is_grpc && !is_handled {
        expected = StatusCode::OK;
    }

    let content_length = response.headers().get("content-length").cloned();
    let mut handler = Handler {
        response: Some(response),
        seen: None,
    };
    let (answer, seen) = {
        let mut service = layer.layer(&mut handler);
        let call = pin!(service.call(request));
        let mut cx = task::Context::from_waker(Waker::noop());
        let Poll::Ready(Ok(answer)) = call.poll(&mut cx) else {
            panic!("it is ready")
        };
        (answer, handler.seen.take())
    };
    let counts = layer.counts();
    assert_eq!(counts.received, 1);
    assert_eq!(counts.malformed, u64::from(is_malformed));
    assert_eq!(seen.is_some(), is_handled);
    // The real clock is in it: what is very short may have passed meanwhile.
    let is_short = earliest.is_some_and(|said| said < Duration::from_secs(10));
    if !is_handled || !is_short {
        assert_eq!(answer.status(), expected);
        if is_grpc && !is_handled {
            assert_eq!(answer.headers()["grpc-status"], grpc_status.unwrap());
        }
    }
    if let Some(ctx) = &seen {
        let wanted = earliest.or(has(b'd').then_some(default));
        let most = match has(b'm') {
            true => Some(wanted.map_or(max, |wanted| wanted.min(max))),
            false => wanted,
        };
        if let Some(left) = ctx.remaining() {
            assert!(left <= most.unwrap());
        } else {
            // Too far for the clock, or none at all.
            assert!(most.is_none_or(|most| most > Duration::from_secs(100 * 365 * 24 * HOUR)));
        }
        let carried = ctx.value::<Carried>();
        assert_eq!(carried.is_some(), headers.contains_key("baggage"));
        assert_eq!(ctx.value::<u8>().is_some(), has(b'o'));
        sent(ctx, &headers);
    }

    // To the end of the body, and once more.
    let mut body = pin!(answer.into_body());
    let mut cx = task::Context::from_waker(Waker::noop());
    let mut frames = 0;
    loop {
        match body.as_mut().poll_frame(&mut cx) {
            Poll::Ready(Some(Ok(_))) => frames += 1,
            Poll::Ready(Some(Err(_))) => assert!(is_short),
            Poll::Ready(None) => break,
            Poll::Pending => unreachable!("nothing here waits"),
        }
        assert!(frames <= 66);
    }
    assert!(matches!(
        body.as_mut().poll_frame(&mut cx),
        Poll::Ready(None)
    ));
    assert!(body.is_end_stream());
    if let Some(ctx) = seen {
        // Nobody holds it any more: not the handler, nor an upgrade.
        assert!(ctx.is_done(), "{content_length:?}");
    }
}

/// The other direction: what goes out under the context is a header that can be read, and no later than its deadline.
fn sent(ctx: &Context, headers: &HeaderMap) {
    let all = [
        (
            DeadlineHeader::GRPC,
            HeaderName::from_static("grpc-timeout"),
        ),
        (
            DeadlineHeader::CONNECT,
            HeaderName::from_static("connect-timeout-ms"),
        ),
        (DeadlineHeader::millis(MILLIS), MILLIS),
        (DeadlineHeader::seconds(SECONDS), SECONDS),
    ];
    for (header, name) in all {
        let mut headers = headers.clone();
        let before = ctx.remaining();
        let Ok(()) = PropagateLayer::new(header).outgoing(ctx, &mut headers) else {
            continue;
        };
        let Some(left) = before else { continue };
        assert_eq!(headers.get_all(&name).iter().count(), 1);
        let value = headers[&name].as_bytes();
        let said = match name.as_str() {
            "grpc-timeout" => grpc(value).unwrap(),
            "x-s" => Duration::from_secs(number(value, usize::MAX).unwrap()),
            _ => Duration::from_millis(number(value, usize::MAX).unwrap()),
        };
        // Rounded up by one of the unit: the coarsest that is needed has a hundredth of a per mille of it, or is a second.
        assert!(said <= left + left / 10_000 + Duration::from_secs(1));
    }
}
