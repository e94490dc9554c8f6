//! Every decision about trust. `embedded-tls` only carries the messages here.
//!
//! `embedded-tls` 0.19 takes a handshake for complete even if the server has shown no certificate, and would show our
//! certificate to such a server. So what counts is [`Provider::verdict`], and the certificate is held back until the
//! server is authenticated.

use core::sync::atomic::{AtomicU8, Ordering};
use core::time::Duration;

use embedded_tls::blocking::{
    Certificate, CertificateEntryRef, CertificateRef, CertificateVerifyRef, CryptoProvider, Sha256, TlsError,
    TlsVerifier,
};
use embedded_tls::{CryptoRngCore, SignatureScheme};
use p256::ecdsa::signature::Verifier as _;
use p256::ecdsa::{DerSignature, Signature, SigningKey, VerifyingKey};
use p256::pkcs8::DecodePrivateKey;
use pki_types::{
    AlgorithmIdentifier, CertificateDer, InvalidSignature, ServerName, SignatureVerificationAlgorithm, UnixTime, alg_id,
};
use sha2::Digest;
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use super::cipher::Suite;
use crate::{Config, Entropy, Error};

/// Certificates in one chain: the server's and two between it and the authority.
const MAX_CHAIN: usize = 3;

/// What the handshake asks us for.
pub(crate) struct Provider<'a> {
    config: Config<'a>,
    key: Option<SigningKey>,
    entropy: Random,
    verifier: Verifier<'a>,
    /// The server has asked for a certificate and got none.
    stayed_anonymous: bool,
}

struct Verifier<'a> {
    config: Config<'a>,
    state: State,
}

enum State {
    Nothing,
    /// The chain leads to the authority. With this key the server must sign the transcript up to here.
    ChainVerified {
        key: VerifyingKey,
        transcript: Sha256,
    },
    Authenticated,
    Failed(Error),
}

impl<'a> Provider<'a> {
    pub(crate) fn new(config: &Config<'a>, entropy: Entropy) -> Result<Self, Error> {
        let key = match config.identity {
            Some(identity) => Some(signing_key(identity.key).ok_or(Error::BadIdentity)?),
            None => None,
        };
        let verifier = Verifier { config: *config, state: State::Nothing };
        Ok(Self { config: *config, key, entropy: Random(entropy), verifier, stayed_anonymous: false })
    }

    /// Whether the handshake that just ended may be used. If not, no byte may be sent.
    pub(crate) fn verdict(&self) -> Result<(), Error> {
        match self.verifier.state {
            State::Authenticated if self.stayed_anonymous && !self.config.anonymous_if_asked => {
                Err(Error::IdentityDemanded)
            }
            State::Authenticated => Ok(()),
            State::Failed(why) => Err(why),
            State::Nothing | State::ChainVerified { .. } => Err(Error::Unauthenticated),
        }
    }

    /// The verifier's reason, if it has refused.
    pub(crate) fn refusal(&self) -> Option<Error> {
        match self.verifier.state {
            State::Failed(why) => Some(why),
            _ => None,
        }
    }

    fn is_authenticated(&self) -> bool {
        matches!(self.verifier.state, State::Authenticated)
    }
}

impl CryptoProvider for Provider<'_> {
    type CipherSuite = Suite;
    type Signature = DerSignature;

    fn rng(&mut self) -> impl CryptoRngCore {
        self.entropy
    }

    fn verifier(&mut self) -> Result<&mut impl TlsVerifier<Suite>, TlsError> {
        Ok(&mut self.verifier)
    }

    fn signer(&mut self) -> Result<(impl signature::SignerMut<DerSignature>, SignatureScheme), TlsError> {
        match &self.key {
            Some(key) if self.is_authenticated() => Ok((key.clone(), SignatureScheme::EcdsaSecp256r1Sha256)),
            _ => Err(TlsError::InvalidPrivateKey),
        }
    }

    /// Asked only when the server wants a certificate.
    fn client_cert(&mut self) -> Option<Certificate<impl AsRef<[u8]>>> {
        let certificate = self.config.identity.filter(|_| self.is_authenticated()).map(|identity| identity.certificate);
        self.stayed_anonymous = certificate.is_none();
        certificate.map(Certificate::X509)
    }
}

