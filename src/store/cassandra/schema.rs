//! The tables: the files of `cql/`, compiled in, and what fills them in.
//!
//! A file is a migration: its number and name are those of the file, its scope the keyspaces that
//! it is for. Text is the same for both engines; where they differ it has a placeholder.

use std::collections::BTreeMap;
use std::fmt::Display;

/// Which database speaks CQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Apache Cassandra 5.
    Cassandra,
    /// ScyllaDB.
    Scylla,
}

/// For which keyspaces a migration is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Those of all regions.
    Shared,
    /// That of one region.
    Region,
}

/// A file of `cql/`.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// Its number, from 1.
    pub number: u16,
    /// Its name, such as `shared`.
    pub name: &'static str,
    /// Where it applies.
    pub scope: Scope,
    /// Programs that know the migrations up to this one work with what it makes: those of the version
    /// before run on while it is applied.
    pub readers: u16,
    text: &'static str,
}

/// All of them, in order.
pub const MIGRATIONS: [Migration; 2] = [
    Migration {
        number: 1,
        name: "shared",
        scope: Scope::Shared,
        readers: 1,
        text: include_str!("../../../cql/0001_shared.cql"),
    },
    Migration {
        number: 2,
        name: "region",
        scope: Scope::Region,
        readers: 2,
        text: include_str!("../../../cql/0002_region.cql"),
    },
];

/// A region, and where its replicas are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The datacenter.
    pub datacenter: String,
    /// Replicas there.
    pub replicas: u8,
}

/// What the keyspaces are called, and where they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// What the names of the keyspaces begin with.
    pub keyspace: String,
    /// The own region.
    pub region: String,
    /// All regions, the own one included.
    pub regions: BTreeMap<String, Placement>,
    /// How long a frame lives, in seconds.
    pub tape_ttl_s: u32,
}

/// Windows of a table whose rows expire, at most: ScyllaDB refuses more than 50.
const WINDOWS_MAX: u32 = 45;
/// The least that a window is worth, in hours.
const WINDOW_HOURS_MIN: u32 = 2;

impl Layout {
    /// The keyspace of tapes.
    #[must_use]
    pub fn shared(&self) -> &str {
        &self.keyspace
    }

    /// The keyspace of records.
    #[must_use]
    pub fn control(&self) -> String {
        format!("{}_ctl", self.keyspace)
    }

    /// The keyspace of the own region.
    #[must_use]
    pub fn of_region(&self) -> String {
        format!("{}_{}", self.keyspace, self.region.replace('-', "_"))
    }

