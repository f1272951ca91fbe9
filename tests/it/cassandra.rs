//! The same real nodes over a real Cassandra: crashes, retries, cut answers, overload, streams.
#![expect(
    clippy::panic,
    clippy::expect_used,
    clippy::indexing_slicing,
    unreachable_pub,
    dead_code,
    reason = "tests say why they fail, and their helpers are no public API; some are used over a folder alone"
)]

mod boot;
mod clocks;
mod cluster;
mod errors;
mod latest;
mod ledger;
mod node;
mod overload;
mod producers;
mod proxy;
mod redis_server;
mod region;
mod regions;
mod retries;
#[path = "stack_cassandra.rs"]
mod stack;
mod streams;
mod subscriber;
