//! HTTP: what people and programs ask.

use crate::connections::Lasts;
use crate::log::{self, REQUEST_ID};
use crate::metrics::Metrics;
use crate::query::{Query, LONGEST};
use crate::search::{Ended, Hit, Search, Sources, Why, STOP};
use crate::tracker::Tracker;
use crate::work::{Row, State as Of};
use axum::extract::{RawQuery, Request, State};
use axum::http::{header, HeaderMap, StatusCode};
use axum::middleware::{self, Next};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use cancel_tree::integrations::serve::ServerHandle;
use cancel_tree::integrations::tower::{ContextLayer, DebugService};
use cancel_tree::Context;
use futures_util::stream::{self, Stream};
use serde_json::{json, Value};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often it is said who works.
const LOOK: Duration = Duration::from_millis(100);

/// All that the routes have in common.
pub struct Front {
    pub sources: Sources,
    pub server: ServerHandle,
    pub metrics: Arc<Metrics>,
    pub tracker: Arc<Tracker>,
    /// For how long nothing of an answer may be taken.
    pub patience: Duration,
}

type Shared = State<(Arc<Front>, ContextLayer)>;

pub fn router(front: Front, root: &Context) -> Router {
    let layer = ContextLayer::new(root)
        .in_group(front.server.requests())
        .named()
        // A search has a limit of its own, and answers then; this is for what does not come to its end.
        .max(LONGEST + STOP + front.patience)
        .carry([REQUEST_ID]);
    Router::new()
        .route("/search", get(search))
        .layer(layer.clone())
        .route("/", get(|| async { Html(include_str!("page.html")) }))
        .route("/healthz", get(health))
        .route("/metrics", get(metrics))
        // All that has a name, as the library knows it; and the searches, as this program knows them.
        .route_service("/debug/cancel", DebugService::new())
        .route("/debug/searches", get(searches))
        .layer(middleware::from_fn(request_id))
        .with_state((Arc::new(front), layer))
}

