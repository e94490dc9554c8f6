//! A strict model of an MQTT 3.1.1 broker: bytes and time in, bytes out.
//!
//! It does what the standard asks of a server, in the plainest way, and refuses whatever the standard forbids a
//! client: the offence is noted as a [`Breach`] and the connection ends. On request it misbehaves in chosen ways, so
//! that tests can tell their stories. It owns no socket and no clock, and is a plain value in a canonical form, so that
//! a model checker can keep millions of it. Rules about exchanges live in [`crate::referee`], bytes in
//! [`crate::packet`]; nothing here comes from the code under test.

use std::collections::{BTreeMap, BTreeSet};

use crate::packet::{Breach, Connect, Kind, Message, Packet, Stream, matches};
use crate::referee::{Referee, View};

/// Names one connection that the broker accepted; free for use again after [`Broker::hung_up`].
pub type LinkId = u32;

/// What to do with a packet instead of sending it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Then {
    /// Never send it.
    Drop,
    /// Keep it until [`Broker::release`] or [`Broker::release_all`].
    Hold,
    /// Send it two times.
    Twice,
    /// Send it this many milliseconds later; others overtake it.
    Delay(u64),
}

/// What is left after a restart of the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Persistence {
    /// Sessions and retained messages.
    Kept,
    /// Nothing.
    Lost,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Broker {
    links: BTreeMap<LinkId, Link>,
    sessions: BTreeMap<String, Session>,
    referees: BTreeMap<String, Referee>,
    retained: BTreeMap<String, Message>,
    received: Vec<(String, Message)>,
    breaches: Vec<Breach>,
    silent: Vec<String>,
    orders: Vec<(Kind, Then, u32)>,
    held: Vec<(LinkId, Packet)>,
    delayed: Vec<(u64, LinkId, Packet)>,
    paused: bool,
    now: u64,
    /// Messages at QoS 1 and 2 that are under way to one client at a time.
    pub max_in_flight: usize,
    /// The highest QoS that a subscription is granted.
    pub max_qos: u8,
    /// Retained messages go out before SUBACK, which the standard allows.
    pub publish_before_suback: bool,
    /// The lowest packet identifier that the broker uses.
    pub first_id: u16,
    /// Filters that get 0x80.
    pub refused_filters: BTreeSet<String>,
    /// Return code of CONNACK for the next CONNECT.
    pub refuse_connect: Option<u8>,
    /// What CONNACK says about the session, whatever is true.
    pub claim_session_present: Option<bool>,
}

/// One connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Link {
    stream: Stream,
    out: Vec<u8>,
    client: Option<String>,
    will: Option<Message>,
    keep_alive_ms: u64,
    /// When the last packet was complete.
    heard: u64,
    /// When the first byte of an unfinished packet came.
    begun: Option<u64>,
    /// The broker has ended the connection; what is in `out` still leaves.
    closed: bool,
}

/// What the broker keeps for one client identifier.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Session {
    clean: bool,
    link: Option<LinkId>,
    subscriptions: BTreeMap<String, u8>,
    /// Messages for the client in their order.
    outgoing: Vec<Outgoing>,
    /// QoS 2 messages taken from the client whose PUBREL has not come.
    incoming: BTreeSet<u16>,
}

/// A message at QoS 1 or 2 for a client.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Outgoing {
    /// 0 until it is sent.
    id: u16,
    message: Message,
    /// PUBREC has come.
    released: bool,
}

impl Default for Broker {
    fn default() -> Self {
        Self::new()
    }
}

// The transport's side.
impl Broker {
    /// A broker that knows nobody and behaves well.
    pub fn new() -> Self {
        Self {
            links: BTreeMap::new(),
            sessions: BTreeMap::new(),
            referees: BTreeMap::new(),
            retained: BTreeMap::new(),
            received: Vec::new(),
            breaches: Vec::new(),
            silent: Vec::new(),
            orders: Vec::new(),
            held: Vec::new(),
            delayed: Vec::new(),
            paused: false,
            now: 0,
            max_in_flight: 20,
            max_qos: 2,
            publish_before_suback: false,
            first_id: 1,
            refused_filters: BTreeSet::new(),
            refuse_connect: None,
            claim_session_present: None,
        }
    }

