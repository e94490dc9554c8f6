//! Calls as a program in C makes them, right and wrong.

use std::ffi::{CStr, c_void};
use std::mem::{MaybeUninit, zeroed};
use std::ptr::{self, null, null_mut};

use dunlin_c::events::*;
use dunlin_c::marks::*;
use dunlin_c::questions::*;
use dunlin_c::requests::*;
use dunlin_c::session::*;
use dunlin_c::status::Status;
use dunlin_c::types::*;
use dunlin_core::{Fault, Refusal, Violation};

const CONNACK: &[u8] = b"\x20\x02\x00\x00";
const RESUMED: &[u8] = b"\x20\x02\x01\x00";

fn bytes(bytes: &'static (impl AsRef<[u8]> + ?Sized)) -> dunlin_bytes {
    let bytes = bytes.as_ref();
    dunlin_bytes { ptr: bytes.as_ptr().cast(), len: bytes.len() }
}

fn message(topic: &'static str, payload: &'static str, qos: u8) -> dunlin_message {
    dunlin_message { topic: bytes(topic), payload: bytes(payload), qos, retain: 0, dup: 0 }
}

fn options() -> dunlin_options {
    // SAFETY: as in C, zeroes are options.
    let zeroed: dunlin_options = unsafe { zeroed() };
    dunlin_options { client_id: bytes("pump"), persistent: 1, ..zeroed }
}

/// A program in C: a session, and memory for it that holds anything.
struct Program {
    session: Box<dunlin_session>,
    tx: Vec<u8>,
    rx: Vec<u8>,
    slots: Vec<MaybeUninit<dunlin_slot>>,
    received: Vec<MaybeUninit<dunlin_received>>,
    filters: Vec<u8>,
}

impl Program {
    fn new() -> Self {
        Self {
            // SAFETY: as in C, a static session is zeroes.
            session: Box::new(unsafe { zeroed() }),
            tx: vec![0xA5; 256],
            rx: vec![0xA5; 64],
            slots: (0..4).map(|_| MaybeUninit::uninit()).collect(),
            received: (0..3).map(|_| MaybeUninit::uninit()).collect(),
            filters: vec![0xA5; 64],
        }
    }

    fn memory(&mut self) -> dunlin_memory {
        dunlin_memory {
            tx: self.tx.as_mut_ptr().cast(),
            tx_len: self.tx.len(),
            rx: self.rx.as_mut_ptr().cast(),
            rx_len: self.rx.len(),
            slots: self.slots.as_mut_ptr().cast(),
            slot_count: self.slots.len(),
            received: self.received.as_mut_ptr().cast(),
            received_count: self.received.len(),
            filters: self.filters.as_mut_ptr().cast(),
            filters_len: self.filters.len(),
        }
    }

    fn init(&mut self, options: &dunlin_options) -> Status {
        let memory = self.memory();
        // SAFETY: all of it is there as long as the program.
        unsafe { dunlin_init(&raw mut *self.session, options, &raw const memory) }
    }

    /// With a connection that the server has accepted.
    fn connected(options: &dunlin_options) -> Self {
        let mut program = Self::new();
        assert_eq!(program.init(options), Status::Ok);
        program.open(CONNACK);
        program
    }

    fn open(&mut self, connack: &[u8]) {
        // SAFETY: the session was made.
        assert_eq!(unsafe { dunlin_open(self.at(), 0) }, Status::Ok);
        assert_eq!(self.transmit().first(), Some(&0x10));
        self.receive(connack);
        assert_eq!(self.poll().kind, 1);
    }

    fn at(&mut self) -> *mut dunlin_session {
        &raw mut *self.session
    }

    fn transmit(&mut self) -> Vec<u8> {
        let mut out = [0_u8; 256];
        let mut len = out.len();
        // SAFETY: `out` has so many bytes.
        let status = unsafe { dunlin_transmit(self.at(), 0, out.as_mut_ptr().cast(), &raw mut len, null_mut()) };
        assert_eq!(status, if len > 0 { Status::Bytes } else { Status::Ok });
        out[..len].to_vec()
    }

