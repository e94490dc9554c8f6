//! Write-ahead: nothing that depends on a mark leaves before it is stored.

use dunlin_core::{External, Mark, Publish, PublishError, QoS, RestoreError, Restored, Stage, SubscribeError, Topic};
use dunlin_testkit::Seen::{self, Connected, Delivered, Forgotten};
use dunlin_testkit::{
    CLIENT, DURABLE, Marks, Message, PUBCOMP, PUBLISH, PUBREC, PUBREL, Packet, Pair, Persistence, SUBSCRIBE, Sizes,
    Then,
};

use crate::id;

/// A filter that was kept.
fn subscription(filter: &str, qos: QoS) -> Restored<'_> {
    Restored::Subscription { filter: Topic::from_store(filter.as_bytes()), qos }
}

/// A message whose payload was kept elsewhere.
fn external(number: u16, topic: &[u8], qos: QoS) -> Restored<'_> {
    let payload = External { key: 1, len: 1 };
    Restored::External { id: id(number), topic: Topic::from_store(topic), qos, retain: false, payload }
}

/// A durable client whose marks the test stores by hand.
fn by_hand() -> Pair {
    let mut pair = Pair::durable();
    pair.marks = Marks::Left;
    pair
}

fn mark(number: u16, stage: Stage) -> Mark {
    Mark { id: id(number), stage }
}

/// Stores the next mark, which must be this one.
#[track_caller]
fn store(pair: &mut Pair, number: u16, stage: Stage) {
    let expected = mark(number, stage);
    assert_eq!(pair.client.next_mark(), Some(expected));
    assert_eq!(pair.client.next_mark(), Some(expected), "asking twice gives the same answer");
    pair.store.put(expected);
    pair.client.mark_stored(expected);
    pair.run();
}

#[test]
fn publish_leaves_after_the_message_is_stored() {
    let mut pair = by_hand();
    pair.publish(&Publish::new("a", b"1").at_least_once()).unwrap();
    pair.publish(&Publish::new("a", b"2").exactly_once()).unwrap();
    pair.run();
    assert_eq!(pair.sent(), []);
    store(&mut pair, 1, Stage::Accepted);
    assert_eq!(pair.sent(), [Packet::publish(1, Message::new("a", "1").qos(1))]);
    store(&mut pair, 1, Stage::Done);
    assert_eq!(pair.sent().len(), 1);
    store(&mut pair, 2, Stage::Accepted);
    assert_eq!(pair.sent().len(), 2);
}

#[test]
fn a_message_that_is_stored_first_does_not_overtake_one_that_is_not() {
    let mut pair = by_hand();
    pair.publish(&Publish::new("a", b"1").exactly_once()).unwrap();
    pair.publish(&Publish::new("a", b"2").exactly_once()).unwrap();
    pair.client.mark_stored(mark(2, Stage::Accepted));
    pair.run();
    assert_eq!(pair.sent(), []);
    pair.client.mark_stored(mark(1, Stage::Accepted));
    pair.run();
    assert_eq!(pair.broker.received(), [("a", b"1"), ("a", b"2")]);
}

#[test]
fn a_message_leaves_when_the_one_that_held_it_up_is_withdrawn() {
    let mut pair = by_hand();
    pair.publish(&Publish::new("a", b"1").exactly_once()).unwrap();
    pair.publish(&Publish::new("a", b"2").exactly_once()).unwrap();
    pair.client.mark_stored(mark(2, Stage::Accepted));
    pair.run();
    assert_eq!(pair.sent(), []);
    assert!(pair.client.withdraw(id(1)));
    pair.run();
    assert_eq!(pair.broker.received(), [("a", b"2")]);
}

