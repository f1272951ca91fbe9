//! Both formats together: round trips, golden bytes, refusals, bodies, and serde_json as the judge.

mod strategies;
mod golden;
mod refusals;
mod bodies;
mod differential;

use super::{Verdict, json, msgpack};

/// Deep enough for every test.
const DEPTH: usize = 32;

fn from_json(text: &str) -> Verdict {
    json::read_tick(text.as_bytes(), DEPTH).unwrap_or_else(|malformed| panic!("{malformed} in {text}"))
}

fn from_msgpack(bytes: &[u8]) -> Verdict {
    msgpack::read_tick(bytes, DEPTH).unwrap_or_else(|malformed| panic!("{malformed} in {bytes:02x?}"))
}
