//! How much room the disk of a folder has.

use std::io;
use std::path::Path;

use super::FreeSpace;

/// The room on the disk that holds `folder`.
pub(super) fn free_space(folder: &Path) -> io::Result<FreeSpace> {
    let of = rustix::fs::statvfs(folder)?;
    Ok(FreeSpace {
        free_bytes: of.f_bavail.saturating_mul(of.f_frsize),
        total_bytes: of.f_blocks.saturating_mul(of.f_frsize),
    })
}

/// The same for people.
pub(super) fn tell(folder: &Path) -> String {
    match free_space(folder) {
        Ok(space) => format!(
            "the disk of {} has {} of {} bytes free",
            folder.display(),
            space.free_bytes,
            space.total_bytes
        ),
        Err(error) => format!("the disk of {} tells no free space: {error}", folder.display()),
    }
}