    fn receive(&mut self, bytes: &[u8]) {
        let mut room = 0;
        // SAFETY: there is room for so many bytes.
        unsafe {
            let at: *mut c_void = dunlin_inbox(self.at(), &raw mut room);
            assert!(bytes.len() <= room);
            ptr::copy_nonoverlapping(bytes.as_ptr(), at.cast(), bytes.len());
            assert_eq!(dunlin_filled(self.at(), bytes.len()), Status::Ok);
        }
    }

    fn poll(&mut self) -> dunlin_event {
        // SAFETY: zeroes are an event.
        let mut event: dunlin_event = unsafe { zeroed() };
        // SAFETY: as above.
        assert_eq!(unsafe { dunlin_poll(self.at(), 0, &raw mut event) }, Status::Ok);
        event
    }

    fn publish(&mut self, message: &dunlin_message) -> Result<u16, Status> {
        let mut id = 0;
        // SAFETY: the message is there.
        match unsafe { dunlin_publish(self.at(), message, &raw mut id) } {
            Status::Ok => Ok(id),
            refused => Err(refused),
        }
    }
}

/// What an event says, as long as nothing else is done.
fn read(bytes: dunlin_bytes) -> Vec<u8> {
    if bytes.len == 0 {
        return Vec::new();
    }
    // SAFETY: nothing has been done since `poll`.
    unsafe { std::slice::from_raw_parts(bytes.ptr.cast(), bytes.len) }.to_vec()
}

#[test]
fn messages_go_both_ways_at_every_quality_of_service() {
    let filters = [dunlin_filter { text: bytes("a/#"), qos: 2 }, dunlin_filter { text: bytes("b"), qos: 0 }];
    let options = dunlin_options { subscriptions: filters.as_ptr(), subscription_count: 2, ..options() };
    let mut program = Program::connected(&options);
    assert_eq!(program.transmit(), b"\x82\x0c\x00\x01\x00\x03a/#\x02\x00\x01b\x00");
    program.receive(b"\x90\x04\x00\x01\x02\x80");
    let event = program.poll();
    assert_eq!((event.kind, event.packet_id, read(event.codes)), (8, 1, vec![2, 0x80]));

    assert_eq!(program.publish(&message("a", "0", 0)), Ok(0));
    assert_eq!(program.publish(&message("a", "1", 1)), Ok(2));
    assert_eq!(program.publish(&dunlin_message { retain: 1, ..message("a", "2", 2) }), Ok(3));
    assert_eq!(program.transmit(), b"\x30\x04\x00\x01a0\x32\x06\x00\x01a\x00\x021\x35\x06\x00\x01a\x00\x032");
    program.receive(b"\x40\x02\x00\x02\x50\x02\x00\x03");
    let event = program.poll();
    assert_eq!((event.kind, event.packet_id), (5, 2));
    assert_eq!(program.poll().kind, 0);
    assert_eq!(program.transmit(), b"\x62\x02\x00\x03");
    program.receive(b"\x70\x02\x00\x03");
    assert_eq!((program.poll().packet_id, program.poll().kind), (3, 0));

    program.receive(b"\x3d\x08\x00\x03a/b\x00\x07x");
    let event = program.poll();
    assert_eq!(
        (event.kind, read(event.message.topic), read(event.message.payload)),
        (2, b"a/b".to_vec(), b"x".to_vec())
    );
    assert_eq!((event.message.qos, event.message.retain, event.message.dup), (2, 1, 1));
    assert_eq!(program.poll().kind, 0);
    assert_eq!(program.transmit(), b"\x50\x02\x00\x07");
    // SAFETY: the session is there.
    assert!(unsafe { dunlin_is_connected(program.at()) && dunlin_is_idle(program.at()) });
}

#[test]
fn what_was_not_acknowledged_goes_out_again_on_the_next_connection() {
    let mut program = Program::connected(&options());
    assert_eq!(program.publish(&message("a", "1", 1)), Ok(1));
    assert_eq!(program.transmit(), b"\x32\x06\x00\x01a\x00\x011");
    // SAFETY: the session is there.
    assert_eq!(unsafe { dunlin_lost(program.at()) }, Status::Ok);
    assert_eq!(program.publish(&message("a", "0", 0)), Err(Status::Offline));
    program.open(RESUMED);
    assert_eq!(program.transmit(), b"\x3a\x06\x00\x01a\x00\x011");
    // SAFETY: as above.
    assert_eq!(unsafe { dunlin_outgoing_count(program.at()) }, 1);
}