#[test]
fn pubrel_leaves_after_the_release_is_stored() {
    // [MQTT-4.3.3-1]
    let mut pair = by_hand();
    pair.publish(&Publish::new("a", b"1").exactly_once()).unwrap();
    store(&mut pair, 1, Stage::Accepted);
    assert_eq!(pair.heard(), [Packet::Pubrec(1)]);
    pair.run_for(10_000);
    assert_eq!(pair.sent_of(PUBREL), []);
    store(&mut pair, 1, Stage::Released);
    assert_eq!(pair.sent_of(PUBREL), [Packet::Pubrel(1)]);
    assert_eq!(pair.client_events(), [Delivered(id(1))]);
    store(&mut pair, 1, Stage::Done);
    assert_eq!(pair.client.next_mark(), None);
}

#[test]
fn pubrels_keep_the_order_of_the_pubrecs_when_marks_are_stored_in_another() {
    // [MQTT-4.6.0-4]
    for order in crate::qos1::permutations(3) {
        let mut pair = by_hand();
        for number in 1..=3 {
            pair.publish(&Publish::new("a", b"x").exactly_once()).unwrap();
            pair.client.mark_stored(mark(number, Stage::Accepted));
        }
        pair.run();
        for which in order {
            pair.client.mark_stored(mark(which, Stage::Released));
            pair.run();
        }
        assert_eq!(pair.sent_of(PUBREL), [1, 2, 3].map(Packet::Pubrel));
    }
}

#[test]
fn a_slot_and_its_identifier_are_free_after_the_end_is_stored() {
    // [MQTT-2.3.1-3]
    let mut pair = Pair::with(DURABLE, Sizes { slots: 1, ..Default::default() }).up();
    pair.marks = Marks::Left;
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let sent = pair.publish(&Publish::new("a", b"1").with_qos(qos)).unwrap().unwrap();
        store(&mut pair, sent.get(), Stage::Accepted);
        if qos == QoS::ExactlyOnce {
            store(&mut pair, sent.get(), Stage::Released);
        }
        assert_eq!(pair.client_events().last(), Some(&Delivered(sent)));
        assert_eq!(pair.client.outgoing_count(), 0);
        assert_eq!(pair.publish(&Publish::new("a", b"2").with_qos(qos)), Err(PublishError::Full));
        store(&mut pair, sent.get(), Stage::Done);
    }
}

#[test]
fn two_ends_between_two_stores_are_both_told() {
    let mut pair = by_hand();
    for number in 1..=3 {
        pair.publish(&Publish::new("a", b"x").at_least_once()).unwrap();
        pair.client.mark_stored(mark(number, Stage::Accepted));
    }
    pair.run();
    assert_eq!(pair.client_events(), [1, 2, 3].map(|number| Delivered(id(number))));
    for number in 1..=3 {
        store(&mut pair, number, Stage::Done);
    }
    assert_eq!(pair.client.next_mark(), None);
}

#[test]
fn pubrec_leaves_after_the_identifier_is_stored_and_pubcomp_after_it_is_forgotten() {
    // [MQTT-4.3.3-2]
    let mut pair = by_hand();
    pair.subscribe("in", QoS::ExactlyOnce).unwrap();
    pair.run();
    pair.clear();
    pair.broker.publish(Message::new("in", "1").qos(2));
    pair.run();
    assert_eq!(pair.messages(), [("in", b"1")]);
    assert_eq!(pair.sent(), []);
    store(&mut pair, 1, Stage::Received);
    assert_eq!(pair.sent(), [Packet::Pubrec(1)]);
    store(&mut pair, 1, Stage::Forgotten);
    assert_eq!(pair.sent(), [Packet::Pubrec(1), Packet::Pubcomp(1)]);
    assert_eq!(pair.client.next_mark(), None);
}

#[test]
fn messages_at_qos0_and_incoming_ones_at_qos1_need_no_mark() {
    let mut pair = by_hand();
    pair.broker.inject(CLIENT, Packet::publish(7, Message::new("a", "1").qos(1)));
    pair.publish(&Publish::new("a", b"1")).unwrap();
    pair.run();
    assert_eq!(pair.client.next_mark(), None);
    assert_eq!(pair.sent_kinds(), [PUBLISH, dunlin_testkit::PUBACK]);
}

