//! CONNECT, CONNACK and DISCONNECT.

use dunlin_core::{Client, Fault, Instant, InvalidOptions, Options, Publish, QoS, Refusal, Transmit, Violation};
use dunlin_testkit::Seen::{Connected, Delivered, Fault as Faulted};
use dunlin_testkit::{CLEAN, CLIENT, CONNACK, CONNECT, Connect, Message, PUBLISH, Packet, Pair, RESUMING, Then};

/// A pair whose client has sent CONNECT and waits for CONNACK.
fn waiting_for_connack(options: Options<'static>) -> Pair {
    let mut pair = Pair::new(options);
    pair.broker.on_next(CONNACK, Then::Drop);
    pair.run();
    assert_eq!(pair.sent_kinds(), [CONNECT]);
    assert_eq!(pair.client_events(), []);
    pair
}

/// CONNECT as these options put it.
fn connect_of(options: Options<'static>) -> Connect {
    let mut pair = Pair::new(options);
    pair.run();
    match pair.sent() {
        [Packet::Connect(connect), ..] => connect.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn connect_comes_first_and_once() {
    // [MQTT-3.1.0-1] [MQTT-3.1.0-2] [U311-04]
    let mut pair = Pair::new(RESUMING);
    pair.publish(&Publish::new("a", b"1").exactly_once()).unwrap();
    pair.subscribe("b", QoS::AtLeastOnce).unwrap();
    pair.run();
    assert_eq!(pair.sent_kinds()[0], CONNECT);
    assert_eq!(pair.sent_of(CONNECT).len(), 1);
}

#[test]
fn nothing_follows_connect_until_connack_has_come() {
    // [U311-07]
    let mut pair = Pair::new(RESUMING);
    pair.broker.on_next(CONNACK, Then::Hold);
    let sent = pair.publish(&Publish::new("a", b"1").at_least_once()).unwrap().unwrap();
    pair.run();
    assert_eq!(pair.sent_kinds(), [CONNECT]);
    pair.broker.release_all();
    pair.run();
    assert_eq!(pair.client_events(), [Connected { resumed: false }, Delivered(sent)]);
}

#[test]
fn connect_is_written_byte_for_byte_as_the_standard_says() {
    // [MQTT-3.1.2-1] [MQTT-3.1.2-2] [MQTT-3.1.2-3] [MQTT-3.1.3-1] [MQTT-3.1.3-3] [MQTT-2.2.2-1]
    const OPTIONS: Options = Options::new("c7")
        .keep_alive(300)
        .will(Publish::new("w/t", b"\x00\xff").exactly_once().retain())
        .credentials("user", b"pa\x00s");
    let mut pair = Pair::new(OPTIONS);
    pair.open();
    let mut out = [0; 64];
    let dunlin_core::Transmit::Bytes(count) = pair.client.transmit(dunlin_core::Instant::from_millis(0), &mut out)
    else {
        panic!("CONNECT is to leave");
    };
    let expected =
        b"\x10\x23\x00\x04MQTT\x04\xf6\x01\x2c\x00\x02c7\x00\x03w/t\x00\x02\x00\xff\x00\x04user\x00\x04pa\x00s";
    assert_eq!(out[..count], expected[..]);
}

fn as_message(publish: &Publish<'_>) -> Message {
    let message = Message::new(publish.topic(), publish.payload()).qos(publish.qos().bits());
    if publish.is_retain() { message.retained() } else { message }
}

#[test]
fn connect_says_what_the_options_say_and_no_more() {
    // [MQTT-3.1.2-9] [MQTT-3.1.2-11] [MQTT-3.1.2-13] [MQTT-3.1.2-14] [MQTT-3.1.2-15] [U311-13]
    // [MQTT-3.1.2-18] [MQTT-3.1.2-19] [MQTT-3.1.2-20] [MQTT-3.1.2-21] [MQTT-3.1.2-22]
    // [MQTT-3.1.3-4] [MQTT-3.1.3-10] [MQTT-3.1.3-11] [U311-12]
    let message = |qos, retain| {
        let will = Publish::new("will/ü", b"").with_qos(qos);
        if retain { will.retain() } else { will }
    };
    let mut wills = vec![None];
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        wills.extend([Some(message(qos, false)), Some(message(qos, true))]);
    }
    type Access = (Option<&'static str>, Option<&'static [u8]>);
    let access: [Access; 5] =
        [(None, None), (Some(""), None), (Some("ü"), None), (Some(""), Some(b"")), (Some("user"), Some(b"\x00\xff"))];
    for will in wills {
        for (user_name, password) in access {
            for (clean, keep_alive) in [(true, 0), (false, 1), (true, 60), (false, 65535)] {
                let mut options = Options::new("ü").keep_alive(keep_alive);
                options = if clean { options } else { options.persistent() };
                options = will.map_or(options, |will| options.will(will));
                options = match (user_name, password) {
                    (Some(user_name), None) => options.user_name(user_name),
                    (Some(user_name), Some(password)) => options.credentials(user_name, password),
                    _ => options,
                };
                let will = will.as_ref().map(as_message);
                let expected = Connect {
                    client_id: "ü".into(),
                    clean,
                    keep_alive,
                    will,
                    user_name: user_name.map(Into::into),
                    password: password.map(Into::into),
                };
                assert_eq!(connect_of(options), expected);
            }
        }
    }
}

#[test]
fn an_empty_client_identifier_goes_with_a_clean_session_only() {
    // [MQTT-3.1.3-7] [MQTT-3.1.3-8]
    let connect = connect_of(Options::new(""));
    assert_eq!((connect.client_id.as_str(), connect.clean), ("", true));
    assert_eq!(Options::new("").persistent().check(), Err(InvalidOptions::ClientId));
    assert_eq!(Options::new("").durable().check(), Err(InvalidOptions::ClientId));
}

#[test]
fn options_that_mqtt_cannot_express_are_refused_before_a_byte_leaves() {
    // [MQTT-1.5.3-2] [MQTT-3.1.3-4] [MQTT-3.1.3-10] [MQTT-3.1.3-11] [MQTT-4.7.1-1]
    let long: &'static str = "x".repeat(65_536).leak();
    let fits = &long[1..];
    let will = |topic: &'static str| Options::new("c").will(Publish::new(topic, b""));
    for (options, wrong) in [
        (Options::new("a\0"), InvalidOptions::ClientId),
        (Options::new(long), InvalidOptions::ClientId),
        (Options::new("").persistent(), InvalidOptions::ClientId),
        (Options::new("c").user_name("a\0"), InvalidOptions::UserName),
        (Options::new("c").user_name(long), InvalidOptions::UserName),
        (Options::new("c").credentials("u", long.as_bytes()), InvalidOptions::Password),
        (will(""), InvalidOptions::Will),
        (will("a/+"), InvalidOptions::Will),
        (will("a/#"), InvalidOptions::Will),
        (will("a\0"), InvalidOptions::Will),
        (will(long), InvalidOptions::Will),
        (Options::new("c").will(Publish::new("w", long.as_bytes())), InvalidOptions::Will),
    ] {
        assert_eq!(options.check(), Err(wrong));
        let mut pair = Pair::new(options);
        pair.run();
        assert_eq!(pair.sent(), []);
        assert_eq!(pair.client_events(), [Faulted(Fault::Options(wrong))]);
        assert!(!Fault::Options(wrong).may_heal());
    }
    // Of several, the first in CONNECT is named; what is set anew counts, not what was.
    let user = |options: Options<'static>| options.credentials("a\0", long.as_bytes());
    assert_eq!(user(Options::new("\0")).will(Publish::new("", b"")).check(), Err(InvalidOptions::ClientId));
    assert_eq!(user(will("")).check(), Err(InvalidOptions::Will));
    assert_eq!(user(will("")).will(Publish::new("w", b"")).check(), Err(InvalidOptions::UserName));
    assert_eq!(user(will("w")).user_name("u").credentials("u", b"p").check(), Ok(()));
    for options in [Options::new(fits), Options::new("c").credentials(fits, fits.as_bytes()), will(fits)] {
        assert_eq!(options.check(), Ok(()));
    }
}

#[test]
fn what_is_known_at_run_time_only_is_set_as_the_constants_are() {
    // [MQTT-3.1.2-18] [MQTT-3.1.2-20] [MQTT-3.1.2-22] [MQTT-3.1.3-7]
    let with = |client: Client<'static>| {
        let mut options = Options::new("x").keep_alive(7).will(Publish::new("gone", b"").exactly_once());
        options.set_client(client).map(|()| options)
    };
    let client = Client { id: "c\u{fc}".as_bytes(), is_persistent: false, will: None, user_name: None, password: None };
    let named = Client { user_name: Some(b"user"), ..client };
    let will = Publish::new("w/t", b"\x00\xff").at_least_once().retain();
    let constant = || Options::new("c\u{fc}").keep_alive(7);
    let pairs = [
        (client, constant()),
        (Client { is_persistent: true, ..client }, constant().persistent()),
        (Client { id: b"", ..client }, Options::new("").keep_alive(7)),
        (named, constant().user_name("user")),
        (Client { password: Some(b"\0"), ..named }, constant().credentials("user", b"\0")),
        (Client { will: Some(will), ..named }, constant().will(will).user_name("user")),
    ];
    for (client, constant) in pairs {
        assert_eq!(connect_of(with(client).unwrap()), connect_of(constant));
    }
    let long: &'static [u8] = "a".repeat(65_536).leak().as_bytes();
    let refused = [
        (Client { id: b"\xff", ..client }, InvalidOptions::ClientId),
        (Client { id: b"a\0", ..client }, InvalidOptions::ClientId),
        (Client { id: long, ..client }, InvalidOptions::ClientId),
        (Client { id: b"", is_persistent: true, ..client }, InvalidOptions::ClientId),
        (Client { will: Some(Publish::new("a/#", b"")), ..client }, InvalidOptions::Will),
        (Client { will: Some(Publish::new("a", long)), ..client }, InvalidOptions::Will),
        (Client { user_name: Some(b"\xc0\x80"), ..client }, InvalidOptions::UserName),
        (Client { password: Some(b"p"), ..client }, InvalidOptions::Password),
        (Client { password: Some(long), ..named }, InvalidOptions::Password),
    ];
    for (client, why) in refused {
        assert_eq!(with(client).err(), Some(why));
    }
    let mut mended = Options::new("a\0");
    mended.set_client(client).unwrap();
    assert_eq!(mended.check(), Ok(()));
}

