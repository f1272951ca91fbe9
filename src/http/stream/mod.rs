//! Streams: ticks as they are durable.
//!
//! | route | speaks |
//! |---|---|
//! | `/v2/{feed}` | Alpaca's stream over WebSocket, JSON or MessagePack by `Content-Type` |
//! | `/v2/{feed}/since/{time}`, `/v2/{feed}/cursor/{cursor}` | the same, from there on |
//! | `/v1/stream` | server-sent events |
//! | `/v1/subscriptions/{id}/events` | a long poll |
//!
//! A connection costs some 9 KB while it is idle (`make bench-live`). It is refused with a status only where the node
//! has no place for it (503, which SDKs take for a reason to try again); everything else is said in
//! the stream. What Alpaca has not is given to those alone who ask for it (`ext=1`).

mod ask;
mod message;
mod poll;
mod served;
mod session;
mod sse;
mod websocket;
mod wire;

use std::sync::Arc;

use axum::Router;
use axum::routing::get;

use super::App;

/// The routes of streams.
pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/stream", get(sse::events))
        .route("/v1/subscriptions/{id}/events", get(poll::events))
        .route("/v2/{feed}", get(websocket::plain))
        .route("/v2/{feed}/since/{time}", get(websocket::since))
        .route("/v2/{feed}/cursor/{cursor}", get(websocket::cursor))
}
