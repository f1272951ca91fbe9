//! The connection to the cluster: one driver session to all datacenters, and statements that only
//! the replicas of one of them answer.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use scylla::client::PoolSize;
use scylla::client::execution_profile::{ExecutionProfile, ExecutionProfileHandle};
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::errors::ExecutionError;
use scylla::policies::load_balancing::DefaultPolicy;
use scylla::policies::retry::{DefaultRetryPolicy, FallthroughRetryPolicy};
use scylla::policies::speculative_execution::{SimpleSpeculativeExecutionPolicy, SpeculativeExecutionPolicy};
use scylla::policies::timestamp_generator::MonotonicTimestampGenerator;
use scylla::response::query_result::QueryResult;
use scylla::serialize::row::SerializeRow;
use scylla::statement::prepared::PreparedStatement;
use scylla::statement::unprepared::Statement;
use scylla::statement::{Consistency, SerialConsistency};
use secrecy::{ExposeSecret as _, SecretString};

use super::errors;
use super::schema::{Dialect, Layout};
use crate::store::StoreError;

/// How the cluster is reached.
#[derive(Clone, Debug)]
pub struct CassandraOptions {
    /// Addresses `host:port` of some of its nodes, best of the own datacenter.
    pub nodes: Vec<String>,
    /// What the keyspaces are called and where they are.
    pub layout: Layout,
    /// The own rack, whose replicas are asked first.
    pub rack: Option<String>,
    /// A name and its password.
    pub user: Option<(String, SecretString)>,
    /// TLS, by this authority's certificate as PEM; the nodes' addresses must be in theirs.
    pub ca: Option<Vec<u8>>,
    /// Time for a connection.
    pub connect: Duration,
    /// Time for a statement.
    pub request: Duration,
    /// A node that has not answered a statement for so long is not waited for alone: another one is
    /// given the same; nobody is where it is zero.
    pub hedge: Duration,
    /// Connections to each node, and on ScyllaDB to each of its shards.
    pub connections: usize,
    /// Bytes of frames that are being appended at once; more are refused.
    pub append_bytes_max: usize,
    /// Statements of one flush of a keeper that are under way at once.
    pub flush_statements: usize,
}

/// Who answers a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// A quorum of the replicas of one datacenter, read; it may be tried again.
    Read,
    /// The same, written; the driver tries it once.
    Write,
    /// A quorum of each datacenter, written.
    WriteAll,
    /// A majority of one datacenter's replicas agrees; also for reading what they agreed on.
    Agree,
}

/// A session, and profiles by datacenter.
pub(super) struct Cluster {
    session: Session,
    profiles: BTreeMap<String, [ExecutionProfileHandle; 3]>,
    /// What speaks.
    pub(super) dialect: Dialect,
}

/// How often a connection is asked for a sign of life, and how long it may take to give one: a node that
/// hangs is left out soon.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(3));

