//! `tapeline import`: a file of ticks into history.

use std::io::Write;
use std::path::PathBuf;

use futures::StreamExt;

use super::client::{Connection, RETRY_S_DEFAULT};
use super::files::{FILES_HELP, FileArgs};
use super::posting::{PostError, Poster, Tally, batches, open};
use super::progress::Progress;
use super::{CliError, ClientArgs, Use};

/// Batches that are on their way at once, unless asked otherwise.
const IN_FLIGHT_DEFAULT: u16 = 4;
/// The most batches on their way at once.
const IN_FLIGHT_MAX: u16 = 64;

/// Import a file of ticks into history
///
/// Lines are posted by their numbers: an import that was interrupted is simply started again,
/// and a file that was imported or replayed before adds nothing. Ticks without an exchange's
/// number are known by the content of their file: an edited or grown file is another one. What
/// the node refuses is listed by line; the exit status is 1 where something was refused or could not be sent.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = help())]
pub(super) struct ImportArgs {
    #[command(flatten)]
    file: FileArgs,
    #[command(flatten)]
    client: ClientArgs,
    /// How long a node that is away or overloaded is asked again
    #[arg(long, value_name = "SECONDS", default_value_t = RETRY_S_DEFAULT)]
    retry_s: u64,
    /// File that gets every refused line, one JSON object a line
    #[arg(long, value_name = "FILE")]
    refused: Option<PathBuf>,
    /// Batches on their way at once
    #[arg(long, value_name = "COUNT", default_value_t = IN_FLIGHT_DEFAULT,
          value_parser = clap::value_parser!(u16).range(1..=i64::from(IN_FLIGHT_MAX)))]
    in_flight: u16,
}

fn help() -> String {
    format!(
        "Examples:
  tapeline import trades.ndjson.gz
  tapeline import bars.csv --ignore adjusted,source --refused refused.ndjson
  tapeline import quotes.csv --symbol AAPL --url https://ticks.example.com
  tapeline import xnas-itch.trades.dbn.zst --ready-file ready.json

{FILES_HELP}"
    )
}

/// Imports a file; the summary goes to standard output.
///
/// # Errors
/// [`CliError`] where the file cannot be read, or the node does not take all of it.
pub(super) async fn run(args: ImportArgs) -> Result<(), CliError> {
    let connection =
        Connection::new(args.client.client(Use::Write)?, args.retry_s).map_err(PostError::from)?;
    Ok(import(args, connection, &mut std::io::stdout()).await?)
}

async fn import(args: ImportArgs, connection: Connection, out: &mut dyn Write) -> Result<(), PostError> {
    let file = open(args.file).await?;
    let mut tally = Tally::new(file.unit(), args.refused.as_deref())?;
    let progress = Progress::new("importing", file.unit(), Some(file.bytes()));
    let poster = Poster::new(connection, &file, true);
    let batches = batches(file.entries()?);
    let posted = futures::stream::unfold(batches, |mut batches| async {
        let batch = batches.recv().await?;
        Some((batch, batches))
    })
    .map(|batch| async {
        let batch = batch?;
        poster.post(&batch, |why| progress.waiting(why)).await
    })
    .buffer_unordered(usize::from(args.in_flight));
    let mut posted = std::pin::pin!(posted);
    while let Some(outcome) = posted.next().await {
        tally.add(&outcome?)?;
        progress.set(tally.entries, tally.bytes_read);
    }
    tally.finish("imported", progress.finish(), out)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex};

    use clap::{Args, CommandFactory, Parser};

    use super::*;
    use crate::cli::stub::{Reply, Stub};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        import: ImportArgs,
    }

    fn args(words: &[&str]) -> ImportArgs {
        Line::try_parse_from([&["import"], words].concat()).unwrap().import
    }

    #[tokio::test]
    async fn every_line_arrives_once_under_its_number() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ticks.ndjson");
        let text: String = (0..10_000)
            .map(|line| if line == 4_321 { "\n".to_owned() } else { format!("{{\"n\":{line}}}\n") })
            .collect();
        std::fs::write(&path, text).unwrap();
        let taken: Arc<Mutex<BTreeMap<usize, String>>> = Arc::default();
        let seen = Arc::clone(&taken);
        let stub = Stub::start(move |request| {
            let first: usize = request.header("tapeline-lines-first").parse().unwrap();
            let (text, mut taken) = (request.text(), seen.lock().unwrap());
            let lines = text.lines().enumerate().filter(|(_, line)| !line.is_empty());
            let mut accepted = 0;
            for (at, line) in lines {
                assert_eq!(taken.insert(first + at, line.to_owned()), None);
                accepted += 1;
            }
            Reply::json(200, &format!(r#"{{"accepted":{accepted},"refused":0}}"#))
        })
        .await;
        let mut out = Vec::new();
        let args = args(&[path.to_str().unwrap(), "--in-flight", "3"]);
        let partly = import(args, stub.connection(), &mut out).await.unwrap_err();
        assert!(matches!(partly, PostError::Partly { refused: 1, entries: 10_000, .. }), "{partly}");
        let out = String::from_utf8(out).unwrap();
        assert!(out.contains("imported 10000 lines") && out.contains("accepted 9999"), "{out}");
        assert!(out.contains("refused 1\n  line 4322: is empty"), "{out}");
        let taken = taken.lock().unwrap();
        assert!(
            taken.len() == 9_999 && taken.iter().all(|(number, line)| *line == format!("{{\"n\":{number}}}"))
        );
    }

    #[tokio::test]
    async fn a_node_that_refuses_the_key_ends_the_import() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ticks.ndjson");
        std::fs::write(&path, "{}\n{}\n").unwrap();
        let stub = Stub::start(|_| Reply::json(401, r#"{"code":40100000,"message":"unknown key"}"#)).await;
        let args = args(&[path.to_str().unwrap()]);
        let error = import(args, stub.connection(), &mut Vec::new()).await.unwrap_err();
        let error = CliError::from(error).to_string();
        assert!(
            error.contains("lines 1 to 2") && error.contains("unknown key") && error.contains("again"),
            "{error}"
        );
    }

    #[test]
    fn help_has_examples_and_flags_have_bounds() {
        let command = Line::command();
        command.debug_assert();
        let help = ImportArgs::augment_args(clap::Command::new("import")).render_long_help().to_string();
        assert!(help.contains("tapeline import trades.ndjson.gz") && help.contains("ohlcv-1d"), "{help}");
        assert!(Line::try_parse_from(["import", "x", "--in-flight", "0"]).is_err());
        assert!(Line::try_parse_from(["import", "x", "--in-flight", "65"]).is_err());
    }
}
