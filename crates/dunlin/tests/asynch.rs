//! The two halves on tokio: against a real broker, and over a pipe that is smaller than what must pass.

use std::cell::Cell;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use dunlin::asynch::{Clock, LinkError, Shared};
use dunlin::{Event, Fault, Filter, Inbox, Instant, Options, Publish, PublishError, QoS, Session, Storage};
use dunlin_testkit::Mosquitto;
use embedded_io_adapters::tokio_1::FromTokio;
use tokio::net::TcpStream;
use tokio::time::timeout;

#[derive(Clone, Copy)]
struct Tokio(tokio::time::Instant);

impl Clock for Tokio {
    fn now(&self) -> Instant {
        Instant::from_millis(self.0.elapsed().as_millis() as u64)
    }

    fn sleep_until(&self, deadline: Instant) -> impl Future<Output = ()> {
        tokio::time::sleep_until(self.0 + Duration::from_millis(deadline.as_millis()))
    }
}

fn clock() -> Tokio {
    Tokio(tokio::time::Instant::now())
}

const TABLE: &[Filter] = &[Filter::literal("echo/#", QoS::ExactlyOnce)];
const OPTIONS: Options = Options::new("async-1").persistent().subscriptions(TABLE);

/// Counts what came on `echo/N`, by N, and checks that each number follows the one before.
struct Counts([u32; 4]);

impl Counts {
    fn note(&mut self, event: &Event<'_>) {
        if let Event::Message(message) = event {
            let task: usize = message.topic["echo/".len()..].parse().expect("a number");
            let number = u32::from_be_bytes(message.payload.try_into().expect("four bytes"));
            // At least once, messages may come again after the restart.
            let is_again = task == 1 && number < self.0[task];
            assert!(is_again || number == self.0[task], "task {task}: {number} after {}", self.0[task]);
            self.0[task] = self.0[task].max(number + 1);
        }
    }
}

/// One connection until all have come `goal` times; true if they have.
async fn connection(mqtt: &Shared<'_>, inbox: &mut Inbox<'_>, port: u16, counts: &mut Counts, goal: [u32; 4]) -> bool {
    let Ok(tcp) = TcpStream::connect(("127.0.0.1", port)).await else { return false };
    let (reader, writer) = tcp.into_split();
    let (mut events, pump) = mqtt.open(inbox, FromTokio::new(reader), FromTokio::new(writer), clock());
    let listen = async {
        while counts.0 != goal {
            match events.next(inbox).await {
                Ok(event) => counts.note(&event),
                Err(_) => return false,
            }
        }
        true
    };
    tokio::select! {
        complete = listen => complete,
        _ = pump.run() => false,
    }
}

