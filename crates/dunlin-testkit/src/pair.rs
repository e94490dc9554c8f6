//! One client session and the model broker, joined by a wire, in virtual time.
//!
//! A test says what the application does and what goes wrong; `Pair` does what a driver does in between: it asks the
//! session its three questions, carries bytes, stores marks, and connects again. All that passes the client's end of
//! the wire is shown to a [`Referee`], which knows exactly what the client has sent and read. A run that breaks a rule
//! of the standard, or does not come to rest, fails the test by itself.
//!
//! ```
//! # use dunlin_core::Publish;
//! # use dunlin_testkit::{pair::{Pair, Seen::*}, PUBREC};
//! let mut pair = Pair::resuming();
//! let id = pair.publish(&Publish::new("a", b"1").exactly_once()).unwrap().unwrap();
//! pair.drop_next(PUBREC);
//! pair.run();
//! pair.cut();
//! pair.run();
//! assert_eq!(pair.broker.received(), [("a", b"1")]); // once, although sent twice
//! assert_eq!(pair.client_events(), [Connected { resumed: true }, Delivered(id)]);
//! ```

use std::collections::VecDeque;

use dunlin_core::{
    Event, Fault, Filter, Inbox, Instant, Mark, Memory, Options, PacketId, Publish, PublishError, QoS, Receipt,
    Received, Replace, Request, Restored, Session, Slot, Stage, SubscribeError, Suspended, Topic, Transmit,
};

use crate::broker::{Broker, LinkId, Persistence, Then};
use crate::packet::{Breach, Kind, Message, Packet, Stream};
use crate::referee::{Referee, View};
use crate::wire::Wire;

/// The client identifier of the ready-made options.
pub const CLIENT: &str = "client";

/// A clean session with a keep alive of a minute.
pub const CLEAN: Options<'static> = Options::new(CLIENT);

/// A session that goes on after a reconnect.
pub const RESUMING: Options<'static> = Options::new(CLIENT).persistent();

/// The same, which also survives a power cut.
pub const DURABLE: Options<'static> = Options::new(CLIENT).durable();

/// What the client's application saw, in words of its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Seen {
    Connected {
        resumed: bool,
    },
    /// A message with DUP clear.
    Message(Message),
    /// A message with DUP set.
    Again(Message),
    Chunk {
        topic: Option<String>,
        offset: usize,
        total: usize,
        bytes: Vec<u8>,
    },
    Skipped {
        qos: QoS,
        len: usize,
    },
    Delivered(PacketId),
    Replaced(PacketId),
    Forgotten(PacketId),
    Subscribed {
        request: Request,
        codes: Vec<u8>,
    },
    Unsubscribed(PacketId),
    /// The connection is over for this reason.
    Fault(Fault),
}

/// How much memory the session gets.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Sizes {
    pub tx: usize,
    pub rx: usize,
    pub slots: usize,
    pub received: usize,
    pub filters: usize,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { tx: 512, rx: 256, slots: 8, received: 21, filters: 128 }
    }
}

impl Sizes {
    /// Memory of these sizes: used before by a pair that is gone, or never given back. Tests are short.
    pub fn memory(&self) -> Memory<'static> {
        let fits = |memory: &Memory<'static>| {
            (memory.tx.len(), memory.slots.len(), memory.received.len(), memory.filters.len())
                == (self.tx, self.slots, self.received, self.filters)
        };
        let used = USED.with_borrow_mut(|used| Some(used.swap_remove(used.iter().position(fits)?)));
        used.unwrap_or_else(|| Memory {
            tx: vec![0; self.tx].leak(),
            slots: vec![Slot::FREE; self.slots].leak(),
            received: vec![Received::FREE; self.received].leak(),
            filters: vec![0; self.filters].leak(),
        })
    }

    /// An inbox of this size.
    pub fn inbox(&self) -> Inbox<'static> {
        Inbox::new(vec![0; self.rx].leak())
    }
}

/// A session taken apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Snapshot {
    /// Everything but the memory.
    pub state: Suspended,
    /// `Memory::tx`.
    pub tx: Vec<u8>,
    /// `Memory::slots`.
    pub slots: Vec<Slot>,
    /// `Memory::received`.
    pub received: Vec<Received>,
    /// `Memory::filters`.
    pub filters: Vec<u8>,
}

