//! A key as it is stored: JSON, sealed.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::market::Nanos;

/// What a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// `ticks:write`: post ticks.
    TicksWrite,
    /// `md:read`: read market data.
    MarketDataRead,
    /// `admin`: manage keys, read the audit.
    Admin,
}

/// The text is no scope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no scope: expected ticks:write, md:read or admin")]
pub struct ScopeError(String);

impl Scope {
    /// All scopes.
    pub const ALL: [Self; 3] = [Self::TicksWrite, Self::MarketDataRead, Self::Admin];

    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TicksWrite => "ticks:write",
            Self::MarketDataRead => "md:read",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Scope {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, ScopeError> {
        Self::ALL.into_iter().find(|scope| scope.name() == text).ok_or_else(|| ScopeError(text.to_owned()))
    }
}

/// What is asked of a new key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyAsk {
    /// A text for people, at most 100 characters.
    pub label: String,
    /// What it may do; at least one.
    pub scopes: Vec<Scope>,
    /// The account it belongs to; none: a new one.
    pub account: Option<String>,
    /// Requests a minute, where it is not `access.requests_per_minute`.
    pub requests_per_minute: Option<u32>,
    /// When it ends.
    pub expires: Option<Nanos>,
}

/// A key without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRow {
    /// The id.
    pub id: String,
    /// The account.
    pub account: String,
    /// A text for people.
    pub label: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// Requests a minute, where it is not the configured number.
    pub requests_per_minute: Option<u32>,
    /// When it was made.
    pub created: Nanos,
    /// When it ends.
    pub expires: Option<Nanos>,
    /// When it was revoked.
    pub revoked: Option<Nanos>,
    /// The hash of the secret.
    pub(super) hash: [u8; 32],
}

impl KeyRow {
    /// Whether it is good at this time.
    #[must_use]
    pub fn is_live(&self, now: Nanos) -> bool {
        self.revoked.is_none() && self.expires.is_none_or(|end| now < end)
    }

    pub(super) fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(&Stored {
            v: 1,
            account: self.account.clone(),
            label: self.label.clone(),
            scopes: self.scopes.iter().map(|scope| scope.name().to_owned()).collect(),
            requests_per_minute: self.requests_per_minute,
            created: self.created.0,
            expires: self.expires.map(|time| time.0),
            revoked: self.revoked.map(|time| time.0),
            hash: self.hash,
        })
    }

    /// Scopes that a newer version knows and this one does not are left out: the key may less.
    pub(super) fn decode(id: &str, body: &[u8]) -> Result<Self, String> {
        let stored: Stored = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        if stored.v != 1 {
            return Err(format!("version {}, this program reads version 1", stored.v));
        }
        Ok(Self {
            id: id.to_owned(),
            account: stored.account,
            label: stored.label,
            scopes: stored.scopes.iter().filter_map(|name| name.parse().ok()).collect(),
            requests_per_minute: stored.requests_per_minute,
            created: Nanos(stored.created),
            expires: stored.expires.map(Nanos),
            revoked: stored.revoked.map(Nanos),
            hash: stored.hash,
        })
    }
}

#[derive(Serialize, Deserialize)]
struct Stored {
    v: u32,
    account: String,
    label: String,
    scopes: Vec<String>,
    requests_per_minute: Option<u32>,
    created: i64,
    expires: Option<i64>,
    revoked: Option<i64>,
    hash: [u8; 32],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_golden_row() {
        let row = KeyRow {
            id: "TLXXXXXXXXXXXXXXXXXX".to_owned(),
            account: "TAYYYYYYYYYYYYYYYYYY".to_owned(),
            label: "feed A".to_owned(),
            scopes: vec![Scope::TicksWrite],
            requests_per_minute: Some(600),
            created: Nanos(1_704_292_200_500_000_000),
            expires: None,
            revoked: Some(Nanos(1_704_292_201_500_000_000)),
            hash: [7; 32],
        };
        assert_eq!(row.encode().unwrap(), crate::market::golden::text("record-key").as_bytes());
    }

    #[test]
    fn a_row_reads_back_and_another_version_is_named() {
        let row = KeyRow {
            id: "TLX".to_owned(),
            account: "TAX".to_owned(),
            label: "räw \"label\"".to_owned(),
            scopes: vec![Scope::TicksWrite, Scope::MarketDataRead],
            requests_per_minute: Some(5),
            created: Nanos(1),
            expires: Some(Nanos(10)),
            revoked: None,
            hash: [7; 32],
        };
        let body = row.encode().unwrap();
        assert_eq!(KeyRow::decode("TLX", &body).as_ref(), Ok(&row));
        assert!(row.is_live(Nanos(9)) && !row.is_live(Nanos(10)));
        let newer = String::from_utf8(body).unwrap().replace("\"v\":1", "\"v\":2");
        assert!(KeyRow::decode("TLX", newer.as_bytes()).unwrap_err().contains("version 2"));
    }

    #[test]
    fn scopes_are_read_by_name() {
        for scope in Scope::ALL {
            assert_eq!(scope.name().parse(), Ok(scope));
        }
        let error = "md:write".parse::<Scope>().unwrap_err();
        assert_eq!(error.to_string(), "\"md:write\" is no scope: expected ticks:write, md:read or admin");
    }
}
