//! Real nodes through their public door: crashes, retries, cut answers, overload,
//! corruption, full disks, and every error of the wire's table.
#![expect(
    clippy::panic,
    clippy::expect_used,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "tests say why they fail, and their helpers are no public API"
)]

mod admin;
mod boot;
mod clocks;
mod damage;
mod errors;
mod folder;
mod latest;
mod ledger;
mod node;
mod overload;
mod producers;
mod proxy;
mod retention;
mod retries;
mod stack;
mod streams;
mod subscriber;
mod tls;