thread_local! {
    /// Memory of pairs that are gone: there may be a million of them in a test.
    static USED: std::cell::RefCell<Vec<Memory<'static>>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// What stands on stable storage: a store in its simplest form.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Store {
    /// Accepted messages whose bytes are not stored yet: the application's memory, lost with the power.
    offered: Vec<(PacketId, Message)>,
    messages: Vec<(PacketId, Message)>,
    released: Vec<PacketId>,
    received: Vec<PacketId>,
    subscriptions: Vec<(String, u8)>,
    /// Every message that was ever stored, in order.
    pub accepted: Vec<Message>,
    /// Every mark that was stored.
    pub marks: Vec<Mark>,
}

impl Store {
    fn offer(&mut self, id: PacketId, publish: &Publish<'_>) {
        self.offered.retain(|(offered, _)| *offered != id);
        self.offered.push((id, message_of(publish)));
    }

    /// Writes a mark.
    pub fn put(&mut self, mark: Mark) {
        self.marks.push(mark);
        let is_it = |(id, _): &(PacketId, Message)| *id == mark.id;
        match mark.stage {
            Stage::Accepted => {
                if let Some(at) = self.offered.iter().position(is_it) {
                    let (id, message) = self.offered.remove(at);
                    self.accepted.push(message.clone());
                    self.messages.push((id, message));
                }
            }
            Stage::Released => {
                self.messages.retain(|entry| !is_it(entry));
                self.released.push(mark.id);
            }
            Stage::Done => {
                self.messages.retain(|entry| !is_it(entry));
                self.released.retain(|id| *id != mark.id);
            }
            Stage::Received => self.received.push(mark.id),
            Stage::Forgotten => self.received.retain(|id| *id != mark.id),
            _ => {}
        }
    }

    /// Identifiers of outgoing messages on storage: those with a payload, and those that are released.
    pub fn outgoing(&self) -> (Vec<u16>, Vec<u16>) {
        (self.messages.iter().map(|(id, _)| id.get()).collect(), self.released.iter().map(|id| id.get()).collect())
    }

    /// Identifiers of incoming QoS 2 messages on storage.
    pub fn incoming(&self) -> Vec<u16> {
        self.received.iter().map(|id| id.get()).collect()
    }

    /// Gives a fresh session what is stored.
    pub fn restore(&mut self, session: &mut Session<'_>) {
        self.offered.clear();
        for id in &self.released {
            session.restore(Restored::Released(*id)).expect("room for what was stored");
        }
        for (id, message) in &self.messages {
            let publish = publish_of(message);
            session.restore(Restored::Message { id: *id, publish }).expect("room for what was stored");
        }
        for id in &self.received {
            session.restore(Restored::Received(*id)).expect("room for what was stored");
        }
        for (filter, qos) in &self.subscriptions {
            let (filter, qos) = (Topic::from_store(filter.as_bytes()), QoS::from_bits(*qos).expect("a QoS"));
            session.restore(Restored::Subscription { filter, qos }).expect("room for what was stored");
        }
    }
}

/// What is done with marks between the session's questions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marks {
    /// Stored as soon as the session names them.
    Stored,
    /// Left to the test.
    Left,
}

/// See the module.
pub struct Pair {
    /// The client.
    pub client: Session<'static>,
    /// Its inbox.
    pub inbox: Inbox<'static>,
    /// The broker.
    pub broker: Broker,
    /// What joins them.
    pub wire: Wire,
    /// Milliseconds since the clock's zero.
    pub now: u64,
    /// Bytes of the buffer that `transmit` fills.
    pub out: usize,
    /// Connect again when the connection ends other than by a fault or a goodbye.
    pub reconnect: bool,
    /// What is done with marks.
    pub marks: Marks,
    /// What is on stable storage.
    pub store: Store,
    /// The payload of every message published with `publish_external`, whatever its key.
    pub external: Vec<u8>,
    /// Receipts of messages that came, for manual acknowledgement.
    pub receipts: Vec<Receipt>,
    /// So many more dealings with the session, then the power fails; then the next number counts.
    pub power_fails_after: VecDeque<usize>,
    /// The broker loses its memory when the client loses its power.
    pub broker_forgets_with_power: bool,
    /// Watches the client's end of the wire.
    pub referee: Referee,
    options: Options<'static>,
    link: Option<LinkId>,
    up: Tap,
    down: Tap,
    /// Bytes came that no packet begins with; the client must not send any more.
    was_malformed: bool,
    /// CONNACK has come.
    is_answered: bool,
    sent: Vec<Packet>,
    heard: Vec<Packet>,
    events: Vec<Seen>,
    unsupplied: VecDeque<u8>,
    power_cuts: usize,
    shown_unmarked: usize,
}

