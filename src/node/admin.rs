//! What the admin door asks of the node itself: a walk over everything stored.
//!
//! A walk reads gigabytes and outlasts any request, so that it is a job: `POST /admin/verify`
//! starts it (409 where one runs already, with how far that is), `GET /admin/verify` tells how far
//! it is and, at its end, what was found. A node keeps the last one in memory.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::backends::Backend;
use crate::http::{ApiError, ApiResult, Gate};
use crate::store::StoreError;
use crate::store::embedded::{Finding, Progress, Severity};

/// Findings that an answer names; the others are counted.
const FINDINGS_MAX: usize = 1_000;

/// Where a walk stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VerifyState {
    /// It reads.
    #[default]
    Running,
    /// It has read everything.
    Done,
    /// It was cut short.
    Failed,
}

/// A walk over everything stored: answer of `/admin/verify`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyOut {
    /// Which walk of this boot, from 1.
    pub id: u64,
    /// Where it stands.
    pub state: VerifyState,
    /// What it reads now: `tapes`, `blocks` or `records`.
    pub what: String,
    /// Bytes (of blocks: rows) read of it.
    pub done: u64,
    /// Bytes (of blocks: rows) there are of it.
    pub total: u64,
    /// How many places are damaged.
    pub damaged: usize,
    /// How many findings there are.
    pub found: usize,
    /// The first of them.
    pub findings: Vec<FindingOut>,
    /// Why it was cut short.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What was found at a place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FindingOut {
    /// The file.
    pub file: String,
    /// The byte in it, where one can be named.
    pub offset: Option<u64>,
    /// `healed`, `cut` or `damage`.
    pub severity: String,
    /// What was found, for people.
    pub what: String,
}

impl From<&Finding> for FindingOut {
    fn from(finding: &Finding) -> Self {
        let severity = match finding.severity {
            Severity::Healed => "healed",
            Severity::Cut => "cut",
            Severity::Damage => "damage",
        };
        Self {
            file: finding.file.display().to_string(),
            offset: finding.offset,
            severity: severity.to_owned(),
            what: finding.what.clone(),
        }
    }
}

impl FindingOut {
    /// Whether what was stored cannot be read as it was written.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        self.severity == "damage"
    }
}

/// The routes. `stop` ends a walk that still runs.
pub(super) fn routes(backend: Backend, stop: CancellationToken) -> Router<Arc<Gate>> {
    let verifier = Arc::new(Verifier { backend, stop, last: Arc::default() });
    Router::new().route("/admin/verify", get(progress).post(begin).with_state(verifier))
}

struct Verifier {
    backend: Backend,
    stop: CancellationToken,
    last: Arc<Mutex<Option<VerifyOut>>>,
}

async fn begin(State(verifier): State<Arc<Verifier>>) -> ApiResult<(StatusCode, Json<VerifyOut>)> {
    let Backend::Embedded(store) = verifier.backend.clone() else {
        let message = "what is in the database is verified by the database: nodetool verify and repair";
        return Err(ApiError::bad_request(message).with("reason", "database"));
    };
    let begun = begun(&mut verifier.last.lock())?;
    let last = Arc::clone(&verifier.last);
    let stop = verifier.stop.clone();
    tokio::spawn(async move {
        let progress = Arc::clone(&last);
        let walk = store.verify(move |at| {
            if let Some(walk) = progress.lock().as_mut() {
                advance(walk, &at);
            }
        });
        let Some(result) = stop.run_until_cancelled(walk).await else { return };
        if let Some(walk) = last.lock().as_mut() {
            end(walk, result);
        }
    });
    Ok((StatusCode::ACCEPTED, Json(begun)))
}

async fn progress(State(verifier): State<Arc<Verifier>>) -> ApiResult<Json<VerifyOut>> {
    let last = verifier.last.lock().clone();
    last.map(Json).ok_or_else(|| {
        ApiError::not_found("nothing was verified since the node was started").with("reason", "no_verify")
    })
}

/// A new walk in the place of the last, where that is over.
fn begun(last: &mut Option<VerifyOut>) -> ApiResult<VerifyOut> {
    if let Some(walk) = last.as_ref().filter(|walk| walk.state == VerifyState::Running) {
        let error = ApiError::new(StatusCode::CONFLICT, "everything stored is being verified already");
        let error = error.with("reason", "verify_runs").with("what", walk.what.as_str());
        return Err(error.with("done", walk.done).with("total", walk.total));
    }
    let id = last.as_ref().map_or(0, |walk| walk.id) + 1;
    Ok(last.insert(VerifyOut { id, what: "tapes".to_owned(), ..VerifyOut::default() }).clone())
}

fn advance(walk: &mut VerifyOut, at: &Progress) {
    if walk.what != at.what {
        at.what.clone_into(&mut walk.what);
    }
    (walk.done, walk.total) = (at.done_bytes, at.total_bytes);
}

fn end(walk: &mut VerifyOut, result: Result<Vec<Finding>, StoreError>) {
    match result {
        Ok(findings) => {
            walk.state = VerifyState::Done;
            walk.found = findings.len();
            walk.damaged = findings.iter().filter(|finding| finding.severity == Severity::Damage).count();
            walk.findings = findings.iter().take(FINDINGS_MAX).map(FindingOut::from).collect();
        }
        Err(error) => {
            tracing::warn!(%error, "what is stored could not be verified");
            (walk.state, walk.error) = (VerifyState::Failed, Some(error.to_string()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(severity: Severity) -> Finding {
        Finding { file: "x".into(), offset: Some(7), severity, what: "is bad".to_owned() }
    }

    #[test]
    fn one_walk_runs_at_a_time_and_tells_how_far_it_is() {
        let mut last = None;
        assert_eq!(begun(&mut last).unwrap().id, 1);
        let walk = last.as_mut().unwrap();
        advance(walk, &Progress { what: "blocks", done_bytes: 3, total_bytes: 9 });
        assert_eq!((walk.what.as_str(), walk.done, walk.total), ("blocks", 3, 9));
        let refused = begun(&mut last).unwrap_err();
        assert_eq!(refused.status(), StatusCode::CONFLICT);
        let walk = last.as_mut().unwrap();
        end(walk, Err(StoreError::unknown("cut short")));
        assert_eq!((walk.state, walk.error.is_some()), (VerifyState::Failed, true));
        assert_eq!(begun(&mut last).unwrap().id, 2);
    }

    #[test]
    fn what_is_found_is_counted_in_full_and_named_up_to_a_limit() {
        let mut walk = VerifyOut::default();
        let mut findings = vec![finding(Severity::Cut)];
        findings.extend((0..FINDINGS_MAX).map(|_| finding(Severity::Damage)));
        end(&mut walk, Ok(findings));
        assert_eq!(
            (walk.state, walk.found, walk.damaged),
            (VerifyState::Done, FINDINGS_MAX + 1, FINDINGS_MAX)
        );
        assert_eq!(walk.findings.len(), FINDINGS_MAX);
        assert!(!walk.findings[0].is_damage() && walk.findings[1].is_damage());
    }
}
