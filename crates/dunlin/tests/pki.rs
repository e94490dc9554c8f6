//! Certificates for tests, good and bad, made at run time. Also for those of the command line.
#![allow(dead_code, reason = "each user needs some of it")]

use std::process::Command;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, RevokedCertParams, SerialNumber,
};
use time::{Duration, OffsetDateTime};

/// What keys are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    P256,
    Ed25519,
    Rsa,
}

/// A certificate and its key.
pub struct Issued {
    pub der: Vec<u8>,
    pub pem: String,
    pub key: KeyPair,
    serial: SerialNumber,
}

/// A certificate authority.
pub struct Authority {
    pub pem: String,
    params: CertificateParams,
    key: KeyPair,
    algorithm: Algorithm,
}

/// When a certificate is good.
#[derive(Clone, Copy)]
pub enum Validity {
    Now,
    Past,
    Future,
}

impl Algorithm {
    pub fn key(self) -> KeyPair {
        match self {
            Self::P256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap(),
            // The crypto library of these tests makes no RSA keys, and Ed25519 keys that OpenSSL does not read.
            Self::Ed25519 => generate("ED25519"),
            Self::Rsa => generate("RSA"),
        }
    }
}

fn generate(algorithm: &str) -> KeyPair {
    let made = Command::new("openssl").args(["genpkey", "-algorithm", algorithm, "-outform", "PEM"]).output();
    KeyPair::from_pem(&String::from_utf8(made.expect("openssl").stdout).unwrap()).unwrap()
}

impl Authority {
    pub fn new(name: &str, algorithm: Algorithm) -> Self {
        let mut params = named(name, &[], Validity::Now);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = algorithm.key();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, params, key, algorithm }
    }

    pub fn server(&self, names: &[&str], validity: Validity) -> Issued {
        self.issue(named("server", names, validity), ExtendedKeyUsagePurpose::ServerAuth)
    }

    pub fn client(&self, name: &str) -> Issued {
        self.issue(named(name, &[], Validity::Now), ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// PEM; with no certificate, an empty list.
    pub fn revocations(&self, revoked: &[&Issued]) -> String {
        let now = OffsetDateTime::now_utc();
        let revoked = revoked.iter().map(|issued| RevokedCertParams {
            serial_number: issued.serial.clone(),
            revocation_time: now - Duration::hours(1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: now - Duration::hours(1),
            next_update: now + Duration::days(1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer()).unwrap().pem().unwrap()
    }

    fn issue(&self, mut params: CertificateParams, purpose: ExtendedKeyUsagePurpose) -> Issued {
        let serial = SerialNumber::from(rand());
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![purpose];
        params.serial_number = Some(serial.clone());
        let key = self.algorithm.key();
        let certificate = params.signed_by(&key, &self.issuer()).unwrap();
        Issued { der: certificate.der().to_vec(), pem: certificate.pem(), key, serial }
    }

    fn issuer(&self) -> Issuer<'_, &KeyPair> {
        Issuer::from_params(&self.params, &self.key)
    }
}

impl Issued {
    /// PKCS #8.
    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }
}

fn rand() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0) >> 1
}

fn named(name: &str, names: &[&str], validity: Validity) -> CertificateParams {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    let (now, day) = (OffsetDateTime::now_utc(), Duration::days(1));
    (params.not_before, params.not_after) = match validity {
        Validity::Now => (now - day, now + day),
        Validity::Past => (now - 2 * day, now - day),
        Validity::Future => (now + day, now + 2 * day),
    };
    params
}
