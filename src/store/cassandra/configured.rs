//! Whether keyspaces and tables that are there give what the configuration says: `IF NOT EXISTS`
//! leaves them as they were made.

use std::collections::BTreeMap;

use super::schema::{Layout, Replicas, replication};
use super::session::Cluster;
use crate::store::StoreError;

/// What the database has of a keyspace: its replication, as it says it.
type Replication = BTreeMap<String, String>;

/// Compares what is there with the layout.
///
/// # Errors
/// `Invalid` with what is missing, and the statement that brings it about.
pub(super) async fn check(cluster: &Cluster, layout: &Layout) -> Result<(), StoreError> {
    let what = "what the database says of its keyspaces";
    let text = "SELECT keyspace_name, replication FROM system_schema.keyspaces";
    let keyspaces: Vec<(String, Replication)> = cluster.ask(what, text, ()).await?;
    let keyspaces: BTreeMap<String, Replication> = keyspaces.into_iter().collect();
    let text = "SELECT table_name, default_time_to_live FROM system_schema.tables WHERE keyspace_name = ?";
    let lives: Vec<(String, i32)> = cluster.ask(what, text, (layout.shared(),)).await?;
    let lives: BTreeMap<String, i32> = lives.into_iter().collect();
    match missing(layout, &keyspaces, &lives) {
        None => Ok(()),
        Some((why, statement)) => {
            Err(StoreError::invalid(format!("{why}: run `{statement}`, or correct the configuration")))
        }
    }
}

/// What is missing first, and the statement that mends it. More replicas, and rows that live longer,
/// are no fault: so they are while a cluster changes.
fn missing(
    layout: &Layout,
    keyspaces: &BTreeMap<String, Replication>,
    lives: &BTreeMap<String, i32>,
) -> Option<(String, String)> {
    for (keyspace, replicas) in layout.keyspaces() {
        let there = keyspaces.get(&keyspace);
        let few = replicas.iter().find(|(datacenter, wanted)| {
            let has = there.and_then(|there| there.get(**datacenter));
            // A list of racks is no number; it is for the database to say what it gives.
            has.is_none_or(|has| has.parse::<u8>().is_ok_and(|has| has < **wanted))
        });
        if let Some((datacenter, wanted)) = few {
            let has = there.and_then(|there| there.get(*datacenter)).map_or("0", String::as_str);
            let why = format!(
                "keyspace {keyspace} has {has} replicas in datacenter {datacenter}, where cassandra.regions asks for {wanted}"
            );
            return Some((why, raised(&keyspace, there, &replicas)));
        }
    }
    for (table, wanted) in layout.lives() {
        // 0: rows do not expire.
        let life =
            lives.get(table).copied().and_then(|life| u32::try_from(life).ok()).filter(|life| *life > 0);
        if let Some(life) = life.filter(|life| *life < wanted) {
            let table = format!("{}.{table}", layout.shared());
            let why = format!("rows of {table} live {life} s, where store.tape_hours asks for {wanted}");
            return Some((why, format!("ALTER TABLE {table} WITH default_time_to_live = {wanted}")));
        }
    }
    None
}

/// The statement that gives a keyspace what it lacks, and takes nothing from it: another region may
/// be known to other nodes already.
fn raised(keyspace: &str, there: Option<&Replication>, wanted: &Replicas<'_>) -> String {
    let mut replicas: BTreeMap<&str, String> =
        wanted.iter().map(|(datacenter, count)| (*datacenter, count.to_string())).collect();
    for (datacenter, has) in there.into_iter().flatten() {
        let is_more = |wanted: &u8| has.parse::<u8>().map_or(true, |has| has > *wanted);
        let is_place = datacenter != "class" && datacenter != "replication_factor";
        if is_place && wanted.get(datacenter.as_str()).is_none_or(is_more) {
            replicas.insert(datacenter, has.clone());
        }
    }
    format!("ALTER KEYSPACE {keyspace} WITH replication = {}", replication(&replicas))
}

#[cfg(test)]
mod tests {
    use super::super::schema::Placement;
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_what_mends_it() {
        let place = |datacenter: &str| Placement { datacenter: datacenter.to_owned(), replicas: 3 };
        let layout = Layout {
            keyspace: "t".to_owned(),
            region: "eu".to_owned(),
            regions: [("eu".to_owned(), place("dc1")), ("us".to_owned(), place("dc2"))].into(),
            tape_ttl_s: 3_600,
        };
        let map = |pairs: &[(&str, &str)]| -> Replication {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let both = map(&[("class", "NetworkTopologyStrategy"), ("dc1", "3"), ("dc2", "5")]);
        let good: BTreeMap<String, Replication> = [
            ("t_ctl".to_owned(), both.clone()),
            ("t".to_owned(), both),
            ("t_eu".to_owned(), map(&[("dc1", "3")])),
        ]
        .into();
        let lives = |tape, chunks| [("tape".to_owned(), tape), ("tape_chunks".to_owned(), chunks)].into();
        assert_eq!(missing(&layout, &good, &lives(3_600, 7_200)), None);
        assert_eq!(missing(&layout, &good, &lives(9_999, 0)), None);
        for (keyspace, there, why, mends) in [
            (
                "t",
                &[("dc1", "3")][..],
                "has 0 replicas in datacenter dc2",
                "ALTER KEYSPACE t WITH replication = {'class': 'NetworkTopologyStrategy', 'dc1': 3, 'dc2': 3}",
            ),
            (
                "t_ctl",
                &[("class", "NetworkTopologyStrategy"), ("dc1", "2"), ("dc2", "5"), ("dc3", "3")],
                "2 replicas in datacenter dc1",
                "ALTER KEYSPACE t_ctl WITH replication = {'class': 'NetworkTopologyStrategy', 'dc1': 3, 'dc2': 5, 'dc3': 3}",
            ),
            (
                "t_eu",
                &[("replication_factor", "3")],
                "datacenter dc1",
                "ALTER KEYSPACE t_eu WITH replication = {'class': 'NetworkTopologyStrategy', 'dc1': 3}",
            ),
        ] {
            let mut keyspaces = good.clone();
            keyspaces.insert(keyspace.to_owned(), map(there));
            let (what, statement) = missing(&layout, &keyspaces, &lives(3_600, 7_200)).unwrap();
            assert!(what.contains(why) && statement.starts_with(mends), "{what}: {statement}");
        }
        let racks = map(&[("dc1", "['r1', 'r2', 'r3']"), ("dc2", "3")]);
        let keyspaces = [
            ("t_ctl".to_owned(), racks.clone()),
            ("t".to_owned(), racks),
            ("t_eu".to_owned(), map(&[("dc1", "3")])),
        ];
        assert_eq!(missing(&layout, &keyspaces.into(), &lives(3_600, 7_200)), None);
        for (lives, table, wanted) in
            [(lives(3_599, 7_200), "t.tape ", 3_600), (lives(3_600, 3_600), "t.tape_chunks ", 7_200)]
        {
            let (_, statement) = missing(&layout, &good, &lives).unwrap();
            assert_eq!(statement, format!("ALTER TABLE {table}WITH default_time_to_live = {wanted}"));
        }
    }
}
