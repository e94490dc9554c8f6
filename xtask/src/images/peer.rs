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
///
/// The server's part is over when the client says something for the second time: tickets, and whatever else follows as
/// timing has it, are behind that.
pub fn records_of_handshake(port: u16, connect: impl FnOnce(u16) -> Result<()>) -> Result<Vec<usize>> {
    let wire = Arc::new(Mutex::new((Vec::new(), Vec::new())));
    let (sent, heard) = (Arc::clone(&wire), Arc::clone(&wire));
    let see = move |bytes: &[u8]| {
        let (from_server, from_client) = &mut *sent.lock().expect("no panic");
        let hello = record_len(from_client).unwrap_or(usize::MAX);
        if from_client.len() <= hello {
            from_server.extend_from_slice(bytes);
        }
    };
    let hear = move |bytes: &[u8]| heard.lock().expect("no panic").1.extend_from_slice(bytes);
    connect(forward(port, usize::MAX, see, hear)?)?;
    let wire = wire.lock().expect("no panic");
    let mut rest = wire.0.as_slice();
    let mut records = Vec::new();
    while let Some(len) = record_len(rest) {
        records.push(len);
        rest = rest.get(len..).context("half a record")?;
    }
    Ok(records)
}

/// The length of the record at the front, its header included.
fn record_len(bytes: &[u8]) -> Option<usize> {
    let [_, _, _, high, low] = bytes.first_chunk()?;
    Some(5 + usize::from(u16::from_be_bytes([*high, *low])))
}

/// Where to cut: between the records of the handshake, in their headers, and in their middle, but not behind the last.
pub fn cuts(records: &[usize]) -> impl Iterator<Item = usize> {
    let mut start = 0;
    records.iter().flat_map(move |len| {
        let here = start;
        start += len;
        [here, here + 3, here + len / 2]
    })
}

/// A port that leads to the server at `port`, until it has sent so many bytes.
pub fn cut(port: u16, after: usize) -> Result<u16> {
    forward(port, after, |_| {}, |_| {})
}

/// A port that leads to the server at `port` and shows what each side says before the other one has it.
fn forward(
    port: u16,
    limit: usize,
    see: impl FnMut(&[u8]) + Send + 'static,
    hear: impl FnMut(&[u8]) + Send + 'static,
) -> Result<u16> {
    let (see, hear) = (Arc::new(Mutex::new(see)), Arc::new(Mutex::new(hear)));
    serve(move |client| {
        let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { return };
        let (Ok(mut to), Ok(mut from)) = (server.try_clone(), client.try_clone()) else { return };
        let hear = Arc::clone(&hear);
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = from.read(&mut bytes) {
                (hear.lock().expect("no panic"))(&bytes[..count]);
                if to.write_all(&bytes[..count]).is_err() {
                    break;
                }
            }
        });
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