/// One direction at the client's end.
#[derive(Default)]
struct Tap {
    stream: Stream,
    /// When the packet that is passing began.
    begun: u64,
}

impl Pair {
    /// A client with these options, not connected yet.
    pub fn new(options: Options<'static>) -> Self {
        Self::with(options, Sizes::default())
    }

    /// The same with memory of these sizes.
    pub fn with(options: Options<'static>, sizes: Sizes) -> Self {
        Self {
            client: Session::new(options, sizes.memory()),
            inbox: sizes.inbox(),
            broker: Broker::new(),
            wire: Wire::new(),
            now: 0,
            out: 1024,
            reconnect: true,
            marks: Marks::Stored,
            store: Store::default(),
            external: Vec::new(),
            receipts: Vec::new(),
            power_fails_after: VecDeque::new(),
            broker_forgets_with_power: false,
            referee: Referee::new(View::Client),
            options,
            link: None,
            up: Tap::default(),
            down: Tap::default(),
            was_malformed: false,
            is_answered: false,
            sent: Vec::new(),
            heard: Vec::new(),
            events: Vec::new(),
            unsupplied: VecDeque::new(),
            power_cuts: 0,
            shown_unmarked: 0,
        }
    }

    /// A client with these options, connected and at rest, its events cleared.
    pub fn connected(options: Options<'static>) -> Self {
        Self::new(options).up()
    }

    /// This pair, connected and at rest, its events cleared.
    pub fn up(mut self) -> Self {
        self.run();
        assert!(self.is_up(), "the connection did not come up: {:?}", self.events);
        self.clear();
        self
    }

    /// A connected client whose session goes on after a reconnect.
    pub fn resuming() -> Self {
        Self::connected(RESUMING)
    }

    /// A connected client with a clean session.
    pub fn clean() -> Self {
        Self::connected(CLEAN)
    }

    /// A connected client whose session survives a power cut.
    pub fn durable() -> Self {
        Self::connected(DURABLE)
    }

    // What happened

    /// What the application saw, in order.
    pub fn client_events(&self) -> &[Seen] {
        &self.events
    }

    /// The same, and forgets it.
    pub fn take_events(&mut self) -> Vec<Seen> {
        std::mem::take(&mut self.events)
    }

    /// Messages that the application saw, with or without DUP.
    pub fn messages(&self) -> Vec<Message> {
        let message = |seen: &Seen| match seen {
            Seen::Message(message) | Seen::Again(message) => Some(message.clone()),
            _ => None,
        };
        self.events.iter().filter_map(message).collect()
    }

    /// The last fault.
    pub fn fault(&self) -> Option<Fault> {
        let fault = |seen: &Seen| if let Seen::Fault(fault) = seen { Some(*fault) } else { None };
        self.events.iter().rev().find_map(fault)
    }

    /// Packets that left the client, whole.
    pub fn sent(&self) -> &[Packet] {
        &self.sent
    }

    /// Their types.
    pub fn sent_kinds(&self) -> Vec<Kind> {
        self.sent.iter().map(Packet::kind).collect()
    }

    /// Packets of one type that left the client.
    pub fn sent_of(&self, kind: Kind) -> Vec<Packet> {
        self.sent.iter().filter(|packet| packet.kind() == kind).cloned().collect()
    }

    /// Packets that reached the client, whole.
    pub fn heard(&self) -> &[Packet] {
        &self.heard
    }

    /// Whether there is a stream.
    pub fn is_open(&self) -> bool {
        self.link.is_some()
    }

