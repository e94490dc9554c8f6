//! The driver for devices, over pipes in memory that split, delay, stall and cut, in virtual time.

use std::cell::RefCell;
use std::rc::Rc;

use dunlin::blocking::{Link, LinkError};
use dunlin::{Event, Fault, Filter, Inbox, Instant, Options, Publish, QoS, Session, Storage};
use dunlin_testkit::{Broker, LinkId, Message, PINGRESP, Packet, Split, Then, Wire, seeds};
use embedded_io::{ErrorKind, ErrorType, Read, ReadReady, Write, WriteReady};

/// A broker behind a wire, at one moment.
struct Net {
    broker: Broker,
    wire: Wire,
    link: Option<LinkId>,
    now: u64,
}

impl Net {
    fn new(wire: Wire) -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(Self { broker: Broker::new(), wire, link: None, now: 0 }))
    }

    /// Lets what is due happen at this moment.
    fn settle(&mut self) {
        self.broker.tick(self.now);
        let Some(link) = self.link else { return };
        loop {
            let up = self.wire.up.read(self.now, 1000);
            self.broker.receive(link, &up, self.now);
            let room = self.wire.down.window.map_or(usize::MAX, |window| window - self.wire.down.len());
            let down = self.broker.output(link, room);
            self.wire.down.write(self.now, &down);
            if up.is_empty() && down.is_empty() {
                break;
            }
        }
    }

    fn hang_up(&mut self) {
        if let Some(link) = self.link.take() {
            self.broker.hung_up(link, self.now);
        }
        self.wire.reset();
    }
}

/// The client's end.
struct Stream(Rc<RefCell<Net>>);

impl Stream {
    fn open(net: &Rc<RefCell<Net>>) -> Self {
        let mut inner = net.borrow_mut();
        let now = inner.now;
        inner.link = Some(inner.broker.accept(now));
        Self(net.clone())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.borrow_mut().hang_up();
    }
}

impl ErrorType for Stream {
    type Error = ErrorKind;
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize, ErrorKind> {
        let mut net = self.0.borrow_mut();
        net.settle();
        if net.wire.is_cut() {
            return Err(ErrorKind::ConnectionReset);
        }
        let now = net.now;
        let bytes = net.wire.down.read(now, buf.len());
        buf[..bytes.len()].copy_from_slice(&bytes);
        assert!(!bytes.is_empty() || net.broker.has_closed(net.link.unwrap()), "a read that would block");
        Ok(bytes.len())
    }
}

impl ReadReady for Stream {
    fn read_ready(&mut self) -> Result<bool, ErrorKind> {
        let mut net = self.0.borrow_mut();
        net.settle();
        let has_arrived = net.wire.down.next_arrival().is_some_and(|at| at <= net.now);
        let is_over = net.broker.has_closed(net.link.unwrap()) && net.wire.down.is_empty();
        Ok(has_arrived || is_over || net.wire.is_cut())
    }
}

impl Write for Stream {
    fn write(&mut self, buf: &[u8]) -> Result<usize, ErrorKind> {
        let mut net = self.0.borrow_mut();
        if net.wire.is_cut() {
            return Err(ErrorKind::ConnectionReset);
        }
        let now = net.now;
        let mut taken = net.wire.up.write(now, buf);
        if taken == 0 {
            net.settle();
            // Who waits for room lets time pass.
            while taken == 0 && !net.wire.is_cut() {
                net.now += 1;
                net.settle();
                let now = net.now;
                taken = net.wire.up.write(now, buf);
            }
        }
        if taken == 0 { Err(ErrorKind::ConnectionReset) } else { Ok(taken) }
    }

    fn flush(&mut self) -> Result<(), ErrorKind> {
        Ok(())
    }
}

impl WriteReady for Stream {
    fn write_ready(&mut self) -> Result<bool, ErrorKind> {
        let mut net = self.0.borrow_mut();
        net.settle();
        Ok(net.wire.up.window.is_none_or(|window| net.wire.up.len() < window) || net.wire.is_cut())
    }
}

const FILTERS: &[Filter] = &[Filter::literal("in/#", QoS::ExactlyOnce)];
const OPTIONS: Options = Options::new("device").persistent().keep_alive(30).subscriptions(FILTERS);

fn now(net: &Rc<RefCell<Net>>) -> Instant {
    Instant::from_millis(net.borrow().now)
}

/// Lets time pass until the wire or the session has something to do.
fn sleep(net: &Rc<RefCell<Net>>, deadline: Option<Instant>) {
    let mut net = net.borrow_mut();
    let next = [net.wire.next_arrival(), net.broker.deadline(), deadline.map(Instant::as_millis)];
    let next = next.into_iter().flatten().filter(|at| *at > net.now).min();
    net.now = next.unwrap_or(net.now + 1);
}

