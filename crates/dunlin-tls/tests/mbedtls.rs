//! The `mbedtls` backend.

use std::mem::MaybeUninit;
use std::net::TcpStream;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::sync::{LazyLock, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use dunlin_tls::mbedtls::{Library, Saved};
use dunlin_tls::{Config, Error};
use embedded_io::{Read, ReadReady, Write};
use rcgen::KeyPair;
use rustls::SupportedProtocolVersion;
use rustls::version::{TLS12, TLS13};

use crate::peer::{Demand, Network, RESUMED, Socket, recite, serve, server};
use crate::pki::{Issued, Pki, SERVER};
use crate::{PKI, anonymous, entropy, identity, mutual, now};

const POOL: usize = 96 * 1024;

/// Mbed TLS knows no threads: one test at a time.
fn library() -> MutexGuard<'static, Library> {
    static LIBRARY: LazyLock<Mutex<Library>> = LazyLock::new(|| {
        let pool = Vec::leak(vec![MaybeUninit::uninit(); POOL]);
        Mutex::new(Library::start(pool, entropy, || BEGIN.elapsed().as_millis() as u64).expect("the first start"))
    });
    static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
    LIBRARY.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Connects, sends, reads as much back, says goodbye; and keeps the session.
fn exchange(
    library: &Library,
    tcp: TcpStream,
    config: &Config<'_>,
    data: &[u8],
    saved: Option<&Saved>,
) -> Result<(Vec<u8>, Saved), Error> {
    let mut tls = library.connect(Socket(tcp), config, saved)?;
    tls.write_all(data)?;
    tls.flush()?;
    let mut back = vec![0; data.len()];
    let mut got = 0;
    while got < back.len() {
        match tls.read(&mut back[got..])? {
            0 => return Err(Error::Closed),
            count => got += count,
        }
    }
    let saved = tls.save()?;
    tls.close()?;
    Ok((back, saved))
}

fn refusal(
    issued: &Issued,
    demand: Demand,
    config: &Config<'_>,
    version: &'static SupportedProtocolVersion,
) -> Option<Error> {
    let library = library();
    let (tcp, peer) = serve(server(&PKI, issued, demand, &[version]), Network::Whole);
    let result = exchange(&library, tcp, config, b"secret", None).map(drop);
    let seen = peer.join().expect("server");
    assert!(result.is_ok() || seen.is_empty(), "{result:?}, but the server saw {seen:?}");
    result.err()
}

#[test]
fn both_versions_and_both_kinds_of_keys_exchange_data() {
    let rsa = |bits: &str| {
        let option = format!("rsa_keygen_bits:{bits}");
        let key = Command::new("openssl")
            .args(["genpkey", "-algorithm", "RSA", "-pkeyopt", &option])
            .output()
            .expect("openssl");
        KeyPair::from_pem(&String::from_utf8(key.stdout).expect("PEM")).expect("a key")
    };
    let rsa_pki = Pki::with_keys(rsa("2048"), rsa("2048"), || KeyPair::generate().expect("key"));
    let data: Vec<u8> = (0..40_000u32).map(|n| n as u8).collect();
    let library = library();
    for pki in [&*PKI, &rsa_pki] {
        let config = Config::new(SERVER, &pki.authority, now())
            .identity(dunlin_tls::Identity::new(&pki.client.chain[0], &pki.client.key));
        for version in [&TLS12, &TLS13] {
            for issued in [&pki.server, &pki.chained] {
                let (tcp, peer) = serve(server(pki, issued, Demand::Required, &[version]), Network::Whole);
                let (back, _) = exchange(&library, tcp, &config, &data, None).expect("exchange");
                assert!(back == data);
                assert!(peer.join().expect("server") == data);
            }
        }
    }
    assert!(library.pool_peak() < POOL);
}

#[test]
fn a_server_that_does_not_prove_who_it_is_is_refused_by_name() {
    for version in [&TLS12, &TLS13] {
        let refused = |issued| refusal(issued, Demand::Required, &mutual(), version);
        assert_eq!(refused(&PKI.wrong_name), Some(Error::WrongName));
        assert_eq!(refused(&PKI.unknown_authority), Some(Error::UnknownAuthority));
        assert_eq!(refused(&PKI.expired), Some(Error::Expired));
        assert_eq!(refused(&PKI.not_yet_valid), Some(Error::NotYetValid));
        assert_eq!(refused(&PKI.signed_by_client), Some(Error::UnknownAuthority));
        assert_eq!(refused(&PKI.for_clients), Some(Error::NotForServers));
        let late = Config::new(SERVER, &PKI.authority, now() + 31 * 86_400);
        assert_eq!(refusal(&PKI.server, Demand::No, &late, version), Some(Error::Expired));
    }
}

#[test]
fn without_the_certificate_that_is_asked_for_nothing_is_sent() {
    for version in [&TLS12, &TLS13] {
        assert_eq!(refusal(&PKI.server, Demand::Required, &anonymous(), version), Some(Error::IdentityDemanded));
        assert_eq!(refusal(&PKI.server, Demand::Optional, &anonymous(), version), Some(Error::IdentityDemanded));
        assert_eq!(refusal(&PKI.server, Demand::Optional, &anonymous().anonymous_if_asked(), version), None);
        assert_eq!(refusal(&PKI.server, Demand::No, &anonymous(), version), None);
    }
    // In TLS 1.2 the server refuses within the handshake; whether its alert is read first is a race.
    let error = refusal(&PKI.server, Demand::Required, &anonymous().identity(identity(&PKI.stranger)), &TLS12);
    assert!(matches!(error, Some(Error::Refused(None) | Error::Closed | Error::Io(_))), "{error:?}");
}

#[test]
fn garbage_instead_of_a_server_hello_is_refused() {
    let library = library();
    for (script, error) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], Error::Malformed),
        (b"\x20\x02\x00\x00\x00", Error::Malformed),
        (b"\x16\x03\x03\x00\x04\x0e\x00\x00\x00", Error::Malformed), // ServerHelloDone
        (b"\x15\x03\x03\x00\x02\x02\x28", Error::Refused(None)),
        (b"", Error::Closed),
    ] {
        let (tcp, peer) = recite(script.to_vec());
        assert_eq!(exchange(&library, tcp, &mutual(), b"secret", None).err(), Some(error), "{script:?}");
        let sent = peer.join().expect("peer");
        assert_eq!(sent[..2], [22, 3], "a ClientHello");
    }
}

