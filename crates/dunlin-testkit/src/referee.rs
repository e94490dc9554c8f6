//! What the standard lets a client send, given what it has sent and seen so far.
//!
//! A referee watches one client: packets that it sends and packets that reach it. Where it stands decides how much it
//! knows. At the client's end ([`View::Client`]) both streams are exact. At the broker's end ([`View::Broker`]) a
//! packet that was sent may never have been read, so each exchange is a *set* of stages that it may be in, narrowed
//! by what the client does next. The rules are the same. It changes nothing and sends nothing; it only notes breaches.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::packet::{Breach, Kind, Message, Packet};

/// Where the referee stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum View {
    /// Beside the client: what it was sent, it has read.
    Client,
    /// Beside the broker: what it was sent, it may have read.
    Broker,
}

/// How far the current connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Down,
    Open,
    Asked,
    Connected,
    Refused,
    Goodbye,
}

/// Stages of an exchange that the client started, as bits: the referee may have to reckon with several.
mod stage {
    pub const OPEN: u8 = 1; // PUBLISH is unacknowledged
    pub const RECORDED: u8 = 2; // the client has read PUBREC
    pub const RELEASED: u8 = 4; // the client has sent PUBREL
    pub const DONE: u8 = 8; // the client has read PUBACK or PUBCOMP
}

/// A message on its way from the client.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Exchange {
    id: u16,
    qos: u8,
    fingerprint: u64,
    stages: u8,
    /// PUBLISH or PUBREL was sent on the connection that is up now.
    on_link: bool,
}

/// A PUBREL that the client owes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Due {
    id: u16,
    /// Its PUBREC came on the connection that is up now.
    on_link: bool,
}

/// Acknowledgements that the client owes, in the order in which it must send them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Owed {
    order: Vec<u16>,
    /// Answers beyond the first, for packets that came twice.
    spare: BTreeMap<u16, u8>,
}

impl Owed {
    fn add(&mut self, id: u16) {
        if self.order.contains(&id) { *self.spare.entry(id).or_default() += 1 } else { self.order.push(id) }
    }

    /// The position of `id` among what is owed, which it leaves; `None` when it was not owed.
    fn settle(&mut self, id: u16) -> Option<usize> {
        if let Some(at) = self.order.iter().position(|&owed| owed == id) {
            self.order.remove(at);
            return Some(at);
        }
        let spare = self.spare.get_mut(&id)?;
        *spare -= 1;
        if *spare == 0 {
            self.spare.remove(&id);
        }
        Some(0)
    }
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Referee {
    view: View,
    phase: Phase,
    clean: bool,
    /// The server had the session when this connection began.
    resumed: bool,
    /// The client lost its memory and may not know what it had sent.
    rebooted: bool,
    /// A connection ended inside a PUBLISH: it may be sent again with DUP or without.
    half_sent: bool,
    keep_alive_ms: u64,
    last_sent: u64,
    exchanges: Vec<Exchange>,
    requests: BTreeMap<u16, Kind>,
    /// Exchanges past PUBREC, in the order of the PUBRECs.
    recorded: Vec<u16>,
    pubrels: Vec<Due>,
    /// PUBRECs beyond the first, or for nothing that is open: a PUBREL may answer them.
    strays: BTreeMap<u16, u8>,
    pubacks: Owed,
    pubrecs: Owed,
    pubcomps: Owed,
    breaches: Vec<Breach>,
}

impl Referee {
    /// A referee for a client that has not connected yet.
    pub fn new(view: View) -> Self {
        Self {
            view,
            phase: Phase::Down,
            clean: false,
            resumed: false,
            rebooted: false,
            half_sent: false,
            keep_alive_ms: 0,
            last_sent: 0,
            exchanges: Vec::new(),
            requests: BTreeMap::new(),
            recorded: Vec::new(),
            pubrels: Vec::new(),
            strays: BTreeMap::new(),
            pubacks: Owed::default(),
            pubrecs: Owed::default(),
            pubcomps: Owed::default(),
            breaches: Vec::new(),
        }
    }

