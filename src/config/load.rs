//! Layers into one configuration.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::rules::{RULES, Rule, rule_of};
use super::{Config, env};

/// The defaults, compiled in.
const DEFAULTS: &str = include_str!("../../config.default.toml");

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// `config.default.toml`.
    Default,
    /// This file.
    File(PathBuf),
    /// This environment variable.
    Environment(String),
    /// This flag, such as `--set` or `--listen`.
    Flag(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// Why there is no configuration. The text says key, value, source and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the configuration file {path} cannot be read: {detail}")]
    Unreadable {
        /// The file.
        path: String,
        /// What the system said.
        detail: String,
    },
    /// The file is no TOML.
    #[error("the configuration file {path} is not valid TOML: {detail}")]
    Syntax {
        /// The file.
        path: String,
        /// Line and reason.
        detail: String,
    },
    /// There is no such key.
    #[error("there is no key {key} ({from}){}", nearest.as_ref().map(|n| format!("; did you mean {n}?")).unwrap_or_default())]
    UnknownKey {
        /// The key.
        key: String,
        /// Where it stands.
        from: Source,
        /// The nearest key that exists.
        nearest: Option<String>,
    },
    /// A `--set` is not of the form `section.key=value`.
    #[error("--set {text} is not of the form section.key=value")]
    NotAnAssignment {
        /// What was given.
        text: String,
    },
    /// A value is not what it must be.
    #[error("{key} = {value} ({from}) must be {expected}")]
    Value {
        /// The key.
        key: String,
        /// The value, masked where it is a secret.
        value: String,
        /// Where it stands.
        from: Source,
        /// What would be right.
        expected: String,
    },
}

/// What is laid over the defaults.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    /// A TOML file.
    pub file: Option<PathBuf>,
    /// Variables `TAPELINE__SECTION__KEY` (see [`super::environment`]).
    pub environment: Vec<(String, String)>,
    /// Texts `section.key=value` of `--set`, in order.
    pub sets: Vec<String>,
    /// Named flags: (flag, key, value). They win over `--set`.
    pub flags: Vec<(String, String, String)>,
}

/// A configuration and where it came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Each value with its source.
    pub effective: Effective,
}

/// Every key with its value and where that came from.
#[derive(Clone, Debug)]
pub struct Effective {
    values: BTreeMap<&'static str, (Value, Source)>,
}

impl Layers {
    /// Lays the layers over the defaults and checks the result.
    ///
    /// # Errors
    /// [`ConfigError`]; the first one found.
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        let mut effective = Effective { values: BTreeMap::new() };
        effective.lay_toml(DEFAULTS, &Source::Default, Path::new("config.default.toml"))?;
        if let Some(path) = &self.file {
            let text = std::fs::read_to_string(path).map_err(|error| ConfigError::Unreadable {
                path: path.display().to_string(),
                detail: error.to_string(),
            })?;
            effective.lay_toml(&text, &Source::File(path.clone()), path)?;
        }
        for (name, value) in &self.environment {
            effective.lay_text(&env::key_of(name), value, Source::Environment(name.clone()))?;
        }
        for text in &self.sets {
            let (key, value) =
                text.split_once('=').ok_or_else(|| ConfigError::NotAnAssignment { text: text.clone() })?;
            effective.lay_text(key.trim(), value.trim(), Source::Flag("--set".to_owned()))?;
        }
        for (flag, key, value) in &self.flags {
            effective.lay_text(key, value, Source::Flag(flag.clone()))?;
        }
        let config = effective.to_config()?;
        effective.check_together(&config)?;
        Ok(Loaded { config, effective })
    }
}

impl Config {
    /// The defaults with some keys set, for tests and embedding.
    ///
    /// # Errors
    /// [`ConfigError`] as [`Layers::load`].
    pub fn with(sets: &[&str]) -> Result<Self, ConfigError> {
        let sets = sets.iter().map(|&text| text.to_owned()).collect();
        Layers { sets, ..Layers::default() }.load().map(|loaded| loaded.config)
    }
}

impl Effective {
    /// Every key in the order of the default file, its value as TOML (secrets masked), its source.
    pub fn rows(&self) -> impl Iterator<Item = (&'static str, String, &Source)> {
        RULES.iter().filter_map(|(key, rule)| {
            let (value, source) = self.values.get(key)?;
            Some((*key, shown(*rule, value), source))
        })
    }

