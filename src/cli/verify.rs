//! `tapeline verify`: walks what is stored, and names what is damaged.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Method, StatusCode};

use super::admin::{AdminClient, Door};
use super::progress::Progress;
use super::{CliError, VerifyArgs, print};
use crate::config::Config;
use crate::node::{FindingOut, VerifyOut, VerifyState, backends};
use crate::store::embedded::{self, verify_folder};

/// Between questions how far a node's walk is.
const ASK_EVERY: Duration = Duration::from_millis(250);
const PATH: &str = "/admin/verify";

/// What was found, or the first part of it.
struct Found {
    findings: Vec<FindingOut>,
    found: usize,
    damaged: usize,
}

/// Runs `tapeline verify`.
pub(super) async fn run(args: VerifyArgs) -> Result<(), CliError> {
    let config = args.node.load()?.config;
    let found = match Door::find(&args.admin, &config).await? {
        Door::Node(client) => through_node(&client).await?,
        Door::Folder => in_folder(&config).await?,
    };
    for one in &found.findings {
        let place = one.offset.map_or_else(String::new, |offset| format!(" at byte {offset}"));
        let severity = if one.is_damage() { "damage" } else { "note" };
        print(&format!("{severity}: {}{place}: {}\n", one.file, one.what))?;
    }
    let more = found.found.saturating_sub(found.findings.len());
    if more > 0 {
        print(&format!("and {more} more; stop the node and verify its folder to see all\n"))?;
    }
    if found.damaged == 0 {
        return print("everything stored is as it was written\n");
    }
    Err(CliError::failed(format!("{} places are damaged", found.damaged))
        .next("stop the node, keep a copy of the folder, and restore the named files from a backup"))
}

/// Lets the node walk, or follows the walk that somebody else has begun.
async fn through_node(client: &AdminClient) -> Result<Found, CliError> {
    let mut walk = Walk::default();
    let mut at: VerifyOut = match client.call_unless(StatusCode::CONFLICT, Method::POST, PATH).await? {
        Some(begun) => begun,
        None => client.call(Method::GET, PATH, None).await?,
    };
    let id = at.id;
    while at.state == VerifyState::Running {
        walk.at(&at.what, at.done, at.total);
        tokio::time::sleep(ASK_EVERY).await;
        at = client.call(Method::GET, PATH, None).await?;
        if at.id != id {
            return Err(CliError::failed("another walk was begun before this one was told of its end")
                .next("the same command again follows it"));
        }
    }
    if let Some(error) = at.error {
        return Err(CliError::failed(format!("the node's walk was cut short: {error}")));
    }
    Ok(Found { findings: at.findings, found: at.found, damaged: at.damaged })
}

async fn in_folder(config: &Config) -> Result<Found, CliError> {
    let folder: PathBuf = config.node.data.join("store");
    if !folder.exists() {
        return Err(CliError::usage(format!("{} holds no store", config.node.data.display()))
            .next("name the data folder of a node with --data"));
    }
    let keyring = backends::keyring(config).map_err(|error| CliError::failed(error.to_string()))?;
    let mut walk = Walk::default();
    let findings = verify_folder(&folder, Arc::new(keyring), move |progress: embedded::Progress| {
        walk.at(progress.what, progress.done_bytes, progress.total_bytes);
    });
    let findings = findings.await.map_err(|error| {
        CliError::failed(error.to_string())
            .next("where a node is only starting, try again; --admin URL names a running one")
    })?;
    let findings: Vec<FindingOut> = findings.iter().map(FindingOut::from).collect();
    let damaged = findings.iter().filter(|finding| finding.is_damage()).count();
    Ok(Found { found: findings.len(), findings, damaged })
}

/// The progress of a walk, which goes through one part of the store after the other.
#[derive(Default)]
struct Walk {
    part: Option<(String, Progress)>,
}

impl Walk {
    fn at(&mut self, what: &str, done: u64, total: u64) {
        let part = self.part.take().filter(|(part, _)| part == what);
        let (_, progress) = self.part.insert(part.unwrap_or_else(|| {
            let unit = if what == "blocks" { "rows" } else { "MiB" };
            (what.to_owned(), Progress::new(format!("verifying {what}"), unit, Some(total)))
        }));
        let items = if what == "blocks" { done } else { done >> 20 };
        progress.set_of(items, done, total);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::admin::client;
    use crate::cli::stub::{Reply, Stub};

    #[tokio::test]
    async fn a_walk_that_runs_already_is_followed_to_its_end() {
        let mut asked = 0;
        let stub = Stub::start(move |request| {
            assert_eq!(request.header("authorization"), "Bearer token");
            let walk = |state, more: &str| {
                format!(
                    r#"{{"id":4,"state":"{state}","what":"tapes","done":5,"total":9,"damaged":1,"found":2,
                        "findings":[{more}]}}"#
                )
            };
            if request.line.starts_with("POST") {
                return Reply::json(409, r#"{"code":40900000,"message":"runs already"}"#);
            }
            asked += 1;
            let damage = r#"{"file":"f","offset":null,"severity":"damage","what":"w"}"#;
            Reply::json(200, &if asked < 3 { walk("running", "") } else { walk("done", damage) })
        })
        .await;
        let _ = stub.client();
        let door = AdminClient::with_token(client().unwrap(), stub.url().to_owned(), &"token".into());
        let found = through_node(&door).await.unwrap();
        assert_eq!((found.found, found.damaged, found.findings.len()), (2, 1, 1));
        assert!(found.findings[0].is_damage());
    }

    #[tokio::test]
    async fn the_walk_of_another_boot_is_not_taken_for_it() {
        let mut id = 0;
        let stub = Stub::start(move |_| {
            id += 1;
            let rest =
                r#""state":"running","what":"","done":0,"total":0,"damaged":0,"found":0,"findings":[]"#;
            Reply::json(200, &format!(r#"{{"id":{id},{rest}}}"#))
        })
        .await;
        let _ = stub.client();
        let door = AdminClient::with_token(client().unwrap(), stub.url().to_owned(), &"token".into());
        assert!(through_node(&door).await.err().unwrap().to_string().contains("another walk"));
    }
}
