//! Logs, metrics and health.
//!
//! - [`logs`]: one subscriber, lines for people or JSON, to standard error. A failure is logged
//!   once, where it is handled; the message is in lower case, values are fields with units.
//!   Secrets are held in types that do not print, and a test holds that.
//! - [`Metrics`]: the one list of metric names. Each node has a registry of its own, so that
//!   several nodes run in one process.
//! - [`Health`]: named checks with a reason. A node is ready while none of them fails.

pub mod logs;
mod metrics;
mod health;

pub use health::{Check, Health, Report, Status};
pub use metrics::Metrics;
