//! The referee is refereed: what it must let pass, and what it must call by its number.

use dunlin_testkit::*;

/// A client by hand: says what it is told to, and sees what comes back.
struct Hand {
    broker: Broker,
    link: LinkId,
    now: u64,
}

impl Hand {
    fn new() -> Self {
        Self { broker: Broker::new(), link: 0, now: 0 }
    }

    fn connected(clean: bool) -> Self {
        let mut hand = Self::new();
        hand.connect(clean);
        hand
    }

    fn open(&mut self) {
        self.link = self.broker.accept(self.now);
    }

    fn connect(&mut self, clean: bool) -> Vec<Packet> {
        self.open();
        self.say(connect("hand", clean))
    }

    fn say(&mut self, packet: Packet) -> Vec<Packet> {
        self.say_bytes(&packet.encode())
    }

    fn say_bytes(&mut self, bytes: &[u8]) -> Vec<Packet> {
        self.broker.receive(self.link, bytes, self.now);
        self.hear()
    }

    fn hear(&mut self) -> Vec<Packet> {
        packets(&self.broker.output(self.link, usize::MAX))
    }

    fn cut(&mut self) {
        self.broker.hung_up(self.link, self.now);
    }

    fn cut_and_resume(&mut self) -> Vec<Packet> {
        self.cut();
        self.connect(false)
    }

    /// The one statement that was broken; the connection is over.
    fn offence(&mut self) -> &'static str {
        let breaches = self.broker.take_breaches();
        assert_eq!(breaches.len(), 1, "{breaches:?}");
        self.broker.output(self.link, usize::MAX);
        assert!(self.broker.has_closed(self.link), "a breach ends the connection");
        breaches[0].statement
    }

    fn fine(&self) {
        assert_eq!(self.broker.breaches(), []);
    }
}

fn packets(mut bytes: &[u8]) -> Vec<Packet> {
    let mut packets = Vec::new();
    while let Some((packet, length)) = Packet::decode(bytes).unwrap() {
        packets.push(packet);
        bytes = &bytes[length..];
    }
    packets
}

fn connect(client: &str, clean: bool) -> Packet {
    let bare = Connect { client_id: client.into(), clean, keep_alive: 10, will: None, user_name: None, password: None };
    Packet::Connect(bare)
}

fn message(id: u16, qos: u8) -> Packet {
    Packet::publish(id, Message::new("a", id.to_string()).qos(qos))
}

fn again(id: u16, qos: u8) -> Packet {
    Packet::Publish { dup: true, id, message: Message::new("a", id.to_string()).qos(qos) }
}

fn subscribe(id: u16, filter: &str, qos: u8) -> Packet {
    Packet::Subscribe { id, filters: vec![(filter.into(), qos)] }
}

use Packet::{Puback, Pubcomp, Pubrec, Pubrel};

#[test]
fn a_well_behaved_client_is_left_alone() {
    let mut hand = Hand::new();
    assert_eq!(hand.connect(false), [Packet::Connack { session_present: false, code: 0 }]);
    assert_eq!(hand.say(subscribe(1, "a/#", 2)), [Packet::Suback { id: 1, codes: vec![2] }]);
    assert_eq!(hand.say(message(0, 0)), [message(0, 0)]);
    assert_eq!(hand.say(message(1, 1)), [message(1, 1), Puback(1)]);
    assert_eq!(hand.say(Puback(1)), []);
    assert_eq!(hand.say(message(2, 2)), [message(1, 2).with_payload("2"), Pubrec(2)]);
    assert_eq!(hand.say(Pubrel(2)), [Pubcomp(2)]);
    assert_eq!(hand.say(Pubrec(1)), [Pubrel(1)]);
    assert_eq!(hand.say(Pubcomp(1)), []);
    assert_eq!(hand.say(Packet::Pingreq), [Packet::Pingresp]);
    assert_eq!(hand.say(Packet::Unsubscribe { id: 3, filters: vec!["a/#".into()] }), [Packet::Unsuback(3)]);
    assert_eq!(hand.say(message(4, 1)), [Puback(4)]);
    assert_eq!(hand.say(Packet::Disconnect), []);
    assert!(hand.broker.has_closed(hand.link));
    hand.cut();
    hand.fine();
    assert_eq!(hand.broker.received(), [("a", b"0"), ("a", b"1"), ("a", b"2"), ("a", b"4")]);
}

trait WithPayload {
    fn with_payload(self, payload: &str) -> Self;
}

impl WithPayload for Packet {
    fn with_payload(mut self, text: &str) -> Self {
        if let Packet::Publish { message, .. } = &mut self {
            message.payload = text.into();
        }
        self
    }
}

