//! The link cut after every byte, in both directions, through buffers of many sizes; and every split of the stream.
//!
//! A scenario is a story that cares about nothing but its outcome. Whatever the link does in between, the outcome is
//! the same, the referee has nothing to say, and the pair comes to rest.

use dunlin_core::{Filter, Options, Publish, QoS};
use dunlin_testkit::Seen::{self, Delivered, Forgotten};
use dunlin_testkit::{
    CLEAN, CLIENT, DURABLE, Message, PUBCOMP, PUBREC, Packet, Pair, Persistence, RESUMING, Sizes, Split, Then,
};

/// Sizes of the buffer that `transmit` fills.
const OUT: [usize; 6] = [1, 2, 3, 7, 64, 1024];

const TABLE: &[Filter] = &[Filter::literal("s/#", QoS::ExactlyOnce), Filter::literal("t", QoS::AtLeastOnce)];

struct Scenario {
    name: &'static str,
    options: Options<'static>,
    story: fn(&mut Pair),
    verdict: fn(&Pair),
}

const SCENARIOS: &[Scenario] = &[
    Scenario { name: "messages out", options: RESUMING, story: messages_out, verdict: all_out_once },
    Scenario { name: "messages out, durable", options: DURABLE, story: messages_out, verdict: all_out_once },
    Scenario { name: "messages in", options: RESUMING, story: messages_in, verdict: all_in_once },
    Scenario { name: "messages in, durable", options: DURABLE, story: messages_in, verdict: all_in_once },
    Scenario { name: "both ways", options: RESUMING, story: both_ways, verdict: both_once },
    Scenario { name: "both ways, durable", options: DURABLE, story: both_ways, verdict: both_once },
    Scenario { name: "filters", options: RESUMING.subscriptions(TABLE), story: filters, verdict: all_filters },
    Scenario { name: "filters, clean", options: CLEAN.subscriptions(TABLE), story: filters, verdict: all_filters },
    Scenario { name: "acks out of order", options: RESUMING, story: acks_out_of_order, verdict: all_out_once },
    Scenario { name: "a forgetful server", options: RESUMING, story: forgetful_server, verdict: all_accounted_for },
    Scenario {
        name: "a forgetful server, durable",
        options: DURABLE,
        story: forgetful_server,
        verdict: all_accounted_for,
    },
    Scenario { name: "large messages in", options: RESUMING.stream_large(4), story: large_in, verdict: large_in_whole },
    Scenario { name: "a clean session", options: CLEAN, story: messages_out, verdict: all_out_at_least_once },
    Scenario {
        name: "everything in CONNECT",
        options: RESUMING
            .will(Publish::new("w", b"gone").exactly_once().retain())
            .credentials("user", b"password")
            .subscriptions(TABLE),
        story: messages_out,
        verdict: all_out_once,
    },
];

const MESSAGES: [(&str, u8); 6] = [("1", 2), ("2", 1), ("3", 2), ("4", 2), ("5", 1), ("6", 2)];

fn messages_out(pair: &mut Pair) {
    for (at, (text, qos)) in MESSAGES.into_iter().enumerate() {
        let qos = QoS::from_bits(qos).unwrap();
        pair.publish(&Publish::new("out", text.as_bytes()).with_qos(qos)).unwrap();
        if at == 2 {
            pair.run();
        }
    }
    pair.run();
}

fn texts(messages: &[Message], topic: &str, qos: u8) -> Vec<String> {
    let wanted = messages.iter().filter(|message| message.topic == topic && message.qos == qos);
    wanted.map(|message| String::from_utf8(message.payload.clone()).unwrap()).collect()
}

fn first_of_each(texts: Vec<String>) -> Vec<String> {
    let mut firsts: Vec<String> = Vec::new();
    for text in texts {
        if !firsts.contains(&text) {
            firsts.push(text);
        }
    }
    firsts
}

fn delivered(pair: &Pair) -> usize {
    pair.client_events().iter().filter(|seen| matches!(seen, Delivered(_))).count()
}

fn all_out_once(pair: &Pair) {
    assert_eq!(texts(&pair.broker.received(), "out", 2), ["1", "3", "4", "6"]);
    assert_eq!(first_of_each(texts(&pair.broker.received(), "out", 1)), ["2", "5"]);
    assert_eq!(delivered(pair), 6);
    assert_eq!(pair.broker.awaiting_release(CLIENT), []);
}