impl TlsVerifier<Suite> for Verifier<'_> {
    fn set_hostname_verification(&mut self, name: &str) -> Result<(), TlsError> {
        // The name that is asked for must be the one that is verified.
        match name == self.config.server_name {
            true => Ok(()),
            false => Err(TlsError::InvalidHandshake),
        }
    }

    fn verify_certificate(&mut self, transcript: &Sha256, certificates: CertificateRef) -> Result<(), TlsError> {
        let chain = match self.state {
            State::Nothing => self.verify_chain(&certificates),
            _ => Err(Error::Malformed), // a second chain
        };
        match chain {
            Ok(key) => {
                self.state = State::ChainVerified { key, transcript: transcript.clone() };
                Ok(())
            }
            Err(why) => {
                self.state = State::Failed(why);
                Err(TlsError::InvalidCertificate)
            }
        }
    }

    fn verify_signature(&mut self, signature: CertificateVerifyRef) -> Result<(), TlsError> {
        match self.verify_possession(&signature) {
            Ok(()) => {
                self.state = State::Authenticated;
                Ok(())
            }
            Err(why) => {
                self.state = State::Failed(why);
                Err(TlsError::InvalidSignature)
            }
        }
    }
}

impl Verifier<'_> {
    /// The server's key, if its certificate is to be trusted.
    fn verify_chain(&self, certificates: &CertificateRef) -> Result<VerifyingKey, Error> {
        let mut chain: [CertificateDer<'_>; MAX_CHAIN] = [const { CertificateDer::from_slice(&[]) }; MAX_CHAIN];
        let count = certificates.entries.len();
        for (place, entry) in chain.iter_mut().zip(&certificates.entries) {
            let CertificateEntryRef::X509(der) = entry else { return Err(Error::BadCertificate) };
            *place = CertificateDer::from_slice(der);
        }
        let Some((leaf_der, intermediates)) = chain.get(..count).and_then(<[_]>::split_first) else {
            return Err(Error::BadCertificate); // none, or more than fit
        };
        let authority = CertificateDer::from_slice(self.config.authority);
        let anchor = anchor_from_trusted_cert(&authority).map_err(name_of)?;
        let leaf = EndEntityCert::try_from(leaf_der).map_err(name_of)?;
        let now = UnixTime::since_unix_epoch(Duration::from_secs(self.config.unix_time));
        leaf.verify_for_usage(
            &[&P256Sha256],
            core::slice::from_ref(&anchor),
            intermediates,
            now,
            KeyUsage::server_auth(),
            None, // no revocation lists
            None,
        )
        .map_err(name_of)?;
        let name = ServerName::try_from(self.config.server_name).map_err(|_| Error::WrongName)?;
        leaf.verify_is_valid_for_subject_name(&name).map_err(name_of)?;
        key_of(&leaf).ok_or(Error::BadCertificate)
    }

    /// The server has signed this handshake with the key of its certificate.
    fn verify_possession(&mut self, signature: &CertificateVerifyRef) -> Result<(), Error> {
        let State::ChainVerified { key, transcript } = core::mem::replace(&mut self.state, State::Nothing) else {
            return Err(Error::Unauthenticated);
        };
        if signature.signature_scheme != SignatureScheme::EcdsaSecp256r1Sha256 {
            return Err(Error::BadSignature);
        }
        // What is signed: 64 spaces, a label with its zero, the hash of the handshake so far.
        const SPACES: usize = 64;
        const LABEL: &[u8] = b"TLS 1.3, server CertificateVerify\0";
        let mut signed = [b' '; SPACES + LABEL.len() + 32];
        let (_, rest) = signed.split_at_mut(SPACES);
        let (label, hash) = rest.split_at_mut(LABEL.len());
        label.copy_from_slice(LABEL);
        hash.copy_from_slice(&transcript.finalize());
        let signature = Signature::from_der(signature.signature).map_err(|_| Error::BadSignature)?;
        key.verify(&signed, &signature).map_err(|_| Error::BadSignature)
    }
}