#[test]
fn a_goodbye_is_said_before_the_end() {
    let mut program = Program::connected(&options());
    // SAFETY: the session is there.
    assert_eq!(unsafe { dunlin_close(program.at()) }, Status::Ok);
    assert_eq!(program.transmit(), b"\xe0\x00");
    let mut len = 0;
    // SAFETY: as above.
    let status = unsafe { dunlin_transmit(program.at(), 0, null_mut(), &raw mut len, null_mut()) };
    assert_eq!(status, Status::Close);
    assert_eq!(fault_of(&mut program).kind, 0);
}

fn fault_of(program: &mut Program) -> dunlin_fault_info {
    let mut fault = dunlin_fault_info { len: 9, kind: 9, detail: 9, may_heal: false };
    // SAFETY: the session is there.
    assert_eq!(unsafe { dunlin_fault(program.at(), &raw mut fault) }, Status::Ok);
    fault
}

#[test]
fn a_fault_is_named() {
    let mut program = Program::new();
    assert_eq!(program.init(&options()), Status::Ok);
    let fault_after = |program: &mut Program, sent: &[u8]| {
        // SAFETY: the session is there, and zeroes are an event.
        unsafe {
            assert_eq!(dunlin_open(program.at(), 0), Status::Ok);
            program.transmit();
            program.receive(sent);
            let mut event: dunlin_event = zeroed();
            while dunlin_poll(program.at(), 0, &raw mut event) == Status::Ok {
                assert_ne!(event.kind, 0, "no fault");
            }
            assert_eq!(event.kind, 0);
        }
        let fault = fault_of(program);
        // SAFETY: what is given is a text.
        let text = unsafe { CStr::from_ptr(dunlin_fault_text(fault.kind, fault.detail)) };
        (fault.kind, fault.detail, fault.may_heal, fault.len, text.to_str().unwrap())
    };
    let refused = fault_after(&mut program, b"\x20\x02\x00\x05");
    assert_eq!(refused, (2, 5, false, 0, "connection refused: not authorized"));
    let broken = fault_after(&mut program, b"\x20\x02\x00\x00\x36");
    let text = "the server broke the protocol: it sent a message at a quality of service that does not exist here";
    assert_eq!(broken, (1, 6, true, 0, text));
    let too_large = fault_after(&mut program, b"\x20\x02\x00\x00\x30\xff\x01\x00\x01a");
    assert_eq!(too_large, (5, 0, true, 258, "a packet is larger than the inbox"));
}

#[test]
fn texts_of_faults_are_those_of_the_core() {
    let violations = [
        Violation::PacketType,
        Violation::Flags,
        Violation::Length,
        Violation::Text,
        Violation::Topic,
        Violation::QoS,
        Violation::Duplicate,
        Violation::PacketId,
        Violation::OutOfPlace,
        Violation::SessionPresent,
        Violation::ReturnCodeCount,
        Violation::ReturnCode,
    ];
    let refusals = [
        Refusal::ProtocolVersion,
        Refusal::ClientId,
        Refusal::ServerUnavailable,
        Refusal::Credentials,
        Refusal::NotAuthorized,
    ];
    let text = |kind, detail: usize| {
        // SAFETY: what is given is a text.
        unsafe { CStr::from_ptr(dunlin_fault_text(kind, u8::try_from(detail).unwrap())) }.to_str().unwrap()
    };
    for (detail, violation) in violations.into_iter().enumerate() {
        assert_eq!(text(1, detail + 1), Fault::Malformed(violation).to_string());
    }
    for (detail, refusal) in refusals.into_iter().enumerate() {
        assert_eq!(text(2, detail + 1), Fault::Refused(refusal).to_string());
    }
    assert_eq!(text(3, 0), Fault::ConnectTimeout.to_string());
    assert_eq!(text(4, 0), Fault::Silent.to_string());
    assert_eq!(text(6, 0), Fault::TooMany.to_string());
}