    /// What the client did wrong so far.
    pub fn breaches(&self) -> &[Breach] {
        &self.breaches
    }

    /// Hands the breaches over.
    pub fn take_breaches(&mut self) -> Vec<Breach> {
        std::mem::take(&mut self.breaches)
    }

    /// A stream is up.
    pub fn opened(&mut self, now: u64) {
        self.phase = Phase::Open;
        self.last_sent = now;
        self.requests.clear();
        self.strays.clear();
        self.pubacks = Owed::default();
        self.pubrecs = Owed::default();
        self.pubcomps = Owed::default();
        for exchange in &mut self.exchanges {
            exchange.on_link = false;
        }
        for due in &mut self.pubrels {
            due.on_link = false;
        }
    }

    /// The stream is gone; `partial` are the bytes of a packet that did not leave whole.
    pub fn closed(&mut self, partial: &[u8]) {
        self.phase = Phase::Down;
        self.half_sent |= partial.first().is_some_and(|first| first >> 4 == 3);
    }

    /// The client lost its memory and comes back from what it had stored.
    ///
    /// A packet that depends on a stored state must not have left before it was stored, so what the client has *sent*
    /// still binds it; what it has only *read* does not.
    pub fn power_cut(&mut self) {
        self.rebooted = true;
        for exchange in &mut self.exchanges {
            if exchange.stages & stage::RECORDED != 0 {
                exchange.stages |= stage::OPEN;
            }
            if exchange.stages & stage::DONE != 0 {
                exchange.stages |= if exchange.qos == 1 { stage::OPEN } else { stage::RELEASED };
            }
        }
    }

    /// The client could not send for a while through no fault of its own.
    pub fn excuse_silence(&mut self, now: u64) {
        self.last_sent = self.last_sent.max(now);
    }

    /// Messages that the client must have sent again on this connection and has not, once it has nothing left to do.
    // [MQTT-4.4.0-1]
    pub fn not_resent(&self) -> Vec<u16> {
        if self.phase != Phase::Connected || !self.resumed {
            return Vec::new();
        }
        let waiting = |x: &&Exchange| !x.on_link && x.stages & stage::DONE == 0;
        self.exchanges.iter().filter(waiting).map(|x| x.id).collect()
    }

    /// Acknowledgements that the client owes on this connection: PUBACK, PUBREC, PUBREL, PUBCOMP.
    pub fn owed(&self) -> [Vec<u16>; 4] {
        let releases = self.pubrels.iter().map(|due| due.id).collect();
        [self.pubacks.order.clone(), self.pubrecs.order.clone(), releases, self.pubcomps.order.clone()]
    }

    /// Identifiers of messages that the client has not seen the end of, in the order of their first sending.
    pub fn open_ids(&self) -> Vec<u16> {
        self.exchanges.iter().filter(|x| x.stages & stage::DONE == 0).map(|x| x.id).collect()
    }

    fn breach(&mut self, statement: &'static str, what: impl Into<String>) {
        self.breaches.push(Breach::new(statement, what));
    }

    /// The client has sent `packet`; its first byte left at `begun`, its last at `now`.
    pub fn sent(&mut self, packet: &Packet, begun: u64, now: u64) {
        if self.keep_alive_ms > 0 && self.phase == Phase::Connected {
            let gap = begun.saturating_sub(self.last_sent);
            if gap > self.keep_alive_ms {
                self.breach(
                    "MQTT-3.1.2-23",
                    format!("{gap} ms without a packet, keep alive is {}", self.keep_alive_ms),
                );
            }
        }
        self.last_sent = now;
        match (self.phase, packet) {
            (Phase::Down, _) => self.breach("MQTT-3.14.4-1", format!("{packet:?} without a connection")),
            (Phase::Goodbye, _) => self.breach("MQTT-3.14.4-2", format!("{packet:?} after DISCONNECT")),
            (Phase::Refused, _) => self.breach("MQTT-3.2.2-5", format!("{packet:?} after a refusing CONNACK")),
            (Phase::Open, Packet::Connect(connect)) => {
                self.phase = Phase::Asked;
                self.clean = connect.clean;
                self.keep_alive_ms = u64::from(connect.keep_alive) * 1000;
                if connect.clean {
                    self.forget();
                }
            }
            (Phase::Open, _) => self.breach("MQTT-3.1.0-1", format!("{packet:?} is the first packet")),
            (_, Packet::Connect(_)) => self.breach("MQTT-3.1.0-2", "a second CONNECT"),
            (_, Packet::Disconnect) => self.phase = Phase::Goodbye,
            (Phase::Asked, _) => self.breach("U311-07", format!("{packet:?} before CONNACK")),
            (Phase::Connected, _) => self.sent_connected(packet),
        }
    }

