//! Test vectors of the session: recorded here, in play with the testkit's model of a broker, and played on a device.
//!
//! What is recorded is a bad day with a seed: messages both ways at each quality of service, small buffers that run
//! full, links cut at any byte, bytes changed on the way, power that fails, a broker that forgets, hours that pass.

use std::collections::VecDeque;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use dunlin_core::{Mark, Stage};
use dunlin_testkit::broker::{Broker, LinkId};
use dunlin_testkit::packet;
use dunlin_testkit::seed::Rng;
use vectors::{CLIENT, Call, Message, Outcome, PROFILES, Player, Room, Then};

/// How many stories are recorded, and how long each is.
const STORIES: u64 = 40;
const TURNS: usize = 250;

const TOPICS: &[&str] = &["plant/7/set", "plant/all/a/b", "a", "plant/7/\u{20ac}/temperature", "", "a/+/b", "a#"];
const FILTERS: &[&str] = &["plant/#", "a", "+/7/#", "#", "plant/+/+", "a/#/b", ""];

/// Records all stories into `file` and gives the number of calls.
pub fn record(file: &Path) -> Result<usize> {
    let mut tape = Tape::default();
    for seed in 0..STORIES {
        let profile = u8::try_from(seed % PROFILES.len() as u64)?;
        let mut room = Room::new();
        let mut story = Story::new(&mut tape, seed, profile);
        // A life ends when the power fails; the next one begins with what was stored.
        while story.turns_left > 0 {
            story.live(profile, Player::new(profile, room.split()));
        }
    }
    ensure!(tape.faults > 10 && tape.sent > 1000 && tape.told > 1000, "little happened: {tape:?}");
    fs::write(file, &tape.bytes).with_context(|| file.display().to_string())?;
    Ok(tape.calls)
}

/// The calls and outcomes so far.
#[derive(Default)]
struct Tape {
    bytes: Vec<u8>,
    calls: usize,
    faults: usize,
    sent: usize,
    told: usize,
}

impl std::fmt::Debug for Tape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { calls, faults, sent, told, .. } = self;
        write!(f, "{calls} calls, {sent} packets or pieces sent, {told} events told, {faults} faults")
    }
}

impl Tape {
    fn write(&mut self, bytes: &[u8]) {
        let len = u16::try_from(bytes.len()).expect("records are short");
        self.bytes.extend(len.to_le_bytes());
        self.bytes.extend(bytes);
    }

    fn write_call(&mut self, call: &Call<'_>, outcome: &[u8]) {
        let call = postcard::to_allocvec(call).expect("a call can be written down");
        self.write(&call);
        self.write(outcome);
        self.calls += 1;
    }
}

/// What a store would keep, in its simplest form.
#[derive(Default)]
struct Kept {
    offered: Vec<(u16, OwnedMessage)>,
    messages: Vec<(u16, OwnedMessage)>,
    released: Vec<u16>,
    received: Vec<u16>,
}

#[derive(Clone)]
struct OwnedMessage {
    topic: String,
    payload: Vec<u8>,
    qos: u8,
    retain: bool,
}

impl OwnedMessage {
    fn lent(&self) -> Message<'_> {
        Message { topic: &self.topic, payload: &self.payload, qos: self.qos, retain: self.retain }
    }
}

impl Kept {
    fn put(&mut self, mark: Mark) {
        let id = mark.id.get();
        match mark.stage {
            Stage::Accepted => {
                let offered = self.offered.iter().position(|(offered, _)| *offered == id);
                self.messages.extend(offered.map(|at| self.offered.remove(at)));
            }
            Stage::Released => {
                self.messages.retain(|(kept, _)| *kept != id);
                self.released.push(id);
            }
            Stage::Done => {
                self.messages.retain(|(kept, _)| *kept != id);
                self.released.retain(|kept| *kept != id);
            }
            Stage::Received => self.received.push(id),
            _ => self.received.retain(|kept| *kept != id),
        }
    }
}

