//! Configuration: compiled-in defaults, then file, environment and flags.
//!
//! | later wins | written as |
//! |---|---|
//! | default | `config.default.toml`, compiled in: every key, its default and its why |
//! | subcommand | defaults of its own, where it has any: `demo` |
//! | file | TOML of the same shape, only the keys that differ |
//! | environment | `TAPELINE__SECTION__KEY=value` |
//! | flags | `--set section.key=value`, and named ones such as `--listen` |
//!
//! A key that does not exist is an error that names the nearest one that does. A value is
//! checked against its rule (type, range, form) when it is read, and all values together
//! afterwards; each error names key, value, what would be right and where it came from.
//! Secrets are wrapped and never printed. Numbers have their unit in the name.
//!
//! Environment variables are read in [`environment`] and [`env_credentials`] and nowhere else.

mod sections;
mod cassandra;
mod hot;
mod rules;
mod load;
mod env;

pub use cassandra::{Cassandra, RegionPlace};
pub use env::{Credentials, env_credentials, environment};
pub use hot::Redis;
pub use load::{ConfigError, DEFAULTS, Effective, Layers, Loaded, Source};
pub use sections::{
    Access, Backend, Config, Demo, History, Http, Ingest, Live, LogFormat, Node, Store, Subs, Tape,
    Telemetry, TlsVersion,
};
