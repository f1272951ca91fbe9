//! Arguments that several subcommands share.

use std::path::PathBuf;

use clap::Args;
use secrecy::SecretString;

use super::{CliError, KeyPair, NodeFile, ReadyKeys};
use crate::config::{self, ConfigError, Credentials, Layers, Loaded};

/// Where the configuration comes from.
#[derive(Clone, Debug, Default, Args)]
pub struct NodeArgs {
    /// Configuration file (TOML); only the keys that differ from the defaults
    #[arg(global = true, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Set one key, such as http.request_ms=30000; may be repeated
    #[arg(global = true, long = "set", value_name = "SECTION.KEY=VALUE")]
    pub sets: Vec<String>,
    /// Address of the public door (http.listen); port 0 lets the system choose
    #[arg(global = true, long, value_name = "ADDRESS:PORT")]
    pub listen: Option<String>,
    /// Address of the admin door (http.admin_listen)
    #[arg(global = true, long, value_name = "ADDRESS:PORT")]
    pub admin_listen: Option<String>,
    /// Folder of everything the node stores (node.data)
    #[arg(global = true, long, value_name = "FOLDER")]
    pub data: Option<String>,
}

impl NodeArgs {
    /// The configuration: defaults, file, environment, these flags.
    ///
    /// # Errors
    /// [`ConfigError`]
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        self.load_for("serve", &[])
    }

    /// The same, with defaults of a subcommand's own below all of them.
    ///
    /// # Errors
    /// [`ConfigError`]
    pub fn load_for(
        &self,
        subcommand: &'static str,
        defaults: &'static [(&'static str, &'static str)],
    ) -> Result<Loaded, ConfigError> {
        let mut defaults = defaults.to_vec();
        // Who lets the system choose the port wants a node beside others: it chooses both.
        if self.listen.as_ref().is_some_and(|listen| listen.ends_with(":0")) {
            defaults.push(("http.admin_listen", "127.0.0.1:0"));
        }
        Layers { subcommand: Some((subcommand, defaults)), ..self.layers() }.load()
    }

    fn layers(&self) -> Layers {
        let named = [
            ("--listen", "http.listen", &self.listen),
            ("--admin-listen", "http.admin_listen", &self.admin_listen),
            ("--data", "node.data", &self.data),
        ];
        let flags = named.into_iter().filter_map(|(flag, key, value)| {
            value.as_ref().map(|value| (flag.to_owned(), key.to_owned(), value.clone()))
        });
        Layers {
            file: self.config.clone(),
            environment: config::environment(),
            sets: self.sets.clone(),
            flags: flags.collect(),
            ..Layers::default()
        }
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
    /// Write addresses, and the keys of the first start, to this file once the node is ready
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
    /// Address of the admin door of a running node. Another than that of the data folder's node
    /// needs a key with the scope admin: TAPELINE_KEY_ID and TAPELINE_SECRET
    #[arg(global = true, long, value_name = "URL")]
    pub admin: Option<String>,
    /// Take that address from the file that `serve --ready-file` wrote
    #[arg(global = true, long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
}

/// Which node a client talks to, and with which key.
#[derive(Clone, Debug, Default, Args)]
pub struct ClientArgs {
    /// Address of the node; else TAPELINE_URL, else http://127.0.0.1:8080
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// PEM file of the authority that an https:// node's certificate must come from, where it is
    /// not one of the system's; else TAPELINE_CA
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Id of the key; else TAPELINE_KEY_ID. Its secret is in TAPELINE_SECRET
    #[arg(long, value_name = "ID")]
    pub key_id: Option<String>,
    /// Read the secret from this file instead of TAPELINE_SECRET
    #[arg(long, value_name = "FILE")]
    pub secret_file: Option<PathBuf>,
    /// Take what other flags do not say of address and keys from the file that `--ready-file` of
    /// serve or demo wrote
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
}

/// What a client does, and so which key of a ready file it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Reads market data.
    Read,
    /// Posts ticks.
    Write,
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
    /// The authority of its certificate, as PEM, where it is not one of the system's.
    pub ca: Option<Vec<u8>>,
}

impl ClientArgs {
    /// The node and the key, from these flags and the environment.
    ///
    /// # Errors
    /// [`CliError`] that says which of them is missing and how to give it.
    pub fn client(&self, what: Use) -> Result<Client, CliError> {
        self.client_in(what, config::env_credentials())
    }

