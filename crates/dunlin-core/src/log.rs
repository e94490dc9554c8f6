//! Log lines through `log`, `defmt`, both or neither. Never a payload, a topic, or a password.

use crate::session::error::Fault;

/// A packet came, with this first byte.
pub(crate) fn received(first: u8, len: usize) {
    to_log::received(first, len);
    to_defmt::received(first, len);
}

/// A packet of `len` bytes left.
pub(crate) fn sent(len: usize) {
    to_log::sent(len);
    to_defmt::sent(len);
}

/// The connection is over.
pub(crate) fn fault(fault: Fault) {
    to_log::fault(fault);
    to_defmt::fault(fault);
}

#[cfg(feature = "log")]
mod to_log {
    use super::Fault;

    pub fn received(first: u8, len: usize) {
        log::trace!("received packet {first:#04x}, {len} bytes");
    }

    pub fn sent(len: usize) {
        log::trace!("sent packet, {len} bytes");
    }

    pub fn fault(fault: Fault) {
        log::warn!("connection over: {fault}");
    }
}

#[cfg(not(feature = "log"))]
mod to_log {
    use super::Fault;

    pub fn received(_: u8, _: usize) {}

    pub fn sent(_: usize) {}

    pub fn fault(_: Fault) {}
}

#[cfg(feature = "defmt")]
mod to_defmt {
    use super::Fault;

    pub fn received(first: u8, len: usize) {
        defmt::trace!("received packet {=u8:#04x}, {=usize} bytes", first, len);
    }

    pub fn sent(len: usize) {
        defmt::trace!("sent packet, {=usize} bytes", len);
    }

    pub fn fault(fault: Fault) {
        defmt::warn!("connection over: {}", defmt::Debug2Format(&fault));
    }
}

#[cfg(not(feature = "defmt"))]
mod to_defmt {
    use super::Fault;

    pub fn received(_: u8, _: usize) {}

    pub fn sent(_: usize) {}

    pub fn fault(_: Fault) {}
}