    /// Someone has opened a connection.
    pub fn accept(&mut self, now: u64) -> LinkId {
        self.now = now;
        let id = (0..).find(|id| !self.links.contains_key(id)).expect("fewer than 2^32 connections");
        let link = Link {
            stream: Stream::default(),
            out: Vec::new(),
            client: None,
            will: None,
            keep_alive_ms: 0,
            heard: now,
            begun: None,
            closed: false,
        };
        self.links.insert(id, link);
        id
    }

    /// Bytes have come. They are ignored once the broker has ended the connection.
    pub fn receive(&mut self, link: LinkId, bytes: &[u8], now: u64) {
        self.now = now;
        let Some(state) = self.links.get_mut(&link) else { return };
        if state.closed || bytes.is_empty() {
            return;
        }
        state.begun.get_or_insert(now);
        state.stream.push(bytes);
        self.read(link);
    }

    /// At most `max` bytes for the client, which leave the broker.
    pub fn output(&mut self, link: LinkId, max: usize) -> Vec<u8> {
        let Some(state) = self.links.get_mut(&link) else { return Vec::new() };
        let count = max.min(state.out.len());
        state.out.drain(..count).collect()
    }

    /// Whether the broker has ended this connection and has nothing more to say on it.
    pub fn has_closed(&self, link: LinkId) -> bool {
        self.links.get(&link).is_none_or(|state| state.closed && state.out.is_empty())
    }

    /// The connection is gone, whoever ended it.
    pub fn hung_up(&mut self, link: LinkId, now: u64) {
        self.now = now;
        self.close(link);
        let Some(state) = self.links.remove(&link) else { return };
        if let Some(referee) = state.client.and_then(|client| self.referees.get_mut(&client)) {
            referee.closed(&state.stream.pending);
        }
    }

    /// Time has passed: delayed packets leave, silent clients go.
    pub fn tick(&mut self, now: u64) {
        self.now = now;
        while let Some(at) = self.delayed.iter().position(|(due, ..)| *due <= now) {
            let (_, link, packet) = self.delayed.remove(at);
            self.transmit(link, packet);
        }
        // [MQTT-3.1.2-24] One and a half times the keep alive without a packet ends the connection.
        let silent = |state: &Link| silence_ends(state).is_some_and(|end| end < now);
        while let Some((&link, _)) = self.links.iter().find(|(_, state)| silent(state)) {
            self.silent.extend(self.links[&link].client.clone());
            self.close(link);
        }
    }

    /// When [`tick`](Self::tick) has something to do.
    pub fn deadline(&self) -> Option<u64> {
        let delayed = self.delayed.iter().map(|(due, ..)| *due);
        delayed.chain(self.links.values().filter_map(silence_ends).map(|end| end.saturating_add(1))).min()
    }
}

fn silence_ends(link: &Link) -> Option<u64> {
    (link.keep_alive_ms > 0 && !link.closed).then(|| link.heard.saturating_add(link.keep_alive_ms * 3 / 2))
}

// What tests ask.
impl Broker {
    /// Application messages that the broker took over, in order: QoS 2 once each.
    pub fn received(&self) -> Vec<Message> {
        self.received.iter().map(|(_, message)| message.clone()).collect()
    }

    /// The same from one client.
    pub fn received_from(&self, client: &str) -> Vec<Message> {
        self.received.iter().filter(|(from, _)| from == client).map(|(_, message)| message.clone()).collect()
    }

    /// Empties the ledger of received messages.
    pub fn take_received(&mut self) -> Vec<Message> {
        std::mem::take(&mut self.received).into_iter().map(|(_, message)| message).collect()
    }

    /// What clients did that the standard forbids.
    pub fn breaches(&self) -> &[Breach] {
        &self.breaches
    }

    /// Empties the list of breaches.
    pub fn take_breaches(&mut self) -> Vec<Breach> {
        std::mem::take(&mut self.breaches)
    }

    /// Clients whose connection the broker ended because they were silent for too long.
    pub fn closed_for_silence(&self) -> &[String] {
        &self.silent
    }

    /// Whether this client has a connection now.
    pub fn is_connected(&self, client: &str) -> bool {
        self.link_of(client).is_some()
    }

