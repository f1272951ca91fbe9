//! What the nodes of these tests store in: one real Cassandra node, where each folder has keyspaces of
//! its own.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

use crate::cluster::Cluster;
use crate::node::tapeline;

/// Whether what they store in is the machine's alone, and not a database that may be busy.
pub const IS_EMBEDDED: bool = false;

/// The database of this process.
pub fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| Cluster::start(&["--heap", "1g"]))
}

/// What tells a node about its store.
pub fn environment(folder: &Path) -> Vec<(String, String)> {
    let name = blake3::hash(folder.as_os_str().as_encoded_bytes()).to_hex();
    environment_on(cluster(), 1, &format!("t{}", name.get(..10).unwrap_or_default()))
}

/// The same for a store in keyspaces of this name, with so many replicas.
pub fn environment_on(cluster: &Cluster, replicas: u8, keyspace: &str) -> Vec<(String, String)> {
    environment_of("local", &cluster.nodes, &format!("local=dc1:{replicas}"), keyspace)
}

/// The same for a node of one of several regions, which knows these database nodes.
pub fn environment_of(
    region: &str,
    nodes: &[String],
    regions: &str,
    keyspace: &str,
) -> Vec<(String, String)> {
    let sets = [
        ("NODE__REGION", region.to_owned()),
        ("STORE__BACKEND", "cassandra".to_owned()),
        ("STORE__SEAL_KEY", "A".repeat(43)),
        ("CASSANDRA__NODES", nodes.join(",")),
        ("CASSANDRA__REGIONS", regions.to_owned()),
        ("CASSANDRA__KEYSPACE", keyspace.to_owned()),
    ];
    sets.map(|(key, value)| (format!("TAPELINE__{key}"), value)).into()
}

/// Makes the tables.
pub async fn migrate(environment: Vec<(String, String)>) {
    let mut command = tapeline("migrate");
    let output = command.arg("apply").envs(environment).output().await.expect("the binary starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Makes the tables, once a folder.
pub async fn prepare(folder: &Path) {
    static MADE: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    if MADE.lock().expect("one at a time").insert(folder.to_owned()) {
        migrate(environment(folder)).await;
    }
}
