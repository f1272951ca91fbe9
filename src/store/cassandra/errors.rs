//! What the driver says, as a store's error.

use scylla::errors::{ExecutionError, RequestAttemptError};

use crate::store::StoreError;

/// A write that failed. No write is tried twice by the driver, so that what failed before a byte
/// was sent did not happen; of everything else nobody knows. The database's "unavailable" is no
/// exception: the row of a call before may be on its way still.
pub(super) fn of_write(what: &str, error: &ExecutionError) -> StoreError {
    let detail = format!("{what}: {error}");
    match error {
        ExecutionError::BadQuery(_) | ExecutionError::PrepareError(_) => StoreError::invalid(detail),
        ExecutionError::EmptyPlan | ExecutionError::ConnectionPoolError(_) => {
            StoreError::refused(format!("no node of the database takes it now: {detail}"))
        }
        ExecutionError::LastAttemptError(attempt) => match attempt {
            RequestAttemptError::SerializationError(_) | RequestAttemptError::CqlRequestSerialization(_) => {
                StoreError::invalid(detail)
            }
            RequestAttemptError::UnableToAllocStreamId => StoreError::refused(detail),
            _ => StoreError::unknown(detail),
        },
        _ => StoreError::unknown(detail),
    }
}

/// A read that failed.
pub(super) fn of_read(what: &str, error: &ExecutionError) -> StoreError {
    StoreError::unknown(format!("{what}: {error}"))
}

/// An answer that is not of the form that was asked for.
pub(super) fn of_rows(what: &str, error: &dyn std::fmt::Display) -> StoreError {
    StoreError::corrupt(format!(
        "{what}: the database answered other columns than this program asks for: {error}"
    ))
}
