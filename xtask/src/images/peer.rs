//! Peers that are no broker: one that echoes, ones that recite, and a wire that is cut.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use anyhow::{Context, Result};

/// What is not a ServerHello, and what the two backends must call it: embedded-tls judges a record by its header, Mbed
/// TLS when it is whole.
pub const SCRIPTS: &[(&str, &[u8], [&str; 2])] = &[
    ("a web server", b"HTTP/1.1 400 Bad Request\r\n\r\n", ["Malformed", "Malformed"]),
    ("an MQTT broker without TLS", b"\x20\x02\x00\x00\x00", ["Malformed", "Malformed"]),
    ("a record of 64 KiB", b"\x16\x03\x03\xff\xff", ["RecordTooLong", "Malformed"]),
    ("no ServerHello", b"\x16\x03\x03\x00\x04\x0e\x00\x00\x00", ["Malformed", "Malformed"]),
    ("data before the handshake", b"\x17\x03\x03\x00\x20", ["Malformed", "Closed"]),
    ("a refusal", b"\x15\x03\x03\x00\x02\x02\x28", ["Refused(Some(40))", "Refused(None)"]),
    ("nothing", b"", ["Closed", "Closed"]),
];

/// A port where each connection gets back what it sends.
pub fn echo() -> Result<u16> {
    serve(|mut tcp| {
        let mut bytes = [0; 1024];
        while let Ok(count @ 1..) = tcp.read(&mut bytes) {
            if tcp.write_all(&bytes[..count]).is_err() {
                break;
            }
        }
    })
}

/// A port where each connection gets these bytes, and then the end.
pub fn recite(script: &'static [u8]) -> Result<u16> {
    serve(move |mut tcp| {
        let _ = tcp.write_all(script);
        let _ = tcp.shutdown(Shutdown::Write);
        let _ = tcp.read_to_end(&mut Vec::new());
    })
}

/// The lengths of the records that the server at `port` sends in a handshake, made by `connect` over a port of ours.
pub fn records_of_handshake(port: u16, connect: impl FnOnce(u16) -> Result<()>) -> Result<Vec<usize>> {
    let sent = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&sent);
    connect(forward(port, usize::MAX, move |bytes| seen.lock().expect("no panic").extend_from_slice(bytes))?)?;
    let sent = sent.lock().expect("no panic");
    let mut rest = sent.as_slice();
    let mut records = Vec::new();
    while let Some((&[_, _, _, high, low], body)) = rest.split_first_chunk() {
        let len = usize::from(u16::from_be_bytes([high, low]));
        records.push(5 + len);
        rest = body.get(len..).context("half a record")?;
    }
    Ok(records)
}

/// Where to cut: between the records of the handshake, in their headers, and in their middle. What follows the
/// handshake, the two tickets of OpenSSL, is left out, and so is the end of its last record.
pub fn cuts(records: &[usize]) -> impl Iterator<Item = usize> {
    const TICKETS: usize = 2;
    let handshake = &records[..records.len().saturating_sub(TICKETS)];
    let mut start = 0;
    handshake.iter().flat_map(move |len| {
        let here = start;
        start += len;
        [here, here + 3, here + len / 2]
    })
}

/// A port that leads to the server at `port`, until it has sent so many bytes.
pub fn cut(port: u16, after: usize) -> Result<u16> {
    forward(port, after, |_| {})
}

fn forward(port: u16, limit: usize, see: impl FnMut(&[u8]) + Send + 'static) -> Result<u16> {
    let see = Arc::new(Mutex::new(see));
    serve(move |client| {
        let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { return };
        let (Ok(mut to), Ok(mut from)) = (server.try_clone(), client.try_clone()) else { return };
        thread::spawn(move || std::io::copy(&mut from, &mut to));
        let (mut server, mut client) = (server, client);
        let mut left = limit;
        let mut bytes = [0; 4096];
        while left > 0 {
            let room = bytes.len().min(left);
            let Ok(count @ 1..) = server.read(&mut bytes[..room]) else { break };
            (see.lock().expect("no panic"))(&bytes[..count]);
            left -= count;
            if client.write_all(&bytes[..count]).is_err() {
                break;
            }
        }
        let _ = client.shutdown(Shutdown::Both);
        let _ = server.shutdown(Shutdown::Both);
    })
}

/// Answers each connection to a free port in a thread of its own, until the program ends.
fn serve(answer: impl Fn(TcpStream) + Send + Sync + 'static) -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let answer = Arc::new(answer);
    thread::spawn(move || {
        for tcp in listener.incoming().map_while(Result::ok) {
            let answer = Arc::clone(&answer);
            thread::spawn(move || answer(tcp));
        }
    });
    Ok(port)
}
