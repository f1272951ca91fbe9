//! What the admin door asks of the node itself.

use std::sync::Arc;

use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::http::{ApiResult, Gate};
use crate::store::embedded::{EmbeddedStore, Finding, Severity};

/// `POST /admin/verify`: reads everything stored, and names what is damaged.
pub(super) fn routes(store: Arc<EmbeddedStore>) -> Router<Arc<Gate>> {
    let verify = move || {
        let store = Arc::clone(&store);
        async move {
            let findings = store.verify(|_| {}).await?;
            ApiResult::Ok(Json(json!({"findings": findings.iter().map(finding).collect::<Vec<Value>>()})))
        }
    };
    Router::new().route("/admin/verify", post(verify))
}

fn finding(finding: &Finding) -> Value {
    json!({
        "file": finding.file.display().to_string(),
        "offset": finding.offset,
        "severity": match finding.severity {
            Severity::Healed => "healed",
            Severity::Cut => "cut",
            Severity::Damage => "damage",
        },
        "what": finding.what,
    })
}
