//! Everything there is, and everything that can happen next.

use dunlin_core::PublishError;
use stateright::Property;

use crate::broker::{Broker, Meaning};
use crate::client::{Client, Transmitted};
use crate::fault::Fault;
use crate::packet::Packet;
use crate::referee::{Referee, Verdict};
use crate::stored::{Mark, Stage, Stored};

/// How much may happen.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Quality of service of each message that the client publishes.
    pub out: Vec<u8>,
    /// The same for those that somebody else publishes.
    pub inbound: Vec<u8>,
    /// How often the stream may be cut.
    pub cuts: u8,
    /// How often the client may lose its power.
    pub power_cuts: u8,
    /// How often the broker may lose the session.
    pub forgets: u8,
    /// How often the store may refuse.
    pub refusals: u8,
    /// Packets on their way in each direction.
    pub window: usize,
    /// Payloads stay outside the session.
    pub external: bool,
    /// The broker hands a QoS 2 message on when PUBREL comes, not when PUBLISH comes; MQTT allows both.
    pub on_release: bool,
    /// Identifiers start again from 1 whenever the stream is lost.
    pub reuse_ids: bool,
}

/// Client, store, stream, broker, and what was seen of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    client: Client,
    /// Messages that are being stored by their publishers: identifier and number.
    puts: Vec<(Mark, u8)>,
    /// Marks that are being stored, in order.
    batch: Vec<Mark>,
    stored: Stored,
    is_up: bool,
    up: Vec<Packet>,
    down: Vec<Packet>,
    broker: Broker,
    referee: Referee,
    published: usize,
    sent: usize,
    left: Left,
    verdict: Option<Verdict>,
}

/// What may still go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Left {
    cuts: u8,
    power_cuts: u8,
    forgets: u8,
    refusals: u8,
}

/// What happens next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// The application publishes its next message; storing it begins.
    Publish,
    /// A message is stored; `publish` returns.
    Stored(usize),
    /// The store refuses a message.
    Refused(usize),
    /// The driver begins to store the marks that wait.
    Begin,
    /// The first of them is stored.
    Marked,
    /// The store fails; the marks that are left are asked for again.
    MarksLost,
    /// The client writes a packet to the stream.
    Transmit,
    /// The broker reads one.
    BrokerTakes,
    /// The client reads one and polls once.
    ClientTakes,
    /// The client polls once.
    Poll,
    /// Somebody publishes a message that the client subscribed to.
    BrokerPublishes,
    /// A new stream.
    Open,
    /// The stream breaks between two packets.
    Cut,
    /// The stream breaks inside a packet of the client.
    CutInside,
    /// The client loses its power.
    PowerCut {
        /// Which of the messages that are being stored were stored: a bit each.
        puts: u8,
        /// How many of the marks were.
        marks: usize,
    },
    /// The broker loses the session.
    BrokerForgets,
}

/// The model: bounds and at most one fault.
#[derive(Clone, Debug)]
pub struct Model {
    /// How much may happen.
    pub bounds: Bounds,
    /// What is done wrong on purpose.
    pub fault: Option<Fault>,
    out: Vec<u8>,
    inbound: Vec<u8>,
}

impl Model {
    /// The model within these bounds.
    pub fn new(bounds: Bounds, fault: Option<Fault>) -> Self {
        let numbers = |qos: &[u8]| (0_u8..).zip(qos).map(|(index, qos)| index << 2 | qos).collect();
        let (out, inbound) = (numbers(&bounds.out), numbers(&bounds.inbound));
        Self { bounds, fault, out, inbound }
    }

    fn has(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }
}

impl World {
    /// What must not happen and did.
    pub fn verdict(&self) -> Option<Verdict> {
        self.verdict
    }
}

