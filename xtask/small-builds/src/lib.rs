//! What builds of dunlin-core with few features do.
//!
//! The tests of the core run with all features, since what judges it wants all: parts that stand in for others where
//! there are few, as `session/qos0.rs` and `acks.rs` do, would never run. So these stories know bytes alone, and are told
//! with one set of features after the other.

#![cfg(test)]

use dunlin_core::{
    Event, Fault, Inbox, Instant, Options, Publish, PublishError, Session, Storage, Transmit, Violation,
};

const OPTIONS: Options = Options::new("s").persistent().keep_alive(60);
const CONNECT: &[u8] = b"\x10\x0D\0\x04MQTT\x04\0\0\x3C\0\x01s";
const RESUMED: &[u8] = b"\x20\x02\x01\0";
const FORGOTTEN: &[u8] = b"\x20\x02\0\0";

/// Only messages at QoS 0 are there without a slot.
const SLOTS: usize = if cfg!(any(feature = "qos1", feature = "large")) { 8 } else { 0 };

struct Client {
    session: Session<'static>,
    inbox: Inbox<'static>,
    now: u64,
}

impl Client {
    fn new() -> Self {
        let storage: &mut Storage<400, 64, SLOTS> = Box::leak(Box::default());
        let (memory, inbox) = storage.split();
        Self { session: Session::new(OPTIONS, memory), inbox, now: 0 }
    }

    fn connected() -> Self {
        let mut client = Self::new();
        client.connect(FORGOTTEN);
        client
    }

    fn connect(&mut self, connack: &[u8]) {
        self.session.open(Instant::from_millis(self.now), &mut self.inbox);
        assert_eq!(self.sent(1000), CONNECT);
        assert_eq!(self.told(connack), [format!("Connected {{ resumed: {} }}", connack == RESUMED)]);
    }

    /// What `transmit` says with room for so many bytes, and the bytes.
    fn transmit(&mut self, room: usize) -> (Transmit, Vec<u8>) {
        let mut out = vec![0; room];
        let said = self.session.transmit(Instant::from_millis(self.now), &mut out);
        let len = if let Transmit::Bytes(len) = said { len } else { 0 };
        out.truncate(len);
        (said, out)
    }

    /// All that leaves, in pieces of up to `room` bytes.
    fn sent(&mut self, room: usize) -> Vec<u8> {
        let mut sent = Vec::new();
        loop {
            assert_eq!(self.transmit(0).0, Transmit::Idle);
            match self.transmit(room) {
                (Transmit::Bytes(1..), bytes) => sent.extend(bytes),
                (said, _) => {
                    assert_eq!(said, Transmit::Idle);
                    return sent;
                }
            }
        }
    }

    /// What it says of these bytes.
    fn told(&mut self, bytes: &[u8]) -> Vec<String> {
        assert_eq!(self.inbox.push(bytes), bytes.len());
        let mut told = Vec::new();
        loop {
            told.push(match self.session.poll(Instant::from_millis(self.now), &mut self.inbox) {
                Ok(None) => return told,
                Ok(Some(Event::Message(message))) => format!("{}: {:?}", message.topic, message.payload),
                Ok(Some(event)) => format!("{event:?}"),
                Err(fault) => return vec![format!("{fault:?}")],
            });
        }
    }

    fn publish(&mut self, topic: &str, payload: &[u8]) -> Result<(), PublishError> {
        self.session.publish(&Publish::new(topic, payload)).map(|id| assert_eq!(id, None))
    }
}

/// A message at QoS 0 on the wire.
fn packet(topic: &str, payload: &[u8]) -> Vec<u8> {
    let remaining = 2 + topic.len() + payload.len();
    let mut packet = vec![0x30, u8::try_from(remaining % 128).unwrap()];
    if remaining > 127 {
        packet[1] |= 0x80;
        packet.push(u8::try_from(remaining / 128).unwrap());
    }
    packet.extend(u16::try_from(topic.len()).unwrap().to_be_bytes());
    packet.extend(topic.as_bytes());
    packet.extend(payload);
    packet
}

