//! The source itself is checked here: layering and doors.
