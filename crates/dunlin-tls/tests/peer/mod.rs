//! The other side of the tests: a TLS server in a thread, whole or cut, and a transport of the standard library.
#![allow(dead_code, reason = "each user needs some of it")]

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use std::vec::Vec;

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{HandshakeKind, RootCertStore, ServerConfig, ServerConnection, SupportedProtocolVersion};

use super::pki::{Issued, Pki};

/// Whether the server wants a certificate.
#[derive(Clone, Copy, PartialEq)]
pub enum Demand {
    No,
    Optional,
    Required,
}

/// A server with this certificate, for these versions of TLS.
pub fn server(
    pki: &Pki,
    issued: &Issued,
    demand: Demand,
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(pki.authority.clone())).expect("authority");
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(versions).expect("versions");
    let builder = match demand {
        Demand::No => builder.with_no_client_auth(),
        Demand::Optional => {
            builder.with_client_cert_verifier(verifier.allow_unauthenticated().build().expect("verifier"))
        }
        Demand::Required => builder.with_client_cert_verifier(verifier.build().expect("verifier")),
    };
    let chain = issued.chain.iter().cloned().map(CertificateDer::from).collect();
    let key = PrivateKeyDer::try_from(issued.key.clone()).expect("key");
    Arc::new(builder.with_single_cert(chain, key).expect("certificate and key"))
}

/// What the network does to the bytes that the server sends.
#[derive(Clone, Copy)]
pub enum Network {
    Whole,
    /// The connection ends after so many bytes.
    CutAfter(usize),
    /// One byte at a time.
    Drip,
}

/// Handshakes, of all servers, that went on with an earlier session.
pub static RESUMED: AtomicU32 = AtomicU32::new(0);

/// Runs the server for one connection. It echoes what it gets, and returns it at the end.
pub fn serve(config: Arc<ServerConfig>, network: Network) -> (TcpStream, JoinHandle<Vec<u8>>) {
    let (client, wire) = pair(network);
    (client, thread::spawn(move || echo(ServerConnection::new(config).expect("server"), wire)))
}

/// Runs a peer that knows nothing of TLS: it sends `script` and then reads until the end.
pub fn recite(script: Vec<u8>) -> (TcpStream, JoinHandle<Vec<u8>>) {
    let (client, mut wire) = pair(Network::Whole);
    let peer = thread::spawn(move || {
        let mut got = Vec::new();
        wire.write_all(&script).ok();
        wire.tcp.shutdown(Shutdown::Write).ok();
        wire.read_to_end(&mut got).ok();
        got
    });
    (client, peer)
}

fn echo(mut tls: ServerConnection, mut wire: Wire) -> Vec<u8> {
    let mut got = Vec::new();
    loop {
        let io = tls.complete_io(&mut wire);
        let mut plain = [0; 4096];
        while let Ok(count @ 1..) = tls.reader().read(&mut plain) {
            got.extend_from_slice(&plain[..count]);
            tls.writer().write_all(&plain[..count]).expect("room");
        }
        match io {
            // The handshake is over and there is nothing to write: `complete_io` reads once.
            Ok((read, written)) if read + written > 0 => {}
            _ => break,
        }
    }
    RESUMED.fetch_add(u32::from(tls.handshake_kind() == Some(HandshakeKind::Resumed)), Ordering::Relaxed);
    tls.send_close_notify();
    tls.complete_io(&mut wire).ok();
    wire.tcp.shutdown(Shutdown::Both).ok();
    got
}

fn pair(network: Network) -> (TcpStream, Wire) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("port");
    let client = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
    let (tcp, _) = listener.accept().expect("accept");
    for socket in [&client, &tcp] {
        socket.set_nodelay(true).expect("option");
        socket.set_read_timeout(Some(Duration::from_secs(20))).expect("option");
    }
    (client, Wire { tcp, network })
}

struct Wire {
    tcp: TcpStream,
    network: Network,
}

impl Read for Wire {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        self.tcp.read(to)
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.network {
            Network::Whole => self.tcp.write(bytes),
            Network::Drip => self.tcp.write(&bytes[..1]),
            Network::CutAfter(left) => {
                if *left == 0 {
                    self.tcp.shutdown(Shutdown::Both)?;
                    return Err(io::ErrorKind::BrokenPipe.into());
                }
                let count = self.tcp.write(&bytes[..bytes.len().min(*left)])?;
                *left -= count;
                Ok(count)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.tcp.flush()
    }
}

/// A socket of the standard library as a transport.
pub struct Socket(pub TcpStream);

impl embedded_io::ErrorType for Socket {
    type Error = io::Error;
}

impl embedded_io::Read for Socket {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        self.0.read(to)
    }
}

impl embedded_io::Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl embedded_io::ReadReady for Socket {
    fn read_ready(&mut self) -> io::Result<bool> {
        self.0.set_nonblocking(true)?;
        let peeked = self.0.peek(&mut [0]);
        self.0.set_nonblocking(false)?;
        match peeked {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }
}
