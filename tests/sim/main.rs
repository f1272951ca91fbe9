//! The simulator: the real state machines of the tape, under everything that can go wrong.
//!
//! ```text
//! cargo test --test sim -- --seeds 200 --base 0             the whole battery
//! cargo test --test sim -- --seeds 40 --mutant no_recover   one broken rule: it must be found
//! cargo test --test sim -- --seed 17                        one schedule again
//! ```
//! One process, virtual milliseconds. Two regions with three replicas and two nodes each, and in
//! some schedules one node with one disk. A seed gives one schedule.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::too_many_lines,
    clippy::needless_pass_by_value,
    missing_docs,
    unreachable_pub,
    reason = "a test: a wrong index or a failed unwrap ends it with a message"
)]

mod checks;
mod client;
mod fold;
mod harness;
mod mutants;
mod node;
mod rng;
mod schedule;
mod store;
mod world;

fn main() -> std::process::ExitCode {
    match harness::Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => harness::run(&arguments),
        Err(what) => {
            println!("{what}");
            std::process::ExitCode::FAILURE
        }
    }
}