    fn sent_connected(&mut self, packet: &Packet) {
        match packet {
            Packet::Publish { message, .. } if message.qos == 0 => {}
            Packet::Publish { dup: false, id, message } => self.new_message(*id, message),
            Packet::Publish { dup: true, id, message } => self.message_again(*id, message),
            Packet::Pubrel(id) => self.release(*id),
            // [MQTT-4.6.0-2] [MQTT-2.3.1-6]
            Packet::Puback(id) => match self.pubacks.settle(*id) {
                Some(0) => {}
                Some(_) => self.breach("MQTT-4.6.0-2", format!("PUBACK #{id} overtakes an earlier message's")),
                None => self.breach("MQTT-2.3.1-6", format!("PUBACK #{id} answers nothing on this connection")),
            },
            // [MQTT-4.6.0-3]
            Packet::Pubrec(id) => match self.pubrecs.settle(*id) {
                Some(0) => {}
                Some(_) => self.breach("MQTT-4.6.0-3", format!("PUBREC #{id} overtakes an earlier message's")),
                None => self.breach("MQTT-2.3.1-6", format!("PUBREC #{id} answers nothing on this connection")),
            },
            Packet::Pubcomp(id) => {
                if self.pubcomps.settle(*id).is_none() {
                    self.breach("MQTT-4.3.3-2", format!("PUBCOMP #{id} without PUBREL"));
                }
            }
            Packet::Subscribe { id, .. } | Packet::Unsubscribe { id, .. } => {
                self.fresh_id(*id);
                self.requests.insert(*id, packet.kind());
            }
            Packet::Pingreq => {}
            _ => self.breach("MQTT-4.8.0-1", format!("{packet:?} is not for a client to send")),
        }
    }

    // [MQTT-2.3.1-2] A new packet takes an identifier that is not in use.
    fn fresh_id(&mut self, id: u16) {
        if self.requests.contains_key(&id) {
            self.breach("MQTT-2.3.1-2", format!("#{id} belongs to a request without an answer"));
        }
        let open = |x: &Exchange| x.id == id && x.stages & stage::DONE == 0;
        if self.exchanges.iter().any(open) {
            self.breach("MQTT-2.3.1-2", format!("#{id} belongs to a message that is not finished"));
        }
        self.exchanges.retain(|x| x.id != id);
        self.not_released(id);
    }

    fn not_released(&mut self, id: u16) {
        self.pubrels.retain(|due| due.id != id);
        self.recorded.retain(|&recorded| recorded != id);
    }

    // [MQTT-4.6.0-1] What must be sent again goes before anything that comes behind it in the order.
    fn overtakes(&mut self, id: u16) {
        let late = |x: &&Exchange| x.stages == stage::OPEN && !x.on_link;
        if let Some(late) = self.exchanges.iter().take_while(|x| x.id != id).find(late).map(|x| x.id) {
            self.breach("MQTT-4.6.0-1", format!("PUBLISH #{id} overtakes #{late}, which is still to be sent again"));
        }
    }