#[test]
fn a_connection_that_ends_anywhere_in_the_handshake_is_an_error() {
    let library = library();
    for version in [&TLS12, &TLS13] {
        let config = server(&PKI, &PKI.chained, Demand::Required, &[version]);
        for after in (0..1200).step_by(13) {
            let (tcp, peer) = serve(config.clone(), Network::CutAfter(after));
            let error = exchange(&library, tcp, &mutual(), b"secret", None).err();
            assert!(matches!(error, Some(Error::Closed | Error::Io(_))), "after {after} bytes: {error:?}");
            assert!(peer.join().expect("server").is_empty());
        }
    }
}

#[test]
fn read_ready_never_waits_and_tells_the_truth() {
    let library = library();
    for version in [&TLS12, &TLS13] {
        let (tcp, peer) = serve(server(&PKI, &PKI.server, Demand::No, &[version]), Network::Drip);
        let config = anonymous();
        let mut tls = library.connect(Socket(tcp), &config, None).expect("handshake");
        std::thread::sleep(Duration::from_millis(100)); // session tickets come, and are no data
        assert_eq!(tls.read_ready(), Ok(false));
        tls.write_all(b"ping").expect("write");
        tls.flush().expect("flush");
        while !tls.read_ready().expect("a whole record in the end") {}
        let mut two = [0; 2];
        assert_eq!((tls.read(&mut two), two), (Ok(2), *b"pi"));
        assert_eq!(tls.read_ready(), Ok(true), "the rest of the record");
        assert_eq!((tls.read(&mut two), two), (Ok(2), *b"ng"));
        assert_eq!(tls.read_ready(), Ok(false));
        tls.close().expect("goodbye");
        assert_eq!(peer.join().expect("server"), b"ping");
    }
}

#[test]
fn a_session_is_resumed_and_only_with_the_same_name() {
    let library = library();
    let config = server(&PKI, &PKI.server, Demand::Required, &[&TLS12]);
    let (tcp, peer) = serve(config.clone(), Network::Whole);
    let (_, saved) = exchange(&library, tcp, &mutual(), b"one", None).expect("a full handshake");
    peer.join().expect("server");
    let before = RESUMED.load(Ordering::Relaxed);
    let (tcp, peer) = serve(config.clone(), Network::Whole);
    exchange(&library, tcp, &mutual(), b"two", Some(&saved)).expect("a short handshake");
    assert_eq!(peer.join().expect("server"), b"two");
    assert_eq!(RESUMED.load(Ordering::Relaxed), before + 1);
    let (tcp, peer) = serve(config, Network::Whole);
    let other = Config::new("127.0.0.1", &PKI.authority, now()).identity(identity(&PKI.client));
    assert!(exchange(&library, tcp, &other, b"three", Some(&saved)).is_err());
    assert_eq!(peer.join().expect("server"), b"");
}

#[test]
fn no_byte_on_the_wire_makes_it_panic() {
    let library = library();
    let mut state = 0x1234_5678_9abc_def1_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..300 {
        let mut script = Vec::from(*b"\x16\x03\x03\x00\x2a\x02\x00\x00\x26\x03\x03");
        script.extend((0..64).map(|_| random() as u8));
        let (place, length) = (random() as usize % script.len(), random() as usize % script.len());
        script[place] = random() as u8;
        script.truncate(length);
        let (tcp, peer) = recite(script);
        exchange(&library, tcp, &mutual(), b"secret", None).map(drop).expect_err("no server");
        peer.join().expect("peer");
    }
}