fn name_of(error: webpki::Error) -> Error {
    use webpki::Error as E;
    match error {
        E::CertExpired { .. } => Error::Expired,
        E::CertNotValidYet { .. } => Error::NotYetValid,
        E::CertNotValidForName(_) => Error::WrongName,
        E::UnknownIssuer | E::InvalidSignatureForPublicKey => Error::UnknownAuthority,
        E::EndEntityUsedAsCa | E::CaUsedAsEndEntity | E::PathLenConstraintViolated => Error::NotAnAuthority,
        E::RequiredEkuNotFoundContext(_) => Error::NotForServers,
        _ => Error::BadCertificate,
    }
}

fn signing_key(der: &[u8]) -> Option<SigningKey> {
    let key = p256::SecretKey::from_sec1_der(der).or_else(|_| p256::SecretKey::from_pkcs8_der(der)).ok()?;
    Some(SigningKey::from(key))
}

/// ECDSA on P-256 with SHA-256, for certificates and for the handshake.
#[derive(Debug)]
struct P256Sha256;

impl SignatureVerificationAlgorithm for P256Sha256 {
    fn verify_signature(&self, key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        let key = VerifyingKey::from_sec1_bytes(key).map_err(|_| InvalidSignature)?;
        let signature = Signature::from_der(signature).map_err(|_| InvalidSignature)?;
        key.verify(message, &signature).map_err(|_| InvalidSignature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ECDSA_P256
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ECDSA_SHA256
    }
}

/// The key in a certificate. Without an allocator `webpki` shows it only to an algorithm, so one asks for it.
fn key_of(certificate: &EndEntityCert<'_>) -> Option<VerifyingKey> {
    let seen = KeySeen([const { AtomicU8::new(0) }; UNCOMPRESSED_POINT]);
    certificate.verify_signature(&seen, &[], &[]).ok()?;
    VerifyingKey::from_sec1_bytes(&seen.0.map(AtomicU8::into_inner)).ok()
}

const UNCOMPRESSED_POINT: usize = 65;

/// Verifies nothing: keeps the key. Atomics, since algorithms are shared between threads where there are any.
#[derive(Debug)]
struct KeySeen([AtomicU8; UNCOMPRESSED_POINT]);

impl SignatureVerificationAlgorithm for KeySeen {
    fn verify_signature(&self, key: &[u8], _: &[u8], _: &[u8]) -> Result<(), InvalidSignature> {
        if key.len() != UNCOMPRESSED_POINT {
            return Err(InvalidSignature);
        }
        self.0.iter().zip(key).for_each(|(seen, byte)| seen.store(*byte, Ordering::Relaxed));
        Ok(())
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ECDSA_P256
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ECDSA_SHA256
    }
}

/// The application's entropy in the form that the cryptography wants.
#[derive(Clone, Copy)]
struct Random(Entropy);

impl rand_core::RngCore for Random {
    fn next_u32(&mut self) -> u32 {
        rand_core::impls::next_u32_via_fill(self)
    }

    fn next_u64(&mut self) -> u64 {
        rand_core::impls::next_u64_via_fill(self)
    }

    fn fill_bytes(&mut self, to: &mut [u8]) {
        (self.0)(to);
    }

    fn try_fill_bytes(&mut self, to: &mut [u8]) -> Result<(), rand_core::Error> {
        self.fill_bytes(to);
        Ok(())
    }
}

impl rand_core::CryptoRng for Random {}
