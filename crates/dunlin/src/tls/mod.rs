//! TLS: whom to trust, and who this client is.
//!
//! `mqtts://` and `wss://` verify the server against the certificates of the system unless [`Builder::tls`] says
//! otherwise. There is no switch that turns verification off; there is one constructor that does, and its name says
//! so.
//!
//! ```no_run
//! use dunlin::{blocking::Client, tls::Tls};
//!
//! let tls = Tls::authorities_file("/etc/gateway/ca.pem").identity_files("/etc/gateway/cert.pem", "/etc/gateway/key.pem");
//! let client = Client::builder("mqtts://broker.example", "gateway-1").tls(tls).connect()?;
//! # Ok::<(), dunlin::blocking::Error>(())
//! ```
//!
//! Files are read again before each attempt to connect, so a certificate that was renewed is used without a restart.
//!
//! [`Builder::tls`]: crate::host::Builder::tls

mod error;
mod load;
mod verify;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{ALL_VERSIONS, ClientConfig, SupportedProtocolVersion};

pub use error::TlsError;
/// The version of rustls whose `ClientConfig` [`Tls::with_config`] takes.
pub use rustls;

use load::Material;

/// Whom a client trusts, and who it is.
#[derive(Clone)]
pub struct Tls {
    trust: Trust,
    identity: Option<(Source, Source)>,
    revocations: Vec<Source>,
    alpn: Vec<Vec<u8>>,
    server_name: Option<String>,
    versions: &'static [&'static SupportedProtocolVersion],
    shared: Arc<Shared>,
}

#[derive(Clone, Debug)]
enum Trust {
    System,
    Authorities(Vec<Source>),
    Pinned(Vec<Source>),
    Anybody,
    Config(Arc<ClientConfig>),
}

/// Where bytes come from: PEM or DER, which shows.
#[derive(Clone)]
enum Source {
    File(PathBuf),
    Memory(Arc<[u8]>),
}

#[derive(Default)]
struct Shared {
    /// What was loaded last: kept as long as the files stay the same, and with it the tickets for a short handshake.
    loaded: Mutex<Option<(Material, Arc<ClientConfig>)>>,
    /// The server has asked for a certificate, and there was none.
    missed: Arc<AtomicBool>,
}

static ONLY_TLS12: [&SupportedProtocolVersion; 1] = [&TLS12];
static ONLY_TLS13: [&SupportedProtocolVersion; 1] = [&TLS13];

/// What a handshake takes.
pub(crate) struct Handshake {
    pub config: Arc<ClientConfig>,
    pub server_name: ServerName<'static>,
    pub missed: Arc<AtomicBool>,
}

impl Tls {
    /// Trusts the certificate authorities of the system. This is what a client does without any options.
    ///
    /// ```
    /// # use dunlin::tls::Tls;
    /// let tls = Tls::system_roots().alpn(&["mqtt"]);
    /// ```
    #[must_use]
    pub fn system_roots() -> Self {
        Self::trusting(Trust::System)
    }

    /// Trusts the certificate authorities in this file and no others; PEM with one or more certificates, or DER.
    #[must_use]
    pub fn authorities_file(path: impl AsRef<Path>) -> Self {
        Self::trusting(Trust::Authorities(vec![Source::file(path)]))
    }

    /// As [`authorities_file`](Self::authorities_file), from memory.
    #[must_use]
    pub fn authorities(certificates: &[u8]) -> Self {
        Self::trusting(Trust::Authorities(vec![Source::memory(certificates)]))
    }

    /// Trusts servers that show exactly this certificate, byte for byte, and nobody else. Neither names nor dates nor
    /// authorities are looked at: the certificate itself is the proof. With several in the file, each is good, so that
    /// the next one can be rolled out in time.
    #[must_use]
    pub fn pinned_file(path: impl AsRef<Path>) -> Self {
        Self::trusting(Trust::Pinned(vec![Source::file(path)]))
    }

    /// As [`pinned_file`](Self::pinned_file), from memory.
    #[must_use]
    pub fn pinned(certificates: &[u8]) -> Self {
        Self::trusting(Trust::Pinned(vec![Source::memory(certificates)]))
    }

    /// Trusts anybody who answers: the connection is encrypted, and whoever sits between client and server reads and
    /// changes everything all the same. For a bench on a table, never for a product. Says so with a warning on each
    /// connection.
    #[must_use]
    pub fn insecure_without_verification() -> Self {
        Self::trusting(Trust::Anybody)
    }

    /// Uses a configuration made by the caller, with its own verifier, keys and crypto provider. Of the other options
    /// only [`server_name`](Self::server_name) counts.
    #[must_use]
    pub fn with_config(config: Arc<ClientConfig>) -> Self {
        Self::trusting(Trust::Config(config))
    }