    /// Whether the broker has accepted the connection.
    pub fn is_up(&self) -> bool {
        self.is_open() && self.broker.is_connected(CLIENT)
    }

    /// QoS 2 messages that the application had seen and whose mark was not stored when the power last failed: those
    /// are shown again.
    pub fn shown_unmarked(&self) -> usize {
        self.shown_unmarked
    }

    /// How often the power failed.
    pub fn power_cuts(&self) -> usize {
        self.power_cuts
    }

    /// Forgets what happened so far: events, packets, what the broker received.
    pub fn clear(&mut self) {
        self.events.clear();
        self.sent.clear();
        self.heard.clear();
        self.broker.take_received();
    }

    // What the application does

    /// `Session::publish`, also noted for the store.
    ///
    /// # Errors
    /// As there.
    pub fn publish(&mut self, publish: &Publish<'_>) -> Result<Option<PacketId>, PublishError> {
        let id = self.client.publish(publish)?;
        self.offer(id, publish);
        Ok(id)
    }

    /// `Session::publish_replacing`, also noted for the store.
    ///
    /// # Errors
    /// As there.
    pub fn publish_replacing(
        &mut self,
        publish: &Publish<'_>,
        replace: Replace,
    ) -> Result<Option<PacketId>, PublishError> {
        let id = self.client.publish_replacing(publish, replace)?;
        self.offer(id, publish);
        Ok(id)
    }

    fn offer(&mut self, id: Option<PacketId>, publish: &Publish<'_>) {
        if let Some(id) = id {
            self.store.offer(id, publish);
        }
    }

    /// `Session::subscribe` for one filter, also noted for the store.
    ///
    /// # Errors
    /// As there.
    pub fn subscribe(&mut self, filter: &str, qos: QoS) -> Result<PacketId, SubscribeError> {
        let id = self.client.subscribe(&[Filter::new(filter, qos).expect("a filter")])?;
        self.store.subscriptions.retain(|(known, _)| known != filter);
        self.store.subscriptions.push((filter.into(), qos.bits()));
        Ok(id)
    }

    /// `Session::unsubscribe` for one filter, also noted for the store.
    ///
    /// # Errors
    /// As there.
    pub fn unsubscribe(&mut self, filter: &str) -> Result<PacketId, SubscribeError> {
        let id = self.client.unsubscribe(&[filter])?;
        self.store.subscriptions.retain(|(known, _)| known != filter);
        Ok(id)
    }

    // What goes wrong

    /// The broker does not send the next packet of this type.
    pub fn drop_next(&mut self, kind: Kind) {
        self.broker.on_next(kind, Then::Drop);
    }

    /// The connection breaks now; what is on its way is lost.
    pub fn cut(&mut self) {
        if let Some(link) = self.link.take() {
            self.broker.hung_up(link, self.now);
            self.client.lost();
            self.close_taps();
        }
        self.wire.reset();
    }

    /// The client closes the stream. What it has written still arrives.
    fn hang_up(&mut self) {
        match self.client.fault() {
            Some(fault) => self.events.push(Seen::Fault(fault)),
            None => self.reconnect = false,
        }
        let link = self.link.expect("a stream");
        while !self.wire.up.stalled && !self.wire.is_cut() {
            let bytes = self.wire.up.read(u64::MAX, usize::MAX);
            if bytes.is_empty() {
                break;
            }
            self.broker.receive(link, &bytes, self.now);
        }
        self.cut();
    }

    fn close_taps(&mut self) {
        self.referee.closed(&self.up.stream.pending);
        self.up = Tap::default();
        self.down = Tap::default();
        self.was_malformed = false;
        self.is_answered = false;
    }

    /// The power fails: the session is gone, and a new one begins with what was stored.
    pub fn power_cut(&mut self) {
        let shown = self.messages().iter().filter(|message| message.qos == 2).count();
        let marked = self.store.marks.iter().filter(|mark| mark.stage == Stage::Received).count();
        self.shown_unmarked = shown - marked.min(shown);
        self.cut();
        self.renew_client();
        self.store.restore(&mut self.client);
        self.receipts.clear();
        self.unsupplied.clear();
        self.referee.power_cut();
        self.broker.client_lost_power(CLIENT);
        self.power_cuts += 1;
        if self.broker_forgets_with_power {
            self.broker.restart(Persistence::Lost);
        }
    }

