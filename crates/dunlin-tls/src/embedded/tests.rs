//! No byte from the network makes this panic, not even from a peer that knows the keys.
//!
//! Anybody can be such a peer until the certificate is verified, and an authenticated broker stays one. Changing bytes
//! on the wire does not reach the parsers behind the cipher, so the cipher, in these tests, changes what it has
//! decrypted, before it looks at it.

#[path = "../../tests/peer/mod.rs"]
mod peer;
#[path = "../../tests/pki/mod.rs"]
mod pki;

use std::boxed::Box;
use std::cell::Cell;
use std::net::TcpStream;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::vec::Vec;
use std::{eprintln, thread_local};

use embedded_io::{Read, Write};
use rustls::version::TLS13;

use super::*;
use crate::Identity;
use peer::{Demand, Network, Socket, recite, serve, server};
use pki::Pki;

thread_local! {
    /// State of the generator, if this thread's decrypted records are to be changed.
    static SPOILER: Cell<Option<u64>> = const { Cell::new(None) };
    /// How many records are left as they are.
    static SPARED: Cell<u32> = const { Cell::new(0) };
}

/// Called by the cipher with each decrypted record.
pub(super) fn spoil(plaintext: &mut [u8]) {
    let Some(mut state) = SPOILER.get() else { return };
    if SPARED.get() > 0 {
        SPARED.set(SPARED.get() - 1);
        return;
    }
    if random(&mut state).is_multiple_of(4) {
        // A message that is well formed, at whatever time: what is left of the record becomes padding.
        const MESSAGES: [&[u8]; 5] = [
            &[24, 0, 0, 1, 0, 22],          // KeyUpdate
            &[8, 0, 0, 2, 0, 0, 22],        // EncryptedExtensions
            &[11, 0, 0, 4, 0, 0, 0, 0, 22], // Certificate, without one
            &[13, 0, 0, 3, 0, 0, 0, 22],    // CertificateRequest
            &[2, 40, 21],                   // a fatal alert
        ];
        let message = MESSAGES[random(&mut state) as usize % MESSAGES.len()];
        if message.len() <= plaintext.len() {
            plaintext.fill(0);
            plaintext[..message.len()].copy_from_slice(message);
        }
    }
    for _ in 0..random(&mut state) % 3 {
        // Mostly where lengths and types are: at the front, and the content type at the end.
        let span = if random(&mut state).is_multiple_of(2) { plaintext.len().min(24) } else { plaintext.len() };
        let place = match random(&mut state) % 8 {
            0 => plaintext.len().saturating_sub(1),
            n => (random(&mut state) + n) as usize % span.max(1),
        };
        let value = match random(&mut state) % 4 {
            0 => 0,
            1 => [1, 2, 4, 8, 11, 13, 15, 20, 21, 22, 23, 24][random(&mut state) as usize % 12],
            2 => 0xff,
            _ => random(&mut state) as u8,
        };
        if let Some(byte) = plaintext.get_mut(place) {
            *byte = value;
        }
    }
    SPOILER.set(Some(state));
}

fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

fn entropy(to: &mut [u8]) {
    std::fs::File::open("/dev/urandom").and_then(|mut file| std::io::Read::read_exact(&mut file, to)).expect("entropy");
}

fn seed() -> u64 {
    let given = std::env::var("DUNLIN_SEED").ok().and_then(|text| text.parse().ok());
    let seed =
        given.unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).expect("date").as_nanos() as u64 | 1);
    eprintln!("DUNLIN_SEED={seed}");
    seed
}

/// Connects, sends, reads until the end or an error.
fn exchange(tcp: TcpStream, config: &Config<'_>) -> Result<(), Error> {
    let mut memory = Box::new(Memory::<2048, 2048>::new());
    // A spoilt record may look like none; then both sides wait.
    tcp.set_read_timeout(Some(Duration::from_millis(50))).expect("option");
    let mut link = Link::new(Socket(tcp), memory.buffers());
    let mut tls = link.connect(config, entropy)?;
    tls.write_all(b"data")?;
    tls.flush()?;
    tls.read(&mut [0; 64])?;
    tls.close()
}

#[test]
fn no_decrypted_byte_makes_it_panic() {
    let pki = Pki::new();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("date").as_secs();
    let config =
        Config::new(pki::SERVER, &pki.authority, now).identity(Identity::new(&pki.client.chain[0], &pki.client.key));
    let servers =
        [server(&pki, &pki.chained, Demand::Required, &[&TLS13]), server(&pki, &pki.server, Demand::No, &[&TLS13])];
    let mut state = seed();
    let mut refused = 0;
    for round in 0..600 {
        SPOILER.set(Some(random(&mut state) | 1));
        // The handshake is 4 to 5 records; later ones are of the session.
        SPARED.set((random(&mut state) % 6) as u32);
        let (tcp, peer) = serve(servers[round % 2].clone(), Network::Whole);
        refused += u32::from(exchange(tcp, &config).is_err());
        peer.join().expect("server");
    }
    SPOILER.set(None);
    assert!(refused > 100, "only {refused} of 600 noticed");
}

#[test]
fn no_byte_on_the_wire_makes_it_panic() {
    let pki = Pki::new();
    let config = Config::new(pki::SERVER, &pki.authority, 0);
    let mut state = seed();
    // A ServerHello that would do, but for its key share.
    let mut hello = Vec::from(*b"\x16\x03\x03\x00\x7a\x02\x00\x00\x76\x03\x03");
    hello.extend([9; 32]);
    hello.extend(*b"\x00\x13\x01\x00\x00\x4e\x00\x33\x00\x45\x00\x17\x00\x41\x04");
    hello.extend([5; 64]);
    hello.extend(*b"\x00\x2b\x00\x02\x03\x04");
    for _ in 0..400 {
        let mut script = hello.clone();
        for _ in 0..random(&mut state) % 4 {
            let place = random(&mut state) as usize % script.len();
            script[place] = random(&mut state) as u8;
        }
        script.truncate(random(&mut state) as usize % (script.len() + 1));
        script.extend((0..random(&mut state) % 64).map(|_| random(&mut state) as u8));
        let (tcp, peer) = recite(script);
        exchange(tcp, &config).expect_err("no server");
        peer.join().expect("peer");
    }
}