    /// Whether the broker keeps a session for this client.
    pub fn has_session(&self, client: &str) -> bool {
        self.sessions.contains_key(client)
    }

    /// Granted filters of this client with their QoS, by name.
    pub fn subscriptions(&self, client: &str) -> Vec<(String, u8)> {
        let list = |session: &Session| session.subscriptions.clone().into_iter().collect();
        self.sessions.get(client).map(list).unwrap_or_default()
    }

    /// Messages for this client that it has not acknowledged for good.
    pub fn unfinished(&self, client: &str) -> usize {
        self.sessions.get(client).map_or(0, |session| session.outgoing.len())
    }

    /// QoS 2 identifiers of this client that wait for PUBREL.
    pub fn awaiting_release(&self, client: &str) -> Vec<u16> {
        self.sessions.get(client).map(|session| session.incoming.iter().copied().collect()).unwrap_or_default()
    }

    /// The retained message of a topic.
    pub fn retained(&self, topic: &str) -> Option<&Message> {
        self.retained.get(topic)
    }

    /// Packets that are held back, the oldest first.
    pub fn held(&self) -> Vec<Packet> {
        self.held.iter().map(|(_, packet)| packet.clone()).collect()
    }
}

// What tests make it do.
impl Broker {
    /// The next packet of this kind that is due is treated so. Several calls queue up.
    pub fn on_next(&mut self, kind: Kind, then: Then) {
        self.orders.push((kind, then, 1));
    }

    /// Every packet of this kind is treated so, until [`behave`](Self::behave).
    pub fn always(&mut self, kind: Kind, then: Then) {
        self.orders.push((kind, then, u32::MAX));
    }

    /// Ends all special treatment; what is held stays held.
    pub fn behave(&mut self) {
        self.orders.clear();
    }

    /// Sends the held packet at this position of [`held`](Self::held).
    pub fn release(&mut self, at: usize) {
        let (link, packet) = self.held.remove(at);
        self.transmit(link, packet);
    }

    /// Sends all held packets in their order.
    pub fn release_all(&mut self) {
        while !self.held.is_empty() {
            self.release(0);
        }
    }

    /// Reads nothing and sends nothing new until [`proceed`](Self::proceed).
    pub fn pause(&mut self) {
        self.paused = true;
    }

    /// Goes on after [`pause`](Self::pause).
    pub fn proceed(&mut self) {
        self.paused = false;
        for link in self.links.keys().copied().collect::<Vec<_>>() {
            self.read(link);
        }
        for client in self.sessions.keys().cloned().collect::<Vec<_>>() {
            self.fill(&client);
        }
    }

    /// Someone else publishes this message.
    pub fn publish(&mut self, message: Message) {
        self.route(&message);
    }

    /// Sends a packet to a client past all state of the broker.
    pub fn inject(&mut self, client: &str, packet: Packet) {
        if let Some(link) = self.link_of(client) {
            self.transmit(link, packet);
        }
    }

    /// Sends bytes to a client past all state of the broker.
    pub fn send_raw(&mut self, client: &str, bytes: &[u8]) {
        if let Some(link) = self.link_of(client) {
            self.send_raw_on(link, bytes);
        }
    }

    /// Sends bytes on a connection, also before CONNECT has come.
    pub fn send_raw_on(&mut self, link: LinkId, bytes: &[u8]) {
        if let Some(state) = self.links.get_mut(&link) {
            state.out.extend(bytes);
            if let Some(referee) = state.client.as_ref().and_then(|client| self.referees.get_mut(client)) {
                let mut stream = Stream { pending: bytes.to_vec() };
                while let Ok(Some(packet)) = stream.next_packet() {
                    referee.received(&packet);
                }
            }
        }
    }

    /// Ends a client's connection without a word.
    pub fn kill(&mut self, client: &str) {
        if let Some(link) = self.link_of(client) {
            self.close(link);
        }
    }

    /// Loses a client's session; its connection ends as well.
    pub fn forget(&mut self, client: &str) {
        self.kill(client);
        self.sessions.remove(client);
    }

