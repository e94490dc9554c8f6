//! TLS 1.2 and 1.3 with Mbed TLS, through `mbedtls-rs`: RSA and ECDSA, resumption, and a heap of fixed size.
//!
//! The library exists once. [`Library::start`] gives it its heap, entropy and timer; [`Library::connect`] makes a
//! handshake and gives a [`Stream`] that blocks.
#![expect(unsafe_code, reason = "the pool and the hooks of a C library")]

mod clock;
mod pool;
mod tap;

use core::ffi::CStr;
use core::mem::MaybeUninit;

use embedded_io::{ErrorType, Read, ReadReady, Write};
use mbedtls_rs::blocking::Session;
use mbedtls_rs::sys;
use mbedtls_rs::{
    AuthMode, Certificate, ClientSessionConfig, Credentials, PrivateKey, SavedSession, SessionConfig, SessionError,
    Tls, X509,
};
use static_cell::StaticCell;

use crate::{Config, Entropy, Error};
use tap::Tap;

/// The longest server name.
const NAME: usize = 254;

/// Mbed TLS, started.
pub struct Library {
    tls: Tls<'static>,
}

/// A session with a server, to be resumed on a later connection to the same name.
pub struct Saved(SavedSession);

impl Library {
    /// Hands `pool` over to Mbed TLS for ever; nothing else is allocated from. `entropy` fills buffers with random bytes fit
    /// for keys, `millis` counts milliseconds.
    ///
    /// `None` if it was started before.
    pub fn start(pool: &'static mut [MaybeUninit<u8>], entropy: Entropy, millis: fn() -> u64) -> Option<Self> {
        let random = RANDOM.try_init(Random(entropy))?;
        let tls = Tls::new(random).ok()?;
        pool::start(pool);
        clock::start(millis);
        Some(Self { tls })
    }

    /// Most bytes of the pool that were in use at a time.
    pub fn pool_peak(&self) -> usize {
        pool::peak()
    }

    /// Makes the handshake over a new stream, and blocks until it is over. With `saved`, asks the server to go on with that
    /// session; if it does not, the handshake is a full one.
    ///
    /// # Errors
    /// Whatever is wrong with the server, the configuration or the transport, see [`Error`]. No application byte has been
    /// sent, and none can be.
    pub fn connect<'a, T: Read + ReadReady + Write>(
        &'a self,
        transport: T,
        config: &Config<'a>,
        saved: Option<&Saved>,
    ) -> Result<Stream<'a, T>, Error> {
        clock::set(config.unix_time);
        let mut client = ClientSessionConfig::new();
        client.auth_mode = AuthMode::Required;
        client.ca_chain =
            Some(Certificate::new_no_copy(config.authority).map_err(|error| own(error, Error::BadCertificate))?);
        if let Some(identity) = config.identity {
            let bad = |error| own(error, Error::BadIdentity);
            let certificate = Certificate::new_no_copy(identity.certificate).map_err(bad)?;
            let private_key = PrivateKey::new(X509::DER(identity.key), None).map_err(bad)?;
            client.creds = Some(Credentials { certificate, private_key });
        }
        let mut session = Session::new(self.tls.reference(), Tap::new(transport), &SessionConfig::Client(client))
            .map_err(|error| own(error, Error::Malformed))?;
        let mut name = [0; NAME];
        let text = config.server_name.as_bytes();
        name.get_mut(..text.len()).ok_or(Error::WrongName)?.copy_from_slice(text);
        let name = CStr::from_bytes_until_nul(&name).map_err(|_| Error::WrongName)?;
        session.set_server_name(name).map_err(|error| own(error, Error::WrongName))?;
        let handshake = match saved {
            Some(saved) => session.connect_with_session(&saved.0),
            None => session.connect(),
        };
        // A Certificate message has left, and it was empty. Whatever came after it, that is the reason.
        let stays_anonymous = config.identity.is_none() && session.stream().records.has_certificate();
        if stays_anonymous && (handshake.is_err() || !config.anonymous_if_asked) {
            return Err(Error::IdentityDemanded);
        }
        if let Err(error) = handshake {
            let details = session.tls_verification_details();
            return Err(name_of(error, session.stream().failure.take(), Some(details)));
        }
        Ok(Stream { session, end: None, peeked: None })
    }
}