    fn lay_toml(&mut self, text: &str, source: &Source, path: &Path) -> Result<(), ConfigError> {
        let sections: Table = toml::from_str(text).map_err(|error: toml::de::Error| ConfigError::Syntax {
            path: path.display().to_string(),
            detail: error.to_string(),
        })?;
        for (section, keys) in sections {
            let Value::Table(keys) = keys else { return Err(unknown(&section, source.clone())) };
            for (key, value) in keys {
                self.lay(&format!("{section}.{key}"), source.clone(), |_| value)?;
            }
        }
        Ok(())
    }

    fn lay_text(&mut self, key: &str, text: &str, source: Source) -> Result<(), ConfigError> {
        self.lay(key, source, |rule| rule.value_of(text))
    }

    fn lay(&mut self, key: &str, from: Source, value: impl FnOnce(Rule) -> Value) -> Result<(), ConfigError> {
        let Some((key, rule)) = RULES.iter().find(|(name, _)| *name == key) else {
            return Err(unknown(key, from));
        };
        let value = value(*rule);
        if !rule.allows(&value) {
            return Err(ConfigError::Value {
                key: (*key).to_owned(),
                value: shown(*rule, &value),
                from,
                expected: rule.expected(),
            });
        }
        self.values.insert(key, (value, from));
        Ok(())
    }

    fn to_config(&self) -> Result<Config, ConfigError> {
        let mut sections = Table::new();
        for (key, (value, _)) in &self.values {
            let (section, name) = key.split_once('.').unwrap_or((key, ""));
            let section = sections.entry(section).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(section) = section {
                section.insert(name.to_owned(), value.clone());
            }
        }
        sections.try_into().map_err(|error: toml::de::Error| ConfigError::Syntax {
            path: "config.default.toml".to_owned(),
            detail: error.to_string(),
        })
    }

    /// What must hold between keys.
    fn check_together(&self, config: &Config) -> Result<(), ConfigError> {
        let Config { http, ingest, tape, history, .. } = config;
        let same_door = http.listen == http.admin_listen && http.listen.port() != 0;
        let rules = [
            (!same_door, "http.admin_listen", "another address than http.listen"),
            (
                http.connections_per_source_max <= http.connections_max,
                "http.connections_per_source_max",
                "at most http.connections_max",
            ),
            (
                http.body_decompressed_bytes_max >= http.body_bytes_max,
                "http.body_decompressed_bytes_max",
                "at least http.body_bytes_max",
            ),
            (
                ingest.in_flight_bytes_max >= http.body_decompressed_bytes_max,
                "ingest.in_flight_bytes_max",
                "at least http.body_decompressed_bytes_max, or a large body never fits",
            ),
            (http.request_ms >= http.body_ms, "http.request_ms", "at least http.body_ms"),
            (http.request_ms > ingest.answer_ms, "http.request_ms", "more than ingest.answer_ms"),
            (tape.frame_bytes_max >= tape.flush_bytes, "tape.frame_bytes_max", "at least tape.flush_bytes"),
            (
                tape.in_flight_max >= tape.in_flight_eager,
                "tape.in_flight_max",
                "at least tape.in_flight_eager",
            ),
            (
                history.page_limit_max >= history.page_limit_default,
                "history.page_limit_max",
                "at least history.page_limit_default",
            ),
        ];
        let Some((_, key, expected)) = rules.into_iter().find(|(holds, ..)| !holds) else { return Ok(()) };
        let (value, from) = self.shown_with_source(key);
        Err(ConfigError::Value { key: key.to_owned(), value, from, expected: expected.to_owned() })
    }

    fn shown_with_source(&self, key: &str) -> (String, Source) {
        match (self.values.get(key), rule_of(key)) {
            (Some((value, source)), Some(rule)) => (shown(rule, value), source.clone()),
            _ => (String::new(), Source::Default),
        }
    }
}

fn shown(rule: Rule, value: &Value) -> String {
    match value {
        Value::String(text) if rule.is_secret() && !text.is_empty() => "\"********\"".to_owned(),
        other => other.to_string(),
    }
}

fn unknown(key: &str, from: Source) -> ConfigError {
    let nearest = RULES
        .iter()
        .map(|(name, _)| (strsim::jaro_winkler(name, key).max(same_key(name, key)), name))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(likeness, _)| *likeness > 0.7)
        .map(|(_, name)| (*name).to_owned());
    ConfigError::UnknownKey { key: key.to_owned(), from, nearest }
}

/// The likeness of the last parts alone, so that a key in the wrong section is found.
fn same_key(name: &str, key: &str) -> f64 {
    let last = |text: &str| text.rsplit('.').next().map(str::to_owned).unwrap_or_default();
    strsim::jaro_winkler(&last(name), &last(key)) * 0.95
}