#[test]
fn every_refusal_is_told_apart_and_ends_the_connection_from_our_side_too() {
    // [B03] [B04] [MQTT-3.2.2-5] [MQTT-3.2.2-6] [MQTT-3.1.2-2] [MQTT-3.1.3-9] [U311-15]
    for code in 1..=255 {
        let refusal = match code {
            1 => Refusal::ProtocolVersion,
            2 => Refusal::ClientId,
            3 => Refusal::ServerUnavailable,
            4 => Refusal::Credentials,
            5 => Refusal::NotAuthorized,
            reserved => Refusal::Reserved(reserved),
        };
        let mut pair = waiting_for_connack(RESUMING);
        pair.send_raw(&[0x20, 2, 0, code]);
        pair.run();
        assert_eq!(pair.client_events(), [Faulted(Fault::Refused(refusal))]);
        assert!(!pair.is_open(), "closed, although the broker left it open");
        assert_eq!(pair.sent_kinds(), [CONNECT]);
    }
    assert!(Refusal::ServerUnavailable.may_heal() && !Refusal::Credentials.may_heal() && !Refusal::ClientId.may_heal());
}

#[test]
fn what_waits_behind_a_refused_connect_is_kept() {
    // [MQTT-3.1.4-5]
    let mut pair = Pair::new(RESUMING);
    pair.broker.refuse_connect = Some(3);
    let sent = pair.publish(&Publish::new("a", b"1").exactly_once()).unwrap().unwrap();
    pair.run();
    assert_eq!(pair.take_events(), [Faulted(Fault::Refused(Refusal::ServerUnavailable))]);
    pair.run();
    assert_eq!(pair.client_events(), [Connected { resumed: false }, Delivered(sent)]);
    assert_eq!(pair.broker.received(), [("a", b"1")]);
}