type Device<'o> = Link<'o, Stream>;

/// Waits for an event of this kind.
fn await_event(
    net: &Rc<RefCell<Net>>,
    link: &mut Device<'_>,
    session: &mut Session<'_>,
    inbox: &mut Inbox<'_>,
    is_it: impl Fn(&Event<'_>) -> bool,
) {
    loop {
        let event = link.next(session, inbox, || now(net), |_, deadline| sleep(net, deadline));
        if is_it(&event.unwrap()) {
            return;
        }
    }
}

fn is_subscribed(event: &Event<'_>) -> bool {
    matches!(event, Event::Subscribed(_))
}

#[test]
fn messages_pass_both_ways_over_any_wire_whatever_the_buffers() {
    // [A24] [A26]
    for seed in seeds(60) {
        let net = Net::new(Wire::rough(seed));
        let mut storage: Storage<256, 64, 4> = Storage::new();
        let (memory, mut inbox) = storage.split();
        let mut session = Session::new(OPTIONS, memory);
        let mut out = vec![0; 1 + (seed % 90) as usize];
        let mut link = Link::open(Stream::open(&net), &mut out, &mut session, &mut inbox, now(&net));
        await_event(&net, &mut link, &mut session, &mut inbox, is_subscribed);
        let (mut sent, mut got, mut delivered) = (0, 0, 0);
        while delivered < 20 || got < 20 {
            let event = if seed % 2 == 0 {
                link.poll(now(&net), &mut session, &mut inbox)
            } else {
                link.poll_nonblocking(now(&net), &mut session, &mut inbox)
            };
            match event.unwrap() {
                Some(Event::Message(message)) => {
                    assert_eq!((&*message.topic, message.payload), ("in/x", got.to_string().as_bytes()));
                    got += 1;
                }
                Some(Event::Delivered(_)) => delivered += 1,
                Some(_) => {}
                None if sent < 20 && session.publish(&Publish::new("out", &[sent]).exactly_once()).is_ok() => {
                    net.borrow_mut().broker.publish(Message::new("in/x", sent.to_string()).qos(2));
                    sent += 1;
                }
                None => sleep(&net, link.deadline(&session)),
            }
        }
        let received = net.borrow().broker.received();
        assert_eq!(received, (0..20).map(|n| Message::new("out", [n]).qos(2)).collect::<Vec<_>>());
        assert_eq!(net.borrow().broker.breaches(), []);
    }
}

#[test]
fn a_cut_at_any_byte_in_either_direction_loses_nothing_and_doubles_nothing() {
    // [E05] What was cut off is not continued on the next connection: the broker would call that a breach.
    for cut in 0..200 {
        for is_up in [true, false] {
            let net = Net::new(Wire::new());
            let mut storage: Storage<256, 64, 4> = Storage::new();
            let (memory, mut inbox) = storage.split();
            let mut session = Session::new(OPTIONS, memory);
            {
                let wire = &mut net.borrow_mut().wire;
                let pipe = if is_up { &mut wire.up } else { &mut wire.down };
                pipe.cut_after = Some(cut);
                pipe.split = Split::Every(7);
            }
            let (mut sent, mut got, mut delivered, mut links) = (0, 0, 0, 0);
            let mut out = [0; 32];
            while delivered < 4 || got < 4 {
                links += 1;
                assert!(links < 4, "cut after {cut}");
                let stream = Stream::open(&net);
                let mut link = Link::open(stream, &mut out, &mut session, &mut inbox, now(&net));
                while delivered < 4 || got < 4 {
                    match link.poll(now(&net), &mut session, &mut inbox) {
                        Ok(Some(Event::Message(message))) => {
                            assert_eq!(message.payload, [got], "cut after {cut}");
                            got += 1;
                        }
                        Ok(Some(Event::Delivered(_))) => delivered += 1,
                        Ok(Some(_)) => {}
                        Ok(None) if sent < 4 && !net.borrow().broker.subscriptions("device").is_empty() => {
                            let _ = session.publish(&Publish::new("out", &[sent]).exactly_once()).unwrap();
                            net.borrow_mut().broker.publish(Message::new("in/x", [sent]).qos(2));
                            sent += 1;
                        }
                        Ok(None) => sleep(&net, link.deadline(&session)),
                        Err(LinkError::Stream(ErrorKind::ConnectionReset)) => break,
                        Err(error) => panic!("{error} with a cut after {cut}"),
                    }
                }
            }
            let received = net.borrow().broker.received();
            assert_eq!(received, (0..4).map(|n| Message::new("out", [n]).qos(2)).collect::<Vec<_>>(), "{cut}");
            assert_eq!(net.borrow().broker.breaches(), [], "cut after {cut}");
        }
    }
}

#[test]
fn a_server_that_reads_nothing_is_found_out_although_the_ping_cannot_leave() {
    // [E04] [E01]
    let net = Net::new(Wire::new());
    let mut storage: Storage<256, 64, 4> = Storage::new();
    let (memory, mut inbox) = storage.split();
    let mut session = Session::new(OPTIONS, memory);
    let mut out = [0; 64];
    let mut link = Link::open(Stream::open(&net), &mut out, &mut session, &mut inbox, now(&net));
    await_event(&net, &mut link, &mut session, &mut inbox, is_subscribed);
    net.borrow_mut().wire.up.stalled = true;
    net.borrow_mut().wire.up.window = Some(10);
    let _ = session.publish(&Publish::new("out", &[0; 100]).at_least_once()).unwrap();
    let start = net.borrow().now;
    let mut turns = 0;
    let error = loop {
        turns += 1;
        match link.poll_nonblocking(now(&net), &mut session, &mut inbox) {
            Ok(_) => sleep(&net, link.deadline(&session)),
            Err(error) => break error,
        }
    };
    assert_eq!(error, LinkError::Fault(Fault::Silent));
    assert_eq!(net.borrow().now - start, 30_000 * 7 / 8 + 10_000);
    assert!(turns < 10, "{turns} turns: a busy loop");
}

#[test]
fn a_long_message_may_take_longer_than_the_answer_to_a_ping_which_stands_behind_it() {
    // [A27]
    let net = Net::new(Wire::new());
    let mut storage: Storage<256, 8192, 4> = Storage::new();
    let (memory, mut inbox) = storage.split();
    let mut session = Session::new(OPTIONS, memory);
    let mut out = [0; 64];
    let mut link = Link::open(Stream::open(&net), &mut out, &mut session, &mut inbox, now(&net));
    await_event(&net, &mut link, &mut session, &mut inbox, is_subscribed);
    net.borrow_mut().broker.always(PINGRESP, Then::Drop);
    let packet = Packet::publish(0, Message::new("in/image", vec![7; 8000])).encode();
    // What came in this time after each piece, and how it ended.
    let mut send = |bytes: &[u8], ms: u64| {
        let mut count = 0;
        let end = net.borrow().now + ms;
        let id = net.borrow().link.unwrap();
        net.borrow_mut().broker.send_raw_on(id, bytes);
        while net.borrow().now < end {
            match link.poll(now(&net), &mut session, &mut inbox) {
                Ok(Some(event)) => count += usize::from(matches!(event, Event::Message(_))),
                Ok(None) => sleep(&net, link.deadline(&session).min(Some(Instant::from_millis(end)))),
                Err(error) => return Err(error),
            }
        }
        Ok(count)
    };
    let pieces: Vec<_> = packet.chunks(600).collect();
    let (last, before) = pieces.split_last().unwrap();
    assert!(before.len() * 5 > 27 + 10, "longer than the wait for a ping and its answer");
    assert!(before.iter().all(|piece| send(piece, 5_000) == Ok(0)));
    assert_eq!(send(last, 5_000), Ok(1));
    // One that stops coming does not.
    assert_eq!(send(&packet[..4000], 60_000), Err(LinkError::Fault(Fault::Silent)));
}

#[test]
fn a_goodbye_is_written_before_the_link_is_closed() {
    let net = Net::new(Wire::new());
    let mut storage: Storage<256, 64, 4> = Storage::new();
    let (memory, mut inbox) = storage.split();
    let options = OPTIONS.will(Publish::new("gone", b"x").at_least_once());
    let mut session = Session::new(options, memory);
    let mut out = [0; 64];
    let mut link = Link::open(Stream::open(&net), &mut out, &mut session, &mut inbox, now(&net));
    await_event(&net, &mut link, &mut session, &mut inbox, is_subscribed);
    net.borrow_mut().broker.publish(Message::new("in/late", "x").qos(0));
    session.close();
    assert_eq!(link.poll(now(&net), &mut session, &mut inbox), Err(LinkError::Closed));
    drop(link);
    // The broker has seen DISCONNECT: the will is not published.
    assert!(net.borrow().broker.received().is_empty());
    assert_eq!(net.borrow().broker.breaches(), []);
}

#[test]
fn a_server_that_closes_or_talks_nonsense_ends_the_link_by_name() {
    // [E10] [B13]
    for (bytes, closes, expected) in [
        (&b"\x20"[..], true, LinkError::ServerClosed),
        (b"", true, LinkError::ServerClosed),
        (b"\x20\x02\x00\x05", true, LinkError::Fault(Fault::Refused(dunlin::Refusal::NotAuthorized))),
        (b"\xD0\x00", false, LinkError::Fault(Fault::Malformed(dunlin::Violation::OutOfPlace))),
        (b"", false, LinkError::Fault(Fault::ConnectTimeout)),
    ] {
        let net = Net::new(Wire::new());
        net.borrow_mut().broker.pause();
        let mut storage: Storage<256, 64, 4> = Storage::new();
        let (memory, mut inbox) = storage.split();
        let mut session = Session::new(OPTIONS, memory);
        let mut out = [0; 64];
        let mut link = Link::open(Stream::open(&net), &mut out, &mut session, &mut inbox, now(&net));
        {
            let mut net = net.borrow_mut();
            let id = net.link.unwrap();
            net.broker.send_raw_on(id, bytes);
            if closes {
                net.broker.restart(dunlin_testkit::Persistence::Kept);
            }
        }
        let result = link.next(&mut session, &mut inbox, || now(&net), |_, deadline| sleep(&net, deadline));
        assert_eq!(result, Err(expected));
    }
}

/// Sends so many bytes, the same ones again and again, and takes everything.
struct Flood {
    packet: &'static [u8],
    sent: usize,
    len: usize,
}

impl ErrorType for Flood {
    type Error = ErrorKind;
}

impl Read for Flood {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize, ErrorKind> {
        let n = buf.len().min(self.len - self.sent);
        for byte in &mut buf[..n] {
            *byte = self.packet[self.sent % self.packet.len()];
            self.sent += 1;
        }
        Ok(n)
    }
}

impl ReadReady for Flood {
    fn read_ready(&mut self) -> Result<bool, ErrorKind> {
        Ok(self.sent < self.len)
    }
}

impl Write for Flood {
    fn write(&mut self, buf: &[u8]) -> Result<usize, ErrorKind> {
        Ok(buf.len())
    }

    fn flush(&mut self) -> Result<(), ErrorKind> {
        Ok(())
    }
}

#[test]
fn a_server_that_never_stops_sending_what_tells_nothing_does_not_keep_a_poll() {
    let mut storage: Box<Storage<256, 64, 2>> = Box::default();
    let (memory, mut inbox) = storage.split();
    let mut session = Session::new(Options::new("flooded").keep_alive(10).answer_timeout(5), memory);
    let mut out = [0; 64];
    let at = Instant::from_millis;
    let connack = Flood { packet: b"\x20\x02\x00\x00", sent: 0, len: 4 };
    let mut link = Link::open(connack, &mut out, &mut session, &mut inbox, at(0));
    assert!(matches!(link.poll(at(0), &mut session, &mut inbox), Ok(Some(Event::Connected { .. }))));
    // Answers to pings that nobody has sent, for ever.
    *link.stream() = Flood { packet: b"\xD0\x00", sent: 0, len: usize::MAX };
    for second in 1..100 {
        assert!(matches!(link.poll(at(1000 * second), &mut session, &mut inbox), Ok(None)));
        assert_eq!(link.deadline(&session), Some(at(0)), "there is more");
    }
    link.stream().len = link.stream().sent;
    assert!(matches!(link.poll(at(100_000), &mut session, &mut inbox), Ok(None)));
    assert_eq!(link.deadline(&session), session.deadline(), "there is no more");
}

#[test]
fn a_payload_outside_the_session_is_supplied_piece_by_piece() {
    let net = Net::new(Wire::new());
    let mut storage: Storage<64, 64, 4> = Storage::new();
    let (memory, mut inbox) = storage.split();
    let mut session = Session::new(OPTIONS, memory);
    let mut out = [0; 48];
    let mut link = Link::open(Stream::open(&net), &mut out, &mut session, &mut inbox, now(&net));
    await_event(&net, &mut link, &mut session, &mut inbox, is_subscribed);
    let picture: Vec<u8> = (0..5000_u32).map(|n| n as u8).collect();
    let head = Publish::new("picture", &[]).at_least_once();
    let payload = dunlin::External { key: 7, len: 5000 };
    session.publish_external(&head, payload).unwrap();
    loop {
        let event = link.poll_supplying(now(&net), &mut session, &mut inbox, |key, offset, out| {
            assert_eq!(key, 7);
            let n = out.len().min(100).min(picture.len() - offset);
            out[..n].copy_from_slice(&picture[offset..][..n]);
            n
        });
        match event.unwrap() {
            Some(Event::Delivered(_)) => break,
            Some(_) => {}
            None => sleep(&net, link.deadline(&session)),
        }
    }
    assert_eq!(net.borrow().broker.received(), [Message::new("picture", &picture).qos(1)]);
    session.publish_external(&head, payload).unwrap();
    assert_eq!(link.poll(now(&net), &mut session, &mut inbox), Err(LinkError::NoPayload { key: 7 }));
}
