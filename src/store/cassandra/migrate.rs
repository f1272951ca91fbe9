//! Migrations: what `cql/` asks for, brought about once, by one node at a time.

use std::collections::BTreeMap;
use std::time::Duration;

use scylla::statement::Consistency;
use scylla::statement::SerialConsistency;
use scylla::statement::unprepared::Statement;
use tokio::time::{Instant, sleep};

use super::errors;
use super::schema::{Layout, MIGRATIONS, Migration, Scope};
use super::session::{CassandraOptions, Cluster};
use crate::market::Nanos;
use crate::store::StoreError;

/// How a migration stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is to be applied.
    Pending,
    /// It was applied.
    Applied {
        /// When.
        at: Nanos,
    },
    /// It was applied from another text.
    Changed {
        /// The checksum of that text.
        applied: String,
    },
    /// A newer program applied it; this one does not know it.
    Unknown,
}

/// A migration of a scope, and how it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// `shared`, or `region NAME`.
    pub scope: String,
    /// Its number.
    pub number: u16,
    /// Its name.
    pub name: String,
    /// The checksum of this program's text; none where it does not know it.
    pub checksum: String,
    /// Programs that know the migrations up to this one work with it.
    pub readers: u16,
    /// How it stands.
    pub standing: Standing,
    /// What it runs.
    pub statements: Vec<String>,
}

/// The highest migration that this program knows.
const KNOWN: u16 = {
    let [.., last] = MIGRATIONS;
    last.number
};
/// A lock that is not renewed ends after so long.
const LOCK_TTL_S: i32 = 60;
/// Between two tries to take it.
const LOCK_AGAIN: Duration = Duration::from_millis(500);
/// A statement that the database did not take is tried so often: nodes that do not answer are
/// waited for.
const TRIES: u32 = 5;
const TRY_AGAIN: Duration = Duration::from_secs(2);
const LOCK: &str = "migrations";

/// The schema of a cluster.
pub struct Schema {
    cluster: Cluster,
    layout: Layout,
}

impl Schema {
    /// Connects.
    ///
    /// # Errors
    /// `Unknown` where the cluster cannot be reached; `Invalid` where it has no such datacenter.
    pub async fn connect(options: &CassandraOptions) -> Result<Self, StoreError> {
        Ok(Self { cluster: Cluster::connect(options).await?, layout: options.layout.clone() })
    }

    /// What stands how, in order.
    ///
    /// # Errors
    /// `Unknown`.
    pub async fn status(&self) -> Result<Vec<Step>, StoreError> {
        steps(&self.cluster, &self.layout).await
    }

    /// What migrations stand on: keyspaces, and where they are written down.
    #[must_use]
    pub fn foundations(&self) -> Vec<String> {
        self.layout.foundations(self.cluster.dialect)
    }

    /// Applies what is pending, telling each migration before it begins. Waits for another node that
    /// applies, at most `patience`. Where nothing is pending nothing is written.
    ///
    /// # Errors
    /// `Invalid` where something was applied from another text, or by a newer program that this one
    /// cannot run beside; `Refused` where another node does not finish; `Unknown`.
    pub async fn apply(
        &self,
        patience: Duration,
        mut telling: impl FnMut(&Step),
    ) -> Result<usize, StoreError> {
        let steps = self.status().await?;
        steps.iter().try_for_each(check_known)?;
        if steps.iter().all(|step| step.standing != Standing::Pending) {
            return Ok(0);
        }
        for statement in self.foundations() {
            self.define(&statement, None).await?;
        }
        let owner = format!("{:016x}", rand::random::<u64>());
        self.lock(&owner, patience).await?;
        let applied = self.apply_locked(&owner, &mut telling).await;
        let release =
            format!("DELETE FROM {}.locks WHERE name = '{LOCK}' IF owner = '{owner}'", self.layout.control());
        if let Err(error) = self.agree(&release).await {
            tracing::warn!(%error, "the lock of the migrations was not given back; it ends by itself within a minute");
        }
        applied
    }