#[test]
fn a_connack_that_contradicts_itself_ends_the_connection() {
    // [B05] [B07] [MQTT-3.2.2-4]
    for flags in 0..=255_u8 {
        for code in [0, 1, 5] {
            if flags == 0 || (flags == 1 && code == 0) {
                continue;
            }
            let mut pair = waiting_for_connack(RESUMING);
            pair.send_raw(&[0x20, 2, flags, code]);
            pair.run();
            assert_eq!(pair.client_events(), [Faulted(Fault::Malformed(Violation::SessionPresent))]);
            assert!(!pair.is_open());
        }
    }
}

#[test]
fn session_present_after_a_clean_session_ends_the_connection() {
    // [B06] [MQTT-3.2.2-1]
    let mut pair = waiting_for_connack(CLEAN);
    pair.send_raw(b"\x20\x02\x01\x00");
    pair.run();
    assert_eq!(pair.client_events(), [Faulted(Fault::Malformed(Violation::SessionPresent))]);
}

#[test]
fn session_present_without_a_session_of_ours_is_accepted_and_reported() {
    // [B08]
    let mut pair = Pair::new(RESUMING);
    pair.broker.claim_session_present = Some(true);
    pair.run();
    assert_eq!(pair.client_events(), [Connected { resumed: true }]);
}

