//! What the driver says, as a store's error.

use scylla::errors::{ExecutionError, RequestAttemptError};

use crate::store::StoreError;

/// A write that failed. Only where no node was found to send it to did it not happen: of several
/// nodes that were given the same statement the driver tells the error of one, and another may have
/// applied it. The database's "unavailable" is no exception: the row of a call before may be on its
/// way still.
pub(super) fn of_write(what: &str, error: &ExecutionError) -> StoreError {
    let detail = format!("{what}: {error}");
    match error {
        ExecutionError::BadQuery(_) | ExecutionError::PrepareError(_) => StoreError::invalid(detail),
        ExecutionError::EmptyPlan => StoreError::refused(format!("{what}: no node of the database is there")),
        ExecutionError::LastAttemptError(
            RequestAttemptError::SerializationError(_) | RequestAttemptError::CqlRequestSerialization(_),
        ) => StoreError::invalid(detail),
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use scylla::errors::{ConnectionPoolError, DbError};

    use super::*;
    use crate::store::StoreErrorKind;

    #[test]
    fn only_what_was_sent_to_nobody_is_refused() {
        let unavailable = DbError::Unavailable {
            consistency: scylla::statement::Consistency::LocalQuorum,
            required: 2,
            alive: 1,
        };
        for (error, kind) in [
            (ExecutionError::EmptyPlan, StoreErrorKind::Refused),
            // Of a hedged statement: the first node was sent it, the second one could not be.
            (ExecutionError::ConnectionPoolError(ConnectionPoolError::Initializing), StoreErrorKind::Unknown),
            (RequestAttemptError::UnableToAllocStreamId.into(), StoreErrorKind::Unknown),
            (RequestAttemptError::DbError(unavailable, String::new()).into(), StoreErrorKind::Unknown),
            (ExecutionError::RequestTimeout(Duration::from_secs(1)), StoreErrorKind::Unknown),
        ] {
            assert_eq!(of_write("a frame", &error).kind, kind, "{error}");
        }
    }
}
