//! Limits of time as callers give them. Who means "for ever" gives some very long time, such as [`Duration::MAX`], to
//! which no clock can count.

use std::time::{Duration, Instant};

/// Longer than any program runs, and short enough for every clock.
const AGE: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// The moment when `limit` is over, from now on.
pub(crate) fn ends_at(limit: Duration) -> Instant {
    Instant::now() + limit.min(AGE)
}

/// The limit in milliseconds, as the session counts time.
pub(crate) fn millis(limit: Duration) -> u64 {
    u64::try_from(limit.min(AGE).as_millis()).unwrap_or_default()
}