fn all_out_at_least_once(pair: &Pair) {
    assert_eq!(first_of_each(texts(&pair.broker.received(), "out", 1)), ["2", "5"]);
    let mut exactly = first_of_each(texts(&pair.broker.received(), "out", 2));
    let lost = pair.client_events().iter().filter(|seen| matches!(seen, Forgotten(_))).count();
    exactly.retain(|text| ["1", "3", "4", "6"].contains(&text.as_str()));
    assert_eq!(exactly.len(), 4);
    assert_eq!(delivered(pair) + lost, 6);
}

fn messages_in(pair: &mut Pair) {
    pair.subscribe("in", QoS::ExactlyOnce).unwrap();
    // The subscription is there before the first message.
    while pair.broker.subscriptions(CLIENT).is_empty() {
        pair.run();
    }
    for (at, (text, qos)) in MESSAGES.into_iter().enumerate() {
        pair.broker.publish(Message::new("in", text).qos(qos));
        if at == 2 {
            pair.run();
        }
    }
    pair.run();
}

fn all_in_once(pair: &Pair) {
    assert_eq!(texts(&pair.messages(), "in", 2), ["1", "3", "4", "6"]);
    assert_eq!(first_of_each(texts(&pair.messages(), "in", 1)), ["2", "5"]);
    assert_eq!(pair.broker.unfinished(CLIENT), 0);
}

fn both_ways(pair: &mut Pair) {
    pair.broker.max_in_flight = 3;
    pair.subscribe("in", QoS::ExactlyOnce).unwrap();
    while pair.broker.subscriptions(CLIENT).is_empty() {
        pair.run();
    }
    for (text, qos) in MESSAGES {
        pair.broker.publish(Message::new("in", text).qos(qos));
        pair.publish(&Publish::new("out", text.as_bytes()).with_qos(QoS::from_bits(qos).unwrap())).unwrap();
    }
    pair.run();
}

fn both_once(pair: &Pair) {
    all_out_once(pair);
    all_in_once(pair);
}

fn filters(pair: &mut Pair) {
    pair.client.subscribe(&[Filter::literal("r/1", QoS::AtMostOnce), Filter::literal("r/2", QoS::AtMostOnce)]).unwrap();
    pair.run();
    pair.client.unsubscribe(&["r/1"]).unwrap();
    pair.client.subscribe(&[Filter::literal("r/3", QoS::AtLeastOnce)]).unwrap();
    pair.run();
}

fn all_filters(pair: &Pair) {
    let names: Vec<_> = pair.broker.subscriptions(CLIENT).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["r/2", "r/3", "s/#", "t"]);
}

fn acks_out_of_order(pair: &mut Pair) {
    pair.broker.always(PUBREC, Then::Hold);
    pair.broker.always(PUBCOMP, Then::Hold);
    for (text, qos) in MESSAGES {
        pair.publish(&Publish::new("out", text.as_bytes()).with_qos(QoS::from_bits(qos).unwrap())).unwrap();
    }
    // Whatever is held leaves from the back, until nothing more comes.
    loop {
        pair.run();
        let Some(last) = pair.broker.held().len().checked_sub(1) else { break };
        pair.broker.release(last);
    }
}

fn forgetful_server(pair: &mut Pair) {
    pair.subscribe("in", QoS::ExactlyOnce).unwrap();
    pair.drop_next(PUBREC);
    pair.drop_next(PUBCOMP);
    for (text, qos) in &MESSAGES[..3] {
        pair.publish(&Publish::new("out", text.as_bytes()).with_qos(QoS::from_bits(*qos).unwrap())).unwrap();
    }
    pair.run();
    pair.broker.publish(Message::new("in", "x").qos(2));
    pair.run();
    pair.broker.behave();
    pair.broker.restart(Persistence::Lost);
    for (text, qos) in &MESSAGES[3..] {
        pair.publish(&Publish::new("out", text.as_bytes()).with_qos(QoS::from_bits(*qos).unwrap())).unwrap();
    }
    pair.run();
}

