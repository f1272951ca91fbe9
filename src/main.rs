//! The `tapeline` binary.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::anyhow;
use clap::Parser as _;
use tapeline::cli::{self, Cli, CliError};

/// Of an error that says no other.
const FAILED: u8 = 1;

fn main() -> ExitCode {
    let Err(error) = run() else { return ExitCode::SUCCESS };
    let code = error.downcast_ref::<CliError>().map_or(FAILED, CliError::code);
    // Where standard error is closed there is nobody left to tell.
    let _ = writeln!(std::io::stderr(), "tapeline: {error:#}");
    ExitCode::from(code)
}

fn run() -> anyhow::Result<()> {
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| anyhow!("another TLS provider is installed already"))?;
    Ok(cli::run(Cli::parse())?)
}
