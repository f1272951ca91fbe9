//! What the nodes of these tests store in: their data folders.

use std::path::Path;

/// Whether what they store in is the machine's alone, and not a database that may be busy.
pub const IS_EMBEDDED: bool = true;

/// What tells a node about its store.
pub fn environment(_folder: &Path) -> Vec<(String, String)> {
    Vec::new()
}

/// Makes what a node needs before it starts.
pub async fn prepare(_folder: &Path) {}
