//! Whether the node works, and why not.

use std::collections::BTreeMap;

use parking_lot::Mutex;

/// How a check stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// As it should be.
    Ok,
    /// It works, but somebody should look.
    Warn,
    /// The node must not be given requests.
    Fail,
}

impl Status {
    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Its name, such as `store`.
    pub name: &'static str,
    /// How it stands.
    pub status: Status,
    /// Why, for people.
    pub reason: String,
}

/// All checks at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Whether none fails.
    pub ready: bool,
    /// The checks, by name.
    pub checks: Vec<Check>,
}

/// Named checks, each set by the part that knows.
#[derive(Debug, Default)]
pub struct Health {
    checks: Mutex<BTreeMap<&'static str, (Status, String)>>,
}

impl Health {
    /// A registry in which each of these parts is not ready yet.
    #[must_use]
    pub fn starting(parts: &[&'static str]) -> Self {
        let checks = parts.iter().map(|&part| (part, (Status::Fail, "starting".to_owned())));
        Self { checks: Mutex::new(checks.collect()) }
    }

    /// Sets a check. A change is logged here, and only here.
    pub fn set(&self, name: &'static str, status: Status, reason: impl Into<String>) {
        let reason = reason.into();
        let before = self.checks.lock().insert(name, (status, reason.clone()));
        if before.is_some_and(|(before, _)| before == status) {
            return;
        }
        match status {
            Status::Ok => tracing::info!(check = name, reason, "health is ok"),
            Status::Warn => tracing::warn!(check = name, reason, "health warns"),
            Status::Fail => tracing::error!(check = name, reason, "health fails"),
        }
    }

    /// Takes the node out of service because it was asked to: the check fails, and that is no error.
    pub fn withdraw(&self, name: &'static str, reason: impl Into<String>) {
        let reason = reason.into();
        tracing::info!(check = name, reason, "health is withdrawn");
        self.checks.lock().insert(name, (Status::Fail, reason));
    }

    /// All checks as they stand.
    #[must_use]
    pub fn report(&self) -> Report {
        let checks: Vec<Check> = self
            .checks
            .lock()
            .iter()
            .map(|(name, (status, reason))| Check { name, status: *status, reason: reason.clone() })
            .collect();
        Report { ready: checks.iter().all(|check| check.status != Status::Fail), checks }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_when_nothing_fails() {
        let health = Health::starting(&["store", "tail"]);
        assert!(!health.report().ready);
        health.set("store", Status::Ok, "");
        assert!(!health.report().ready);
        health.set("tail", Status::Warn, "4 % of the disk free");
        let report = health.report();
        assert!(report.ready);
        assert_eq!(report.checks.len(), 2);
        health.set("store", Status::Fail, "disk full");
        let report = health.report();
        assert!(!report.ready);
        let expected = Check { name: "store", status: Status::Fail, reason: "disk full".to_owned() };
        assert_eq!(report.checks.first(), Some(&expected));
        health.set("store", Status::Ok, "");
        health.withdraw("node", "draining");
        assert!(!health.report().ready);
    }
}