impl stateright::Model for Model {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let stored = Stored::default();
        let bounds = &self.bounds;
        vec![World {
            client: Client::boot(&stored, bounds.external).expect("nothing to restore"),
            puts: Vec::new(),
            batch: Vec::new(),
            stored,
            is_up: false,
            up: Vec::new(),
            down: Vec::new(),
            broker: Broker::default(),
            referee: Referee::default(),
            published: 0,
            sent: 0,
            left: Left {
                cuts: bounds.cuts,
                power_cuts: bounds.power_cuts,
                forgets: bounds.forgets,
                refusals: bounds.refusals,
            },
            verdict: None,
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if world.verdict.is_some() {
            return;
        }
        world.steps(self, actions);
        if world.published < self.out.len() && world.puts.len() < 2 {
            actions.push(Action::Publish);
        }
        if world.left.refusals > 0 {
            actions.extend((0..world.puts.len()).map(Action::Refused));
            if !world.batch.is_empty() {
                actions.push(Action::MarksLost);
            }
        }
        if world.is_up && world.left.cuts > 0 {
            actions.extend([Action::Cut, Action::CutInside]);
        }
        if world.left.power_cuts > 0 {
            for puts in 0..1 << world.puts.len() {
                actions.extend((0..=world.batch.len()).map(|marks| Action::PowerCut { puts, marks }));
            }
        }
        // With the stream up, it is the same as a cut before.
        if !world.is_up && world.left.forgets > 0 && world.broker.has_session() {
            actions.push(Action::BrokerForgets);
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        match next.happens(self, action) {
            Ok(true) => {}
            Ok(false) => return None,
            Err(verdict) => next.verdict = Some(verdict),
        }
        if next.verdict.is_none()
            && let Err(sentence) = next.client.with(|session, _| session.invariant())
        {
            next.verdict = Some(Verdict::Invariant(sentence));
        }
        // Whenever the stream is gone: if nothing more goes wrong, does all come to its end?
        if next.verdict.is_none() && !next.is_up && world.is_up {
            next.verdict = next.clone().comes_to_rest(self).err();
        }
        // Wherever nothing can happen by itself, nothing may be left to do.
        if next.verdict.is_none() && next.seems_at_rest() {
            next.verdict = next.clone().comes_to_rest(self).err();
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no rule is broken", |_, world: &World| world.verdict.is_none()),
            // These show that the bounds reach what they are meant to reach.
            Property::sometimes("all is published, delivered and shown", |model: &Self, world: &World| {
                world.published == model.out.len() && world.sent == model.inbound.len() && world.seems_at_rest()
            }),
            Property::sometimes("nothing is left to go wrong", |_, world: &World| {
                let Left { cuts, power_cuts, forgets, refusals } = world.left;
                cuts == 0 && power_cuts == 0 && forgets == 0 && refusals == 0
            }),
        ]
    }
}

impl World {
    /// What happens by itself sooner or later.
    fn steps(&self, model: &Model, actions: &mut Vec<Action>) {
        actions.extend((0..self.puts.len()).map(Action::Stored));
        actions.push(if self.batch.is_empty() { Action::Begin } else { Action::Marked });
        actions.push(Action::Poll);
        if !self.down.is_empty() {
            actions.push(Action::ClientTakes);
        }
        if !self.up.is_empty() {
            actions.push(Action::BrokerTakes);
        }
        if !self.is_up {
            actions.push(Action::Open);
        } else if self.up.len() < model.bounds.window {
            actions.push(Action::Transmit);
        }
        if self.sent < model.inbound.len() && self.broker.has_room() && self.down.len() < model.bounds.window {
            actions.push(Action::BrokerPublishes);
        }
    }

    /// Does it. `Ok(false)`: it changes nothing.
    fn happens(&mut self, model: &Model, action: Action) -> Result<bool, Verdict> {
        match action {
            Action::Publish => {
                let message = model.out[self.published];
                let id = match self.client.publish(message, model.bounds.external) {
                    Ok(id) => id,
                    Err(PublishError::Full) => return Ok(false),
                    Err(_) => return Err(Verdict::Fault),
                };
                self.published += 1;
                self.referee.named(id.get(), message);
                if model.has(Fault::AcceptedBeforeStored) {
                    self.referee.accepted(message);
                }
                if Client::IS_DURABLE {
                    self.puts.push((Mark { id, stage: Stage::Accepted }, message));
                } else {
                    self.referee.accepted(message);
                }
            }
            Action::Stored(at) => {
                let (mark, message) = self.puts.remove(at);
                if !model.has(Fault::AcceptedNotStored) {
                    self.stored.put(mark.id, message);
                }
                self.client.mark_stored(mark);
                self.referee.accepted(message);
            }
            Action::Refused(at) => {
                let (mark, message) = self.puts.remove(at);
                self.left.refusals -= 1;
                self.referee.refused(message);
                if model.has(Fault::RefusedNotWithdrawn) {
                    self.client.mark_stored(mark);
                } else if !self.client.withdraw(mark.id) {
                    return Err(Verdict::RefusedArrived);
                }
            }
            Action::Begin => {
                // A message is stored by whoever publishes it.
                self.batch = self.client.marks();
                self.batch.retain(|mark| mark.stage != Stage::Accepted);
                return Ok(!self.batch.is_empty());
            }
            Action::Marked => {
                let mark = self.batch.remove(0);
                self.apply(model, mark);
                self.client.mark_stored(mark);
            }
            Action::MarksLost => {
                self.left.refusals -= 1;
                self.batch.clear();
            }
            Action::Transmit => return self.transmit(model),
            Action::BrokerTakes => self.broker_takes(model)?,
            Action::ClientTakes => {
                let mut packet = self.down.remove(0);
                if let (Packet::Publish { dup, .. }, true) = (&mut packet, model.has(Fault::DupFromBrokerInvented)) {
                    *dup = true;
                }
                self.client.push(packet);
                self.poll(model)?;
            }
            Action::Poll => {
                let before = self.client.clone();
                let told = self.poll(model)?;
                return Ok(told || self.client != before);
            }
            Action::BrokerPublishes => {
                let packet = self.broker.publish(model.inbound[self.sent]);
                self.sent += 1;
                self.down.extend(packet);
            }
            Action::Open => {
                self.is_up = true;
                if !model.has(Fault::LostNotTold) {
                    self.client.open();
                }
            }
            Action::Cut => {
                self.left.cuts -= 1;
                self.hang_up(model);
            }
            Action::CutInside => {
                self.left.cuts -= 1;
                let stored = &self.stored;
                match self.client.transmit(true, |message| stored.has_payload(message)) {
                    Transmitted::Part => self.hang_up(model),
                    Transmitted::NoPayload => return Err(Verdict::NoPayload),
                    Transmitted::Nothing | Transmitted::Packet(_) => return Ok(false),
                }
            }
            Action::PowerCut { puts, marks } => {
                self.left.power_cuts -= 1;
                self.power_cut(model, puts, marks)?;
            }
            Action::BrokerForgets => {
                self.left.forgets -= 1;
                self.referee.forgot(self.broker.unfinished());
                self.broker.forget();
            }
        }
        Ok(true)
    }

    fn apply(&mut self, model: &Model, mark: Mark) {
        let is_lost = match mark.stage {
            Stage::Released => model.has(Fault::ReleasedNotStored),
            Stage::Done => model.has(Fault::DoneNotStored),
            Stage::Received => model.has(Fault::ReceivedNotStored),
            Stage::Forgotten => model.has(Fault::ForgottenNotStored),
            _ => false,
        };
        if !is_lost {
            self.stored.apply(mark);
        }
    }

    /// One packet leaves the client.
    fn transmit(&mut self, model: &Model) -> Result<bool, Verdict> {
        let stored = &self.stored;
        let mut packet = match self.client.transmit(false, |message| stored.has_payload(message)) {
            Transmitted::Packet(packet) => packet,
            Transmitted::Nothing => return Ok(false),
            Transmitted::NoPayload | Transmitted::Part => return Err(Verdict::NoPayload),
        };
        if model.has(Fault::PayloadDroppedEarly)
            && let Packet::Publish { message, .. } = packet
        {
            self.stored.messages.retain(|(_, other)| *other != message);
        }
        if let Packet::Pubrec(id) = packet
            && let Some(message) = self.broker.message(id)
        {
            self.referee.recorded(message);
        }
        match &mut packet {
            Packet::Publish { dup, .. } if model.has(Fault::DupCleared) => *dup = false,
            Packet::Publish { dup, .. } if model.has(Fault::DupInvented) => *dup = true,
            Packet::Pubrel(_) if model.has(Fault::PubrelSwallowed) => return Ok(true),
            Packet::Pubcomp(_) if model.has(Fault::PubcompSwallowed) => return Ok(true),
            Packet::Puback(id) | Packet::Pubrec(id) | Packet::Pubcomp(id) if model.has(Fault::AckMisnamed) => *id += 1,
            _ => {}
        }
        let is_ack = |packet: &Packet| matches!(packet, Packet::Puback(_) | Packet::Pubrec(_));
        let overtakes = model.has(Fault::AcksSwapped) && is_ack(&packet) && self.up.last().is_some_and(is_ack);
        self.up.insert(self.up.len() - usize::from(overtakes), packet);
        Ok(true)
    }

    fn broker_takes(&mut self, model: &Model) -> Result<(), Verdict> {
        let packet = self.up.remove(0);
        match self.broker.take(packet, model.bounds.on_release, &mut self.down)? {
            Meaning::Nothing => Ok(()),
            Meaning::Released(message) if model.bounds.on_release => self.referee.taken(message, &model.out),
            Meaning::Released(_) => Ok(()),
            Meaning::Taken(message) => self.referee.taken(message, &model.out),
            Meaning::Ended(message) => self.referee.ended(message),
        }
    }

    /// True if the application was told something.
    fn poll(&mut self, model: &Model) -> Result<bool, Verdict> {
        let told = self.client.poll().map_err(|_| Verdict::Fault)?;
        if let Some(told) = told {
            self.referee.told(told, &model.inbound)?;
        }
        Ok(told.is_some())
    }

    fn hang_up(&mut self, model: &Model) {
        self.is_up = false;
        if self.down.contains(&Packet::Connack { resumed: false }) {
            self.referee.misled();
        }
        self.broker.sent().for_each(|message| self.referee.unheard(message));
        self.up.clear();
        self.down.clear();
        self.broker.hung_up();
        if !model.has(Fault::LostNotTold) {
            self.client.lost(model.bounds.reuse_ids);
        }
    }

    fn power_cut(&mut self, model: &Model, puts: u8, marks: usize) -> Result<(), Verdict> {
        let is_subscribe = |packet: &Packet| matches!(packet, Packet::Subscribe(_));
        let had_subscribed = self.broker.is_subscribed() || self.up.iter().any(is_subscribe);
        self.hang_up(model);
        for (at, (mark, message)) in std::mem::take(&mut self.puts).into_iter().enumerate() {
            if puts & 1 << at != 0 {
                self.stored.put(mark.id, message);
            }
        }
        for mark in std::mem::take(&mut self.batch).into_iter().take(marks) {
            self.apply(model, mark);
        }
        self.referee.power_cut(had_subscribed);
        let mut restored = self.stored.clone();
        match model.fault {
            Some(Fault::RestoredInReverse) => restored.messages.reverse(),
            Some(Fault::ReleasedInReverse) => restored.released.reverse(),
            Some(Fault::ReleasedRestoredAsMessage) => {
                let again = restored.released.drain(..);
                let again = again.filter_map(|id| self.referee.message(id.get()).map(|message| (id, message)));
                restored.messages.extend(again);
            }
            Some(Fault::ReceivedNotRestored) => restored.received.clear(),
            Some(Fault::NothingRestored) => restored = Stored::default(),
            _ => {}
        }
        self.client = Client::boot(&restored, model.bounds.external).map_err(Verdict::Restore)?;
        Ok(())
    }

    /// A cheap look: nothing is under way between the parts.
    fn seems_at_rest(&self) -> bool {
        self.is_up && self.up.is_empty() && self.down.is_empty() && self.puts.is_empty() && self.batch.is_empty()
    }

    /// Lets things take their course, nothing goes wrong any more: is the end as it should be, and does it come?
    fn comes_to_rest(&mut self, model: &Model) -> Result<(), Verdict> {
        let mut actions = Vec::new();
        for _ in 0..400 {
            actions.clear();
            self.steps(model, &mut actions);
            let mut has_moved = false;
            for action in &actions {
                let mut next = self.clone();
                if next.happens(model, *action)? {
                    *self = next;
                    has_moved = true;
                    break;
                }
            }
            if !has_moved {
                let is_over = self.client.with(|session, _| session.outgoing_count() == 0 && session.is_idle());
                if !self.broker.is_idle() || !is_over || !self.client.marks().is_empty() {
                    return Err(Verdict::Stuck);
                }
                return self.referee.at_rest(&model.out);
            }
        }
        Err(Verdict::Endless)
    }
}