/// A TLS connection with an authenticated server. After an error it is over: each further call returns the same error.
pub struct Stream<'a, T: Read + Write> {
    session: Session<'a, Tap<T>>,
    /// `Ok`: the peer has said goodbye.
    end: Option<Result<(), Error>>,
    /// What [`read_ready`](ReadReady::read_ready) had to take to know.
    peeked: Option<u8>,
}

impl<T: Read + Write> Stream<'_, T> {
    /// Keeps the session for [`Library::connect`]. With TLS 1.3 there is one only after the first read.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn save(&self) -> Result<Saved, Error> {
        self.session.save().map(Saved).map_err(|error| own(error, Error::Malformed))
    }

    /// Lends the transport: to wait on it, not to read or write.
    pub fn with_transport<R>(&mut self, lend: impl FnOnce(&mut T) -> R) -> R {
        lend(&mut self.session.stream().transport)
    }

    /// Says goodbye. The transport stays open.
    ///
    /// # Errors
    /// The transport's, or that of an earlier failure.
    pub fn close(mut self) -> Result<(), Error> {
        if let Some(Err(error)) = self.end {
            return Err(error);
        }
        self.session.close().map_err(|error| self.fail(error))
    }

    fn fail(&mut self, error: SessionError) -> Error {
        let error = name_of(error, self.session.stream().failure.take(), None);
        self.end = Some(Err(error));
        error
    }

    /// Reads what there is; `None` if that would mean waiting and `may_wait` forbids it.
    fn take(&mut self, to: &mut [u8], may_wait: bool) -> Result<Option<usize>, Error> {
        match self.end {
            None => {}
            Some(Ok(())) => return Ok(Some(0)),
            Some(Err(error)) => return Err(error),
        }
        let tap = self.session.stream();
        (tap.may_wait, tap.starved) = (may_wait, false);
        let result = self.session.read(to);
        let tap = self.session.stream();
        tap.may_wait = true;
        match result {
            Ok(0) => {
                self.end = Some(Ok(()));
                Ok(Some(0))
            }
            Ok(count) => Ok(Some(count)),
            Err(_) if tap.starved => Ok(None),
            Err(error) => Err(self.fail(error)),
        }
    }
}

impl<T: Read + Write> ErrorType for Stream<'_, T> {
    type Error = Error;
}

impl<T: Read + Write> Read for Stream<'_, T> {
    /// Blocks until there is data; 0 is the peer's goodbye.
    fn read(&mut self, to: &mut [u8]) -> Result<usize, Error> {
        let Some((first, rest)) = to.split_first_mut() else { return Ok(0) };
        match self.peeked.take() {
            Some(byte) => {
                *first = byte;
                // The rest of the record, if there is one. What is wrong shows with the next call.
                let more = if rest.is_empty() { None } else { self.take(rest, false).ok().flatten() };
                Ok(1 + more.unwrap_or(0))
            }
            None => self.take(to, true).map(|count| count.unwrap_or(0)),
        }
    }
}

impl<T: Read + Write> ReadReady for Stream<'_, T> {
    /// Whether `read` would return at once. Takes what the transport has, and never blocks on the rest of a record.
    fn read_ready(&mut self) -> Result<bool, Error> {
        if self.peeked.is_some() {
            return Ok(true);
        }
        let mut byte = [0];
        match self.take(&mut byte, false)? {
            Some(1) => {
                self.peeked = Some(byte[0]);
                Ok(true)
            }
            Some(_) => Ok(true),
            None => Ok(false),
        }
    }
}

