//! Why there is no TLS connection, one variant per thing to do about it.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::{AlertDescription, CertificateError, Error, InconsistentKeys};

/// Why there is no TLS connection. In all cases the server has got nothing from the session: no user name, no
/// password, no message. Only with TLS 1.3, and only where the server refuses this client after it has proved itself
/// ([`NoIdentity`](Self::NoIdentity), [`IdentityRefused`](Self::IdentityRefused)), encrypted bytes may be on their way
/// to the true server.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum TlsError {
    /// The server's certificate is for another name. Connect by the name in the certificate, or say what name it has
    /// with [`Tls::server_name`](super::Tls::server_name).
    WrongName {
        /// The name that was expected.
        expected: String,
        /// The names in the certificate, if known.
        presented: Vec<String>,
    },
    /// The server's certificate comes from no authority that is trusted here.
    UnknownAuthority,
    /// The server's certificate has expired. Or the clock of this machine is wrong.
    Expired,
    /// The server's certificate is not valid yet. Or the clock of this machine is wrong.
    NotYetValid,
    /// The server's certificate has been revoked.
    Revoked,
    /// No list of revoked certificates speaks for the server's certificate.
    RevocationUnknown,
    /// The server's certificate is not the pinned one.
    NotPinned,
    /// The server's certificate is no good for another reason.
    BadCertificate(CertificateError),
    /// The server asked for a certificate and there is none: see
    /// [`Tls::identity_files`](super::Tls::identity_files).
    NoIdentity,
    /// The server refused this client's certificate.
    IdentityRefused(AlertDescription),
    /// A file could not be read.
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: Arc<io::Error>,
    },
    /// There is no certificate, list or key in what should have one: neither PEM nor DER, or the key is encrypted.
    Nothing {
        /// Where.
        place: String,
        /// What was looked for.
        what: &'static str,
    },
    /// A certificate, list or key cannot be used.
    Unusable {
        /// Where.
        place: String,
        /// Why.
        error: Error,
    },
    /// The key does not belong to the certificate.
    KeyMismatch,
    /// The system has no certificate authorities, or they cannot be read.
    NoSystemRoots(String),
    /// This is no name and no IP address.
    InvalidServerName(String),
    /// The handshake failed otherwise, or later the connection.
    Failed(Error),
}

impl TlsError {
    /// By its name, where it has one. `missed`: the server asked for a certificate and got none.
    pub(crate) fn from_rustls(error: Error, missed: bool) -> Self {
        match error {
            Error::InvalidCertificate(error) => Self::from_certificate(error),
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => Self::KeyMismatch,
            Error::AlertReceived(alert) => Self::from_alert(alert, missed),
            other => Self::Failed(other),
        }
    }

    fn from_certificate(error: CertificateError) -> Self {
        match error {
            CertificateError::NotValidForNameContext { expected, presented } => {
                Self::WrongName { expected: expected.to_str().into_owned(), presented }
            }
            CertificateError::NotValidForName => Self::WrongName { expected: String::new(), presented: Vec::new() },
            CertificateError::UnknownIssuer => Self::UnknownAuthority,
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Self::NotYetValid,
            CertificateError::Revoked => Self::Revoked,
            CertificateError::UnknownRevocationStatus => Self::RevocationUnknown,
            // Only the verifier of pinned certificates says so.
            CertificateError::ApplicationVerificationFailure => Self::NotPinned,
            other => Self::BadCertificate(other),
        }
    }

    fn from_alert(alert: AlertDescription, missed: bool) -> Self {
        match alert {
            AlertDescription::CertificateRequired | AlertDescription::NoCertificate => Self::NoIdentity,
            // TLS 1.2 has no words for it.
            AlertDescription::HandshakeFailure | AlertDescription::BadCertificate if missed => Self::NoIdentity,
            AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::DecryptError => Self::IdentityRefused(alert),
            other => Self::Failed(Error::AlertReceived(other)),
        }
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongName { expected, presented } if presented.is_empty() => {
                write!(f, "the server's certificate is not for {expected}")
            }
            Self::WrongName { expected, presented } => {
                write!(f, "the server's certificate is not for {expected}, but for {}", presented.join(", "))
            }
            Self::UnknownAuthority => f.write_str("the server's certificate comes from an unknown authority"),
            Self::Expired => f.write_str("the server's certificate has expired, or the clock here is wrong"),
            Self::NotYetValid => f.write_str("the server's certificate is not valid yet, or the clock here is wrong"),
            Self::Revoked => f.write_str("the server's certificate has been revoked"),
            Self::RevocationUnknown => f.write_str("no revocation list speaks for the server's certificate"),
            Self::NotPinned => f.write_str("the server's certificate is not the pinned one"),
            Self::BadCertificate(error) => write!(f, "the server's certificate is not valid: {error}"),
            Self::NoIdentity => f.write_str("the server asks for a client certificate"),
            Self::IdentityRefused(alert) => write!(f, "the server refused the client certificate: {alert:?}"),
            Self::File { path, error } => write!(f, "{}: {error}", path.display()),
            Self::Nothing { place, what } => write!(f, "{place}: no {what} in it, neither PEM nor DER"),
            Self::Unusable { place, error } => write!(f, "{place}: {error}"),
            Self::KeyMismatch => f.write_str("the key does not belong to the certificate"),
            Self::NoSystemRoots(why) => write!(f, "the system has no certificate authorities: {why}"),
            Self::InvalidServerName(name) => write!(f, "{name} is no server name"),
            Self::Failed(error) => write!(f, "TLS: {error}"),
        }
    }
}

impl std::error::Error for TlsError {}
