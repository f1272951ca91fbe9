//! The subcommands.

pub mod client;
pub mod files;
mod progress;
pub mod posting;
pub mod import;
pub mod replay;
pub mod query;
#[cfg(test)]
mod stub;
