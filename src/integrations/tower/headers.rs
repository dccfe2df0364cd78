//! What a request's headers say.

use super::grpc_timeout;
use alloc::string::String;
use core::time::Duration;
use http::header::{HeaderMap, HeaderName, HeaderValue, CONTENT_TYPE, TE};
use http::{Method, Request};
use std::error::Error;
use std::fmt;

/// A header that says how much time is left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadlineHeader {
    pub(super) name: HeaderName,
    pub(super) form: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Grpc,
    Millis { most: usize },
    Seconds,
}

impl DeadlineHeader {
    /// `grpc-timeout`, looked at in a POST whose content type is `application/grpc…`.
    pub const GRPC: DeadlineHeader = DeadlineHeader {
        name: HeaderName::from_static("grpc-timeout"),
        form: Form::Grpc,
    };

    /// `connect-timeout-ms`: 1 to 10 digits.
    pub const CONNECT: DeadlineHeader = DeadlineHeader {
        name: HeaderName::from_static("connect-timeout-ms"),
        form: Form::Millis { most: 10 },
    };

    /// Milliseconds, as digits only.
    #[must_use]
    pub const fn millis(name: HeaderName) -> DeadlineHeader {
        let form = Form::Millis { most: usize::MAX };
        DeadlineHeader { name, form }
    }

    /// Seconds, as digits only.
    #[must_use]
    pub const fn seconds(name: HeaderName) -> DeadlineHeader {
        let form = Form::Seconds;
        DeadlineHeader { name, form }
    }

    /// What it says here; none, if it is not there.
    pub(super) fn read(
        &self,
        headers: &HeaderMap,
        protocol: Protocol,
    ) -> Result<Option<Duration>, MalformedHeader> {
        if self.form == Form::Grpc && protocol == Protocol::Http {
            return Ok(None);
        }
        let mut values = headers.get_all(&self.name).iter();
        let Some(value) = values.next() else {
            return Ok(None);
        };
        // Twice: which of the two?
        let value = values.next().is_none().then(|| value.as_bytes());
        let time = value.and_then(|value| match self.form {
            Form::Grpc => grpc_timeout::parse(value).ok(),
            Form::Millis { most } => grpc_timeout::number(value, most).map(Duration::from_millis),
            Form::Seconds => grpc_timeout::number(value, usize::MAX).map(Duration::from_secs),
        });
        time.map(Some).ok_or(MalformedHeader)
    }

    /// The value for a time that is left, rounded up; and how much it says.
    pub(super) fn write(&self, left: Duration) -> (HeaderValue, Duration) {
        let up = |each: u128| u64::try_from(left.as_nanos().div_ceil(each)).unwrap_or(u64::MAX);
        match self.form {
            Form::Grpc => {
                let written = grpc_timeout::format(left);
                let said = grpc_timeout::parse(&written).unwrap_or(left);
                (text(written), said)
            }
            Form::Millis { most } => {
                let millis = up(1_000_000);
                let millis = match most {
                    10 => millis.min(9_999_999_999),
                    _ => millis,
                };
                (HeaderValue::from(millis), Duration::from_millis(millis))
            }
            Form::Seconds => {
                let secs = up(1_000_000_000);
                (HeaderValue::from(secs), Duration::from_secs(secs))
            }
        }
    }
}

fn text(text: String) -> HeaderValue {
    match HeaderValue::try_from(text) {
        Ok(value) => value,
        Err(_) => unreachable!("digits and a letter"),
    }
}

/// A header that says no time.
#[derive(Clone, Copy, Debug)]
pub(super) struct MalformedHeader;

/// The earliest of what the headers say.
pub(super) fn earliest(
    from: &[DeadlineHeader],
    headers: &HeaderMap,
    protocol: Protocol,
) -> (Option<Duration>, Result<(), MalformedHeader>) {
    let mut least: Option<Duration> = None;
    let mut all = Ok(());
    for header in from {
        match header.read(headers, protocol) {
            Ok(Some(time)) => least = Some(least.map_or(time, |least| least.min(time))),
            Ok(None) => {}
            Err(malformed) => all = Err(malformed),
        }
    }
    (least, all)
}

/// Whether the client has said that it takes trailers.
pub(super) fn takes_trailers(headers: &HeaderMap) -> bool {
    let lists = headers.get_all(TE).iter();
    let mut words = lists.flat_map(|list| list.as_bytes().split(|byte| *byte == b','));
    words.any(|word| word.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

/// How a request wants to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Http,
    Grpc,
    /// Its trailers are in the body, where nobody but the service itself can write them.
    GrpcWeb,
}

impl Protocol {
    pub(super) fn of<B>(request: &Request<B>) -> Protocol {
        // Any client can send any content type, to any route. gRPC has no other method; what answers a GET may be kept for others, and has to say that it failed.
        match *request.method() {
            Method::POST => Protocol::said(request.headers()),
            _ => Protocol::Http,
        }
    }

    /// By the content type alone.
    pub(super) fn said(headers: &HeaderMap) -> Protocol {
        let Some(content) = headers.get(CONTENT_TYPE) else {
            return Protocol::Http;
        };
        let prefix = b"application/grpc";
        let content = content.as_bytes();
        match content.split_at_checked(prefix.len()) {
            Some((begin, rest)) if begin.eq_ignore_ascii_case(prefix) => match rest {
                [] | [b'+' | b';' | b' ', ..] => Protocol::Grpc,
                [b'-', ..] => Protocol::GrpcWeb,
                _ => Protocol::Http,
            },
            _ => Protocol::Http,
        }
    }
}

/// Headers of a request as they came, in its context's values: see [`ContextLayer::carry`](super::ContextLayer::carry).
#[derive(Clone)]
pub struct Carried(HeaderMap);

impl Carried {
    /// Those of these names, and what a layer further out has kept under others. None: there is none of these.
    pub(super) fn of(
        names: &[HeaderName],
        headers: &HeaderMap,
        outer: Option<&Carried>,
    ) -> Option<Carried> {
        let mut carried = None;
        for name in names {
            let mut values = headers.get_all(name).iter();
            let Some(first) = values.next() else {
                continue;
            };
            let all = carried.get_or_insert_with(|| match outer {
                Some(Carried(outer)) => outer.clone(),
                None => HeaderMap::new(),
            });
            // In the place of what is there, for the name may be among these twice. There is an end to what a map can take in.
            let _ = all.try_insert(name.clone(), first.clone());
            for value in values {
                let _ = all.try_append(name.clone(), value.clone());
            }
        }
        carried.map(Carried)
    }

    /// The headers.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.0
    }
}

/// The names only: what they say may be nobody's business.
impl fmt::Debug for Carried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// The deadline passed before the end of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadlineReached;

impl fmt::Display for DeadlineReached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the deadline passed before the end of the body")
    }
}

impl Error for DeadlineReached {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&crate::tree::ContextError::DeadlineExceeded)
    }
}
