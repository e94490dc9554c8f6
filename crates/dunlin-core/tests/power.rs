//! The power cut between any two steps, with marks on stable storage and nothing else.

use dunlin_core::{Options, Publish, QoS};
use dunlin_testkit::Seen::{self, Delivered};
use dunlin_testkit::{CLIENT, DURABLE, Message, PUBCOMP, PUBREC, Pair, Sizes, Then};

const MESSAGES: [(&str, u8); 5] = [("1", 2), ("2", 1), ("3", 2), ("4", 2), ("5", 1)];

type Story = fn(&mut Pair);

fn out(pair: &mut Pair) {
    for (text, qos) in MESSAGES {
        pair.publish(&Publish::new("out", text.as_bytes()).with_qos(QoS::from_bits(qos).unwrap())).unwrap();
        if text == "3" {
            pair.run();
        }
    }
    pair.run();
}

fn incoming(pair: &mut Pair) {
    pair.subscribe("in", QoS::ExactlyOnce).unwrap();
    pair.run();
    for (text, qos) in MESSAGES {
        pair.broker.publish(Message::new("in", text).qos(qos));
    }
    pair.run();
}

fn both(pair: &mut Pair) {
    pair.broker.max_in_flight = 2;
    pair.subscribe("in", QoS::ExactlyOnce).unwrap();
    pair.run();
    for (text, qos) in MESSAGES {
        pair.broker.publish(Message::new("in", text).qos(qos));
        pair.publish(&Publish::new("out", text.as_bytes()).with_qos(QoS::from_bits(qos).unwrap())).unwrap();
        pair.step();
    }
    pair.run();
}

fn acks_out_of_order(pair: &mut Pair) {
    pair.broker.always(PUBREC, Then::Hold);
    pair.broker.always(PUBCOMP, Then::Hold);
    for (text, qos) in MESSAGES {
        pair.publish(&Publish::new("out", text.as_bytes()).with_qos(QoS::from_bits(qos).unwrap())).unwrap();
    }
    loop {
        pair.run();
        let Some(last) = pair.broker.held().len().checked_sub(1) else { return };
        pair.broker.release(last);
    }
}

fn texts(messages: &[Message], qos: u8) -> Vec<String> {
    let wanted = messages.iter().filter(|message| message.qos == qos);
    wanted.map(|message| String::from_utf8(message.payload.clone()).unwrap()).collect()
}

/// What stood on storage when the power went, and no more, has arrived.
fn verdict(pair: &Pair) {
    let stored = &pair.store.accepted;
    let received = pair.broker.received();
    assert_eq!(texts(&received, 2), texts(stored, 2), "QoS 2 exactly once and in order");
    let mut at_least_once = Vec::new();
    for text in texts(&received, 1) {
        if !at_least_once.contains(&text) {
            at_least_once.push(text);
        }
    }
    assert_eq!(at_least_once, texts(stored, 1), "QoS 1 at least once");
    let (messages, released) = pair.store.outgoing();
    assert_eq!((messages, released, pair.store.incoming()), (vec![], vec![], vec![]), "nothing is left on storage");
    assert!(pair.client.is_idle());
    assert_eq!(pair.broker.unfinished(CLIENT), 0);
}

/// Incoming QoS 2 messages: shown again only when the power went between handler and mark, and then flagged.
fn verdict_in(pair: &Pair, cuts: usize) {
    let shown = texts(&pair.messages(), 2);
    if shown.is_empty() {
        return;
    }
    let mut once = shown.clone();
    once.sort();
    once.dedup();
    assert_eq!(once, ["1", "3", "4"]);
    let twice = shown.len() - 3;
    if cuts == 1 {
        assert_eq!(twice, pair.shown_unmarked(), "only what had no mark");
    }
    let mut known = Vec::new();
    for seen in pair.client_events() {
        if let Seen::Message(message) = seen {
            assert!(!known.contains(&message) || message.qos < 2, "a message that is shown again says so");
        }
        if let Seen::Message(message) | Seen::Again(message) = seen {
            known.push(message);
        }
    }
}

