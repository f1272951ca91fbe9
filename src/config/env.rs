//! The environment: the one place where variables are read.

use std::path::PathBuf;

use secrecy::SecretString;

/// Prefix of variables that are configuration: `TAPELINE__HTTP__LISTEN`.
const PREFIX: &str = "TAPELINE__";

/// What a client of the HTTP API takes from the environment where no flag gives it.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// `TAPELINE_URL`: where the node is.
    pub url: Option<String>,
    /// `TAPELINE_KEY_ID`: the key's id.
    pub key_id: Option<String>,
    /// `TAPELINE_SECRET`: the key's secret.
    pub secret: Option<SecretString>,
    /// `TAPELINE_CA`: the file of the authority of the node's certificate.
    pub ca: Option<PathBuf>,
}

/// All variables that are configuration, for [`super::Layers`]. A value that is not UTF-8 is
/// passed on with its bad bytes replaced, and fails its rule by name.
#[must_use]
pub fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
        .filter(|(name, _)| name.starts_with(PREFIX))
        .collect()
}

/// The credentials of the command line's clients.
#[must_use]
pub fn env_credentials() -> Credentials {
    Credentials {
        url: variable("TAPELINE_URL"),
        key_id: variable("TAPELINE_KEY_ID"),
        secret: variable("TAPELINE_SECRET").map(SecretString::from),
        ca: variable("TAPELINE_CA").map(PathBuf::from),
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned()).filter(|value| !value.is_empty())
}

/// `TAPELINE__HTTP__LISTEN` as `http.listen`.
pub(super) fn key_of(name: &str) -> String {
    name.trim_start_matches(PREFIX).to_ascii_lowercase().replacen("__", ".", 1)
}
