//! Layers into one configuration.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::rules::{RULES, Rule, rule_of};
use super::{Backend, Config, env};

/// What a segment has beside its frames, at most: its header, the head of a record, its index.
const SEGMENT_OVERHEAD: u64 = 4 * 1_024;

/// A row of a database that expires lives 20 years at most.
const TTL_DAYS_MAX: u64 = 7_300;

/// The defaults with their documentation, compiled in.
pub const DEFAULTS: &str = include_str!("../../config.default.toml");

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// `config.default.toml`.
    Default,
    /// The default of this subcommand, where it has one of its own.
    Subcommand(&'static str),
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
            Self::Subcommand(name) => write!(f, "default of {name}"),
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
    /// A `--set` is not of the form `section.key=value`. It is named by its number and by the key
    /// at its beginning: the rest may be a secret.
    #[error("--set number {number} ({}) is not of the form section.key=value", key.as_deref().unwrap_or("no key"))]
    NotAnAssignment {
        /// Which of them, from 1.
        number: usize,
        /// The key that it begins with.
        key: Option<String>,
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

/// What is laid over the defaults. Its [`fmt::Debug`] names keys and leaves values out, for any
/// of them may be a secret.
#[derive(Clone, Default)]
pub struct Layers {
    /// Defaults of a subcommand's own: its name, and (key, value).
    pub subcommand: Option<(&'static str, Vec<(&'static str, &'static str)>)>,
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

impl fmt::Debug for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |text: &String| text.split_once('=').map(|(key, _)| named(key)).unwrap_or_default();
        f.debug_struct("Layers")
            .field("file", &self.file)
            .field("environment", &self.environment.iter().map(|(name, _)| name).collect::<Vec<_>>())
            .field("sets", &self.sets.iter().map(names).collect::<Vec<_>>())
            .field("flags", &self.flags.iter().map(|(flag, key, _)| (flag, key)).collect::<Vec<_>>())
            .finish()
    }
}

/// Every key with its value and where that came from. Its [`fmt::Debug`] masks secrets.
#[derive(Clone)]
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
        if let Some((name, defaults)) = &self.subcommand {
            for (key, value) in defaults {
                effective.lay_text(key, value, Source::Subcommand(name))?;
            }
        }
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
        for (at, text) in self.sets.iter().enumerate() {
            let (key, value) = text.split_once('=').ok_or_else(|| {
                let keys = RULES.iter().map(|(key, _)| *key).filter(|key| text.starts_with(key));
                let key = keys.max_by_key(|key| key.len()).map(str::to_owned);
                ConfigError::NotAnAssignment { number: at + 1, key }
            })?;
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
        let sections: Table = toml::from_str(text).map_err(|error| syntax(text, &error, path))?;
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
        sections.try_into().map_err(|error| syntax("", &error, Path::new("config.default.toml")))
    }

    /// What must hold between keys.
    fn check_together(&self, config: &Config) -> Result<(), ConfigError> {
        let Config { http, ingest, tape, history, store, cassandra, access, .. } = config;
        let is_cluster = store.backend == Backend::Cassandra;
        let has_own_region = cassandra.regions.iter().any(|place| place.region == config.node.region);
        let same_door = http.listen == http.admin_listen && http.listen.port() != 0;
        let rules = [
            (!same_door, "http.admin_listen", "another address than http.listen"),
            (
                http.tls_cert.is_some() == http.tls_key.is_some(),
                "http.tls_key",
                "given together with http.tls_cert, or both empty",
            ),
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
            (
                u64::from(store.segment_bytes) >= 2 * (tape.frame_bytes_max as u64 + SEGMENT_OVERHEAD),
                "store.segment_bytes",
                "at least twice tape.frame_bytes_max and 8 KiB more, so that every frame fits",
            ),
            (
                !is_cluster || !cassandra.nodes.is_empty(),
                "cassandra.nodes",
                "given where store.backend is cassandra",
            ),
            (!is_cluster || has_own_region, "cassandra.regions", "a list with node.region in it"),
            (
                !is_cluster || store.seal_key.is_some(),
                "store.seal_key",
                "given where store.backend is cassandra: all nodes of all regions have the same one",
            ),
            (
                !is_cluster || access.audit_days <= TTL_DAYS_MAX,
                "access.audit_days",
                "at most 7300 where store.backend is cassandra: no row of it lives longer",
            ),
            (
                cassandra.user.is_some() == cassandra.password_file.is_some(),
                "cassandra.password_file",
                "given together with cassandra.user, or both empty",
            ),
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

impl fmt::Debug for Effective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.rows().map(|(key, value, source)| (key, (value, source)));
        f.debug_map().entries(rows).finish()
    }
}

/// A secret is masked whatever it is, also where it is no text.
fn shown(rule: Rule, value: &Value) -> String {
    match value {
        Value::String(text) if text.is_empty() => value.to_string(),
        _ if rule.is_secret() => "\"********\"".to_owned(),
        other => other.to_string(),
    }
}

/// Where the text is no TOML and why, without the text itself: the line may hold a secret.
fn syntax(text: &str, error: &toml::de::Error, path: &Path) -> ConfigError {
    let before = error.span().and_then(|span| text.get(..span.start));
    let place = before.map(|before| {
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        format!("line {line}, column {column}: ")
    });
    let detail = format!("{}{}", place.unwrap_or_default(), error.message());
    ConfigError::Syntax { path: path.display().to_string(), detail }
}

/// A key that looks like one. Of anything else, which may be a misplaced value, no more than the
/// key or section that exists at its beginning.
fn named(key: &str) -> String {
    const LENGTH_MAX: usize = 40;
    let is_of_key = |byte: u8| byte.is_ascii_lowercase() || b"._0123456789".contains(&byte);
    if key.len() <= LENGTH_MAX && key.bytes().all(is_of_key) {
        return key.to_owned();
    }
    let sections = RULES.iter().filter_map(|(name, _)| name.split('.').next());
    let known = RULES.iter().map(|(name, _)| *name).chain(sections).filter(|name| key.starts_with(name));
    format!("{}…", known.max_by_key(|name| name.len()).unwrap_or_default())
}

fn unknown(key: &str, from: Source) -> ConfigError {
    let nearest = RULES
        .iter()
        .map(|(name, _)| (strsim::jaro_winkler(name, key).max(same_key(name, key)), name))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(likeness, _)| *likeness > 0.7)
        .map(|(_, name)| (*name).to_owned());
    ConfigError::UnknownKey { key: named(key), from, nearest }
}

/// The likeness of the last parts alone, so that a key in the wrong section is found.
fn same_key(name: &str, key: &str) -> f64 {
    let last = |text: &str| text.rsplit('.').next().map(str::to_owned).unwrap_or_default();
    strsim::jaro_winkler(&last(name), &last(key)) * 0.95
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn error(layers: &Layers) -> String {
        layers.load().unwrap_err().to_string()
    }

    fn set(text: &str) -> String {
        error(&Layers { sets: vec![text.to_owned()], ..Layers::default() })
    }

    #[test]
    fn the_file_the_rules_and_the_struct_hold_the_same_keys() {
        let sections: Table = toml::from_str(DEFAULTS).unwrap();
        let in_file: BTreeSet<String> = sections
            .iter()
            .flat_map(|(section, keys)| {
                keys.as_table().unwrap().keys().map(move |key| format!("{section}.{key}"))
            })
            .collect();
        let in_rules: BTreeSet<String> = RULES.iter().map(|(key, _)| (*key).to_owned()).collect();
        assert_eq!(in_file, in_rules);
        // The struct denies unknown keys, and lacks none where the defaults alone are enough;
        // a key that the struct does not need would be caught by leaving it out.
        assert!(Config::with(&[]).is_ok());
        for key in &in_file {
            let mut without = sections.clone();
            let (section, name) = key.split_once('.').unwrap();
            without.get_mut(section).unwrap().as_table_mut().unwrap().remove(name);
            assert!(without.try_into::<Config>().is_err(), "{key} is no field of the struct");
        }
    }

    #[test]
    fn every_key_is_documented_and_in_the_order_of_the_rules() {
        let mut documented = false;
        let mut section = String::new();
        let mut keys = Vec::new();
        for line in DEFAULTS.lines() {
            if let Some(name) = line.strip_prefix('[') {
                section = name.trim_end_matches(']').to_owned();
            } else if let Some((key, _)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
                assert!(documented, "{section}.{key} has no comment above it");
                keys.push(format!("{section}.{key}"));
            }
            documented = line.starts_with('#');
        }
        let rules: Vec<&str> = RULES.iter().map(|(key, _)| *key).collect();
        assert_eq!(keys, rules);
    }

    #[test]
    fn the_example_of_a_region_is_a_configuration_and_says_what_it_lacks() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/examples/region.toml");
        let layers = |environment: &[(&str, &str)]| Layers {
            file: Some(file.clone()),
            environment: environment
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            ..Layers::default()
        };
        let key = ("TAPELINE__STORE__SEAL_KEY", "A".repeat(43));
        let key = (key.0, key.1.as_str());
        let config = layers(&[key]).load().unwrap().config;
        assert_eq!((config.store.backend, config.cassandra.regions.len()), (Backend::Cassandra, 2));
        for (environment, missing) in [
            (vec![], "store.seal_key"),
            (vec![key, ("TAPELINE__CASSANDRA__NODES", "")], "cassandra.nodes"),
            (vec![key, ("TAPELINE__CASSANDRA__REGIONS", "us=dc2:3")], "cassandra.regions"),
            (vec![key, ("TAPELINE__CASSANDRA__REGIONS", "eu=dc1:3,eu=dc2:3")], "cassandra.regions"),
            (vec![key, ("TAPELINE__CASSANDRA__PASSWORD_FILE", "")], "cassandra.password_file"),
            (vec![key, ("TAPELINE__CASSANDRA__NODES", "10.1.0.1")], "cassandra.nodes"),
            (vec![key, ("TAPELINE__ACCESS__AUDIT_DAYS", "7301")], "access.audit_days"),
        ] {
            let error = layers(&environment).load().unwrap_err();
            assert!(error.to_string().starts_with(missing), "{error}");
        }
    }

    #[test]
    fn later_layers_win_and_say_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tapeline.toml");
        std::fs::write(
            &path,
            "[http]\nrequest_ms = 61_000\nbody_ms = 11_000\nconnections_max = 5_000\nheaders_max = 40\n",
        )
        .unwrap();
        let layers = Layers {
            file: Some(path.clone()),
            environment: vec![
                ("TAPELINE__HTTP__BODY_MS".to_owned(), "12000".to_owned()),
                ("TAPELINE__HTTP__CONNECTIONS_MAX".to_owned(), "6000".to_owned()),
                ("TAPELINE__HTTP__HEADERS_MAX".to_owned(), "41".to_owned()),
            ],
            sets: vec!["http.connections_max=7_000".to_owned(), "http.headers_max = 42".to_owned()],
            flags: vec![("--headers".to_owned(), "http.headers_max".to_owned(), "43".to_owned())],
            subcommand: Some(("demo", vec![("http.request_ms", "62000"), ("http.first_request_ms", "9000")])),
        };
        let Loaded { config, effective } = layers.load().unwrap();
        let http = &config.http;
        assert_eq!(
            (http.request_ms, http.body_ms, http.connections_max, http.headers_max, http.first_request_ms),
            (61_000, 12_000, 7_000, 43, 9_000)
        );
        let source = |key: &str| {
            effective.rows().find(|(name, ..)| *name == key).map(|(_, _, source)| source.to_string()).unwrap()
        };
        assert_eq!(source("http.request_ms"), format!("file {}", path.display()));
        assert_eq!(source("http.body_ms"), "environment TAPELINE__HTTP__BODY_MS");
        assert_eq!(source("http.connections_max"), "flag --set");
        assert_eq!(source("http.headers_max"), "flag --headers");
        assert_eq!(source("http.first_request_ms"), "default of demo");
        assert_eq!(source("http.header_read_ms"), "default");
    }

    #[test]
    fn an_unknown_key_names_the_nearest() {
        let cases = [
            ("http.listn=1", "http.listen"),
            ("tape.flush_byte=1", "tape.flush_bytes"),
            ("ingest.linger_ms=1", "history.linger_ms"),
            ("page_limit_max=1", "history.page_limit_max"),
        ];
        for (text, nearest) in cases {
            let error = set(text);
            assert!(error.contains(&format!("did you mean {nearest}?")), "{error}");
        }
        assert_eq!(set("qqq.zzz=1"), "there is no key qqq.zzz (flag --set)");
        let environment = vec![("TAPELINE__NODE__REGIO".to_owned(), "x".to_owned())];
        let error = error(&Layers { environment, ..Layers::default() });
        let expected =
            "there is no key node.regio (environment TAPELINE__NODE__REGIO); did you mean node.region?";
        assert_eq!(error, expected);
    }

    #[test]
    fn a_wrong_value_names_key_value_source_and_what_would_be_right() {
        let cases = [
            (
                "http.request_ms=1",
                "http.request_ms = 1 (flag --set) must be a whole number from 100 to 3600000",
            ),
            (
                "http.request_ms=soon",
                "http.request_ms = \"soon\" (flag --set) must be a whole number from 100",
            ),
            (
                "http.listen=8080",
                "http.listen = \"8080\" (flag --set) must be an IP address and port such as",
            ),
            ("node.region=US", "node.region = \"US\" (flag --set) must be 1 to 16 of a-z, 0-9 and '-'"),
            ("node.name=", "node.name = \"\" (flag --set) must be 1 to 64 printable characters"),
            (
                "telemetry.log_format=xml",
                "telemetry.log_format = \"xml\" (flag --set) must be \"human\" or \"json\"",
            ),
            ("telemetry.log_level=a=b=c", "must be a level"),
            (
                "tape.in_flight_eager=9",
                "tape.in_flight_max = 8 (default) must be at least tape.in_flight_eager",
            ),
            ("http.admin_listen=127.0.0.1:8080", "must be another address than http.listen"),
            ("http.listen", "--set number 1 (http.listen) is not of the form section.key=value"),
            ("listen", "--set number 1 (no key) is not of the form section.key=value"),
        ];
        for (text, expected) in cases {
            let error = set(text);
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_bad_file_is_named_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.toml");
        let layers = Layers { file: Some(path.clone()), ..Layers::default() };
        assert!(error(&layers).contains("t.toml cannot be read"));
        std::fs::write(&path, "[http]\nlisten = \n").unwrap();
        assert!(error(&layers).contains("line 2"), "{}", error(&layers));
        std::fs::write(&path, "[http]\nlisten = 8080\n").unwrap();
        assert!(error(&layers).contains("http.listen = 8080 (file"), "{}", error(&layers));
        std::fs::write(&path, "listen = 8080\n").unwrap();
        assert!(error(&layers).contains("did you mean http.listen?"), "{}", error(&layers));
        std::fs::write(&path, "[htp]\nlisten = \"127.0.0.1:1\"\n").unwrap();
        assert!(error(&layers).contains("there is no key htp.listen"), "{}", error(&layers));
    }

    #[test]
    fn a_secret_is_masked_also_in_errors() {
        let error = set("store.seal_key=canary");
        assert!(error.contains("43 characters of base64url") && !error.contains("canary"), "{error}");
        let config = Config::with(&["store.seal_key=AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"]).unwrap();
        let expected: Vec<u8> = (0..32).collect();
        assert_eq!(config.store.seal_secret().unwrap().as_slice(), expected);
        assert!(!format!("{config:?}").contains("AAECAw"));
        assert_eq!(Config::with(&[]).unwrap().store.seal_secret(), None);
    }

    #[test]
    fn a_secret_never_appears_whatever_is_wrong_around_it() {
        const SECRET: &str = "canaryCANARYcanaryCANARYcanaryCANARYcanaryA";
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.toml");
        let lines = [
            format!("seal_key = \"{SECRET}"),
            format!("seal_key = {SECRET}"),
            format!("seal_key = '{SECRET}' '"),
            format!("seal_key = \"\"\"{SECRET}"),
            format!("seal_key = \"\\q{SECRET}\""),
            format!("seal_key \"{SECRET}\""),
            format!("seal_key = \"{SECRET}\"\nseal_key = \"{SECRET}\""),
            format!("seal_key = [\"{SECRET}\"]"),
            format!("seal_key = {{ a = \"{SECRET}\" }}"),
            format!("seal_key = \"{SECRET}!\""),
            format!("seal_kye = \"{SECRET}\""),
            format!("{SECRET} = 1"),
            format!("\"seal_key {SECRET}\" = 1"),
        ];
        for line in lines {
            std::fs::write(&path, format!("[store]\n{line}\n")).unwrap();
            let error = Layers { file: Some(path.clone()), ..Layers::default() }.load().unwrap_err();
            assert!(!format!("{error} {error:?}").contains("anary"), "{line}: {error:?}");
        }
        for set in [
            format!("store.seal_key {SECRET}"),
            format!("store.seal_key:{SECRET}"),
            SECRET.to_owned(),
            format!("{SECRET}="),
            format!("store.seal_key {SECRET}="),
            format!("store.seal_key={SECRET}!"),
        ] {
            let error = Layers { sets: vec![set.clone()], ..Layers::default() }.load().unwrap_err();
            assert!(!format!("{error} {error:?}").contains("anary"), "{set}: {error:?}");
        }
        let layers = Layers {
            environment: vec![("TAPELINE__STORE__SEAL_KEY".to_owned(), SECRET.to_owned())],
            sets: vec![format!("store.seal_key={SECRET}"), SECRET.to_owned()],
            flags: vec![("--key".to_owned(), "store.seal_key".to_owned(), SECRET.to_owned())],
            ..Layers::default()
        };
        let loaded = Layers { sets: Vec::new(), ..layers.clone() }.load().unwrap();
        let text = format!("{layers:?} {loaded:?} {:?}", loaded.effective);
        assert!(text.contains("store.seal_key") && text.contains("********"), "{text}");
        assert!(!text.contains("anary"), "{text}");
    }
}
