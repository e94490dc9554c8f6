//! Points in time, as the caller's clock counts them.
//!
//! The session reads no clock: each call that depends on time takes `now`. A clock may stand still, wrap or be set
//! back; what then happens is the business of `session/keep_alive.rs`, the only place that does arithmetic on time.

/// Milliseconds since any fixed point of the caller's choice, for example since reset.
///
/// A clock that wraps (32-bit milliseconds do after 49.7 days) may be fed as it is: the session takes `now` running
/// backwards for a wrap, sends one ping more than needed, and goes on from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(Rust, packed(4))] // as 32 bits are: with more, whatever holds one would be padded
pub struct Instant(u64);

impl Instant {
    /// The instant `millis` milliseconds after the clock's zero.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the clock's zero.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// This instant plus `millis`.
    #[must_use]
    pub const fn after_millis(self, millis: u64) -> Self {
        Self(self.0.wrapping_add(millis))
    }

    /// Milliseconds from `earlier` to this instant, zero if `earlier` is later.
    #[must_use]
    pub const fn millis_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}
