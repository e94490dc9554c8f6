//! What the model found, told as stories. Each failed before it was mended.

use dunlin_core::{
    Event, Filter, Inbox, Instant, Mark, Options, PacketId, QoS, Restored, Session, Stage, Storage, Topic, Transmit,
};

const NOW: Instant = Instant::from_millis(1);
const FILTERS: &[Filter<'static>] = &[Filter::literal("t", QoS::ExactlyOnce)];
const CONNACK_NEW: &[u8] = b"\x20\x02\x00\x00";
const CONNACK_RESUMED: &[u8] = b"\x20\x02\x01\x00";
const SUBACK_1: &[u8] = b"\x90\x03\x00\x01\x02";
const PUBLISH_7: &[u8] = b"\x34\x06\x00\x01t\x00\x07x";
const PUBLISH_7_AGAIN: &[u8] = b"\x3c\x06\x00\x01t\x00\x07x";
const PUBREC_7: &[u8] = b"\x50\x02\x00\x07";

/// All that leaves now.
fn sent(session: &mut Session<'_>) -> Vec<u8> {
    let mut out = [0; 256];
    match session.transmit(NOW, &mut out) {
        Transmit::Bytes(n) => out[..n].to_vec(),
        _ => Vec::new(),
    }
}

/// Events that these bytes cause, without the last `None`: the message shown last is not handled yet.
fn take(session: &mut Session<'_>, inbox: &mut Inbox<'_>, bytes: &[u8]) -> usize {
    assert_eq!(inbox.push(bytes), bytes.len());
    let mut events = 0;
    while !inbox.pending().is_empty() {
        if session.poll(NOW, inbox).unwrap().is_some() {
            events += 1;
        } else {
            break;
        }
    }
    events
}

fn connect(session: &mut Session<'_>, inbox: &mut Inbox<'_>, connack: &[u8]) {
    session.open(NOW, inbox);
    assert_eq!(sent(session)[0], 0x10);
    assert_eq!(take(session, inbox, connack), 1);
}

#[test]
fn pubrec_waits_for_the_server_to_ask_again_on_a_new_connection() {
    // [MQTT-2.3.1-6]
    let mut storage: Storage<64, 64, 2> = Storage::new();
    let (memory, mut inbox) = storage.split();
    let mut session = Session::new(Options::new("c").durable().keep_alive(0), memory);
    connect(&mut session, &mut inbox, CONNACK_NEW);
    assert_eq!(take(&mut session, &mut inbox, PUBLISH_7), 1);
    session.lost();
    let mark = session.next_mark().unwrap();
    assert_eq!(mark, Mark { id: PacketId::new(7).unwrap(), stage: Stage::Received });
    connect(&mut session, &mut inbox, CONNACK_RESUMED);
    session.mark_stored(mark);
    assert_eq!(sent(&mut session), b"", "nobody asked yet");
    assert_eq!(take(&mut session, &mut inbox, PUBLISH_7_AGAIN), 0, "shown once");
    assert_eq!(sent(&mut session), PUBREC_7);
}

#[test]
fn a_mark_stored_after_the_server_asked_again_lets_its_pubrec_leave() {
    let mut storage: Storage<64, 64, 2> = Storage::new();
    let (memory, mut inbox) = storage.split();
    let mut session = Session::new(Options::new("c").durable().keep_alive(0), memory);
    connect(&mut session, &mut inbox, CONNACK_NEW);
    assert_eq!(take(&mut session, &mut inbox, PUBLISH_7), 1);
    connect(&mut session, &mut inbox, CONNACK_RESUMED);
    assert_eq!(take(&mut session, &mut inbox, PUBLISH_7_AGAIN), 0);
    assert_eq!(sent(&mut session), b"", "its mark is not stored");
    let mark = session.next_mark().unwrap();
    session.mark_stored(mark);
    assert_eq!(sent(&mut session), PUBREC_7);
}

#[test]
fn a_message_acknowledged_on_a_later_connection_is_answered_when_the_server_asks_again() {
    for durable in [false, true] {
        let mut storage: Storage<64, 64, 2> = Storage::new();
        let (memory, mut inbox) = storage.split();
        let options = Options::new("c").persistent().manual_acks().keep_alive(0);
        let options = if durable { options.durable() } else { options };
        let mut session = Session::new(options, memory);
        connect(&mut session, &mut inbox, CONNACK_NEW);
        inbox.push(PUBLISH_7);
        let Some(Event::Message(message)) = session.poll(NOW, &mut inbox).unwrap() else { panic!("no message") };
        let receipt = message.receipt().unwrap();
        connect(&mut session, &mut inbox, CONNACK_RESUMED);
        assert!(session.acknowledge(receipt));
        if let Some(mark) = session.next_mark() {
            session.mark_stored(mark);
        }
        assert_eq!(sent(&mut session), b"", "nobody asked yet");
        assert_eq!(take(&mut session, &mut inbox, PUBLISH_7_AGAIN), 0);
        assert_eq!(sent(&mut session), PUBREC_7);
    }
}

#[test]
fn after_a_connect_without_an_answer_everything_is_subscribed_to_again() {
    // The server made a new session then; now it says that it has one, and it has no subscriptions.
    let mut storage: Storage<64, 64, 2> = Storage::new();
    let (memory, mut inbox) = storage.split();
    let mut session = Session::new(Options::new("c").persistent().keep_alive(0).subscriptions(FILTERS), memory);
    connect(&mut session, &mut inbox, CONNACK_NEW);
    assert_eq!(sent(&mut session)[0], 0x82);
    assert_eq!(take(&mut session, &mut inbox, SUBACK_1), 1);
    session.open(NOW, &mut inbox);
    assert_eq!(sent(&mut session)[0], 0x10);
    connect(&mut session, &mut inbox, CONNACK_RESUMED);
    assert_eq!(sent(&mut session)[0], 0x82, "SUBSCRIBE");
    connect(&mut session, &mut inbox, CONNACK_RESUMED);
    assert_eq!(sent(&mut session)[0], 0x82, "not answered yet");
    let suback = [&SUBACK_1[..3], &[3, 2]].concat();
    assert_eq!(take(&mut session, &mut inbox, &suback), 1);
    connect(&mut session, &mut inbox, CONNACK_RESUMED);
    assert_eq!(sent(&mut session), b"", "once is enough");
}

#[test]
fn a_restored_subscription_is_subscribed_to_again() {
    let mut storage: Storage<64, 64, 2> = Storage::new();
    let (memory, mut inbox) = storage.split();
    let mut session = Session::new(Options::new("c").durable().keep_alive(0), memory);
    session.restore(Restored::Subscription { filter: Topic::from_store(b"t"), qos: QoS::ExactlyOnce }).unwrap();
    connect(&mut session, &mut inbox, CONNACK_RESUMED);
    assert_eq!(sent(&mut session), b"\x82\x06\x00\x01\x00\x01t\x02");
    assert_eq!(take(&mut session, &mut inbox, SUBACK_1), 1);
    connect(&mut session, &mut inbox, CONNACK_RESUMED);
    assert_eq!(sent(&mut session), b"");
}

/// A CONNECT whose CONNACK never comes: what the next one says may be of a session that the client has not heard of.
fn connect_in_vain(session: &mut Session<'_>, inbox: &mut Inbox<'_>) {
    session.open(NOW, inbox);
    assert_eq!(sent(session)[0], 0x10);
    session.lost();
}

#[test]
fn a_message_that_came_again_is_answered_behind_what_came_before_it() {
    // [MQTT-4.6.0-3]
    let mut storage: Storage<64, 64, 2> = Storage::new();
    let (memory, mut inbox) = storage.split();
    let mut session = Session::new(Options::new("c").persistent().keep_alive(0), memory);
    connect(&mut session, &mut inbox, CONNACK_NEW);
    assert_eq!(take(&mut session, &mut inbox, PUBLISH_7), 1);
    connect(&mut session, &mut inbox, CONNACK_RESUMED);
    assert_eq!(take(&mut session, &mut inbox, b"\x3c\x06\x00\x01t\x00\x08y"), 1);
    assert_eq!(take(&mut session, &mut inbox, PUBLISH_7_AGAIN), 0);
    assert_eq!(sent(&mut session), b"\x50\x02\x00\x08\x50\x02\x00\x07");
}

#[test]
fn where_there_is_no_room_the_oldest_identifier_in_doubt_is_forgotten_and_no_other() {
    let mut storage: Storage<64, 64, 2, 3> = Storage::new();
    let (memory, mut inbox) = storage.split();
    let mut session = Session::new(Options::new("c").persistent().keep_alive(0), memory);
    connect(&mut session, &mut inbox, CONNACK_NEW);
    assert_eq!(take(&mut session, &mut inbox, b"\x34\x06\x00\x01t\x00\x01a"), 1);
    // The server loses the session, and nobody hears of it.
    session.lost();
    connect_in_vain(&mut session, &mut inbox);
    connect(&mut session, &mut inbox, CONNACK_RESUMED);
    assert_eq!(take(&mut session, &mut inbox, b"\x34\x06\x00\x01t\x00\x02b"), 1);
    session.lost();
    connect_in_vain(&mut session, &mut inbox);
    connect(&mut session, &mut inbox, CONNACK_RESUMED);
    assert_eq!(take(&mut session, &mut inbox, b"\x32\x06\x00\x01t\x00\x01c"), 1);
    assert_eq!(take(&mut session, &mut inbox, b"\x3c\x06\x00\x01t\x00\x02b"), 0, "shown once");
}
