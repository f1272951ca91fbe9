//! Load on a node, measured beside peers on the same machine.
//!
//! `loadtest live` starts a node of the release binary on one core and, from the other, holds
//! thousands of WebSocket clients in one thread, posts ticks at scheduled instants, and counts
//! what each client got: every tick carries its number as the trade's id. Latencies are taken
//! from the scheduled instant (open loop), never from when the generator came to send. In the
//! same run it measures what the machine gives to others: Redis pub/sub, a bare loop of
//! `send(2)`, `fdatasync`, nginx with a static file.
//!
//! - [`connection`], [`readers`]: the clients: one epoll loop, no allocation a message, so that the
//!   generator is not the bottleneck; beside each figure stands what the generator itself could take.
//! - [`ledger`]: loss, duplicates and order, exactly, a client.
//! - [`publish`]: who publishes: to a node by `POST /v1/ticks`, to Redis by `PUBLISH`.
//! - [`floor`]: the bare loop, a process of its own. It speaks the stream's handshake, so that its
//!   clients are the same ones, and can drop and repeat, to show that the ledger notices.
//! - [`feed`]: a plain server over Redis, the peer of feeds.
//! - [`rows`], [`report`]: the table.
//! - [`scaled`], with [`database`] and [`work`]: `loadtest cassandra`, a node over a real Cassandra beside raw
//!   loops of the same driver over the same one.
//! - [`churn`], with [`followers`], [`transcript`] and [`stubborn`], and [`storm`]: profiles in which no
//!   time counts: clients that come and go, a node that is killed, and at the end what each has.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a program that prints figures, which are averages"
)]

mod churn;
mod closed;
mod connection;
mod database;
mod feed;
mod floor;
mod followers;
mod ledger;
mod live;
mod node;
mod peers;
mod progress;
mod publish;
mod random;
mod readers;
mod report;
mod rows;
mod scaled;
mod storm;
mod stubborn;
mod system;
mod transcript;
mod wire;
mod work;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "loadtest", about = "Load on a node, beside peers on the same machine")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure a node that this program starts, and its peers
    Live(live::LiveArgs),
    /// Measure a node over a Cassandra that this program starts, beside raw loops of the driver
    Cassandra(scaled::ScaledArgs),
    /// The bare loop of send(2): a server of its own that publishes when told on standard input
    FloorSend(floor::FloorArgs),
    /// A plain server that answers feeds by Redis
    #[command(hide = true)]
    FloorFeed(feed::FeedArgs),
}

fn main() -> anyhow::Result<()> {
    match Args::parse().command {
        Command::Live(args) => live::run(&args),
        Command::Cassandra(args) => scaled::run(&args),
        Command::FloorSend(args) => floor::run(&args),
        Command::FloorFeed(args) => feed::run(&args),
    }
}
