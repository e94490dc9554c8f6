//! Messages published while there is no connection, and what may replace them.

use dunlin_core::{Publish, PublishError, QoS, Replace};
use dunlin_testkit::Seen::{Connected, Delivered, Replaced};
use dunlin_testkit::{PUBLISH, Pair, RESUMING, Sizes};

use crate::id;

fn small(slots: usize) -> Pair {
    Pair::with(RESUMING, Sizes { slots, tx: 200, ..Default::default() })
}

fn texts(pair: &Pair) -> Vec<String> {
    pair.broker.received().iter().map(|message| String::from_utf8(message.payload.clone()).unwrap()).collect()
}

#[test]
fn messages_wait_for_the_connection_and_leave_in_their_order() {
    let mut pair = small(6);
    for (number, text) in ["1", "2", "3", "4"].into_iter().enumerate() {
        let qos = QoS::from_bits(1 + number as u8 % 2).unwrap();
        pair.publish(&Publish::new("a", text.as_bytes()).with_qos(qos)).unwrap();
    }
    pair.run();
    assert_eq!(texts(&pair), ["1", "2", "3", "4"]);
    assert!(
        pair.sent_of(PUBLISH).iter().all(|packet| !matches!(packet, dunlin_testkit::Packet::Publish { dup: true, .. }))
    );
}

#[test]
fn full_is_an_error_and_never_a_silent_loss() {
    let mut pair = small(2);
    pair.publish(&Publish::new("a", b"1").at_least_once()).unwrap();
    pair.publish(&Publish::new("a", b"2").at_least_once()).unwrap();
    assert_eq!(pair.publish(&Publish::new("a", b"3").at_least_once()), Err(PublishError::Full));
    pair.run();
    assert_eq!(texts(&pair), ["1", "2"]);
}

#[test]
fn the_newest_of_a_topic_wins_and_takes_over_the_identifier() {
    let mut pair = small(3);
    let reading = |text| Publish::new("t/1", text).at_least_once();
    assert_eq!(pair.publish_replacing(&reading(b"old"), Replace::SameTopic), Ok(Some(id(1))));
    assert_eq!(pair.publish(&Publish::new("t/1", b"other").at_least_once()), Ok(Some(id(2))));
    assert_eq!(pair.publish_replacing(&reading(b"new"), Replace::SameTopic), Ok(Some(id(1))));
    assert_eq!(pair.publish_replacing(&Publish::new("t/2", b"x").at_least_once(), Replace::SameTopic), Ok(Some(id(3))));
    pair.run();
    assert_eq!(texts(&pair), ["other", "new", "x"]);
    let delivered = pair.client_events()[1..].to_vec();
    assert_eq!(delivered, [Delivered(id(2)), Delivered(id(1)), Delivered(id(3))]);
}

#[test]
fn the_newest_of_a_topic_wins_for_ever_in_constant_memory() {
    let mut pair = small(2);
    for round in 0..1000 {
        let text = round.to_string();
        pair.publish_replacing(&Publish::new("t", text.as_bytes()).at_least_once(), Replace::SameTopic).unwrap();
    }
    pair.run();
    assert_eq!(texts(&pair), ["999"]);
}

#[test]
fn the_oldest_goes_when_there_is_no_room() {
    let mut pair = small(3);
    let ids = ["1", "2", "3", "4", "5"].map(|text| {
        let publish = Publish::new("a", text.as_bytes()).at_least_once();
        pair.publish_replacing(&publish, Replace::Oldest).unwrap().unwrap()
    });
    assert_eq!(ids, [1, 2, 3, 1, 2].map(id), "the newcomer takes over the identifier");
    pair.run();
    assert_eq!(texts(&pair), ["3", "4", "5"]);
    assert_eq!(pair.client_events()[1..], [3, 1, 2].map(|number| Delivered(id(number))));
}

