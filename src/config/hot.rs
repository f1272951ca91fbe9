//! The section of the region's Redis.

use std::path::PathBuf;

use serde::Deserialize;

use super::sections::{file, text};

/// How the Redis of the region is reached, where there is one.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redis {
    /// Its address, such as `redis://10.0.0.1:6379/0`; none: there is none.
    #[serde(deserialize_with = "text")]
    pub url: Option<String>,
    /// The file with its password.
    #[serde(deserialize_with = "file")]
    pub password_file: Option<PathBuf>,
    /// PEM file of the authority of its certificate.
    #[serde(deserialize_with = "file")]
    pub tls_ca: Option<PathBuf>,
    /// Time for a call.
    pub call_ms: u64,
    /// Frames that wait to be handed to other nodes.
    pub push_bytes_max: usize,
    /// How often what is latest is put into it for nodes that start; 0: never.
    pub latest_ms: u64,
    /// How often nodes tell each other what each key has used of its rate; 0: never.
    pub rates_ms: u64,
}
