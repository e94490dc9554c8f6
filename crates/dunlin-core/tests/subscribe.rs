//! SUBSCRIBE, UNSUBSCRIBE, and the session's own re-subscription.

use dunlin_core::{Fault, Filter, Options, Publish, QoS, Request, SubscribeError, Violation};
use dunlin_testkit::Seen::{self, Connected, Delivered, Fault as Faulted, Subscribed, Unsubscribed};
use dunlin_testkit::{
    CLEAN, CLIENT, Message, PUBREC, Packet, Pair, Persistence, RESUMING, SUBACK, SUBSCRIBE, Sizes, Then, UNSUBACK,
    UNSUBSCRIBE,
};

use crate::id;

const TABLE: &[Filter] = &[Filter::literal("s/1", QoS::AtLeastOnce), Filter::literal("s/2/#", QoS::ExactlyOnce)];
const WITH_TABLE: Options = RESUMING.subscriptions(TABLE);

fn granted(request: u16, codes: &[u8]) -> Seen {
    Subscribed { request: Request::Filters(id(request)), codes: codes.to_vec() }
}

fn table_granted(codes: &[u8]) -> Seen {
    Subscribed { request: Request::Table { first: 0 }, codes: codes.to_vec() }
}

fn filter(text: &str) -> Filter<'_> {
    Filter::new(text, QoS::AtMostOnce).unwrap()
}

#[test]
fn several_filters_leave_in_one_packet_and_each_has_its_answer() {
    // [MQTT-3.8.1-1] [MQTT-3.8.3-1] [MQTT-3.9.3-1] [MQTT-3.8.4-1] [MQTT-3.8.4-2] [MQTT-3.8.3-4]
    let mut pair = Pair::clean();
    pair.broker.refused_filters.insert("b/ü".into());
    let filters = [("a/+/#", QoS::AtMostOnce), ("b/ü", QoS::AtLeastOnce), ("c", QoS::ExactlyOnce)]
        .map(|(text, qos)| Filter::new(text, qos).unwrap());
    assert_eq!(pair.client.subscribe(&filters), Ok(id(1)));
    pair.run();
    let expected = vec![("a/+/#".to_string(), 0), ("b/ü".to_string(), 1), ("c".to_string(), 2)];
    assert_eq!(pair.sent(), [Packet::Subscribe { id: 1, filters: expected }]);
    assert_eq!(pair.client_events(), [granted(1, &[0, 0x80, 2])]);
}

#[test]
fn filters_may_come_from_anywhere() {
    // [MQTT-3.8.3-3] [MQTT-3.10.3-2]
    let (mut together, mut apart) = (Pair::clean(), Pair::clean());
    let filters = [("a/+/#", QoS::AtMostOnce), ("b", QoS::ExactlyOnce)];
    let filters = filters.map(|(text, qos)| Filter::new(text, qos).unwrap());
    assert_eq!(apart.client.subscribe_each(filters.iter().copied()), together.client.subscribe(&filters));
    assert_eq!(apart.client.unsubscribe_each(["b", "c"].into_iter()), together.client.unsubscribe(&["b", "c"]));
    together.run();
    apart.run();
    assert_eq!(apart.sent(), together.sent());
    assert_eq!(apart.client_events(), together.client_events());

    let refused = |pair: &mut Pair| {
        let many = std::iter::repeat_n(filter("a"), 100_000);
        assert_eq!(pair.client.subscribe_each(many), Err(SubscribeError::Full));
        assert_eq!(pair.client.subscribe_each(std::iter::empty()), Err(SubscribeError::Empty));
        assert_eq!(pair.client.unsubscribe_each(std::iter::empty()), Err(SubscribeError::Empty));
        assert_eq!(pair.client.unsubscribe_each(["a", "a#"].into_iter()), Err(SubscribeError::InvalidFilter));
        assert_eq!(pair.client.unsubscribe_each(std::iter::repeat_n("a", 100_000)), Err(SubscribeError::Full));
    };
    refused(&mut apart);
    apart.clear();
    apart.run();
    assert_eq!(apart.sent(), []);
}

