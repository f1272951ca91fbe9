//! Arguments that several subcommands share.

use std::path::PathBuf;

use clap::Args;
use secrecy::SecretString;

use super::CliError;
use crate::config::{self, ConfigError, Layers, Loaded};

/// Where the configuration comes from.
#[derive(Clone, Debug, Default, Args)]
pub struct NodeArgs {
    /// Configuration file (TOML); only the keys that differ from the defaults
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Set one key, such as http.request_ms=30000; may be repeated
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    pub sets: Vec<String>,
    /// Address of the public door (http.listen); port 0 lets the system choose
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<String>,
    /// Address of the admin door (http.admin_listen)
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub admin_listen: Option<String>,
    /// Folder of everything the node stores (node.data)
    #[arg(long, value_name = "FOLDER")]
    pub data: Option<String>,
}

impl NodeArgs {
    /// The configuration: defaults, file, environment, these flags.
    ///
    /// # Errors
    /// [`ConfigError`]
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        let named = [
            ("--listen", "http.listen", &self.listen),
            ("--admin-listen", "http.admin_listen", &self.admin_listen),
            ("--data", "node.data", &self.data),
        ];
        let flags = named.into_iter().filter_map(|(flag, key, value)| {
            value.as_ref().map(|value| (flag.to_owned(), key.to_owned(), value.clone()))
        });
        let layers = Layers {
            file: self.config.clone(),
            environment: config::environment(),
            sets: self.sets.clone(),
            flags: flags.collect(),
        };
        layers.load()
    }
}

/// Arguments of `serve`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  tapeline serve
  tapeline serve --config tapeline.toml --data /var/lib/tapeline
  tapeline serve --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 --ready-file ready.json
  TAPELINE__HTTP__LISTEN=0.0.0.0:8080 tapeline serve --set telemetry.log_format=json")]
pub struct ServeArgs {
    /// Where the configuration comes from.
    #[command(flatten)]
    pub node: NodeArgs,
    /// Write addresses, and keys that this start made, to this file once the node is ready
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
}

/// Arguments of `demo`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  tapeline demo
  tapeline demo --set demo.symbols=50 --set demo.ticks_per_second=200
  tapeline demo --listen 127.0.0.1:0 --ready-file ready.json")]
pub struct DemoArgs {
    /// Where the configuration comes from.
    #[command(flatten)]
    pub node: NodeArgs,
    /// Write addresses and the keys of this start to this file once the node is ready
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
}

/// Arguments of `verify`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  tapeline verify                        # of the node that runs on ./tapeline-data, or its files
  tapeline verify --data /var/lib/tapeline
  tapeline verify --admin http://127.0.0.1:8081")]
pub struct VerifyArgs {
    /// Where the configuration comes from.
    #[command(flatten)]
    pub node: NodeArgs,
    /// Which running node.
    #[command(flatten)]
    pub admin: AdminArgs,
}

/// Which running node to administer. Without any of these: the one whose node file is in the
/// data folder; and where none runs, the data folder itself.
#[derive(Clone, Debug, Default, Args)]
pub struct AdminArgs {
    /// Address of the admin door of a running node
    #[arg(long, value_name = "URL")]
    pub admin: Option<String>,
    /// The file that `serve --ready-file` wrote
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
}

/// Which node a client talks to, and with which key.
#[derive(Clone, Debug, Default, Args)]
pub struct ClientArgs {
    /// Address of the node; else TAPELINE_URL, else http://127.0.0.1:8080
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// Id of the key; else TAPELINE_KEY_ID. Its secret is in TAPELINE_SECRET
    #[arg(long, value_name = "ID")]
    pub key_id: Option<String>,
    /// Read the secret from this file instead of TAPELINE_SECRET
    #[arg(long, value_name = "FILE")]
    pub secret_file: Option<PathBuf>,
}

/// A node and a key.
#[derive(Clone, Debug)]
pub struct Client {
    /// Where the node is, without a slash at the end.
    pub url: String,
    /// The key's id.
    pub key_id: String,
    /// Its secret.
    pub secret: SecretString,
}

impl ClientArgs {
    /// The node and the key, from these flags and the environment.
    ///
    /// # Errors
    /// [`CliError`] that says which of them is missing and how to give it.
    pub fn client(&self) -> Result<Client, CliError> {
        let environment = config::env_credentials();
        let url = self.url.clone().or(environment.url).unwrap_or_else(|| "http://127.0.0.1:8080".to_owned());
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return Err(CliError::usage(format!(
                "the node's address {url:?} must begin with http:// or https://"
            )));
        }
        let next = "make one with `tapeline keys create --scope md:read --scope ticks:write`, then set \
                    TAPELINE_KEY_ID and TAPELINE_SECRET";
        let key_id = self.key_id.clone().or(environment.key_id);
        let key_id = key_id.ok_or_else(|| CliError::usage("no key id is given").next(next))?;
        let secret = match &self.secret_file {
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|error| {
                    CliError::usage(format!("the secret file {} cannot be read: {error}", path.display()))
                })?;
                Some(SecretString::from(text.trim()))
            }
            None => environment.secret,
        };
        let secret = secret.ok_or_else(|| CliError::usage("no secret is given").next(next))?;
        Ok(Client { url: url.trim_end_matches('/').to_owned(), key_id, secret })
    }
}