impl<T: Read + Write> Write for Stream<'_, T> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        match self.end {
            Some(Err(error)) => Err(error),
            _ => self.session.write(bytes).map_err(|error| self.fail(error)),
        }
    }

    fn flush(&mut self) -> Result<(), Error> {
        match self.end {
            Some(Err(error)) => Err(error),
            _ => self.session.flush().map_err(|error| self.fail(error)),
        }
    }
}

/// An error in what is ours; `otherwise` unless memory is the reason.
fn own(error: impl Into<SessionError>, otherwise: Error) -> Error {
    match error.into() {
        SessionError::MbedTls(error) if is_out_of_memory(error.code()) => Error::OutOfMemory,
        _ => otherwise,
    }
}

/// `details` are the flags of the certificate verification, after a handshake.
fn name_of(error: SessionError, failure: Option<Error>, details: Option<u32>) -> Error {
    if let Some(failure) = failure {
        return failure;
    }
    let code = match error {
        SessionError::Io(embedded_io::ErrorKind::ConnectionReset) => return Error::Closed,
        SessionError::Io(kind) => return Error::Io(kind),
        SessionError::MbedTls(error) => error.code(),
    };
    match code {
        sys::MBEDTLS_ERR_X509_CERT_VERIFY_FAILED | sys::MBEDTLS_ERR_SSL_BAD_CERTIFICATE => {
            details.map_or(Error::BadCertificate, refusal)
        }
        sys::MBEDTLS_ERR_SSL_FATAL_ALERT_MESSAGE => Error::Refused(None),
        sys::MBEDTLS_ERR_SSL_CONN_EOF => Error::Closed,
        code if is_out_of_memory(code) => Error::OutOfMemory,
        _ => Error::Malformed,
    }
}

/// The first reason, in the order in which people want to know.
fn refusal(flags: u32) -> Error {
    const REASONS: [(u32, Error); 7] = [
        (sys::MBEDTLS_X509_BADCERT_NOT_TRUSTED, Error::UnknownAuthority),
        (sys::MBEDTLS_X509_BADCERT_EXPIRED, Error::Expired),
        (sys::MBEDTLS_X509_BADCERT_FUTURE, Error::NotYetValid),
        (sys::MBEDTLS_X509_BADCERT_EXT_KEY_USAGE, Error::NotForServers),
        (sys::MBEDTLS_X509_BADCERT_KEY_USAGE, Error::NotForServers),
        (sys::MBEDTLS_X509_BADCERT_NS_CERT_TYPE, Error::NotForServers),
        (sys::MBEDTLS_X509_BADCERT_CN_MISMATCH, Error::WrongName),
    ];
    let reason = REASONS.iter().find(|(flag, _)| flags & flag != 0);
    reason.map_or(Error::BadCertificate, |(_, error)| *error)
}

fn is_out_of_memory(code: i32) -> bool {
    // Low-level errors are added to high-level ones.
    const MASK: i32 = 0xff80;
    [sys::MBEDTLS_ERR_SSL_ALLOC_FAILED, sys::MBEDTLS_ERR_X509_ALLOC_FAILED, sys::MBEDTLS_ERR_PK_ALLOC_FAILED]
        .iter()
        .any(|known| -code & MASK == -known & MASK)
}

/// The application's entropy in the form that Mbed TLS wants.
struct Random(Entropy);

static RANDOM: StaticCell<Random> = StaticCell::new();

impl rand_core_010::TryRng for Random {
    type Error = core::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        let mut bytes = [0; 4];
        (self.0)(&mut bytes);
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        let mut bytes = [0; 8];
        (self.0)(&mut bytes);
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, to: &mut [u8]) -> Result<(), Self::Error> {
        (self.0)(to);
        Ok(())
    }
}

impl rand_core_010::TryCryptoRng for Random {}
