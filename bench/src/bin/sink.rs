//! The server of the benchmark: takes everything, acknowledges what one read brought with one write, keeps nothing.
//!
//! The client identifier says what a connection is for: a subscriber gets as many messages as its case asks for, and
//! what an echo client publishes comes back. A thread for each connection; the clients are such that nobody waits in
//! a circle. Prints its two ports, for TCP and for TLS, and where the certificate authority of the second one is.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use dunlin_bench::{Case, Mode, wire};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

const BUFFER: usize = 256 * 1024;

fn main() {
    let ca_file = std::env::args().nth(1).expect("usage: sink CA_FILE");
    let tls = tls(&ca_file);
    let plain = TcpListener::bind("127.0.0.1:0").expect("a port");
    let secure = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = |listener: &TcpListener| listener.local_addr().expect("an address").port();
    println!("{} {}", port(&plain), port(&secure));
    thread::spawn(move || {
        accept(&secure, move |stream| {
            let tls = ServerConnection::new(tls.clone()).expect("a server");
            serve(StreamOwned::new(tls, stream))
        })
    });
    accept(&plain, serve);
}

fn accept(listener: &TcpListener, serve: impl Fn(TcpStream) -> io::Result<()> + Clone + Send + 'static) {
    for stream in listener.incoming().flatten() {
        stream.set_nodelay(true).expect("an open socket");
        let serve = serve.clone();
        // A connection that breaks is the driver's to report.
        thread::spawn(move || drop(serve(stream)));
    }
}

/// A certificate that signs itself, for `localhost`, written to `ca_file` for those who are to trust it.
fn tls(ca_file: &str) -> Arc<ServerConfig> {
    let key = rcgen::KeyPair::generate().expect("a key");
    let params = rcgen::CertificateParams::new(["localhost".to_owned()]).expect("a name");
    let certificate = params.self_signed(&key).expect("a certificate");
    std::fs::write(ca_file, certificate.pem()).expect("a file");
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = builder.expect("versions").with_no_client_auth().with_single_cert(vec![certificate.into()], key);
    Arc::new(config.expect("key and certificate fit"))
}

fn serve(mut stream: impl Read + Write) -> io::Result<()> {
    let mut peer = Peer::default();
    let mut buffer = vec![0; BUFFER];
    let mut filled = 0;
    loop {
        let n = stream.read(&mut buffer[filled..])?;
        if n == 0 {
            return Ok(());
        }
        filled += n;
        let taken = peer.take(&buffer[..filled]);
        buffer.copy_within(taken..filled, 0);
        filled -= taken;
        loop {
            peer.blast();
            if peer.out.is_empty() {
                break;
            }
            stream.write_all(&peer.out)?;
            stream.flush()?;
            peer.out.clear();
        }
        if peer.is_gone {
            return Ok(());
        }
    }
}

/// What is known of a connection.
#[derive(Default)]
struct Peer {
    case: Option<Case>,
    /// Bytes to come of a payload that nobody wants.
    skip: usize,
    out: Vec<u8>,
    source: Option<Source>,
    is_gone: bool,
}

/// Messages for a subscriber.
struct Source {
    packet: Vec<u8>,
    id_at: usize,
    qos: u8,
    left: usize,
    room: usize,
    last_id: u16,
}

impl Peer {
    /// Takes the packets in `bytes`. Gives how many bytes those were.
    fn take(&mut self, bytes: &[u8]) -> usize {
        let mut at = self.skip.min(bytes.len());
        self.skip -= at;
        while let Some((head, remaining)) = wire::lengths(&bytes[at..]) {
            let packet = &bytes[at..];
            let whole = head + remaining;
            let is_echo = self.case.as_ref().is_some_and(|case| case.mode == Mode::Echo);
            let is_skipped = packet[0] >> 4 == 3 && !is_echo;
            // Of a payload that is not wanted, not even the bytes are waited for.
            let wanted = if is_skipped { whole.min(head + 2 + 256) } else { whole };
            if packet.len() < wanted {
                break;
            }
            self.packet(packet[0], &packet[head..whole.min(packet.len())]);
            if is_echo && packet[0] >> 4 == 3 {
                self.out.extend(&packet[..whole]);
            }
            let here = whole.min(packet.len());
            self.skip = whole - here;
            at += here;
        }
        at
    }

    fn packet(&mut self, first: u8, body: &[u8]) {
        match first >> 4 {
            1 => {
                let id_len = usize::from(u16::from_be_bytes([body[10], body[11]]));
                self.case = Case::from_client_id(&String::from_utf8_lossy(&body[12..12 + id_len]));
                self.out.extend([0x20, 2, 0, 0]);
            }
            3 if first & 6 != 0 => {
                let id_at = 2 + usize::from(u16::from_be_bytes([body[0], body[1]]));
                let answer = if first & 6 == 2 { 0x40 } else { 0x50 };
                self.out.extend([answer, 2, body[id_at], body[id_at + 1]]);
            }
            3 => {}
            4 | 7 => self.source.iter_mut().for_each(|source| source.room += 1),
            5 => self.out.extend([0x62, 2, body[0], body[1]]),
            6 => self.out.extend([0x70, 2, body[0], body[1]]),
            8 => {
                let topic_len = usize::from(u16::from_be_bytes([body[2], body[3]]));
                let qos = body[4 + topic_len];
                let topic = String::from_utf8_lossy(&body[4..4 + topic_len]).into_owned();
                self.out.extend([0x90, 3, body[0], body[1], qos]);
                self.source = self.case.as_ref().filter(|case| case.mode == Mode::Receive).map(|case| {
                    let (packet, id_at) = wire::publish(&topic, case.qos, &case.body());
                    let room = usize::from(case.window);
                    Source { packet, id_at, qos: case.qos, left: case.count, room, last_id: 0 }
                });
            }
            12 => self.out.extend([0xD0, 0]),
            14 => self.is_gone = true,
            other => panic!("packet type {other}"),
        }
    }

    /// Adds messages for the subscriber, as many as may be under way or a buffer holds.
    fn blast(&mut self) {
        let Some(source) = &mut self.source else { return };
        while source.left > 0 && source.room > 0 && self.out.len() < BUFFER {
            let at = self.out.len();
            self.out.extend(&source.packet);
            source.left -= 1;
            if source.qos > 0 {
                source.last_id = source.last_id % 65_535 + 1;
                let id = source.last_id.to_be_bytes();
                self.out[at + source.id_at..][..2].copy_from_slice(&id);
                source.room -= 1;
            }
        }
    }
}
