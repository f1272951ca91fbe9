//! Logs, metrics and health.

/// All metrics of a node.
pub struct Metrics {}

/// Whether the node works, and why not.
pub struct Health {}
