//! The blocking client against servers that misbehave, over real sockets. Numbers are those of the hostile cases.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use dunlin::blocking::{Builder, Client, Error, Event, Outcome, Reason};
use dunlin::reconnect::Backoff;
use dunlin::{Fault, Publish, QoS};

use crate::common::{LONG, await_event, builder, wait_until, within};

const CONNACK: &[u8] = b"\x20\x02\x00\x00";
const RESUMED: &[u8] = b"\x20\x02\x01\x00";
const PINGREQ: u8 = 0xC0;
const PINGRESP: &[u8] = b"\xD0\x00";
const DISCONNECT: u8 = 0xE0;

/// A server that does what a test says with each of its connections, which are numbered from 0.
struct Server {
    port: u16,
}

impl Server {
    fn new(mut script: impl FnMut(Peer, usize) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let stream = stream.unwrap();
                stream.set_read_timeout(Some(LONG)).unwrap();
                script(Peer(stream), number);
            }
        });
        Self { port }
    }

    fn builder(&self, client_id: &str) -> Builder {
        builder(&format!("mqtt://127.0.0.1:{}", self.port), client_id)
    }
}

/// The server's end of a connection.
struct Peer(TcpStream);

impl Peer {
    /// The next packet: first byte and body. `None` at the end of the stream.
    fn packet(&mut self) -> Option<(u8, Vec<u8>)> {
        let first = self.byte()?;
        let (mut len, mut shift) = (0, 0);
        loop {
            let byte = self.byte()?;
            len |= usize::from(byte & 0x7F) << shift;
            shift += 7;
            if byte < 0x80 {
                break;
            }
        }
        let mut body = vec![0; len];
        self.0.read_exact(&mut body).ok()?;
        Some((first, body))
    }