#[test]
fn every_order_of_packets_that_is_forbidden_is_named() {
    type Story = fn(&mut Hand);
    let stories: &[(&str, Story)] = &[
        ("MQTT-3.1.0-1", |h| {
            h.cut();
            h.open();
            h.say(Packet::Pingreq);
        }),
        ("MQTT-3.1.0-2", |h| drop(h.say(connect("hand", false)))),
        ("MQTT-3.14.4-2", |h| drop(h.say_bytes(b"\xe0\x00\xc0\x00"))),
        ("MQTT-3.3.1-3", |h| drop(h.say(again(1, 1)))),
        ("U311-10", |h| {
            h.broker.always(PUBACK, Then::Drop);
            h.say(message(1, 1));
            h.say(again(1, 1));
        }),
        ("MQTT-3.3.1-1", |h| {
            h.broker.always(PUBACK, Then::Drop);
            h.say(message(1, 1));
            h.cut_and_resume();
            h.say(message(1, 1));
        }),
        ("MQTT-2.3.1-2", |h| {
            h.broker.always(PUBACK, Then::Drop);
            h.say(message(1, 1));
            h.say(message(1, 1).with_payload("other"));
        }),
        ("MQTT-2.3.1-2", |h| {
            h.broker.always(SUBACK, Then::Drop);
            h.say(subscribe(1, "a", 0));
            h.say(message(1, 1));
        }),
        ("MQTT-2.3.1-2", |h| {
            h.say(message(1, 2));
            h.say(subscribe(1, "a", 0));
        }),
        ("MQTT-4.4.0-1", |h| {
            h.broker.always(PUBACK, Then::Drop);
            h.say(message(1, 1));
            h.cut_and_resume();
            h.say(again(1, 1).with_payload("other"));
        }),
        ("MQTT-4.6.0-1", |h| {
            h.broker.always(PUBACK, Then::Drop);
            h.say(message(1, 1));
            h.say(message(2, 1));
            h.cut_and_resume();
            h.say(again(2, 1));
        }),
        ("MQTT-4.6.0-1", |h| {
            h.broker.always(PUBACK, Then::Drop);
            h.say(message(1, 1));
            h.cut_and_resume();
            h.say(message(2, 1));
        }),
        ("MQTT-4.3.3-1", |h| drop(h.say(Pubrel(1)))),
        ("MQTT-4.3.3-1", |h| {
            h.broker.always(PUBREC, Then::Drop);
            h.say(message(1, 2));
            h.say(Pubrel(1));
        }),
        ("MQTT-4.3.3-1", |h| {
            h.broker.always(PUBCOMP, Then::Drop);
            h.say(message(1, 2));
            h.say(Pubrel(1));
            h.cut_and_resume();
            h.say(again(1, 2));
        }),
        ("MQTT-4.3.3-1", |h| {
            h.say(message(1, 2));
            h.say(Pubrel(1));
            h.say(Pubrel(1));
        }),
        ("MQTT-4.6.0-4", |h| {
            h.say(message(1, 2));
            h.say(message(2, 2));
            h.say(Pubrel(2));
        }),
        ("MQTT-4.6.0-4", |h| {
            h.broker.always(PUBCOMP, Then::Drop);
            h.broker.always(PUBREC, Then::Hold);
            h.say(message(1, 2));
            h.say(message(2, 2));
            h.broker.release(1);
            h.broker.release(0);
            h.say(Pubrel(2));
            h.say(Pubrel(1));
            h.cut_and_resume();
            h.say(Pubrel(1));
        }),
        ("MQTT-4.6.0-2", |h| {
            h.say(subscribe(9, "b", 1));
            h.broker.publish(Message::new("b", "1").qos(1));
            h.broker.publish(Message::new("b", "2").qos(1));
            h.say(Puback(2));
        }),
        ("MQTT-4.6.0-3", |h| {
            h.say(subscribe(9, "b", 2));
            h.broker.publish(Message::new("b", "1").qos(2));
            h.broker.publish(Message::new("b", "2").qos(2));
            h.say(Pubrec(2));
        }),
        ("MQTT-2.3.1-6", |h| drop(h.say(Puback(1)))),
        ("MQTT-2.3.1-6", |h| drop(h.say(Pubrec(1)))),
        ("MQTT-2.3.1-6", |h| {
            h.say(subscribe(9, "b", 2));
            h.broker.publish(Message::new("b", "1").qos(2));
            h.say(Puback(1));
        }),
        ("MQTT-2.3.1-6", |h| {
            h.say(subscribe(9, "b", 2));
            h.broker.publish(Message::new("b", "1").qos(1));
            h.say(Puback(1));
            h.say(Puback(1));
        }),
        ("MQTT-4.3.3-2", |h| drop(h.say(Pubcomp(1)))),
        ("MQTT-4.8.0-1", |h| drop(h.say(Packet::Pingresp))),
        ("MQTT-3.1.2-23", |h| {
            h.now += 10_001;
            h.say(Packet::Pingreq);
        }),
        ("MQTT-1.5.3-1", |h| drop(h.say_bytes(b"\x30\x04\x00\x02\xc0\x80"))),
        ("U311-07", |h| {
            h.broker.on_next(CONNACK, Then::Drop);
            h.cut_and_resume();
            h.say(Packet::Pingreq);
        }),
    ];
    for (number, (statement, story)) in stories.iter().enumerate() {
        let mut hand = Hand::connected(false);
        story(&mut hand);
        assert_eq!(hand.offence(), *statement, "story {number}");
    }
}

