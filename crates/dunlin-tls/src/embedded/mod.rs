//! TLS 1.3 without a heap: `embedded-tls` for the protocol, `rustls-webpki` and `p256` for trust.
//!
//! A [`Link`] is a transport with the memory for TLS; [`Link::connect`] makes the handshake and gives a [`Stream`] that
//! blocks. [`AsyncLink`] is the same for `embedded-io-async`, and its stream splits into two halves that can be driven
//! by two tasks.
//!
//! Where the others are: what may pass from the network in `gate`, what decrypted records may hold in `cipher`, whom to
//! trust in `verify`.
//!
//! Limits: TLS 1.3 with AES-128-GCM and P-256 only; server certificates up to 2 KiB in chains of three; handshake
//! messages that span records, a KeyUpdate, and resumption are not supported. A KeyUpdate ends the connection with an
//! error.

mod asynch;
mod cipher;
mod gate;
mod port;
mod verify;

pub use asynch::{AsyncLink, AsyncReader, AsyncStream, AsyncWriter};

use embedded_io::{Read, ReadReady, Write};
use embedded_tls::TlsError;
use embedded_tls::blocking::{MaxFragmentLength, TLS_RECORD_OVERHEAD, TlsConfig, TlsConnection, TlsContext};

use crate::{Config, Entropy, Error};
use cipher::Suite;
use port::{BlockingHandle, Port};
use verify::Provider;

/// Memory for one connection: `READ` bytes bound a received record, and are needed twice; `WRITE` bytes bound a record
/// that is sent, and must hold our own certificate.
///
/// A server may send records of [`FULL_RECORD`] bytes. With less, it is asked to keep to 512, 1,024, 2,048 or 4,096
/// bytes (RFC 6066), whichever fits; OpenSSL does as it is told, and a server that does not gets
/// [`Error::RecordTooLong`]. What we send then keeps to the same length, our certificate included.
pub struct Memory<const READ: usize, const WRITE: usize> {
    record: [u8; READ],
    plain: [u8; READ],
    write: [u8; WRITE],
}

/// The `READ` of a [`Memory`] that takes any record.
pub const FULL_RECORD: usize = gate::HEADER + 16_384 + 256;

impl<const READ: usize, const WRITE: usize> Memory<READ, WRITE> {
    /// Memory, all zero, for a static.
    pub const fn new() -> Self {
        const { assert!(READ >= gate::HEADER + 512 + 256, "the shortest records that can be asked for need 773 bytes") };
        const { assert!(WRITE >= 512, "a ClientHello needs 512 bytes") };
        Self { record: [0; READ], plain: [0; READ], write: [0; WRITE] }
    }

    /// Lends the memory to a link.
    pub fn buffers(&mut self) -> Buffers<'_> {
        Buffers { record: &mut self.record, plain: &mut self.plain, write: &mut self.write }
    }
}

impl<const READ: usize, const WRITE: usize> Default for Memory<READ, WRITE> {
    fn default() -> Self {
        Self::new()
    }
}

/// A [`Memory`] that has been lent.
pub struct Buffers<'m> {
    record: &'m mut [u8],
    plain: &'m mut [u8],
    write: &'m mut [u8],
}

/// A transport and the memory for TLS over it.
pub struct Link<'m, T> {
    port: Port<'m, T>,
    plain: &'m mut [u8],
    write: &'m mut [u8],
}

impl<'m, T: Read + Write> Link<'m, T> {
    /// Sends nothing yet. The transport's stream must be new.
    pub fn new(transport: T, buffers: Buffers<'m>) -> Self {
        Self { port: Port::new(transport, buffers.record), plain: buffers.plain, write: buffers.write }
    }

    /// Makes the handshake, and blocks until it is over. On an error, drop the transport's stream and begin anew.
    ///
    /// # Errors
    /// Whatever is wrong with the server, the configuration or the transport, see [`Error`]. No application byte
    /// has been sent, and none can be.
    pub fn connect(&mut self, config: &Config<'_>, entropy: Entropy) -> Result<Stream<'_, 'm, T>, Error> {
        let fragment = Fragment::that_fits(self.plain.len());
        let write = Fragment::bound(fragment.as_ref(), self.write);
        let tls = tls_config(config, fragment);
        let mut provider = Provider::new(config, entropy)?;
        self.port.reset();
        let port = &self.port;
        let mut connection = TlsConnection::new(port.handle(), self.plain, write);
        let handshake = connection.open(TlsContext::new(&tls, &mut provider));
        conclude(handshake, &provider, port.take_failure())?;
        port.established();
        Ok(Stream { port, connection, end: End::Open })
    }
}

/// A TLS connection with an authenticated server.
///
/// What is written is collected into a record until `flush`, or until the record is full. After an error the
/// connection is over: each further call returns the same error.
pub struct Stream<'s, 'm, T: Read + Write> {
    port: &'s Port<'m, T>,
    connection: TlsConnection<'s, BlockingHandle<'s, 'm, T>, Suite>,
    end: End,
}

#[derive(Debug, Clone, Copy)]
enum End {
    Open,
    /// The peer has said goodbye.
    Closed,
    Failed(Error),
}

impl<T: Read + Write> Stream<'_, '_, T> {
    /// Lends the transport: to wait on it, not to read or write.
    pub fn with_transport<R>(&mut self, lend: impl FnOnce(&mut T) -> R) -> R {
        self.port.with_transport(lend)
    }

