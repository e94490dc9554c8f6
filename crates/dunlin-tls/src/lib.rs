#![no_std]
#![cfg_attr(
    not(any(feature = "embedded-tls", feature = "mbedtls")),
    allow(dead_code, reason = "a build without a backend")
)]
//! TLS for devices, as a transport.
//!
//! A connected stream is `embedded_io::{Read, Write, ReadReady}` or, with `embedded-tls`, its two `embedded-io-async`
//! halves, and nothing here knows what runs over it. A stream exists only after the server has proved who it is: there is no way to get
//! one without verification, and no way to send a byte before it.
//!
//! Two backends, each a feature, with one [`Config`] and one [`Error`]:
//!
//! | | `embedded` (feature `embedded-tls`) | `mbedtls` (feature `mbedtls`) |
//! |---|---|---|
//! | versions | TLS 1.3 | TLS 1.2 and 1.3 |
//! | certificates | ECDSA on P-256 | RSA and ECDSA |
//! | memory | buffers only | a heap in a pool that the application hands over |
//! | resumption | no | yes |
//! | `embedded-io-async` | yes | no |
//! | written in | Rust | C behind Rust |
//!
//! `docs/tls.md` in the repository says which to take when, with measured costs.
//!
//! What is verified: the chain up to the one authority that [`Config`] names, with its signatures, basic
//! constraints and extended key usage; the validity period of each certificate against the time that [`Config`]
//! carries; the server's name against the certificate's subject alternative names; and that the server holds the
//! certificate's key. Revocation is not checked.

#[cfg(test)]
extern crate std;

#[cfg(feature = "embedded-tls")]
pub mod embedded;
#[cfg(feature = "mbedtls")]
pub mod mbedtls;

use core::fmt;

use embedded_io::ErrorKind;

/// Whom to trust, and who to be. All bytes are DER.
#[derive(Debug, Clone, Copy)]
pub struct Config<'a> {
    server_name: &'a str,
    authority: &'a [u8],
    unix_time: u64,
    identity: Option<Identity<'a>>,
    anonymous_if_asked: bool,
}

/// A client certificate and its key.
#[derive(Clone, Copy)]
pub struct Identity<'a> {
    certificate: &'a [u8],
    key: &'a [u8],
}

/// Fills a buffer with random bytes fit for keys. It may not fail: if there is no entropy, it must not return.
pub type Entropy = fn(&mut [u8]);

impl<'a> Config<'a> {
    /// Accepts the server that is called `server_name`, a DNS name or an IP address in text, in a certificate which
    /// leads to `authority` and is valid at `unix_time`, in seconds since 1970.
    ///
    /// A device that does not know the time cannot tell an expired certificate: get the time first.
    pub const fn new(server_name: &'a str, authority: &'a [u8], unix_time: u64) -> Self {
        Self { server_name, authority, unix_time, identity: None, anonymous_if_asked: false }
    }

    /// Presents this certificate when the server asks for one.
    #[must_use]
    pub const fn identity(mut self, identity: Identity<'a>) -> Self {
        self.identity = Some(identity);
        self
    }

    /// Without an identity, go on even if the server asks for one. By default that is
    /// [`Error::IdentityDemanded`]: in TLS 1.3 a server refuses only after the first data has been sent to it.
    #[must_use]
    pub const fn anonymous_if_asked(mut self) -> Self {
        self.anonymous_if_asked = true;
        self
    }
}

impl<'a> Identity<'a> {
    /// A certificate, and its key in SEC 1 or PKCS #8 form.
    pub const fn new(certificate: &'a [u8], key: &'a [u8]) -> Self {
        Self { certificate, key }
    }
}

/// The key is a secret.
impl fmt::Debug for Identity<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("certificate", &self.certificate.len()).finish_non_exhaustive()
    }
}

/// Why there is no stream, or no more. Nothing but handshake messages has been sent when a connect fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The certificate is for another name.
    WrongName,
    /// The chain does not lead to the authority. Also what Mbed TLS says of [`NotAnAuthority`](Self::NotAnAuthority).
    UnknownAuthority,
    /// A certificate of the chain is no longer valid. Is the clock right?
    Expired,
    /// A certificate of the chain is not valid yet. Is the clock right?
    NotYetValid,
    /// A certificate that may not sign others has signed one.
    NotAnAuthority,
    /// The certificate may not be used by a server.
    NotForServers,
    /// The certificate or its chain is broken, or of a kind that this backend does not know.
    BadCertificate,
    /// The server does not hold its certificate's key, or has changed the handshake.
    BadSignature,
    /// The server wanted to go on without having shown who it is.
    Unauthenticated,
    /// The server asks for a client certificate, and the configuration has none.
    IdentityDemanded,
    /// Our own certificate or key cannot be used.
    BadIdentity,
    /// The server refuses, with this TLS alert if the backend knows it. In TLS 1.3 a refusal of our certificate comes
    /// with the first read.
    Refused(Option<u8>),
    /// The peer sent what TLS forbids, or what this backend does not speak.
    Malformed,
    /// A record is longer than the buffer: the server does not keep to the length that was asked for.
    RecordTooLong,
    /// The connection ended without TLS's goodbye.
    Closed,
    /// The transport failed.
    Io(ErrorKind),
    /// A buffer is too small for the handshake.
    BufferTooSmall,
    /// The pool is exhausted.
    OutOfMemory,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl core::error::Error for Error {}

impl embedded_io::Error for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Io(kind) => *kind,
            Self::Closed => ErrorKind::ConnectionReset,
            Self::OutOfMemory | Self::BufferTooSmall => ErrorKind::OutOfMemory,
            Self::Malformed | Self::RecordTooLong => ErrorKind::InvalidData,
            Self::Refused(_) | Self::IdentityDemanded => ErrorKind::ConnectionRefused,
            _ => ErrorKind::PermissionDenied,
        }
    }
}
