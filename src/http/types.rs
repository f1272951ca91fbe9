//! The public JSON other than ticks. The command line reads the same types.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::error::{ApiError, ApiResult};
use crate::access::{self, KeyAsk, KeyRow, NewKey};
use crate::market::Nanos;
use crate::telemetry::Report;

/// Body of `POST /admin/keys`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyIn {
    /// A text for people.
    #[serde(default)]
    pub label: String,
    /// Scopes by name.
    pub scopes: Vec<String>,
    /// The account; none: a new one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// Requests a minute; none: as configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<u32>,
    /// When it ends, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
}

/// Body of `POST /admin/keys/{id}/rotate`.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RotateIn {
    /// How long the old key goes on.
    #[serde(default)]
    pub grace_ms: u64,
}

/// A key without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyOut {
    /// The id.
    pub id: String,
    /// The account.
    pub account: String,
    /// A text for people.
    pub label: String,
    /// Scopes by name.
    pub scopes: Vec<String>,
    /// Requests a minute; null: as configured.
    pub requests_per_minute: Option<u32>,
    /// When it was made, RFC 3339.
    pub created: String,
    /// When it ends.
    pub expires: Option<String>,
    /// When it was revoked.
    pub revoked: Option<String>,
    /// The secret, in the answer that made the key and nowhere else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}

/// Answer of `GET /admin/keys`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeysOut {
    /// The keys, oldest first.
    pub keys: Vec<KeyOut>,
}

/// One entry of the audit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntryOut {
    /// Its key, for `after`.
    pub key: String,
    /// When, RFC 3339.
    pub at: String,
    /// A key's id, `node` or `operator`.
    pub who: String,
    /// An address, or `local`.
    pub from: String,
    /// The request's id.
    pub request_id: String,
    /// What was done.
    pub action: String,
    /// To what.
    pub target: String,
    /// More about it.
    pub detail: String,
}

/// Answer of `GET /admin/audit`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditOut {
    /// The entries of the day, oldest first.
    pub entries: Vec<AuditEntryOut>,
}

/// Answer of `GET /readyz`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadyOut {
    /// `ready` or `not ready`.
    pub status: String,
    /// Each check.
    pub checks: Vec<CheckOut>,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckOut {
    /// Its name.
    pub name: String,
    /// `ok`, `warn` or `fail`.
    pub status: String,
    /// Why.
    pub reason: String,
}

/// Reads a body of JSON; an error names line, column and what was expected.
///
/// # Errors
/// 400.
pub fn from_json<T: DeserializeOwned>(body: &[u8]) -> ApiResult<T> {
    serde_json::from_slice(body).map_err(|error| {
        ApiError::bad_request(format!("the body is not the JSON expected: {error}")).with("reason", "json")
    })
}

impl KeyIn {
    /// The ask, with scopes and time read.
    ///
    /// # Errors
    /// 400 that names the field.
    pub fn to_ask(&self) -> ApiResult<KeyAsk> {
        let scopes: Result<Vec<_>, ApiError> = self
            .scopes
            .iter()
            .map(|name| {
                name.parse().map_err(|_| ApiError::bad_field("scopes", name, "ticks:write, md:read or admin"))
            })
            .collect();
        let expires = self.expires.as_ref().map(|text| {
            Nanos::parse(text.as_bytes()).map_err(|error| {
                ApiError::bad_field("expires", text, error.to_string().trim_start_matches("is not "))
            })
        });
        Ok(KeyAsk {
            label: self.label.clone(),
            scopes: scopes?,
            account: self.account.clone(),
            requests_per_minute: self.requests_per_minute,
            expires: expires.transpose()?,
        })
    }
}

impl From<&KeyRow> for KeyOut {
    fn from(row: &KeyRow) -> Self {
        Self {
            id: row.id.clone(),
            account: row.account.clone(),
            label: row.label.clone(),
            scopes: row.scopes.iter().map(|scope| scope.name().to_owned()).collect(),
            requests_per_minute: row.requests_per_minute,
            created: time(row.created),
            expires: row.expires.map(time),
            revoked: row.revoked.map(time),
            secret: None,
        }
    }
}

impl From<&NewKey> for KeyOut {
    fn from(new: &NewKey) -> Self {
        let secret = secrecy::ExposeSecret::expose_secret(&new.secret);
        Self { secret: Some(secret.to_owned()), ..Self::from(&new.row) }
    }
}

impl From<(String, access::Entry)> for AuditEntryOut {
    fn from((key, entry): (String, access::Entry)) -> Self {
        Self {
            key,
            at: time(Nanos(entry.at)),
            who: entry.who,
            from: entry.from,
            request_id: entry.request,
            action: entry.action,
            target: entry.target,
            detail: entry.detail,
        }
    }
}

impl From<Report> for ReadyOut {
    fn from(report: Report) -> Self {
        let checks = report.checks.into_iter().map(|check| CheckOut {
            name: check.name.to_owned(),
            status: check.status.name().to_owned(),
            reason: check.reason,
        });
        let status = if report.ready { "ready" } else { "not ready" };
        Self { status: status.to_owned(), checks: checks.collect() }
    }
}

fn time(time: Nanos) -> String {
    let mut text = Vec::new();
    time.write(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}
