//! The transport under Mbed TLS: it can refuse to wait, and it sees what kind of records leave.

use core::cell::Cell;

use embedded_io::{Error as _, ErrorKind, ErrorType, Read, ReadReady, Write};

use crate::Error;

/// A transport, and what Mbed TLS cannot be asked.
pub struct Tap<T> {
    pub(super) transport: T,
    /// Whether a read may wait for the transport. If not, and nothing is there, it fails and `starved` is set. Mbed TLS
    /// keeps what it has of a record, and goes on when it is called again.
    pub(super) may_wait: bool,
    pub(super) starved: bool,
    pub(super) failure: Option<Error>,
    ready: fn(&mut T) -> Result<bool, Error>,
    pub(super) records: Records,
}

impl<T: Read + ReadReady + Write> Tap<T> {
    pub(super) fn new(transport: T) -> Self {
        let ready = |transport: &mut T| transport.read_ready().map_err(|error| Error::Io(error.kind()));
        Self { transport, may_wait: true, starved: false, failure: None, ready, records: Records::new() }
    }
}

impl<T> ErrorType for Tap<T> {
    type Error = Error;
}

impl<T: Read> Read for Tap<T> {
    fn read(&mut self, to: &mut [u8]) -> Result<usize, Error> {
        if !self.may_wait && !(self.ready)(&mut self.transport)? {
            self.starved = true;
            return Err(Error::Io(ErrorKind::Interrupted));
        }
        match self.transport.read(to) {
            Ok(0) => self.failed(Error::Closed),
            Ok(count) => Ok(count),
            Err(error) => self.failed(Error::Io(error.kind())),
        }
    }
}

impl<T: Write> Write for Tap<T> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        match self.transport.write(bytes) {
            Ok(count) => {
                self.records.see(bytes.get(..count).unwrap_or_default());
                Ok(count)
            }
            Err(error) => self.failed(Error::Io(error.kind())),
        }
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.transport.flush().or_else(|error| self.failed(Error::Io(error.kind())))
    }
}

impl<T> Tap<T> {
    fn failed<R>(&mut self, error: Error) -> Result<R, Error> {
        self.failure = Some(error);
        Err(error)
    }
}

/// Watches the records of a handshake that leave, to learn whether the server has asked for a certificate: then there is
/// a Certificate message, even if it is empty. In TLS 1.2 it can be seen; in TLS 1.3 it is one of two protected
/// records, where otherwise Finished is the only one.
pub(super) struct Records {
    header: [u8; 5],
    header_len: usize,
    body: usize,
    is_first_byte: bool,
    certificates: Cell<u32>,
    protected: Cell<u32>,
}

impl Records {
    fn new() -> Self {
        Self {
            header: [0; 5],
            header_len: 0,
            body: 0,
            is_first_byte: false,
            certificates: Cell::new(0),
            protected: Cell::new(0),
        }
    }

    /// Whether a Certificate message has left. To be asked when the handshake is over.
    pub(super) fn has_certificate(&self) -> bool {
        self.certificates.get() > 0 || self.protected.get() > 1
    }

    fn see(&mut self, bytes: &[u8]) {
        const HANDSHAKE: u8 = 22;
        const PROTECTED: u8 = 23;
        const CERTIFICATE: u8 = 11;
        for byte in bytes {
            if self.body > 0 {
                let is_certificate = self.is_first_byte && self.header[0] == HANDSHAKE && *byte == CERTIFICATE;
                self.certificates.set(self.certificates.get() + u32::from(is_certificate));
                self.is_first_byte = false;
                self.body -= 1;
                continue;
            }
            if let Some(place) = self.header.get_mut(self.header_len) {
                *place = *byte;
            }
            self.header_len += 1;
            if self.header_len == self.header.len() {
                let [kind, _, _, high, low] = self.header;
                self.body = usize::from(u16::from_be_bytes([high, low]));
                (self.header_len, self.is_first_byte) = (0, true);
                self.protected.set(self.protected.get() + u32::from(kind == PROTECTED));
            }
        }
    }
}