#[test]
fn a_session_that_is_not_durable_has_no_marks() {
    let mut pair = Pair::resuming();
    pair.marks = Marks::Left;
    pair.subscribe("#", QoS::ExactlyOnce).unwrap();
    pair.publish(&Publish::new("a", b"1").exactly_once()).unwrap();
    pair.run();
    assert_eq!(pair.client.next_mark(), None);
    assert_eq!(pair.messages(), [("a", b"1")]);
    assert!(pair.client.is_idle());
}

#[test]
fn a_mark_that_is_not_waited_for_changes_nothing() {
    let mut pair = by_hand();
    pair.publish(&Publish::new("a", b"1").exactly_once()).unwrap();
    pair.publish(&Publish::new("a", b"2").at_least_once()).unwrap();
    pair.broker.inject(CLIENT, Packet::publish(1, Message::new("a", "1").qos(2)));
    pair.run();
    let stages = [Stage::Accepted, Stage::Released, Stage::Done, Stage::Received, Stage::Forgotten];
    let awaited = [mark(1, Stage::Accepted), mark(2, Stage::Accepted), mark(1, Stage::Received)];
    for number in 1..=3 {
        for stage in stages {
            let stale = mark(number, stage);
            if !awaited.contains(&stale) {
                let before = pair.snapshot();
                pair.client.mark_stored(stale);
                assert_eq!(pair.snapshot(), before, "{stale:?}");
            }
        }
    }
}

#[test]
fn identifiers_of_a_lost_session_are_dropped_by_marks_before_anything_is_subscribed() {
    let mut pair = by_hand();
    pair.subscribe("in", QoS::ExactlyOnce).unwrap();
    pair.run();
    pair.drop_next(PUBREL);
    pair.broker.publish(Message::new("in", "1").qos(2));
    pair.run();
    store(&mut pair, 1, Stage::Received);
    pair.broker.restart(Persistence::Lost);
    pair.clear();
    pair.run();
    assert_eq!(pair.client_events(), [Connected { resumed: false }]);
    assert_eq!(pair.sent_of(SUBSCRIBE), [], "a new message could come under the old identifier");
    store(&mut pair, 1, Stage::Forgotten);
    assert_eq!(pair.sent_of(SUBSCRIBE).len(), 1);
    assert!(pair.store.incoming().is_empty());
    pair.broker.publish(Message::new("in", "2").qos(2));
    pair.run();
    assert_eq!(pair.messages(), [("in", b"2")]);
}

#[test]
fn a_message_forgotten_by_the_server_is_reported_and_ends_by_a_mark() {
    let mut pair = by_hand();
    pair.drop_next(PUBCOMP);
    pair.publish(&Publish::new("a", b"1").exactly_once()).unwrap();
    store(&mut pair, 1, Stage::Accepted);
    store(&mut pair, 1, Stage::Released);
    pair.broker.restart(Persistence::Lost);
    pair.clear();
    pair.run();
    assert_eq!(pair.client_events(), [Connected { resumed: false }, Forgotten(id(1))]);
    store(&mut pair, 1, Stage::Done);
    assert_eq!(pair.store.outgoing(), (vec![], vec![]));
}

#[test]
fn a_withdrawn_message_that_was_stored_ends_by_a_mark() {
    let mut pair = Pair::new(DURABLE);
    pair.marks = Marks::Left;
    let unstored = pair.publish(&Publish::new("a", b"1").exactly_once()).unwrap().unwrap();
    assert!(pair.client.withdraw(unstored));
    assert_eq!(pair.client.next_mark(), None);
    let stored = pair.publish(&Publish::new("a", b"2").exactly_once()).unwrap().unwrap();
    pair.client.mark_stored(Mark { id: stored, stage: Stage::Accepted });
    assert!(pair.client.withdraw(stored));
    assert_eq!(pair.client.next_mark(), Some(Mark { id: stored, stage: Stage::Done }));
}