fn all_accounted_for(pair: &Pair) {
    // The server had each of them, if perhaps before it lost its memory; the application heard of each.
    let mut all = first_of_each(texts(&pair.broker.received(), "out", 2));
    all.extend(first_of_each(texts(&pair.broker.received(), "out", 1)));
    all.sort();
    assert_eq!(all, ["1", "2", "3", "4", "5", "6"]);
    let forgotten = pair.client_events().iter().filter(|seen| matches!(seen, Forgotten(_))).count();
    assert_eq!(delivered(pair) + forgotten, 6);
    assert_eq!(pair.broker.subscriptions(CLIENT).len(), 1);
    assert!(pair.store.outgoing() == (vec![], vec![]) && pair.store.incoming().is_empty());
}

fn large_in(pair: &mut Pair) {
    pair.subscribe("big", QoS::ExactlyOnce).unwrap();
    while pair.broker.subscriptions(CLIENT).is_empty() {
        pair.run();
    }
    pair.broker.publish(Message::new("big", [7; 90]).qos(2));
    pair.broker.publish(Message::new("big", [8; 90]).qos(1));
    pair.run();
}

fn large_in_whole(pair: &Pair) {
    let last = |byte| {
        let is_last = |seen: &&Seen| matches!(seen, Seen::Chunk { offset, total, bytes, .. } if offset + bytes.len() == *total && bytes[0] == byte);
        pair.client_events().iter().filter(is_last).count()
    };
    assert_eq!(last(7), 1);
    assert!(last(8) >= 1);
    assert_eq!(pair.broker.unfinished(CLIENT), 0);
}

fn pair_of(scenario: &Scenario) -> Pair {
    // The smallest inbox that holds the smaller messages.
    Pair::with(scenario.options, Sizes { rx: 40, tx: 256, ..Default::default() })
}

fn play(scenario: &Scenario, pair: &mut Pair) {
    (scenario.story)(pair);
    assert!(pair.client.is_idle());
    (scenario.verdict)(pair);
}

/// Bytes that a scenario takes up and down when nothing is cut.
fn lengths(scenario: &Scenario) -> (u64, u64) {
    let mut pair = pair_of(scenario);
    play(scenario, &mut pair);
    let sum = |packets: &[Packet]| packets.iter().map(|packet| packet.encode().len() as u64).sum();
    (sum(pair.sent()), sum(pair.heard()))
}

#[test]
fn a_cut_after_any_byte_changes_nothing_for_the_application() {
    // [MQTT-4.1.0-1] [MQTT-4.3.2-1] [MQTT-4.3.3-1] [MQTT-4.3.3-2] [MQTT-4.4.0-1] [MQTT-7.1.2-1]
    let mut cuts = 0;
    for scenario in SCENARIOS {
        let (up, down) = lengths(scenario);
        for out in OUT {
            for after in 0..=up + down {
                let mut pair = pair_of(scenario);
                pair.out = out;
                let (pipe, at) =
                    if after <= up { (&mut pair.wire.up, after) } else { (&mut pair.wire.down, after - up) };
                pipe.cut_after = Some(at);
                let _here = Note { name: scenario.name, out, cuts: vec![after], up };
                play(scenario, &mut pair);
                cuts += 1;
            }
        }
    }
    println!("{cuts} cuts");
}

#[test]
fn a_second_cut_at_any_byte_of_the_recovery_changes_nothing_either() {
    // [MQTT-4.4.0-1]
    let mut cuts = 0;
    for scenario in SCENARIOS {
        let (up, down) = lengths(scenario);
        for first in 0..=up + down {
            for second in (0..60).step_by(3) {
                let mut pair = pair_of(scenario);
                // Every direction and buffer gets its turn.
                pair.out = OUT[(first + second) as usize % OUT.len()];
                let (pipe, at) =
                    if first <= up { (&mut pair.wire.up, first) } else { (&mut pair.wire.down, first - up) };
                pipe.cut_after = Some(at);
                let _here = Note { name: scenario.name, out: pair.out, cuts: vec![first, second], up };
                // One turn at a time up to the first cut, then the second is set up.
                let is_planned = |pair: &Pair| pair.wire.up.cut_after.is_some() || pair.wire.down.cut_after.is_some();
                while is_planned(&pair) && pair.step() {}
                let pipe = if second % 2 == 0 { &mut pair.wire.up } else { &mut pair.wire.down };
                pipe.cut_after = Some(second);
                play(scenario, &mut pair);
                cuts += 2;
            }
        }
    }
    println!("{cuts} cuts");
}

/// Printed by a failing test: where to look.
struct Note {
    name: &'static str,
    out: usize,
    cuts: Vec<u64>,
    up: u64,
}

