//! Lets whole, plausible records through and nothing else. Does no I/O.
//!
//! `embedded-tls` 0.19 reads a record in two steps and keeps nothing between them, so a read that stops halfway loses
//! the stream; and it trusts the peer where the peer must not be trusted: an encrypted record without room for its
//! content type, or an unprotected record after the handshake, makes it panic. Behind this gate neither happens: a
//! record is handed over only when all of it is here, and only if it is of a kind that may come now.
//!
//! The gate also tells the cipher in which phase a record came (see `cipher`), in the two bytes of the record header
//! that hold the legacy version: TLS 1.3 fixes them to 3.3, so they carry nothing, and the cipher puts them right.

use crate::Error;

/// Content type, legacy version, length.
pub(crate) const HEADER: usize = 5;

/// Handshake records may come, in the order that TLS 1.3 gives.
pub(crate) const IN_HANDSHAKE: [u8; 2] = [3, 3];
/// The handshake is over.
pub(crate) const IN_SESSION: [u8; 2] = [3, 4];

const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;

/// The tag of the cipher and one byte of content type.
const LEAST_PROTECTED: usize = 17;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The ServerHello, in the clear, is next.
    Hello,
    /// Protected handshake messages.
    Handshake,
    /// Protected records only.
    Session,
}

/// One record on its way from the transport to `embedded-tls`.
pub(crate) struct Gate<'m> {
    record: &'m mut [u8],
    /// Bytes of the record that have come.
    have: usize,
    /// Bytes of the record that have been handed over.
    given: usize,
    phase: Phase,
}

impl<'m> Gate<'m> {
    /// `record` bounds the length of a record, its header included.
    pub(crate) fn new(record: &'m mut [u8]) -> Self {
        Self { record, have: 0, given: 0, phase: Phase::Hello }
    }

    /// Begins again, for a new connection.
    pub(crate) fn reset(&mut self) {
        (self.have, self.given, self.phase) = (0, 0, Phase::Hello);
    }

    /// The handshake is over: from now on each record must be protected.
    pub(crate) fn established(&mut self) {
        self.phase = Phase::Session;
    }

    /// Room for what is missing of the record; empty if it is whole.
    pub(crate) fn missing(&mut self) -> &mut [u8] {
        let end = self.end();
        self.record.get_mut(self.have..end).unwrap_or_default()
    }

    /// `count` bytes have been put where [`missing`](Self::missing) pointed.
    pub(crate) fn filled(&mut self, count: usize) -> Result<(), Error> {
        let header_was_missing = self.have < HEADER;
        self.have = self.have.saturating_add(count).min(self.end());
        match header_was_missing && self.have >= HEADER {
            true => self.check(),
            false => Ok(()),
        }
    }

    /// Whether a record is here, or what is left of one.
    pub(crate) fn is_whole(&self) -> bool {
        self.have >= HEADER && self.have == self.end()
    }

    /// Hands over the next bytes of a whole record.
    pub(crate) fn take(&mut self, to: &mut [u8]) -> usize {
        let bytes = self.record.get(self.given..self.have).unwrap_or_default();
        let count = bytes.len().min(to.len());
        to.iter_mut().zip(bytes).for_each(|(to, byte)| *to = *byte);
        self.given = self.given.saturating_add(count);
        if self.given == self.have {
            (self.have, self.given) = (0, 0);
        }
        count
    }

    /// Where the record ends, as far as is known.
    fn end(&self) -> usize {
        match (self.have >= HEADER, self.record.first_chunk::<HEADER>()) {
            (true, Some([_, _, _, high, low])) => HEADER + usize::from(u16::from_be_bytes([*high, *low])),
            _ => HEADER,
        }
    }