#[test]
fn messages_leave_as_they_came_through_any_buffer() {
    for room in [1, 2, 3, 4, 5, 6, 7, 100, 1000] {
        let mut client = Client::connected();
        // Remaining Lengths of 3, 127, 128 and 18: four times more than `tx` holds.
        for _ in 0..4 {
            let mut expected = Vec::new();
            for (topic, len) in [("a", 0), ("a", 124), ("a/b", 123), ("plant/7/status", 2)] {
                let payload: Vec<u8> = (0..len).collect();
                assert_eq!(client.publish(topic, &payload), Ok(()));
                expected.extend(packet(topic, &payload));
            }
            assert_eq!(client.session.outgoing_count(), 4);
            assert_eq!(client.sent(room), expected, "{room}");
            assert_eq!(client.session.outgoing_count(), 0);
            assert!(client.session.is_idle());
        }
    }
}

#[test]
fn a_message_waits_while_there_is_room_and_only_then() {
    let mut client = Client::connected();
    assert_eq!(client.publish("a", &[0; 400 - 5]), Err(PublishError::TooLarge));
    assert_eq!(client.publish("a", &[1; 190]), Ok(()));
    assert_eq!(client.publish("a", &[2; 190]), Ok(()));
    assert_eq!(client.publish("a", &[3; 190]), Err(PublishError::Full));
    // One has left, the next has begun.
    let mut expected = [packet("a", &[1; 190]), packet("a", &[2; 190])].concat();
    assert_eq!(client.transmit(expected.len() / 2), (Transmit::Bytes(196), expected[..196].to_vec()));
    assert_eq!(client.transmit(7), (Transmit::Bytes(7), expected[196..203].to_vec()));
    assert_eq!(client.publish("a", &[3; 190]), Ok(()));
    assert_eq!(client.session.outgoing_count(), 2);
    expected.extend(packet("a", &[3; 190]));
    assert_eq!(client.sent(50), expected[203..]);
}

#[test]
fn a_message_ends_with_its_connection() {
    for left in 0..12 {
        let mut client = Client::new();
        assert_eq!(client.publish("a", b"x"), Err(PublishError::Offline));
        client.connect(FORGOTTEN);
        client.publish("a/b", b"first").unwrap();
        client.publish("a/b", b"second").unwrap();
        assert_eq!(client.transmit(left).1.len(), left);
        client.session.lost();
        assert_eq!(client.session.outgoing_count(), 0);
        assert_eq!(client.publish("a", b"x"), Err(PublishError::Offline));
        client.connect(if left % 2 == 0 { FORGOTTEN } else { RESUMED });
        assert_eq!(client.sent(5), b"");
        client.publish("a", b"x").unwrap();
        assert_eq!(client.sent(5), packet("a", b"x"));
    }
}

#[test]
fn what_goes_past_the_memory_overtakes_nothing() {
    let mut client = Client::connected();
    let message = Publish::new("a", b"x");
    let mut out = [0; 10];
    client.sent(100); // as far as is known, all has left
    assert_eq!(client.session.publish_past(&message, &mut out[..5]), Ok(None));
    assert_eq!(client.session.publish_past(&message, &mut out), Ok(Some(6)));
    assert_eq!(out[..6], packet("a", b"x"));
    client.publish("a/b", b"waits").unwrap();
    assert_eq!(client.session.publish_past(&message, &mut out), Ok(None));
    assert_eq!(client.transmit(3).0, Transmit::Bytes(3));
    assert_eq!(client.session.publish_past(&message, &mut out), Ok(None));
    client.sent(100);
    assert_eq!(client.session.publish_past(&message, &mut out), Ok(Some(6)));
    assert_eq!(client.session.publish_past(&Publish::new("a/#", b"x"), &mut out), Err(PublishError::InvalidTopic));
}

#[test]
fn a_ping_leaves_in_time_and_its_answer_is_waited_for() {
    let mut client = Client::connected();
    client.now = 30_000;
    client.publish("a", b"x").unwrap();
    assert_eq!(client.sent(100), packet("a", b"x"));
    client.now = client.session.deadline().unwrap().as_millis();
    assert_eq!(client.sent(1), b"\xC0\0");
    assert_eq!(client.told(b"\xD0\0"), [""; 0]);
    client.now += 60_000;
    assert_eq!(client.sent(1), b"\xC0\0");
    client.now += 600_000;
    assert_eq!(client.told(b""), [format!("{:?}", Fault::Silent)]);
    assert_eq!(client.transmit(9).0, Transmit::Close);
}

#[test]
fn what_was_not_asked_for_ends_the_connection_or_is_counted() {
    let mut client = Client::connected();
    assert_eq!(client.told(b"\x40\x02\0\x01"), [""; 0]);
    assert_eq!(client.session.ignored_count(), 1);
    if cfg!(not(feature = "subscribe")) {
        assert_eq!(client.told(&packet("a", b"x")), [format!("{:?}", Fault::Malformed(Violation::OutOfPlace))]);
    }
}

