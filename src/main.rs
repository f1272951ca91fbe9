//! The `tapeline` binary.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use tapeline::cli::{Cli, CliError, run};

fn main() -> ExitCode {
    let cli = Cli::parse();
    match start().and_then(|()| run(cli).map_err(anyhow::Error::from)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let code = error.downcast_ref::<CliError>().map_or(1, CliError::code);
            let _ =
                std::io::Write::write_all(&mut std::io::stderr(), format!("error: {error:#}\n").as_bytes());
            ExitCode::from(code)
        }
    }
}

/// What the process needs once: the one TLS stack.
fn start() -> anyhow::Result<()> {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.install_default().ok().context("another TLS provider was installed first")
}
