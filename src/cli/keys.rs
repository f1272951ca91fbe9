//! `tapeline keys`: through the admin door of the node that runs, else in the data folder itself.

use clap::{Args, Subcommand};
use comfy_table::{Table, presets};
use reqwest::Method;

use super::admin::{AdminClient, Door};
use super::{AdminArgs, CliError, NodeArgs, print};
use crate::access::{Actor, Keys};
use crate::config::Config;
use crate::http::types::{KeyIn, KeyOut, KeysOut, RotateIn};
use crate::market::Nanos;
use crate::node::backends;

/// Arguments of `keys`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  tapeline keys create --scope md:read --scope ticks:write --label laptop
  tapeline keys list
  tapeline keys rotate TLXXXXXXXXXXXXXXXXXX --grace-ms 3600000
  tapeline keys revoke TLXXXXXXXXXXXXXXXXXX
  tapeline keys list --admin http://127.0.0.1:8081    # a key with the scope admin in TAPELINE_KEY_ID")]
pub(super) struct KeysArgs {
    #[command(subcommand)]
    command: KeysCommand,
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    admin: AdminArgs,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Clone, Debug, Subcommand)]
enum KeysCommand {
    /// Make a key; its secret is printed once
    Create {
        /// What it may do: ticks:write, md:read or admin; may be repeated
        #[arg(long = "scope", value_name = "SCOPE", required = true)]
        scopes: Vec<String>,
        /// A text for people
        #[arg(long, default_value = "")]
        label: String,
        /// The account it belongs to; without it a new one
        #[arg(long)]
        account: Option<String>,
        /// Requests a minute, where not as configured
        #[arg(long, value_name = "N")]
        requests_per_minute: Option<u32>,
        /// When it ends, such as 2027-01-01T00:00:00Z
        #[arg(long, value_name = "TIME")]
        expires: Option<String>,
    },
    /// List all keys
    List,
    /// Revoke a key
    Revoke {
        /// The key's id
        id: String,
    },
    /// Make another key of the same account and end this one
    Rotate {
        /// The key's id
        id: String,
        /// How long the old key goes on, at most 30 days
        #[arg(long, value_name = "MS", default_value_t = 0)]
        grace_ms: u64,
    },
}

pub(super) async fn run(args: KeysArgs) -> Result<(), CliError> {
    let config = args.node.load()?.config;
    let store = Store::find(&args.admin, &config).await?;
    let text = match args.command {
        KeysCommand::Create { scopes, label, account, requests_per_minute, expires } => {
            let ask = KeyIn { label, scopes, account, requests_per_minute, expires };
            shown(&store.create(&ask).await?, args.json)?
        }
        KeysCommand::List => listed(&store.list().await?, args.json)?,
        KeysCommand::Revoke { id } => shown(&store.revoke(&id).await?, args.json)?,
        KeysCommand::Rotate { id, grace_ms } => shown(&store.rotate(&id, grace_ms).await?, args.json)?,
    };
    print(&text)
}

/// Where keys are changed.
enum Store {
    /// The admin door of a running node.
    Node(AdminClient),
    /// The data folder, which no node holds.
    Folder(Box<Keys>),
}

impl Store {
    async fn find(args: &AdminArgs, config: &Config) -> Result<Self, CliError> {
        if let Door::Node(client) = Door::find(args, config).await? {
            return Ok(Self::Node(client));
        }
        let data = &config.node.data;
        if !data.is_dir() {
            return Err(CliError::usage(format!("there is no data folder {}", data.display()))
                .next("name it with --data, or the running node with --admin URL"));
        }
        let keys = backends::open_keys(config).await.map_err(|error| {
            CliError::failed(error.to_string())
                .next("where a node is only starting, try again; --admin URL names a running one")
        })?;
        Ok(Self::Folder(Box::new(keys)))
    }

    async fn create(&self, ask: &KeyIn) -> Result<KeyOut, CliError> {
        match self {
            Self::Node(client) => client.call(Method::POST, "/admin/keys", Some(to_json(ask)?)).await,
            Self::Folder(keys) => {
                let ask = ask.to_ask().map_err(|error| CliError::usage(error.message()))?;
                Ok(KeyOut::from(&keys.create(ask, &Actor::operator(), now()).await?))
            }
        }
    }

    async fn list(&self) -> Result<KeysOut, CliError> {
        match self {
            Self::Node(client) => client.call(Method::GET, "/admin/keys", None).await,
            Self::Folder(keys) => Ok(KeysOut { keys: keys.list().iter().map(KeyOut::from).collect() }),
        }
    }