#[test]
fn a_message_that_the_store_refused_is_taken_back_and_one_that_is_stored_is_not() {
    let mut pair = by_hand();
    let refused = pair.publish(&Publish::new("a", b"1").exactly_once()).unwrap().unwrap();
    let stored = pair.publish(&Publish::new("a", b"2").exactly_once()).unwrap().unwrap();
    pair.client.mark_stored(Mark { id: refused, stage: Stage::Refused });
    assert_eq!(pair.client.next_mark(), Some(Mark { id: stored, stage: Stage::Accepted }));
    store(&mut pair, stored.get(), Stage::Accepted);
    pair.client.mark_stored(Mark { id: stored, stage: Stage::Refused });
    assert_eq!(pair.client.outgoing_count(), 1);
    pair.run();
    let sent = Packet::Publish { dup: false, id: stored.get(), message: Message::new("a", "2").qos(2) };
    assert_eq!(pair.sent_of(PUBLISH), [sent]);
}

#[test]
fn what_a_store_keeps_is_published_and_subscribed_as_anything_else() {
    let mut pair = by_hand();
    assert_eq!(pair.client.publish_stored(&Publish::new("a", b"1"), None), Ok(None), "at QoS 0 it is not kept");
    let publish = Publish::new("a", b"not looked at").exactly_once();
    assert_eq!(pair.client.publish_stored(&publish, Some(External { key: 7, len: 1 })), Ok(Some(id(1))));
    assert_eq!(pair.client.next_mark(), Some(mark(1, Stage::Accepted)));
    for (filter, expected) in [("", Err(SubscribeError::InvalidFilter)), ("f/#", Ok(id(2)))] {
        let filter = Topic::from_store(filter.as_bytes());
        assert_eq!(pair.client.subscribe_stored(filter, QoS::AtLeastOnce), expected);
    }
    pair.run();
    assert_eq!(pair.sent_of(PUBLISH), [Packet::Publish { dup: false, id: 0, message: Message::new("a", "1") }]);
    assert_eq!(pair.sent_of(SUBSCRIBE), [Packet::Subscribe { id: 2, filters: vec![("f/#".to_owned(), 1)] }]);
}

#[test]
fn a_restored_message_goes_out_with_dup_and_under_its_identifier() {
    // [MQTT-3.3.1-1] [MQTT-2.3.1-3] [F05]
    let mut pair = by_hand();
    pair.drop_next(PUBREC);
    pair.publish(&Publish::new("a", b"1").exactly_once()).unwrap();
    store(&mut pair, 1, Stage::Accepted);
    pair.power_cut();
    pair.clear();
    pair.run();
    assert_eq!(pair.sent_of(PUBLISH), [Packet::Publish { dup: true, id: 1, message: Message::new("a", "1").qos(2) }]);
    assert_eq!(pair.broker.received(), [] as [(&str, &str); 0], "received before the cut, and not again");
}

#[test]
fn a_restored_message_goes_out_as_new_to_a_server_that_lost_the_session() {
    let mut pair = by_hand();
    pair.drop_next(PUBREC);
    pair.publish(&Publish::new("a", b"1").exactly_once()).unwrap();
    store(&mut pair, 1, Stage::Accepted);
    pair.power_cut();
    pair.broker.restart(Persistence::Lost);
    pair.clear();
    pair.run();
    assert_eq!(pair.sent_of(PUBLISH), [Packet::publish(1, Message::new("a", "1").qos(2))]);
}