    /// The header is here: may this record come now?
    fn check(&mut self) -> Result<(), Error> {
        let whole = self.end();
        let (capacity, phase) = (self.record.len(), self.phase);
        let Some([kind, major, minor, _, _]) = self.record.first_chunk_mut::<HEADER>() else {
            return Err(Error::BufferTooSmall);
        };
        let len = whole - HEADER;
        let allowed = match (phase, *kind) {
            (Phase::Hello, HANDSHAKE) => len >= 4,
            (Phase::Hello | Phase::Handshake, ALERT) => len == 2,
            (Phase::Handshake, CHANGE_CIPHER_SPEC) => len == 1, // for middleboxes; means nothing
            (Phase::Handshake | Phase::Session, APPLICATION_DATA) => len >= LEAST_PROTECTED,
            _ => false,
        };
        if !allowed || *major != 3 || (phase != Phase::Hello && *minor != 3) {
            return Err(Error::Malformed);
        }
        if whole > capacity {
            return Err(Error::RecordTooLong);
        }
        if phase == Phase::Hello && *kind == HANDSHAKE {
            self.phase = Phase::Handshake;
        }
        [*major, *minor] = if phase == Phase::Session { IN_SESSION } else { IN_HANDSHAKE };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `bytes`, `step` at a time, and collects what comes out, `take` at a time.
    fn pass(gate: &mut Gate<'_>, mut bytes: &[u8], step: usize, take: usize, out: &mut [u8]) -> Result<usize, Error> {
        let mut count = 0;
        while !bytes.is_empty() {
            let room = gate.missing();
            let n = room.len().min(step).min(bytes.len());
            room[..n].copy_from_slice(&bytes[..n]);
            bytes = &bytes[n..];
            gate.filled(n)?;
            while gate.is_whole() {
                let to = &mut out[count..];
                let limit = to.len().min(take);
                count += gate.take(&mut to[..limit]);
            }
        }
        Ok(count)
    }

    #[test]
    fn records_pass_whole_however_they_arrive() {
        let hello = [22, 3, 3, 0, 5, 2, 0, 0, 1, 9];
        let mut protected = [0u8; 5 + 17];
        protected[..5].copy_from_slice(&[23, 3, 3, 0, 17]);
        for step in 1..=27 {
            for take in 1..=8 {
                let mut memory = [0; 64];
                let mut gate = Gate::new(&mut memory);
                let mut out = [0; 64];
                assert_eq!(pass(&mut gate, &hello, step, take, &mut out), Ok(10));
                assert_eq!(out[..10], hello);
                assert_eq!(pass(&mut gate, &protected, step, take, &mut out), Ok(22));
                assert_eq!(out[..22], protected);
                gate.established();
                assert_eq!(pass(&mut gate, &protected, step, take, &mut out), Ok(22));
                assert_eq!(out[..3], [23, 3, 4]);
            }
        }
    }

    #[test]
    fn half_a_record_is_not_handed_over() {
        let mut memory = [0; 64];
        let mut gate = Gate::new(&mut memory);
        let mut out = [0; 64];
        assert_eq!(pass(&mut gate, &[22, 3, 3, 0, 5, 2, 0, 0, 1], 4, 64, &mut out), Ok(0));
        assert!(!gate.is_whole());
    }

    #[test]
    fn what_may_not_come_now_is_refused() {
        let refused = |session: bool, header: [u8; 5]| {
            let mut memory = [0; 64];
            let mut gate = Gate::new(&mut memory);
            if session {
                gate.established();
            }
            let mut out = [0; 64];
            pass(&mut gate, &header, 5, 64, &mut out).err()
        };
        let bad = Some(Error::Malformed);
        assert_eq!(refused(false, [23, 3, 3, 0, 32]), bad, "protected before the hello");
        assert_eq!(refused(false, *b"HTTP/"), bad);
        assert_eq!(refused(false, [22, 3, 3, 0, 0]), bad, "an empty handshake record");
        assert_eq!(refused(false, [22, 3, 3, 0, 60]), Some(Error::RecordTooLong));
        assert_eq!(refused(true, [23, 3, 3, 0, 16]), bad, "no room for a content type");
        assert_eq!(refused(true, [23, 3, 3, 0, 60]), Some(Error::RecordTooLong));
        assert_eq!(refused(true, [22, 3, 3, 0, 32]), bad, "an unprotected handshake message in the session");
        assert_eq!(refused(true, [21, 3, 3, 0, 2]), bad, "an unprotected alert in the session");
        assert_eq!(refused(true, [20, 3, 3, 0, 1]), bad);
        assert_eq!(refused(true, [23, 3, 4, 0, 32]), bad, "a record that claims the gate's own mark");
    }
}
