//! Pings, silence, and clocks of every kind.

use dunlin_core::{Fault, Instant, Options, Publish, QoS, Transmit};
use dunlin_testkit::Seen::{Connected, Delivered, Fault as Faulted};
use dunlin_testkit::{CLIENT, CONNECT, Message, PINGREQ, PINGRESP, PUBLISH, Pair, RESUMING, Then};

const SHORT: Options = RESUMING.keep_alive(10);

/// Virtual seconds.
const S: u64 = 1000;

#[test]
fn an_idle_client_pings_before_the_keep_alive_is_over() {
    // [MQTT-3.1.2-23] [MQTT-3.12.4-1]
    let mut pair = Pair::connected(SHORT);
    pair.run_for(100 * S);
    let pings = pair.sent_of(PINGREQ).len();
    assert!((10..=12).contains(&pings), "{pings}");
    assert_eq!(pair.client_events(), []);
    assert!(pair.broker.closed_for_silence().is_empty());
}

#[test]
fn a_packet_sent_puts_the_ping_off() {
    // [MQTT-3.1.2-23]
    let mut pair = Pair::connected(SHORT);
    for _ in 0..20 {
        pair.run_for(5 * S);
        pair.publish(&Publish::new("a", b"x")).unwrap();
        pair.run();
    }
    assert_eq!(pair.sent_of(PINGREQ), []);
}

#[test]
fn what_comes_in_does_not_stand_for_a_ping() {
    // [MQTT-3.1.2-23]
    let mut pair = Pair::connected(SHORT);
    pair.subscribe("a", QoS::AtMostOnce).unwrap();
    pair.run();
    for _ in 0..20 {
        pair.broker.publish(Message::new("a", "x"));
        pair.run_for(5 * S);
    }
    assert!(pair.sent_of(PINGREQ).len() >= 10);
}

#[test]
fn keep_alive_zero_means_no_ping_ever() {
    // [E07] [U311-12]
    let mut pair = Pair::connected(RESUMING.keep_alive(0));
    assert_eq!(pair.client.deadline(), None);
    pair.run_for(100_000 * S);
    assert_eq!(pair.sent(), []);
    assert!(pair.is_up());
}

#[test]
fn the_longest_keep_alive_is_kept_as_well() {
    // [E08] [U311-12]
    let mut pair = Pair::connected(RESUMING.keep_alive(65_535));
    pair.run_for(65_535 * S * 3);
    assert!(pair.sent_of(PINGREQ).len() >= 3);
    assert!(pair.is_up());
    // At the end of time nothing overflows either.
    let mut pair = Pair::new(RESUMING.keep_alive(65_535).answer_timeout(65_535));
    pair.now = u64::MAX - 70_000 * S;
    pair.run();
    pair.run_for(66_000 * S);
    assert!(pair.is_up());
}

#[test]
fn the_shortest_keep_alive_is_kept_as_well() {
    let mut pair = Pair::connected(RESUMING.keep_alive(1));
    pair.run_for(20 * S);
    assert!(pair.is_up());
}

#[test]
fn a_link_without_an_answer_to_a_ping_is_dead() {
    // [E01] [U311-05] [MQTT-3.12.4-1]
    let mut pair = Pair::connected(SHORT.answer_timeout(3));
    pair.broker.always(PINGRESP, Then::Drop);
    pair.run_for(11 * S);
    assert_eq!(pair.client_events(), []);
    pair.run_for(S);
    assert_eq!(pair.client_events(), [Faulted(Fault::Silent)]);
    assert!(!pair.is_open());
    assert!(pair.client.fault().is_some() || !pair.client.is_connected());
}

#[test]
fn messages_do_not_stand_for_the_answer_to_a_ping() {
    // [E03]
    let mut pair = Pair::connected(SHORT.answer_timeout(3));
    pair.subscribe("a", QoS::AtMostOnce).unwrap();
    pair.run();
    pair.clear();
    pair.broker.always(PINGRESP, Then::Drop);
    for _ in 0..15 {
        if pair.is_open() {
            pair.broker.publish(Message::new("a", "x"));
            pair.run_for(S);
        }
    }
    assert_eq!(pair.fault(), Some(Fault::Silent));
}

#[test]
fn an_answer_that_nobody_asked_for_changes_nothing() {
    // [E02]
    let mut pair = Pair::connected(SHORT.answer_timeout(3));
    pair.send_raw(b"\xd0\x00\xd0\x00");
    pair.run_for(9 * S);
    assert_eq!(pair.sent_of(PINGREQ).len(), 1);
    pair.send_raw(b"\xd0\x00\xd0\x00");
    pair.broker.always(PINGRESP, Then::Drop);
    pair.run_for(30 * S);
    assert_eq!(pair.fault(), Some(Fault::Silent), "early answers are not saved up");
}

