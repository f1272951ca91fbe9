//! `GET /openapi.json`: the API in OpenAPI 3.1, written by hand in `openapi.json` beside this
//! file. A test holds its paths and methods against the routes, both ways.

use axum::Router;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

/// The document.
pub const DOCUMENT: &str = include_str!("openapi.json");

pub(super) fn routes() -> Router {
    Router::new().route("/openapi.json", get(document))
}

async fn document() -> Response {
    let headers =
        [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "public, max-age=3600")];
    (headers, DOCUMENT).into_response()
}