/// Every request has an id, before anything else looks at it; the answer says which.
async fn request_id(mut request: Request, next: Next) -> Response {
    let id = log::id_or_new(request.headers().get(REQUEST_ID));
    request.headers_mut().insert(REQUEST_ID, id.clone());
    let mut response = next.run(request).await;
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

/// For the load balancer.
async fn health(State((front, _)): Shared) -> (StatusCode, &'static str) {
    match &front.sources {
        _ if !front.server.is_ready() => (StatusCode::SERVICE_UNAVAILABLE, "the server ends\n"),
        Sources::Here(files) if files.is_closed() => {
            (StatusCode::SERVICE_UNAVAILABLE, "the files are gone\n")
        }
        _ => (StatusCode::OK, "ok\n"),
    }
}

async fn metrics(State((front, layer)): Shared) -> String {
    let (tasks, tracker) = (front.server.requests().len(), &front.tracker);
    let events = (tracker.len(), tracker.missing());
    front.metrics.text(layer.counts(), tasks, events)
}

/// Who works for which search: for people.
async fn searches(State((front, _)): Shared) -> String {
    front.metrics.searches.to_string()
}

/// How the answer is wanted.
#[derive(Debug, PartialEq, Eq)]
enum Form {
    Json,
    Events,
}

/// From `Accept`: events if they are named, JSON if it or anything is taken.
fn form(headers: &HeaderMap) -> Option<Form> {
    let all = headers.get_all(header::ACCEPT);
    let ranges: Vec<String> = all
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|range| {
            let mut parts = range.split(';').map(str::trim);
            let name = parts.next()?.to_ascii_lowercase();
            let refused = parts.any(|part| matches!(part, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"));
            (!refused && !name.is_empty()).then_some(name)
        })
        .collect();
    let has = |name: &str| ranges.iter().any(|range| range == name);
    if has("text/event-stream") {
        Some(Form::Events)
    } else if all.iter().next().is_none()
        || has("application/json")
        || has("application/*")
        || has("*/*")
    {
        Some(Form::Json)
    } else {
        None
    }
}

async fn search(
    State((front, _)): Shared,
    Extension(ctx): Extension<Context>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let sentence = |status: StatusCode, text: String| {
        log::line(&ctx, &format!("{}: {text}", status.as_u16()));
        (status, text + "\n").into_response()
    };
    let query = match Query::parse(query.as_deref().unwrap_or("")) {
        Ok(query) => query,
        Err(text) => return sentence(StatusCode::BAD_REQUEST, text),
    };
    let Some(form) = form(&headers) else {
        let text = "An answer is application/json or text/event-stream.".into();
        return sentence(StatusCode::NOT_ACCEPTABLE, text);
    };
    let began = Instant::now();
    let on_end = {
        let (ctx, query, tracker) = (ctx.clone(), query.clone(), front.tracker.clone());
        move |ended: &Ended| {
            log::line(&ctx, &format!("search {:?}: {ended}", query.text));
            let id = log::request_id(&ctx);
            let event = json!({
                "id": id,
                "query": &*query.text,
                "ended": ended.why.label(),
                "hits": ended.hits,
                "took_us": micros(ended.took),
                "stop_us": ended.stop.map(micros),
            });
            tracker.event(id, event.to_string());
        }
    };
    let keepers = front.server.requests();
    let search = Search::begin(
        &ctx,
        &query,
        &front.sources,
        keepers,
        &front.metrics,
        on_end,
    );
    let search = match search {
        Ok(search) => search,
        Err(_) => return sentence(StatusCode::SERVICE_UNAVAILABLE, "The server ends.".into()),
    };
    match form {
        Form::Json => whole(&ctx, search, &query, began).await,
        Form::Events => {
            let lasts = Lasts(query.timeout + STOP);
            let stream = Sse::new(events(search, query, began)).keep_alive(KeepAlive::default());
            let mut answer = stream.into_response();
            answer.extensions_mut().insert(lasts);
            answer
        }
    }
}

/// What was found, when it is over.
async fn whole(ctx: &Context, mut search: Search, query: &Query, began: Instant) -> Response {
    let mut hits = Vec::new();
    while let Some(hit) = search.next().await {
        hits.push(of_hit(hit));
    }
    let why = search.why();
    let status = match why {
        Why::Backend(_) => StatusCode::BAD_GATEWAY,
        Why::FilesGone | Why::Shutdown => StatusCode::SERVICE_UNAVAILABLE,
        Why::Other(_) => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::OK,
    };
    let mut answer = of_end(&why, query, hits.len(), began);
    answer["request_id"] = log::request_id(ctx).into();
    answer["query"] = (*query.text).into();
    answer["hits"] = hits.into();
    let json = [(header::CONTENT_TYPE, "application/json")];
    (status, json, answer.to_string() + "\n").into_response()
}

/// Hits as they come, and who works meanwhile: `hit` and `work`…, `end`, `work`…, `stopped`.
fn events(
    search: Search,
    query: Query,
    began: Instant,
) -> impl Stream<Item = Result<Event, Infallible>> {
    let events = Events {
        search,
        query,
        began,
        count: 0,
        look: Instant::now() + LOOK,
        step: Step::Hits,
    };
    stream::unfold(events, |mut events| async {
        let (name, data) = events.next().await?;
        let event = Event::default().event(name).data(data.to_string());
        Some((Ok(event), events))
    })
}

struct Events {
    search: Search,
    query: Query,
    began: Instant,
    count: usize,
    /// When it is said next who works.
    look: Instant,
    step: Step,
}

enum Step {
    Hits,
    /// It is over; until then it is waited for those that work.
    Stop(Instant),
    /// What is said of that.
    Last(Value),
    Over,
}

impl Events {
    async fn next(&mut self) -> Option<(&'static str, Value)> {
        let now = Instant::now();
        let (limit, _guard) = Context::background().with_deadline(self.look);
        match &self.step {
            Step::Over => return None,
            Step::Last(said) => {
                let said = ("stopped", said.clone());
                self.step = Step::Over;
                return Some(said);
            }
            // Also where hits come so fast that nobody would wait for them.
            _ if now >= self.look => {}
            Step::Hits => match limit.run(self.search.next()).await {
                Ok(Some(hit)) => {
                    self.count += 1;
                    return Some(("hit", of_hit(hit)));
                }
                Ok(None) => {
                    self.step = Step::Stop(Instant::now() + STOP);
                    let why = self.search.why();
                    return Some(("end", of_end(&why, &self.query, self.count, self.began)));
                }
                Err(_) => {}
            },
            Step::Stop(until) => match self.search.stopped(&limit).await {
                Ok(ended) => self.step = Step::Last(json!({ "stop_us": ended.stop.map(micros) })),
                Err(missing) if now >= *until => {
                    self.step = Step::Last(json!({ "missing": missing }));
                }
                Err(_) => {}
            },
        }
        self.look = Instant::now() + LOOK;
        let rows = self.search.work().rows().into_iter().map(of_row);
        Some(("work", rows.collect()))
    }
}

fn of_hit(hit: Hit) -> Value {
    json!({ "path": hit.path, "line": hit.line, "text": hit.text })
}

fn of_row(row: Row) -> Value {
    json!({
        "name": row.name,
        "state": match row.state {
            Of::Waits => "waits",
            Of::Works => "works",
            Of::Gone => "gone",
        },
        "for_us": row.lasts.map(micros),
        "hits": row.hits,
        "at": row.at,
        "says": row.situation.map(|situation| situation.to_string()),
    })
}

fn of_end(why: &Why, query: &Query, count: usize, began: Instant) -> Value {
    json!({
        "complete": matches!(why, Why::Complete),
        "ended": why.label(),
        "says": why.sentence(query),
        "count": count,
        "took_us": micros(began.elapsed()),
    })
}

fn micros(took: Duration) -> u64 {
    took.as_micros() as u64
}

#[cfg(test)]
mod tests {
    use super::{form, Form};
    use axum::http::{header::ACCEPT, HeaderMap, HeaderValue};

    #[test]
    fn the_form_that_is_wanted() {
        for (accept, wanted) in [
            (None, Some(Form::Json)),
            (Some("*/*"), Some(Form::Json)),
            (Some("application/json"), Some(Form::Json)),
            (Some("text/html, application/*;q=0.5"), Some(Form::Json)),
            (Some("text/event-stream"), Some(Form::Events)),
            (
                Some("application/json, Text/Event-Stream;q=0.9"),
                Some(Form::Events),
            ),
            (Some("text/event-stream;q=0, */*"), Some(Form::Json)),
            (Some("image/png"), None),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(accept) = accept {
                headers.insert(ACCEPT, HeaderValue::from_static(accept));
            }
            assert_eq!(form(&headers), wanted, "{accept:?}");
        }
    }
}