    fn byte(&mut self) -> Option<u8> {
        let mut byte = [0];
        match self.0.read(&mut byte) {
            Ok(1) => Some(byte[0]),
            Ok(_) => None,
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// Takes packets until one begins with this byte; `false` when none does.
    fn until(&mut self, first: u8) -> bool {
        std::iter::from_fn(|| self.packet()).any(|(byte, _)| byte == first)
    }

    fn send(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes);
    }

    /// CONNECT, answered.
    fn accept(&mut self, connack: &[u8]) {
        assert_eq!(self.packet().unwrap().0, 0x10);
        self.send(connack);
    }

    /// Ends the connection with RST.
    fn reset(self) {
        socket2::SockRef::from(&self.0).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

fn publish_packet(topic: &str, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x30];
    let mut len = 2 + topic.len() + payload.len();
    while len > 127 {
        packet.push(len as u8 | 0x80);
        len >>= 7;
    }
    packet.push(len as u8);
    packet.extend((topic.len() as u16).to_be_bytes());
    packet.extend(topic.as_bytes());
    packet.extend(payload);
    packet
}

/// The fault with which the client's connection ends next.
fn next_fault(client: &Client) -> Reason {
    match await_event(client, |event| matches!(event, Event::Disconnected { .. })) {
        Event::Disconnected { reason, .. } => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn no_connack_ends_in_a_time_out_and_another_attempt() {
    // [B11]
    let server = Server::new(|mut peer, number| match number {
        0 => assert!(!peer.until(PINGREQ), "a packet after CONNECT without CONNACK"),
        _ => {
            peer.accept(CONNACK);
            peer.until(DISCONNECT);
        }
    });
    let client = server.builder("b11").answer_timeout(Duration::from_secs(1)).start().unwrap();
    assert!(matches!(next_fault(&client), Reason::Fault(Fault::ConnectTimeout)));
    client.wait_connected(LONG).unwrap();
    // With `connect`, the first attempt decides.
    let server = Server::new(|mut peer, _| _ = peer.until(PINGREQ));
    let error = server.builder("b11").answer_timeout(Duration::from_secs(1)).connect().unwrap_err();
    assert!(matches!(error, Error::Ended(Reason::Fault(Fault::ConnectTimeout))), "{error:?}");
}

#[test]
fn a_close_does_not_wait_for_a_host_that_never_answers() {
    // [E12] A listener whose queue is full lets connections hang, as a dead host does.
    within(LONG, || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut filling = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(50)) {
            filling.push(stream);
        }
        let hour = Duration::from_secs(3600);
        let client = builder(&format!("mqtt://{address}"), "e12").connect_timeout(hour).start().unwrap();
        wait_until("the client connects", || is_connecting(address.port()));
        client.close(hour).unwrap();
        // With something to deliver it waits, for as long as it was told.
        let client = builder(&format!("mqtt://{address}"), "e12").connect_timeout(hour).start().unwrap();
        wait_until("the client connects", || is_connecting(address.port()));
        let _ = client.publish(&Publish::new("a", b"x").at_least_once()).unwrap();
        assert!(matches!(client.close(Duration::from_millis(50)), Err(Error::Unfinished(1))));
    });
}

/// Whether a connection to this port is being made, as the system tells it.
fn is_connecting(port: u16) -> bool {
    let (port, syn_sent) = (format!(":{port:04X}"), "02");
    let Ok(table) = std::fs::read_to_string("/proc/net/tcp") else { return true };
    table.lines().any(|line| {
        let mut words = line.split_whitespace().skip(2);
        words.next().is_some_and(|remote| remote.ends_with(&port)) && words.next() == Some(syn_sent)
    })
}

#[test]
fn an_end_before_or_within_connack_is_an_error_and_waits_before_the_next_try() {
    // [B12] [E10]
    let (report, attempts) = mpsc::channel();
    let server = Server::new(move |mut peer, number| {
        report.send(Instant::now()).unwrap();
        match number % 4 {
            0 => peer.0.shutdown(Shutdown::Both).unwrap(),
            1 => peer.reset(),
            2 => {
                assert!(peer.packet().is_some());
                peer.send(&CONNACK[..1]);
            }
            _ => {
                assert!(peer.packet().is_some());
                peer.send(&CONNACK[..3]);
                peer.reset();
            }
        }
    });
    let backoff = Backoff::new(Duration::from_millis(40), Duration::from_millis(40));
    let client = server.builder("b12").reconnect(backoff).start().unwrap();
    for _ in 0..12 {
        let event = await_event(&client, |event| matches!(event, Event::Disconnected { .. }));
        let Event::Disconnected { reason, retry_in } = event else { unreachable!() };
        assert!(matches!(reason, Reason::ServerClosed | Reason::Io(_)), "{reason:?}");
        assert!(retry_in.is_some());
    }
    assert!(!client.is_connected());
    // Twelve waits of up to 40 ms each, evenly drawn: together they are less than 60 ms once in ten million times.
    let times: Vec<_> = attempts.try_iter().take(12).collect();
    assert!(*times.last().unwrap() - times[0] > Duration::from_millis(60));
}

#[test]
fn a_server_that_half_closes_is_closed_from_our_side_too() {
    // [B13]
    let (report, closed) = mpsc::channel();
    let server = Server::new(move |mut peer, _| {
        peer.accept(CONNACK);
        peer.0.shutdown(Shutdown::Write).unwrap();
        report.send(peer.packet().is_none()).unwrap();
    });
    let client = server.builder("b13").start().unwrap();
    assert!(closed.recv_timeout(LONG).unwrap());
    assert!(matches!(next_fault(&client), Reason::ServerClosed));
}

#[test]
fn a_flood_that_nobody_takes_fills_the_socket_not_the_memory_and_the_pings_go_on() {
    // [C24]
    within(LONG, || {
        let (report, progress): (Sender<(usize, usize)>, Receiver<_>) = mpsc::channel();
        let server = Server::new(move |mut peer, _| {
            peer.accept(CONNACK);
            peer.0.set_nonblocking(true).unwrap();
            let (mut sent, mut pings, mut rest) = (0_usize, 0, Vec::new());
            let mut came = [0; 100];
            loop {
                if rest.is_empty() {
                    rest = publish_packet("flood", format!("{sent:01000}").as_bytes());
                    sent += 1;
                }
                match peer.0.write(&rest) {
                    Ok(n) => _ = rest.drain(..n),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(Duration::from_millis(1)),
                    Err(_) => return,
                }
                match peer.0.read(&mut came) {
                    Ok(0) => return,
                    Ok(n) => {
                        // Pings are answered behind the flood, as any server would.
                        pings += came[..n].iter().filter(|byte| **byte == PINGREQ).count();
                        rest.extend(PINGRESP);
                    }
                    Err(_) => {}
                }
                let _ = report.send((sent, pings));
            }
        });
        let client = server.builder("c24").keep_alive(Duration::from_secs(1)).answer_timeout(Duration::from_secs(1));
        let client = client.receive_queue(100, 1 << 20).connect().unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        let (mut sent, mut pings) = (0, 0);
        while Instant::now() < deadline {
            if let Ok(now) = progress.recv_timeout(Duration::from_millis(10)) {
                (sent, pings) = now;
            }
        }
        // One queue, one inbox, and two socket buffers of the system, which are a few megabytes.
        assert!(sent < 20_000, "{sent} messages of 1,000 bytes were taken from the server");
        assert!(pings >= 4, "{pings} pings in five seconds at a keep alive of one");
        assert!(client.is_connected());
        assert_eq!(client.stats().waiting, 100);
        // A driver that is not woken when there is room goes on at its next ping only: a hundred messages a second, which
        // is longer than this test may take.
        for n in 0..sent - 1 {
            let message = client.next_timeout(LONG).unwrap().expect("a message of the flood");
            assert_eq!(message.text(), Some(format!("{n:01000}").as_str()));
        }
        assert_eq!(client.stats().connections, 1);
    });
}

#[test]
fn a_publish_after_our_disconnect_is_not_answered() {
    // [C25]
    let (report, after) = mpsc::channel();
    let server = Server::new(move |mut peer, _| {
        peer.accept(CONNACK);
        assert!(peer.until(DISCONNECT));
        peer.send(b"\x32\x06\x00\x01a\x00\x07x\x62\x02\x00\x08");
        report.send(peer.packet()).unwrap();
    });
    let client = server.builder("c25").connect().unwrap();
    client.close(LONG).unwrap();
    assert_eq!(after.recv_timeout(LONG).unwrap(), None);
    assert!(matches!(client.next(), Err(Error::Ended(Reason::Closed))));
}

#[test]
fn a_link_that_has_gone_silent_is_pinged_and_closed() {
    // [E01] No FIN, no answer: the peer has vanished.
    let (report, pings) = mpsc::channel();
    let server = Server::new(move |mut peer, number| match number {
        0 => {
            peer.accept(CONNACK);
            report.send(peer.until(PINGREQ)).unwrap();
            while peer.packet().is_some() {}
        }
        _ => {
            peer.accept(CONNACK);
            while peer.until(PINGREQ) {
                peer.send(PINGRESP);
            }
        }
    });
    let client = server.builder("e01").keep_alive(Duration::from_secs(1)).answer_timeout(Duration::from_secs(1));
    let client = client.connect().unwrap();
    let start = Instant::now();
    assert!(matches!(next_fault(&client), Reason::Fault(Fault::Silent)));
    assert!(pings.recv().unwrap());
    assert!(start.elapsed().as_millis() >= 1_800, "{:?}", start.elapsed());
    client.wait_connected(LONG).unwrap();
}

#[test]
fn half_a_packet_and_then_silence_is_pinged_and_closed() {
    // [A27]
    let (report, pings) = mpsc::channel();
    let server = Server::new(move |mut peer, _| {
        peer.accept(CONNACK);
        peer.send(&publish_packet("slow/loris", &[0; 100])[..60]);
        report.send(peer.until(PINGREQ)).unwrap();
        while peer.packet().is_some() {}
    });
    let client = server.builder("a27").keep_alive(Duration::from_secs(1)).answer_timeout(Duration::from_secs(1));
    let client = client.connect().unwrap();
    let before = cpu_time("dunlin a27");
    assert!(before.is_some() || !cfg!(target_os = "linux"));
    assert!(matches!(next_fault(&client), Reason::Fault(Fault::Silent)));
    assert!(pings.recv().unwrap());
    assert_eq!(client.stats().received, 0);
    if let (Some(before), Some(after)) = (before, cpu_time("dunlin a27")) {
        assert!(after - before < Duration::from_millis(500), "a busy loop: {:?} of CPU time", after - before);
    }
}

/// What a thread of this process has used so far.
fn cpu_time(thread: &str) -> Option<Duration> {
    for task in std::fs::read_dir("/proc/self/task").ok()? {
        // A thread of another test may end meanwhile.
        let stat = std::fs::read_to_string(task.ok()?.path().join("stat")).unwrap_or_default();
        if stat.contains(&format!("({thread})")) {
            let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
            let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
            return Some(Duration::from_millis(ticks * 10));
        }
    }
    None
}

#[test]
fn a_peer_that_never_reads_blocks_nobody_and_is_found_out() {
    // [E04]
    within(Duration::from_secs(60), || {
        let (keep, kept) = mpsc::channel();
        let server = Server::new(move |mut peer, _| {
            peer.accept(CONNACK);
            keep.send(peer).unwrap(); // open, and never read again
        });
        let client = server.builder("e04").keep_alive(Duration::from_secs(1)).answer_timeout(Duration::from_secs(1));
        let client = client.queue(10, 64 << 20).timeout(Duration::from_millis(100)).connect().unwrap();
        let payload = vec![0; 4 << 20];
        let mut accepted = 0;
        while client.publish(&Publish::new("zero/window", &payload).at_least_once()).is_ok() {
            accepted += 1;
        }
        assert_eq!(accepted, 10);
        assert!(matches!(next_fault(&client), Reason::Fault(Fault::Silent)));
        drop(kept);
        let _ = client.close(Duration::from_millis(100));
    });
}

#[test]
fn a_packet_cut_by_a_reset_begins_anew_on_the_next_connection() {
    // [E05]
    let payload = vec![7; 8 << 20];
    let expected = payload.clone();
    let (report, came) = mpsc::channel();
    let server = Server::new(move |mut peer, number| {
        peer.accept(if number == 0 { CONNACK } else { RESUMED });
        if number < 3 {
            let mut part = vec![0; 100_000 * (number + 1)];
            peer.0.read_exact(&mut part).unwrap();
            peer.reset();
            return;
        }
        let (first, body) = peer.packet().unwrap();
        peer.send(b"\x40\x02\x00\x01");
        report.send((first, body[2..7] == *b"large", body[7..9] == [0, 1], body[9..] == expected)).unwrap();
        peer.until(DISCONNECT);
    });
    let client = server.builder("e05").persistent().connect().unwrap();
    let delivery = client.publish(&Publish::new("large", &payload).at_least_once()).unwrap();
    assert_eq!(delivery.wait(LONG).unwrap(), Outcome::Delivered);
    let (first, ..) = came.recv().unwrap();
    // No byte of it may have arrived whole, so DUP may be set or not, but it is one PUBLISH at QoS 1, whole.
    assert_eq!(first & !0x08, 0x32);
}

#[test]
fn a_server_that_closes_after_each_connack_is_left_in_peace_longer_and_longer() {
    // [E09] A connection that did not last does not reset the back-off.
    let server = Server::new(|mut peer, _| peer.accept(CONNACK));
    let backoff = Backoff::new(Duration::from_millis(1), Duration::from_secs(2)).lasting(Duration::from_millis(500));
    let client = server.builder("e09").reconnect(backoff).start().unwrap();
    thread::sleep(Duration::from_secs(3));
    let attempts = client.stats().connections;
    // With waits of 1, 2, 4 … 2,000 ms at most, about a dozen fit on average; without back-off it would be thousands.
    assert!((5..40).contains(&attempts), "{attempts} connections in three seconds");
}

#[test]
fn the_end_of_a_client_waits_for_no_back_off() {
    within(LONG, || {
        let hour = Duration::from_secs(3_600);
        let server = Server::new(|mut peer, _| peer.accept(CONNACK));
        let client = server.builder("patient").reconnect(Backoff::new(hour, hour)).start().unwrap();
        // Drawn at random from an hour: shorter than this test may take once in a hundred times, and then it passes.
        await_event(&client, |event| matches!(event, Event::Disconnected { .. }));
        drop(client);
    });
}

#[test]
fn a_packet_above_the_limit_ends_the_connection_or_passes_by() {
    // [A12]
    let large = publish_packet("large", &[0; 5_000]);
    let script = move |mut peer: Peer, _| {
        peer.accept(CONNACK);
        peer.send(&large);
        peer.send(&publish_packet("small", b"x"));
        peer.until(DISCONNECT);
    };
    let server = Server::new(script.clone());
    let client = server.builder("a12").max_packet(2_000).start().unwrap();
    assert!(matches!(next_fault(&client), Reason::Fault(Fault::TooLarge { .. })));
    let server = Server::new(script);
    let client = server.builder("a12").max_packet(2_000).skip_oversize().start().unwrap();
    assert_eq!(client.next_timeout(LONG).unwrap().unwrap().topic(), "small");
    await_event(&client, |event| matches!(event, Event::Skipped { qos: QoS::AtMostOnce, .. }));
}

#[test]
fn events_that_nobody_takes_are_counted_not_kept() {
    let server = Server::new(|peer, _| peer.reset());
    let backoff = Backoff::new(Duration::ZERO, Duration::ZERO);
    let client = server.builder("events").reconnect(backoff).start().unwrap();
    thread::sleep(Duration::from_millis(300));
    wait_until("events are missed", || matches!(client.next_event(), Ok(Event::Missed(n)) if n > 0));
}

#[test]
fn the_password_is_never_shown() {
    let server = Server::new(|mut peer, _| {
        peer.accept(CONNACK);
        peer.until(DISCONNECT);
    });
    let builder = server.builder("secret").credentials("me", b"hunter2");
    assert!(!format!("{builder:?}").contains("hunter2"));
    assert!(!format!("{:?}", builder.connect().unwrap()).contains("hunter2"));
    let url = format!("mqtt://me:hunter2@127.0.0.1:{}", server.port);
    assert!(!format!("{:?}", Client::builder(&url, "secret")).contains("hunter2"));
}
