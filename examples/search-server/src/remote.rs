//! gRPC between the front and its backends, written by hand: `search.proto` in Rust.

use crate::log::{self, REQUEST_ID};
use crate::metrics::Metrics;
use crate::query::{Query, LONGEST};
use crate::search::{Ended, Hit, NotTaken, Search, Sources, Why};
use crate::work::Worker;
use axum::http::{self, uri::PathAndQuery};
use cancel_tree::integrations::serve::ServerHandle;
use cancel_tree::integrations::tower::{
    ContextLayer, DeadlineHeader, PropagateLayer, PropagateService,
};
use cancel_tree::{Cause, Context, ContextError};
use futures_util::stream::{self, Stream};
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};
use std::time::Duration;
use tokio::sync::mpsc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};
use tonic_prost::ProstCodec;
use tower::{service_fn, BoxError, Layer, Service};

const FIND: &str = "/search.Search/Find";

/// What is kept of the time for the way back and for the answer.
const RESERVE: Duration = Duration::from_millis(2);

/// A backend that says nothing for so long is connected to anew.
const SILENCE: Duration = Duration::from_secs(5);

/// Of a backend that has searched all but some: how many could not be read, with the code that says so.
const UNREADABLE: (Code, &str) = (Code::DataLoss, "search-unreadable");

/// The question.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Find {
    #[prost(string, tag = "1")]
    pub text: String,
}

/// A backend, as the front sees it.
pub struct Remote {
    name: String,
    client: tonic::client::Grpc<PropagateService<Channel>>,
}

/// The first of these ends a search.
#[derive(Debug)]
pub struct BackendFailed {
    name: String,
    status: Status,
}

impl fmt::Display for BackendFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (code, message) = (self.status.code(), self.status.message());
        write!(f, "{}: {code:?}, {message:?}", self.name)
    }
}

impl std::error::Error for BackendFailed {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.status)
    }
}

impl Remote {
    /// Connects when it is first asked, and again when the connection is gone.
    ///
    /// # Errors
    ///
    /// It is no `HOST:PORT`.
    pub fn new(address: &str) -> Result<Remote, String> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"));
        let endpoint = endpoint.map_err(|error| format!("{address:?} is no HOST:PORT: {error}"))?;
        let endpoint = endpoint.tcp_nodelay(true).connect_timeout(SILENCE);
        // Who is asked and gone without a word keeps the searches to their limits, but not for good.
        let endpoint = { endpoint }.http2_keep_alive_interval(SILENCE);
        let channel = endpoint.keep_alive_timeout(SILENCE).connect_lazy();
        let layer = PropagateLayer::new(DeadlineHeader::GRPC).reserve(RESERVE);
        Ok(Remote {
            name: format!("backend {address}"),
            client: tonic::client::Grpc::new(layer.layer(channel)),
        })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Asks it. What is left of the time goes along, and the request's id; when the context is done, the call is reset, and the backend stops.
    pub async fn search(
        &self,
        ctx: &Context,
        query: &Query,
        hits: &mpsc::Sender<Hit>,
        worker: &Worker,
    ) -> Result<(), Cause> {
        worker.begin();
        match self.ask(ctx, query, hits, worker).await {
            // Its time is ours less the reserve. What it has found is here; the rest of our time the others may have.
            Err(status) if status.code() == Code::DeadlineExceeded => {
                ctx.done().await;
                ctx.check_cause()
            }
            // Its hits were not taken, since ours were not.
            Err(status) if status.code() == Code::Aborted => Err(Cause::new(NotTaken)),
            Err(status) if status.code() == UNREADABLE.0 => {
                let count = status.metadata().get(UNREADABLE.1);
                let count = count.and_then(|count| count.to_str().ok()?.parse().ok());
                worker.unreadable(count.unwrap_or(1));
                Ok(())
            }
            Err(status) => {
                ctx.check_cause()?;
                let name = self.name.clone();
                Err(Cause::new(BackendFailed { name, status }))
            }
            Ok(()) => Ok(()),
        }
    }