    fn new_message(&mut self, id: u16, message: &Message) {
        let fingerprint = fingerprint(message);
        if let Some(known) = self.exchanges.iter().find(|x| x.id == id)
            && known.stages & stage::DONE == 0
            && known.fingerprint == fingerprint
        {
            self.breach("MQTT-3.3.1-1", format!("PUBLISH #{id} again without DUP"));
        } else {
            self.fresh_id(id);
        }
        self.exchanges.retain(|x| x.id != id);
        self.overtakes(id);
        self.exchanges.push(Exchange { id, qos: message.qos, fingerprint, stages: stage::OPEN, on_link: true });
        if self.exchanges.len() > REMEMBERED
            && let Some(oldest) = self.exchanges.iter().position(|x| x.stages & stage::DONE != 0)
        {
            self.exchanges.remove(oldest);
        }
    }

    fn message_again(&mut self, id: u16, message: &Message) {
        let fingerprint = fingerprint(message);
        let is_same = |x: &Exchange| x.fingerprint == fingerprint && x.qos == message.qos;
        // Another message under an identifier that may be free again: its first sending was lost, or only planned.
        let is_another = |x: &Exchange| x.id == id && x.stages & stage::DONE != 0 && !is_same(x);
        if self.exchanges.iter().any(is_another) {
            self.fresh_id(id);
        }
        let Some(at) = self.exchanges.iter().position(|x| x.id == id) else {
            // [MQTT-3.3.1-3] DUP says that this is a re-transmission and nothing else.
            let may_be_one = match self.view {
                View::Broker => self.resumed,
                View::Client => self.resumed && (self.rebooted || std::mem::take(&mut self.half_sent)),
            };
            if !may_be_one {
                self.breach("MQTT-3.3.1-3", format!("DUP on PUBLISH #{id}, which was never sent before"));
            }
            self.overtakes(id);
            self.exchanges.push(Exchange { id, qos: message.qos, fingerprint, stages: stage::OPEN, on_link: true });
            return;
        };
        let known = &self.exchanges[at];
        let (stages, on_link) = (known.stages, known.on_link);
        let same = is_same(known);
        if on_link {
            self.breach("U311-10", format!("PUBLISH #{id} again on a connection that is still up"));
        } else if !self.resumed {
            self.breach("MQTT-3.3.1-3", format!("DUP on PUBLISH #{id} in a new session"));
        } else if stages & stage::OPEN != 0 {
            if !same {
                self.breach("MQTT-4.4.0-1", format!("PUBLISH #{id} again with other contents"));
            }
            self.overtakes(id);
        } else if stages == stage::DONE {
            self.breach("MQTT-4.3.2-1", format!("PUBLISH #{id} again although it was acknowledged"));
        } else {
            self.breach("MQTT-4.3.3-1", format!("PUBLISH #{id} again after its PUBREC"));
        }
        self.not_released(id);
        let known = &mut self.exchanges[at];
        known.stages = stage::OPEN;
        known.on_link = true;
    }

    // [MQTT-4.3.3-1] [MQTT-4.6.0-4] One PUBREL per PUBREC, in the order of the PUBRECs.
    fn release(&mut self, id: u16) {
        let Some(at) = self.pubrels.iter().position(|due| due.id == id) else {
            match self.strays.get_mut(&id) {
                Some(0) | None => self.breach("MQTT-4.3.3-1", format!("PUBREL #{id} answers no PUBREC")),
                Some(count) => *count -= 1,
            }
            return;
        };
        let certain = |due: &Due| {
            let surely_recorded =
                |x: &Exchange| x.id == due.id && !self.rebooted && x.stages & (stage::OPEN | stage::DONE) == 0;
            due.on_link || self.exchanges.iter().any(surely_recorded)
        };
        if let Some(earlier) = self.pubrels[..at].iter().find(|due| certain(due)).map(|due| due.id) {
            self.breach("MQTT-4.6.0-4", format!("PUBREL #{id} overtakes #{earlier}, whose PUBREC came first"));
        }
        self.pubrels.remove(at);
        if let Some(exchange) = self.exchanges.iter_mut().find(|x| x.id == id) {
            exchange.stages = stage::RELEASED;
            exchange.on_link = true;
        }
    }