/// One story: a client, a broker, and what lies between them.
struct Story<'t> {
    tape: &'t mut Tape,
    rng: Rng,
    broker: Broker,
    link: Option<LinkId>,
    now: u64,
    turns_left: usize,
    kept: Kept,
    /// What has left the broker and not arrived.
    coming: VecDeque<u8>,
    outcome: Outcome,
    out: [u8; 256],
}

impl<'t> Story<'t> {
    fn new(tape: &'t mut Tape, seed: u64, profile: u8) -> Self {
        let mut broker = Broker::new();
        broker.max_in_flight = 4;
        // Clocks wrap somewhere; some begin there.
        let now = if seed % 3 == 2 { u64::from(u32::MAX) - 2_000 } else { 0 };
        let mut rng = Rng::new(seed);
        rng.below(usize::from(profile) + 1);
        Self {
            tape,
            rng,
            broker,
            link: None,
            now,
            turns_left: TURNS,
            kept: Kept::default(),
            coming: VecDeque::new(),
            outcome: Outcome::new(),
            out: [0; 256],
        }
    }

    /// From power-up to the next time the power fails, or to the end.
    fn live(&mut self, profile: u8, mut player: Player<'_>) {
        self.tape.write_call(&Call::New { profile }, &[]);
        self.restore(&mut player);
        while self.turns_left > 0 {
            self.turns_left -= 1;
            if self.rng.chance(1, 80) {
                self.hang_up();
                return;
            }
            self.turn(&mut player);
        }
    }

    fn restore(&mut self, player: &mut Player<'_>) {
        self.kept.offered.clear();
        for id in self.kept.released.clone() {
            self.call(player, &Call::RestoreReleased { id });
        }
        for (id, message) in self.kept.messages.clone() {
            self.call(player, &Call::RestoreMessage { id, message: message.lent() });
        }
        for id in self.kept.received.clone() {
            self.call(player, &Call::RestoreReceived { id });
        }
        let id = self.rng.below(65_536) as u16;
        self.call(player, &Call::RestoreNext { id });
    }

    fn turn(&mut self, player: &mut Player<'_>) {
        if self.link.is_none() {
            self.link = Some(self.broker.accept(self.now));
            self.call(player, &Call::Open { now: self.now });
        }
        match self.rng.below(24) {
            0..=4 => self.publish(player),
            5..=7 => self.broker_publishes(),
            8 => self.subscribe(player),
            9 => {
                let filter = *self.rng.pick(FILTERS);
                self.call(player, &Call::Unsubscribe { filter });
            }
            10 => {
                let id = 1 + self.rng.below(40) as u16;
                self.call(player, &Call::Withdraw { id });
            }
            11 => self.now += self.rng.below(2_000) as u64,
            12 => {
                let next = player.session().deadline().map_or(0, |at| at.as_millis());
                self.now = self.now.max(next);
            }
            13 if self.rng.chance(1, 4) => self.hurt(),
            14 if self.rng.chance(1, 4) => {
                self.hang_up();
                self.call(player, &Call::Lost);
            }
            15 if self.rng.chance(1, 6) => self.broker.forget(CLIENT),
            16 if self.rng.chance(1, 10) => drop(self.call(player, &Call::Close)),
            17 => drop(self.call(player, &Call::Hold { now: self.now })),
            18 => {
                let (filter, topic) = (*self.rng.pick(FILTERS), *self.rng.pick(TOPICS));
                self.call(player, &Call::Matches { filter, topic });
            }
            _ => {}
        }
        if self.rng.chance(2, 3) {
            let count = 1 + self.rng.below(4) as u8;
            self.call(player, &Call::Store { count });
        }
        if self.rng.chance(1, 2) {
            self.call(player, &Call::Acknowledge);
        }
        self.broker.tick(self.now);
        self.send(player);
        self.receive(player);
    }

    /// Makes a call, and writes it down with its outcome.
    fn call(&mut self, player: &mut Player<'_>, call: &Call<'_>) -> Then {
        let kept = &mut self.kept;
        let then = player.play(call, &mut self.out, &mut self.outcome, &mut |mark| kept.put(mark));
        self.tape.write_call(call, self.outcome.as_bytes());
        match then {
            Then::Sent(_) => self.tape.sent += 1,
            Then::Told => self.tape.told += 1,
            Then::Fault => self.tape.faults += 1,
            _ => {}
        }
        then
    }