#[test]
fn disconnect_leaves_last() {
    let mut client = Client::connected();
    client.session.close();
    assert_eq!(client.transmit(0).0, Transmit::Idle);
    assert_eq!(client.transmit(1), (Transmit::Bytes(1), vec![0xE0]));
    assert_eq!(client.transmit(0).0, Transmit::Idle);
    assert_eq!(client.transmit(100), (Transmit::Bytes(1), vec![0]));
    assert_eq!(client.transmit(100).0, Transmit::Close);
}

#[cfg(not(feature = "qos1"))]
#[test]
fn other_qualities_of_service_are_refused() {
    let mut client = Client::connected();
    for message in [Publish::new("a", b"x").at_least_once(), Publish::new("a", b"x").exactly_once()] {
        assert_eq!(client.session.publish(&message), Err(PublishError::NotSupported));
        assert_eq!(client.session.publish_past(&message, &mut [0; 20]), Ok(None));
    }
    assert_eq!(client.sent(100), b"");
}

#[cfg(feature = "qos1")]
#[test]
fn a_message_at_qos_1_is_sent_until_it_is_acknowledged() {
    for left in 0..12 {
        let mut client = Client::connected();
        let message = Publish::new("a", b"payload").at_least_once();
        let id = client.session.publish(&message).unwrap();
        assert_eq!(id.map(|id| id.get()), Some(1));
        client.publish("a", b"x").unwrap();
        let first = b"\x32\x0C\0\x01a\0\x01payload";
        assert_eq!(client.transmit(left).1, first[..left]);
        client.session.lost();
        client.connect(RESUMED);
        // Without DUP, if the session knows that it has not left whole.
        assert_eq!(client.sent(5), first);
        client.session.lost();
        client.connect(RESUMED);
        assert_eq!(client.sent(5), b"\x3A\x0C\0\x01a\0\x01payload");
        assert_eq!(client.told(b"\x40\x02\0\x02\x40\x02\0\x01"), ["Delivered(PacketId(1))"]);
        assert!(client.session.is_idle());
    }
}

#[cfg(feature = "qos2")]
#[test]
fn a_message_at_qos_2_is_released_once_it_is_received() {
    let mut client = Client::connected();
    client.session.publish(&Publish::new("a", b"x").exactly_once()).unwrap();
    assert_eq!(client.sent(100), b"\x34\x06\0\x01a\0\x01x");
    assert_eq!(client.told(b"\x50\x02\0\x01"), [""; 0]);
    assert_eq!(client.sent(3), b"\x62\x02\0\x01");
    client.session.lost();
    client.connect(RESUMED);
    assert_eq!(client.sent(3), b"\x62\x02\0\x01");
    assert_eq!(client.told(b"\x70\x02\0\x01"), ["Delivered(PacketId(1))"]);
    assert_eq!((client.sent(100), client.session.is_idle()), (vec![], true));
}

#[cfg(feature = "qos2")]
#[test]
fn releases_leave_in_the_order_in_which_their_messages_were_received() {
    for room in [4, 5, 100] {
        let mut client = Client::connected();
        for _ in 0..4 {
            client.session.publish(&Publish::new("a", b"").exactly_once()).unwrap();
        }
        assert_eq!(client.sent(100).len(), 4 * 7);
        assert_eq!(client.told(b"\x50\x02\0\x03\x50\x02\0\x01"), [""; 0]);
        assert_eq!(client.transmit(4).1, b"\x62\x02\0\x03");
        assert_eq!(client.told(b"\x50\x02\0\x04"), [""; 0]);
        assert_eq!(client.sent(room), b"\x62\x02\0\x01\x62\x02\0\x04");
        // Each PUBREC is answered, the one of nothing we know as well.
        assert_eq!(client.told(b"\x50\x02\0\x04\x50\x02\0\x03\x50\x02\0\x09"), [""; 0]);
        assert_eq!(client.sent(room), b"\x62\x02\0\x09\x62\x02\0\x03\x62\x02\0\x04");
        assert_eq!(client.told(b"\x70\x02\0\x01"), ["Delivered(PacketId(1))"]);
        client.session.lost();
        client.connect(RESUMED);
        assert_eq!(client.sent(room), b"\x62\x02\0\x03\x62\x02\0\x04\x3C\x05\0\x01a\0\x02");
        assert_eq!(client.told(b"\x70\x02\0\x04\x70\x02\0\x02"), ["Delivered(PacketId(4))"]);
        client.session.lost();
        // The server has lost the session: what it had taken is told, the rest is new.
        client.session.open(Instant::from_millis(0), &mut client.inbox);
        client.sent(100);
        assert_eq!(client.told(FORGOTTEN), ["Connected { resumed: false }", "Forgotten(PacketId(3))"]);
        assert_eq!(client.sent(room), b"\x34\x05\0\x01a\0\x02");
        assert_eq!(client.told(b"\x50\x02\0\x02\x70\x02\0\x02"), [""; 0]);
        assert_eq!(client.sent(room), b"\x62\x02\0\x02");
        assert_eq!(client.told(b"\x70\x02\0\x02"), ["Delivered(PacketId(2))"]);
        assert!(client.session.is_idle());
    }
}