impl Drop for Note {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("in {:?}, buffer {}, cut after {:?} ({} bytes go up)", self.name, self.out, self.cuts, self.up);
        }
    }
}

/// All that a server says in a long story, as one stream.
fn everything_a_server_says() -> Vec<u8> {
    let mut stream = Vec::new();
    for packet in [
        Packet::Connack { session_present: false, code: 0 },
        Packet::Suback { id: 1, codes: vec![2, 0x80] },
        Packet::publish(0, Message::new("in", "zero")),
        Packet::publish(1, Message::new("in", "one").qos(1)),
        Packet::publish(2, Message::new("in", "two").qos(2).retained()),
        Packet::Pubrec(4),
        Packet::Puback(3),
        Packet::Pubrel(2),
        Packet::publish(2, Message::new("in/ü", "again two").qos(2)),
        Packet::publish(2, Message::new("in/ü", "again two").qos(2)),
        Packet::Pingresp,
        Packet::publish(9, Message::new("in", [7; 200]).qos(1)),
        Packet::Pubcomp(4),
        Packet::Unsuback(2),
        Packet::Puback(99),
        Packet::Pubrel(77),
        Packet::publish(0, Message::new("in", "")),
    ] {
        stream.extend(packet.encode());
    }
    stream
}

/// What the application sees when the stream comes in pieces that `split` makes.
fn split_events(split: Split, out: usize) -> Vec<Seen> {
    let mut pair = Pair::with(RESUMING.stream_large(1), Sizes { rx: 64, ..Default::default() });
    pair.wire.down.split = split;
    pair.client.subscribe(&[Filter::literal("in/#", QoS::ExactlyOnce), Filter::literal("x", QoS::AtMostOnce)]).unwrap();
    pair.client.unsubscribe(&["y"]).unwrap();
    pair.publish(&Publish::new("a", b"1").at_least_once()).unwrap();
    pair.publish(&Publish::new("a", b"2").exactly_once()).unwrap();
    pair.open();
    let now = dunlin_core::Instant::from_millis(0);
    let mut buffer = vec![0; out];
    let mut events = Vec::new();
    // CONNECT and what waits behind it have left before anything else comes.
    pair.wire.down.write(0, &everything_a_server_says()[..4]);
    while let dunlin_core::Transmit::Bytes(_) = pair.client.transmit(now, &mut buffer) {}
    loop {
        let mut happened = false;
        let room = pair.inbox.space().len();
        let piece = pair.wire.down.read(0, room);
        pair.inbox.push(&piece);
        while let Some(seen) = pair.poll() {
            assert!(!matches!(seen, Seen::Fault(_)), "{seen:?} after {events:#?}");
            happened = true;
            events.push(seen);
        }
        while let dunlin_core::Transmit::Bytes(_) = pair.client.transmit(now, &mut buffer) {
            happened = true;
        }
        if events.len() == 1 && pair.wire.down.carried() == 4 {
            pair.wire.down.write(0, &everything_a_server_says()[4..]);
        } else if !happened && piece.is_empty() {
            return together(events);
        }
    }
}

/// Chunks of one message as one: how many there are is up to the pieces.
fn together(events: Vec<Seen>) -> Vec<Seen> {
    let mut joined: Vec<Seen> = Vec::new();
    for seen in events {
        match (joined.last_mut(), seen) {
            (Some(Seen::Chunk { bytes: all, .. }), Seen::Chunk { topic: None, bytes, .. }) => all.extend(bytes),
            (_, seen) => joined.push(seen),
        }
    }
    joined
}

#[test]
fn every_split_of_the_stream_gives_the_same_events() {
    // [A24] [A25] [A26]
    let length = everything_a_server_says().len() as u64;
    let events = split_events(Split::Whole, 1024);
    assert_eq!(events.len(), 11, "{events:#?}");
    let mut splits = 0;
    let mut check = |split: Split, out| {
        assert_eq!(split_events(split.clone(), out), events, "{split:?}");
        splits += 1;
    };
    for out in OUT {
        for size in 1..40 {
            check(Split::Every(size), out);
        }
    }
    for first in 1..length {
        check(Split::At(vec![first]), 1024);
        for second in first + 1..length {
            check(Split::At(vec![first, second]), 64);
        }
    }
    println!("{splits} splits of {length} bytes");
}