    async fn apply_locked(&self, owner: &str, telling: &mut impl FnMut(&Step)) -> Result<usize, StoreError> {
        let mut count = 0;
        for step in self.status().await? {
            check_known(&step)?;
            if step.standing != Standing::Pending {
                continue;
            }
            telling(&step);
            for statement in &step.statements {
                self.define(statement, Some(owner)).await?;
            }
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            let values = (
                step.scope,
                i32::from(step.number),
                step.name,
                step.checksum,
                i32::from(step.readers),
                i64::try_from(now.as_nanos()).unwrap_or_default(),
            );
            let insert = format!(
                "INSERT INTO {}.schema_migrations (scope, number, name, checksum, readers, applied) VALUES (?, ?, ?, ?, ?, ?)",
                self.layout.control()
            );
            let mut insert = Statement::new(insert);
            insert.set_consistency(Consistency::EachQuorum);
            insert.set_is_idempotent(true);
            let written = self.cluster.session().query_unpaged(insert, values).await;
            written.map_err(|error| errors::of_write("a migration", &error))?;
            count += 1;
        }
        Ok(count)
    }

    /// Runs a statement, by the owner of the lock where there is one: each try begins with the lock
    /// renewed.
    async fn define(&self, statement: &str, owner: Option<&str>) -> Result<(), StoreError> {
        let mut tries = 1;
        loop {
            if let Some(owner) = owner {
                self.renew(owner).await?;
            }
            match self.cluster.define(statement).await {
                Ok(()) => return Ok(()),
                Err(error) if tries >= TRIES => return Err(errors::of_write(statement, &error)),
                Err(error) => tracing::warn!(%error, "a change of the schema is tried again"),
            }
            tries += 1;
            sleep(TRY_AGAIN).await;
        }
    }

    async fn lock(&self, owner: &str, patience: Duration) -> Result<(), StoreError> {
        let until = Instant::now() + patience;
        let take = format!(
            "INSERT INTO {}.locks (name, owner) VALUES ('{LOCK}', '{owner}') IF NOT EXISTS USING TTL {LOCK_TTL_S}",
            self.layout.control()
        );
        loop {
            let failed = match self.agree(&take).await {
                Ok(true) => return Ok(()),
                // Somebody else has it, or nobody knows whether it was taken: both end by themselves.
                Ok(false) => {
                    StoreError::refused("another node is applying migrations and has not finished; try again")
                }
                Err(error) => {
                    tracing::warn!(%error, "the lock of the migrations is tried again");
                    let why = "it needs a majority of the replicas of all regions";
                    StoreError { detail: format!("{}; {why}", error.detail), ..error }
                }
            };
            if Instant::now() >= until {
                return Err(failed);
            }
            sleep(LOCK_AGAIN).await;
        }
    }

    async fn renew(&self, owner: &str) -> Result<(), StoreError> {
        let renew = format!(
            "UPDATE {}.locks USING TTL {LOCK_TTL_S} SET owner = '{owner}' WHERE name = '{LOCK}' IF owner = '{owner}'",
            self.layout.control()
        );
        match self.agree(&renew).await? {
            true => Ok(()),
            false => {
                Err(StoreError::refused("the lock of the migrations was lost to another node; try again"))
            }
        }
    }

    /// A majority of all replicas agrees; whether it was applied.
    async fn agree(&self, text: &str) -> Result<bool, StoreError> {
        let mut statement = Statement::new(text);
        statement.set_consistency(Consistency::Quorum);
        statement.set_serial_consistency(Some(SerialConsistency::Serial));
        let answer = self.cluster.session().query_unpaged(statement, &[]).await;
        let answer = answer.map_err(|error| errors::of_write("the lock of the migrations", &error))?;
        super::records::applied(
            &answer.into_rows_result().map_err(|error| errors::of_rows("the lock", &error))?,
        )
    }
}