    /// Another program takes the client's place: other options, nothing remembered.
    pub fn replace_client(&mut self, options: Options<'static>) {
        self.cut();
        self.options = options;
        self.renew_client();
        self.receipts.clear();
    }

    /// A new session in the memory of the old one.
    fn renew_client(&mut self) {
        let (_, memory) = self.take_client().suspend();
        self.client = Session::new(self.options, memory);
        self.inbox.clear();
    }

    fn take_client(&mut self) -> Session<'static> {
        let nothing = Memory { tx: &mut [], slots: &mut [], received: &mut [], filters: &mut [] };
        std::mem::replace(&mut self.client, Session::new(CLEAN, nothing))
    }

    /// Opens a stream to the broker.
    pub fn open(&mut self) {
        assert!(self.link.is_none(), "there is a stream already");
        self.link = Some(self.broker.accept(self.now));
        self.referee.opened(self.now);
        self.client.open(Instant::from_millis(self.now), &mut self.inbox);
    }

    /// Sends bytes to the client as if the broker had.
    pub fn send_raw(&mut self, bytes: &[u8]) {
        let link = self.link.expect("a stream");
        self.broker.send_raw_on(link, bytes);
    }

    // What a driver does

    /// Goes on until nothing happens any more without time passing, or only bytes on their way do.
    ///
    /// Connects first if there is no stream. Fails the test when a rule was broken or there is no end to it.
    pub fn run(&mut self) {
        for _ in 0..STEPS {
            if self.step() {
                self.check_breaches();
                continue;
            }
            match self.wire.next_arrival().filter(|at| *at > self.now) {
                Some(at) => self.now = at,
                None => {
                    self.check();
                    return;
                }
            }
        }
        panic!("no end after {STEPS} steps:\n{}", self.story());
    }

    /// The same, and lets this much time pass; whoever has something to do by then does it in time.
    pub fn run_for(&mut self, ms: u64) {
        let end = self.now + ms;
        for _ in 0..STEPS {
            self.broker.tick(self.now);
            if self.step() {
                continue;
            }
            let client = self.client.deadline().map(Instant::as_millis);
            let next = [client, self.broker.deadline(), self.wire.next_arrival()];
            match next.into_iter().flatten().filter(|at| *at > self.now).min() {
                Some(at) if at <= end => self.now = at,
                _ => {
                    self.now = end;
                    self.broker.tick(end);
                    self.run();
                    return;
                }
            }
        }
        panic!("no end after {STEPS} steps:\n{}", self.story());
    }

    /// Fails the test if the client broke a rule, or has not sent again what it must.
    pub fn check(&self) {
        self.check_breaches();
        let is_free = self.marks == Marks::Stored && !self.wire.up.stalled && !self.wire.down.stalled;
        if is_free && self.is_up() {
            let waiting = self.referee.not_resent();
            assert!(waiting.is_empty(), "[MQTT-4.4.0-1] {waiting:?} not sent again\n{}", self.story());
        }
    }

    fn check_breaches(&self) {
        let breaches: Vec<&Breach> = self.referee.breaches().iter().chain(self.broker.breaches()).collect();
        assert!(breaches.is_empty(), "{breaches:#?}\n{}", self.story());
    }

    /// What passed the client's end, for messages of failed tests.
    pub fn story(&self) -> String {
        // The last of it tells most; a test that never ends would tell too much.
        let last = |length: usize| length.saturating_sub(100);
        format!(
            "sent {:#?}\nheard {:#?}\nseen {:#?}\nbreaches {:?} {:?}",
            &self.sent[last(self.sent.len())..],
            &self.heard[last(self.heard.len())..],
            &self.events[last(self.events.len())..],
            self.referee.breaches().iter().take(5).collect::<Vec<_>>(),
            self.broker.breaches().iter().take(5).collect::<Vec<_>>(),
        )
    }

    /// One turn of a driver's loop. True when something happened.
    pub fn step(&mut self) -> bool {
        if self.link.is_none() {
            let goes_on = self.reconnect && !matches!(self.events.last(), Some(Seen::Fault(_)));
            if goes_on {
                self.open();
            }
            return goes_on;
        }
        let mut happened = self.store_marks();
        happened |= self.write();
        if let Some(link) = self.link {
            let bytes = self.wire.up.read(self.now, usize::MAX);
            happened |= !bytes.is_empty();
            self.broker.receive(link, &bytes, self.now);
            self.broker.tick(self.now);
            let room = self.wire.down.window.map_or(usize::MAX, |window| window - self.wire.down.len().min(window));
            let bytes = self.broker.output(link, room);
            happened |= !bytes.is_empty();
            self.wire.down.write(self.now, &bytes);
            happened |= self.read();
        }
        if self.wire.is_cut() {
            self.cut();
            happened = true;
        }
        let closed = |link| self.broker.has_closed(link) && self.wire.down.is_empty();
        if self.link.is_some_and(closed) {
            self.cut();
            happened = true;
        }
        happened
    }

    fn store_marks(&mut self) -> bool {
        let mut happened = false;
        while self.marks == Marks::Stored
            && let Some(mark) = self.client.next_mark()
        {
            if self.power_fails() {
                return true;
            }
            self.store.put(mark);
            if self.power_fails() {
                return true;
            }
            self.client.mark_stored(mark);
            happened = true;
        }
        happened
    }

    /// Moves what the session has to send onto the wire.
    fn write(&mut self) -> bool {
        let mut happened = false;
        while self.link.is_some() {
            let room =
                self.wire.up.window.map_or(self.out, |window| self.out.min(window - self.wire.up.len().min(window)));
            if room == 0 {
                self.referee.excuse_silence(self.now);
                return happened;
            }
            if self.power_fails() {
                return true;
            }
            let mut out = vec![0; room];
            let transmit = self.client.transmit(Instant::from_millis(self.now), &mut out);
            self.check_invariant();
            match transmit {
                Transmit::Bytes(count) => self.put(&out[..count]),
                Transmit::Payload { offset, len, .. } => {
                    let count = len.min(room);
                    let bytes = self.external[offset..offset + count].to_vec();
                    self.put(&bytes);
                    self.client.supplied(count);
                }
                Transmit::Close => self.hang_up(),
                _ => return happened,
            }
            happened = true;
        }
        happened
    }

    /// Bytes leave the client.
    fn put(&mut self, bytes: &[u8]) {
        assert!(!self.was_malformed, "[MQTT-4.8.0-1] sends {bytes:02x?} after malformed bytes\n{}", self.story());
        assert!(!bytes.is_empty(), "transmit said Bytes(0)");
        let taken = self.wire.up.write(self.now, bytes);
        assert_eq!(taken, bytes.len(), "the window was asked for");
        if self.up.stream.pending.is_empty() {
            self.up.begun = self.now;
        }
        self.up.stream.push(bytes);
        while let Some(packet) = self.up.stream.next_packet().unwrap_or_else(|breach| panic!("{breach:?}")) {
            self.referee.sent(&packet, self.up.begun, self.now);
            self.up.begun = self.now;
            self.sent.push(packet);
        }
    }

    /// Reads one piece and asks the session what it means.
    fn read(&mut self) -> bool {
        let mut happened = false;
        let room = self.inbox.space().len();
        let bytes = self.wire.down.read(self.now, room);
        if !bytes.is_empty() {
            happened = true;
            self.inbox.space()[..bytes.len()].copy_from_slice(&bytes);
            self.inbox.filled(bytes.len());
            self.hear(&bytes);
        }
        loop {
            if self.power_fails() {
                return true;
            }
            let Some(seen) = self.poll() else { return happened };
            happened = true;
            if let Seen::Fault(_) = seen {
                let close = self.client.transmit(Instant::from_millis(self.now), &mut [0; 16]);
                assert_eq!(close, Transmit::Close, "after a fault");
                self.hang_up();
                return true;
            }
            self.events.push(seen);
        }
    }

    fn hear(&mut self, bytes: &[u8]) {
        if self.was_malformed {
            return;
        }
        self.down.stream.push(bytes);
        loop {
            match self.down.stream.next_packet() {
                Ok(Some(packet)) if self.is_out_of_place(packet.kind()) => {
                    self.was_malformed = true;
                    return;
                }
                Ok(Some(packet)) => {
                    self.is_answered = true;
                    self.referee.received(&packet);
                    self.heard.push(packet);
                }
                Ok(None) => return,
                Err(_) => {
                    self.was_malformed = true;
                    return;
                }
            }
        }
    }

    /// Whether no server may send this now.
    fn is_out_of_place(&self, kind: Kind) -> bool {
        let is_for_clients =
            matches!(kind, Kind::Connect | Kind::Subscribe | Kind::Unsubscribe | Kind::Pingreq | Kind::Disconnect);
        is_for_clients || (kind == Kind::Connack) == self.is_answered
    }

    /// Asks the session once what happened.
    pub fn poll(&mut self) -> Option<Seen> {
        let now = Instant::from_millis(self.now);
        let seen = match self.client.poll(now, &mut self.inbox) {
            Ok(None) => None,
            Err(fault) => Some(Seen::Fault(fault)),
            Ok(Some(event)) => {
                if let Event::Message(message) = &event {
                    self.receipts.extend(message.receipt());
                }
                if let Event::Chunk(chunk) = &event {
                    self.receipts.extend(chunk.receipt());
                }
                Some(seen(&event))
            }
        };
        self.check_invariant();
        seen
    }

    fn check_invariant(&self) {
        if let Err(broken) = self.client.invariant() {
            panic!("{broken}\n{}", self.story());
        }
    }

    /// All of the session's state, to be compared.
    pub fn snapshot(&mut self) -> Snapshot {
        let (state, memory) = self.take_client().suspend();
        let snapshot = Snapshot {
            state: state.clone(),
            tx: memory.tx.to_vec(),
            slots: memory.slots.to_vec(),
            received: memory.received.to_vec(),
            filters: memory.filters.to_vec(),
        };
        self.client = Session::resume(self.options, state, memory);
        snapshot
    }

    /// Counts a dealing with the session; true when the power has just failed.
    fn power_fails(&mut self) -> bool {
        match self.power_fails_after.front_mut() {
            None => false,
            Some(0) => {
                self.power_fails_after.pop_front();
                self.power_cut();
                true
            }
            Some(left) => {
                *left -= 1;
                false
            }
        }
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        let (_, memory) = self.take_client().suspend();
        // A failing test may end with the thread's variables gone.
        let _ = USED.try_with(|used| used.borrow_mut().push(memory));
    }
}