#[test]
fn a_refused_filter_is_reported_and_the_connection_stays() {
    // [D17] [MQTT-3.8.4-5] [MQTT-3.8.3-2]
    let mut pair = Pair::clean();
    pair.broker.refused_filters.insert("a/#".into());
    pair.client.subscribe(&[filter("a/#")]).unwrap();
    pair.run();
    assert_eq!(pair.client_events(), [granted(1, &[0x80])]);
    assert!(pair.is_up() && pair.client.is_idle());
}

#[test]
fn a_lower_qos_than_asked_is_reported_and_accepted() {
    // [MQTT-3.8.4-6]
    let mut pair = Pair::clean();
    pair.broker.max_qos = 1;
    pair.subscribe("a", QoS::ExactlyOnce).unwrap();
    pair.run();
    assert_eq!(pair.take_events(), [granted(1, &[1])]);
    pair.broker.publish(Message::new("a", "x").qos(2));
    pair.run();
    assert_eq!(pair.client_events(), [Seen::Message(Message::new("a", "x").qos(1))]);
}

#[test]
fn more_than_was_asked_for_is_reported_and_accepted() {
    // [D19] [C28]
    let mut pair = Pair::clean();
    pair.drop_next(SUBACK);
    pair.subscribe("a", QoS::AtMostOnce).unwrap();
    pair.run();
    pair.send_raw(b"\x90\x03\x00\x01\x02");
    pair.broker.inject(CLIENT, Packet::publish(5, Message::new("a", "x").qos(2)));
    pair.run();
    assert_eq!(pair.client_events(), [granted(1, &[2]), Seen::Message(Message::new("a", "x").qos(2))]);
}

#[test]
fn what_is_no_filter_is_refused_with_the_session_unchanged() {
    // [MQTT-3.8.3-3] [MQTT-3.10.3-2] [MQTT-4.7.1-2] [MQTT-4.7.1-3] [MQTT-4.7.3-1] [MQTT-4.7.3-2]
    let mut pair = Pair::clean();
    assert_eq!(pair.client.subscribe(&[]), Err(SubscribeError::Empty));
    assert_eq!(pair.client.unsubscribe(&[]), Err(SubscribeError::Empty));
    for wrong in ["", "a#", "#/a", "a/#/b", "##", "a+", "+a/b", "a/b+/c", "++", "a\0b"] {
        assert!(Filter::new(wrong, QoS::AtMostOnce).is_err(), "{wrong:?}");
        assert_eq!(pair.client.unsubscribe(&["a", wrong]), Err(SubscribeError::InvalidFilter), "{wrong:?}");
    }
    for right in ["#", "+", "/", "+/+", "/+", "a/+/#", "+/#", "$SYS/#", "a b", " "] {
        assert!(Filter::new(right, QoS::AtMostOnce).is_ok(), "{right:?}");
    }
    pair.run();
    assert_eq!(pair.sent(), []);
}

#[test]
fn filters_and_names_have_at_most_65535_bytes() {
    // [MQTT-4.7.3-3]
    let long = "x".repeat(65_536);
    assert!(Filter::new(&long, QoS::AtMostOnce).is_err());
    assert!(Filter::new(&long[1..], QoS::AtMostOnce).is_ok());
    let sizes = Sizes { filters: 70_000, tx: 70_000, ..Default::default() };
    let mut pair = Pair::with(CLEAN, sizes).up();
    pair.out = 64;
    pair.client.subscribe(&[filter(&long[1..])]).unwrap();
    let name = "y".repeat(65_536);
    pair.publish(&Publish::new(&name[1..], b"").at_least_once()).unwrap();
    assert!(pair.publish(&Publish::new(&name, b"").at_least_once()).is_err());
    pair.run();
    assert_eq!(pair.client_events(), [granted(1, &[0]), Delivered(id(2))]);
}