    /// Shows this certificate to servers that ask for one: a file with the certificate and those that lead to the
    /// authority, and a file with its key (PKCS #8, SEC1 or PKCS #1, not encrypted). PEM or DER.
    #[must_use]
    pub fn identity_files(mut self, certificates: impl AsRef<Path>, key: impl AsRef<Path>) -> Self {
        self.identity = Some((Source::file(certificates), Source::file(key)));
        self
    }

    /// As [`identity_files`](Self::identity_files), from memory.
    #[must_use]
    pub fn identity(mut self, certificates: &[u8], key: &[u8]) -> Self {
        self.identity = Some((Source::memory(certificates), Source::memory(key)));
        self
    }

    /// Refuses servers whose certificate is in this list of revoked ones (CRL); PEM with one or more lists, or DER. A
    /// server whose authority has no list here is refused, too. Not for pinned certificates.
    #[must_use]
    pub fn revocation_file(mut self, path: impl AsRef<Path>) -> Self {
        self.revocations.push(Source::file(path));
        self
    }

    /// As [`revocation_file`](Self::revocation_file), from memory.
    #[must_use]
    pub fn revocations(mut self, lists: &[u8]) -> Self {
        self.revocations.push(Source::memory(lists));
        self
    }

    /// Protocols to offer by ALPN, the best first: `mqtt`, or `x-amzn-mqtt-ca` for AWS IoT on port 443. None by
    /// default.
    #[must_use]
    pub fn alpn(mut self, protocols: &[&str]) -> Self {
        self.alpn = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        self
    }

    /// The name that the server's certificate must have, and that SNI tells it, if it is not the host in the URL.
    #[must_use]
    pub fn server_name(mut self, name: &str) -> Self {
        self.server_name = Some(name.to_owned());
        self
    }

    /// Refuses TLS 1.2.
    #[must_use]
    pub fn only_tls13(mut self) -> Self {
        self.versions = &ONLY_TLS13;
        self
    }

    /// Does not offer TLS 1.3: for servers, and boxes on the way, that get it wrong.
    #[must_use]
    pub fn only_tls12(mut self) -> Self {
        self.versions = &ONLY_TLS12;
        self
    }

    /// Reads all files once, to say early what is wrong with them. A client reads them before each connection anyway.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn check(&self) -> Result<(), TlsError> {
        if let Some(name) = &self.server_name {
            ServerName::try_from(name.as_str()).map_err(|_| TlsError::InvalidServerName(name.clone()))?;
        }
        self.config().map(|_| ())
    }

    /// Reads what has to be read, for a connection to `host`. May block for as long as the files take.
    pub(crate) fn prepare(&self, host: &str) -> Result<Handshake, TlsError> {
        let name = self.server_name.as_deref().unwrap_or(host);
        let server_name =
            ServerName::try_from(name.to_owned()).map_err(|_| TlsError::InvalidServerName(name.to_owned()))?;
        if matches!(self.trust, Trust::Anybody) {
            warn_insecure(name);
        }
        self.shared.missed.store(false, Ordering::Relaxed);
        Ok(Handshake { config: self.config()?, server_name, missed: self.shared.missed.clone() })
    }

    fn config(&self) -> Result<Arc<ClientConfig>, TlsError> {
        if let Trust::Config(config) = &self.trust {
            return Ok(config.clone());
        }
        let material = Material::read(self)?;
        let mut loaded = self.shared.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((old, config)) = &*loaded
            && *old == material
        {
            return Ok(config.clone());
        }
        let config = Arc::new(material.config(self)?);
        *loaded = Some((material, config.clone()));
        Ok(config)
    }

    fn trusting(trust: Trust) -> Self {
        Self {
            trust,
            identity: None,
            revocations: Vec::new(),
            alpn: Vec::new(),
            server_name: None,
            versions: ALL_VERSIONS,
            shared: Arc::default(),
        }
    }
}

impl Default for Tls {
    fn default() -> Self {
        Self::system_roots()
    }
}

impl Source {
    fn file(path: impl AsRef<Path>) -> Self {
        Self::File(path.as_ref().to_owned())
    }

    fn memory(bytes: &[u8]) -> Self {
        Self::Memory(bytes.into())
    }
}

/// Never shows the key.
impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.fmt(f),
            Self::Memory(bytes) => write!(f, "{} bytes", bytes.len()),
        }
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("trust", &self.trust)
            .field("identity", &self.identity)
            .field("revocations", &self.revocations)
            .field("server_name", &self.server_name)
            .finish_non_exhaustive()
    }
}

/// Nobody is to find out later that this was on. Where nobody collects what a program has to say, it goes to standard
/// error.
fn warn_insecure(name: &str) {
    #[cfg(feature = "tracing")]
    if tracing::enabled!(tracing::Level::WARN) {
        tracing::warn!(server = name, "TLS WITHOUT VERIFICATION: anybody may be this server");
        return;
    }
    eprintln!("dunlin: TLS WITHOUT VERIFICATION: anybody may be {name}");
}
