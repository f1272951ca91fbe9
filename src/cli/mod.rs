//! The subcommands.

pub mod client;
pub mod files;
mod progress;
