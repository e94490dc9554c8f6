//! When to try again: capped exponential back-off with full jitter.
//!
//! A pure function of the attempt and a random number, so that a thousand clients whose server came back do not knock
//! at the same moment, two clients of one identifier that end each other's connections do not do so in a tight loop
//! [MQTT-3.1.4-2], and a test can know the answer. Counting attempts, and knowing when a connection has lasted, is
//! the business of whoever connects.

use core::time::Duration;

/// How long to wait before another connection is tried.
///
/// ```
/// # use dunlin::reconnect::Backoff;
/// # use std::time::Duration;
/// let backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
/// let half = u64::MAX / 2;
/// assert_eq!(backoff.delay(0, half).as_millis(), 499);
/// assert_eq!(backoff.delay(3, half).as_millis(), 3_999);
/// assert_eq!(backoff.delay(100, half).as_millis(), 29_999);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    lasting: Duration,
}

impl Backoff {
    /// Waits of up to `min` after the first failure, doubling with each further one, and never more than `max`.
    #[must_use]
    pub const fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, lasting: Duration::from_secs(10) }
    }

    /// How long a connection must have been up to count as one that lasted, 10 seconds by default. One that ended
    /// sooner counts as a failure: a server that accepts and drops is not hammered.
    #[must_use]
    pub const fn lasting(mut self, lasting: Duration) -> Self {
        self.lasting = lasting;
        self
    }

    /// The wait before attempt number `attempt` (0 for the first after a failure), with a number drawn evenly from
    /// all of `u64`: anything from zero to the cap of that attempt, each as likely.
    #[must_use]
    pub fn delay(&self, attempt: u32, random: u64) -> Duration {
        let doubled = 1_u32.checked_shl(attempt).and_then(|factor| self.min.checked_mul(factor));
        let cap = doubled.map_or(self.max, |doubled| doubled.min(self.max));
        let micros = (cap.as_micros().min(u128::from(u64::MAX)) * u128::from(random)) >> 64;
        Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }

    /// Whether a connection that was up for so long ends a row of failures.
    #[must_use]
    pub fn has_lasted(&self, up: Duration) -> bool {
        up >= self.lasting
    }
}

impl Default for Backoff {
    /// From 1 second to 60.
    fn default() -> Self {
        Self::new(Duration::from_secs(1), Duration::from_secs(60))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_wait_is_longer_than_the_cap_and_all_lengths_occur() {
        let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        for attempt in [0, 1, 2, 5, 6, 31, 32, 1_000, u32::MAX] {
            let cap = Duration::from_millis(100 * (1 << attempt.min(10))).min(Duration::from_secs(5));
            assert_eq!(backoff.delay(attempt, 0), Duration::ZERO);
            assert!(backoff.delay(attempt, u64::MAX) <= cap);
            assert!(backoff.delay(attempt, u64::MAX) > cap - Duration::from_millis(1));
            let (low, high) = (backoff.delay(attempt, u64::MAX / 4), backoff.delay(attempt, u64::MAX / 4 * 3));
            assert!(low * 2 < high && high < cap);
        }
    }

    #[test]
    fn only_a_connection_that_lasted_ends_a_row_of_failures() {
        let backoff = Backoff::default().lasting(Duration::from_secs(3));
        assert!(!backoff.has_lasted(Duration::from_millis(2_999)));
        assert!(backoff.has_lasted(Duration::from_secs(3)));
    }
}