#[test]
fn options_that_mqtt_cannot_express_are_named() {
    let topic_with_wildcard = message("a/+", "", 0);
    let long: &'static [u8] = vec![b'a'; 65_536].leak();
    let text = |ptr: &'static [u8]| bytes(ptr);
    let cases = [
        (Status::BadClientId, dunlin_options { client_id: bytes(b"\xff"), ..options() }),
        (Status::BadClientId, dunlin_options { client_id: bytes("a\0b"), ..options() }),
        (Status::BadClientId, dunlin_options { client_id: bytes(""), ..options() }),
        (Status::BadClientId, dunlin_options { client_id: text(long), ..options() }),
        (Status::BadClientId, dunlin_options { client_id: dunlin_bytes { ptr: null(), len: 1 }, ..options() }),
        (Status::BadUserName, dunlin_options { user_name: bytes(b"\xc3"), ..options() }),
        (Status::BadPassword, dunlin_options { password: bytes("secret"), ..options() }),
        (Status::BadPassword, dunlin_options { user_name: bytes("u"), password: text(long), ..options() }),
        (Status::BadWill, dunlin_options { will: &raw const topic_with_wildcard, ..options() }),
        (Status::BadArgument, dunlin_options { oversize: 2, ..options() }),
    ];
    let mut program = Program::new();
    for (index, (status, options)) in cases.iter().enumerate() {
        assert_eq!(program.init(options), *status, "{index}");
        // SAFETY: zeroes are a session that was not made.
        assert_eq!(unsafe { dunlin_open(program.at(), 0) }, Status::NotReady);
    }
    assert_eq!(program.init(&dunlin_options { client_id: bytes("p\u{e9}"), ..options() }), Status::Ok);
    let filters = [dunlin_filter { text: bytes("a/#/b"), qos: 1 }];
    let with_filters =
        |count| dunlin_options { subscriptions: filters.as_ptr(), subscription_count: count, ..options() };
    assert_eq!(Program::new().init(&with_filters(1)), Status::BadText);
    let with_none = dunlin_options { subscription_count: 1, ..options() };
    assert_eq!(Program::new().init(&with_none), Status::BadArgument);
}

#[test]
fn any_byte_but_zero_says_yes() {
    let mut program = Program::new();
    let will = dunlin_message { retain: 0x40, ..message("w", "", 0) };
    let options = dunlin_options { persistent: 2, will: &raw const will, ..options() };
    assert_eq!(program.init(&options), Status::Ok);
    // SAFETY: the session was made.
    assert_eq!(unsafe { dunlin_open(program.at(), 0) }, Status::Ok);
    assert_eq!(program.transmit().get(9), Some(&0x24), "a will that is retained, and no clean session");
    program.receive(CONNACK);
    assert_eq!(program.poll().kind, 1);
    assert_eq!(program.publish(&dunlin_message { retain: 0xFF, dup: 0xFF, ..message("a", "0", 0) }), Ok(0));
    assert_eq!(program.transmit(), b"\x31\x04\x00\x01a0");
}

#[test]
fn a_session_that_was_refused_is_none_whatever_it_was_before() {
    let mut program = Program::connected(&options());
    let memory = dunlin_memory { slots: null_mut(), ..program.memory() };
    // SAFETY: what is wrong with the memory is what is tested.
    unsafe {
        assert_eq!(dunlin_init(program.at(), &options(), &raw const memory), Status::BadArgument);
        assert_eq!(dunlin_open(program.at(), 0), Status::NotReady);
    }
    let mut program = Program::connected(&options());
    assert_eq!(program.init(&dunlin_options { client_id: bytes("\0"), ..options() }), Status::BadClientId);
    assert_eq!(program.publish(&message("a", "1", 1)), Err(Status::NotReady));
}

#[test]
fn no_more_can_have_come_than_there_was_room_for() {
    let mut program = Program::connected(&options());
    let mut room = 0;
    // SAFETY: the session was made.
    unsafe {
        assert!(!dunlin_inbox(program.at(), &raw mut room).is_null());
        assert_eq!(dunlin_filled(program.at(), room + 1), Status::BadArgument);
        assert_eq!(dunlin_filled(program.at(), usize::MAX), Status::BadArgument, "-1, as functions return that fail");
    }
    assert_eq!(program.poll().kind, 0);
    // SAFETY: as above.
    assert_eq!(unsafe { dunlin_filled(program.at(), 1) }, Status::BadArgument, "its place may be another now");
    program.receive(b"\x30\x04\x00\x01a0");
    assert_eq!(program.poll().kind, 2);
}