#[cfg(feature = "subscribe")]
#[test]
fn what_is_subscribed_to_arrives_and_is_acknowledged() {
    use dunlin_core::{Filter, QoS};

    let qos = if cfg!(feature = "qos2") { QoS::ExactlyOnce } else { QoS::AtLeastOnce };
    for room in [1, 5, 100] {
        let mut client = Client::connected();
        client.session.subscribe(&[Filter::literal("a/#", qos)]).unwrap();
        client.publish("x", b"behind").unwrap();
        let request = [b"\x82\x08\0\x01\0\x03a/#".as_slice(), &[qos.bits()]].concat();
        assert_eq!(client.sent(room), [request, packet("x", b"behind")].concat());
        assert_eq!(client.told(&[0x90, 3, 0, 1, qos.bits()]).len(), 1);
        assert!(client.session.is_idle());
        // One at QoS 0, two at QoS 1; the second has no payload.
        let messages = [b"\x30\x04\0\x01ax".as_slice(), b"\x32\x06\0\x01a\0\x07y", b"\x32\x07\0\x03a/b\0\x08"].concat();
        assert_eq!(client.told(&messages), ["a: [120]", "a: [121]", "a/b: []"]);
        assert_eq!(client.sent(room), b"\x40\x02\0\x07\x40\x02\0\x08");
        #[cfg(feature = "qos2")]
        {
            assert_eq!(client.told(b"\x34\x06\0\x01a\0\x07z"), ["a: [122]"]);
            assert_eq!(client.sent(room), b"\x50\x02\0\x07");
            assert_eq!(client.told(b"\x3C\x06\0\x01a\0\x07z"), [""; 0]);
            assert_eq!(client.sent(room), b"\x50\x02\0\x07");
            assert_eq!(client.told(b"\x62\x02\0\x07"), [""; 0]);
            assert_eq!(client.sent(room), b"\x70\x02\0\x07");
        }
        let filters = ["a/#"];
        client.session.unsubscribe(&filters).unwrap();
        assert_eq!(client.sent(room), b"\xA2\x07\0\x02\0\x03a/#");
        assert_eq!(client.told(b"\xB0\x02\0\x02").len(), 1);
        client.session.lost();
        client.connect(FORGOTTEN);
        assert_eq!(client.sent(room), b"");
    }
}

#[cfg(feature = "subscribe")]
#[test]
fn what_there_is_no_room_for_waits_until_acknowledgements_have_left() {
    let mut client = Client::connected();
    let shown: usize = (1..=22).map(|id| client.told(&[0x32, 5, 0, 1, b'a', 0, id]).len()).sum();
    assert_eq!(shown, 20);
    assert!(client.session.is_stalled() && client.session.deadline() > Some(Instant::from_millis(0)));
    assert_eq!(client.sent(1000).len(), 20 * 4);
    assert_eq!(client.session.deadline(), Some(Instant::from_millis(0)));
    assert_eq!(client.told(b"").len(), 2);
    assert_eq!(client.sent(1000), b"\x40\x02\0\x15\x40\x02\0\x16");
    assert!(!client.session.is_stalled() && client.session.deadline() > Some(Instant::from_millis(0)));
}

#[cfg(all(feature = "qos2", feature = "subscribe"))]
mod incoming_at_qos_2 {
    use super::*;

    fn publish(id: u8, is_dup: bool) -> Vec<u8> {
        vec![if is_dup { 0x3C } else { 0x34 }, 5, 0, 1, b'a', 0, id]
    }

