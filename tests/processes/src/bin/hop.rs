//! One of several servers in a row: asks the next one, if there is one, with what is left of the time.
//!
//!     hop NAME [next=PORT] [reserve=MS]

use axum::body::{to_bytes, Body};
use axum::extract::{Request, State};
use axum::http::{HeaderName, Response, StatusCode};
use axum::{Extension, Router};
use cancel_tree::integrations::serve::Serve;
use cancel_tree::integrations::signals::Signals;
use cancel_tree::integrations::tower::{ContextLayer, DeadlineHeader, PropagateLayer};
use cancel_tree::{Cause, Context, ContextError};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use processes::{say, since_epoch, BUDGET, RESERVE};
use std::time::Duration;
use tower::{Layer, ServiceExt};

#[derive(Clone)]
struct Hop {
    name: String,
    next: Option<String>,
    reserve: Duration,
}

#[tokio::main]
async fn main() {
    let name = std::env::args().nth(1).expect("a name");
    let arg = |prefix| std::env::args().find_map(|arg| Some(arg.strip_prefix(prefix)?.to_owned()));
    let next = arg("next=");
    let reserve = arg("reserve=").map(|ms| Duration::from_millis(ms.parse().unwrap()));
    let reserve = reserve.unwrap_or(RESERVE);
    let signals = Signals::new().install(&Context::background()).unwrap();
    let serve = Serve::new(&Context::background()).signals(&signals);
    let server = serve.start().unwrap();
    let header = DeadlineHeader::millis(HeaderName::from_static(BUDGET));
    let layer = ContextLayer::new(&Context::background())
        .in_group(server.handle().requests())
        .named()
        .deadline_from([header]);
    let app = Router::new().fallback(handle).layer(layer).with_state(Hop {
        name,
        next,
        reserve,
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    say(&format!(
        "listening {}",
        listener.local_addr().unwrap().port()
    ));
    let graceful = server.graceful();
    let report = server
        .run(axum::serve(listener, app).with_graceful_shutdown(graceful))
        .await;
    std::process::exit(report.exit_code());
}

/// Says what is left; at the end of the row it answers, or hangs until its context is done.
async fn handle(
    State(hop): State<Hop>,
    Extension(ctx): Extension<Context>,
    request: Request,
) -> Response<Body> {
    let name = &hop.name;
    let left = ctx.remaining().map_or(0, |left| left.as_micros());
    let path = request.uri().path().to_owned();
    // Also if this is dropped, as it is when the client goes or the time is over.
    drop(ctx.on_cancel_with({
        let name = name.clone();
        move |cause| say(&format!("over {name} {} {cause}", since_epoch()))
    }));
    say(&format!("started {path}"));
    let (status, text) = match &hop.next {
        None if path == "/hang" => {
            ctx.done().await;
            std::future::pending().await
        }
        None => (StatusCode::OK, format!("{name} {left}")),
        Some(next) => match ask(&ctx, next, &path, hop.reserve).await {
            Ok((status, answer)) => (status, format!("{name} {left}, {answer}")),
            Err(error) => (StatusCode::BAD_GATEWAY, format!("{name} {left}, {error}")),
        },
    };
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response
}

/// Whoever has run out is named by the one who asked.
async fn ask(
    ctx: &Context,
    next: &str,
    path: &str,
    reserve: Duration,
) -> Result<(StatusCode, String), String> {
    let client: Client<_, Body> = Client::builder(TokioExecutor::new()).build_http();
    let layer = PropagateLayer::new(DeadlineHeader::millis(HeaderName::from_static(BUDGET)))
        .reserve(reserve);
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = format!("http://127.0.0.1:{next}{path}").parse().unwrap();
    request.extensions_mut().insert(ctx.clone());
    let out_of_time = "ran out of time";
    let response = match layer.layer(client).oneshot(request).await {
        Ok(response) => response,
        // What was sent along is over before our own time is, by the reserve.
        Err(error) if is_deadline(&*error) && !ctx.is_done() => {
            return Ok((
                StatusCode::GATEWAY_TIMEOUT,
                format!("the next {out_of_time}"),
            ));
        }
        Err(error) if is_deadline(&*error) => return Err(format!("the caller {out_of_time}")),
        Err(error) => return Err(error.to_string()),
    };
    let (head, body) = response.into_parts();
    if head.headers.contains_key("x-deadline-expired") {
        return Ok((head.status, format!("the next {out_of_time}")));
    }
    let bytes = to_bytes(Body::new(body), 1 << 16).await;
    let bytes = bytes.map_err(|error| error.to_string())?;
    Ok((head.status, String::from_utf8_lossy(&bytes).into_owned()))
}

fn is_deadline(error: &(dyn std::error::Error + 'static)) -> bool {
    let cause = error.downcast_ref::<Cause>();
    cause.is_some_and(|cause| cause.kind() == ContextError::DeadlineExceeded)
}