#[test]
fn restored_releases_leave_before_messages_and_in_their_order() {
    // [MQTT-4.6.0-4] [MQTT-4.6.0-1]
    let mut pair = Pair::new(DURABLE);
    pair.broker.claim_session_present = Some(true);
    pair.client.restore(Restored::Released(id(7))).unwrap();
    pair.client.restore(Restored::Released(id(3))).unwrap();
    for (number, text) in [(9, "1"), (2, "2")] {
        let publish = Publish::new("a", text.as_bytes()).exactly_once();
        pair.client.restore(Restored::Message { id: id(number), publish }).unwrap();
    }
    pair.open();
    let mut out = [0; 256];
    let now = dunlin_core::Instant::from_millis(0);
    assert!(matches!(pair.client.transmit(now, &mut out), dunlin_core::Transmit::Bytes(_)));
    pair.inbox.push(b"\x20\x02\x01\x00");
    assert_eq!(pair.poll(), Some(Connected { resumed: true }));
    let dunlin_core::Transmit::Bytes(count) = pair.client.transmit(now, &mut out) else { panic!("more to send") };
    assert_eq!(out[..count], *b"\x62\x02\x00\x07\x62\x02\x00\x03\x3c\x06\x00\x01a\x00\x091\x3c\x06\x00\x01a\x00\x022");
}

#[test]
fn a_restored_identifier_silences_the_message_it_stands_for() {
    let mut pair = Pair::new(DURABLE);
    pair.broker.always(PUBREL, Then::Drop);
    pair.broker.claim_session_present = Some(true);
    pair.client.restore(Restored::Received(id(7))).unwrap();
    pair.run();
    pair.clear();
    let message = Message::new("a", "1").qos(2);
    pair.broker.inject(CLIENT, Packet::Publish { dup: true, id: 7, message });
    pair.run();
    assert_eq!(pair.client_events(), []);
    assert_eq!(pair.sent(), [Packet::Pubrec(7)]);
}

#[test]
fn a_restored_identifier_is_not_given_out_again_whatever_was_restored_before_it() {
    // [MQTT-2.3.1-2] [F02]
    let message = Publish::new("a", b"1").exactly_once();
    let entries = [Restored::Message { id: id(3), publish: message }, Restored::Released(id(3))];
    for entry in entries {
        let mut pair = Pair::new(DURABLE);
        // It takes an identifier of its own, and the next ones are looked up with it.
        pair.client.restore(subscription("r", QoS::AtMostOnce)).unwrap();
        pair.client.restore(entry).unwrap();
        let given: Vec<u16> = (0..4).map(|_| pair.publish(&message).unwrap().unwrap().get()).collect();
        assert_eq!(given, [2, 4, 5, 6], "{entry:?}");
    }
}

#[test]
fn a_restored_subscription_is_made_sure_of_on_the_first_connection_and_again_when_the_server_has_lost_it() {
    for present in [true, false] {
        let mut pair = Pair::new(DURABLE);
        pair.broker.claim_session_present = Some(present);
        pair.client.restore(subscription("r/#", QoS::AtLeastOnce)).unwrap();
        pair.run();
        assert_eq!(pair.sent_of(SUBSCRIBE).len(), 1);
        pair.cut();
        pair.run();
        assert_eq!(pair.sent_of(SUBSCRIBE).len(), 1 + usize::from(!present));
    }
}