impl Cluster {
    /// Connects, and looks whether the datacenters of all regions are there.
    ///
    /// # Errors
    /// `Unknown` where the cluster cannot be reached; `Invalid` where it has no such datacenter, or
    /// the authority's certificate is none.
    pub(super) async fn connect(options: &CassandraOptions) -> Result<Self, StoreError> {
        let layout = &options.layout;
        let mut profiles = BTreeMap::new();
        for (region, placement) in &layout.regions {
            let rack = options.rack.as_deref().filter(|_| *region == layout.region);
            profiles.entry(placement.datacenter.clone()).or_insert_with(|| {
                [Mode::Read, Mode::Write, Mode::WriteAll]
                    .map(|mode| profile(&placement.datacenter, rack, options, mode))
            });
        }
        let own = layout
            .regions
            .get(&layout.region)
            .ok_or_else(|| StoreError::invalid(format!("region {:?} has no datacenter", layout.region)))?;
        let default = profiles.get(&own.datacenter).map(|[read, ..]| read.clone());
        let tls = options.ca.as_deref().map(tls).transpose()?;
        let mut builder = SessionBuilder::new()
            .known_nodes(&options.nodes)
            .prefer_datacenter(own.datacenter.clone())
            .tls_context(tls)
            .pool_size(PoolSize::PerShard(
                NonZeroUsize::new(options.connections).unwrap_or(NonZeroUsize::MIN),
            ))
            .timestamp_generator(Arc::new(MonotonicTimestampGenerator::new()))
            .fetch_full_schema_metadata(false)
            .keepalive_interval(KEEPALIVE.0)
            .keepalive_timeout(KEEPALIVE.1)
            .connection_timeout(options.connect)
            .driver_config_reporting(false);
        if let Some(default) = default {
            builder = builder.default_execution_profile_handle(default);
        }
        if let Some((name, password)) = &options.user {
            builder = builder.user(name, password.expose_secret());
        }
        let session = builder.build().await.map_err(|error| {
            let nodes = options.nodes.join(", ");
            StoreError::unknown(format!("the database at {nodes} cannot be reached: {error}"))
        })?;
        let state = session.get_cluster_state();
        let known: Vec<&str> =
            state.get_nodes_info().iter().filter_map(|node| node.datacenter.as_deref()).collect();
        for (region, placement) in &layout.regions {
            if !known.contains(&placement.datacenter.as_str()) {
                let datacenter = &placement.datacenter;
                return Err(StoreError::invalid(format!(
                    "cassandra.regions puts region {region} into datacenter {datacenter}, which the database does not have; it has {}",
                    known
                        .iter()
                        .copied()
                        .collect::<std::collections::BTreeSet<_>>()
                        .into_iter()
                        .collect::<Vec<_>>()
                        .join(", ")
                )));
            }
        }
        let scylla = session.query_unpaged("SELECT key FROM system.scylla_local LIMIT 1", &[]).await;
        let dialect = if scylla.is_ok() { Dialect::Scylla } else { Dialect::Cassandra };
        Ok(Self { session, profiles, dialect })
    }

    /// The driver's session.
    pub(super) const fn session(&self) -> &Session {
        &self.session
    }

    /// Prepares a statement that a datacenter answers. All are safe to repeat.
    ///
    /// # Errors
    /// `Invalid`: the tables are not those of this program, or nobody can be asked.
    pub(super) async fn prepare(
        &self,
        datacenter: &str,
        text: &str,
        mode: Mode,
    ) -> Result<PreparedStatement, StoreError> {
        let mut prepared = self
            .session
            .prepare(Statement::new(text))
            .await
            .map_err(|error| StoreError::invalid(format!("the statement {text:?}: {error}")))?;
        let profiles = self.profiles.get(datacenter);
        let profile = profiles.map(|[read, write, write_all]| match mode {
            Mode::Read => read,
            Mode::Write | Mode::Agree => write,
            Mode::WriteAll => write_all,
        });
        prepared.set_execution_profile_handle(profile.cloned());
        prepared.set_is_idempotent(mode != Mode::Agree);
        prepared.set_consistency(if mode == Mode::WriteAll {
            Consistency::EachQuorum
        } else {
            Consistency::LocalQuorum
        });
        prepared.set_serial_consistency(Some(SerialConsistency::LocalSerial));
        Ok(prepared)
    }

    /// Runs a statement that writes.
    ///
    /// # Errors
    /// As a store's write.
    pub(super) async fn write(
        &self,
        what: &str,
        statement: &PreparedStatement,
        values: impl SerializeRow,
    ) -> Result<(), StoreError> {
        let done = self.session.execute_unpaged(statement, values).await;
        done.map(drop).map_err(|error| errors::of_write(what, &error))
    }

