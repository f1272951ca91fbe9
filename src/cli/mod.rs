//! The subcommands. `serve`, `demo` and `verify` are the node itself; `import`, `replay`,
//! `query`, `tail` and, where a node runs, `keys` are clients of its HTTP doors.
//!
//! What a subcommand prints for use goes to standard output and nothing else does: logs,
//! progress and errors go to standard error. An error says what happened and what to do next.
//! Exit codes: 0 done, 1 failed, 2 wrong use or configuration.

mod args;
mod node_file;
mod admin;
mod config;
mod serve;
mod demo;
mod verify;
mod migrate;
mod cert;
mod keys;
mod client;
mod progress;
mod files;
mod posting;
mod import;
mod replay;
mod query;
mod tail;
#[cfg(test)]
mod stub;

use std::fmt;
use std::io::{self, Write as _};
use std::time::Duration;

use clap::{Parser, Subcommand};

pub use args::{AdminArgs, Client, ClientArgs, DemoArgs, NodeArgs, ServeArgs, Use, VerifyArgs};
pub use node_file::{KeyPair, NodeFile, ReadyKeys};

use crate::access::AccessError;
use crate::config::ConfigError;

/// How long threads that are at work may hold up the end of the process.
const THREADS_END_WITHIN: Duration = Duration::from_secs(2);

/// The command line.
#[derive(Debug, Parser)]
#[command(name = "tapeline", version, about, max_term_width = 100, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node until it is told to stop
    Serve(ServeArgs),
    /// Run a node with a synthetic market, live
    Demo(DemoArgs),
    /// Walk what is stored and name what is damaged
    Verify(VerifyArgs),
    Migrate(migrate::MigrateArgs),
    Import(import::ImportArgs),
    Replay(replay::ReplayArgs),
    Query(query::QueryArgs),
    Tail(tail::TailArgs),
    /// Make, list, revoke and rotate API keys
    Keys(keys::KeysArgs),
    Cert(cert::CertArgs),
    /// Print the configuration in effect, and where each value came from
    Config(config::ConfigArgs),
}

/// Why a subcommand failed, and what to do next.
#[derive(Debug)]
pub struct CliError {
    message: String,
    next: Option<String>,
    code: u8,
}

impl CliError {
    /// It failed: exit code 1.
    #[must_use]
    pub fn failed(message: impl Into<String>) -> Self {
        Self { message: message.into(), next: None, code: 1 }
    }

    /// It was asked wrongly: exit code 2.
    #[must_use]
    pub fn usage(message: impl Into<String>) -> Self {
        Self { code: 2, ..Self::failed(message) }
    }

    /// What to do next.
    #[must_use]
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    /// The exit code.
    #[must_use]
    pub const fn code(&self) -> u8 {
        self.code
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.next {
            Some(next) => write!(f, "\n  {next}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for CliError {}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> Self {
        Self::usage(error.to_string())
            .next("`tapeline config` prints every key; config.default.toml says what each is for")
    }
}

impl From<AccessError> for CliError {
    fn from(error: AccessError) -> Self {
        Self::failed(error.to_string())
    }
}

impl From<io::Error> for CliError {
    fn from(error: io::Error) -> Self {
        Self::failed(error.to_string())
    }
}

/// Runs the command line.
///
/// # Errors
/// [`CliError`]
pub fn run(cli: Cli) -> Result<(), CliError> {
    match cli.command {
        Command::Serve(args) => block_on(serve::run(args)),
        Command::Demo(args) => block_on(demo::run(args)),
        Command::Verify(args) => block_on(verify::run(args)),
        Command::Migrate(args) => block_on(migrate::run(args)),
        Command::Import(args) => block_on(import::run(args)),
        Command::Replay(args) => block_on(replay::run(args)),
        Command::Query(args) => block_on(query::run(args)),
        Command::Tail(args) => block_on(tail::run(args)),
        Command::Keys(args) => block_on(keys::run(args)),
        Command::Cert(args) => cert::run(&args),
        Command::Config(args) => config::run(&args),
    }
}

/// Runs a future on a runtime of its own.
fn block_on(work: impl Future<Output = Result<(), CliError>>) -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(work);
    // What still reads or waits on a thread (a walk, an opening that was told to stop) holds up
    // the end no longer: all that had to be durable is.
    runtime.shutdown_timeout(THREADS_END_WITHIN);
    result
}

/// Writes to standard output. A reader that has had enough (such as `head`) is no error.
fn print(text: &str) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn every_subcommand_says_what_it_does_and_shows_an_example() {
        let command = Cli::command();
        command.clone().debug_assert();
        for sub in command.get_subcommands() {
            let name = sub.get_name();
            assert!(sub.get_about().is_some(), "{name} has no about");
            let after = sub.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(after.contains(&format!("tapeline {name}")), "{name} shows no example: {after}");
        }
    }

    #[test]
    fn the_examples_of_the_help_are_read_as_written() {
        let mut examples = 0;
        for sub in Cli::command().get_subcommands() {
            let after = sub.get_after_help().map(ToString::to_string).unwrap_or_default();
            for line in after.lines() {
                let Some(at) = line.find("tapeline ") else { continue };
                let words =
                    line[at..].split_whitespace().take_while(|word| !["#", ">", "|", "<"].contains(word));
                let words: Vec<&str> = words.collect();
                let read = Cli::try_parse_from(&words);
                assert!(read.is_ok(), "{line}: {}", read.unwrap_err());
                examples += 1;
            }
        }
        assert!(examples > 5, "{examples}");
    }

    #[test]
    fn an_error_says_what_to_do_next() {
        let error = CliError::from(ConfigError::NotAnAssignment { number: 1, key: None });
        assert_eq!(error.code(), 2);
        assert!(error.to_string().contains("tapeline config"), "{error}");
    }
}