#[test]
fn what_a_lost_answer_makes_possible_is_allowed() {
    // Each of these is right for a client that did not read the broker's last word.
    let mut hand = Hand::connected(false);
    hand.say(message(1, 1));
    hand.say(message(2, 2));
    hand.say(message(3, 2));
    hand.say(Pubrel(2));
    hand.cut_and_resume();
    assert_eq!(hand.say(again(1, 1)), [Puback(1)]);
    assert_eq!(hand.say(Pubrel(2)), [Pubcomp(2)]);
    assert_eq!(hand.say(again(3, 2)), [Pubrec(3)]);
    assert_eq!(hand.say(Pubrel(3)), [Pubcomp(3)]);
    hand.say(message(1, 1).with_payload("new"));
    hand.fine();
    // At QoS 1 twice, at QoS 2 once.
    assert_eq!(hand.broker.received(), [("a", "1"), ("a", "2"), ("a", "3"), ("a", "1"), ("a", "new")]);
    // A first sending that was lost on the way comes with DUP.
    hand.cut_and_resume();
    hand.say(again(7, 2));
    hand.fine();
}

#[test]
fn a_new_session_begins_without_dup_and_with_all_identifiers_free() {
    let mut hand = Hand::connected(false);
    hand.broker.always(PUBACK, Then::Drop);
    hand.say(message(1, 1));
    hand.broker.restart(Persistence::Lost);
    hand.cut();
    assert_eq!(hand.connect(false), [Packet::Connack { session_present: false, code: 0 }]);
    hand.say(message(1, 1));
    hand.fine();
    hand.broker.forget("hand");
    hand.cut();
    hand.connect(false);
    hand.say(again(1, 1));
    assert_eq!(hand.offence(), "MQTT-3.3.1-3");
}

#[test]
fn messages_for_a_client_wait_and_come_again_in_order_with_dup() {
    let mut hand = Hand::connected(false);
    hand.say(subscribe(1, "#", 2));
    hand.broker.max_in_flight = 3;
    hand.cut();
    for id in 1..=4 {
        hand.broker.publish(Message::new("a", id.to_string()).qos(2));
    }
    hand.broker.publish(Message::new("a", "lost"));
    assert_eq!(hand.connect(false)[1..], [message(1, 2), message(2, 2), message(3, 2)]);
    assert_eq!(hand.say(Pubrec(1)), [Pubrel(1)]);
    let present = Packet::Connack { session_present: true, code: 0 };
    assert_eq!(hand.cut_and_resume(), [present, Pubrel(1), again(2, 2), again(3, 2)]);
    assert_eq!(hand.say(Pubcomp(1)), [message(1, 2).with_payload("4")]);
    assert_eq!(hand.broker.unfinished("hand"), 3);
    hand.cut();
    hand.connect(true);
    assert_eq!(hand.broker.unfinished("hand"), 0);
    hand.cut();
    assert!(!hand.broker.has_session("hand"));
    hand.fine();
}

#[test]
fn a_will_goes_out_unless_the_client_says_goodbye() {
    let will = |qos| Some(Message::new("will", "dead").qos(qos).retained());
    let with_will = |clean| {
        let Packet::Connect(bare) = connect("doomed", clean) else { unreachable!() };
        Packet::Connect(Connect { will: will(1), ..bare })
    };
    let mut hand = Hand::connected(false);
    hand.say(subscribe(1, "will", 1));
    let doomed = hand.broker.accept(0);
    hand.broker.receive(doomed, &with_will(true).encode(), 0);
    hand.broker.receive(doomed, &Packet::Disconnect.encode(), 0);
    hand.broker.hung_up(doomed, 0);
    assert_eq!(hand.hear(), []);
    let doomed = hand.broker.accept(0);
    hand.broker.receive(doomed, &with_will(true).encode(), 0);
    // The same name again: the first connection ends, and its will goes out.
    let second = hand.broker.accept(0);
    hand.broker.receive(second, &with_will(true).encode(), 0);
    assert_eq!(hand.hear(), [Packet::publish(1, Message::new("will", "dead").qos(1))]);
    hand.broker.output(doomed, 100);
    assert!(hand.broker.has_closed(doomed) && hand.broker.is_connected("doomed"));
    assert!(hand.broker.retained("will").is_some());
    // Silence: at 15 s for a keep alive of 10.
    assert_eq!(hand.broker.deadline(), Some(15_001));
    hand.say(Puback(1));
    hand.broker.tick(15_001);
    assert_eq!(hand.broker.closed_for_silence(), ["hand", "doomed"]);
    hand.fine();
}