#[test]
fn an_answer_late_but_in_time_is_good_enough() {
    // [E02]
    let mut pair = Pair::connected(SHORT.answer_timeout(5));
    for _ in 0..5 {
        pair.broker.on_next(PINGRESP, Then::Delay(4900));
    }
    pair.run_for(100 * S);
    assert!(pair.is_up());
    assert_eq!(pair.client_events(), []);
}

#[test]
fn while_a_ping_waits_for_its_answer_the_keep_alive_still_holds() {
    // [MQTT-3.1.2-23] A server that needs longer than the keep alive for PINGRESP may close, but has no reason to
    // blame the client's silence.
    let mut pair = Pair::connected(RESUMING.keep_alive(4).answer_timeout(20));
    pair.broker.on_next(PINGRESP, Then::Delay(15 * S));
    pair.run_for(60 * S);
    assert_eq!(pair.client_events(), []);
    assert!(pair.broker.closed_for_silence().is_empty());
}

#[test]
fn a_server_that_stalls_in_the_middle_of_a_packet_is_found_out() {
    // [A27]
    let mut pair = Pair::connected(SHORT.answer_timeout(3));
    pair.broker.always(PINGRESP, Then::Drop);
    pair.send_raw(b"\x30\x64\x00\x01a and half a body");
    pair.run_for(12 * S);
    assert_eq!(pair.sent_of(PINGREQ).len(), 1);
    assert_eq!(pair.client_events(), [Faulted(Fault::Silent)]);
}

#[test]
fn a_peer_that_never_reads_is_found_out() {
    // [E04]
    let mut pair = Pair::connected(SHORT.answer_timeout(3));
    pair.wire.up.window = Some(10);
    pair.wire.up.stalled = true;
    pair.publish(&Publish::new("a", &[7; 100]).at_least_once()).unwrap();
    pair.run_for(14 * S);
    assert_eq!(pair.client_events(), [Faulted(Fault::Silent)]);
    pair.wire.up.stalled = false;
    pair.clear();
    pair.run();
    assert_eq!(pair.client_events(), [Connected { resumed: true }, Delivered(crate::id(1))]);
}

#[test]
fn a_flood_that_the_application_does_not_read_is_held_back_and_pings_leave_in_time() {
    // [C24]
    let mut pair = Pair::connected(SHORT);
    pair.subscribe("a", QoS::AtMostOnce).unwrap();
    pair.run();
    pair.clear();
    for _ in 0..1000 {
        pair.broker.publish(Message::new("a", [7; 50]));
    }
    let flood = pair.broker.output(0, usize::MAX);
    // The application is busy: the driver only sends.
    let mut taken = 0;
    while !pair.inbox.space().is_empty() {
        taken += pair.inbox.push(&flood[taken..]);
    }
    assert!(taken <= 256, "what does not fit stays in the stream");
    let mut out = [0; 16];
    assert_eq!(pair.client.transmit(dunlin_core::Instant::from_millis(8749), &mut out), dunlin_core::Transmit::Idle);
    assert_eq!(
        pair.client.transmit(dunlin_core::Instant::from_millis(8750), &mut out),
        dunlin_core::Transmit::Bytes(2)
    );
    assert_eq!(out[..2], [0xc0, 0]);
}

#[test]
fn being_asked_late_or_early_is_harmless() {
    let mut pair = Pair::connected(SHORT);
    for _ in 0..1000 {
        pair.now += 7;
        pair.run();
    }
    assert_eq!(pair.sent(), []);
    pair.now += 2900;
    pair.run();
    assert_eq!(pair.sent_of(PINGREQ).len(), 1);
}

#[test]
fn a_32_bit_clock_may_wrap_at_any_moment() {
    // [E06] 2^32 ms are 49.7 days.
    for before in 0..30 {
        let mut pair = Pair::new(SHORT.answer_timeout(3));
        pair.now = (1 << 32) - before * S / 2 - 1;
        pair.run();
        pair.clear();
        let mut pings = 0;
        for _ in 0..100 {
            // A driver that feeds the low 32 bits of its clock; the broker's clock goes on.
            let now = dunlin_core::Instant::from_millis(pair.now & 0xffff_ffff);
            let mut out = [0; 16];
            if let dunlin_core::Transmit::Bytes(count) = pair.client.transmit(now, &mut out) {
                assert_eq!(out[..count], [0xc0, 0]);
                pings += 1;
                pair.inbox.push(b"\xd0\x00");
            }
            assert_eq!(pair.client.poll(now, &mut pair.inbox), Ok(None));
            pair.now += S / 2;
        }
        assert!((5..=7).contains(&pings), "{pings} pings in 50 s, {before} half seconds before the wrap");
    }
}