    fn client_in(&self, what: Use, environment: Credentials) -> Result<Client, CliError> {
        let ca = self.ca.clone().or(environment.ca).map(|path| {
            std::fs::read(&path).map_err(|error| {
                CliError::usage(format!("the authority's file {} cannot be read: {error}", path.display()))
            })
        });
        let ca = ca.transpose()?;
        let file = self.ready_file.as_deref().map(|path| {
            NodeFile::read(path).map_err(|error| {
                CliError::usage(format!("the ready file {} cannot be read: {error}", path.display()))
            })
        });
        let file = file.transpose()?.unwrap_or_default();
        let url = self.url.clone().or(Some(file.http).filter(|url| !url.is_empty())).or(environment.url);
        let url = url_of(url.as_deref().unwrap_or("http://127.0.0.1:8080"))?;
        let are_given = self.key_id.is_some() || self.secret_file.is_some();
        let has_none = self.ready_file.as_ref().filter(|_| file.keys.is_none());
        if let Some(ReadyKeys { read, write }) = file.keys.filter(|_| !are_given) {
            let KeyPair { id: key_id, secret } = if what == Use::Read { read } else { write };
            return Ok(Client { url, key_id, secret, ca });
        }
        let next = "make one with `tapeline keys create --scope md:read --scope ticks:write`, then set \
                    TAPELINE_KEY_ID and TAPELINE_SECRET";
        let no = |what: &str| {
            let in_file = has_none.map(|path| format!(" (and {} has none)", path.display()));
            CliError::usage(format!("no {what} is given{}", in_file.unwrap_or_default())).next(next)
        };
        let key_id = self.key_id.clone().or(environment.key_id).ok_or_else(|| no("key id"))?;
        let secret = match &self.secret_file {
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|error| {
                    CliError::usage(format!("the secret file {} cannot be read: {error}", path.display()))
                })?;
                Some(SecretString::from(text.trim()))
            }
            None => environment.secret,
        };
        let secret = secret.ok_or_else(|| no("secret"))?;
        Ok(Client { url, key_id, secret, ca })
    }
}

pub(super) fn url_of(text: &str) -> Result<String, CliError> {
    if !text.starts_with("http://") && !text.starts_with("https://") {
        let message = format!("the node's address {text:?} must begin with http:// or https://");
        return Err(CliError::usage(message));
    }
    Ok(text.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn a_client_takes_flags_before_the_environment() {
        let environment = || Credentials {
            url: Some("http://10.0.0.1:8080/".to_owned()),
            key_id: Some("TLE".to_owned()),
            secret: Some("of the environment".into()),
            ca: None,
        };
        let client = ClientArgs::default().client_in(Use::Read, environment()).unwrap();
        assert_eq!((client.url.as_str(), client.key_id.as_str()), ("http://10.0.0.1:8080", "TLE"));
        let args = ClientArgs { key_id: Some("TLF".to_owned()), ..ClientArgs::default() };
        assert_eq!(args.client_in(Use::Read, environment()).unwrap().key_id, "TLF");
        let args = ClientArgs { ca: Some("no/ca.pem".into()), ..ClientArgs::default() };
        let missing = args.client_in(Use::Read, environment()).unwrap_err();
        assert!(missing.to_string().contains("no/ca.pem"), "{missing}");
        let nothing = ClientArgs::default().client_in(Use::Read, Credentials::default()).unwrap_err();
        assert!(nothing.to_string().contains("tapeline keys create"), "{nothing}");
        let args = ClientArgs { url: Some("localhost".to_owned()), ..ClientArgs::default() };
        let bad = args.client_in(Use::Read, environment()).unwrap_err();
        assert!(bad.to_string().contains("must begin with http://"), "{bad}");
    }

    #[test]
    fn a_ready_file_gives_address_and_the_key_that_fits() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ready.json");
        let pair = |id: &str| KeyPair { id: id.to_owned(), secret: format!("secret {id}").into() };
        let mut file = NodeFile {
            http: "http://127.0.0.1:4".to_owned(),
            admin: "http://127.0.0.1:5".to_owned(),
            admin_token: None,
            keys: Some(ReadyKeys { read: pair("r"), write: pair("w") }),
        };
        file.write(&path).unwrap();
        let args = ClientArgs { ready_file: Some(path.clone()), ..ClientArgs::default() };
        let client = |what| args.client_in(what, Credentials::default());
        let (read, write) = (client(Use::Read).unwrap(), client(Use::Write).unwrap());
        assert_eq!((read.key_id.as_str(), write.key_id.as_str()), ("r", "w"));
        assert_eq!(write.secret.expose_secret(), "secret w");
        assert_eq!(write.url, "http://127.0.0.1:4");
        file.keys = None;
        file.write(&path).unwrap();
        assert!(client(Use::Read).unwrap_err().to_string().contains("ready.json has none"));
        let environment = || Credentials {
            url: Some("http://e".to_owned()),
            key_id: Some("e".to_owned()),
            ..Credentials::default()
        };
        let own = folder.path().join("secret");
        std::fs::write(&own, "of a file\n").unwrap();
        for keys in [None, Some(ReadyKeys { read: pair("r"), write: pair("w") })] {
            NodeFile { keys, ..file.clone() }.write(&path).unwrap();
            let args = ClientArgs { secret_file: Some(own.clone()), ..args.clone() };
            let given = args.client_in(Use::Write, environment()).unwrap();
            assert_eq!((given.url.as_str(), given.key_id.as_str()), ("http://127.0.0.1:4", "e"));
            assert_eq!(given.secret.expose_secret(), "of a file");
        }
    }
}
