//! Wiring: from configuration to a running node.

pub mod storage;
