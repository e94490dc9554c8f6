//! The `embedded-tls` backend.

use std::net::TcpStream;
use std::time::Duration;

use dunlin_tls::embedded::{AsyncLink, FULL_RECORD, Link, Memory};
use dunlin_tls::{Config, Error};
use embedded_io::{Read, ReadReady, Write};
use rustls::version::{TLS12, TLS13};

use crate::peer::{Demand, Network, Socket, recite, serve, server};
use crate::pki::Issued;
use crate::{PKI, anonymous, entropy, identity, mutual};

/// Connects, sends, reads as much back, says goodbye.
fn exchange(tcp: TcpStream, config: &Config<'_>, data: &[u8]) -> Result<Vec<u8>, Error> {
    let mut memory = Box::new(Memory::<FULL_RECORD, 2048>::new());
    let mut link = Link::new(Socket(tcp), memory.buffers());
    let mut tls = link.connect(config, entropy)?;
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
    tls.close()?;
    Ok(back)
}

fn refusal(issued: &Issued, demand: Demand, config: &Config<'_>) -> Option<Error> {
    let (tcp, peer) = serve(server(&PKI, issued, demand, &[&TLS13]), Network::Whole);
    let result = exchange(tcp, config, b"secret");
    let seen = peer.join().expect("server");
    assert!(result.is_ok() || seen.is_empty(), "{result:?}, but the server saw {seen:?}");
    result.err()
}

#[test]
fn a_server_and_a_client_that_prove_who_they_are_exchange_data() {
    for issued in [&PKI.server, &PKI.chained] {
        for network in [Network::Whole, Network::Drip] {
            let (tcp, peer) = serve(server(&PKI, issued, Demand::Required, &[&TLS13]), network);
            let data: Vec<u8> = (0..5000u32).map(|n| n as u8).collect();
            assert_eq!(exchange(tcp, &mutual(), &data), Ok(data.clone()));
            assert_eq!(peer.join().expect("server"), data);
        }
    }
    assert_eq!(refusal(&PKI.server, Demand::No, &anonymous()), None);
    let by_address = Config::new("127.0.0.1", &PKI.authority, crate::now());
    assert_eq!(refusal(&PKI.server, Demand::No, &by_address), None);
}

#[test]
fn a_server_that_does_not_prove_who_it_is_is_refused_by_name() {
    let refused = |issued| refusal(issued, Demand::Required, &mutual());
    assert_eq!(refused(&PKI.wrong_name), Some(Error::WrongName));
    assert_eq!(refused(&PKI.unknown_authority), Some(Error::UnknownAuthority));
    assert_eq!(refused(&PKI.expired), Some(Error::Expired));
    assert_eq!(refused(&PKI.not_yet_valid), Some(Error::NotYetValid));
    assert_eq!(refused(&PKI.signed_by_client), Some(Error::NotAnAuthority));
    assert_eq!(refused(&PKI.for_clients), Some(Error::NotForServers));
    let other_address = Config::new("10.9.9.9", &PKI.authority, crate::now());
    assert_eq!(refusal(&PKI.server, Demand::No, &other_address), Some(Error::WrongName));
}

#[test]
fn a_clock_that_is_wrong_refuses_a_good_server() {
    let day = 86_400;
    let at = |time| refusal(&PKI.server, Demand::No, &Config::new(crate::pki::SERVER, &PKI.authority, time));
    assert_eq!(at(0), Some(Error::NotYetValid));
    assert_eq!(at(crate::now() - 2 * day), Some(Error::NotYetValid));
    assert_eq!(at(crate::now() + 31 * day), Some(Error::Expired));
}

#[test]
fn without_the_certificate_that_is_asked_for_nothing_is_sent() {
    for demand in [Demand::Required, Demand::Optional] {
        assert_eq!(refusal(&PKI.server, demand, &anonymous()), Some(Error::IdentityDemanded));
    }
    assert_eq!(refusal(&PKI.server, Demand::Optional, &anonymous().anonymous_if_asked()), None);
}