    /// Runs a statement that reads.
    ///
    /// # Errors
    /// `Unknown`, `Corrupt`.
    pub(super) async fn read<R>(
        &self,
        what: &str,
        statement: &PreparedStatement,
        values: impl SerializeRow,
    ) -> Result<Vec<R>, StoreError>
    where
        R: for<'f, 'm> scylla::deserialize::row::DeserializeRow<'f, 'm>,
    {
        decoded(what, self.session.execute_unpaged(statement, values).await)
    }

    /// Runs a text that reads, where it is asked once: it is not prepared.
    ///
    /// # Errors
    /// `Unknown`, `Corrupt`.
    pub(super) async fn ask<R>(
        &self,
        what: &str,
        text: &str,
        values: impl SerializeRow,
    ) -> Result<Vec<R>, StoreError>
    where
        R: for<'f, 'm> scylla::deserialize::row::DeserializeRow<'f, 'm>,
    {
        let mut statement = Statement::new(text);
        statement.set_is_idempotent(true);
        decoded(what, self.session.query_unpaged(statement, values).await)
    }

    /// Runs a text that changes the schema.
    ///
    /// # Errors
    /// What the database says.
    pub(super) async fn define(&self, text: &str) -> Result<(), ExecutionError> {
        let mut statement = Statement::new(text);
        statement.set_is_idempotent(true);
        statement.set_request_timeout(Some(Duration::from_secs(60)));
        self.session.query_unpaged(statement, &[]).await.map(drop)
    }
}

fn decoded<R>(what: &str, answer: Result<QueryResult, ExecutionError>) -> Result<Vec<R>, StoreError>
where
    R: for<'f, 'm> scylla::deserialize::row::DeserializeRow<'f, 'm>,
{
    let answer = answer.map_err(|error| errors::of_read(what, &error))?;
    let rows = answer.into_rows_result().map_err(|error| errors::of_rows(what, &error))?;
    let rows = rows.rows::<R>().map_err(|error| errors::of_rows(what, &error))?;
    rows.collect::<Result<Vec<R>, _>>().map_err(|error| errors::of_rows(what, &error))
}

/// A datacenter's replicas and nobody else: another one's quorum would be another promise.
fn profile(
    datacenter: &str,
    rack: Option<&str>,
    options: &CassandraOptions,
    mode: Mode,
) -> ExecutionProfileHandle {
    let policy = DefaultPolicy::builder().token_aware(true).permit_dc_failover(false);
    let policy = match rack {
        Some(rack) => policy.prefer_datacenter_and_rack(datacenter.to_owned(), rack.to_owned()),
        None => policy.prefer_datacenter(datacenter.to_owned()),
    };
    let builder = ExecutionProfile::builder()
        .consistency(Consistency::LocalQuorum)
        .serial_consistency(Some(SerialConsistency::LocalSerial))
        .request_timeout(Some(options.request))
        .load_balancing_policy(policy.build());
    // Of a write too: it is the same row, and whichever coordinator says Ok has a quorum. What waits for
    // other regions is no sign of a slow node.
    let hedge = SimpleSpeculativeExecutionPolicy { max_retry_count: 1, retry_interval: options.hedge };
    let hedge: Option<Arc<dyn SpeculativeExecutionPolicy>> =
        if options.hedge.is_zero() || mode == Mode::WriteAll { None } else { Some(Arc::new(hedge)) };
    let builder = builder.speculative_execution_policy(hedge);
    let builder = if mode == Mode::Read {
        builder.retry_policy(Arc::new(DefaultRetryPolicy::new()))
    } else {
        builder.retry_policy(Arc::new(FallthroughRetryPolicy::new()))
    };
    builder.build().into_handle()
}

fn tls(ca: &[u8]) -> Result<Arc<rustls::ClientConfig>, StoreError> {
    let bad = |why: String| {
        StoreError::invalid(format!("cassandra.tls_ca holds no certificate of an authority: {why}"))
    };
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca) {
        let certificate = certificate.map_err(|error| bad(error.to_string()))?;
        roots.add(certificate).map_err(|error| bad(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(bad("there is none in it".to_owned()));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| bad(error.to_string()))?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}