    /// The keyspaces, and the replicas of each.
    #[must_use]
    pub(super) fn keyspaces(&self) -> [(String, Replicas<'_>); 3] {
        let everywhere = replicas(self.regions.values());
        let here = replicas(self.regions.get(&self.region));
        [
            (self.control(), everywhere.clone()),
            (self.shared().to_owned(), everywhere),
            (self.of_region(), here),
        ]
    }

    /// The tables of tapes, and how long their rows live at least, in seconds: the directory outlives
    /// the frames that it lists, which are written after it.
    #[must_use]
    pub(super) const fn lives(&self) -> [(&'static str, u32); 2] {
        [("tape", self.tape_ttl_s), ("tape_chunks", self.tape_ttl_s.saturating_mul(2))]
    }

    /// The statements that make what migrations need: keyspaces, and the tables in which
    /// migrations are written down.
    #[must_use]
    pub fn foundations(&self, dialect: Dialect) -> Vec<String> {
        let no_tablets = match dialect {
            Dialect::Cassandra => "",
            // Compare-and-set is not for tablets.
            Dialect::Scylla => " AND tablets = {'enabled': false}",
        };
        let control = self.control();
        let keyspaces = self.keyspaces().map(|(name, replicas)| {
            let options = if name == control { no_tablets } else { "" };
            let replication = replication(&replicas);
            format!("CREATE KEYSPACE IF NOT EXISTS {name} WITH replication = {replication}{options}")
        });
        let tables = [
            format!(
                "CREATE TABLE IF NOT EXISTS {control}.schema_migrations (scope text, number int, name text, \
                 checksum text, readers int, applied bigint, PRIMARY KEY (scope, number)) WITH id = {}",
                table_id(&format!("{control}.schema_migrations"))
            ),
            format!(
                "CREATE TABLE IF NOT EXISTS {control}.locks (name text PRIMARY KEY, owner text) WITH id = {}",
                table_id(&format!("{control}.locks"))
            ),
        ];
        keyspaces.into_iter().chain(tables).collect()
    }

    /// The name under which a scope's migrations are written down.
    #[must_use]
    pub fn scope(&self, scope: Scope) -> String {
        match scope {
            Scope::Shared => "shared".to_owned(),
            Scope::Region => format!("region {}", self.region),
        }
    }

    fn fill(&self, text: &str, dialect: Dialect) -> String {
        let class = match dialect {
            Dialect::Cassandra => "class",
            Dialect::Scylla => "sstable_compression",
        };
        let ttl_hours = self.tape_ttl_s.div_ceil(3_600);
        let window = ttl_hours.div_ceil(WINDOWS_MAX).max(WINDOW_HOURS_MIN);
        let [(_, tape_ttl), (_, chunk_ttl)] = self.lives();
        let table = text
            .split_once("EXISTS ")
            .and_then(|(_, rest)| rest.split_once(" ("))
            .map_or("", |(name, _)| name);
        let filled = [
            ("shared", self.shared().to_owned()),
            ("control", self.control()),
            ("region", self.of_region()),
            ("tape_ttl", tape_ttl.to_string()),
            ("chunk_ttl", chunk_ttl.to_string()),
            ("tape_window_hours", window.to_string()),
            ("lz4", format!("{{'{class}': 'LZ4Compressor', 'chunk_length_in_kb': 16}}")),
            (
                "zstd",
                format!("{{'{class}': 'ZstdCompressor', 'compression_level': 3, 'chunk_length_in_kb': 16}}"),
            ),
        ];
        let fill = |text: &str| {
            filled
                .iter()
                .fold(text.to_owned(), |text, (name, value)| text.replace(&format!("{{{{{name}}}}}"), value))
        };
        fill(text).replace("{{id}}", &table_id(&fill(table)))
    }
}

/// The id of a table `keyspace.name` that several nodes may make at once, before there is a lock or
/// after one was lost: the same from each, so that it is one table.
fn table_id(table: &str) -> String {
    let hash = blake3::hash(format!("tapeline table {table}").as_bytes()).to_hex();
    let parts =
        [0..8, 8..12, 12..16, 16..20, 20..32].map(|range| hash.get(range).unwrap_or_default().to_owned());
    parts.join("-")
}

/// Replicas by datacenter.
pub(super) type Replicas<'p> = BTreeMap<&'p str, u8>;

fn replicas<'p>(placements: impl IntoIterator<Item = &'p Placement>) -> Replicas<'p> {
    // Two regions may share a datacenter, as they do in tests: it has the most that one asks for.
    let mut replicas = Replicas::new();
    for placement in placements {
        let most = replicas.entry(&placement.datacenter).or_default();
        *most = placement.replicas.max(*most);
    }
    replicas
}

/// How CQL says it.
pub(super) fn replication(replicas: &BTreeMap<&str, impl Display>) -> String {
    let of_each = replicas.iter().map(|(datacenter, count)| format!(", '{datacenter}': {count}"));
    format!("{{'class': 'NetworkTopologyStrategy'{}}}", of_each.collect::<String>())
}

impl Migration {
    /// Its statements for this engine, in order.
    #[must_use]
    pub fn statements(&self, layout: &Layout, dialect: Dialect) -> Vec<String> {
        let lines = self.text.lines().filter(|line| !line.trim_start().starts_with("--"));
        let text = lines.collect::<Vec<_>>().join("\n");
        let statements = text.split(';').map(str::trim).filter(|statement| !statement.is_empty());
        statements.map(|statement| layout.fill(statement, dialect)).collect()
    }