async fn publish(mqtt: &Shared<'_>, task: usize, from: u32, to: u32, qos: QoS) {
    for number in from..to {
        let (topic, payload) = (format!("echo/{task}"), number.to_be_bytes());
        // QoS 0 does not wait for a connection.
        while mqtt.publish(&Publish::new(&topic, &payload).with_qos(qos)).await == Err(PublishError::Offline) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test]
async fn four_tasks_share_one_session_and_a_restart_loses_nothing() {
    let mut broker = Mosquitto::with("persistence true\nautosave_interval 0\n");
    let mut storage: Storage<256, 128, 3> = Storage::new(); // less than what is under way
    let (memory, mut inbox) = storage.split();
    let mqtt = Shared::new(Session::new(OPTIONS, memory));
    let mut counts = Counts([0; 4]);
    for round in 0..2 {
        let (from, to) = (round * 50, round * 50 + 50);
        let tell = async {
            tokio::join!(
                publish(&mqtt, 1, from, to, QoS::AtLeastOnce),
                publish(&mqtt, 2, from, to, QoS::ExactlyOnce),
                publish(&mqtt, 3, from, to, QoS::ExactlyOnce),
            );
        };
        let goal = [0, to, to, to];
        let listen = async { while !connection(&mqtt, &mut inbox, broker.port(), &mut counts, goal).await {} };
        timeout(Duration::from_secs(30), async { tokio::join!(tell, listen) }).await.expect("in time");
        broker.stop();
        broker.restart();
    }
}

#[tokio::test]
async fn a_goodbye_ends_the_pump_after_what_is_owed() {
    let broker = Mosquitto::start();
    let mut storage: Storage<256, 128, 4> = Storage::new();
    let (memory, mut inbox) = storage.split();
    let mqtt = Shared::new(Session::new(Options::new("async-2"), memory));
    let tcp = TcpStream::connect(("127.0.0.1", broker.port())).await.expect("connect");
    let (reader, writer) = tcp.into_split();
    let (mut events, pump) = mqtt.open(&mut inbox, FromTokio::new(reader), FromTokio::new(writer), clock());
    let listen = async {
        assert!(matches!(events.next(&mut inbox).await, Ok(Event::Connected { resumed: false })));
        mqtt.try_publish(&Publish::new("last", b"words")).expect("room");
        mqtt.close();
        loop {
            if let Err(error) = events.next(&mut inbox).await {
                return error;
            }
        }
    };
    let (end, _) = tokio::join!(pump.run(), listen);
    assert!(matches!(end, LinkError::Closed), "{end:?}");
}

/// Writes, but never sees the goodbye off.
struct NeverFlushed<W> {
    writer: W,
    is_goodbye: bool,
}

impl<W: embedded_io_async::ErrorType> embedded_io_async::ErrorType for NeverFlushed<W> {
    type Error = W::Error;
}

impl<W: embedded_io_async::Write> embedded_io_async::Write for NeverFlushed<W> {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, W::Error> {
        self.is_goodbye = bytes == b"\xe0\x00";
        self.writer.write(bytes).await
    }

    async fn flush(&mut self) -> Result<(), W::Error> {
        if self.is_goodbye { std::future::pending().await } else { self.writer.flush().await }
    }
}

/// How a connection ends on which the server hangs up after so many bytes of the goodbye.
async fn hung_up_after(bytes: usize) -> LinkError<std::io::Error> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (client, mut server) = tokio::io::duplex(64);
    let (reader, writer) = tokio::io::split(client);
    let mut storage: Storage<256, 128, 4> = Storage::new();
    let (memory, mut inbox) = storage.split();
    let mqtt = Shared::new(Session::new(Options::new("async-4"), memory));
    let writer = NeverFlushed { writer: FromTokio::new(writer), is_goodbye: false };
    let (mut events, pump) = mqtt.open(&mut inbox, FromTokio::new(reader), writer, clock());
    let serve = async {
        server.read_exact(&mut [0; 21]).await.expect("CONNECT");
        server.write_all(b"\x20\x02\x00\x00").await.expect("CONNACK");
        server.read_exact(&mut vec![0; bytes]).await.expect("DISCONNECT");
        drop(server);
    };
    let listen = async {
        loop {
            match events.next(&mut inbox).await {
                Ok(Event::Connected { .. }) if bytes == 0 => {}
                Ok(Event::Connected { .. }) => mqtt.close(),
                Ok(other) => panic!("{other:?}"),
                Err(error) => return error,
            }
        }
    };
    let end = async { tokio::join!(listen, serve).0 };
    tokio::select! {
        end = end => end,
        end = pump.run() => panic!("{end:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_hangs_up_at_the_goodbye_is_no_fault() {
    assert!(matches!(timeout(Duration::from_secs(5), hung_up_after(2)).await, Ok(LinkError::Closed)));
    assert!(matches!(timeout(Duration::from_secs(5), hung_up_after(0)).await, Ok(LinkError::ServerClosed)));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_falls_silent_is_found_out() {
    let (client, mut server) = tokio::io::duplex(64);
    let (reader, writer) = tokio::io::split(client);
    let mut storage: Storage<256, 128, 4> = Storage::new();
    let (memory, mut inbox) = storage.split();
    let mqtt = Shared::new(Session::new(Options::new("async-3").keep_alive(10).answer_timeout(5), memory));
    let (mut events, pump) = mqtt.open(&mut inbox, FromTokio::new(reader), FromTokio::new(writer), clock());
    let begin = tokio::time::Instant::now();
    let listen = async {
        assert!(matches!(events.next(&mut inbox).await, Ok(Event::Connected { .. })));
        events.next(&mut inbox).await.map(drop)
    };
    let serve = async {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut connect = [0; 21];
        server.read_exact(&mut connect).await.expect("CONNECT");
        server.write_all(b"\x20\x02\x00\x00").await.expect("CONNACK");
        let mut ping = [0; 2];
        server.read_exact(&mut ping).await.expect("PINGREQ");
        assert_eq!(ping, *b"\xc0\x00");
        std::future::pending::<()>().await;
    };
    let end = tokio::select! {
        end = pump.run() => end,
        end = listen => panic!("{end:?}"),
        () = serve => unreachable!(),
    };
    assert!(matches!(end, LinkError::Fault(Fault::Silent)), "{end:?}");
    let passed = begin.elapsed().as_millis();
    assert!((13_700..14_000).contains(&passed), "{passed} ms: 8.75 s to the ping, 5 s for its answer");
}

#[tokio::test(start_paused = true)]
async fn both_halves_end_with_the_stream_and_nothing_at_qos_0_is_taken_for_the_next_one() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    for hangs_up in [true, false] {
        let (client, mut server) = tokio::io::duplex(64);
        let (reader, writer) = tokio::io::split(client);
        let mut storage: Storage<256, 128, 2> = Storage::new();
        let (memory, mut inbox) = storage.split();
        let mqtt = Shared::new(Session::new(Options::new("async-8").keep_alive(10).answer_timeout(5), memory));
        let (mut events, pump) = mqtt.open(&mut inbox, FromTokio::new(reader), FromTokio::new(writer), clock());
        let listen = async {
            assert!(matches!(events.next(&mut inbox).await, Ok(Event::Connected { .. })));
            let end = events.next(&mut inbox).await.map(drop);
            assert!(matches!(end, Err(LinkError::ServerClosed)), "{end:?}");
        };
        let tell = async {
            while !mqtt.with(|session| session.is_connected()) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            for _ in 0..2 {
                mqtt.try_publish(&Publish::new("a", b"").at_least_once()).expect("room");
            }
            // There is no room: it waits, and not beyond the connection.
            assert_eq!(mqtt.publish(&Publish::new("a", b"")).await, Err(PublishError::Offline));
        };
        let serve = async {
            server.read_exact(&mut [0; 21]).await.expect("CONNECT");
            server.write_all(b"\x20\x02\x00\x00").await.expect("CONNACK");
            server.read_exact(&mut [0; 14]).await.expect("two messages");
            if !hangs_up {
                tokio::time::sleep(Duration::from_secs(60)).await; // found silent, and closed by nobody
            }
            drop(server);
        };
        let all = async { tokio::join!(pump.run(), listen, tell, serve).0 };
        let end = timeout(Duration::from_secs(100), all).await.expect("an end");
        match hangs_up {
            true => assert!(matches!(end, LinkError::ServerClosed), "{end:?}"),
            false => assert!(matches!(end, LinkError::Fault(Fault::Silent)), "{end:?}"),
        }
        assert_eq!(mqtt.try_publish(&Publish::new("a", b"")), Err(PublishError::Offline));
        assert_eq!(mqtt.with(|session| session.outgoing_count()), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_answers_connect_is_named_as_such() {
    let (client, _server) = tokio::io::duplex(64);
    let (reader, writer) = tokio::io::split(client);
    let mut storage: Storage<256, 128, 4> = Storage::new();
    let (memory, mut inbox) = storage.split();
    let mqtt = Shared::new(Session::new(Options::new("async-5"), memory));
    let (mut events, pump) = mqtt.open(&mut inbox, FromTokio::new(reader), FromTokio::new(writer), clock());
    let end = tokio::select! {
        end = pump.run() => end,
        end = events.next(&mut inbox) => panic!("{end:?}"),
    };
    assert!(matches!(end, LinkError::Fault(Fault::ConnectTimeout)), "{end:?}");
}

#[tokio::test(start_paused = true)]
async fn a_long_message_may_take_longer_than_the_answer_to_a_ping_which_stands_behind_it() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (client, mut server) = tokio::io::duplex(4096);
    let (reader, writer) = tokio::io::split(client);
    let mut storage: Storage<256, 4096, 4> = Storage::new();
    let (memory, mut inbox) = storage.split();
    let mqtt = Shared::new(Session::new(Options::new("async-7").keep_alive(10).answer_timeout(5), memory));
    let has_come = Cell::new(false);
    let (mut events, pump) = mqtt.open(&mut inbox, FromTokio::new(reader), FromTokio::new(writer), clock());
    let listen = async {
        assert!(matches!(events.next(&mut inbox).await, Ok(Event::Connected { .. })));
        assert!(matches!(events.next(&mut inbox).await, Ok(Event::Message(_))));
        has_come.set(true);
        events.next(&mut inbox).await.map(drop)
    };
    let serve = async {
        server.read_exact(&mut [0; 21]).await.expect("CONNECT");
        server.write_all(b"\x20\x02\x00\x00").await.expect("CONNACK");
        let mut packet = vec![0; 3 + 3001];
        packet[..6].copy_from_slice(b"\x30\xb9\x17\x00\x01a");
        for piece in packet.chunks(700) {
            tokio::time::sleep(Duration::from_secs(4)).await;
            server.write_all(piece).await.expect("a piece of it");
        }
        // The next one stops coming.
        server.write_all(&packet[..2000]).await.expect("a piece of it");
        std::future::pending::<()>().await;
    };
    let end = tokio::select! {
        end = pump.run() => end,
        end = listen => panic!("{end:?}"),
        () = serve => unreachable!(),
    };
    assert!(matches!(end, LinkError::Fault(Fault::Silent)), "{end:?}");
    assert!(has_come.get(), "given up before the message had come");
}

#[tokio::test(start_paused = true)]
async fn a_server_whose_answers_nobody_looks_at_is_not_taken_for_silent() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (client, mut server) = tokio::io::duplex(64);
    let (reader, writer) = tokio::io::split(client);
    let mut storage: Storage<256, 128, 4> = Storage::new();
    let (memory, mut inbox) = storage.split();
    let mqtt = Shared::new(Session::new(Options::new("async-6").keep_alive(10).answer_timeout(5), memory));
    let (mut events, pump) = mqtt.open(&mut inbox, FromTokio::new(reader), FromTokio::new(writer), clock());
    let listen = async {
        assert!(matches!(events.next(&mut inbox).await, Ok(Event::Connected { .. })));
        // A wait for events that is given up, and then something else that takes its time.
        assert!(timeout(Duration::from_secs(1), events.next(&mut inbox)).await.is_err());
        tokio::time::sleep(Duration::from_secs(60)).await;
        let message = events.next(&mut inbox).await;
        assert!(matches!(message, Ok(Event::Message(_))), "{message:?}");
    };
    let serve = async {
        server.read_exact(&mut [0; 21]).await.expect("CONNECT");
        server.write_all(b"\x20\x02\x00\x00").await.expect("CONNACK");
        for _ in 0..6 {
            server.read_exact(&mut [0; 2]).await.expect("PINGREQ");
            server.write_all(b"\xd0\x00").await.expect("PINGRESP");
        }
        server.write_all(b"\x30\x03\x00\x01a").await.expect("PUBLISH");
        std::future::pending::<()>().await;
    };
    tokio::select! {
        end = pump.run() => panic!("{end:?}"),
        () = listen => {}
        () = serve => unreachable!(),
    }
}

#[tokio::test]
async fn two_full_windows_do_not_hold_each_other() {
    // A server that writes before it reads, over a pipe that holds less than one message.
    let (client, server) = tokio::io::duplex(32);
    let (reader, writer) = tokio::io::split(client);
    let mut storage: Storage<512, 128, 4> = Storage::new();
    let (memory, mut inbox) = storage.split();
    let mqtt = Shared::new(Session::new(Options::new("async-4"), memory));
    let (mut events, pump) = mqtt.open(&mut inbox, FromTokio::new(reader), FromTokio::new(writer), clock());
    let listen = async {
        let mut count = 0;
        while count < 100 {
            match events.next(&mut inbox).await {
                Ok(Event::Connected { .. }) => {
                    for _ in 0..4 {
                        mqtt.try_publish(&Publish::new("out", &[1; 80])).expect("room");
                    }
                }
                Ok(Event::Message(_)) => count += 1,
                other => panic!("{other:?}"),
            }
        }
    };
    let serve = async {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (mut from, mut to) = tokio::io::split(server);
        let mut connect = [0; 21];
        from.read_exact(&mut connect).await.expect("CONNECT");
        to.write_all(b"\x20\x02\x00\x00").await.expect("CONNACK");
        for _ in 0..100 {
            to.write_all(b"\x30\x16\x00\x02in01234567890123456789"[..24].as_ref()).await.expect("PUBLISH");
        }
        let mut rest = vec![0; 4 * (2 + 5 + 80)];
        from.read_exact(&mut rest).await.expect("what was published");
    };
    let all = async {
        let mut pump = pin!(pump.run());
        tokio::select! {
            end = &mut pump => panic!("{end:?}"),
            _ = async { tokio::join!(listen, serve) } => {}
        }
    };
    timeout(Duration::from_secs(10), all).await.expect("no deadlock");
}