    /// Ends all connections, as a restart does, and keeps what the persistence says.
    pub fn restart(&mut self, persistence: Persistence) {
        for state in self.links.values_mut() {
            state.will = None;
        }
        for link in self.links.keys().copied().collect::<Vec<_>>() {
            self.close(link);
        }
        self.held.clear();
        self.delayed.clear();
        if persistence == Persistence::Lost {
            self.sessions.clear();
            self.retained.clear();
        }
    }

    /// Tells the referee that a client lost its memory, so that what it does next is judged by what it had stored.
    pub fn client_lost_power(&mut self, client: &str) {
        if let Some(referee) = self.referees.get_mut(client) {
            referee.power_cut();
        }
    }
}

// What a server does.
impl Broker {
    fn link_of(&self, client: &str) -> Option<LinkId> {
        self.sessions.get(client).and_then(|session| session.link)
    }

    /// Handles the complete packets that a connection has brought.
    fn read(&mut self, link: LinkId) {
        while !self.paused {
            let Some(state) = self.links.get_mut(&link).filter(|state| !state.closed) else { return };
            let packet = match state.stream.next_packet() {
                Ok(None) => return,
                Ok(Some(packet)) => packet,
                Err(breach) => {
                    self.breaches.push(breach);
                    self.close(link);
                    return;
                }
            };
            let begun = state.begun.take().unwrap_or(self.now);
            if !state.stream.pending.is_empty() {
                state.begun = Some(self.now);
            }
            state.heard = self.now;
            self.handle(link, packet, begun);
        }
    }

    fn handle(&mut self, link: LinkId, packet: Packet, begun: u64) {
        let Some(client) = self.links.get(&link).and_then(|state| state.client.clone()) else {
            match packet {
                Packet::Connect(connect) => self.connect(link, connect),
                other => {
                    self.breaches.push(Breach::new("MQTT-3.1.0-1", format!("{other:?} is the first packet")));
                    self.close(link);
                }
            }
            return;
        };
        if self.judge(link, &client, |referee, now| referee.sent(&packet, begun, now)) {
            self.answer(link, &client, packet);
        }
    }

    /// Shows the referee what happened; a breach ends the connection. True when all is well.
    fn judge(&mut self, link: LinkId, client: &str, show: impl FnOnce(&mut Referee, u64)) -> bool {
        let referee = self.referees.entry(client.to_owned()).or_insert_with(|| Referee::new(View::Broker));
        show(referee, self.now);
        let breaches = referee.take_breaches();
        let fine = breaches.is_empty();
        self.breaches.extend(breaches);
        if !fine {
            self.close(link);
        }
        fine
    }

    fn connect(&mut self, link: LinkId, mut connect: Connect) {
        if connect.client_id.is_empty() {
            // [MQTT-3.1.3-6]
            connect.client_id = format!("auto-{link}");
        }
        let client = connect.client_id.clone();
        // [MQTT-3.1.4-2] The same client on a new connection ends the old one.
        self.kill(&client);
        let state = self.links.get_mut(&link).expect("the link that sent CONNECT");
        state.client = Some(client.clone());
        let packet = Packet::Connect(connect.clone());
        self.judge(link, &client, |referee, now| {
            referee.opened(now);
            referee.sent(&packet, now, now);
        });
        if let Some(code) = self.refuse_connect.take() {
            self.send(link, Packet::Connack { session_present: false, code });
            self.close(link);
            return;
        }
        let state = self.links.get_mut(&link).expect("the link that sent CONNECT");
        state.will = connect.will;
        state.keep_alive_ms = u64::from(connect.keep_alive) * 1000;
        // [MQTT-3.1.2-6]
        if connect.clean {
            self.sessions.remove(&client);
        }
        let present = self.sessions.contains_key(&client);
        let fresh = || Session {
            clean: connect.clean,
            link: None,
            subscriptions: BTreeMap::new(),
            outgoing: Vec::new(),
            incoming: BTreeSet::new(),
        };
        let session = self.sessions.entry(client.clone()).or_insert_with(fresh);
        session.link = Some(link);
        session.clean = connect.clean;
        // [MQTT-3.2.2-1] [MQTT-3.2.2-2] [MQTT-3.2.2-3]
        let session_present = self.claim_session_present.unwrap_or(present);
        self.send(link, Packet::Connack { session_present, code: 0 });
        self.resume(link, &client);
    }