#[test]
fn memory_that_cannot_be_is_refused() {
    let mut program = Program::new();
    let whole = program.memory();
    let init = |program: &mut Program, memory: dunlin_memory| {
        // SAFETY: what is wrong with the memory is what is tested.
        unsafe { dunlin_init(program.at(), &options(), &raw const memory) }
    };
    assert_eq!(init(&mut program, dunlin_memory { rx_len: 15, ..whole }), Status::BadMemory);
    let whole = program.memory();
    assert_eq!(init(&mut program, dunlin_memory { received_count: 1, ..whole }), Status::BadMemory);
    let whole = program.memory();
    assert_eq!(init(&mut program, dunlin_memory { tx: null_mut(), ..whole }), Status::BadArgument);
    let whole = program.memory();
    assert_eq!(init(&mut program, dunlin_memory { slot_count: usize::MAX / 8, ..whole }), Status::BadArgument);
    let whole = program.memory();
    assert_eq!(init(&mut program, dunlin_memory { tx: null_mut(), tx_len: 0, ..whole }), Status::Ok);
    assert_eq!(program.publish(&message("a", "1", 1)), Err(Status::TooLarge));
}

#[test]
fn a_call_that_is_a_mistake_changes_nothing() {
    let mut program = Program::connected(&options());
    let ok = message("a", "1", 1);
    // SAFETY: what is wrong is what is tested.
    unsafe {
        assert_eq!(dunlin_publish(null_mut(), &raw const ok, null_mut()), Status::BadArgument);
        assert_eq!(dunlin_publish(program.at(), null(), null_mut()), Status::BadArgument);
        assert_eq!(dunlin_poll(program.at(), 0, null_mut()), Status::BadArgument);
        assert_eq!(dunlin_transmit(program.at(), 0, null_mut(), null_mut(), null_mut()), Status::BadArgument);
        let mut len = 1;
        assert_eq!(dunlin_transmit(program.at(), 0, null_mut(), &raw mut len, null_mut()), Status::BadArgument);
        assert_eq!(len, 0, "nothing is to be written");
        assert_eq!(dunlin_subscribe(program.at(), null(), 0, null_mut()), Status::BadArgument);
        assert_eq!(dunlin_subscribe(program.at(), null(), 1, null_mut()), Status::BadArgument);
        let filter = dunlin_filter { text: bytes("a"), qos: 3 };
        assert_eq!(dunlin_subscribe(program.at(), &raw const filter, 1, null_mut()), Status::BadArgument);
        assert_eq!(dunlin_publish_replacing(program.at(), &raw const ok, 0, null_mut()), Status::BadArgument);
        assert_eq!(dunlin_mark_stored(program.at(), dunlin_mark { packet_id: 1, stage: 7 }), Status::BadArgument);
        assert_eq!(dunlin_mark_stored(program.at(), dunlin_mark { packet_id: 0, stage: 1 }), Status::BadArgument);
        assert_eq!(dunlin_restore_received(program.at(), 0), Status::BadArgument);
        assert_eq!(dunlin_restore_received(program.at(), 1), Status::Connected);
        assert_eq!(dunlin_acknowledge(program.at(), dunlin_receipt { opaque: [0; 4] }), Status::Unknown);
        assert_eq!(dunlin_acknowledge(program.at(), dunlin_receipt { opaque: [0, 1, 2, 0] }), Status::Unknown);
        assert_eq!(dunlin_withdraw(program.at(), 0), Status::Unknown);
        assert!(dunlin_inbox(null_mut(), &raw mut len).is_null());
        assert!(dunlin_inbox(program.at(), null_mut()).is_null());
        assert_eq!(dunlin_wait_ms(null(), 0), 0, "not for ever");
        assert_eq!(dunlin_next_id(null()), 0);
        assert_eq!(dunlin_fault(program.at(), null_mut()), Status::BadArgument);
        assert_eq!(dunlin_supplied(program.at(), usize::MAX), Status::BadArgument);
    }
    assert_eq!(program.publish(&message("a", "1", 3)), Err(Status::BadArgument));
    assert_eq!(program.publish(&message("a/#", "1", 1)), Err(Status::BadText));
    assert_eq!(program.publish(&message("", "1", 1)), Err(Status::BadText));
    let not_utf8 = dunlin_message { topic: bytes(b"\xed\xa0\x80"), ..ok };
    assert_eq!(program.publish(&not_utf8), Err(Status::BadText));
    assert_eq!(program.transmit(), b"");
    assert_eq!(program.publish(&ok), Ok(1));
}

