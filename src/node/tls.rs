//! The files of TLS are looked at now and then, and what was found is told.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::watch::{every, seconds};
use crate::http::Gate;
use crate::http::tls::{Look, Tls};
use crate::market::Nanos;
use crate::telemetry::Status;

/// The check's name.
const PART: &str = "tls";
/// A certificate that ends within this should have been renewed.
const ENDS_SOON: i64 = 3 * 24 * Nanos::HOUR;

/// Takes changed files over until it is told to stop.
pub(super) async fn watch(tls: Arc<Tls>, gate: Arc<Gate>, stop: CancellationToken) {
    let mut ticks = every(Duration::from_millis(gate.config.http.tls_reload_ms));
    let mut told = String::new();
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let now = (gate.clock)();
        let looking = Arc::clone(&tls);
        let Ok(look) = tokio::task::spawn_blocking(move || looking.look(now)).await else { continue };
        let problem = tell(&tls, &gate, look, now);
        // The same problem at every look is one problem.
        if let Some(problem) = &problem
            && *problem != told
        {
            tracing::error!(problem, "the old TLS certificate is kept");
        }
        told = problem.unwrap_or_default();
    }
}

/// Sets health and metrics; the problem, where changed files cannot be served.
fn tell(tls: &Tls, gate: &Gate, look: Look, now: Nanos) -> Option<String> {
    let reloads = &gate.metrics.http_tls_reloads;
    let problem = match look {
        Look::Same => None,
        Look::Changed => {
            reloads.with_label_values(&["changed"]).inc();
            tracing::info!(ends = %tls.ends(), "a new TLS certificate is served");
            None
        }
        Look::Kept(error) => {
            reloads.with_label_values(&["kept"]).inc();
            Some(error.to_string())
        }
    };
    let ends = tls.ends();
    gate.metrics.http_tls_expiry_seconds.set(seconds(u64::try_from(ends.0 / 1_000_000).unwrap_or(0)));
    match &problem {
        Some(problem) => {
            gate.health.set(PART, Status::Warn, format!("the old certificate is kept: {problem}"));
        }
        None if ends <= now.plus(ENDS_SOON) => {
            gate.health.set(PART, Status::Warn, format!("the certificate ends at {ends}"));
        }
        None => gate.health.set(PART, Status::Ok, format!("the certificate ends at {ends}")),
    }
    problem
}
