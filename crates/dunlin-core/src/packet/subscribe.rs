//! SUBACK return codes (MQTT 3.9). The requests themselves are written by `session/filters.rs`, where filters live.

use super::{QoS, Violation};

/// The return codes of a SUBACK, one per filter of the request and in its order [MQTT-3.9.3-1].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReturnCodes<'b>(&'b [u8]);

impl<'b> ReturnCodes<'b> {
    pub(crate) const fn new(bytes: &'b [u8]) -> Self {
        Self(bytes)
    }

    /// The codes as they came: 0, 1, 2 or 0x80 each.
    #[must_use]
    pub const fn as_bytes(&self) -> &'b [u8] {
        self.0
    }

    /// For each filter the quality of service that the server granted, which may be less than was asked for
    /// [MQTT-3.8.4-6], or `None` where it refused, as it may refuse wildcards [MQTT-3.8.3-2].
    pub fn granted(&self) -> impl Iterator<Item = Option<QoS>> + use<'b> {
        self.0.iter().map(|code| QoS::from_bits(*code))
    }

    /// Whether the server granted each filter, if perhaps at a lower quality of service than was asked for.
    #[must_use]
    pub fn all_granted(&self) -> bool {
        self.0.iter().all(|code| *code != FAILURE)
    }
}

/// The return code of a refused filter.
pub(crate) const FAILURE: u8 = 0x80;

/// Checks that `codes` are return codes [MQTT-3.9.3-2].
pub(crate) fn check_codes(codes: &[u8]) -> Result<(), Violation> {
    if codes.iter().all(|code| matches!(*code, 0..=2 | FAILURE)) { Ok(()) } else { Err(Violation::ReturnCode) }
}
