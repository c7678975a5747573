//! `/metrics`, `/healthz`, `/readyz` of processes that go on.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Context;
use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use prometheus::{Registry, TEXT_FORMAT, TextEncoder};

use crate::figures::Figures;

/// What the probes ask. `Ok` carries a word for people, `Err` what is wrong.
pub(crate) trait Health: Send + Sync + 'static {
    /// Nothing is broken for good: a restart would not help anybody.
    fn healthy(&self) -> Result<String, String>;
    /// Every lane has found its start and its stores.
    fn ready(&self) -> Result<String, String>;
}

struct Shared {
    registry: Registry,
    figures: Option<Figures>,
    health: Box<dyn Health>,
}

/// Serves until the process ends. Returns the address, which says the port that was taken for port 0. `setting` is what
/// the address was read from.
pub(crate) async fn serve(
    setting: &str,
    address: &str,
    registry: Registry,
    figures: Option<Figures>,
    health: impl Health,
) -> anyhow::Result<SocketAddr> {
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .with_context(|| format!("{setting} {address} cannot be served; port 0 takes a free one"))?;
    let bound = listener.local_addr()?;
    let shared = Arc::new(Shared { registry, figures, health: Box::new(health) });
    let probe = |answer: Result<String, String>| match answer {
        Ok(text) => (StatusCode::OK, format!("{text}\n")),
        Err(text) => (StatusCode::SERVICE_UNAVAILABLE, format!("{text}\n")),
    };
    let router = Router::new()
        .route(
            "/healthz",
            get(move |State(shared): State<Arc<Shared>>| async move { probe(shared.health.healthy()) }),
        )
        .route(
            "/readyz",
            get(move |State(shared): State<Arc<Shared>>| async move { probe(shared.health.ready()) }),
        )
        .route("/metrics", get(metrics))
        .with_state(shared);
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "the metrics server ended");
        }
    });
    Ok(bound)
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Result<impl IntoResponse, (StatusCode, String)> {
    let mut families = shared.registry.gather();
    if let Some(figures) = &shared.figures {
        families.extend(figures.families().await);
    }
    let text = TextEncoder::new()
        .encode_to_string(&families)
        .map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    Ok(([(CONTENT_TYPE, TEXT_FORMAT)], text))
}