#[test]
fn a_call_in_the_middle_of_another_is_told_so() {
    // As an interrupt would find it: the word that says that a call is under way is set by hand.
    let mut program = Program::connected(&options());
    let ok = message("a", "1", 1);
    let word = program.at().cast::<usize>();
    // SAFETY: the first word of the session.
    unsafe {
        let ready = word.read();
        word.write(BUSY);
        assert_eq!(dunlin_publish(program.at(), &raw const ok, null_mut()), Status::Busy);
        let mut out = [0_u8; 8];
        let mut len = out.len();
        let status = dunlin_transmit(program.at(), 0, out.as_mut_ptr().cast(), &raw mut len, null_mut());
        assert_eq!((status, len), (Status::Busy, 0));
        assert_eq!((dunlin_wait_ms(program.at(), 0), dunlin_is_connected(program.at())), (0, false));
        word.write(ready);
    }
    assert_eq!(program.publish(&ok), Ok(1));
}

const BUSY: usize = 0x696E_2E2E;

#[test]
fn time_that_is_left_is_told_in_milliseconds() {
    let mut program = Program::new();
    assert_eq!(program.init(&dunlin_options { keep_alive_s: 40, answer_timeout_s: 7, ..options() }), Status::Ok);
    let start = 0xFFFF_FF00;
    // SAFETY: the session is there.
    unsafe {
        assert_eq!(dunlin_wait_ms(program.at(), start), u32::MAX);
        assert_eq!(dunlin_open(program.at(), start), Status::Ok);
        assert_eq!(dunlin_wait_ms(program.at(), start + 1_000), 6_000);
        assert_eq!(dunlin_wait_ms(program.at(), start + 7_001), 0);
        assert_eq!(dunlin_wait_ms(program.at(), 16), 0, "the clock has wrapped");
    }
    program.open(CONNACK);
    // SAFETY: as above.
    assert_eq!(unsafe { dunlin_wait_ms(program.at(), 0) }, 35_000);
}

#[test]
fn a_long_message_may_take_longer_than_the_answer_to_a_ping_which_stands_behind_it() {
    let mut program = Program::new();
    program.rx = vec![0xA5; 8192];
    assert_eq!(program.init(&dunlin_options { keep_alive_s: 10, answer_timeout_s: 3, ..options() }), Status::Ok);
    program.open(CONNACK);
    let mut poll = |seconds: u64, bytes: &[u8]| {
        program.receive(bytes);
        // SAFETY: as in C, zeroes are an event.
        let mut event: dunlin_event = unsafe { zeroed() };
        // SAFETY: the session was made.
        let status = unsafe { dunlin_poll(program.at(), seconds * 1000, &raw mut event) };
        (status, event.kind)
    };
    let packet = [b"\x30\xf3\x2e\x00\x01a", &[7; 6000][..]].concat();
    for (seconds, piece) in (2..).step_by(2).zip(packet[..6000].chunks(600)) {
        assert_eq!(poll(seconds, piece), (Status::Ok, 0), "{seconds} s");
    }
    assert_eq!(poll(22, &packet[6000..]), (Status::Ok, 2));
    assert_eq!(poll(22, b""), (Status::Ok, 0));
    // One that stops coming does not.
    assert_eq!(poll(23, &packet[..3000]), (Status::Ok, 0));
    assert_eq!(poll(24, b""), (Status::Ok, 0));
    assert_eq!(poll(26, b"").0, Status::Fault);
}

#[test]
fn messages_are_acknowledged_by_hand() {
    let mut program = Program::connected(&dunlin_options { manual_acks: 1, ..options() });
    program.receive(b"\x32\x06\x00\x01a\x00\x091");
    let event = program.poll();
    assert_eq!((event.kind, program.poll().kind), (2, 0));
    assert_eq!(program.transmit(), b"");
    // SAFETY: the session is there.
    unsafe {
        assert_eq!(dunlin_acknowledge(program.at(), event.receipt), Status::Ok);
        assert_eq!(dunlin_acknowledge(program.at(), event.receipt), Status::Unknown);
    }
    assert_eq!(program.transmit(), b"\x40\x02\x00\x09");
}

