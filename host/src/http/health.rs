//! `/healthz` and `/readyz`, from what the engine's loops have told. No answer asks the store.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value, json};

use crate::engine::health::{Health, Problem};

/// The paths of a host with this health.
pub fn router(health: Arc<Health>) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .with_state(health)
}

/// Whether the process works at all: where it does not, a restart helps, and nothing else does.
async fn healthz(State(health): State<Arc<Health>>) -> Response {
    let dead = health.dead_loops();
    verdict("alive", &dead)
}

/// Whether the host can take work now.
async fn readyz(State(health): State<Arc<Health>>) -> Response {
    let problems = health.problems();
    verdict("ready", &problems)
}

async fn unknown_path() -> Response {
    let error = "there is nothing at this path; `/healthz` and `/readyz` are served";
    answer(StatusCode::NOT_FOUND, &json!({ "error": error }))
}

async fn wrong_method() -> Response {
    let error = "this path takes `GET` and `HEAD` only";
    answer(StatusCode::METHOD_NOT_ALLOWED, &json!({ "error": error }))
}

fn verdict(name: &str, problems: &[Problem]) -> Response {
    let status = if problems.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let problems = problems.iter().map(|problem| {
        json!({
            "what": problem.what.as_str(),
            "since": problem.since,
            "message": problem.message,
        })
    });
    answer(status, &json!({ name: status.is_success(), "problems": problems.collect::<Vec<_>>() }))
}

fn answer(status: StatusCode, body: &Value) -> Response {
    // What was true a moment ago is of no use to anybody.
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    (status, headers, format!("{body}\n")).into_response()
}