    fn message(&mut self) -> OwnedMessage {
        let most = if self.rng.chance(1, 10) { 400 } else { 40 };
        let len = self.rng.below(most);
        OwnedMessage {
            topic: (*self.rng.pick(TOPICS)).into(),
            payload: (0..len).map(|_| self.rng.number() as u8).collect(),
            qos: self.rng.below(3) as u8,
            retain: self.rng.chance(1, 8),
        }
    }

    fn publish(&mut self, player: &mut Player<'_>) {
        let owned = self.message();
        let message = owned.lent();
        let call = match self.rng.below(8) {
            0 => Call::PublishReplacing { message, oldest: false },
            1 => Call::PublishReplacing { message, oldest: true },
            2 => Call::PublishExternal { message, key: 9, len: self.rng.below(700) as u32 },
            _ => Call::Publish { message },
        };
        let then = self.call(player, &call);
        if let (Then::Accepted(id @ 1..), false) = (then, matches!(call, Call::PublishExternal { .. })) {
            self.kept.offered.retain(|(offered, _)| *offered != id);
            self.kept.offered.push((id, owned));
        }
    }

    fn broker_publishes(&mut self) {
        let OwnedMessage { topic, payload, qos, retain } = self.message();
        if topic.is_empty() || topic.contains(['+', '#']) {
            return;
        }
        self.broker.publish(packet::Message { topic, payload, qos, retain });
    }

    fn subscribe(&mut self, player: &mut Player<'_>) {
        let one = |rng: &mut Rng| (*rng.pick(FILTERS), rng.below(3) as u8);
        let first = one(&mut self.rng);
        let second = self.rng.chance(1, 3).then(|| one(&mut self.rng));
        self.call(player, &Call::Subscribe { first, second });
    }

    /// A byte on its way to the client is changed, or one comes that nobody sent.
    fn hurt(&mut self) {
        let at = self.rng.below(self.coming.len());
        let byte = self.rng.number() as u8;
        match self.coming.get_mut(at) {
            Some(place) => *place = byte,
            None => self.coming.push_back(byte),
        }
    }

    fn hang_up(&mut self) {
        self.coming.clear();
        if let Some(link) = self.link.take() {
            self.broker.hung_up(link, self.now);
        }
    }

    fn send(&mut self, player: &mut Player<'_>) {
        while let Some(link) = self.link {
            let room = if self.rng.chance(1, 4) { 1 + self.rng.below(9) } else { 256 } as u16;
            match self.call(player, &Call::Transmit { now: self.now, room }) {
                Then::Sent(count) => self.broker.receive(link, &self.out[..count], self.now),
                Then::Wanted(len) => {
                    let count = len.min(1 + self.rng.below(200));
                    self.broker.receive(link, &vec![b'x'; count], self.now);
                    self.call(player, &Call::Supplied { count: count as u16 });
                }
                Then::Close => {
                    self.hang_up();
                    self.call(player, &Call::Lost);
                }
                _ => return,
            }
        }
    }

    fn receive(&mut self, player: &mut Player<'_>) {
        let Some(link) = self.link else { return };
        self.coming.extend(self.broker.output(link, usize::MAX));
        while !self.coming.is_empty() {
            let count = self.coming.len().min(1 + self.rng.below(120));
            let bytes: Vec<u8> = self.coming.iter().take(count).copied().collect();
            let Then::Taken(taken) = self.call(player, &Call::Push { bytes: &bytes }) else { return };
            self.coming.drain(..taken);
            loop {
                match self.call(player, &Call::Poll { now: self.now }) {
                    Then::Told => {}
                    Then::Fault => return self.send(player),
                    _ => break,
                }
            }
            if taken == 0 {
                return self.send(player);
            }
        }
        let is_over = self.broker.has_closed(link);
        if is_over {
            self.hang_up();
            self.call(player, &Call::Lost);
        }
    }
}
