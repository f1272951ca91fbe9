//! The HTTP doors.
//!
//! Sub-routers are `ticks::routes()`, `alpaca::routes()` and `symbols::routes()`, each a
//! `Router<Arc<App>>`; handlers take `State<Arc<App>>`.

use std::sync::Arc;

use crate::config::Config;
use crate::market::Nanos;
use crate::telemetry::{Health, Metrics};

pub mod auth;
pub mod error;

pub use error::{ApiError, ApiResult};

/// The wall clock, passed in.
pub type Clock = Arc<dyn Fn() -> Nanos + Send + Sync>;

/// What every request passes: limits, keys, logs. Shared by the public and the admin door.
pub struct Gate {
    /// The configuration.
    pub config: Arc<Config>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Health.
    pub health: Arc<Health>,
    /// The wall clock.
    pub clock: Clock,
}

/// The world of a handler: the gate and the doors behind it.
pub struct App {
    /// What every request passes.
    pub gate: Arc<Gate>,
}
