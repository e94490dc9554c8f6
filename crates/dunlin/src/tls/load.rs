//! From files to a configuration of rustls.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::client::{ResolvesClientCert, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, SignatureScheme};

use super::verify::{Anybody, Pinned};
use super::{Source, Tls, TlsError, Trust};

/// The bytes that a configuration is made of.
#[derive(PartialEq, Eq)]
pub(super) struct Material {
    trusted: Vec<Piece>,
    revocations: Vec<Piece>,
    identity: Option<(Piece, Piece)>,
}

#[derive(PartialEq, Eq)]
struct Piece {
    place: String,
    bytes: Arc<[u8]>,
}

impl Material {
    pub fn read(tls: &Tls) -> Result<Self, TlsError> {
        let trusted = match &tls.trust {
            Trust::Authorities(sources) | Trust::Pinned(sources) => read_all(sources)?,
            Trust::System | Trust::Anybody | Trust::Config(_) => Vec::new(),
        };
        let identity = match &tls.identity {
            Some((certificates, key)) => Some((certificates.read("certificate")?, key.read("key")?)),
            None => None,
        };
        Ok(Self { trusted, revocations: read_all(&tls.revocations)?, identity })
    }

    pub fn config(&self, tls: &Tls) -> Result<ClientConfig, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(tls.versions)
            .map_err(TlsError::Failed)?;
        let builder = match &tls.trust {
            Trust::Pinned(_) => {
                let pinned = Pinned::new(self.trusted_certificates()?, provider.clone());
                builder.dangerous().with_custom_certificate_verifier(Arc::new(pinned))
            }
            Trust::Anybody => {
                builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody::new(provider.clone())))
            }
            Trust::System | Trust::Authorities(_) | Trust::Config(_) => {
                builder.with_webpki_verifier(self.verifier(tls, provider.clone())?)
            }
        };
        let identity = Identity { key: self.certified_key(&provider)?, missed: tls.shared.missed.clone() };
        let mut config = builder.with_client_cert_resolver(Arc::new(identity));
        config.alpn_protocols.clone_from(&tls.alpn);
        Ok(config)
    }

    fn verifier(&self, tls: &Tls, provider: Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
        let mut roots = RootCertStore::empty();
        if matches!(tls.trust, Trust::System) {
            let system = rustls_native_certs::load_native_certs();
            let (good, _) = roots.add_parsable_certificates(system.certs);
            if good == 0 {
                let errors: Vec<_> = system.errors.iter().map(ToString::to_string).collect();
                return Err(TlsError::NoSystemRoots(errors.join(", ")));
            }
        }
        for (certificate, place) in self.trusted_certificates()? {
            roots.add(certificate).map_err(|error| TlsError::Unusable { place, error })?;
        }
        let mut lists = Vec::new();
        for piece in &self.revocations {
            lists.extend(piece.all::<CertificateRevocationListDer<'static>>("revocation list")?);
        }
        let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
        let builder =
            if lists.is_empty() { builder } else { builder.with_crls(lists).only_check_end_entity_revocation() };
        builder.build().map_err(|error| {
            let place = self.revocations.first().map_or_else(String::new, |piece| piece.place.clone());
            TlsError::Unusable { place, error: rustls::Error::General(error.to_string()) }
        })
    }

    fn trusted_certificates(&self) -> Result<Vec<(CertificateDer<'static>, String)>, TlsError> {
        let mut certificates = Vec::new();
        for piece in &self.trusted {
            let found = piece.all::<CertificateDer<'static>>("certificate")?;
            certificates.extend(found.into_iter().map(|certificate| (certificate, piece.place.clone())));
        }
        Ok(certificates)
    }

    fn certified_key(&self, provider: &CryptoProvider) -> Result<Option<Arc<CertifiedKey>>, TlsError> {
        let Some((certificates, key)) = &self.identity else { return Ok(None) };
        let chain = certificates.all("certificate")?;
        let place = key.place.clone();
        let key = key.one_key()?;
        let certified = CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => TlsError::KeyMismatch,
            error => TlsError::Unusable { place, error },
        })?;
        Ok(Some(Arc::new(certified)))
    }
}

fn read_all(sources: &[Source]) -> Result<Vec<Piece>, TlsError> {
    sources.iter().map(|source| source.read("certificate")).collect()
}

impl Source {
    fn read(&self, what: &str) -> Result<Piece, TlsError> {
        match self {
            Self::Memory(bytes) => Ok(Piece { place: format!("the {what} in memory"), bytes: bytes.clone() }),
            Self::File(path) => {
                let bytes = std::fs::read(path)
                    .map_err(|error| TlsError::File { path: path.clone(), error: Arc::new(error) })?;
                Ok(Piece { place: path.display().to_string(), bytes: bytes.into() })
            }
        }
    }
}

impl Piece {
    /// All things of one kind in it, at least one.
    fn all<T: PemObject + From<Vec<u8>>>(&self, what: &'static str) -> Result<Vec<T>, TlsError> {
        let nothing = || TlsError::Nothing { place: self.place.clone(), what };
        if self.is_der() {
            return Ok(vec![T::from(self.bytes.to_vec())]);
        }
        let found: Result<Vec<T>, _> = T::pem_slice_iter(&self.bytes).collect();
        found.ok().filter(|found| !found.is_empty()).ok_or_else(nothing)
    }

    fn one_key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        let key = match self.is_der() {
            true => PrivateKeyDer::try_from(self.bytes.to_vec()).ok(),
            false => PrivateKeyDer::from_pem_slice(&self.bytes).ok(),
        };
        key.ok_or_else(|| TlsError::Nothing { place: self.place.clone(), what: "unencrypted private key" })
    }

    /// A DER file begins with a SEQUENCE; a PEM file with text.
    fn is_der(&self) -> bool {
        self.bytes.first() == Some(&0x30)
    }
}

/// The certificate to show, if any; remembers being asked for one that is not there.
#[derive(Debug)]
struct Identity {
    key: Option<Arc<CertifiedKey>>,
    missed: Arc<AtomicBool>,
}

impl ResolvesClientCert for Identity {
    fn resolve(&self, _authorities: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        if self.key.is_none() {
            self.missed.store(true, Ordering::Relaxed);
        }
        self.key.clone()
    }

    fn has_certs(&self) -> bool {
        self.key.is_some()
    }
}