#[test]
fn unsubscribe_names_the_filters_as_they_are() {
    // [MQTT-3.10.1-1] [MQTT-3.10.3-1] [MQTT-3.10.4-1] [MQTT-3.10.4-4]
    let mut pair = Pair::clean();
    for text in ["a/+", "ü"] {
        pair.subscribe(text, QoS::AtMostOnce).unwrap();
    }
    pair.run();
    pair.clear();
    let request = pair.client.unsubscribe(&["a/+", "ü", "never"]).unwrap();
    pair.run();
    let filters = vec!["a/+".to_string(), "ü".to_string(), "never".to_string()];
    assert_eq!(pair.sent(), [Packet::Unsubscribe { id: request.get(), filters }]);
    assert_eq!(pair.client_events(), [Unsubscribed(request)]);
    assert_eq!(pair.broker.subscriptions(CLIENT), []);
}

#[test]
fn messages_that_are_under_way_after_unsubscribe_are_taken() {
    // [MQTT-3.10.4-3] [C22]
    let mut pair = Pair::resuming();
    pair.subscribe("a", QoS::ExactlyOnce).unwrap();
    pair.run();
    pair.drop_next(dunlin_testkit::PUBREL);
    pair.broker.publish(Message::new("a", "1").qos(2));
    pair.run();
    pair.unsubscribe("a").unwrap();
    pair.run();
    pair.broker.inject(CLIENT, Packet::publish(9, Message::new("a", "2").qos(1)));
    pair.cut();
    pair.run();
    assert_eq!(pair.messages(), [("a", b"1")]);
    assert_eq!(pair.broker.unfinished(CLIENT), 0);
}

#[test]
fn a_message_may_come_before_the_suback() {
    // [C21] [U311-08] [MQTT-3.3.1-6] [MQTT-3.3.1-8]
    let mut pair = Pair::clean();
    pair.broker.publish_before_suback = true;
    pair.broker.publish(Message::new("a", "kept").qos(1).retained());
    pair.subscribe("a", QoS::AtLeastOnce).unwrap();
    pair.run();
    let kept = Message::new("a", "kept").qos(1).retained();
    assert_eq!(pair.client_events(), [Seen::Message(kept), granted(1, &[1])]);
    assert_eq!(pair.sent_of(dunlin_testkit::PUBACK), [Packet::Puback(1)]);
}

#[test]
fn retain_tells_kept_messages_from_fresh_ones_and_an_empty_one_is_a_message() {
    // [MQTT-3.3.1-8] [MQTT-3.3.1-9] [MQTT-3.3.1-10] [C23]
    let mut pair = Pair::clean();
    pair.broker.publish(Message::new("a", "kept").retained());
    pair.subscribe("a", QoS::AtMostOnce).unwrap();
    pair.run();
    pair.broker.publish(Message::new("a", "").retained());
    pair.broker.inject(CLIENT, Packet::publish(0, Message::new("a", "").retained()));
    pair.run();
    let kept = Message::new("a", "kept").retained();
    let gone = Message::new("a", "");
    let empty = Message::new("a", "").retained();
    assert_eq!(pair.client_events()[1..], [kept, gone, empty].map(Seen::Message));
}

#[test]
fn an_answer_to_another_request_ends_nothing() {
    // [MQTT-2.3.1-7] [MQTT-3.8.4-2] [D18] [D20]
    let mut pair = Pair::clean();
    pair.broker.always(SUBACK, Then::Hold);
    pair.subscribe("a", QoS::AtMostOnce).unwrap();
    pair.subscribe("b", QoS::AtMostOnce).unwrap();
    pair.run();
    pair.send_raw(b"\x90\x03\x00\x09\x00");
    pair.send_raw(b"\x90\x03\xff\xff\x80");
    pair.run();
    assert_eq!(pair.client_events(), []);
    assert_eq!(pair.client.ignored_count(), 2);
    pair.broker.release(1);
    pair.broker.release(0);
    pair.run();
    assert_eq!(pair.take_events(), [granted(2, &[0]), granted(1, &[0])]);
    pair.send_raw(b"\x90\x03\x00\x01\x80");
    pair.run();
    assert_eq!(pair.client_events(), [], "a second answer says nothing");
    assert_eq!(pair.broker.subscriptions(CLIENT).len(), 2);
}

