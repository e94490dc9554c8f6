//! The short way for what is common: it changes nothing but the time that is taken.

use dunlin_core::{
    Common, Event, Fault, Filter, Inbox, Instant, Options, Oversize, PacketId, Publish, PublishError, QoS, Receipt,
    Session, Storage, Transmit,
};
use dunlin_testkit::{Rng, seeds};

/// What a session tells, as text, and what it wants.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Told {
    pub events: Vec<String>,
    pub receipts: Vec<Receipt>,
    pub fault: Option<Fault>,
    sent: Vec<u8>,
}

impl Told {
    fn note(&mut self, event: &Event<'_>) {
        if let Event::Message(message) = event {
            self.receipts.extend(message.receipt());
            self.events.push(format!("{event:?} {:?} {:?}", message.payload, message.receipt()));
        } else {
            self.events.push(format!("{event:?}"));
        }
    }
}

/// Whether to take the short way, and how many bytes to send at a time.
#[derive(Clone, Copy)]
pub struct Way {
    pub is_short: bool,
    pub room: usize,
}

/// Takes what came and gives what leaves, until there is nothing more; by the short way where there is one.
fn turn(session: &mut Session<'_>, inbox: &mut Inbox<'_>, now: Instant, way: Way) -> Told {
    turn_with(session, inbox, now, way, |_| false)
}

/// The same; `grow` is asked when there is nothing more to tell, and says whether to look again.
pub fn turn_with<'s>(
    session: &mut Session<'s>,
    inbox: &mut Inbox<'_>,
    now: Instant,
    way: Way,
    mut grow: impl FnMut(&mut Session<'s>) -> bool,
) -> Told {
    let mut told = Told::default();
    let mut out = vec![0; way.room];
    loop {
        let before = told.sent.len();
        while told.fault.is_none() {
            match if way.is_short { session.poll_common(inbox) } else { None } {
                Some(Common::Message(message)) => told.note(&Event::Message(message)),
                Some(Common::Delivered(id)) => told.note(&Event::Delivered(id)),
                None => match session.poll(now, inbox) {
                    Ok(Some(event)) => told.note(&event),
                    Ok(None) if grow(session) => {}
                    Ok(None) => break,
                    Err(fault) => told.fault = Some(fault),
                },
            }
        }
        loop {
            let n = if way.is_short { session.transmit_common(&mut out) } else { 0 };
            told.sent.extend(&out[..n]);
            match session.transmit(now, &mut out) {
                Transmit::Bytes(n) => told.sent.extend(&out[..n]),
                _ => break,
            }
        }
        if told.sent.len() == before {
            return told;
        }
    }
}

fn publish(session: &mut Session<'_>, message: &Publish<'_>, short: bool) -> Result<Option<PacketId>, PublishError> {
    match if short { session.publish_common(message) } else { None } {
        None => session.publish(message),
        id => Ok(id),
    }
}

/// A packet that a server sends, or hardly one.
pub fn packet(rng: &mut Rng) -> Vec<u8> {
    let id = (rng.below(7) as u16 + u16::from(!rng.chance(1, 50))).to_be_bytes();
    let first = *rng.pick(&[0x30, 0x32, 0x34, 0x34, 0x3A, 0x3C, 0x40, 0x50, 0x62, 0x62, 0x70, 0xD0]);
    let mut body = Vec::new();
    if first & 0xF0 == 0x30 {
        let topic = *rng.pick(&["a", "a/b", "plant/7/pressure", "\u{e4}/\u{20ac}"]);
        body.extend((topic.len() as u16).to_be_bytes());
        body.extend(topic.as_bytes());
        body.extend(&id[..if first & 6 == 0 { 0 } else { 2 }]);
        // It looks like packets, for whoever takes it for such.
        body.extend([0x30, 3, 0, 1, b'a'].iter().cycle().take(*rng.pick(&[0, 1, 20, 110, 200, 400])));
    } else if first != 0xD0 {
        body.extend(id);
    }
    if rng.chance(1, 200) && !body.is_empty() {
        let at = rng.below(body.len());
        body[at] = *rng.pick(&[0, b'#', 0xFF]);
    }
    let flags = if rng.chance(1, 400) { 6 } else { 0 };
    let mut packet = vec![first ^ flags];
    match body.len() {
        // The longer form is allowed, too.
        len @ ..128 if rng.chance(1, 10) => packet.extend([len as u8 | 0x80, 0]),
        len @ ..128 => packet.push(len as u8),
        len => packet.extend([len as u8 | 0x80, (len >> 7) as u8]),
    }
    packet.extend(body);
    packet
}