#[test]
fn what_does_not_fit_comes_in_chunks_or_is_skipped() {
    let mut program = Program::connected(&dunlin_options { chunk_align: 4, ..options() });
    let mut packet = b"\x30\x67\x00\x01a".to_vec();
    packet.extend(0..100);
    let mut payload = Vec::new();
    for part in packet.chunks(30) {
        program.receive(part);
        loop {
            let event = program.poll();
            if event.kind == 0 {
                break;
            }
            assert_eq!((event.kind, event.offset, event.total), (3, payload.len(), 100));
            assert_eq!(read(event.message.topic), if payload.is_empty() { b"a".to_vec() } else { Vec::new() });
            payload.extend(read(event.message.payload));
            assert_eq!(event.is_last, payload.len() == 100);
        }
    }
    assert_eq!(payload, (0..100).collect::<Vec<u8>>());

    let mut program = Program::connected(&dunlin_options { oversize: 1, ..options() });
    for part in packet.chunks(30) {
        program.receive(part);
        let event = program.poll();
        if event.kind != 0 {
            assert_eq!((event.kind, event.total, event.message.qos), (4, 105, 0));
        }
    }
    // SAFETY: the session is there.
    assert_eq!(unsafe { dunlin_skipped_count(program.at()) }, 1);
}

#[test]
fn payloads_may_stay_where_they_are() {
    let mut program = Program::connected(&options());
    let head = message("a", "not looked at", 1);
    let mut payload = dunlin_payload { key: 0, offset: 0, len: 0 };
    let mut out = [0_u8; 64];
    let mut transmit = |program: &mut Program| {
        let mut len = out.len();
        // SAFETY: all of it is there.
        let status =
            unsafe { dunlin_transmit(program.at(), 0, out.as_mut_ptr().cast(), &raw mut len, &raw mut payload) };
        (status, out[..len].to_vec(), (payload.key, payload.offset, payload.len))
    };
    // SAFETY: the session is there.
    unsafe {
        assert_eq!(dunlin_publish_external(program.at(), &raw const head, 77, 3, null_mut()), Status::Ok);
        assert_eq!(transmit(&mut program).1, b"\x32\x08\x00\x01a\x00\x01");
        assert_eq!(transmit(&mut program), (Status::Payload, vec![], (77, 0, 3)));
        assert_eq!(dunlin_supplied(program.at(), 2), Status::Ok);
        assert_eq!(transmit(&mut program), (Status::Payload, vec![], (77, 2, 1)));
        assert_eq!(dunlin_give_up(program.at(), 78), Status::Unknown);
        assert_eq!(dunlin_give_up(program.at(), 77), Status::Ok);
    }
    assert_eq!((program.poll().kind, program.poll().kind), (7, 0));
}

#[test]
fn newer_messages_push_out_older_ones() {
    let mut program = Program::new();
    assert_eq!(program.init(&options()), Status::Ok);
    let mut replace = |payload, policy| {
        let mut id = 0;
        let message = message("a", payload, 1);
        // SAFETY: the session is there.
        let status = unsafe { dunlin_publish_replacing(program.at(), &raw const message, policy, &raw mut id) };
        assert_eq!(status, Status::Ok);
        id
    };
    assert_eq!((replace("1", 1), replace("2", 1), replace("3", 2)), (1, 1, 2));
    // SAFETY: as above.
    unsafe {
        assert_eq!(dunlin_withdraw(program.at(), 2), Status::Ok);
        assert_eq!(dunlin_withdraw(program.at(), 2), Status::Unknown);
    }
    program.open(CONNACK);
    assert_eq!(program.transmit(), b"\x32\x06\x00\x01a\x00\x012");
}

