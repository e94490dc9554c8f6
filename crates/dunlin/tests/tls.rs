//! Both clients over TLS, against a real broker.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use dunlin::blocking;
use dunlin::client::{Client, Error, Reason};
use dunlin::tls::{Tls, TlsError};
use dunlin::{Publish, QoS};
use dunlin_testkit::Mosquitto;
use dunlin_testkit::mosquitto::free_port;

use crate::client::{impatient, in_time};
use crate::pki::{Algorithm, Authority, Issued, Validity};

/// The name in good certificates.
pub const NAMES: &[&str] = &["localhost", "127.0.0.1"];

/// A broker that speaks TLS on `port`, and what it wrote into its log.
struct Broker {
    broker: Mosquitto,
    port: u16,
}

impl Broker {
    fn start(server: &Issued, clients: Option<&Authority>) -> Self {
        let port = free_port();
        let require = if clients.is_some() { "cafile clients.pem\nrequire_certificate true\n" } else { "" };
        let config = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\ncertfile server.pem\nkeyfile server.key\n{require}"
        );
        let (certificate, key) = (server.pem.clone(), server.key_pem());
        let clients = clients.map_or("", |clients| clients.pem.as_str());
        let files = [("server.pem", certificate.as_str()), ("server.key", key.as_str()), ("clients.pem", clients)];
        Self { broker: Mosquitto::with_files(&config, &files), port }
    }

    fn url(&self) -> String {
        format!("mqtts://localhost:{}", self.port)
    }

    /// Whether the broker has seen a CONNECT.
    fn has_seen_connect(&self) -> bool {
        let log = std::fs::read_to_string(self.broker.directory().join("log")).unwrap();
        log.contains("New client connected")
    }

    fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.broker.directory().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

/// Sends itself a message with either client.
async fn echo(url: &str, tls: &Tls) {
    let client = blocking::Client::builder(url, "blocking").tls(tls.clone()).connect().unwrap();
    client.subscribe("a", QoS::ExactlyOnce).unwrap();
    let payload = vec![7; 300_000];
    let _ = client.publish(&Publish::new("a", &payload).exactly_once()).unwrap();
    assert_eq!(client.next_timeout(Duration::from_secs(20)).unwrap().unwrap().payload(), payload);
    client.close(Duration::from_secs(10)).unwrap();

    let (client, mut messages, driver) = Client::builder(url, "tokio").tls(tls.clone()).build().unwrap();
    let driver = tokio::spawn(driver.run());
    in_time(client.subscribe("a", QoS::ExactlyOnce)).await.unwrap();
    for n in 0..100_u8 {
        let _ = client.publish(&Publish::new("a", &vec![n; usize::from(n) * 1000]).at_least_once()).await.unwrap();
    }
    for n in 0..100_u8 {
        assert_eq!(in_time(messages.next()).await.unwrap().payload(), vec![n; usize::from(n) * 1000]);
    }
    in_time(client.close(Duration::from_secs(10))).await.unwrap();
    in_time(driver).await.unwrap().unwrap();
}

#[tokio::test]
async fn both_versions_carry_mqtt_with_each_kind_of_key_with_and_without_client_certificate() {
    for algorithm in [Algorithm::P256, Algorithm::Ed25519, Algorithm::Rsa] {
        let authority = Authority::new("authority", algorithm);
        let server = authority.server(NAMES, Validity::Now);
        let client = authority.client("client-1");
        let open = Broker::start(&server, None);
        let mutual = Broker::start(&server, Some(&authority));
        let tls = Tls::authorities(authority.pem.as_bytes());
        let identified = tls.clone().identity(client.pem.as_bytes(), client.key_pem().as_bytes());
        echo(&open.url(), &tls.clone().only_tls12()).await;
        echo(&open.url(), &tls.only_tls13()).await;
        echo(&mutual.url(), &identified.clone().only_tls12()).await;
        echo(&mutual.url(), &identified.only_tls13()).await;
    }
}

/// The error of a client that cannot connect; the broker has seen no CONNECT of it.
async fn refusal(broker: &Broker, url: &str, tls: &Tls) -> TlsError {
    let tls_of = |reason| match reason {
        Reason::Tls(error) => error,
        other => panic!("{other:?}"),
    };
    let builder =
        || Client::builder(url, "refused").credentials("user", b"secret").tls(tls.clone()).reconnect(impatient());
    let blocking = match builder().connect() {
        Err(Error::Ended(reason)) => tls_of(reason),
        other => panic!("{other:?}"),
    };
    let (client, _messages, driver) = builder().build().unwrap();
    let driver = tokio::spawn(driver.run());
    let asynchronous = match in_time(client.next_event()).await.unwrap() {
        dunlin::client::Event::Disconnected { reason, .. } => tls_of(reason),
        other => panic!("{other:?}"),
    };
    driver.abort();
    assert_eq!(format!("{blocking:?}"), format!("{asynchronous:?}"));
    assert!(!broker.has_seen_connect(), "{blocking}");
    blocking
}

