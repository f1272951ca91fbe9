//! Whether what the database answers is on its disks: `commitlog_sync` of each of its nodes.

use std::collections::BTreeMap;

use scylla::client::session::Session;
use scylla::cluster::Node;
use scylla::policies::load_balancing::{NodeIdentifier, SingleTargetLoadBalancingPolicy};
use scylla::statement::unprepared::Statement;

use super::CassandraStore;
use super::schema::Dialect;

/// What an acknowledgement of the database means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Each node of the datacenter syncs its commit log before it answers.
    Synced,
    /// These nodes answer first and sync later: what they hold in memory alone goes with their power.
    Periodic {
        /// Address and setting of each.
        nodes: BTreeMap<String, String>,
    },
    /// It cannot be asked, or not of all nodes.
    NotKnown {
        /// Why.
        why: String,
    },
}

impl CassandraStore {
    /// Asks each node of the own datacenter: the setting is one of each node alone.
    pub async fn durability(&self) -> Durability {
        if self.cluster.dialect == Dialect::Scylla {
            let why = "ScyllaDB does not tell how it syncs its commit log".to_owned();
            return Durability::NotKnown { why };
        }
        let session = self.cluster.session();
        let own = self.layout.regions.get(&self.layout.region).map(|placement| placement.datacenter.as_str());
        let state = session.get_cluster_state();
        let nodes = state.get_nodes_info().iter().filter(|node| node.datacenter.as_deref() == own);
        let (mut periodic, mut silent) = (BTreeMap::new(), Vec::new());
        for node in nodes {
            let address = node.address.to_string();
            match commitlog_sync(session, node).await {
                Ok(sync) if matches!(sync.as_str(), "group" | "batch") => {}
                Ok(sync) => _ = periodic.insert(address, sync),
                Err(why) => silent.push(format!("{address}: {why}")),
            }
        }
        match (periodic.is_empty(), silent.is_empty()) {
            (false, _) => Durability::Periodic { nodes: periodic },
            (true, true) => Durability::Synced,
            (true, false) => Durability::NotKnown { why: silent.join("; ") },
        }
    }
}

async fn commitlog_sync(session: &Session, node: &std::sync::Arc<Node>) -> Result<String, String> {
    let mut statement =
        Statement::new("SELECT value FROM system_views.settings WHERE name = 'commitlog_sync'");
    statement.set_is_idempotent(true);
    statement.set_consistency(scylla::statement::Consistency::One);
    let target =
        SingleTargetLoadBalancingPolicy::new(NodeIdentifier::Node(std::sync::Arc::clone(node)), None);
    statement.set_load_balancing_policy(Some(target));
    let answer = session.query_unpaged(statement, &[]).await.map_err(|error| error.to_string())?;
    let rows = answer.into_rows_result().map_err(|error| error.to_string())?;
    let row = rows.first_row::<(Option<String>,)>().map_err(|error| error.to_string())?;
    row.0.ok_or_else(|| "it has no commitlog_sync".to_owned())
}
