//! Answers in the place of the handler's.

use super::headers::Protocol;
use super::BoxError;
use http::header::{HeaderName, HeaderValue, CONTENT_TYPE};
use http::{HeaderMap, Response, StatusCode};
use http_body::Frame;

pub(super) const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
pub(super) const EXPIRED: HeaderName = HeaderName::from_static("x-deadline-expired");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Expired,
    Malformed,
    Unavailable,
    /// The group has no room.
    Full,
    /// The handler, which is a task of its own, has panicked.
    Failed,
    /// Of a call that goes out. (There is no HTTP status for it: 499 is what proxies write into their logs.)
    Cancelled,
}

impl Answer {
    /// The response that says so; it has no body.
    pub(super) fn response(self, protocol: Protocol) -> Response<()> {
        let mut response = Response::new(());
        let content = match protocol {
            Protocol::Http => {
                *response.status_mut() = match self {
                    Answer::Expired => StatusCode::GATEWAY_TIMEOUT,
                    Answer::Malformed => StatusCode::BAD_REQUEST,
                    Answer::Unavailable | Answer::Full => StatusCode::SERVICE_UNAVAILABLE,
                    Answer::Failed => StatusCode::INTERNAL_SERVER_ERROR,
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

    /// The last that a body has that is cut off: trailers that say so, or where there can be none, the error.
    pub(super) fn last_frame<D>(
        self,
        protocol: Protocol,
        error: impl Into<BoxError>,
    ) -> Result<Frame<D>, BoxError> {
        if protocol != Protocol::Grpc {
            return Err(error.into());
        }
        let mut trailers = HeaderMap::with_capacity(2);
        self.write_status(&mut trailers);
        Ok(Frame::trailers(trailers))
    }

    fn write_status(self, headers: &mut HeaderMap) {
        let (status, message) = match self {
            Answer::Expired => ("4", "deadline exceeded"),
            Answer::Malformed => ("13", "malformed timeout"),
            Answer::Failed => ("13", "the handler panicked"),
            Answer::Unavailable => ("14", "the server is shutting down"),
            // As tonic says where it sheds load.
            Answer::Full => ("8", "too many requests at once"),
            Answer::Cancelled => ("1", "cancelled"),
        };
        headers.insert(GRPC_STATUS, HeaderValue::from_static(status));
        headers.insert(GRPC_MESSAGE, HeaderValue::from_static(message));
    }
}
