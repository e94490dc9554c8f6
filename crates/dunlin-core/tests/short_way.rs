//! The short way for what is common: it changes nothing but the time that is taken.

use dunlin_core::{
    Common, Event, Fault, Filter, Inbox, Instant, Options, Oversize, PacketId, Publish, PublishError, QoS, Receipt,
    Session, Storage, Transmit,
};
use dunlin_testkit::{Rng, seeds};

/// What a session tells, as text, and what it wants.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    events: Vec<String>,
    receipts: Vec<Receipt>,
    fault: Option<Fault>,
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
struct Way {
    is_short: bool,
    room: usize,
}

/// Takes what came and gives what leaves, until there is nothing more; by the short way where there is one. `grow` is
/// asked when there is nothing more to tell, and says whether to look again.
fn turn<'s>(twin: &mut Twin<'s, '_>, now: Instant, way: Way, mut grow: impl FnMut(&mut Session<'s>) -> bool) -> Told {
    let Twin { session, inbox } = twin;
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
fn packet(rng: &mut Rng) -> Vec<u8> {
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

/// What a session is made of at random: does it last, too?
pub fn options(rng: &mut Rng) -> (Options<'static>, bool) {
    let mut options = Options::new("twin").window(3);
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
    (options, is_persistent)
}

/// A session and its inbox.
pub struct Twin<'s, 'm> {
    pub session: Session<'s>,
    pub inbox: Inbox<'m>,
}

/// How the other twin differs.
pub trait Difference<'s> {
    /// Whether it takes the short way this time.
    fn is_short(&mut self, rng: &mut Rng) -> bool;

    /// What happens now and then, to both perhaps.
    fn meanwhile(&mut self, rng: &mut Rng, now: Instant, one: &mut Session<'s>, other: &mut Session<'s>);

    /// It has nothing more to tell. Whether to look again.
    fn grow(&mut self, other: &mut Session<'s>) -> bool;
}

/// What the twins have told, and the seed of those that tell now.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub seed: u64,
    pub messages: usize,
    pub delivered: usize,
    pub faults: usize,
}

/// Two sessions live through the same, and must tell and want the same, however the other one differs.
pub fn compare<'s>(
    rng: &mut Rng,
    is_persistent: bool,
    [one, other]: &mut [Twin<'s, '_>; 2],
    difference: &mut impl Difference<'s>,
    counts: &mut Counts,
) {
    let mut time = 0;
    let mut is_up = false;
    let mut receipts = Vec::new();
    let mut unread = Vec::new();
    for _ in 0..200 {
        time += rng.below(300) as u64;
        let now = Instant::from_millis(time);
        if !is_up {
            one.session.open(now, &mut one.inbox);
            other.session.open(now, &mut other.inbox);
            unread = vec![0x20, 2, u8::from(is_persistent && rng.chance(2, 3)), 0];
            is_up = true;
        }
        let is_short = difference.is_short(rng);
        match rng.below(9) {
            0..4 => unread.extend(packet(rng)),
            4 | 5 => {
                let payload = vec![9; rng.below(150)];
                let qos = *rng.pick(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]);
                let message = Publish::new(rng.pick::<&str>(&["a", "x/y", "a/+"]), &payload).with_qos(qos);
                assert_eq!(publish(&mut one.session, &message, false), publish(&mut other.session, &message, is_short));
            }
            6 => {
                if let Some(receipt) = receipts.pop() {
                    assert_eq!(one.session.acknowledge(receipt), other.session.acknowledge(receipt));
                }
                while let Some(mark) = one.session.next_mark() {
                    assert_eq!(other.session.next_mark(), Some(mark));
                    one.session.mark_stored(mark);
                    other.session.mark_stored(mark);
                }
            }
            7 => {
                let filters = [Filter::literal("a/#", QoS::ExactlyOnce)];
                assert_eq!(one.session.subscribe(&filters), other.session.subscribe(&filters));
            }
            _ => difference.meanwhile(rng, now, &mut one.session, &mut other.session),
        }
        let n = rng.below(unread.len() + 1);
        let n = one.inbox.push(&unread[..n]);
        assert_eq!(other.inbox.push(&unread[..n]), n);
        unread.drain(..n);
        let room = *rng.pick(&[1, 3, 4, 30, 1000]);
        let told = turn(one, now, Way { is_short: false, room }, |_| false);
        let told_other = turn(other, now, Way { is_short, room }, |session| difference.grow(session));
        assert_eq!(told_other, told, "seed {}", counts.seed);
        assert_eq!(one.session.deadline(), other.session.deadline());
        assert_eq!(one.session.outgoing_count(), other.session.outgoing_count());
        counts.messages += told.events.iter().filter(|event| event.starts_with("Message")).count();
        counts.delivered += told.events.iter().filter(|event| event.starts_with("Delivered")).count();
        counts.faults += usize::from(told.fault.is_some());
        receipts.extend(told.receipts);
        if told.fault.is_some() || rng.chance(1, 40) {
            one.session.lost();
            other.session.lost();
            is_up = false;
        }
    }
}

/// The other one always takes the short way.
struct Short;

impl<'s> Difference<'s> for Short {
    fn is_short(&mut self, _: &mut Rng) -> bool {
        true
    }

    fn meanwhile(&mut self, _: &mut Rng, _: Instant, _: &mut Session<'s>, _: &mut Session<'s>) {}

    fn grow(&mut self, _: &mut Session<'s>) -> bool {
        false
    }
}

#[test]
fn what_is_common_takes_a_short_way_and_nothing_else_changes() {
    let mut counts = Counts::default();
    for seed in seeds(300) {
        counts.seed = seed;
        let mut rng = Rng::new(seed);
        let (options, is_persistent) = options(&mut rng);
        let mut storages: [Box<Storage<300, 300, 6>>; 2] = Default::default();
        let mut twins = storages.each_mut().map(|storage| {
            let (memory, inbox) = storage.split();
            Twin { session: Session::new(options, memory), inbox }
        });
        compare(&mut rng, is_persistent, &mut twins, &mut Short, &mut counts);
    }
    assert!(counts.messages > 1000 && counts.delivered > 100 && counts.faults > 100, "{counts:?}");
}