/// Whether the schema is what this program needs.
///
/// # Errors
/// `Invalid` with what is missing or other, and what to do.
pub(super) async fn verify(cluster: &Cluster, layout: &Layout) -> Result<(), StoreError> {
    for step in steps(cluster, layout).await? {
        check_known(&step)?;
        if step.standing == Standing::Pending {
            return Err(StoreError::invalid(format!(
                "migration {:04}_{} ({}) is not applied: run `tapeline migrate apply`",
                step.number, step.name, step.scope
            )));
        }
    }
    Ok(())
}

fn check_known(step: &Step) -> Result<(), StoreError> {
    let (number, name, scope) = (step.number, &step.name, &step.scope);
    match &step.standing {
        Standing::Pending | Standing::Applied { .. } => Ok(()),
        Standing::Changed { applied } => Err(StoreError::invalid(format!(
            "migration {number:04}_{name} ({scope}) was applied from another text ({applied}) than this program has ({}): \
             run the program that applied it, or one that knows the change",
            step.checksum
        ))),
        // What a newer program made leaves this one's tables as they are, for as long as both run.
        Standing::Unknown if step.readers <= KNOWN => Ok(()),
        Standing::Unknown => Err(StoreError::invalid(format!(
            "migration {number:04}_{name} ({scope}) was applied by a newer program, and is not for this one: run that one"
        ))),
    }
}

async fn steps(cluster: &Cluster, layout: &Layout) -> Result<Vec<Step>, StoreError> {
    let mut steps = Vec::new();
    let mut applied = applied(cluster, layout).await?;
    for migration in MIGRATIONS {
        let scope = layout.scope(migration.scope);
        let standing = match applied.remove(&(scope.clone(), i32::from(migration.number))) {
            None => Standing::Pending,
            Some(row) if row.checksum == migration.checksum() => Standing::Applied { at: row.at },
            Some(row) => Standing::Changed { applied: row.checksum },
        };
        let Migration { number, name, readers, .. } = migration;
        let (name, checksum) = (name.to_owned(), migration.checksum());
        steps.push(Step {
            scope,
            number,
            name,
            checksum,
            readers,
            standing,
            statements: migration.statements(layout, cluster.dialect),
        });
    }
    for ((scope, number), Applied { name, readers, .. }) in applied {
        let number = u16::try_from(number).unwrap_or(u16::MAX);
        steps.push(Step {
            scope,
            number,
            name,
            checksum: String::new(),
            readers,
            standing: Standing::Unknown,
            statements: Vec::new(),
        });
    }
    Ok(steps)
}

/// What is written down of a migration.
struct Applied {
    name: String,
    checksum: String,
    readers: u16,
    at: Nanos,
}

/// What was applied, by scope and number.
async fn applied(cluster: &Cluster, layout: &Layout) -> Result<BTreeMap<(String, i32), Applied>, StoreError> {
    let what = "the migrations that were applied";
    let there = "SELECT table_name FROM system_schema.tables WHERE keyspace_name = ? AND table_name = 'schema_migrations'";
    let there: Vec<(String,)> = cluster.ask(what, there, (layout.control(),)).await?;
    let mut all = BTreeMap::new();
    if there.is_empty() {
        return Ok(all);
    }
    let text = format!(
        "SELECT number, name, checksum, readers, applied FROM {}.schema_migrations WHERE scope = ?",
        layout.control()
    );
    for scope in [Scope::Shared, Scope::Region].map(|scope| layout.scope(scope)) {
        let rows: Vec<(i32, String, String, i32, i64)> = cluster.ask(what, &text, (&scope,)).await?;
        for (number, name, checksum, readers, at) in rows {
            let readers = u16::try_from(readers).unwrap_or(u16::MAX);
            all.insert((scope.clone(), number), Applied { name, checksum, readers, at: Nanos(at) });
        }
    }
    Ok(all)
}
