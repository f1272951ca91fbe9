//! Verdicts on ticks, and acceptance of requests.
