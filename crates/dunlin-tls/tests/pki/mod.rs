//! Certificates for tests, good and bad, made at run time. Also used by `cargo xtask firmware`.
#![allow(dead_code, reason = "each user needs some of it")]

use std::vec::Vec;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use time::{Duration, OffsetDateTime};

/// The name of the server in all certificates but one.
pub const SERVER: &str = "broker.test";

/// A certificate with what leads to the authority, and its key.
pub struct Issued {
    /// DER, the certificate itself first.
    pub chain: Vec<Vec<u8>>,
    /// PKCS #8, DER.
    pub key: Vec<u8>,
}

pub struct Pki {
    /// DER.
    pub authority: Vec<u8>,
    pub server: Issued,
    /// Through an intermediate authority.
    pub chained: Issued,
    pub wrong_name: Issued,
    pub unknown_authority: Issued,
    pub expired: Issued,
    pub not_yet_valid: Issued,
    /// Signed with the key of `client`, which is no authority.
    pub signed_by_client: Issued,
    /// A client's certificate with the server's name.
    pub for_clients: Issued,
    /// A device's certificate.
    pub client: Issued,
    /// A device's certificate from an authority that the server does not know.
    pub stranger: Issued,
}

impl Pki {
    /// ECDSA on P-256 throughout.
    pub fn new() -> Self {
        let p256 = || KeyPair::generate().expect("key");
        Self::with_keys(p256(), p256(), p256)
    }

    /// With these keys for the authority and the server `server`, and ECDSA keys for all others.
    pub fn with_keys(authority: KeyPair, server: KeyPair, key: impl Fn() -> KeyPair) -> Self {
        let servers = ExtendedKeyUsagePurpose::ServerAuth;
        let clients = ExtendedKeyUsagePurpose::ClientAuth;
        let ca = Authority::root("dunlin test authority", authority);
        let other = Authority::root("someone else", key());
        let intermediate = ca.intermediate("dunlin test intermediate", key());
        let client_key = key();
        let client = ca.issue(leaf("device-1", &clients, &[]), &client_key, Vec::new());
        // A device that plays authority, with its own certificate as the link to the real one.
        let device =
            Authority { params: leaf("device-1", &clients, &[]), key: client_key, der: client.chain[0].clone() };
        let now = OffsetDateTime::now_utc();
        let day = Duration::days(1);
        let mut expired = leaf(SERVER, &servers, &[SERVER]);
        (expired.not_before, expired.not_after) = (now - 30 * day, now - day);
        let mut not_yet_valid = leaf(SERVER, &servers, &[SERVER]);
        (not_yet_valid.not_before, not_yet_valid.not_after) = (now + day, now + 30 * day);
        let good = || leaf(SERVER, &servers, &[SERVER, "127.0.0.1", "10.0.2.2"]);
        Self {
            server: ca.issue(good(), &server, Vec::new()),
            chained: intermediate.issue(good(), &key(), Vec::from([intermediate.der.clone()])),
            wrong_name: ca.issue(leaf("other.test", &servers, &["other.test"]), &key(), Vec::new()),
            unknown_authority: other.issue(good(), &key(), Vec::new()),
            expired: ca.issue(expired, &key(), Vec::new()),
            not_yet_valid: ca.issue(not_yet_valid, &key(), Vec::new()),
            signed_by_client: device.issue(good(), &key(), Vec::from([device.der.clone()])),
            for_clients: ca.issue(leaf(SERVER, &clients, &[SERVER]), &key(), Vec::new()),
            stranger: other.issue(leaf("device-1", &clients, &[]), &key(), Vec::new()),
            client,
            authority: ca.der,
        }
    }
}

struct Authority {
    params: CertificateParams,
    key: KeyPair,
    der: Vec<u8>,
}

impl Authority {
    fn root(name: &str, key: KeyPair) -> Self {
        let params = authority(name);
        let der = params.self_signed(&key).expect("certificate").der().to_vec();
        Self { params, key, der }
    }

    fn intermediate(&self, name: &str, key: KeyPair) -> Self {
        let params = authority(name);
        let issuer = Issuer::from_params(&self.params, &self.key);
        let der = params.signed_by(&key, &issuer).expect("certificate").der().to_vec();
        Self { params, key, der }
    }

    fn issue(&self, params: CertificateParams, key: &KeyPair, links: Vec<Vec<u8>>) -> Issued {
        let issuer = Issuer::from_params(&self.params, &self.key);
        let mut chain = Vec::from([params.signed_by(key, &issuer).expect("certificate").der().to_vec()]);
        chain.extend(links);
        Issued { chain, key: key.serialize_der() }
    }
}

fn authority(name: &str) -> CertificateParams {
    let mut params = named(name, &[]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = Vec::from([KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign]);
    params
}

fn leaf(name: &str, purpose: &ExtendedKeyUsagePurpose, names: &[&str]) -> CertificateParams {
    let mut params = named(name, names);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = Vec::from([KeyUsagePurpose::DigitalSignature]);
    params.extended_key_usages = Vec::from([purpose.clone()]);
    params
}

fn named(name: &str, names: &[&str]) -> CertificateParams {
    let names: Vec<_> = names.iter().map(|name| (*name).into()).collect();
    let mut params = CertificateParams::new(names).expect("names");
    params.distinguished_name.push(DnType::CommonName, name);
    let now = OffsetDateTime::now_utc();
    (params.not_before, params.not_after) = (now - Duration::days(1), now + Duration::days(30));
    params
}