    /// What the client has not finished goes out again, in order, with DUP or as PUBREL; then what is waiting.
    // [MQTT-4.4.0-1]
    fn resume(&mut self, link: LinkId, client: &str) {
        for outgoing in self.sessions[client].outgoing.clone() {
            match outgoing {
                Outgoing { id: 0, .. } => {}
                Outgoing { id, released: true, .. } => self.send(link, Packet::Pubrel(id)),
                Outgoing { id, message, .. } => self.send(link, Packet::Publish { dup: true, id, message }),
            }
        }
        self.fill(client);
    }

    fn answer(&mut self, link: LinkId, client: &str, packet: Packet) {
        match packet {
            Packet::Publish { id, message, .. } => self.take(link, client, id, message),
            Packet::Puback(id) => self.finish(client, |outgoing| outgoing.id == id && outgoing.message.qos == 1),
            Packet::Pubcomp(id) => self.finish(client, |outgoing| outgoing.id == id && outgoing.released),
            Packet::Pubrec(id) => {
                let session = self.sessions.get_mut(client).expect("a connected client has a session");
                for outgoing in session.outgoing.iter_mut().filter(|o| o.id == id && o.message.qos == 2) {
                    outgoing.released = true;
                }
                self.send(link, Packet::Pubrel(id));
            }
            Packet::Pubrel(id) => {
                let session = self.sessions.get_mut(client).expect("a connected client has a session");
                session.incoming.remove(&id);
                self.send(link, Packet::Pubcomp(id));
            }
            Packet::Subscribe { id, filters } => self.subscribe(link, client, id, filters),
            Packet::Unsubscribe { id, filters } => {
                let session = self.sessions.get_mut(client).expect("a connected client has a session");
                for filter in filters {
                    session.subscriptions.remove(&filter);
                }
                self.send(link, Packet::Unsuback(id));
            }
            Packet::Pingreq => self.send(link, Packet::Pingresp),
            Packet::Disconnect => {
                // [MQTT-3.14.4-3]
                self.links.get_mut(&link).expect("the link that sent DISCONNECT").will = None;
                let after = &self.links[&link].stream.pending;
                if !after.is_empty() {
                    self.breaches.push(Breach::new("MQTT-3.14.4-2", format!("{after:02x?} after DISCONNECT")));
                }
                self.close(link);
            }
            other => unreachable!("{other:?}: the referee lets no client send it"),
        }
    }

    /// Takes a message from a client: the moment from which the broker is responsible.
    fn take(&mut self, link: LinkId, client: &str, id: u16, message: Message) {
        let session = self.sessions.get_mut(client).expect("a connected client has a session");
        let is_new = message.qos < 2 || session.incoming.insert(id);
        if is_new {
            self.received.push((client.to_owned(), message.clone()));
            self.route(&message);
        }
        match message.qos {
            0 => {}
            1 => self.send(link, Packet::Puback(id)),
            _ => self.send(link, Packet::Pubrec(id)),
        }
    }

    fn finish(&mut self, client: &str, is_it: impl Fn(&Outgoing) -> bool) {
        let session = self.sessions.get_mut(client).expect("a connected client has a session");
        session.outgoing.retain(|outgoing| !is_it(outgoing));
        self.fill(client);
    }

    fn subscribe(&mut self, link: LinkId, client: &str, id: u16, filters: Vec<(String, u8)>) {
        let mut codes = Vec::new();
        let mut matching = Vec::new();
        for (filter, asked) in filters {
            if self.refused_filters.contains(&filter) {
                codes.push(0x80);
                continue;
            }
            let granted = asked.min(self.max_qos);
            codes.push(granted);
            // [MQTT-3.3.1-6] [MQTT-3.3.1-8]
            for message in self.retained.values().filter(|message| matches(&filter, &message.topic)) {
                matching.push(Message { qos: message.qos.min(granted), ..message.clone() });
            }
            let session = self.sessions.get_mut(client).expect("a connected client has a session");
            session.subscriptions.insert(filter, granted);
        }
        if !self.publish_before_suback {
            self.send(link, Packet::Suback { id, codes: codes.clone() });
        }
        for message in matching {
            self.queue(client, message);
        }
        if self.publish_before_suback {
            self.send(link, Packet::Suback { id, codes });
        }
    }