#[tokio::test]
async fn each_refusal_has_its_name_and_no_connect_is_sent() {
    // [E11]
    let authority = Authority::new("authority", Algorithm::P256);
    let stranger = Authority::new("stranger", Algorithm::P256);
    let good = authority.server(NAMES, Validity::Now);
    let trusting = || Tls::authorities(authority.pem.as_bytes());
    for version in [Tls::only_tls12 as fn(Tls) -> Tls, Tls::only_tls13] {
        // The server's certificate.
        let broker = Broker::start(&authority.server(&["other.test"], Validity::Now), None);
        match refusal(&broker, &broker.url(), &version(trusting())).await {
            TlsError::WrongName { expected, presented } => {
                assert_eq!((expected.as_str(), presented.len()), ("localhost", 1));
            }
            other => panic!("{other:?}"),
        }
        let broker = Broker::start(&good, None);
        let other_name = version(trusting()).server_name("else.test");
        assert!(matches!(refusal(&broker, &broker.url(), &other_name).await, TlsError::WrongName { .. }));
        let unknown = version(Tls::authorities(stranger.pem.as_bytes()));
        assert!(matches!(refusal(&broker, &broker.url(), &unknown).await, TlsError::UnknownAuthority));
        let system = version(Tls::system_roots());
        assert!(matches!(
            refusal(&broker, &broker.url(), &system).await,
            TlsError::UnknownAuthority | TlsError::NoSystemRoots(_)
        ));
        let pinned = version(Tls::pinned(&authority.server(NAMES, Validity::Now).der));
        assert!(matches!(refusal(&broker, &broker.url(), &pinned).await, TlsError::NotPinned));
        let revoked = version(trusting()).revocations(authority.revocations(&[&good]).as_bytes());
        assert!(matches!(refusal(&broker, &broker.url(), &revoked).await, TlsError::Revoked));
        let silent = version(trusting()).revocations(stranger.revocations(&[]).as_bytes());
        assert!(matches!(refusal(&broker, &broker.url(), &silent).await, TlsError::RevocationUnknown));
        let broker = Broker::start(&authority.server(NAMES, Validity::Past), None);
        assert!(matches!(refusal(&broker, &broker.url(), &version(trusting())).await, TlsError::Expired));
        let broker = Broker::start(&authority.server(NAMES, Validity::Future), None);
        assert!(matches!(refusal(&broker, &broker.url(), &version(trusting())).await, TlsError::NotYetValid));
        // This client's certificate.
        let broker = Broker::start(&good, Some(&authority));
        assert!(matches!(refusal(&broker, &broker.url(), &version(trusting())).await, TlsError::NoIdentity));
        let wrong = stranger.client("client-1");
        let wrong = version(trusting()).identity(wrong.pem.as_bytes(), wrong.key_pem().as_bytes());
        assert!(matches!(refusal(&broker, &broker.url(), &wrong).await, TlsError::IdentityRefused(_)));
    }
}

#[tokio::test]
async fn what_is_wrong_with_files_is_said_before_anything_is_sent() {
    let authority = Authority::new("authority", Algorithm::P256);
    let broker = Broker::start(&authority.server(NAMES, Validity::Now), None);
    let (one, two) = (authority.client("one"), authority.client("two"));
    let trusting = || Tls::authorities(authority.pem.as_bytes());
    let text = broker.file("text", "no certificate");
    type Case = (Tls, fn(&TlsError) -> bool);
    let cases: [Case; 6] = [
        (
            Tls::authorities_file("/nowhere.pem"),
            |error| matches!(error, TlsError::File { path, .. } if path == Path::new("/nowhere.pem")),
        ),
        (Tls::authorities_file(&text), |error| matches!(error, TlsError::Nothing { what: "certificate", .. })),
        (trusting().identity(one.pem.as_bytes(), two.key_pem().as_bytes()), |error| {
            matches!(error, TlsError::KeyMismatch)
        }),
        (trusting().identity(one.pem.as_bytes(), one.pem.as_bytes()), |error| {
            matches!(error, TlsError::Nothing { what: "unencrypted private key", .. })
        }),
        (trusting().revocation_file(&text), |error| matches!(error, TlsError::Nothing { what: "revocation list", .. })),
        (trusting().server_name("no name"), |error| matches!(error, TlsError::InvalidServerName(_))),
    ];
    for (tls, is_expected) in cases {
        let error = refusal(&broker, &broker.url(), &tls).await;
        assert!(is_expected(&error), "{error:?}");
        assert!(!format!("{tls:?} {error:?}").contains("PRIVATE"));
    }
}