    #[test]
    fn each_message_is_shown_once_and_answered_in_order() {
        for room in [1, 4, 100] {
            let mut client = Client::connected();
            let messages = [publish(9, false), b"\x32\x05\0\x01a\0\x04".to_vec(), publish(3, false)].concat();
            assert_eq!(client.told(&messages).len(), 3);
            assert_eq!(client.sent(room), b"\x50\x02\0\x09\x40\x02\0\x04\x50\x02\0\x03");
            // Repeated twice at once: one answer each.
            assert_eq!(client.told(&[publish(9, true), publish(9, true)].concat()), [""; 0]);
            assert!(client.session.is_stalled());
            assert_eq!(client.sent(room), b"\x50\x02\0\x09");
            assert_eq!(client.told(b""), [""; 0]);
            assert_eq!(client.sent(room), b"\x50\x02\0\x09");
            // PUBREL before PUBREC has left, twice at once, and of nothing we know.
            assert_eq!(client.told(&publish(5, false)).len(), 1);
            assert_eq!(client.told(b"\x62\x02\0\x05\x62\x02\0\x09\x62\x02\0\x09\x62\x02\0\x08"), [""; 0]);
            assert_eq!(client.sent(room), b"\x70\x02\0\x09\x70\x02\0\x05");
            assert_eq!(client.told(b""), [""; 0]);
            assert_eq!(client.sent(room), b"\x70\x02\0\x09\x70\x02\0\x08");
            assert_eq!(client.told(b"\x50\x02\0\x07"), [""; 0]);
            assert_eq!((client.sent(room), client.session.ignored_count()), (b"\x62\x02\0\x07".to_vec(), 1));
        }
    }

    #[test]
    fn what_was_shown_is_not_shown_again_on_the_next_connection() {
        for acknowledged in [false, true] {
            let mut client = Client::connected();
            client.told(&[publish(1, false), publish(2, false)].concat());
            if acknowledged {
                client.sent(100);
            }
            client.session.lost();
            client.connect(RESUMED);
            assert_eq!(client.sent(100), b"");
            assert_eq!(client.told(&[publish(1, true), b"\x62\x02\0\x02".to_vec()].concat()), [""; 0]);
            assert_eq!(client.sent(100), b"\x70\x02\0\x02\x50\x02\0\x01");
            // The server loses the session, and says so: the same identifier names another message.
            client.session.lost();
            client.connect(FORGOTTEN);
            assert_eq!(client.told(&publish(1, true)).len(), 1);
        }
    }

    #[test]
    fn what_came_again_is_answered_behind_what_came_before_it() {
        // [MQTT-4.6.0-3]
        let mut client = Client::connected();
        client.told(&publish(1, false));
        client.session.lost();
        client.connect(RESUMED);
        assert_eq!(client.told(&[publish(2, true), publish(1, true)].concat()).len(), 1);
        assert_eq!(client.sent(100), b"\x50\x02\0\x02\x50\x02\0\x01");
    }

    #[test]
    fn after_a_connect_without_an_answer_a_new_message_shows_that_the_session_is_lost() {
        for is_dup in [false, true] {
            let mut client = Client::connected();
            client.told(&[publish(1, false), publish(2, false)].concat());
            client.sent(100);
            client.session.lost();
            client.session.open(Instant::from_millis(0), &mut client.inbox);
            client.sent(100); // CONNECT
            client.session.lost();
            client.connect(RESUMED);
            assert_eq!(client.told(&publish(1, is_dup)).len(), usize::from(!is_dup));
            assert_eq!(client.sent(100), b"\x50\x02\0\x01");
            // What was in doubt is forgotten with the session, and only then.
            assert_eq!(client.told(&publish(2, true)).len(), usize::from(!is_dup));
        }
    }

    #[test]
    fn more_messages_than_fit_end_the_connection() {
        let mut client = Client::connected();
        for id in 1..=20 {
            assert_eq!(client.told(&publish(id, false)).len(), 1);
        }
        assert_eq!(client.told(&publish(21, false)), [""; 0]);
        assert_eq!(client.sent(100).len(), 80);
        // Nothing is owed any more, so nothing that leaves would make room.
        assert_eq!(client.told(b""), [format!("{:?}", Fault::TooMany)]);
        client.session.lost();
        client.connect(RESUMED);
        assert_eq!(client.told(b"\x62\x02\0\x05"), [""; 0]);
        assert_eq!(client.sent(100), b"\x70\x02\0\x05");
        assert_eq!(client.told(&publish(21, true)).len(), 1);
    }
}
