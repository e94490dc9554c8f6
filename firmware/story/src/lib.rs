#![no_std]
//! The story that each MQTT image tells: what it publishes, what must come back, and when the broker must vanish.
//!
//! It does no I/O and knows no driver, so a superloop and an executor tell the same one. The driver shows it every
//! event ([`Story::on_event`]) and asks what to do ([`Story::step`]) whenever something may have changed. The image is
//! its own counterpart: it subscribes to what it publishes, so each message crosses broker and network twice.

use dunlin_core::{
    Event, External, Filter, Instant, Message, Options, PacketId, Publish, PublishError, QoS, Request, Session,
    SubscribeError,
};

/// Who the image is: a persistent session with a will, credentials and a table of subscriptions.
pub const OPTIONS: Options = Options::new("story-1")
    .persistent()
    .keep_alive(KEEP_ALIVE_S)
    .credentials("device", b"secret")
    .will(Publish::new(STATUS, b"lost").at_least_once())
    .subscriptions(TABLE)
    .stream_large(1);

/// The external payload of the chapter [`Large`](Chapter::Large); [`large_byte`] says what is in it.
pub const LARGE: External = External { key: 1, len: 300_000 };

/// Byte `offset` of the large payload.
pub const fn large_byte(offset: usize) -> u8 {
    (offset.wrapping_mul(31) ^ (offset >> 8)) as u8
}

/// How many readings the sensor gives, and how often.
pub const READINGS: u32 = 16;
/// Milliseconds between two of them.
pub const READING_PERIOD_MS: u32 = 10;
/// Where a reading goes.
pub const READING_TOPIC: &str = "story/reading/echo";

const KEEP_ALIVE_S: u16 = 4;
const STATUS: &str = "story/status";
const TABLE: &[Filter] = &[
    Filter::literal("story/+/echo", QoS::ExactlyOnce), //
    Filter::literal(STATUS, QoS::AtLeastOnce),
];
/// Subscribed to at run time.
const ADDED: &str = "story/added/#";
const KEPT: &str = "story/added/kept";
/// Exchanges whose cost is counted: to a topic that nobody has subscribed to, and to one that comes back.
const COSTS: [(&str, &str, QoS); 6] = [
    ("publish0", COST_NONE, QoS::AtMostOnce),
    ("publish1", COST_NONE, QoS::AtLeastOnce),
    ("publish2", COST_NONE, QoS::ExactlyOnce),
    ("echo0", COST_ECHO, QoS::AtMostOnce),
    ("echo1", COST_ECHO, QoS::AtLeastOnce),
    ("echo2", COST_ECHO, QoS::ExactlyOnce),
];
const COST_NONE: &str = "story/cost/none";
const COST_ECHO: &str = "story/cost/echo";
const COST_PAYLOAD: &[u8] = b"0123456789abcdef";
/// Of each kind; the table divides by it.
const COST_ROUNDS: usize = 8;
const COST_ROUND_MS: u64 = 20;
/// Messages of each quality of service that are under way when the broker vanishes.
const UNDER_WAY: u32 = 4;
/// No chapter takes longer, in milliseconds, apart from the idle one.
const PATIENCE_MS: u64 = 20_000;
/// How long the will may take, in milliseconds. mosquitto drops that of a persistent session that is back before the cut is
/// noticed: then the connection is cut once more.
const WILL_MS: u64 = 2_000;