#[test]
fn a_clock_that_jumps_or_stands_still_neither_misses_pings_nor_repeats_them_for_ever() {
    // [E06]
    let mut pair = Pair::connected(SHORT.answer_timeout(3));
    let mut ask = |now: u64, answer: bool| {
        let now = dunlin_core::Instant::from_millis(now);
        let mut out = [0; 16];
        let sent = match pair.client.transmit(now, &mut out) {
            dunlin_core::Transmit::Bytes(_) => true,
            dunlin_core::Transmit::Idle => false,
            other => panic!("{other:?}"),
        };
        if sent && answer {
            pair.inbox.push(b"\xd0\x00");
        }
        assert_eq!(pair.client.poll(now, &mut pair.inbox), Ok(None));
        sent
    };
    assert!(ask(20_000, true), "late: a ping at once");
    let pings = (0..100).filter(|_| ask(5000, true)).count();
    assert_eq!(pings, 1, "back by 15 s and still there: one ping to be safe");
    assert!(!ask(12_000, true));
    assert!(ask(14_000, true));
    assert!((0..1000).all(|_| !ask(14_000, true)), "standing still");
    const DAYS_99: u64 = 1 << 33;
    assert!(ask(DAYS_99, false), "ahead: a ping at once");
    assert!(ask(2 * DAYS_99, true), "ahead again: nobody knows how long the answer has been awaited");
    assert!(!ask(2 * DAYS_99 + 1000, true));
}

#[test]
fn no_ping_before_the_server_has_accepted() {
    let mut pair = Pair::new(RESUMING.keep_alive(30).answer_timeout(100));
    pair.broker.always(dunlin_testkit::CONNACK, Then::Drop);
    pair.run_for(44 * S);
    assert_eq!(pair.sent_kinds(), [CONNECT]);
}

#[test]
fn a_dead_link_keeps_what_is_open_for_the_next_one() {
    let mut pair = Pair::connected(SHORT.answer_timeout(3));
    pair.wire.up.stalled = true;
    let sent = pair.publish(&Publish::new("a", b"1").exactly_once()).unwrap().unwrap();
    pair.run_for(20 * S);
    assert_eq!(pair.take_events(), [Faulted(Fault::Silent)]);
    pair.wire.up.stalled = false;
    pair.run();
    assert_eq!(pair.client_events(), [Connected { resumed: true }, Delivered(sent)]);
    assert_eq!(pair.sent_of(PUBLISH).len(), 2);
    assert!(pair.broker.is_connected(CLIENT));
}

#[test]
fn a_ping_leaves_when_it_is_due_though_what_comes_is_not_read() {
    let mut pair = Pair::connected(SHORT);
    let mut out = [0; 8];
    for round in 1..5 {
        let now = Instant::from_millis(10_000 * round);
        pair.client.hold(now);
        assert_eq!(pair.client.transmit(now, &mut out), Transmit::Bytes(2));
        assert_eq!(out[..2], [0xC0, 0]);
        assert_eq!(pair.client.transmit(now, &mut out), Transmit::Idle);
    }
}

#[test]
fn a_ping_may_leave_although_none_is_due_and_the_session_waits_for_no_answer() {
    let mut out = [0; 8];
    let mut pair = Pair::new(SHORT);
    assert_eq!(pair.client.ping_past(&mut out), 0, "without a connection");
    let mut pair = Pair::connected(SHORT.answer_timeout(3));
    assert_eq!(pair.client.ping_past(&mut out[..1]), 0, "without room");
    assert_eq!(pair.client.ping_past(&mut out), 2);
    assert_eq!(out[..2], [0xC0, 0]);
    pair.run_for(8 * S);
    assert!(pair.is_up());
    assert_eq!(pair.sent_of(PINGREQ), []);
    // It is something that left [MQTT-3.1.2-23].
    let now = Instant::from_millis(pair.now);
    assert_eq!(pair.client.ping_past(&mut out), 2);
    assert_eq!(pair.client.transmit(now, &mut out), Transmit::Idle);
    pair.run_for(8 * S);
    assert_eq!(pair.sent_of(PINGREQ), []);
    // Behind a packet that has begun to leave it would be in the middle of that.
    pair.publish(&Publish::new("a", &[7; 100]).at_least_once()).unwrap();
    assert_eq!(pair.client.transmit(Instant::from_millis(pair.now), &mut out), Transmit::Bytes(8));
    assert_eq!(pair.client.ping_past(&mut out), 0);
}