    /// Says goodbye. The transport stays open.
    ///
    /// # Errors
    /// The transport's, or that of an earlier failure.
    pub fn close(self) -> Result<(), Error> {
        if let End::Failed(error) = self.end {
            return Err(error);
        }
        self.connection.close().map(drop).map_err(|(_, error)| name_of(error, self.port.take_failure()))
    }

    fn fail(&mut self, error: TlsError) -> Error {
        let error = name_of(error, self.port.take_failure());
        self.end = End::Failed(error);
        error
    }
}

impl<T: Read + Write> embedded_io::ErrorType for Stream<'_, '_, T> {
    type Error = Error;
}

impl<T: Read + Write> Read for Stream<'_, '_, T> {
    /// Blocks until there is data; 0 is the peer's goodbye.
    fn read(&mut self, to: &mut [u8]) -> Result<usize, Error> {
        match self.end {
            End::Open if !to.is_empty() => {}
            End::Open | End::Closed => return Ok(0),
            End::Failed(error) => return Err(error),
        }
        self.port.may_wait(true);
        match self.connection.read(to) {
            Ok(count) => Ok(count),
            Err(TlsError::ConnectionClosed) => {
                self.end = End::Closed;
                Ok(0)
            }
            Err(error) => Err(self.fail(error)),
        }
    }
}

impl<T: Read + ReadReady + Write> ReadReady for Stream<'_, '_, T> {
    /// Whether `read` would return at once. Takes what the transport has, and never blocks on the rest of a record.
    fn read_ready(&mut self) -> Result<bool, Error> {
        match self.end {
            End::Open => {}
            End::Closed => return Ok(true),
            End::Failed(error) => return Err(error),
        }
        loop {
            self.port.may_wait(false);
            // Reverted: the data stays where `read` finds it.
            match self.connection.read_buffered().map(embedded_tls::read_buffer::ReadBuffer::revert) {
                Ok(()) => return Ok(true),
                Err(TlsError::ConnectionClosed) => {
                    self.end = End::Closed;
                    return Ok(true);
                }
                Err(TlsError::Io(_)) if self.port.take_starved() => match self.port.stage() {
                    Ok(true) => {}
                    Ok(false) => return Ok(false),
                    Err(error) => {
                        self.end = End::Failed(error);
                        return Err(error);
                    }
                },
                Err(error) => return Err(self.fail(error)),
            }
        }
    }
}

impl<T: Read + Write> Write for Stream<'_, '_, T> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        if let End::Failed(error) = self.end {
            return Err(error);
        }
        self.connection.write(bytes).map_err(|error| self.fail(error))
    }

    fn flush(&mut self) -> Result<(), Error> {
        if let End::Failed(error) = self.end {
            return Err(error);
        }
        self.connection.flush().map_err(|error| self.fail(error))
    }
}

fn tls_config<'a>(config: &Config<'a>, fragment: Option<Fragment>) -> TlsConfig<'a> {
    let mut tls = TlsConfig::new();
    // [RFC 6066, 3] Literal addresses are not permitted in the server name that is sent.
    if config.server_name.parse::<core::net::IpAddr>().is_err() {
        tls = tls.with_server_name(config.server_name);
    }
    match fragment {
        Some(fragment) => tls.with_max_fragment_length(fragment.name),
        None => tls,
    }
}

/// A length of data that no record exceeds.
struct Fragment {
    name: MaxFragmentLength,
    len: usize,
}

impl Fragment {
    /// What fits records of `longest` bytes; `None` if any record does.
    fn that_fits(longest: usize) -> Option<Self> {
        /// Header, and what a record may hold beside its data.
        const OVERHEAD: usize = gate::HEADER + 256;
        let (name, len) = match longest.saturating_sub(OVERHEAD) {
            16_384.. => return None,
            4096.. => (MaxFragmentLength::Bits12, 4096),
            2048.. => (MaxFragmentLength::Bits11, 2048),
            1024.. => (MaxFragmentLength::Bits10, 1024),
            _ => (MaxFragmentLength::Bits9, 512),
        };
        Some(Self { name, len })
    }

    /// What we send must keep to it as well, and `embedded-tls` fills the buffer that it has.
    fn bound<'b>(this: Option<&Self>, write: &'b mut [u8]) -> &'b mut [u8] {
        let longest = this.map_or(write.len(), |fragment| write.len().min(fragment.len + TLS_RECORD_OVERHEAD));
        write.get_mut(..longest).unwrap_or_default()
    }
}

/// What a handshake came to. That `embedded-tls` is content is not enough.
fn conclude(handshake: Result<(), TlsError>, provider: &Provider<'_>, failure: Option<Error>) -> Result<(), Error> {
    match handshake {
        Ok(()) => provider.verdict(),
        Err(error) => Err(provider.refusal().unwrap_or_else(|| name_of(error, failure))),
    }
}

/// `failure` is what the port knows: where it has refused, `embedded-tls` only knows that there was an error.
fn name_of(error: TlsError, failure: Option<Error>) -> Error {
    if let Some(failure) = failure {
        return failure;
    }
    match error {
        TlsError::HandshakeAborted(_, alert) => Error::Refused(Some(alert as u8)),
        TlsError::InternalError => Error::Refused(None), // an alert after the handshake
        TlsError::InvalidSignature => Error::BadSignature,
        TlsError::InsufficientSpace | TlsError::EncodeError | TlsError::OutOfMemory => Error::BufferTooSmall,
        TlsError::ConnectionClosed | TlsError::MissingHandshake | TlsError::IoError => Error::Closed,
        TlsError::Io(kind) => Error::Io(kind),
        _ => Error::Malformed,
    }
}

#[cfg(test)]
mod tests;
