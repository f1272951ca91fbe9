//! `tapeline migrate`: the tables of the scaled store.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::progress::Progress;
use super::{CliError, NodeArgs, print};
use crate::config::{Backend, Config};
use crate::market::Nanos;
use crate::node::backends;
use crate::store::StoreErrorKind;
use crate::store::cassandra::{Schema, Standing, Step};

/// Make or change the tables of a cluster (store.backend = "cassandra")
///
/// Run it once for each region, before nodes of a new version start there. Any number of them may run
/// at once: one applies, the others wait for it.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  tapeline migrate status --config region.toml
  tapeline migrate plan --config region.toml > for-review.cql
  tapeline migrate apply --config region.toml")]
pub(super) struct MigrateArgs {
    #[command(subcommand)]
    command: MigrateCommand,
    #[command(flatten)]
    node: NodeArgs,
}

#[derive(Clone, Debug, Subcommand)]
enum MigrateCommand {
    /// Print the statements that apply would run, and run none
    Plan,
    /// Apply what is pending
    Apply {
        /// How long to wait for another node that applies
        #[arg(long, value_name = "S", default_value_t = 300)]
        wait_s: u64,
    },
    /// List the migrations, and how each stands
    Status,
}

/// Runs `tapeline migrate`.
pub(super) async fn run(args: MigrateArgs) -> Result<(), CliError> {
    let config = args.node.load()?.config;
    let schema = connected(&config).await?;
    let failed = |error: crate::store::StoreError| CliError::failed(error.to_string());
    match args.command {
        MigrateCommand::Plan => {
            let pending = schema.status().await.map_err(failed)?;
            let pending: Vec<Step> =
                pending.into_iter().filter(|step| step.standing == Standing::Pending).collect();
            print(&planned(&schema.foundations(), &pending))
        }
        MigrateCommand::Status => print(&listed(&schema.status().await.map_err(failed)?)),
        MigrateCommand::Apply { wait_s } => {
            let progress = Progress::new("migrating", "migrations", None);
            let telling = |step: &Step| progress.note(&format!("applying {}", named(step)));
            let applied = schema.apply(Duration::from_secs(wait_s), telling).await;
            progress.finish();
            let applied = applied.map_err(failed)?;
            print(&format!("{applied} applied\n{}", listed(&schema.status().await.map_err(failed)?)))
        }
    }
}

async fn connected(config: &Config) -> Result<Schema, CliError> {
    if config.store.backend != Backend::Cassandra {
        return Err(CliError::usage("store.backend is \"embedded\", which has no tables")
            .next("set store.backend = \"cassandra\" and the section cassandra: `tapeline config --defaults` explains it"));
    }
    let options = backends::cassandra(config).map_err(|error| CliError::failed(error.to_string()))?;
    Schema::connect(&options).await.map_err(|error| {
        let next = match error.kind {
            StoreErrorKind::Invalid => "the database says which datacenters it has: nodetool status",
            _ => "check cassandra.nodes, user and password, and whether the database runs",
        };
        CliError::failed(error.to_string()).next(next)
    })
}

fn named(step: &Step) -> String {
    format!("{:04}_{} ({})", step.number, step.name, step.scope)
}

fn listed(steps: &[Step]) -> String {
    let line = |step: &Step| {
        let standing = match &step.standing {
            Standing::Pending => "pending".to_owned(),
            Standing::Applied { at } => format!("applied {}", time(*at)),
            Standing::Changed { applied } => {
                format!("applied from another text: {applied}, this program has {}", step.checksum)
            }
            Standing::Unknown => {
                format!("applied by a newer program, for those that know {:04}", step.readers)
            }
        };
        format!("{:<32} {standing}\n", named(step))
    };
    steps.iter().map(line).collect()
}

fn time(at: Nanos) -> String {
    let mut text = Vec::new();
    // To the second.
    Nanos(at.0 - at.0.rem_euclid(Nanos::SECOND)).write(&mut text);
    String::from_utf8(text).unwrap_or_default()
}

fn planned(foundations: &[String], pending: &[Step]) -> String {
    let mut text = String::new();
    if pending.is_empty() {
        return "-- nothing is pending\n".to_owned();
    }
    text.push_str("-- what migrations stand on\n");
    for statement in foundations {
        text.push_str(&format!("{statement};\n"));
    }
    for step in pending {
        text.push_str(&format!("\n-- {}, {}\n", named(step), step.checksum));
        for statement in &step.statements {
            text.push_str(&format!("{statement};\n"));
        }
    }
    text
}