    async fn ask(
        &self,
        ctx: &Context,
        query: &Query,
        hits: &mpsc::Sender<Hit>,
        worker: &Worker,
    ) -> Result<(), Status> {
        let mut client = self.client.clone();
        let over = |error: ContextError| match error {
            ContextError::DeadlineExceeded => Status::deadline_exceeded("here"),
            ContextError::Cancelled => Status::cancelled("here"),
        };
        let ready = ctx.run(client.ready()).await.map_err(over)?;
        ready.map_err(|error| Status::unavailable(error.to_string()))?;
        let text = query.text.to_string();
        let mut request = Request::new(Find { text });
        request.extensions_mut().insert(ctx.clone());
        let (path, codec) = (
            PathAndQuery::from_static(FIND),
            ProstCodec::<Find, Hit>::default(),
        );
        let answer = client.server_streaming(request, path, codec).await?;
        let mut found = answer.into_inner();
        while let Some(hit) = found.message().await? {
            // Nobody takes hits any more: all is over.
            let sent = ctx.run(hits.send(hit)).await.map_err(over)?;
            if sent.is_err() {
                break;
            }
            worker.hit();
        }
        Ok(())
    }
}

/// A backend, as it sees itself.
#[derive(Clone)]
pub struct Backend {
    sources: Arc<Sources>,
    server: ServerHandle,
    metrics: Arc<Metrics>,
}

type Hits = Pin<Box<dyn Stream<Item = Result<Hit, Status>> + Send>>;

impl Backend {
    pub fn new(sources: Sources, server: ServerHandle, metrics: Arc<Metrics>) -> Backend {
        Backend {
            sources: Arc::new(sources),
            server,
            metrics,
        }
    }

    /// What is to be put around: deadlines are believed here, for the front is no stranger.
    pub fn layer(&self, root: &Context) -> ContextLayer {
        ContextLayer::new(root)
            .in_group(self.server.requests())
            .named()
            .deadline_from([DeadlineHeader::GRPC])
            .max(LONGEST)
            .carry([REQUEST_ID])
    }

    async fn find(self, request: Request<Find>) -> Result<Response<Hits>, Status> {
        let ctx = request.extensions().get::<Context>();
        let ctx = ctx.ok_or_else(|| Status::internal("no context"))?.clone();
        let text: Arc<str> = request.into_inner().text.into();
        if text.is_empty() {
            return Err(Status::invalid_argument(
                "an empty text is found everywhere",
            ));
        }
        // The front counts, and the deadline is in the context.
        let (timeout, most) = (LONGEST, usize::MAX);
        let query = Query {
            text,
            timeout,
            most,
        };
        let on_end = {
            let (ctx, query) = (ctx.clone(), query.clone());
            move |ended: &Ended| log::line(&ctx, &format!("asked for {:?}: {ended}", query.text))
        };
        let keepers = self.server.requests();
        let search = Search::begin(&ctx, &query, &self.sources, keepers, &self.metrics, on_end);
        let search = search.map_err(|refused| Status::unavailable(refused.to_string()))?;
        let hits = stream::unfold(Some(search), |search| async {
            let mut search = search?;
            if let Some(hit) = search.next().await {
                return Some((Ok(hit), Some(search)));
            }
            let error = match search.why() {
                Why::Complete | Why::Enough => return None,
                Why::Unreadable(count) => {
                    let mut status = Status::new(UNREADABLE.0, "some files could not be read");
                    status.metadata_mut().insert(UNREADABLE.1, count.into());
                    status
                }
                Why::NotTaken => Status::aborted("what was found was not taken"),
                Why::Limit => Status::deadline_exceeded("the limit came first"),
                Why::ClientGone => Status::cancelled("the client is gone"),
                why @ (Why::FilesGone | Why::Shutdown) => Status::unavailable(why.label()),
                Why::Backend(error) | Why::Other(error) => Status::internal(error),
            };
            Some((Err(error), None))
        });
        Ok(Response::new(Box::pin(hits)))
    }
}

impl<B> Service<http::Request<B>> for Backend
where
    B: axum::body::HttpBody<Data = axum::body::Bytes, Error: Into<BoxError> + Send>
        + Send
        + 'static,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            if request.uri().path() != FIND {
                return Ok(Status::unimplemented(request.uri().path()).into_http());
            }
            let find = service_fn(|request| this.clone().find(request));
            let mut grpc = tonic::server::Grpc::new(ProstCodec::<Hit, Find>::default());
            Ok(grpc.server_streaming(find, request).await)
        })
    }
}