#[test]
fn a_client_certificate_that_the_server_refuses_is_told_with_the_first_read() {
    let (tcp, peer) = serve(server(&PKI, &PKI.server, Demand::Required, &[&TLS13]), Network::Whole);
    let mut memory = Box::new(Memory::<FULL_RECORD, 2048>::new());
    let mut link = Link::new(Socket(tcp), memory.buffers());
    let mut tls = link.connect(&anonymous().identity(identity(&PKI.stranger)), entropy).expect("TLS 1.3 cannot tell");
    assert_eq!(tls.read(&mut [0]), Err(Error::Refused(None)));
    drop(link);
    assert_eq!(peer.join().expect("server"), b"");
}

#[test]
fn a_key_that_cannot_be_read_is_told_before_anything_is_sent() {
    let (tcp, peer) = recite(Vec::new());
    let config = anonymous().identity(dunlin_tls::Identity::new(&PKI.client.chain[0], b"no key"));
    assert_eq!(exchange(tcp, &config, b"secret"), Err(Error::BadIdentity));
    assert_eq!(peer.join().expect("peer"), b"");
}

#[test]
fn a_server_that_speaks_only_an_older_version_is_refused() {
    let (tcp, peer) = serve(server(&PKI, &PKI.server, Demand::No, &[&TLS12]), Network::Whole);
    const PROTOCOL_VERSION: u8 = 70;
    assert_eq!(exchange(tcp, &anonymous(), b"secret"), Err(Error::Refused(Some(PROTOCOL_VERSION))));
    assert_eq!(peer.join().expect("server"), b"");
}

#[test]
fn garbage_instead_of_a_server_hello_is_refused() {
    for (script, error) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], Error::Malformed),
        (b"\x20\x02\x00\x00", Error::Closed), // a CONNACK
        (b"\x20\x02\x00\x00\x00", Error::Malformed),
        (b"\x16\x03\x03\xff\xff", Error::RecordTooLong),
        (b"\x16\x03\x03\x00\x04\x0e\x00\x00\x00", Error::Malformed), // ServerHelloDone
        (b"\x15\x03\x03\x00\x02\x02\x28", Error::Refused(Some(40))),
        (b"\x17\x03\x03\x00\x20", Error::Malformed),
        (b"", Error::Closed),
    ] {
        let (tcp, peer) = recite(script.to_vec());
        assert_eq!(exchange(tcp, &mutual(), b"secret"), Err(error), "{script:?}");
        let sent = peer.join().expect("peer");
        assert_eq!(sent[..3], [22, 3, 1], "a ClientHello");
        assert_eq!(sent.len(), 5 + usize::from(u16::from_be_bytes([sent[3], sent[4]])), "and nothing else");
    }
}

#[test]
fn a_connection_that_ends_anywhere_in_the_handshake_is_an_error() {
    let config = server(&PKI, &PKI.chained, Demand::Required, &[&TLS13]);
    let mut after = 0;
    loop {
        let (tcp, peer) = serve(config.clone(), Network::CutAfter(after));
        let result = exchange(tcp, &mutual(), b"secret");
        let seen = peer.join().expect("server");
        match result {
            Err(Error::Closed | Error::Io(_)) if seen.is_empty() => {}
            // The handshake was complete on our side; the data may have gone out.
            Err(Error::Closed | Error::Io(_)) if after > 1200 => break,
            other => panic!("after {after} bytes: {other:?}, the server saw {seen:?}"),
        }
        after += 1;
    }
    assert!(after > 1200, "the handshake has more bytes");
}

#[test]
fn records_longer_than_asked_for_are_refused_and_shorter_ones_fit_a_small_memory() {
    // rustls does not offer the extension, so it does not keep to it.
    let (tcp, peer) = serve(server(&PKI, &PKI.chained, Demand::No, &[&TLS13]), Network::Whole);
    let mut memory = Memory::<{ 5 + 512 + 256 }, 1024>::new();
    let mut link = Link::new(Socket(tcp), memory.buffers());
    assert_eq!(link.connect(&anonymous(), entropy).err(), Some(Error::RecordTooLong));
    drop(link);
    assert_eq!(peer.join().expect("server"), b"");
}

