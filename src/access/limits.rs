//! Rate limits.

/// What is left of a rate limit: the figures of the `X-RateLimit-*` headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// Requests a minute.
    pub limit: u32,
    /// Requests that may be made now.
    pub remaining: u32,
    /// Seconds until all of them are there again.
    pub reset_s: u64,
    /// Seconds after which a refused request may come again; none where it was admitted.
    pub retry_after_s: Option<u64>,
}
