//! Answers in the place of the handler's.

use super::body::ContextBody;
use super::headers::Protocol;
use http::header::{HeaderName, HeaderValue, CONTENT_TYPE};
use http::{HeaderMap, Response, StatusCode};

pub(super) const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
pub(super) const EXPIRED: HeaderName = HeaderName::from_static("x-deadline-expired");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Expired,
    Malformed,
    Unavailable,
    /// Of a call that goes out. (There is no HTTP status for it: 499 is what proxies write into their logs.)
    Cancelled,
}

impl Answer {
    pub(super) fn response<B>(self, protocol: Protocol) -> Response<ContextBody<B>> {
        let mut response = Response::new(ContextBody::empty());
        let content = match protocol {
            Protocol::Http => {
                *response.status_mut() = match self {
                    Answer::Expired => StatusCode::GATEWAY_TIMEOUT,
                    Answer::Malformed => StatusCode::BAD_REQUEST,
                    Answer::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
                    Answer::Cancelled => StatusCode::from_u16(499).unwrap_or_default(),
                };
                if self == Answer::Expired {
                    let headers = response.headers_mut();
                    headers.insert(EXPIRED, HeaderValue::from_static("1"));
                }
                return response;
            }
            Protocol::Grpc => "application/grpc",
            Protocol::GrpcWeb => "application/grpc-web",
        };
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content));
        self.write_status(headers);
        response
    }

    /// The trailers that say so.
    pub(super) fn trailers(self) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(2);
        self.write_status(&mut headers);
        headers
    }

    fn write_status(self, headers: &mut HeaderMap) {
        let (status, message) = match self {
            Answer::Expired => ("4", "deadline exceeded"),
            Answer::Malformed => ("13", "malformed timeout"),
            Answer::Unavailable => ("14", "the server is shutting down"),
            Answer::Cancelled => ("1", "cancelled"),
        };
        headers.insert(GRPC_STATUS, HeaderValue::from_static(status));
        headers.insert(GRPC_MESSAGE, HeaderValue::from_static(message));
    }
}