#[test]
fn a_second_connack_ends_the_connection_and_starts_nothing_again() {
    // [B10]
    const OPTIONS: Options = RESUMING.subscriptions(&[dunlin_core::Filter::literal("s", QoS::AtLeastOnce)]);
    let mut pair = Pair::connected(OPTIONS);
    pair.broker.always(dunlin_testkit::PUBREC, Then::Drop);
    pair.publish(&Publish::new("a", b"1").exactly_once()).unwrap();
    pair.run();
    pair.clear();
    pair.send_raw(b"\x20\x02\x00\x00");
    pair.run();
    assert_eq!(pair.sent(), []);
    assert_eq!(pair.client_events(), [Faulted(Fault::Malformed(Violation::OutOfPlace))]);
}

#[test]
fn only_the_first_connack_counts() {
    // [B19]
    let mut pair = waiting_for_connack(CLEAN);
    pair.send_raw(b"\x20\x02\x00\x05\x20\x02\x00\x00");
    pair.run();
    assert_eq!(pair.client_events(), [Faulted(Fault::Refused(Refusal::NotAuthorized))]);
}

#[test]
fn any_packet_before_connack_ends_the_connection() {
    // [B01] [B02] [MQTT-3.2.0-1]
    for early in [
        &b"\x30\x04\x00\x01ax"[..], // PUBLISH
        b"\xd0\x00",                // PINGRESP
        b"\x90\x03\x00\x01\x00",    // SUBACK
        b"\xb0\x02\x00\x01",        // UNSUBACK
        b"\x40\x02\x00\x01",        // PUBACK
        b"\x50\x02\x00\x01",        // PUBREC
        b"\x62\x02\x00\x01",        // PUBREL
        b"\x70\x02\x00\x01",        // PUBCOMP
    ] {
        let mut pair = waiting_for_connack(CLEAN);
        pair.send_raw(early);
        pair.send_raw(b"\x20\x02\x00\x00");
        pair.run();
        assert_eq!(pair.client_events(), [Faulted(Fault::Malformed(Violation::OutOfPlace))], "{early:02x?}");
    }
}

#[test]
fn a_server_that_never_answers_connect_is_given_up() {
    // [B11] [U311-06]
    let mut pair = waiting_for_connack(RESUMING.answer_timeout(7));
    pair.run_for(6_999);
    assert_eq!(pair.client_events(), []);
    pair.run_for(1);
    assert_eq!(pair.client_events(), [Faulted(Fault::ConnectTimeout)]);
    assert_eq!(pair.sent_kinds(), [CONNECT], "a ping is not for a connection that is not there");
    assert!(!pair.is_open());
}

#[test]
fn a_connack_that_comes_too_late_has_no_effect_on_the_next_connection() {
    // [B22]
    let mut pair = Pair::new(RESUMING);
    pair.broker.on_next(CONNACK, Then::Delay(60_000));
    pair.run();
    pair.run_for(10_000);
    assert_eq!(pair.take_events(), [Faulted(Fault::ConnectTimeout)]);
    pair.run_for(55_000);
    pair.run();
    assert_eq!(pair.take_events(), [Connected { resumed: true }]);
    pair.run_for(60_000);
    assert_eq!(pair.client_events(), []);
}

#[test]
fn a_connection_that_ends_before_connack_is_a_failed_attempt() {
    // [MQTT-3.1.4-1]
    let mut pair = waiting_for_connack(RESUMING);
    pair.broker.kill(CLIENT);
    pair.run();
    assert_eq!(pair.client_events(), [Connected { resumed: true }]);
    assert_eq!(pair.sent_kinds(), [CONNECT, CONNECT]);
}

#[test]
fn another_client_of_the_same_name_takes_over_and_the_session_lives_on() {
    // [MQTT-3.1.4-2] [MQTT-3.1.3-2]
    let mut pair = Pair::resuming();
    pair.reconnect = false;
    let other = pair.broker.accept(0);
    let connect =
        Connect { client_id: CLIENT.into(), clean: false, keep_alive: 0, will: None, user_name: None, password: None };
    pair.broker.receive(other, &Packet::Connect(connect).encode(), 0);
    pair.run();
    assert!(!pair.is_open());
    let sent = pair.publish(&Publish::new("a", b"1").at_least_once()).unwrap().unwrap();
    pair.reconnect = true;
    pair.run();
    assert_eq!(pair.client_events(), [Connected { resumed: true }, Delivered(sent)]);
}