#[test]
fn retained_messages_meet_new_subscribers() {
    let mut hand = Hand::connected(true);
    hand.broker.publish(Message::new("a/b", "kept").qos(2).retained());
    hand.broker.publish(Message::new("a/b", "seen"));
    let kept = Message::new("a/b", "kept").qos(1).retained();
    let suback = |codes: &[u8]| Packet::Suback { id: 5, codes: codes.to_vec() };
    assert_eq!(hand.say(subscribe(5, "a/+", 1)), [suback(&[1]), Packet::publish(1, kept)]);
    hand.broker.publish(Message::new("a/b", "").retained());
    assert_eq!(hand.hear(), [Packet::publish(0, Message::new("a/b", ""))]);
    assert_eq!(hand.broker.retained("a/b"), None);
    hand.broker.refused_filters.insert("b".into());
    assert_eq!(hand.say(subscribe(5, "b", 1)), [suback(&[0x80])]);
    hand.fine();
}

#[test]
fn chosen_packets_are_dropped_held_doubled_and_delayed() {
    let mut hand = Hand::connected(false);
    hand.broker.on_next(PUBACK, Then::Drop);
    hand.broker.on_next(PUBACK, Then::Twice);
    hand.broker.on_next(PUBACK, Then::Delay(50));
    assert_eq!(hand.say(message(1, 1)), []);
    assert_eq!(hand.say(message(2, 1)), [Puback(2), Puback(2)]);
    assert_eq!(hand.say(message(3, 1)), []);
    assert_eq!(hand.broker.deadline(), Some(50));
    assert_eq!(hand.say(message(4, 1)), [Puback(4)]);
    hand.broker.tick(50);
    assert_eq!(hand.hear(), [Puback(3)]);
    hand.broker.always(PUBREC, Then::Hold);
    hand.say(message(5, 2));
    hand.say(message(6, 2));
    hand.broker.release(1);
    hand.broker.release_all();
    assert_eq!(hand.hear(), [Pubrec(6), Pubrec(5)]);
    hand.broker.pause();
    assert_eq!(hand.say(Packet::Pingreq), []);
    hand.broker.proceed();
    assert_eq!(hand.hear(), [Packet::Pingresp]);
    hand.broker.refuse_connect = Some(5);
    assert_eq!(hand.cut_and_resume(), [Packet::Connack { session_present: false, code: 5 }]);
    assert!(hand.broker.has_closed(hand.link));
    hand.fine();
}

#[test]
fn a_referee_beside_the_client_knows_what_the_broker_can_only_guess() {
    let connack = |present| Packet::Connack { session_present: present, code: 0 };
    let mut up = Referee::new(View::Client);
    let link = |referee: &mut Referee, present| {
        referee.closed(&[]);
        referee.opened(0);
        referee.sent(&connect("hand", false), 0, 0);
        referee.received(&connack(present));
    };
    link(&mut up, false);
    up.sent(&message(1, 1), 0, 0);
    up.sent(&message(2, 2), 0, 0);
    up.received(&Puback(1));
    up.received(&Pubrec(2));

    // It has read PUBACK and PUBREC, so neither message may be sent again.
    let mut wrong = up.clone();
    link(&mut wrong, true);
    wrong.sent(&again(1, 1), 0, 0);
    wrong.sent(&again(2, 2), 0, 0);
    let statements: Vec<_> = wrong.breaches().iter().map(|breach| breach.statement).collect();
    assert_eq!(statements, ["MQTT-4.3.2-1", "MQTT-4.3.3-1"]);

    // A client that has sent nothing sends nothing again.
    let mut wrong = up.clone();
    link(&mut wrong, true);
    wrong.sent(&again(9, 1), 0, 0);
    assert_eq!(wrong.breaches()[0].statement, "MQTT-3.3.1-3");

    // After a power cut both are right: it has not sent PUBREL.
    let mut right = up.clone();
    right.power_cut();
    link(&mut right, true);
    assert_eq!(right.not_resent(), [2]);
    right.sent(&again(1, 1), 0, 0);
    right.sent(&again(2, 2), 0, 0);
    assert_eq!(right.breaches(), []);
    assert_eq!(right.not_resent(), []);

    // But not once PUBREL has left.
    up.sent(&Pubrel(2), 0, 0);
    up.power_cut();
    link(&mut up, true);
    up.sent(&again(2, 2), 0, 0);
    assert_eq!(up.breaches()[0].statement, "MQTT-4.3.3-1");
}