const STORIES: [(&str, Story); 4] =
    [("out", out), ("in", incoming), ("both", both), ("acks out of order", acks_out_of_order)];

fn pair(out: usize, options: Options<'static>) -> Pair {
    let mut pair = Pair::with(options, Sizes { rx: 40, ..Default::default() });
    pair.out = out;
    pair
}

/// How many dealings with the session a story has.
fn steps(story: Story, out: usize) -> usize {
    let mut pair = pair(out, DURABLE);
    pair.power_fails_after = [usize::MAX].into();
    story(&mut pair);
    verdict(&pair);
    usize::MAX - pair.power_fails_after[0]
}

#[test]
fn the_power_may_fail_after_any_step() {
    // [F05] [MQTT-4.1.0-1] [MQTT-4.3.3-1] [MQTT-4.3.3-2] [MQTT-4.3.2-1]
    let mut cuts = 0;
    for (name, story) in STORIES {
        for out in [3, 64, 1024] {
            for after in 0..steps(story, out) {
                println!("{name}, buffer {out}, power fails after {after} steps");
                let mut pair = pair(out, DURABLE);
                pair.power_fails_after = [after].into();
                story(&mut pair);
                assert_eq!(pair.power_cuts(), 1);
                verdict(&pair);
                verdict_in(&pair, 1);
                cuts += 1;
            }
        }
    }
    println!("{cuts} power cuts");
}

#[test]
fn the_power_may_fail_again_while_the_session_recovers() {
    // [F05]
    let mut cuts = 0;
    for (name, story) in STORIES {
        for after in 0..steps(story, 64) {
            for again in 0..40 {
                println!("{name}, power fails after {after} steps and {again} more");
                let mut pair = pair(64, DURABLE);
                pair.power_fails_after = [after, again].into();
                story(&mut pair);
                verdict(&pair);
                verdict_in(&pair, 2);
                cuts += pair.power_cuts();
            }
        }
    }
    println!("{cuts} power cuts");
}

#[test]
fn the_link_may_break_at_any_byte_and_the_power_fail_soon_after() {
    // [F05]
    let mut cuts = 0;
    for (name, story) in STORIES {
        for cut in (0..250).step_by(2) {
            for after in [1, 5, 12, 25, 50] {
                println!("{name}, link cut after {cut} bytes, power fails after {after} steps");
                let mut pair = pair(64, DURABLE);
                let pipe = if cut % 4 == 0 { &mut pair.wire.up } else { &mut pair.wire.down };
                pipe.cut_after = Some(cut / 2);
                pair.power_fails_after = [after].into();
                story(&mut pair);
                verdict(&pair);
                cuts += 1;
            }
        }
    }
    println!("{cuts} pairs of cuts");
}

#[test]
fn a_server_that_lost_the_session_too_gets_each_message_at_least_once_and_nothing_stays_behind() {
    // [F05] [B09]
    for (name, story) in STORIES {
        for after in 0..steps(story, 64) {
            println!("{name}, both forget after {after} steps");
            let mut pair = pair(64, DURABLE);
            pair.power_fails_after = [after].into();
            pair.broker_forgets_with_power = true;
            story(&mut pair);
            let (messages, released) = pair.store.outgoing();
            assert_eq!((messages, released, pair.store.incoming()), (vec![], vec![], vec![]));
            for message in &pair.store.accepted {
                assert!(pair.broker.received().contains(message));
            }
            assert!(pair.client.is_idle());
        }
    }
}

#[test]
fn a_delivery_that_was_told_is_not_told_again_once_its_end_is_stored() {
    let mut pair = Pair::durable();
    let sent = pair.publish(&Publish::new("a", b"1").exactly_once()).unwrap().unwrap();
    pair.run();
    assert_eq!(pair.take_events(), [Delivered(sent)]);
    pair.power_cut();
    pair.run();
    assert_eq!(pair.client_events(), [Seen::Connected { resumed: true }]);
}