#[test]
fn filters_come_and_go() {
    let mut program = Program::connected(&options());
    let filters = [dunlin_filter { text: bytes("a/+"), qos: 1 }, dunlin_filter { text: bytes("b/#"), qos: 2 }];
    let mut id = 0;
    // SAFETY: all of it is there.
    unsafe {
        assert_eq!(dunlin_subscribe(program.at(), filters.as_ptr(), 2, &raw mut id), Status::Ok);
    }
    assert_eq!((id, program.transmit()), (1, b"\x82\x0e\x00\x01\x00\x03a/+\x01\x00\x03b/#\x02".to_vec()));
    program.receive(b"\x90\x04\x00\x01\x01\x02");
    assert_eq!(program.poll().kind, 8);
    let texts = [bytes("b/#")];
    // SAFETY: as above.
    unsafe {
        let wrong = [bytes("b/#"), bytes("b/#/c")];
        assert_eq!(dunlin_unsubscribe(program.at(), wrong.as_ptr(), 2, null_mut()), Status::BadText);
        assert_eq!(dunlin_unsubscribe(program.at(), texts.as_ptr(), 1, &raw mut id), Status::Ok);
    }
    assert_eq!((id, program.transmit()), (2, b"\xa2\x07\x00\x02\x00\x03b/#".to_vec()));
    program.receive(b"\xb0\x02\x00\x02");
    let event = program.poll();
    assert_eq!((event.kind, event.packet_id), (9, 2));
    // The server loses the session: what is left is asked for again, and only that.
    program.open(CONNACK);
    assert_eq!(program.transmit(), b"\x82\x08\x00\x01\x00\x03a/+\x01");
    // SAFETY: texts that are there.
    unsafe {
        assert!(dunlin_matches(bytes("a/+"), bytes("a/b")));
        assert!(!dunlin_matches(bytes("a/+"), bytes("a/b/c")));
        assert!(!dunlin_matches(bytes("a/#/c"), bytes("a/b/c")));
        assert!(!dunlin_matches(bytes("#"), bytes("a/+")));
    }
}

#[test]
fn a_session_comes_back_after_a_restart() {
    let durable = dunlin_options { durable: 1, ..options() };
    let mut program = Program::connected(&durable);
    let mut mark = dunlin_mark { packet_id: 0, stage: 0 };
    assert_eq!(program.publish(&message("a", "2", 2)), Ok(1));
    assert_eq!(program.transmit(), b"", "not before it is stored");
    // SAFETY: all of it is there.
    unsafe {
        assert_eq!(dunlin_next_mark(program.at(), null_mut()), Status::BadArgument);
        assert_eq!(dunlin_next_mark(program.at(), &raw mut mark), Status::Ok);
        assert_eq!((mark.packet_id, mark.stage), (1, 1));
        assert_eq!(dunlin_mark_stored(program.at(), mark), Status::Ok);
        assert_eq!(dunlin_next_mark(program.at(), &raw mut mark), Status::Unknown);
        assert_eq!(dunlin_next_id(program.at()), 2);
    }
    assert_eq!(program.transmit(), b"\x34\x06\x00\x01a\x00\x012");

    let mut program = Program::new();
    assert_eq!(program.init(&durable), Status::Ok);
    let (stored, head) = (message("a", "2", 2), message("b", "", 1));
    let filter = dunlin_filter { text: bytes("c"), qos: 0 };
    // SAFETY: all of it is there.
    unsafe {
        assert_eq!(dunlin_restore_released(program.at(), 9), Status::Ok);
        assert_eq!(dunlin_restore_message(program.at(), 1, &raw const stored), Status::Ok);
        assert_eq!(dunlin_restore_message(program.at(), 1, &raw const stored), Status::IdInUse);
        assert_eq!(dunlin_restore_external(program.at(), 2, &raw const head, 5, 1), Status::Ok);
        assert_eq!(dunlin_restore_received(program.at(), 3), Status::Ok);
        assert_eq!(dunlin_restore_next_id(program.at(), 4), Status::Ok);
        assert_eq!(dunlin_restore_filter(program.at(), &raw const filter), Status::Ok);
    }
    program.open(RESUMED);
    assert_eq!(program.transmit(), b"\x62\x02\x00\x09\x82\x06\x00\x04\x00\x01c\x00\x3c\x06\x00\x01a\x00\x012");
    assert_eq!(program.transmit(), b"\x3a\x06\x00\x01b\x00\x02", "a payload from outside follows");
    // What had been handled is acknowledged, and not shown again.
    program.receive(b"\x3c\x05\x00\x01d\x00\x03");
    assert_eq!(program.poll().kind, 0);
}
