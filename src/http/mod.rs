//! The HTTP doors.
//!
//! The public door serves Alpaca's market data v2 (`/v2/…`, to the byte, so that its SDKs work
//! unmodified) and the platform's own v1; the admin door, on an address of its own, serves
//! health, metrics and administration. What every request passes, from the outside in:
//!
//! | where | what | refused as |
//! |---|---|---|
//! | [`server`] | connections in all and a source; time of headers; answers that nobody takes | closed |
//! | [`layers`] | request id, rate of an address, size of URI and headers, time, log, metrics | 429, 414, 431, 504 |
//! | | panics, answers that are not JSON yet | 500 |
//! | [`cors`] | preflights of listed origins | not at all |
//! | [`auth`] | the key in one of three header styles, its rate | 401 (403 on `/v2`), 429 |
//! | [`limits`] | requests in flight, time and size of bodies | 503, 408, 413 |
//! | handlers | scope, parameters | 403, 4xx |
//!
//! It promises: every answer that is no success is the one JSON envelope ([`error`]); every
//! answer has `X-Request-ID` and the rate headers; `Retry-After` is on 429 and 503 alone; never
//! a redirect; no secret in a log or an answer. One exception: what is not HTTP/1.1, or whose
//! headers are far too large, reaches no route; its answer is the envelope with a request id and
//! without rate headers ([`bare`]), in HTTP/2 the protocol's own error.
//!
//! A sub-router is a `routes() -> Router<Arc<App>>`; its handlers take `State<Arc<App>>` and
//! [`auth::Subscriber`] or [`auth::Producer`].

use std::sync::Arc;

use axum::Router;
use secrecy::SecretString;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::access::{Audit, Keys, MonoClock, SourceLimiter, Tickets};
use crate::config::Config;
use crate::history::Reader;
use crate::ingest::Intake;
use crate::live::{Live, Newest, Screener};
use crate::market::Nanos;
use crate::subs::Subs;
use crate::telemetry::{Health, Metrics};

mod activity;
pub mod alpaca;
pub mod auth;
mod bare;
pub mod cors;
pub mod error;
mod inflate;
pub mod ingest;
pub mod layers;
pub mod limits;
pub mod openapi;
pub mod ops;
mod params;
pub mod receipts;
pub mod server;
mod socket;
pub mod stream;
pub mod subs;
pub mod symbols;
mod ticket;
pub mod ticks;
pub mod tls;
pub mod types;
mod udf;
#[cfg(test)]
mod tests;

pub use error::{ApiError, ApiResult};
pub use ops::STATUS;
pub(crate) use params::Params;

/// The wall clock, passed in.
pub type Clock = Arc<dyn Fn() -> Nanos + Send + Sync>;

/// What every request passes: limits, keys, logs. Both doors share one.
pub struct Gate {
    /// The configuration.
    pub config: Arc<Config>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Health.
    pub health: Arc<Health>,
    /// Keys.
    pub keys: Arc<Keys>,
    /// Tickets, which open streams, and cookies of the chart adapter.
    pub tickets: Tickets,
    /// Audit.
    pub audit: Arc<Audit>,
    /// The wall clock.
    pub clock: Clock,
    /// The monotonic clock.
    pub mono: MonoClock,
    /// The rate of addresses; the node sweeps it now and then.
    pub sources: SourceLimiter,
    /// The token of this boot that opens the admin door to whoever can read the node file.
    pub admin_token: SecretString,
    in_flight: Arc<Semaphore>,
}

impl Gate {
    /// A gate with the limits of this configuration.
    #[must_use]
    pub fn new(parts: GateParts) -> Self {
        let GateParts { config, metrics, health, keys, tickets, audit, clock, mono, admin_token } = parts;
        let http = &config.http;
        let sources = SourceLimiter::new(http.source_requests_per_minute, http.sources_max, mono.clone());
        let in_flight = Arc::new(Semaphore::new(http.requests_in_flight_max));
        Self { sources, in_flight, config, metrics, health, keys, tickets, audit, clock, mono, admin_token }
    }
}

/// What a [`Gate`] is made of.
pub struct GateParts {
    /// The configuration.
    pub config: Arc<Config>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Health.
    pub health: Arc<Health>,
    /// Keys.
    pub keys: Arc<Keys>,
    /// Tickets, which open streams, and cookies of the chart adapter.
    pub tickets: Tickets,
    /// Audit.
    pub audit: Arc<Audit>,
    /// The wall clock.
    pub clock: Clock,
    /// The monotonic clock.
    pub mono: MonoClock,
    /// A random token, new at each boot.
    pub admin_token: SecretString,
}

/// The world of a handler: the gate and the doors behind it.
pub struct App {
    /// What every request passes.
    pub gate: Arc<Gate>,
    /// Ticks in.
    pub intake: Arc<Intake>,
    /// Where history comes from.
    pub reader: Arc<Reader>,
    /// Where the latest of each series comes from.
    pub newest: Arc<Newest>,
    /// Where streams come from.
    pub streams: Arc<Streams>,
    /// Subscriptions.
    pub subs: Arc<Subs>,
    /// The day's activity.
    pub screener: Arc<Screener>,
    /// Producers that stay connected.
    pub producers: ingest::Producers,
}

/// The hubs of the feeds, and the tasks of the connections.
pub struct Streams {
    /// What is on the tapes.
    pub live: Arc<Live>,
    /// Made-up data.
    pub test: Arc<Live>,
    /// One task a connection.
    pub tasks: TaskTracker,
}

/// The public door.
pub fn router(app: Arc<App>) -> Router {
    let gate = Arc::clone(&app.gate);
    let routes = Router::new()
        .merge(ticks::routes())
        .merge(alpaca::routes())
        .merge(symbols::routes())
        .merge(stream::routes())
        .merge(subs::routes())
        .merge(receipts::routes())
        .merge(udf::routes())
        .merge(ingest::routes());
    let routes = routes.with_state(app).merge(ticket::routes(Arc::clone(&gate))).merge(openapi::routes());
    layers::guarded(routes, gate, layers::Door::Public)
}

/// The admin door, with the routes that the node itself answers.
pub fn admin_router(gate: Arc<Gate>, of_node: Router<Arc<Gate>>) -> Router {
    let routes = ops::routes().merge(of_node).with_state(Arc::clone(&gate));
    layers::guarded(routes, gate, layers::Door::Admin)
}