    /// `packet` was sent to the client; beside the client: it has arrived.
    pub fn received(&mut self, packet: &Packet) {
        match packet {
            Packet::Connack { session_present, code: 0 } if self.phase == Phase::Asked => {
                self.phase = Phase::Connected;
                self.resumed = *session_present;
                if *session_present { self.resume() } else { self.forget() }
            }
            Packet::Connack { code, .. } if *code != 0 && self.phase == Phase::Asked => self.phase = Phase::Refused,
            _ if self.phase != Phase::Connected => {}
            Packet::Puback(id) => self.finish(*id, 1, stage::OPEN),
            Packet::Pubcomp(id) => self.finish(*id, 2, stage::RELEASED),
            Packet::Pubrec(id) => self.recorded(*id),
            Packet::Suback { id, .. } if self.requests.get(id) == Some(&Kind::Subscribe) => {
                self.requests.remove(id);
            }
            Packet::Unsuback(id) if self.requests.get(id) == Some(&Kind::Unsubscribe) => {
                self.requests.remove(id);
            }
            Packet::Publish { id, message, .. } if message.qos == 1 => self.pubacks.add(*id),
            Packet::Publish { id, message, .. } if message.qos == 2 => self.pubrecs.add(*id),
            Packet::Pubrel(id) => self.pubcomps.add(*id),
            _ => {}
        }
    }

    /// The session goes on: each exchange past PUBREC owes its PUBREL again.
    fn resume(&mut self) {
        let owes = |id: &u16| self.exchanges.iter().any(|x| x.id == *id && past_pubrec(x));
        self.recorded.retain(owes);
        self.pubrels = self.recorded.iter().map(|&id| Due { id, on_link: false }).collect();
    }

    /// There is no session any more: what the client sends from here on, it sends for the first time.
    ///
    /// Seen from the broker, the client may never read that. Then it goes on as if nothing had happened, and the next
    /// CONNACK says that it is right.
    fn forget(&mut self) {
        if self.view == View::Broker && !self.clean {
            for exchange in &mut self.exchanges {
                exchange.stages |= stage::DONE;
            }
            return;
        }
        self.exchanges.clear();
        self.recorded.clear();
        self.pubrels.clear();
        self.half_sent = false;
    }

    fn reached(&self, from: u8, to: u8) -> u8 {
        match self.view {
            View::Client => to,
            View::Broker => from | to,
        }
    }

    fn finish(&mut self, id: u16, qos: u8, before: u8) {
        let Some(at) = self.exchanges.iter().position(|x| x.id == id && x.qos == qos && x.stages & before != 0) else {
            return;
        };
        self.exchanges[at].stages = self.reached(self.exchanges[at].stages, stage::DONE);
        if self.view == View::Client {
            self.pubrels.retain(|due| due.id != id);
        }
    }

    fn recorded(&mut self, id: u16) {
        match self.exchanges.iter().position(|x| x.id == id && x.qos == 2 && x.stages != stage::DONE) {
            Some(at) => {
                if self.exchanges[at].stages & stage::OPEN != 0 {
                    self.exchanges[at].stages = self.reached(self.exchanges[at].stages, stage::RECORDED);
                    self.not_released(id);
                    self.recorded.push(id);
                }
                if self.pubrels.iter().any(|due| due.id == id) {
                    *self.strays.entry(id).or_default() += 1;
                } else {
                    self.pubrels.push(Due { id, on_link: true });
                }
            }
            None => *self.strays.entry(id).or_default() += 1,
        }
    }
}

fn past_pubrec(exchange: &Exchange) -> bool {
    exchange.stages & (stage::RECORDED | stage::RELEASED) != 0
}

fn fingerprint(message: &Message) -> u64 {
    let mut hasher = DefaultHasher::new();
    message.hash(&mut hasher);
    hasher.finish()
}

/// Finished exchanges beyond this many are forgotten, the oldest first, so that a long test stays quick.
const REMEMBERED: usize = 1024;
