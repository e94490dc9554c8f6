//! Mutual TLS for the story: an authority that lives as long as the demo, and the [`Door`] that demands certificates.
//!
//! The door ends TLS at the link, where the packets are to be seen, and so stands in front of the broker as a TLS proxy
//! does in production. The server's side is rustls' own: no code of the library judges the library.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dunlin::tls::Tls;
use dunlin::tls::rustls::crypto::ring::default_provider;
use dunlin::tls::rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use dunlin::tls::rustls::server::WebPkiClientVerifier;
use dunlin::tls::rustls::{HandshakeKind, ProtocolVersion, RootCertStore, ServerConfig, ServerConnection};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

use crate::exit::Failure;

/// The name in the broker's certificate.
pub const SERVER: &str = "broker.demo";

/// A certificate authority, and what it has issued. Its keys are never stored.
pub struct Authority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    /// Certificates and the names they are for.
    issued: Mutex<Vec<(CertificateDer<'static>, String)>>,
}

/// Where TLS ends: lets in who has a certificate of its authority.
pub struct Door {
    config: Arc<ServerConfig>,
    authority: Arc<Authority>,
    full: AtomicUsize,
    resumed: AtomicUsize,
}

/// The client's end of a link.
pub enum Wire {
    Plain(TcpStream),
    Secured(TcpStream, Box<Mutex<ServerConnection>>),
}

impl Authority {
    /// A new one.
    ///
    /// # Errors
    /// No randomness.
    pub fn new(name: &str) -> Result<Self, Failure> {
        let mut params = named(name, &[])?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = params.self_signed(&key).map_err(failed)?.der().clone();
        Ok(Self { certificate, issuer: Issuer::new(params, key), issued: Mutex::default() })
    }

    /// What a client trusts that trusts this authority. It shows no certificate.
    pub fn trusted(&self) -> Tls {
        Tls::authorities(&self.certificate).server_name(SERVER)
    }

    /// Issues a certificate for a client, which shows it, and trusts `server`'s authority.
    ///
    /// # Errors
    /// No randomness.
    pub fn client(&self, name: &str, server: &Self) -> Result<Tls, Failure> {
        let (certificate, key) = self.issue(name, &[], ExtendedKeyUsagePurpose::ClientAuth)?;
        Ok(server.trusted().identity(&certificate, &key.serialize_der()))
    }

    fn issue(
        &self,
        name: &str,
        hosts: &[&str],
        purpose: ExtendedKeyUsagePurpose,
    ) -> Result<(CertificateDer<'static>, KeyPair), Failure> {
        let mut params = named(name, hosts)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![purpose];
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed)?.der().clone();
        lock(&self.issued).push((certificate.clone(), name.to_owned()));
        Ok((certificate, key))
    }

    fn whose(&self, certificate: &CertificateDer<'_>) -> String {
        let issued = lock(&self.issued);
        let found = issued.iter().find(|(one, _)| one == certificate);
        found.map_or_else(|| "somebody else".to_owned(), |(_, name)| name.clone())
    }
}

impl Door {
    /// A door with a certificate for [`SERVER`], that demands one of the same authority.
    ///
    /// # Errors
    /// No randomness.
    pub fn new(authority: Arc<Authority>) -> Result<Self, Failure> {
        let (certificate, key) = authority.issue(SERVER, &[SERVER], ExtendedKeyUsagePurpose::ServerAuth)?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.certificate.clone()).map_err(failed)?;
        let provider = Arc::new(default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(failed)?
            .with_client_cert_verifier(verifier.build().map_err(failed)?)
            .with_single_cert(vec![certificate], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
            .map_err(failed)?;
        Ok(Self { config: Arc::new(config), authority, full: 0.into(), resumed: 0.into() })
    }

    /// Goes through the handshake. What was agreed on is given in words.
    ///
    /// # Errors
    /// Why the client is not let in.
    pub fn let_in(&self, mut socket: TcpStream) -> io::Result<(Wire, String)> {
        let session = ServerConnection::new(self.config.clone());
        let mut session = session.map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
        while session.is_handshaking() {
            session.complete_io(&mut socket)?;
        }
        let text = self.describe(&session);
        Ok((Wire::Secured(socket, Box::new(Mutex::new(session))), text))
    }

    /// Handshakes so far: full ones, and short ones of clients that were known.
    pub fn handshakes(&self) -> (usize, usize) {
        (self.full.load(Ordering::Relaxed), self.resumed.load(Ordering::Relaxed))
    }

    fn describe(&self, session: &ServerConnection) -> String {
        let version = match session.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "TLS 1.3",
            Some(ProtocolVersion::TLSv1_2) => "TLS 1.2",
            _ => "TLS",
        };
        let suite = session.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str()).unwrap_or("?");
        let client = session.peer_certificates().and_then(<[_]>::first);
        let client = client.map_or_else(|| "nobody".to_owned(), |certificate| self.authority.whose(certificate));
        if session.handshake_kind() == Some(HandshakeKind::Resumed) {
            self.resumed.fetch_add(1, Ordering::Relaxed);
            return format!("{version}, {suite}; resumed: {SERVER} and {client} have verified each other before");
        }
        self.full.fetch_add(1, Ordering::Relaxed);
        format!("{version}, {suite}; {SERVER} and {client} have verified each other's certificate")
    }
}

impl Wire {
    /// Closes it, both ways, whoever is reading or writing.
    pub fn shut(&self) {
        let (Self::Plain(socket) | Self::Secured(socket, _)) = self;
        let _ = socket.shutdown(Shutdown::Both);
    }
}

impl Read for &Wire {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let (mut socket, session) = match self {
            Wire::Plain(socket) => return (&mut &*socket).read(buf),
            Wire::Secured(socket, session) => (socket, session),
        };
        let mut encrypted = [0; 4096];
        loop {
            match lock(session).reader().read(buf) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                result => return result,
            }
            // Not while locked: the other way goes on meanwhile.
            let n = socket.read(&mut encrypted)?;
            let mut session = lock(session);
            let mut rest = &encrypted[..n];
            loop {
                session.read_tls(&mut rest)?;
                session.process_new_packets().map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
                if rest.is_empty() {
                    break;
                }
            }
            flush(&mut session, socket)?;
        }
    }
}

impl Write for &Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Wire::Plain(socket) => (&mut &*socket).write(bytes),
            Wire::Secured(socket, session) => {
                let mut session = lock(session);
                let n = session.writer().write(bytes)?;
                flush(&mut session, socket)?;
                Ok(n)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn flush(session: &mut ServerConnection, mut socket: &TcpStream) -> io::Result<()> {
    while session.wants_write() {
        session.write_tls(&mut socket)?;
    }
    Ok(())
}

fn named(name: &str, hosts: &[&str]) -> Result<CertificateParams, Failure> {
    let hosts: Vec<_> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let mut params = CertificateParams::new(hosts).map_err(failed)?;
    params.distinguished_name.push(DnType::CommonName, name);
    Ok(params)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::local(format!("TLS: {error}"))
}