/// What the session's owner can do, a loop or a task.
pub trait Client {
    /// [`Session::publish`].
    fn publish(&mut self, publish: &Publish<'_>) -> Result<Option<PacketId>, PublishError>;
    /// [`Session::publish_external`].
    fn publish_external(&mut self, head: &Publish<'_>, payload: External) -> Result<Option<PacketId>, PublishError>;
    /// [`Session::subscribe`].
    fn subscribe(&mut self, filters: &[Filter<'_>]) -> Result<PacketId, SubscribeError>;
}

impl Client for Session<'_> {
    fn publish(&mut self, publish: &Publish<'_>) -> Result<Option<PacketId>, PublishError> {
        Session::publish(self, publish)
    }

    fn publish_external(&mut self, head: &Publish<'_>, payload: External) -> Result<Option<PacketId>, PublishError> {
        Session::publish_external(self, head, payload)
    }

    fn subscribe(&mut self, filters: &[Filter<'_>]) -> Result<PacketId, SubscribeError> {
        Session::subscribe(self, filters)
    }
}

/// What the driver must do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Do {
    /// Go on.
    Nothing,
    /// Ask again at once.
    Again,
    /// A chapter ended well.
    Note(&'static str),
    /// Ask the test bench to restart the broker.
    RestartBroker,
    /// Ask the test bench to restart the broker without its memory.
    WipeBroker,
    /// Let the sensor give its [`READINGS`], and publish each as four bytes to [`READING_TOPIC`] at QoS 1.
    StartSensor,
    /// Abandon the connection without a goodbye.
    Cut,
    /// What was done since the last such step, or since the beginning, bears this name: note what it has cost.
    Cost(&'static str),
    /// From now on nothing is to be done: count what happens all the same.
    BeginIdle,
    /// So many idle milliseconds have passed.
    EndIdle(u64),
    /// Say goodbye and stop.
    Close,
}

/// Where the story is.
pub struct Story {
    chapter: Chapter,
    /// Steps of the chapter that were taken.
    done: u32,
    started: Option<u64>,
    idle_ms: u64,
    /// In [`Costs`](Chapter::Costs): when the next exchange begins, and how many kinds have been noted.
    next_round: u64,
    noted: usize,
    seen: Seen,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chapter {
    Connect,
    Costs,
    Echo,
    Retained,
    Readings,
    Large,
    Restart,
    Forget,
    Will,
    Idle,
    End,
}

/// What happened since the chapter began.
#[derive(Default)]
struct Seen {
    connected: Option<bool>,
    table: bool,
    added: u32,
    /// Messages to `story/N/echo`, by quality of service; each must carry the next number.
    echoes: [u32; 3],
    delivered: u32,
    kept: u32,
    kept_before: u32,
    readings: u32,
    large: usize,
    status: u32,
    /// Messages to [`COST_ECHO`].
    costs: u32,
    wrong: Option<&'static str>,
}

impl Story {
    /// A story whose idle chapter lasts so long. With 0 it is another one: the exchanges whose cost is counted, and the
    /// goodbye.
    pub const fn new(idle_ms: u64) -> Self {
        Self { chapter: Chapter::Connect, done: 0, started: None, idle_ms, next_round: 0, noted: 0, seen: Seen::new() }
    }

    /// Whether this is the one that counts.
    pub const fn is_counting(&self) -> bool {
        self.idle_ms == 0
    }

    /// Shows an event.
    pub fn on_event(&mut self, event: &Event<'_>) {
        let seen = &mut self.seen;
        match event {
            Event::Connected { resumed } => seen.connected = Some(*resumed),
            Event::Message(message) => seen.message(message),
            Event::Chunk(chunk) => {
                let rest = chunk.bytes.iter().zip(chunk.offset..);
                if chunk.offset != seen.large || rest.into_iter().any(|(byte, at)| *byte != large_byte(at)) {
                    seen.wrong = Some("a chunk is not what was sent");
                }
                seen.large += chunk.bytes.len();
            }
            Event::Delivered(_) => seen.delivered += 1,
            Event::Subscribed(subscribed) => match subscribed.request {
                Request::Table { .. } => seen.table = true,
                _ => seen.added += 1,
            },
            _ => seen.wrong = Some("an event that nothing asked for"),
        }
    }

    /// What to do now. Publishes and subscribes by itself.
    ///
    /// # Errors
    /// The story has gone wrong, and how.
    pub fn step(&mut self, client: &mut impl Client, now: Instant) -> Result<Do, &'static str> {
        let now = now.as_millis();
        let started = *self.started.get_or_insert(now);
        if let Some(wrong) = self.seen.wrong {
            return Err(wrong);
        }
        let patience = PATIENCE_MS + if self.chapter == Chapter::Idle { self.idle_ms } else { 0 };
        if now - started > patience {
            return Err(self.chapter.stuck());
        }
        let step = match self.chapter {
            Chapter::Connect => self.connect(client),
            Chapter::Costs => self.costs(client, now),
            Chapter::Echo => self.echo(client),
            Chapter::Retained => self.retained(client),
            Chapter::Readings => self.readings(),
            Chapter::Large => self.large(client),
            Chapter::Restart => self.restart(client),
            Chapter::Forget => self.forget(client),
            Chapter::Will => self.will(now - started),
            Chapter::Idle => self.idle(now - started),
            Chapter::End => Ok(Some(Do::Close)),
        };
        // `Full` is no failure: there will be room.
        step.map(|done| done.unwrap_or(Do::Nothing)).or_else(|full| full.map_or(Ok(Do::Nothing), Err))
    }

    /// Milliseconds on the clock at which the story wants to be asked again, if nothing happens.
    pub fn deadline(&self) -> Option<Instant> {
        if self.chapter == Chapter::Costs && self.is_round_over() {
            return Some(Instant::from_millis(self.next_round));
        }
        let length = match self.chapter {
            Chapter::Idle => self.idle_ms,
            Chapter::Will => self.next_cut(),
            _ => PATIENCE_MS + 1,
        };
        self.started.map(|started| Instant::from_millis(started + length))
    }

    fn connect(&mut self, client: &mut impl Client) -> Step {
        match self.done {
            0 if self.is_counting() && self.seen.connected == Some(false) && self.seen.table => {
                self.next(Chapter::Costs, "")?;
                return Ok(Some(Do::Cost("connect")));
            }
            0 if self.seen.connected == Some(false) && self.seen.table => {
                subscribe(client, ADDED)?;
                self.done = 1;
            }
            1 if self.seen.added == 1 => return self.next(Chapter::Echo, "connected, subscribed by table and by call"),
            _ => {}
        }
        Ok(None)
    }

    /// One exchange after the other, with time in between, so that each leaves and is answered by itself.
    fn costs(&mut self, client: &mut impl Client, now: u64) -> Step {
        if !self.is_round_over() || now < self.next_round {
            return Ok(None);
        }
        if self.done as usize == (self.noted + 1) * COST_ROUNDS {
            let (name, ..) = COSTS[self.noted];
            self.noted += 1;
            return Ok(Some(Do::Cost(name)));
        }
        let Some((_, topic, qos)) = COSTS.get(self.noted) else {
            return self.next(Chapter::End, "exchanges counted");
        };
        publish(client, topic, COST_PAYLOAD, *qos)?;
        self.done += 1;
        self.next_round = now + COST_ROUND_MS;
        Ok(Some(Do::Again))
    }

    /// Whether everything that was published to be counted has been answered and has come back.
    fn is_round_over(&self) -> bool {
        let begun = |which: fn(&str, QoS) -> bool| {
            let kinds = COSTS.iter().enumerate().filter(|(_, (_, topic, qos))| which(topic, *qos));
            kinds.map(|(index, _)| (self.done as usize).saturating_sub(index * COST_ROUNDS).min(COST_ROUNDS)).sum()
        };
        let answered: usize = begun(|_, qos| qos != QoS::AtMostOnce);
        let returned: usize = begun(|topic, _| topic == COST_ECHO);
        self.seen.delivered as usize == answered && self.seen.costs as usize == returned
    }

    /// One message of each quality of service, there and back.
    fn echo(&mut self, client: &mut impl Client) -> Step {
        while let Some(qos) = QOS.get(self.done as usize) {
            publish(client, "story/one/echo", &0u32.to_be_bytes(), *qos)?;
            self.done += 1;
        }
        match (self.seen.echoes, self.seen.delivered) {
            ([1, 1, 1], 2) => self.next(Chapter::Retained, "QoS 0, 1 and 2 there and back"),
            _ => Ok(None),
        }
    }

    fn retained(&mut self, client: &mut impl Client) -> Step {
        let kept = |payload| Publish::new(KEPT, payload).at_least_once().retain();
        match self.done {
            0 => admitted(client.publish(&kept(b"kept")))?,
            1 if self.seen.kept == 1 && self.seen.delivered == 1 => subscribe(client, KEPT)?,
            2 if self.seen.kept_before == 1 && self.seen.added == 1 => admitted(client.publish(&kept(b"")))?,
            3 if self.seen.delivered == 2 => return self.next(Chapter::Readings, "a retained message came back"),
            _ => return Ok(None),
        }
        self.done += 1;
        Ok(None)
    }

    fn readings(&mut self) -> Step {
        if self.done == 0 {
            self.done = 1;
            return Ok(Some(Do::StartSensor));
        }
        match (self.seen.readings, self.seen.delivered) {
            (READINGS, READINGS) => self.next(Chapter::Large, "readings from an interrupt, none lost"),
            _ => Ok(None),
        }
    }

    fn large(&mut self, client: &mut impl Client) -> Step {
        if self.done == 0 {
            admitted(client.publish_external(&Publish::new("story/large/echo", &[]).at_least_once(), LARGE))?;
            self.done = 1;
        }
        match (self.seen.large, self.seen.delivered) {
            (len, 1) if len == LARGE.len as usize => self.next(Chapter::Restart, "a payload larger than RAM, checked"),
            _ => Ok(None),
        }
    }

    /// Half of the messages are under way when the broker vanishes, half are published while it is away.
    fn restart(&mut self, client: &mut impl Client) -> Step {
        // Of each pair, one goes out at QoS 1 and one at QoS 2.
        const HALF: u32 = 2 * UNDER_WAY;
        let complete = self.seen.echoes == [0, HALF, HALF] && self.seen.delivered == 2 * HALF;
        let number = match self.done {
            HALF => {
                self.done += 1;
                self.seen.connected = None;
                return Ok(Some(Do::RestartBroker));
            }
            done if done <= 2 * HALF => done - u32::from(done > HALF),
            _ => match self.seen.connected {
                Some(false) => return Err(Some("the broker has forgotten the session")),
                Some(true) if complete => {
                    return self.next(Chapter::Forget, "a broker restarted, nothing lost or doubled");
                }
                _ => return Ok(None),
            },
        };
        let qos = if number % 2 == 0 { QoS::AtLeastOnce } else { QoS::ExactlyOnce };
        publish(client, "story/one/echo", &(number / 2).to_be_bytes(), qos)?;
        self.done += 1;
        Ok(Some(Do::Again))
    }

    fn forget(&mut self, client: &mut impl Client) -> Step {
        match self.done {
            0 => {
                self.done = 1;
                return Ok(Some(Do::WipeBroker));
            }
            1 if self.seen.connected == Some(false) && self.seen.table && self.seen.added == 2 => {
                publish(client, "story/one/echo", &0u32.to_be_bytes(), QoS::AtLeastOnce)?;
                self.done = 2;
            }
            2 => {
                publish(client, KEPT, b"kept", QoS::AtLeastOnce)?;
                self.done = 3;
            }
            // Two filters match the second topic; a broker may send the message once or twice.
            3 if self.seen.echoes == [0, 1, 0] && self.seen.kept >= 1 && self.seen.delivered == 2 => {
                return self.next(Chapter::Will, "a session forgotten, subscribed again");
            }
            _ => {}
        }
        Ok(None)
    }

    fn will(&mut self, passed: u64) -> Step {
        if self.seen.connected == Some(true) && self.seen.status > 0 {
            return self.next(Chapter::Idle, "the will of a connection that was cut");
        }
        if passed < self.next_cut() {
            return Ok(None);
        }
        self.done += 1;
        Ok(Some(Do::Cut))
    }

    /// When the connection is cut next, in milliseconds of its chapter.
    fn next_cut(&self) -> u64 {
        u64::from(self.done) * WILL_MS
    }

    fn idle(&mut self, passed: u64) -> Step {
        if self.done == 0 {
            self.done = 1;
            return Ok(Some(Do::BeginIdle));
        }
        if passed < self.idle_ms {
            return Ok(None);
        }
        if self.seen.connected.is_some() {
            return Err(Some("the idle connection did not last"));
        }
        self.chapter = Chapter::End;
        Ok(Some(Do::EndIdle(passed)))
    }

    fn next(&mut self, chapter: Chapter, note: &'static str) -> Step {
        (self.chapter, self.done, self.started) = (chapter, 0, None);
        self.seen = Seen::new();
        Ok(Some(Do::Note(note)))
    }
}

impl Seen {
    const fn new() -> Self {
        Self {
            connected: None,
            table: false,
            added: 0,
            echoes: [0; 3],
            delivered: 0,
            kept: 0,
            kept_before: 0,
            readings: 0,
            large: 0,
            status: 0,
            costs: 0,
            wrong: None,
        }
    }

    fn message(&mut self, message: &Message<'_>) {
        let number = <[u8; 4]>::try_from(message.payload).map(u32::from_be_bytes);
        match (message.topic.as_str(), number) {
            ("story/one/echo", Ok(number)) => {
                let next = &mut self.echoes[message.qos as usize];
                match number {
                    n if n == *next => *next += 1,
                    // At QoS 1 what was not acknowledged comes again, and may do so behind others.
                    n if n < *next && message.qos == QoS::AtLeastOnce => {}
                    _ => self.wrong = Some("a message was lost or doubled"),
                }
            }
            (READING_TOPIC, Ok(number)) if number == self.readings => self.readings += 1,
            (READING_TOPIC, _) => self.wrong = Some("a reading was lost or doubled"),
            (COST_ECHO, _) if message.payload == COST_PAYLOAD => self.costs += 1,
            (STATUS, _) if message.payload == b"lost" => self.status += 1,
            (KEPT, _) if message.payload == b"kept" && message.retain => self.kept_before += 1,
            (KEPT, _) if message.payload == b"kept" => self.kept += 1,
            (KEPT, _) if message.payload.is_empty() => {}
            _ => self.wrong = Some("a message that nobody sent"),
        }
    }
}

impl Chapter {
    fn stuck(self) -> &'static str {
        match self {
            Self::Connect => "stuck: connect",
            Self::Costs => "stuck: exchanges to be counted",
            Self::Echo => "stuck: QoS 0, 1 and 2",
            Self::Retained => "stuck: retained",
            Self::Readings => "stuck: readings",
            Self::Large => "stuck: large payload",
            Self::Restart => "stuck: broker restarted",
            Self::Forget => "stuck: session forgotten",
            Self::Will => "stuck: will",
            Self::Idle | Self::End => "stuck: idle",
        }
    }
}

const QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

/// What to do, if anything; `Err(None)` is "no room now", `Err(Some)` the end of the story.
type Step = Result<Option<Do>, Option<&'static str>>;

fn publish(client: &mut impl Client, topic: &str, payload: &[u8], qos: QoS) -> Result<(), Option<&'static str>> {
    admitted(client.publish(&Publish::new(topic, payload).with_qos(qos)))
}

fn admitted(result: Result<Option<PacketId>, PublishError>) -> Result<(), Option<&'static str>> {
    match result {
        Ok(_) => Ok(()),
        Err(PublishError::Full) => Err(None),
        Err(_) => Err(Some("a message was refused")),
    }
}

fn subscribe(client: &mut impl Client, filter: &str) -> Result<(), Option<&'static str>> {
    let filter = Filter::new(filter, QoS::AtLeastOnce).map_err(|_| Some("not a filter"))?;
    match client.subscribe(&[filter]) {
        Ok(_) => Ok(()),
        Err(SubscribeError::Full) => Err(None),
        Err(_) => Err(Some("a subscription was refused")),
    }
}
