//! Hot data that may be lost: hints, cached pages, counters.
