//! Records in one table, written in the way of their space.

use std::ops::RangeInclusive;

use scylla::statement::prepared::PreparedStatement;

use super::errors;
use super::session::{Cluster, Mode};
use crate::store::{Reach, Record, Space, StoreError};

/// The statements of one datacenter.
pub(super) struct RecordStatements {
    get: PreparedStatement,
    get_agreed: PreparedStatement,
    scan: PreparedStatement,
    put: PreparedStatement,
    put_all: PreparedStatement,
    insert_if: PreparedStatement,
    update_if: PreparedStatement,
}

type Stored = (String, i64, Vec<u8>);

impl RecordStatements {
    pub(super) async fn prepare(
        cluster: &Cluster,
        keyspace: &str,
        datacenter: &str,
    ) -> Result<Self, StoreError> {
        let get = format!(
            "SELECT key, version, body FROM {keyspace}.records WHERE space = ? AND part = ? AND key = ?"
        );
        let scan = format!(
            "SELECT key, version, body FROM {keyspace}.records WHERE space = ? AND part = ? AND key > ? LIMIT ?"
        );
        let put = format!(
            "INSERT INTO {keyspace}.records (space, part, key, version, body) VALUES (?, ?, ?, ?, ?) \
             USING TIMESTAMP ? AND TTL ?"
        );
        let insert_if = format!(
            "INSERT INTO {keyspace}.records (space, part, key, version, body) VALUES (?, ?, ?, ?, ?) \
             IF NOT EXISTS USING TTL ?"
        );
        let update_if = format!(
            "UPDATE {keyspace}.records USING TTL ? SET version = ?, body = ? WHERE space = ? AND part = ? AND key = ? \
             IF version = ?"
        );
        let mut get_agreed = cluster.prepare(datacenter, &get, Mode::Agree).await?;
        get_agreed.set_consistency(scylla::statement::Consistency::LocalSerial);
        Ok(Self {
            get: cluster.prepare(datacenter, &get, Mode::Read).await?,
            get_agreed,
            scan: cluster.prepare(datacenter, &scan, Mode::Read).await?,
            put: cluster.prepare(datacenter, &put, Mode::Write).await?,
            put_all: cluster.prepare(datacenter, &put, Mode::WriteAll).await?,
            insert_if: cluster.prepare(datacenter, &insert_if, Mode::Agree).await?,
            update_if: cluster.prepare(datacenter, &update_if, Mode::Agree).await?,
        })
    }

    pub(super) async fn get(
        &self,
        cluster: &Cluster,
        space: Space,
        part: &str,
        key: &str,
        is_agreed: bool,
    ) -> Result<Option<Record>, StoreError> {
        let statement = if is_agreed { &self.get_agreed } else { &self.get };
        let rows: Vec<Stored> = cluster.read("a record", statement, (space.name(), part, key)).await?;
        Ok(rows.into_iter().next().map(record))
    }

    pub(super) async fn scan(
        &self,
        cluster: &Cluster,
        space: Space,
        part: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Record>, StoreError> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let limit = i32::try_from(limit).unwrap_or(i32::MAX);
        let values = (space.name(), part, after.unwrap_or_default(), limit);
        let rows: Vec<Stored> = cluster.read("records", &self.scan, values).await?;
        Ok(rows.into_iter().map(record).collect())
    }

    /// The version is the timestamp, so that the higher one wins wherever and whenever it arrives; of
    /// one version the larger body does.
    pub(super) async fn put(
        &self,
        cluster: &Cluster,
        space: Space,
        part: &str,
        record: &Record,
        ttl_s: u32,
        reach: Reach,
    ) -> Result<(), StoreError> {
        let (version, ttl) = (signed(record.version)?, ttl(ttl_s));
        let body = record.body.as_ref();
        let values = (space.name(), part, &record.key, version, body, version, ttl);
        let statement = if reach == Reach::All { &self.put_all } else { &self.put };
        cluster.write("a record", statement, values).await
    }

    pub(super) async fn put_if(
        &self,
        cluster: &Cluster,
        space: Space,
        part: &str,
        record: &Record,
        expected: u64,
        ttl_s: u32,
    ) -> Result<bool, StoreError> {
        let (version, expected, ttl) = (signed(record.version)?, signed(expected)?, ttl(ttl_s));
        let (name, key, body) = (space.name(), record.key.as_str(), record.body.as_ref());
        let session = cluster.session();
        let answer = if expected == 0 {
            session.execute_unpaged(&self.insert_if, (name, part, key, version, body, ttl)).await
        } else {
            session.execute_unpaged(&self.update_if, (ttl, version, body, name, part, key, expected)).await
        };
        let answer = answer.map_err(|error| errors::of_write("a record, if it was not changed", &error))?;
        applied(&answer.into_rows_result().map_err(|error| errors::of_rows("a record", &error))?)
    }
}

/// What a compare-and-set answers: which columns come with `[applied]` differs by engine.
pub(super) fn applied(answer: &scylla::response::query_result::QueryRowsResult) -> Result<bool, StoreError> {
    let none = || StoreError::corrupt("the database did not say whether a record was written");
    let at = answer.column_specs().iter().position(|column| column.name() == "[applied]").ok_or_else(none)?;
    let row =
        answer.first_row::<scylla::value::Row>().map_err(|error| errors::of_rows("a record", &error))?;
    match row.columns.get(at) {
        Some(Some(scylla::value::CqlValue::Boolean(applied))) => Ok(*applied),
        _ => Err(none()),
    }
}

/// Versions that fit the database's numbers.
const VERSIONS: RangeInclusive<u64> = 0..=i64::MAX as u64;

fn signed(version: u64) -> Result<i64, StoreError> {
    if VERSIONS.contains(&version) {
        Ok(version.cast_signed())
    } else {
        Err(StoreError::invalid(format!("{version} is no version")))
    }
}

fn ttl(seconds: u32) -> i32 {
    i32::try_from(seconds).unwrap_or(i32::MAX)
}

fn record((key, version, body): Stored) -> Record {
    Record { key, version: version.cast_unsigned(), body: body.into() }
}