#[tokio::test]
async fn pins_revocation_lists_and_the_insecure_constructor_let_the_right_ones_through() {
    let authority = Authority::new("authority", Algorithm::P256);
    let server = authority.server(&["a name that nobody uses.test"], Validity::Past);
    let broker = Broker::start(&server, None);
    echo(&broker.url(), &Tls::pinned(server.pem.as_bytes())).await;
    echo(&broker.url(), &Tls::pinned_file(broker.file("pin.der", &server.der))).await;
    echo(&broker.url(), &Tls::insecure_without_verification()).await;
    let broker = Broker::start(&authority.server(NAMES, Validity::Now), None);
    let list = authority.revocations(&[&server]);
    echo(&broker.url(), &Tls::authorities(authority.pem.as_bytes()).revocations(list.as_bytes())).await;
    echo(&format!("mqtts://127.0.0.1:{}", broker.port), &Tls::authorities(authority.pem.as_bytes())).await;
    let by_name = Tls::authorities(authority.pem.as_bytes()).server_name("localhost");
    echo(&format!("mqtts://127.0.0.2:{}", broker.port).replace("127.0.0.2", "127.0.0.1"), &by_name).await;
}

#[tokio::test]
async fn keys_are_read_in_all_formats() {
    for algorithm in [Algorithm::P256, Algorithm::Rsa] {
        let authority = Authority::new("authority", algorithm);
        let broker = Broker::start(&authority.server(NAMES, Validity::Now), Some(&authority));
        let client = authority.client("client");
        let pem = broker.file("pkcs8.pem", client.key_pem());
        let convert = |name: &str, arguments: &[&str]| {
            let path = broker.broker.directory().join(name);
            let status = Command::new("openssl").args(arguments).arg("-in").arg(&pem).arg("-out").arg(&path).status();
            assert!(status.unwrap().success());
            path
        };
        let kind = if algorithm == Algorithm::Rsa { "rsa" } else { "ec" };
        // SEC1 and PKCS #1.
        let old: &[&str] = if kind == "rsa" { &["rsa", "-traditional"] } else { &["ec"] };
        let keys = [
            pem.clone(),
            broker.file("pkcs8.der", client.key.serialize_der()),
            convert("old.pem", old),
            convert("old.der", &[old, &["-outform", "DER"]].concat()),
        ];
        assert!(std::fs::read_to_string(&keys[2]).unwrap().contains(if kind == "rsa" {
            "BEGIN RSA"
        } else {
            "BEGIN EC"
        }));
        let certificates = [broker.file("client.pem", &client.pem), broker.file("client.der", &client.der)];
        let authorities = broker.file("ca.pem", &authority.pem);
        for (key, certificate) in keys.iter().zip(certificates.iter().cycle()) {
            let tls = Tls::authorities_file(&authorities).identity_files(certificate, key);
            let client = blocking::Client::builder(&broker.url(), "x").tls(tls).connect().unwrap();
            client.close(Duration::from_secs(5)).unwrap();
        }
    }
}

#[tokio::test]
async fn a_certificate_that_was_renewed_is_used_without_a_restart() {
    let (old, new) = (Authority::new("old", Algorithm::P256), Authority::new("new", Algorithm::P256));
    let mut broker = Broker::start(&old.server(NAMES, Validity::Now), Some(&old));
    let write = |broker: &Broker, authority: &Authority| {
        let client = authority.client("client-1");
        let paths = (broker.file("client.pem", &client.pem), broker.file("client.key", client.key_pem()));
        (broker.file("ca.pem", &authority.pem), paths.0, paths.1)
    };
    let (ca, certificate, key) = write(&broker, &old);
    let tls = Tls::authorities_file(ca).identity_files(certificate, key);
    let builder = Client::builder(&broker.url(), "rotating").tls(tls).reconnect(impatient()).persistent();
    let (client, _messages, driver) = builder.build().unwrap();
    let _driver = tokio::spawn(driver.run());
    in_time(client.connected()).await.unwrap();
    broker.broker.kill();
    let server = new.server(NAMES, Validity::Now);
    broker.file("server.pem", &server.pem);
    broker.file("server.key", server.key_pem());
    broker.file("clients.pem", &new.pem);
    broker.broker.restart();
    let delivery = client.publish(&Publish::new("a", b"kept").at_least_once()).await.unwrap();
    // Neither side knows the other.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(delivery.outcome().is_none());
    write(&broker, &new);
    in_time(delivery.confirmed()).await.unwrap();
    assert_eq!(client.stats().reconnects(), 1);
}
