//! The admin door: health, metrics, keys, audit.
//!
//! Health and metrics are for whoever reaches the door, and so is the proof that this is the node
//! whose token the asker has (`/identity`): the token is not sent to whoever else took the port. What is under `/admin`, and [`STATUS`], needs the token
//! of this boot (`Authorization: Bearer`, from the node file in the data folder, which its owner
//! alone can read) or a key with the scope `admin`: on a shared machine, and for web pages that
//! make a browser call loopback addresses, an open port would be no door at all.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, Path, RawQuery, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Extension, Json, Router};
use bytes::Bytes;
use secrecy::ExposeSecret as _;
use subtle::ConstantTimeEq as _;

use super::Gate;
use super::auth::{self, Shown};
use super::error::{ApiError, ApiResult};
use super::params::{self, Params};
use super::types::{AuditOut, KeyIn, KeyOut, KeysOut, ReadyOut, RotateIn, from_json};
use crate::access::{Actor, Scope};
use crate::market::Nanos;

/// Entries of the audit in one answer.
const AUDIT_ENTRIES_MAX: usize = 1_000;
/// What the node answers of its tapes: names of other nodes, and so not for everybody.
pub const STATUS: &str = "/v1/status";
/// The longest nonce of `/identity`.
const NONCE_BYTES_MAX: usize = 64;

/// The routes of the admin door.
pub(super) fn routes() -> Router<Arc<Gate>> {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/identity", get(identity))
        .route("/admin/keys", get(list_keys).post(create_key))
        .route("/admin/keys/{id}", delete(revoke_key))
        .route("/admin/keys/{id}/rotate", post(rotate_key))
        .route("/admin/audit", get(audit))
}

/// Lets the operator and keys with the scope `admin` to `/admin`, and leaves the [`Actor`].
pub(super) fn identify(gate: &Gate, request: &mut Request, request_id: &str) -> ApiResult<()> {
    let path = request.uri().path();
    if !path.starts_with("/admin") && path != STATUS {
        return Ok(());
    }
    let from = request.extensions().get::<ConnectInfo<SocketAddr>>();
    let from = from.map_or_else(|| "local".to_owned(), |info| info.0.ip().to_string());
    let who = match Shown::of(request.headers()) {
        Shown::Token(token) => {
            let expected = gate.admin_token.expose_secret().as_bytes();
            if !bool::from(token.as_bytes().ct_eq(expected)) {
                return Err(unauthorized());
            }
            "operator".to_owned()
        }
        Shown::Key { id, secret } => match gate.keys.admit(&id, &secret, (gate.clock)()) {
            Ok((_, allowance)) if !allowance.admits() => {
                return Err(auth::too_many(allowance.retry_after_s.unwrap_or(1)));
            }
            Ok((identity, _)) if identity.may(Scope::Admin) => identity.key_id.clone(),
            Ok(_) => return Err(auth::without_scope(Scope::Admin)),
            Err(_) => return Err(unauthorized()),
        },
        Shown::Nothing | Shown::Malformed => return Err(unauthorized()),
    };
    request.extensions_mut().insert(Actor { who, from, request: request_id.to_owned() });
    Ok(())
}

fn unauthorized() -> ApiError {
    auth::unauthorized("/admin")
        .with("expected", "the token in the node file of the data folder, or a key with the scope admin")
}

/// The process runs and answers.
async fn livez() -> Response {
    Json(serde_json::json!({"status": "ok"})).into_response()
}

/// Whether the node may be given requests, and why not.
async fn readyz(State(gate): State<Arc<Gate>>) -> Response {
    let report = gate.health.report();
    let status = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut response = (status, Json(ReadyOut::from(report))).into_response();
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(header::RETRY_AFTER, 1.into());
    }
    response
}

async fn metrics(State(gate): State<Arc<Gate>>) -> ApiResult<Response> {
    let text = gate.metrics.text().map_err(|error| ApiError::internal(&error.to_string()))?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response())
}

/// `nonce`: random, so that an old answer proves nothing.
async fn identity(State(gate): State<Arc<Gate>>, RawQuery(query): RawQuery) -> ApiResult<Response> {
    let query = Params::decode(query.as_deref())?;
    query.only(&["nonce"])?;
    let nonce = query.required("nonce", "random characters")?;
    if nonce.len() > NONCE_BYTES_MAX {
        return Err(ApiError::bad_field("nonce", nonce, format!("at most {NONCE_BYTES_MAX} characters")));
    }
    let proof = identity_proof(gate.admin_token.expose_secret(), nonce);
    Ok(Json(serde_json::json!({"proof": proof})).into_response())
}

/// What `GET /identity?nonce=…` answers as `proof`: only who has the token can make it, and it
/// does not tell the token.
#[must_use]
pub fn identity_proof(token: &str, nonce: &str) -> String {
    let key = blake3::derive_key("tapeline admin door identity v1", token.as_bytes());
    blake3::keyed_hash(&key, nonce.as_bytes()).to_hex().to_string()
}

async fn list_keys(State(gate): State<Arc<Gate>>) -> Json<KeysOut> {
    Json(KeysOut { keys: gate.keys.list().iter().map(KeyOut::from).collect() })
}

async fn create_key(
    State(gate): State<Arc<Gate>>,
    Extension(by): Extension<Actor>,
    body: Bytes,
) -> ApiResult<(StatusCode, Json<KeyOut>)> {
    let ask = from_json::<KeyIn>(&body)?.to_ask()?;
    let new = gate.keys.create(ask, &by, (gate.clock)()).await?;
    Ok((StatusCode::CREATED, Json(KeyOut::from(&new))))
}

async fn revoke_key(
    State(gate): State<Arc<Gate>>,
    Extension(by): Extension<Actor>,
    Path(id): Path<String>,
) -> ApiResult<Json<KeyOut>> {
    Ok(Json(KeyOut::from(&gate.keys.revoke(&id, &by, (gate.clock)()).await?)))
}

async fn rotate_key(
    State(gate): State<Arc<Gate>>,
    Extension(by): Extension<Actor>,
    Path(id): Path<String>,
    body: Bytes,
) -> ApiResult<(StatusCode, Json<KeyOut>)> {
    let ask: RotateIn = if body.is_empty() { RotateIn::default() } else { from_json(&body)? };
    let new = gate.keys.rotate(&id, ask.grace_ms, &by, (gate.clock)()).await?;
    Ok((StatusCode::CREATED, Json(KeyOut::from(&new))))
}

/// `day`: `YYYY-MM-DD` in UTC, else today; `after`: the key of the last entry seen.
async fn audit(State(gate): State<Arc<Gate>>, RawQuery(query): RawQuery) -> ApiResult<Json<AuditOut>> {
    let query = Params::decode(query.as_deref())?;
    query.only(&["day", "after"])?;
    let day = query.get("day").map_or_else(|| day_of((gate.clock)()), str::to_owned);
    if params::day(&day).is_none() {
        return Err(ApiError::bad_field("day", &day, "a day such as 2024-01-03"));
    }
    let entries = gate.audit.list(&day, query.get("after"), AUDIT_ENTRIES_MAX).await?;
    Ok(Json(AuditOut { entries: entries.into_iter().map(Into::into).collect() }))
}

fn day_of(time: Nanos) -> String {
    chrono::DateTime::from_timestamp_nanos(time.0).format("%Y-%m-%d").to_string()
}