    /// Gives a message to all who subscribed, and keeps it if it is to be retained.
    fn route(&mut self, message: &Message) {
        if message.retain {
            // [MQTT-3.3.1-10] [MQTT-3.3.1-11]
            if message.payload.is_empty() {
                self.retained.remove(&message.topic);
            } else {
                self.retained.insert(message.topic.clone(), message.clone());
            }
        }
        for client in self.sessions.keys().cloned().collect::<Vec<_>>() {
            let filters = &self.sessions[&client].subscriptions;
            // [MQTT-3.3.5-1] Of overlapping filters the highest QoS counts.
            let granted =
                filters.iter().filter(|(filter, _)| matches(filter, &message.topic)).map(|(_, &qos)| qos).max();
            if let Some(granted) = granted {
                // [MQTT-3.3.1-9] [MQTT-3.8.4-6]
                self.queue(&client, Message { retain: false, qos: message.qos.min(granted), ..message.clone() });
            }
        }
    }

    fn queue(&mut self, client: &str, message: Message) {
        let session = self.sessions.get_mut(client).expect("a subscriber has a session");
        if message.qos > 0 {
            session.outgoing.push(Outgoing { id: 0, message, released: false });
            self.fill(client);
        } else if let Some(link) = session.link {
            self.send(link, Packet::publish(0, message));
        }
    }

    /// Sends waiting messages as far as the window allows.
    fn fill(&mut self, client: &str) {
        let Some(link) = self.link_of(client).filter(|_| !self.paused) else { return };
        loop {
            let first_id = self.first_id;
            let session = self.sessions.get_mut(client).expect("a connected client has a session");
            let in_flight = session.outgoing.iter().filter(|outgoing| outgoing.id != 0).count();
            let in_use: BTreeSet<u16> = session.outgoing.iter().map(|outgoing| outgoing.id).collect();
            let Some(next) = session.outgoing.iter_mut().find(|outgoing| outgoing.id == 0) else { return };
            if in_flight >= self.max_in_flight {
                return;
            }
            next.id = (first_id..=u16::MAX).chain(1..first_id).find(|id| !in_use.contains(id)).expect("a free id");
            let packet = Packet::publish(next.id, next.message.clone());
            self.send(link, packet);
        }
    }

    /// Sends a packet, unless a test wants something else done with it.
    fn send(&mut self, link: LinkId, packet: Packet) {
        let Some(at) = self.orders.iter().position(|(kind, ..)| *kind == packet.kind()) else {
            return self.transmit(link, packet);
        };
        let (_, then, times) = &mut self.orders[at];
        let then = *then;
        if *times != u32::MAX {
            *times -= 1;
            if *times == 0 {
                self.orders.remove(at);
            }
        }
        match then {
            Then::Drop => {}
            Then::Hold => self.held.push((link, packet)),
            Then::Delay(ms) => self.delayed.push((self.now + ms, link, packet)),
            Then::Twice => {
                self.transmit(link, packet.clone());
                self.transmit(link, packet);
            }
        }
    }

    fn transmit(&mut self, link: LinkId, packet: Packet) {
        let Some(state) = self.links.get_mut(&link).filter(|state| !state.closed) else { return };
        state.out.extend(packet.encode());
        if let Some(referee) = state.client.as_ref().and_then(|client| self.referees.get_mut(client)) {
            referee.received(&packet);
        }
    }

    /// Ends a connection: the will goes out unless DISCONNECT came, a clean session goes.
    fn close(&mut self, link: LinkId) {
        let Some(state) = self.links.get_mut(&link).filter(|state| !state.closed) else { return };
        state.closed = true;
        self.held.retain(|(held, _)| *held != link);
        self.delayed.retain(|(_, delayed, _)| *delayed != link);
        let state = self.links.get_mut(&link).expect("just seen");
        let will = state.will.take();
        if let Some(client) = state.client.clone()
            && let Some(session) = self.sessions.get_mut(&client).filter(|session| session.link == Some(link))
        {
            session.link = None;
            if session.clean {
                self.sessions.remove(&client);
            }
        }
        // [MQTT-3.1.2-8]
        if let Some(will) = will {
            self.route(&will);
        }
    }
}