#[test]
fn what_is_sent_keeps_to_the_length_that_was_asked_for() {
    let (tcp, peer) = serve(server(&PKI, &PKI.server, Demand::Required, &[&TLS13]), Network::Whole);
    let mut memory = Box::new(Memory::<{ 5 + 1024 + 256 }, 4096>::new());
    let mut link = Link::new(Spy { socket: Socket(tcp), sent: Vec::new() }, memory.buffers());
    let mut tls = link.connect(&mutual(), entropy).expect("handshake");
    tls.write_all(&[1; 5000]).expect("write");
    tls.flush().expect("flush");
    let sent = tls.with_transport(|spy| std::mem::take(&mut spy.sent));
    let (mut rest, mut longest) = (sent.as_slice(), 0);
    while let Some((&[_, _, _, high, low], body)) = rest.split_first_chunk() {
        let len = usize::from(u16::from_be_bytes([high, low]));
        longest = longest.max(len);
        rest = &body[len..];
    }
    assert!(longest <= 1024 + 17 && longest > 900, "{longest}");
    drop(link);
    peer.join().expect("server");
}

/// Keeps what passes.
struct Spy {
    socket: Socket,
    sent: Vec<u8>,
}

impl embedded_io::ErrorType for Spy {
    type Error = std::io::Error;
}

impl Read for Spy {
    fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
        self.socket.read(to)
    }
}

impl Write for Spy {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.sent.extend_from_slice(bytes);
        self.socket.write_all(bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.socket.flush()
    }
}

#[test]
fn read_ready_never_waits_and_tells_the_truth() {
    let (tcp, peer) = serve(server(&PKI, &PKI.server, Demand::No, &[&TLS13]), Network::Drip);
    let mut memory = Box::new(Memory::<FULL_RECORD, 2048>::new());
    let mut link = Link::new(Socket(tcp), memory.buffers());
    let mut tls = link.connect(&anonymous(), entropy).expect("handshake");
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
    drop(link);
    assert_eq!(peer.join().expect("server"), b"ping");
}

#[test]
fn the_servers_goodbye_is_the_end_and_a_cut_is_an_error() {
    let config = server(&PKI, &PKI.server, Demand::No, &[&TLS13]);
    let (tcp, peer) = serve(config, Network::Whole);
    let half = tcp.try_clone().expect("socket");
    let mut memory = Box::new(Memory::<FULL_RECORD, 2048>::new());
    let mut link = Link::new(Socket(tcp), memory.buffers());
    let mut tls = link.connect(&anonymous(), entropy).expect("handshake");
    half.shutdown(std::net::Shutdown::Write).expect("socket"); // the server answers with its goodbye
    assert_eq!(tls.read(&mut [0]), Ok(0));
    assert_eq!(tls.read(&mut [0]), Ok(0));
    peer.join().expect("server");

    let (tcp, peer) = serve(server(&PKI, &PKI.server, Demand::No, &[&TLS13]), Network::Whole);
    let half = tcp.try_clone().expect("socket");
    let mut memory = Box::new(Memory::<FULL_RECORD, 2048>::new());
    let mut link = Link::new(Socket(tcp), memory.buffers());
    let mut tls = link.connect(&anonymous(), entropy).expect("handshake");
    half.shutdown(std::net::Shutdown::Both).expect("socket");
    // Depending on who was first, the system reports an end or a reset.
    let error = tls.read(&mut [0]).expect_err("a cut");
    assert!(matches!(error, Error::Closed | Error::Io(_)), "{error}");
    assert_eq!(tls.read(&mut [0]), Err(error));
    assert_eq!(tls.write(b"x"), Err(error));
    peer.join().expect("server");
}