#[test]
fn what_does_not_fit_is_refused_by_restore_and_changes_nothing() {
    let mut pair = Pair::with(DURABLE, Sizes { tx: 40, slots: 2, received: 3, filters: 10, ..Default::default() });
    let publish = Publish::new("a", b"1").exactly_once();
    pair.client.restore(Restored::Message { id: id(5), publish }).unwrap();
    pair.client.restore(Restored::Received(id(5))).unwrap();
    let entries = [
        (Restored::Message { id: id(5), publish }, RestoreError::PacketIdInUse),
        (Restored::Released(id(5)), RestoreError::PacketIdInUse),
        (Restored::Received(id(5)), RestoreError::PacketIdInUse),
        (Restored::Message { id: id(6), publish: Publish::new("a/+", b"").exactly_once() }, RestoreError::Invalid),
        (Restored::Message { id: id(6), publish: Publish::new("", b"").exactly_once() }, RestoreError::Invalid),
        (Restored::Message { id: id(6), publish: Publish::new("a", b"") }, RestoreError::Invalid),
        (external(6, b"a/+", QoS::ExactlyOnce), RestoreError::Invalid),
        (external(6, b"a\xff", QoS::ExactlyOnce), RestoreError::Invalid),
        (external(6, b"a", QoS::AtMostOnce), RestoreError::Invalid),
        (Restored::Message { id: id(6), publish: Publish::new("a", &[0; 40]).exactly_once() }, RestoreError::Full),
        (subscription("a/long/filter", QoS::AtMostOnce), RestoreError::Full),
    ];
    for (entry, error) in entries {
        let before = pair.snapshot();
        assert_eq!(pair.client.restore(entry), Err(error));
        assert_eq!(pair.snapshot(), before, "{entry:?}");
    }
    pair.client.restore(Restored::Released(id(6))).unwrap();
    pair.client.restore(Restored::Received(id(6))).unwrap();
    for entry in [Restored::Released(id(7)), Restored::Received(id(7)), Restored::Message { id: id(7), publish }] {
        let before = pair.snapshot();
        assert_eq!(pair.client.restore(entry), Err(RestoreError::Full));
        assert_eq!(pair.snapshot(), before, "{entry:?}");
    }
    pair.open();
    let before = pair.snapshot();
    assert_eq!(pair.client.restore(Restored::Received(id(1))), Err(RestoreError::Connected));
    assert_eq!(pair.snapshot(), before);
}

#[test]
fn a_restored_filter_has_a_length_that_subscribe_can_express() {
    // [MQTT-4.7.3-1] [MQTT-4.7.3-3]
    let mut pair = Pair::with(DURABLE, Sizes { filters: 200_000, ..Default::default() });
    for (len, expected) in [(0, Err(RestoreError::Invalid)), (65_535, Ok(())), (65_536, Err(RestoreError::Invalid))] {
        assert_eq!(pair.client.restore(subscription(&"a".repeat(len), QoS::AtMostOnce)), expected, "{len}");
    }
    pair.run();
    assert_eq!(pair.sent_of(SUBSCRIBE).len(), 1);
    assert!(pair.client.is_idle());
}

#[test]
fn a_replaced_message_is_stored_under_the_identifier_it_took_over() {
    let mut pair = Pair::new(DURABLE);
    pair.marks = Marks::Left;
    for text in [&b"old"[..], b"new"] {
        let publish = Publish::new("t", text).at_least_once();
        assert_eq!(pair.publish_replacing(&publish, dunlin_core::Replace::SameTopic), Ok(Some(id(1))));
        let expected = mark(1, Stage::Accepted);
        assert_eq!(pair.client.next_mark(), Some(expected));
        pair.store.put(expected);
        pair.client.mark_stored(expected);
    }
    pair.marks = Marks::Stored;
    pair.run();
    assert_eq!(pair.broker.received(), [("t", b"new")]);
    assert_eq!(pair.store.outgoing(), (vec![], vec![]));
}

#[test]
fn the_inbound_table_stays_in_step_when_marks_are_slow() {
    let mut pair = Pair::with(DURABLE, Sizes { received: 5, ..Default::default() }).up();
    pair.broker.max_in_flight = 4;
    pair.subscribe("in", QoS::ExactlyOnce).unwrap();
    pair.run();
    pair.clear();
    pair.marks = Marks::Left;
    for number in 0..20 {
        pair.broker.publish(Message::new("in", number.to_string()).qos(2));
    }
    pair.run();
    while let Some(next) = pair.client.next_mark() {
        pair.client.mark_stored(next);
        pair.run();
    }
    assert_eq!(pair.messages().len(), 20);
    assert_eq!(pair.broker.unfinished(CLIENT), 0);
    assert!(!pair.client_events().iter().any(|seen| matches!(seen, Seen::Fault(_) | Seen::Again(_))));
    pair.broker.on_next(PUBREC, Then::Drop);
}
