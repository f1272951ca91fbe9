//! `tapeline verify`: walks what is stored, and names what is damaged.

use std::io::{IsTerminal as _, stderr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;

use super::{CliError, NodeFile, VerifyArgs, print};
use crate::config::Config;
use crate::node::storage;
use crate::store::embedded::{Progress, Severity, verify_folder};

/// A whole walk through a running node must be answered within this.
const ANSWER_WITHIN: Duration = Duration::from_secs(3_600);

/// What was found at a place.
struct Found {
    file: String,
    offset: Option<u64>,
    damage: bool,
    what: String,
}

/// Runs `tapeline verify`.
pub(super) async fn run(args: VerifyArgs) -> Result<(), CliError> {
    let config = args.node.load()?.config;
    let found = match door(&args, &config)? {
        Some((url, token)) => through_node(&url, &token).await?,
        None => in_folder(&config).await?,
    };
    let damaged = found.iter().filter(|found| found.damage).count();
    for one in &found {
        let place = one.offset.map_or_else(String::new, |offset| format!(" at byte {offset}"));
        let severity = if one.damage { "damage" } else { "note" };
        print(&format!("{severity}: {}{place}: {}\n", one.file, one.what))?;
    }
    if damaged == 0 {
        return print("everything stored is as it was written\n");
    }
    Err(CliError::failed(format!("{damaged} places are damaged"))
        .next("stop the node, keep a copy of the folder, and restore the named files from a backup"))
}

/// The admin door of the node that holds the folder, and its token; none where no node runs.
fn door(args: &VerifyArgs, config: &Config) -> Result<Option<(String, SecretString)>, CliError> {
    let own = NodeFile::read(&NodeFile::path_in(&config.node.data)).ok();
    let token = own.as_ref().and_then(|file| file.admin_token.clone());
    let url = match (&args.admin.admin, &args.admin.ready_file) {
        (Some(url), _) => Some(url.clone()),
        (None, Some(path)) => Some(NodeFile::read(path)?.admin),
        (None, None) => own.map(|file| file.admin),
    };
    match (url, token) {
        (Some(url), Some(token)) => Ok(Some((url, token))),
        (None, _) => Ok(None),
        (Some(url), None) => Err(CliError::usage(format!("no token opens the admin door {url}"))
            .next("name the data folder of that node with --data: the token of its boot is in it")),
    }
}

async fn through_node(url: &str, token: &SecretString) -> Result<Vec<Found>, CliError> {
    let failed = |error: reqwest::Error| CliError::failed(format!("{url} does not answer: {error}"));
    let client = reqwest::Client::builder().timeout(ANSWER_WITHIN).build().map_err(failed)?;
    let answer = client.post(format!("{url}/admin/verify")).bearer_auth(token.expose_secret()).send().await;
    let answer = match answer {
        Ok(answer) => answer,
        // The file of a node that was killed stays behind; its folder is then nobody's.
        Err(error) if error.is_connect() => {
            return Err(CliError::failed(format!("no node answers at {url}"))
                .next("remove node.json from its data folder where no node runs, and try again"));
        }
        Err(error) => return Err(failed(error)),
    };
    let status = answer.status();
    let body: Value = answer.json().await.map_err(failed)?;
    if !status.is_success() {
        return Err(CliError::failed(format!("{url} answers {status}: {body}")));
    }
    let findings = body.get("findings").and_then(Value::as_array).cloned().unwrap_or_default();
    let text =
        |value: &Value, name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let found = |value: &Value| Found {
        file: text(value, "file"),
        offset: value.get("offset").and_then(Value::as_u64),
        damage: text(value, "severity") == "damage",
        what: text(value, "what"),
    };
    Ok(findings.iter().map(found).collect())
}

async fn in_folder(config: &Config) -> Result<Vec<Found>, CliError> {
    let folder: PathBuf = config.node.data.join("store");
    if !folder.exists() {
        return Err(CliError::usage(format!("{} holds no store", config.node.data.display()))
            .next("name the data folder of a node with --data"));
    }
    let keyring = storage::keyring(config).map_err(|error| CliError::failed(error.to_string()))?;
    let bar = bar();
    let walked = bar.clone();
    let findings = verify_folder(&folder, Arc::new(keyring), move |progress: Progress| {
        walked.set_length(progress.total_bytes);
        walked.set_position(progress.done_bytes);
    });
    let findings = findings.await.map_err(|error| CliError::failed(error.to_string()))?;
    bar.finish_and_clear();
    let found = |finding: crate::store::embedded::Finding| Found {
        file: finding.file.display().to_string(),
        offset: finding.offset,
        damage: finding.severity == Severity::Damage,
        what: finding.what,
    };
    Ok(findings.into_iter().map(found).collect())
}

/// A bar on a terminal; elsewhere nothing, for the findings are the output.
fn bar() -> ProgressBar {
    let target =
        if stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let style = ProgressStyle::with_template("{wide_bar} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta}");
    let bar = ProgressBar::with_draw_target(None, target);
    style.map_or_else(|_| bar.clone(), |style| bar.clone().with_style(style))
}