mod asynch {
    use embedded_io_adapters::tokio_1::FromTokio;
    use embedded_io_async::{Read, Write};
    use tokio::time::timeout;

    use super::*;

    type Half<T> = FromTokio<T>;
    type Halves = (Half<tokio::net::tcp::OwnedReadHalf>, Half<tokio::net::tcp::OwnedWriteHalf>);

    fn halves(tcp: TcpStream) -> Halves {
        tcp.set_nonblocking(true).expect("option");
        let (reader, writer) = tokio::net::TcpStream::from_std(tcp).expect("socket").into_split();
        (FromTokio::new(reader), FromTokio::new(writer))
    }

    #[tokio::test]
    async fn both_halves_work_at_the_same_time() {
        let (tcp, peer) = serve(server(&PKI, &PKI.server, Demand::Required, &[&TLS13]), Network::Whole);
        let mut memory = Box::new(Memory::<FULL_RECORD, 2048>::new());
        let (reader, writer) = halves(tcp);
        let mut link = AsyncLink::new(reader, writer, memory.buffers());
        let mut tls = link.connect(&mutual(), entropy).await.expect("handshake");
        let data: Vec<u8> = (0..200_000u32).map(|n| (n ^ n >> 8) as u8).collect();
        let mut back = vec![0; data.len()];
        let (mut reader, mut writer) = tls.split();
        // More than the sockets hold: neither side could finish without the other.
        let (read, written) = tokio::join!(reader.read_exact(&mut back), async {
            writer.write_all(&data).await?;
            writer.flush().await
        });
        read.expect("read");
        written.expect("written");
        assert!(back == data);
        tls.close().await.expect("goodbye");
        drop(link);
        assert!(peer.join().expect("server") == data);
    }

    #[tokio::test]
    async fn a_read_that_is_dropped_loses_nothing() {
        let (tcp, peer) = serve(server(&PKI, &PKI.server, Demand::No, &[&TLS13]), Network::Drip);
        let mut memory = Box::new(Memory::<FULL_RECORD, 2048>::new());
        let (reader, writer) = halves(tcp);
        let mut link = AsyncLink::new(reader, writer, memory.buffers());
        let mut tls = link.connect(&anonymous(), entropy).await.expect("handshake");
        let (mut reader, mut writer) = tls.split();
        let data = [7; 3000];
        let early = timeout(Duration::from_millis(1), reader.read(&mut [0; 100])).await;
        assert!(early.is_err(), "there is nothing yet");
        writer.write_all(&data).await.expect("write");
        writer.flush().await.expect("flush");
        let mut got = Vec::new();
        while got.len() < data.len() {
            let mut to = [0; 100];
            if let Ok(count) = timeout(Duration::from_micros(300), reader.read(&mut to)).await {
                got.extend_from_slice(&to[..count.expect("read")]);
            }
        }
        assert!(got == data);
        tls.close().await.expect("goodbye");
        drop(link);
        peer.join().expect("server");
    }

    #[tokio::test]
    async fn what_must_be_refused_is_refused() {
        for (issued, error) in [
            (&PKI.wrong_name, Error::WrongName),
            (&PKI.unknown_authority, Error::UnknownAuthority),
            (&PKI.expired, Error::Expired),
            (&PKI.not_yet_valid, Error::NotYetValid),
            (&PKI.signed_by_client, Error::NotAnAuthority),
            (&PKI.for_clients, Error::NotForServers),
        ] {
            let (tcp, peer) = serve(server(&PKI, issued, Demand::Required, &[&TLS13]), Network::Whole);
            let mut memory = Box::new(Memory::<FULL_RECORD, 2048>::new());
            let (reader, writer) = halves(tcp);
            let mut link = AsyncLink::new(reader, writer, memory.buffers());
            assert_eq!(link.connect(&mutual(), entropy).await.err(), Some(error));
            drop(link);
            assert_eq!(peer.join().expect("server"), b"");
        }
    }
}