/// A pair comes to rest within so many turns, or something is wrong.
const STEPS: usize = 200_000;

fn seen(event: &Event<'_>) -> Seen {
    match event {
        Event::Connected { resumed } => Seen::Connected { resumed: *resumed },
        Event::Message(message) => {
            let (topic, payload) = ((*message.topic).into(), message.payload.into());
            let own = Message { topic, payload, qos: message.qos.bits(), retain: message.retain };
            if message.dup { Seen::Again(own) } else { Seen::Message(own) }
        }
        Event::Chunk(chunk) => Seen::Chunk {
            topic: chunk.topic.map(|topic| (*topic).into()),
            offset: chunk.offset,
            total: chunk.total,
            bytes: chunk.bytes.into(),
        },
        Event::Skipped { qos, len } => Seen::Skipped { qos: *qos, len: *len },
        Event::Delivered(id) => Seen::Delivered(*id),
        Event::Replaced(id) => Seen::Replaced(*id),
        Event::Forgotten(id) => Seen::Forgotten(*id),
        Event::Subscribed(answer) => {
            Seen::Subscribed { request: answer.request, codes: answer.codes.as_bytes().to_vec() }
        }
        Event::Unsubscribed(id) => Seen::Unsubscribed(*id),
        other => panic!("an event that this testkit does not know: {other:?}"),
    }
}

fn message_of(publish: &Publish<'_>) -> Message {
    Message {
        topic: publish.topic().into(),
        payload: publish.payload().into(),
        qos: publish.qos().bits(),
        retain: publish.is_retain(),
    }
}

fn publish_of(message: &Message) -> Publish<'_> {
    let qos = QoS::from_bits(message.qos).expect("a QoS");
    let publish = Publish::new(&message.topic, &message.payload).with_qos(qos);
    if message.retain { publish.retain() } else { publish }
}
