//! The section of the scaled store.

use std::path::PathBuf;

use serde::{Deserialize, Deserializer};

use super::sections::{file, text};

/// How the cluster of the scaled store is reached, and where the regions are.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cassandra {
    /// Addresses of some nodes of the cluster.
    pub nodes: Vec<String>,
    /// All regions, and where each has its replicas.
    #[serde(deserialize_with = "places")]
    pub regions: Vec<RegionPlace>,
    /// What the names of the keyspaces begin with.
    pub keyspace: String,
    /// The own rack; none: any.
    #[serde(deserialize_with = "text")]
    pub rack: Option<String>,
    /// The name that the database asks for; none: it asks for none.
    #[serde(deserialize_with = "text")]
    pub user: Option<String>,
    /// The file with its password.
    #[serde(deserialize_with = "file")]
    pub password_file: Option<PathBuf>,
    /// PEM file of the authority of the nodes' certificates; none: no TLS.
    #[serde(deserialize_with = "file")]
    pub tls_ca: Option<PathBuf>,
    /// Time for a connection.
    pub connect_ms: u64,
    /// Time for a statement.
    pub request_ms: u64,
    /// How long one node alone is waited for; 0: to the end.
    pub hedge_ms: u64,
    /// Connections to a node.
    pub connections: usize,
    /// Frames that are being appended.
    pub append_bytes_max: usize,
    /// Statements of one flush of a keeper at once.
    pub flush_statements: usize,
}

/// A region and its replicas, written `region=datacenter:replicas`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionPlace {
    /// The region.
    pub region: String,
    /// The datacenter, as the database calls it.
    pub datacenter: String,
    /// Replicas there.
    pub replicas: u8,
}

impl RegionPlace {
    /// Reads `region=datacenter:replicas`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (region, place) = text.split_once('=')?;
        let (datacenter, replicas) = place.rsplit_once(':')?;
        let is_name = |name: &str| {
            (1..=48).contains(&name.len())
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        };
        let replicas = replicas.parse().ok().filter(|count| (1..=9).contains(count))?;
        (is_name(region) && is_name(datacenter)).then(|| Self {
            region: region.to_owned(),
            datacenter: datacenter.to_owned(),
            replicas,
        })
    }
}

fn places<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<RegionPlace>, D::Error> {
    let texts = Vec::<String>::deserialize(from)?;
    let place = |text: &String| {
        RegionPlace::parse(text).ok_or_else(|| serde::de::Error::custom(format!("{text:?} names no place")))
    };
    texts.iter().map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read() {
        let place = RegionPlace::parse("eu-west=dc1:3").unwrap();
        assert_eq!((place.region.as_str(), place.datacenter.as_str(), place.replicas), ("eu-west", "dc1", 3));
        for bad in ["", "eu", "eu=dc1", "eu=dc1:0", "eu=dc1:10", "eu=dc1:x", "=dc1:3", "eu=:3", "eu='x:3"] {
            assert_eq!(RegionPlace::parse(bad), None, "{bad}");
        }
    }
}