#[test]
fn as_many_of_the_oldest_go_as_it_takes_for_a_long_message() {
    let mut pair = small(10);
    for _ in 0..8 {
        pair.publish_replacing(&Publish::new("a", &[b'x'; 15]).at_least_once(), Replace::Oldest).unwrap();
    }
    let long = vec![b'y'; 150];
    pair.publish_replacing(&Publish::new("a", &long).at_least_once(), Replace::Oldest).unwrap();
    pair.run();
    let received = pair.broker.received();
    assert_eq!(received.last().unwrap().payload, long);
    let replaced = pair.client_events().iter().filter(|seen| matches!(seen, Replaced(_))).count();
    let delivered = pair.client_events().iter().filter(|seen| matches!(seen, Delivered(_))).count();
    assert!(replaced + delivered >= 8, "{:?}", pair.client_events());
    assert_eq!(delivered, received.len());
}

#[test]
fn a_message_that_may_have_been_sent_is_never_replaced() {
    let mut pair = Pair::with(RESUMING, Sizes { slots: 2, tx: 200, ..Default::default() }).up();
    pair.drop_next(dunlin_testkit::PUBACK);
    pair.drop_next(dunlin_testkit::PUBACK);
    for text in [&b"1"[..], b"2"] {
        pair.publish_replacing(&Publish::new("t", text).at_least_once(), Replace::SameTopic).unwrap();
        pair.run();
    }
    pair.cut();
    let newest = Publish::new("t", b"3").at_least_once();
    assert_eq!(pair.publish_replacing(&newest, Replace::SameTopic), Err(PublishError::Full));
    assert_eq!(pair.publish_replacing(&newest, Replace::Oldest), Err(PublishError::Full));
    pair.run();
    assert_eq!(texts(&pair), ["1", "2", "1", "2"]);
}

#[test]
fn a_message_is_not_replaced_while_its_bytes_are_leaving() {
    for replace in [Replace::SameTopic, Replace::Oldest] {
        for sent in 1..9 {
            let mut pair = Pair::with(RESUMING, Sizes { slots: 2, tx: 200, ..Default::default() }).up();
            pair.publish_replacing(&Publish::new("t", b"old").at_least_once(), replace).unwrap();
            let now = dunlin_core::Instant::from_millis(0);
            let mut bytes = Vec::new();
            for _ in 0..sent {
                let mut out = [0];
                assert_eq!(pair.client.transmit(now, &mut out), dunlin_core::Transmit::Bytes(1));
                bytes.push(out[0]);
            }
            pair.publish_replacing(&Publish::new("t", b"new").at_least_once(), replace).unwrap();
            let mut out = [0; 64];
            let dunlin_core::Transmit::Bytes(count) = pair.client.transmit(now, &mut out) else {
                panic!("more to send")
            };
            bytes.extend(&out[..count]);
            assert_eq!(bytes, b"\x32\x08\x00\x01t\x00\x01old\x32\x08\x00\x01t\x00\x02new", "{replace:?} after {sent}");
        }
    }
}

#[test]
fn messages_published_without_a_policy_are_safe_from_those_with_one() {
    let mut pair = small(2);
    pair.publish(&Publish::new("t", b"1").at_least_once()).unwrap();
    pair.publish(&Publish::new("t", b"2").exactly_once()).unwrap();
    for replace in [Replace::SameTopic, Replace::Oldest] {
        assert_eq!(pair.publish_replacing(&Publish::new("t", b"3").at_least_once(), replace), Err(PublishError::Full));
    }
    pair.run();
    assert_eq!(texts(&pair), ["1", "2"]);
    assert_eq!(pair.client_events()[0], Connected { resumed: false });
}

#[test]
fn a_message_can_be_taken_back_until_it_has_begun_to_leave() {
    // [F09] [MQTT-2.3.1-3]
    let mut pair = small(3);
    let first = pair.publish(&Publish::new("a", b"1").exactly_once()).unwrap().unwrap();
    let second = pair.publish(&Publish::new("a", b"2").exactly_once()).unwrap().unwrap();
    assert!(pair.client.withdraw(first));
    assert!(!pair.client.withdraw(first), "once");
    pair.broker.on_next(dunlin_testkit::PUBREC, dunlin_testkit::Then::Hold);
    pair.run();
    assert!(!pair.client.withdraw(second), "its identifier belongs to the exchange");
    pair.cut();
    assert!(!pair.client.withdraw(second));
    pair.run();
    assert_eq!(texts(&pair), ["2"]);
    assert_eq!(pair.client_events().last(), Some(&Delivered(second)));
}