    /// A digest of the file, by which a changed one is known.
    #[must_use]
    pub fn checksum(&self) -> String {
        blake3::hash(self.text.as_bytes()).to_hex().chars().take(32).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Layout {
        let place = |datacenter: &str| Placement { datacenter: datacenter.to_owned(), replicas: 3 };
        let regions = [("eu-west".to_owned(), place("dc1")), ("us".to_owned(), place("dc2"))];
        Layout {
            keyspace: "tapeline".to_owned(),
            region: "eu-west".to_owned(),
            regions: regions.into(),
            tape_ttl_s: 48 * 3_600,
        }
    }

    fn all(dialect: Dialect) -> Vec<String> {
        let layout = layout();
        let migrations = MIGRATIONS.iter().flat_map(|migration| migration.statements(&layout, dialect));
        layout.foundations(dialect).into_iter().chain(migrations).collect()
    }

    #[test]
    fn files_are_numbered_and_say_their_scope() {
        for (at, migration) in MIGRATIONS.iter().enumerate() {
            assert_eq!(usize::from(migration.number), at + 1);
            let scope = format!("-- scope: {}\n", format!("{:?}", migration.scope).to_lowercase());
            assert!(migration.text.contains(&scope), "{}", migration.name);
            assert!(
                migration.text.contains(&format!("-- readers: {}\n", migration.readers)),
                "{}",
                migration.name
            );
            assert!(migration.readers <= migration.number, "{}", migration.name);
            assert_eq!(migration.checksum().len(), 32);
        }
    }

    #[test]
    fn keyspaces_have_their_names_and_places() {
        let statements = all(Dialect::Cassandra);
        let everywhere = "{'class': 'NetworkTopologyStrategy', 'dc1': 3, 'dc2': 3}";
        assert!(statements[0].ends_with(&format!("tapeline_ctl WITH replication = {everywhere}")));
        assert!(statements[1].ends_with(&format!("tapeline WITH replication = {everywhere}")));
        let here = "tapeline_eu_west WITH replication = {'class': 'NetworkTopologyStrategy', 'dc1': 3}";
        assert!(statements[2].ends_with(here), "{}", statements[2]);
    }

    /// What either engine would refuse, or only one of them has.
    #[test]
    fn both_engines_take_every_statement() {
        for dialect in [Dialect::Cassandra, Dialect::Scylla] {
            for statement in all(dialect) {
                let lower = statement.to_lowercase();
                assert!(!statement.contains("{{") && !statement.contains("}}"), "not filled in: {statement}");
                assert!(lower.starts_with("create "), "{statement}");
                assert!(lower.contains("if not exists"), "it is safe to repeat: {statement}");
                for none in [
                    "materialized view",
                    "create index",
                    "custom index",
                    "counter",
                    "unifiedcompaction",
                    "gc_grace_seconds = 0",
                ] {
                    assert!(!lower.contains(none), "{none}: {statement}");
                }
                if let Some((_, map)) = statement.split_once("compression = ") {
                    let class =
                        if dialect == Dialect::Cassandra { "{'class': " } else { "{'sstable_compression': " };
                    assert!(
                        map.starts_with(class) && map.contains("'chunk_length_in_kb': 16"),
                        "{statement}"
                    );
                }
            }
        }
        let of =
            |dialect| all(dialect).into_iter().filter(|text| text.contains("tablets")).collect::<Vec<_>>();
        assert!(of(Dialect::Cassandra).is_empty());
        let of_scylla = of(Dialect::Scylla);
        assert!(of_scylla.len() == 1 && of_scylla[0].contains("tapeline_ctl"), "{of_scylla:?}");
    }

    /// Made twice it is one table; no two tables are one.
    #[test]
    fn each_table_has_an_id_of_its_own() {
        let statements = all(Dialect::Cassandra);
        let ids = statements.iter().filter(|text| text.starts_with("CREATE TABLE")).map(|text| {
            let (_, id) = text.split_once(" WITH id = ").unwrap();
            id.chars().take(36).collect::<String>()
        });
        let (count, ids) = (ids.clone().count(), ids.collect::<std::collections::BTreeSet<_>>());
        assert!(count == 9 && ids.len() == count, "{ids:?}");
        assert!(ids.iter().all(|id| id.split('-').map(str::len).eq([8, 4, 4, 4, 12])), "{ids:?}");
    }

    #[test]
    fn rows_that_expire_have_few_windows() {
        for hours in [1, 48, 90, 91, 24 * 30] {
            let layout = Layout { tape_ttl_s: hours * 3_600, ..layout() };
            for dialect in [Dialect::Cassandra, Dialect::Scylla] {
                let tape = MIGRATIONS[0].statements(&layout, dialect).remove(0);
                let number = |after: &str| -> u32 {
                    let (_, rest) = tape.split_once(after).unwrap();
                    let digits = rest.chars().take_while(char::is_ascii_digit).collect::<String>();
                    digits.parse().unwrap()
                };
                let window = number("'compaction_window_size': ");
                assert_eq!(number("default_time_to_live = "), hours * 3_600);
                let chunks = MIGRATIONS[0].statements(&layout, dialect).remove(1);
                let life = format!("default_time_to_live = {}\n", hours * 7_200);
                assert!(chunks.contains(&life), "the directory outlives what it lists: {chunks}");
                assert!((hours.div_ceil(window)) <= 50 && window >= 2, "{hours} h: {window} h");
            }
        }
    }
}
