//! Tapeline accepts stock-market ticks, keeps every acknowledged one, and serves their
//! history and latest values.
//!
//! The order of the modules below is the data flow and the layering: a module
//! imports only from those before it. `tests/tidy.rs` reads this file and checks it.

pub mod market;
pub mod wire;
pub mod config;
pub mod telemetry;
pub mod seal;
pub mod store;
pub mod hot;
pub mod access;
pub mod tape;
pub mod bars;
pub mod history;
pub mod live;
pub mod subs;
pub mod ingest;
pub mod http;
pub mod node;
pub mod cli;
