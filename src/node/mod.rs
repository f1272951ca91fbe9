//! Wiring: from configuration to a running node.
