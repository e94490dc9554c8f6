//! A session on flash that talks to a model broker while the power fails, and a judge who knows only the promise.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_core::{Event, Filter, Inbox, Instant, Options, Publish, QoS, Session, Storage, Transmit};
use dunlin_store::{Blocking, Durable, FlashStore, PublishError, StoreError};
use dunlin_testkit::flash::{Cut, Flash, FlashError};
use dunlin_testkit::packet::Stream;
use dunlin_testkit::{Broker, Message, Packet};

const CLIENT: &str = "c";
const NOW: Instant = Instant::from_millis(1);
const FILTERS: &[Filter<'static>] = &[Filter::literal("in/#", QoS::ExactlyOnce)];
const OPTIONS: Options<'static> = Options::new(CLIENT).durable().keep_alive(0).subscriptions(FILTERS);

/// What the application does, one step after the other.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// Publishes a message of this quality of service and payload length.
    Publish(u8, usize),
    /// Publishes until the store or the session is full, at most so many.
    Fill(u8, usize, usize),
    /// Somebody sends the client a message.
    Send(u8),
    /// Subscribes at run time.
    Subscribe(&'static str),
    /// Unsubscribes.
    Unsubscribe(&'static str),
    /// Nothing, for so many turns of the loop.
    Wait(usize),
    /// Runs until everything is said and answered.
    Settle,
    /// The stream breaks.
    Hang,
    /// No stream for what follows.
    Offline,
    /// A stream again.
    Online,
}

/// A story and the flash it is told on.
pub struct Story {
    pub name: &'static str,
    pub steps: Vec<Step>,
    pub pages: usize,
}

/// What a run of a story showed.
#[derive(Debug, Default)]
pub struct Report {
    /// Power cuts that happened.
    pub cuts: usize,
    /// Publishes that were refused because something was full.
    pub refused: usize,
    /// Messages that were delivered.
    pub delivered: usize,
}

type Store<'f, const W: usize, const E: usize> = FlashStore<Blocking<&'f mut Flash<W, E>>>;

/// Runs `story` to its end, with these power cuts, each counted from the moment the power came back.
pub fn run<const W: usize, const E: usize>(
    story: &Story,
    flash: &mut Flash<W, E>,
    cuts: &[Cut],
) -> Result<Report, String> {
    let mut world = World { is_online: true, ..World::default() };
    let mut cuts = cuts.iter();
    if let Some(cut) = cuts.next() {
        flash.cut_power(*cut);
    }
    loop {
        let ended = life(story, flash, &mut world)?;
        if ended {
            return world.verdict();
        }
        flash.power_on();
        flash.keep_power();
        if let Some(cut) = cuts.next() {
            flash.cut_power(*cut);
        }
        world.power_cut();
        if world.report.cuts > 8 {
            return Err("the power fails more often than planned".into());
        }
    }
}

/// From power on to the end of the story, or to the next power cut: then `false`.
fn life<const W: usize, const E: usize>(
    story: &Story,
    flash: &mut Flash<W, E>,
    world: &mut World,
) -> Result<bool, String> {
    let end = (story.pages * E) as u32;
    let mut storage: Storage<512, 1024, 12> = Storage::new();
    let (memory, mut inbox) = storage.split();
    let store: Store<'_, W, E> = match FlashStore::mount_blocking(flash, 0..end) {
        Ok(store) => store,
        Err(StoreError::Medium(FlashError::PowerOff)) => return Ok(false),
        Err(error) => return Err(format!("mount: {error:?}")),
    };
    let mut mqtt = match Durable::recover(Session::new(OPTIONS, memory), store) {
        Ok(mqtt) => mqtt,
        Err(StoreError::Medium(FlashError::PowerOff)) => return Ok(false),
        Err(error) => return Err(format!("recover: {error:?}")),
    };
    let recovery = mqtt.recovery();
    if recovery.damage.is_reset || recovery.damage.records > 0 || recovery.waiting > 0 || recovery.given_up > 0 {
        return Err(format!("after a power cut: {recovery:?}"));
    }
    let outcome = live(story, &mut mqtt, &mut inbox, world);
    match outcome {
        Ok(()) => Ok(true),
        Err(Stop::PowerOff) => Ok(false),
        Err(Stop::Wrong(what)) => Err(what),
    }
}

enum Stop {
    PowerOff,
    Wrong(String),
}

impl From<StoreError<FlashError>> for Stop {
    fn from(error: StoreError<FlashError>) -> Self {
        match error {
            StoreError::Medium(FlashError::PowerOff) => Self::PowerOff,
            error => Self::Wrong(format!("{error:?}")),
        }
    }
}

fn live<S: dunlin_store::Store<Error = FlashError>>(
    story: &Story,
    mqtt: &mut Durable<'_, S>,
    inbox: &mut Inbox<'_>,
    world: &mut World,
) -> Result<(), Stop> {
    let mut turns = 0;
    let mut quiet = 0;
    loop {
        turns += 1;
        if turns > 20_000 {
            return Err(Stop::Wrong(format!("no end in sight at step {}", world.step)));
        }
        let step = story.steps.get(world.step).copied();
        let must_settle = matches!(step, None | Some(Step::Settle));
        if !must_settle || quiet > 3 {
            match step {
                None => {
                    let open = mqtt.session().outgoing_count() + world.broker.unfinished(CLIENT);
                    if open > 0 {
                        return Err(Stop::Wrong(format!("{open} exchanges are stuck")));
                    }
                    return Ok(());
                }
                Some(step) => act(step, mqtt, world)?,
            }
            quiet = 0;
        }
        if !world.is_online {
            quiet += 1;
            continue;
        }
        if exchange(mqtt, inbox, world)? { quiet = 0 } else { quiet += 1 }
    }
}

/// One step of the application. The step counts as done before anything can fail: nobody repeats it.
fn act<S: dunlin_store::Store<Error = FlashError>>(
    step: Step,
    mqtt: &mut Durable<'_, S>,
    world: &mut World,
) -> Result<(), Stop> {
    match step {
        Step::Wait(turns) if world.waited < turns => {
            world.waited += 1;
            return Ok(());
        }
        Step::Fill(qos, len, most) if world.filled < most => {
            world.filled += 1;
            if publish(mqtt, world, qos, len)? {
                return Ok(());
            }
        }
        Step::Fill(..) | Step::Wait(_) => {}
        _ => {
            world.step += 1;
            return act_once(step, mqtt, world);
        }
    }
    world.step += 1;
    world.waited = 0;
    world.filled = 0;
    Ok(())
}

fn act_once<S: dunlin_store::Store<Error = FlashError>>(
    step: Step,
    mqtt: &mut Durable<'_, S>,
    world: &mut World,
) -> Result<(), Stop> {
    match step {
        Step::Publish(qos, len) => {
            publish(mqtt, world, qos, len)?;
        }
        Step::Send(qos) => {
            world.sent += 1;
            let message = Message::new("in/x", format!("in {}", world.sent)).qos(qos);
            // Before the first SUBSCRIBE nobody would get it.
            if world.broker.subscriptions(CLIENT).iter().any(|(filter, _)| filter == "in/#") {
                if qos > 0 {
                    world.owed.push((world.sent, qos));
                }
                world.broker.publish(message);
            }
        }
        Step::Subscribe(filter) => {
            let filter = Filter::new(filter, QoS::AtLeastOnce).expect("a filter");
            match mqtt.subscribe(&filter) {
                Ok(_) => {
                    world.filters.insert(filter.text().to_owned());
                }
                Err(dunlin_store::FilterError::Store(error)) => {
                    world.filters.remove(filter.text());
                    return Err(error.into());
                }
                Err(error) => return Err(Stop::Wrong(format!("{error:?}"))),
            }
        }
        Step::Unsubscribe(filter) => {
            world.filters.remove(filter);
            if let Err(dunlin_store::FilterError::Store(error)) = mqtt.unsubscribe(filter) {
                return Err(error.into());
            }
        }
        Step::Hang => {
            mqtt.lost();
            world.hang_up();
        }
        Step::Offline => {
            mqtt.lost();
            world.hang_up();
            world.is_online = false;
        }
        Step::Online => world.is_online = true,
        Step::Settle | Step::Wait(_) | Step::Fill(..) => {}
    }
    Ok(())
}

/// `false` when something is full.
fn publish<S: dunlin_store::Store<Error = FlashError>>(
    mqtt: &mut Durable<'_, S>,
    world: &mut World,
    qos: u8,
    len: usize,
) -> Result<bool, Stop> {
    world.published += 1;
    let number = world.published;
    let payload = payload(number, len);
    let message = Publish::new("out/x", &payload).with_qos(QoS::from_bits(qos).expect("a quality of service"));
    world.messages.insert(number, Outgoing { qos, len, fate: Fate::Unknown });
    let fate = match mqtt.publish(&message) {
        Ok(_) if qos > 0 => Fate::Accepted,
        Ok(_) => Fate::Unknown,
        Err(PublishError::Session(dunlin_core::PublishError::Full) | PublishError::Store(StoreError::Full)) => {
            world.report.refused += 1;
            Fate::Refused
        }
        Err(PublishError::Session(dunlin_core::PublishError::Offline)) => Fate::Refused,
        Err(PublishError::Store(error)) => return Err(error.into()),
        Err(error) => return Err(Stop::Wrong(format!("{error:?}"))),
    };
    if let Some(message) = world.messages.get_mut(&number) {
        message.fate = fate;
    }
    Ok(fate != Fate::Refused)
}

/// A payload that names its message.
fn payload(number: u32, len: usize) -> Vec<u8> {
    let name = format!("{number}:");
    let filler = (0_u8..26).cycle().map(|letter| b'a' + letter);
    name.bytes().chain(filler).take(len.max(name.len())).collect()
}

/// Bytes go out, bytes come in. `false` when there were none.
fn exchange<S: dunlin_store::Store<Error = FlashError>>(
    mqtt: &mut Durable<'_, S>,
    inbox: &mut Inbox<'_>,
    world: &mut World,
) -> Result<bool, Stop> {
    let link = match world.link {
        Some(link) => link,
        None => {
            mqtt.open(NOW, inbox)?;
            *world.link.insert(world.broker.accept(1))
        }
    };
    let mut out = [0; 700];
    let mut moved = false;
    match mqtt.transmit(NOW, &mut out)? {
        Transmit::Bytes(n) => {
            moved = true;
            world.left(&out[..n]);
            world.broker.receive(link, &out[..n], 1);
        }
        Transmit::Idle => {}
        other => return Err(Stop::Wrong(format!("{other:?}, {:?}", mqtt.session().fault()))),
    }
    let room = inbox.space().len();
    let bytes = world.broker.output(link, room);
    moved |= !bytes.is_empty();
    world.came(&bytes);
    inbox.push(&bytes);
    loop {
        match mqtt.poll(NOW, inbox) {
            Ok(Some(Event::Message(message))) => {
                world.shown(message.text().unwrap_or("?"), message.qos.bits(), message.dup)?;
            }
            Ok(Some(Event::Forgotten(id))) => return Err(Stop::Wrong(format!("{id:?} was forgotten"))),
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(fault) => return Err(Stop::Wrong(format!("{fault:?}"))),
        }
        moved = true;
    }
    Ok(moved)
}

/// All that is not the client, and what is known of the client from outside.
#[derive(Default)]
struct World {
    broker: Broker,
    link: Option<u32>,
    is_online: bool,
    step: usize,
    waited: usize,
    filled: usize,
    published: u32,
    messages: BTreeMap<u32, Outgoing>,
    sent: u32,
    /// Messages that the broker owes the client.
    owed: Vec<(u32, u8)>,
    shows: BTreeMap<u32, Shown>,
    order: Vec<u32>,
    filters: BTreeSet<String>,
    up: Stream,
    down: Stream,
    /// Identifiers of QoS 2 messages on their way to the client.
    names: BTreeMap<u16, u32>,
    lives: u32,
    report: Report,
}

#[derive(Clone, Copy, Debug)]
struct Outgoing {
    qos: u8,
    len: usize,
    fate: Fate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Accepted,
    Refused,
    /// The power failed inside `publish`, or QoS 0.
    Unknown,
}

#[derive(Clone, Copy, Debug, Default)]
struct Shown {
    times: u32,
    /// In which life it was shown last.
    life: u32,
    /// PUBREC has left.
    is_recorded: bool,
}

impl World {
    fn hang_up(&mut self) {
        if let Some(link) = self.link.take() {
            self.broker.hung_up(link, 1);
        }
        self.up = Stream::default();
        self.down = Stream::default();
    }

    fn power_cut(&mut self) {
        self.report.cuts += 1;
        self.lives += 1;
        self.hang_up();
        self.broker.client_lost_power(CLIENT);
    }

    /// What the client sent.
    fn left(&mut self, bytes: &[u8]) {
        self.up.push(bytes);
        while let Ok(Some(packet)) = self.up.next_packet() {
            if let Packet::Pubrec(id) = packet
                && let Some(number) = self.names.get(&id)
            {
                self.shows.entry(*number).or_default().is_recorded = true;
            }
        }
    }

    /// What is sent to the client.
    fn came(&mut self, bytes: &[u8]) {
        self.down.push(bytes);
        while let Ok(Some(packet)) = self.down.next_packet() {
            if let Packet::Publish { id, message, .. } = packet
                && message.qos == 2
            {
                self.names.insert(id, number_in(&message.payload));
            }
        }
    }

    fn shown(&mut self, text: &str, qos: u8, dup: bool) -> Result<(), Stop> {
        let number = number_in(text.as_bytes());
        let lives = self.lives;
        let shown = self.shows.entry(number).or_default();
        shown.times += 1;
        if shown.times == 1 {
            self.order.push(number);
        } else {
            let is_allowed = dup && (qos == 1 || (shown.life < lives && !shown.is_recorded));
            if !is_allowed {
                return Err(Stop::Wrong(format!("message {number} in was shown again: {shown:?}, DUP {dup}")));
            }
        }
        shown.life = lives;
        Ok(())
    }

    /// The promise, at the end.
    fn verdict(mut self) -> Result<Report, String> {
        let breaches = self.broker.take_breaches();
        if !breaches.is_empty() {
            return Err(format!("{breaches:?}"));
        }
        let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
        let mut order = [Vec::new(), Vec::new(), Vec::new()];
        for message in self.broker.received_from(CLIENT) {
            let number = number_in(&message.payload);
            let count = counts.entry(number).or_default();
            *count += 1;
            if *count == 1 {
                order[usize::from(message.qos)].push(number);
            }
            let known = self.messages.get(&number).ok_or(format!("message {number} was never published"))?;
            if message.payload != payload(number, known.len) || message.qos != known.qos {
                return Err(format!("message {number} arrived as another one"));
            }
        }
        for (number, message) in &self.messages {
            let count = counts.get(number).copied().unwrap_or(0);
            let is_right = match (message.fate, message.qos) {
                (Fate::Refused, _) => count == 0,
                (Fate::Accepted, 2) => count == 1,
                (Fate::Accepted, _) => count >= 1,
                (Fate::Unknown, 1) => true,
                (Fate::Unknown, _) => count <= 1,
            };
            if !is_right {
                return Err(format!("message {number}: {message:?}, arrived {count} times"));
            }
            self.report.delivered += usize::from(count > 0);
        }
        for order in order.iter().chain([&self.order]) {
            if !order.is_sorted() {
                return Err(format!("out of order: {order:?}"));
            }
        }
        for (number, _) in &self.owed {
            if !self.shows.contains_key(number) {
                return Err(format!("message {number} in was never shown"));
            }
        }
        let subscribed = self.broker.subscriptions(CLIENT);
        for filter in &self.filters {
            if !subscribed.iter().any(|(other, _)| other == filter) {
                return Err(format!("{filter} is not subscribed to any more"));
            }
        }
        Ok(self.report)
    }
}

fn number_in(payload: &[u8]) -> u32 {
    let text = String::from_utf8_lossy(payload);
    let digits: String = text.trim_start_matches("in ").chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(0)
}