#[test]
fn what_is_common_takes_a_short_way_and_nothing_else_changes() {
    let (mut messages, mut faults, mut delivered) = (0, 0, 0);
    for seed in seeds(300) {
        let mut rng = Rng::new(seed);
        let mut options = Options::new("short").window(3);
        let is_persistent = rng.chance(1, 2);
        if is_persistent {
            options = options.persistent();
        }
        if rng.chance(1, 3) {
            options = options.manual_acks();
        }
        if rng.chance(1, 3) {
            options = options.durable();
        }
        if rng.chance(1, 2) {
            options = options.oversize(Oversize::Skip);
        }
        let mut storages: [Box<Storage<300, 300, 6>>; 2] = Default::default();
        let [plain, short] = &mut storages;
        let ((plain_memory, mut plain_inbox), (short_memory, mut short_inbox)) = (plain.split(), short.split());
        let (mut plain, mut short) = (Session::new(options, plain_memory), Session::new(options, short_memory));
        let mut time = 0;
        let mut is_up = false;
        let mut receipts = Vec::new();
        let mut unread = Vec::new();
        for _ in 0..200 {
            time += rng.below(300) as u64;
            let now = Instant::from_millis(time);
            if !is_up {
                plain.open(now, &mut plain_inbox);
                short.open(now, &mut short_inbox);
                unread = vec![0x20, 2, u8::from(is_persistent && rng.chance(2, 3)), 0];
                is_up = true;
            }
            match rng.below(8) {
                0..4 => unread.extend(packet(&mut rng)),
                4 | 5 => {
                    let payload = vec![9; rng.below(150)];
                    let qos = *rng.pick(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]);
                    let message = Publish::new(rng.pick::<&str>(&["a", "x/y", "a/+"]), &payload).with_qos(qos);
                    assert_eq!(publish(&mut plain, &message, false), publish(&mut short, &message, true));
                }
                6 => {
                    if let Some(receipt) = receipts.pop() {
                        assert_eq!(plain.acknowledge(receipt), short.acknowledge(receipt));
                    }
                    while let Some(mark) = plain.next_mark() {
                        assert_eq!(short.next_mark(), Some(mark));
                        plain.mark_stored(mark);
                        short.mark_stored(mark);
                    }
                }
                _ => {
                    let filters = [Filter::literal("a/#", QoS::ExactlyOnce)];
                    assert_eq!(plain.subscribe(&filters), short.subscribe(&filters));
                }
            }
            let n = rng.below(unread.len() + 1);
            let n = plain_inbox.push(&unread[..n]);
            assert_eq!(short_inbox.push(&unread[..n]), n);
            unread.drain(..n);
            let room = *rng.pick(&[1, 3, 4, 30, 1000]);
            let told = turn(&mut plain, &mut plain_inbox, now, Way { is_short: false, room });
            assert_eq!(turn(&mut short, &mut short_inbox, now, Way { is_short: true, room }), told, "seed {seed}");
            assert_eq!(plain.deadline(), short.deadline());
            assert_eq!(plain.outgoing_count(), short.outgoing_count());
            messages += told.events.iter().filter(|event| event.starts_with("Message")).count();
            delivered += told.events.iter().filter(|event| event.starts_with("Delivered")).count();
            faults += usize::from(told.fault.is_some());
            receipts.extend(told.receipts);
            if told.fault.is_some() || rng.chance(1, 40) {
                plain.lost();
                short.lost();
                is_up = false;
            }
        }
    }
    assert!(messages > 1000 && delivered > 100 && faults > 100, "{messages} {delivered} {faults}");
}