#[test]
fn unsuback_twice_is_ignored() {
    // [D20]
    let mut pair = Pair::clean();
    pair.broker.on_next(UNSUBACK, Then::Twice);
    let request = pair.unsubscribe("a").unwrap();
    pair.run();
    assert_eq!(pair.client_events(), [Unsubscribed(request)]);
    assert_eq!(pair.client.ignored_count(), 1);
}

#[test]
fn an_answer_of_another_kind_never_completes_a_request() {
    // [D12] [D13] [F03]
    let mut pair = Pair::clean();
    for kind in [SUBACK, UNSUBACK, dunlin_testkit::PUBACK] {
        pair.broker.always(kind, Then::Hold);
    }
    let subscribed = pair.subscribe("a", QoS::AtMostOnce).unwrap();
    let unsubscribed = pair.unsubscribe("b").unwrap();
    let published = pair.publish(&Publish::new("c", b"").at_least_once()).unwrap().unwrap();
    assert_eq!([subscribed, unsubscribed, published], [id(1), id(2), id(3)], "one space of identifiers");
    pair.run();
    for wrong in [
        &b"\x90\x03\x00\x02\x00"[..], // SUBACK for the UNSUBSCRIBE
        b"\x90\x03\x00\x03\x00",      // ... for the PUBLISH
        b"\xb0\x02\x00\x01",          // UNSUBACK for the SUBSCRIBE
        b"\xb0\x02\x00\x03",          // ... for the PUBLISH
        b"\x40\x02\x00\x01",          // PUBACK for the SUBSCRIBE
        b"\x40\x02\x00\x02",          // ... for the UNSUBSCRIBE
        b"\x70\x02\x00\x01",          // PUBCOMP
    ] {
        pair.send_raw(wrong);
        pair.run();
        assert_eq!(pair.client_events(), [], "{wrong:02x?}");
    }
    assert_eq!(pair.client.ignored_count(), 7);
    pair.broker.release_all();
    pair.run();
    assert_eq!(pair.client_events(), [granted(1, &[0]), Unsubscribed(id(2)), Delivered(id(3))]);
}

#[test]
fn a_wrong_number_of_return_codes_ends_the_connection() {
    // [D14] [D15] [MQTT-3.8.4-5]
    for codes in [&b"\x00"[..], b"\x00\x00\x00"] {
        for is_table in [false, true] {
            let mut pair = Pair::new(if is_table { WITH_TABLE } else { RESUMING });
            pair.broker.always(SUBACK, Then::Drop);
            if !is_table {
                pair.client.subscribe(&[filter("a"), filter("b")]).unwrap();
            }
            pair.run();
            pair.clear();
            pair.send_raw(&dunlin_testkit::raw(0x90, &[b"\x00\x01", codes].concat()));
            pair.run();
            assert_eq!(pair.client_events(), [Faulted(Fault::Malformed(Violation::ReturnCodeCount))]);
            // The request has not been answered: it goes out again.
            pair.clear();
            pair.broker.behave();
            pair.run();
            assert_eq!(pair.broker.subscriptions(CLIENT).len(), 2);
            assert!(pair.client.is_idle());
        }
    }
}

#[test]
fn a_reserved_return_code_ends_the_connection() {
    // [D16] [MQTT-3.9.3-2]
    for code in (0..=255).filter(|code| ![0, 1, 2, 0x80].contains(code)) {
        let mut pair = Pair::clean();
        pair.drop_next(SUBACK);
        pair.subscribe("a", QoS::AtMostOnce).unwrap();
        pair.run();
        pair.send_raw(&[0x90, 3, 0, 1, code]);
        pair.run();
        assert_eq!(pair.client_events(), [Faulted(Fault::Malformed(Violation::ReturnCode))], "{code:02x}");
    }
}

