//! Keys and who holds them.

use std::fmt;

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

/// Who makes a request: the outcome of a key that was shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The account, which outlives the rotation of its keys.
    pub account: String,
    /// The key's id.
    pub key_id: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
}

impl Identity {
    /// Whether it may do this.
    #[must_use]
    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope)
    }
}

/// The key shown is not good: unknown, wrong secret, revoked or expired. Which of them is
/// not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the key is unknown, revoked, or its secret is wrong")]
pub struct Denied;
