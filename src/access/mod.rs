//! API keys, accounts, scopes, rate limits, tickets, audit.
//!
//! A key is a public id (`TL` and 18 characters of base32) and a secret of 256 random bits,
//! told when it is made. Stored is a hash of the secret; slow hashing would guard nothing, for the
//! secret cannot be guessed, and would be a lever to overload the node. A key belongs to an
//! account, which outlives it: rotation makes another key of the same account, and producers
//! keep their identity.
//!
//! All keys are in memory (some 500 bytes each, at most `access.keys_max`). [`Keys::admit`]
//! does no I/O. They are read again each `access.refresh_ms`; what this process changes takes
//! effect at once. Rows are only ever put, a revocation included, so none can be lost to a race.
//! Each change is written to the audit before it is made: an entry without its change can
//! be, a change without its entry cannot.

mod audit;
mod keys;
mod limits;
mod region_rate;
mod row;
mod secret;
pub(crate) mod tickets;
#[cfg(test)]
pub(crate) mod testing;

pub use audit::{Actor, Audit, Entry};
pub use keys::{AccessError, Denied, Identity, Keys, NewKey};
pub use limits::{Allowance, MonoClock, SourceLimiter};
pub use region_rate::share;
pub use row::{KeyAsk, KeyRow, Scope};
pub use tickets::{Ticket, TicketError, Tickets};