#[test]
fn a_request_without_an_answer_is_asked_again_on_the_next_connection() {
    // [MQTT-3.8.4-1]
    for present in [true, false] {
        let mut pair = Pair::resuming();
        pair.drop_next(SUBACK);
        pair.drop_next(UNSUBACK);
        let subscribed = pair.subscribe("a", QoS::AtMostOnce).unwrap();
        let unsubscribed = pair.unsubscribe("b").unwrap();
        pair.run();
        if !present {
            pair.broker.forget(CLIENT);
        }
        pair.cut();
        pair.run();
        assert_eq!(
            pair.client_events(),
            [Connected { resumed: present }, granted(subscribed.get(), &[0]), Unsubscribed(unsubscribed)]
        );
        assert_eq!(pair.broker.subscriptions(CLIENT), [("a".to_string(), 0)]);
    }
}

#[test]
fn a_resumed_session_is_not_subscribed_again() {
    let mut pair = Pair::connected(WITH_TABLE);
    pair.subscribe("r", QoS::AtMostOnce).unwrap();
    pair.run();
    pair.cut();
    pair.clear();
    pair.run();
    assert_eq!(pair.sent_of(SUBSCRIBE), []);
    assert_eq!(pair.client_events(), [Connected { resumed: true }]);
}

#[test]
fn a_lost_session_is_subscribed_again_without_a_line_of_application_code() {
    // [MQTT-3.2.2-3] [B09]
    let mut pair = Pair::connected(WITH_TABLE);
    pair.subscribe("r/1", QoS::AtLeastOnce).unwrap();
    pair.client.subscribe(&[filter("r/2"), filter("r/3")]).unwrap();
    pair.run();
    pair.client.unsubscribe(&["r/2"]).unwrap();
    pair.run();
    pair.broker.restart(Persistence::Lost);
    pair.clear();
    pair.run();
    let names: Vec<String> = pair.broker.subscriptions(CLIENT).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["r/1", "r/3", "s/1", "s/2/#"]);
    assert!(pair.client_events().contains(&table_granted(&[1, 2])));
    assert!(pair.client.is_idle());
}

#[test]
fn a_clean_session_is_subscribed_again_on_every_connection() {
    // [MQTT-3.1.2-6]
    let mut pair = Pair::connected(CLEAN.subscriptions(TABLE));
    pair.subscribe("r", QoS::AtMostOnce).unwrap();
    pair.run();
    for _ in 0..3 {
        pair.cut();
        pair.run();
        assert_eq!(pair.broker.subscriptions(CLIENT).len(), 3);
        assert!(pair.client.is_idle());
    }
}

#[test]
fn a_table_that_the_session_never_saw_answered_is_subscribed_although_the_server_has_a_session() {
    let mut pair = Pair::resuming();
    pair.replace_client(WITH_TABLE);
    pair.run();
    assert_eq!(pair.client_events(), [Connected { resumed: true }, table_granted(&[1, 2])]);
}

#[test]
fn a_long_table_leaves_in_packets_that_servers_take() {
    const MANY: &[Filter] = &{
        const NAMES: [&str; 20] = [
            "t/a", "t/b", "t/c", "t/d", "t/e", "t/f", "t/g", "t/h", "t/i", "t/j", "t/k", "t/l", "t/m", "t/n", "t/o",
            "t/p", "t/q", "t/r", "t/s", "t/t",
        ];
        let mut filters = [Filter::literal("x", QoS::AtMostOnce); 20];
        let mut at = 0;
        while at < 20 {
            filters[at] = Filter::literal(NAMES[at], QoS::AtMostOnce);
            at += 1;
        }
        filters
    };
    for refused in ["t/a", "t/h", "t/i", "t/t"] {
        let mut pair = Pair::new(RESUMING.subscriptions(MANY));
        pair.broker.refused_filters.insert(refused.into());
        pair.run();
        assert_eq!(pair.broker.subscriptions(CLIENT).len(), 19);
        let mut codes: Vec<u8> = Vec::new();
        for seen in pair.client_events() {
            if let Subscribed { request: Request::Table { first }, codes: more } = seen {
                assert_eq!(*first, codes.len());
                codes.extend(more);
            }
        }
        let expected: Vec<u8> = MANY.iter().map(|filter| if filter.text() == refused { 0x80 } else { 0 }).collect();
        assert_eq!(codes, expected);
    }
}

