//! API keys, accounts, scopes, rate limits, audit.

mod keys;
mod limits;

pub use keys::{Denied, Identity, Scope};
pub use limits::Allowance;