    async fn revoke(&self, id: &str) -> Result<KeyOut, CliError> {
        match self {
            Self::Node(client) => client.call(Method::DELETE, &path_of(id, "")?, None).await,
            Self::Folder(keys) => Ok(KeyOut::from(&keys.revoke(id, &Actor::operator(), now()).await?)),
        }
    }

    async fn rotate(&self, id: &str, grace_ms: u64) -> Result<KeyOut, CliError> {
        match self {
            Self::Node(client) => {
                let body = to_json(&RotateIn { grace_ms })?;
                client.call(Method::POST, &path_of(id, "/rotate")?, Some(body)).await
            }
            Self::Folder(keys) => {
                let new = keys.rotate(id, grace_ms, &Actor::operator(), now()).await;
                Ok(KeyOut::from(&new?))
            }
        }
    }
}

fn path_of(id: &str, rest: &str) -> Result<String, CliError> {
    if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(CliError::usage(format!("{id:?} is no key id"))
            .next("`tapeline keys list` prints them; they look like TLXXXXXXXXXXXXXXXXXX"));
    }
    Ok(format!("/admin/keys/{id}{rest}"))
}

fn to_json(value: &impl serde::Serialize) -> Result<Vec<u8>, CliError> {
    serde_json::to_vec(value).map_err(|error| CliError::failed(error.to_string()))
}

/// The command line reads the wall clock itself: it is the top.
fn now() -> Nanos {
    Nanos(
        chrono::DateTime::<chrono::Utc>::from(std::time::SystemTime::now())
            .timestamp_nanos_opt()
            .unwrap_or(0),
    )
}

fn shown(key: &KeyOut, json: bool) -> Result<String, CliError> {
    if json {
        return Ok(String::from_utf8_lossy(&to_json(key)?).into_owned() + "\n");
    }
    let mut text = format!(
        "id       {}\naccount  {}\nscopes   {}\nlabel    {}\n",
        key.id,
        key.account,
        key.scopes.join(" "),
        key.label
    );
    for (name, value) in [("expires", &key.expires), ("revoked", &key.revoked)] {
        if let Some(value) = value {
            text.push_str(&format!("{name}  {value}\n"));
        }
    }
    if let Some(secret) = &key.secret {
        text.push_str(&format!("secret   {secret}\nThe secret is not stored and not shown again.\n"));
    }
    Ok(text)
}

fn listed(keys: &KeysOut, json: bool) -> Result<String, CliError> {
    if json {
        return Ok(String::from_utf8_lossy(&to_json(keys)?).into_owned() + "\n");
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["ID", "ACCOUNT", "SCOPES", "CREATED", "STATE", "LABEL"]);
    for key in &keys.keys {
        let state = match (&key.revoked, &key.expires) {
            (Some(time), _) => format!("revoked {time}"),
            (None, Some(time)) if Nanos::parse(time.as_bytes()).is_ok_and(|time| time <= now()) => {
                format!("ended {time}")
            }
            (None, Some(time)) => format!("until {time}"),
            (None, None) => "live".to_owned(),
        };
        let scopes = key.scopes.join(" ");
        table.add_row([&key.id, &key.account, &scopes, &key.created, &state, &key.label]);
    }
    Ok(format!("{}\n", table.trim_fmt()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(secret: Option<&str>) -> KeyOut {
        KeyOut {
            id: "TLA".to_owned(),
            account: "TAA".to_owned(),
            label: "laptop".to_owned(),
            scopes: vec!["md:read".to_owned()],
            requests_per_minute: None,
            created: "2024-01-03T00:00:00Z".to_owned(),
            expires: None,
            revoked: None,
            secret: secret.map(str::to_owned),
        }
    }

    #[test]
    fn a_key_is_shown_for_people_and_for_scripts() {
        let text = shown(&key(Some("s3")), false).unwrap();
        assert!(text.contains("id       TLA\n") && text.contains("secret   s3\n"), "{text}");
        assert!(!shown(&key(None), false).unwrap().contains("secret"));
        let json: KeyOut = serde_json::from_str(&shown(&key(Some("s3")), true).unwrap()).unwrap();
        assert_eq!(json, key(Some("s3")));
    }

    #[test]
    fn a_list_has_a_row_a_key() {
        let revoked = KeyOut { revoked: Some("2024-02-01T00:00:00Z".to_owned()), ..key(None) };
        let text = listed(&KeysOut { keys: vec![key(None), revoked] }, false).unwrap();
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(text.contains("live") && text.contains("revoked 2024-02-01T00:00:00Z"), "{text}");
    }

    #[test]
    fn an_id_is_checked_before_it_is_part_of_a_path() {
        assert_eq!(path_of("TLA", "/rotate").unwrap(), "/admin/keys/TLA/rotate");
        assert!(path_of("../x", "").is_err() && path_of("", "").is_err());
    }
}