#[test]
fn the_session_subscribes_before_it_sends_what_waited() {
    let mut pair = Pair::new(WITH_TABLE);
    pair.publish(&Publish::new("s/1", b"echo").at_least_once()).unwrap();
    pair.run();
    assert_eq!(pair.messages(), [("s/1", b"echo")], "it sees its own message, so it was subscribed");
}

#[test]
fn a_filter_subscribed_to_twice_is_kept_once() {
    let mut pair = Pair::with(RESUMING, Sizes { filters: 40, ..Default::default() }).up();
    for round in 0..20 {
        let request = pair.subscribe("some/filter", QoS::AtMostOnce).unwrap_or_else(|error| panic!("{round}: {error}"));
        pair.run();
        assert_eq!(pair.take_events(), [granted(request.get(), &[0])]);
    }
}

#[test]
fn a_refused_filter_is_not_asked_for_again() {
    let mut pair = Pair::resuming();
    pair.broker.refused_filters.insert("a".into());
    pair.subscribe("a", QoS::AtMostOnce).unwrap();
    pair.run();
    pair.broker.refused_filters.clear();
    pair.broker.restart(Persistence::Lost);
    pair.run();
    assert_eq!(pair.broker.subscriptions(CLIENT), []);
}

#[test]
fn identifiers_of_requests_and_messages_never_meet() {
    // [F03] [MQTT-2.3.1-2]
    let mut pair = Pair::with(RESUMING, Sizes { filters: 400, slots: 20, ..Default::default() }).up();
    for kind in [SUBACK, UNSUBACK, PUBREC, dunlin_testkit::PUBACK] {
        pair.broker.always(kind, Then::Drop);
    }
    for round in 0..6_u8 {
        let text = format!("f/{round}");
        pair.subscribe(&text, QoS::AtMostOnce).unwrap();
        pair.publish(&Publish::new("a", &[round]).with_qos(QoS::from_bits(1 + round % 2).unwrap())).unwrap();
        pair.unsubscribe(&text).unwrap();
        pair.run();
    }
    let mut ids: Vec<u16> = pair.sent().iter().filter_map(Packet::id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), pair.sent().len());
    assert_eq!(pair.sent_of(UNSUBSCRIBE).len(), 6);
}

#[test]
fn own_matching_leaves_dollar_topics_alone_and_compares_bytes() {
    // [MQTT-4.7.2-1] [MQTT-4.7.3-4]
    for (text, topic, is) in [
        ("#", "$SYS/a", false),
        ("+/a", "$SYS/a", false),
        ("$SYS/#", "$SYS/a", true),
        ("$SYS/+", "$SYS/a", true),
        ("a/#", "a", true),
        ("a/#", "ab", false),
        ("a/+", "a", false),
        ("a/+", "a/", true),
        ("+", "a/b", false),
        ("+/+", "/a", true),
        ("/+", "/a", true),
        ("a", "A", false),
        ("a", "a/", false),
        ("é", "e\u{301}", false),
        ("a/+/c", "a//c", true),
        ("a/+/c", "a/b/c/d", false),
    ] {
        assert_eq!(filter(text).matches(topic), is, "{text} {topic}");
        assert_eq!(dunlin_testkit::packet::matches(text, topic), is, "the referee agrees on {text} {topic}");
    }
}