#[test]
fn a_thousand_connections_that_end_at_once_leave_nothing_behind() {
    // [B20]
    let mut pair = Pair::resuming();
    for round in 0..1000 {
        let message = round.to_string();
        pair.publish(&Publish::new("a", message.as_bytes()).exactly_once()).unwrap();
        pair.broker.kill(CLIENT);
        pair.run();
        assert!(pair.client.is_idle(), "round {round}");
    }
    let rounds: Vec<(&str, String)> = (0..1000).map(|round: u32| ("a", round.to_string())).collect();
    assert!(pair.broker.received().iter().zip(&rounds).all(|(got, (topic, text))| *got == (*topic, text.as_str())));
    let fits = |pair: &mut Pair| {
        (0..100).take_while(|_| pair.publish(&Publish::new("a", b"x").at_least_once()).is_ok()).count()
    };
    assert_eq!(fits(&mut pair), fits(&mut Pair::resuming()), "as much room as at the beginning");
}

#[test]
fn after_disconnect_nothing_is_sent_and_the_stream_is_closed() {
    // [MQTT-3.14.4-1] [MQTT-3.14.4-2] [MQTT-3.14.1-1]
    let mut pair = Pair::resuming();
    pair.now += 59_000; // a ping is due
    pair.publish(&Publish::new("a", b"1").exactly_once()).unwrap();
    pair.subscribe("b", QoS::AtMostOnce).unwrap();
    pair.client.close();
    pair.run();
    assert_eq!(pair.sent(), [Packet::Disconnect]);
    assert!(!pair.is_open());
    assert_eq!(pair.client.fault(), None);
    // What waited is still there for the next connection.
    pair.reconnect = true;
    pair.run();
    assert_eq!(pair.broker.received(), [("a", b"1")]);
}

#[test]
fn disconnect_leaves_before_the_stream_is_closed_also_when_there_is_no_room_for_it_at_first() {
    // [MQTT-3.14.4-1]
    let mut pair = Pair::clean();
    let now = Instant::from_millis(pair.now);
    pair.client.close();
    let mut sent = Vec::new();
    for (room, expected) in [(0, Transmit::Idle), (1, Transmit::Bytes(1)), (0, Transmit::Idle), (1, Transmit::Bytes(1))]
    {
        let mut out = vec![0; room];
        assert_eq!(pair.client.transmit(now, &mut out), expected);
        sent.extend(out);
    }
    assert_eq!(sent, [0xE0, 0]);
    assert_eq!(pair.client.transmit(now, &mut []), Transmit::Close);
}

#[test]
fn what_comes_after_disconnect_is_ignored() {
    // [C25] [MQTT-3.14.4-2]
    let mut pair = Pair::clean();
    pair.client.close();
    pair.send_raw(b"\x32\x06\x00\x01a\x00\x01x");
    pair.run();
    assert_eq!(pair.sent(), [Packet::Disconnect]);
    assert_eq!(pair.client_events(), []);
}

#[test]
fn goodbye_before_connack_sends_nothing_more() {
    let mut pair = waiting_for_connack(CLEAN);
    pair.client.close();
    pair.run();
    assert_eq!(pair.sent_kinds(), [CONNECT]);
    assert!(!pair.is_open());
}

#[test]
fn owed_acknowledgements_leave_before_disconnect() {
    let mut pair = Pair::clean();
    pair.subscribe("a", QoS::AtLeastOnce).unwrap();
    pair.run();
    pair.clear();
    pair.broker.inject(CLIENT, Packet::publish(7, Message::new("a", "x").qos(1)));
    pair.step();
    pair.client.close();
    pair.run();
    assert_eq!(pair.sent().last(), Some(&Packet::Disconnect));
    assert_eq!(pair.sent()[0], Packet::Puback(7));
    assert_eq!(pair.sent_of(PUBLISH), []);
}

#[test]
fn the_will_is_left_to_the_server_unless_the_client_says_goodbye() {
    // [MQTT-3.1.2-9]
    const OPTIONS: Options = RESUMING.will(Publish::new("status", b"offline").retain());
    let mut pair = Pair::connected(OPTIONS);
    pair.client.close();
    pair.run();
    assert_eq!(pair.broker.retained("status"), None);
    pair.reconnect = true;
    pair.run();
    pair.reconnect = false;
    pair.cut();
    assert_eq!(pair.broker.retained("status"), Some(&Message::new("status", "offline").retained()));
}
