//! A server that ends, and what Prometheus is told of it: histograms from the cancel to the tasks' first polls and ends, and counts.
//!
//! ```sh
//! cd examples/metrics && cargo run
//! ```

use cancel_tree::integrations::tower::{ContextLayer, DebugService};
use cancel_tree::{Context, Group};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use std::time::Duration;
use tower::{Layer, ServiceExt};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The exporter first, so that it hears what the names mean. A server answers `GET /metrics` by `exporter.render()`.
    let seconds = [0.001, 0.01, 0.1, 1.0, 10.0];
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &seconds)?
        .build_recorder();
    let exporter = recorder.handle();
    metrics::set_global_recorder(recorder)?;
    cancel_tree::integrations::metrics::install();

    let (server, shutdown) = Context::background().with_cancel();
    let group = Group::new(&server.with_name("server"));
    // One that asks, one that takes a while, one that never ends.
    let ctx = group.context().clone();
    let polite = async move { _ = ctx.done().await };
    tokio::spawn(group.named("polite").track(polite)?);
    let ctx = group.context().clone();
    let slow = async move {
        ctx.done().await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    tokio::spawn(group.named("slow").track(slow)?);
    let deaf = group.named("deaf").track(std::future::pending::<()>())?;

    // A request, of which the page for operators is the handler.
    let service = ContextLayer::new(&server).layer(DebugService::new());
    let request = http::Request::get("/debug/cancel").body(())?;
    drop(service.oneshot(request).await?);

    shutdown.cancel_with("the end of the example");
    let (limit, _guard) = Context::background().with_timeout(Duration::from_millis(500));
    let report = group.shutdown_with(&limit, Duration::ZERO).await;
    eprintln!("{report}");
    drop(deaf);
    println!("{}", exporter.render());
    Ok(())
}
