//! Tells the story over any two halves of a stream: one future listens, one writes, one tells.

use core::cell::{Cell, RefCell};
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use board::{clock, cost, say, sensor};
use critical_section::Mutex;
use dunlin::asynch::{Clock, LinkError, Shared};
use dunlin::{External, Filter, Inbox, Instant, PacketId, Publish, PublishError, Session, Storage, SubscribeError};
use embassy_futures::select::{Either3, select3};
use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use embassy_sync::signal::Signal;
use embassy_time::{Duration, Timer, with_timeout};
use embedded_io_async::{Read, Write};
use static_cell::{ConstStaticCell, StaticCell};
use story::{Client, Do, OPTIONS, READING_PERIOD_MS, READING_TOPIC, READINGS, Story, large_byte};

/// How a connection ended.
pub enum Outcome {
    Goodbye,
    Lost,
    /// The story wants it cut.
    Cut,
}

/// The board's clock, for dunlin.
#[derive(Clone, Copy)]
struct BoardClock;

impl Clock for BoardClock {
    fn now(&self) -> Instant {
        Instant::from_millis(clock::millis())
    }

    async fn sleep_until(&self, deadline: Instant) {
        Timer::at(embassy_time::Instant::from_millis(deadline.as_millis())).await;
    }
}

/// The session for the interrupt, which has no other way to it.
static MQTT: Mutex<Cell<Option<&'static Shared<'static>>>> = Mutex::new(Cell::new(None));

/// The session, shared, and its inbox.
pub fn session() -> (&'static Shared<'static>, Inbox<'static>) {
    static STORAGE: ConstStaticCell<Storage<512, 256, 10>> = ConstStaticCell::new(Storage::new());
    static SHARED: StaticCell<Shared<'static>> = StaticCell::new();
    let (memory, inbox) = STORAGE.take().split();
    let shared = SHARED.init(Shared::new(Session::new(OPTIONS, memory)));
    critical_section::with(|cs| MQTT.borrow(cs).set(Some(shared)));
    (shared, inbox)
}

/// Publishes a reading, in the interrupt that brought it.
fn publish_in_interrupt(reading: u32) -> bool {
    let mqtt = critical_section::with(|cs| MQTT.borrow(cs).get());
    let payload = reading.to_be_bytes();
    mqtt.is_some_and(|mqtt| mqtt.try_publish(&Publish::new(READING_TOPIC, &payload).at_least_once()).is_ok())
}

/// The third task: publishes what nobody has asked for, whatever the others are doing.
#[embassy_executor::task]
pub async fn tick(mqtt: &'static Shared<'static>) {
    if idle_ms() == 0 {
        return; // what is counted is to be counted alone
    }
    // Until the idle chapter, which wants silence.
    while !IS_IDLE.load(Ordering::Relaxed) {
        Timer::after_millis(3).await;
        // While there is no connection, QoS 0 is refused.
        if mqtt.publish(&Publish::new("story/ticks", b"tick")).await.is_ok() {
            TICKS.fetch_add(1, Ordering::Relaxed);
            if IS_WRITING.load(Ordering::Relaxed) {
                TICKS_WHILE_WRITING.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

static IS_IDLE: AtomicBool = AtomicBool::new(false);
static TICKS: AtomicU32 = AtomicU32::new(0);
static IS_WRITING: AtomicBool = AtomicBool::new(false);
static TICKS_WHILE_WRITING: AtomicU32 = AtomicU32::new(0);

/// A writer that tells whether a write is pending.
struct Watched<W>(W);

impl<W: embedded_io_async::ErrorType> embedded_io_async::ErrorType for Watched<W> {
    type Error = W::Error;
}

impl<W: Write> Write for Watched<W> {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, W::Error> {
        IS_WRITING.store(true, Ordering::Relaxed);
        let result = self.0.write(bytes).await;
        IS_WRITING.store(false, Ordering::Relaxed);
        result
    }

    async fn flush(&mut self) -> Result<(), W::Error> {
        self.0.flush().await
    }
}

/// Milliseconds of the idle chapter, the second argument; 0 for the story that counts.
pub fn idle_ms() -> u64 {
    u64::from(board::host::number(2).unwrap_or(0))
}

/// Says what was measured, and ends the run: with this verdict, if the third task has had its turn, also while a write
/// was pending.
pub fn end(verdict: Result<(), &'static str>) -> ! {
    let ticks = TICKS.load(Ordering::Relaxed);
    let while_writing = TICKS_WHILE_WRITING.load(Ordering::Relaxed);
    say!("@ ticks {ticks} {while_writing}");
    say!("@ stack {}", board::stack::peak());
    cost::print();
    let had_turn = (ticks > 20 && while_writing > 0) || idle_ms() == 0;
    board::host::exit(verdict.and(if had_turn { Ok(()) } else { Err("the third task did not get its turn") }))
}

/// One connection of the story.
pub struct Teller {
    story: RefCell<Story>,
    /// Something happened: the story may go on.
    news: Signal<NoopRawMutex, ()>,
    idle_wakeups: Cell<u32>,
}

impl Teller {
    pub const fn new(idle_ms: u64) -> Self {
        Self { story: RefCell::new(Story::new(idle_ms)), news: Signal::new(), idle_wakeups: Cell::new(0) }
    }

    /// Tells what can be told over this connection.
    pub async fn tell(
        &self,
        mqtt: &Shared<'static>,
        inbox: &mut Inbox<'static>,
        reader: impl Read,
        writer: impl Write,
    ) -> Result<Outcome, &'static str> {
        let (mut events, pump) = mqtt.open(inbox, reader, Watched(writer), BoardClock);
        self.news.signal(());
        let listen = async {
            loop {
                match events.next(inbox).await {
                    Ok(event) => self.story.borrow_mut().on_event(&event),
                    Err(error) => return error_of(error),
                }
                self.news.signal(());
            }
        };
        let mut out = [0; 256];
        let pump = pump.run_with(&mut out, |_, offset, room| {
            room.iter_mut().zip(offset..).for_each(|(byte, at)| *byte = large_byte(at));
            room.len()
        });
        // The first to end ends the connection: no other future of it goes on.
        match select3(listen, pump, self.follow(mqtt)).await {
            Either3::First(end) => end,
            Either3::Second(end) => error_of(end),
            Either3::Third(end) => end,
        }
    }

    /// Does what the story asks for, until it wants the connection to end.
    async fn follow(&self, mqtt: &Shared<'static>) -> Result<Outcome, &'static str> {
        loop {
            let step = self.story.borrow_mut().step(&mut Mqtt(mqtt), BoardClock.now())?;
            match step {
                Do::Nothing => self.wait().await,
                Do::Again => {}
                Do::Note(note) => say!("{:6} ms  {note}", clock::millis()),
                Do::RestartBroker => say!("@ restart-broker"),
                Do::WipeBroker => say!("@ wipe-broker"),
                Do::StartSensor => sensor::start(READINGS, READING_PERIOD_MS, publish_in_interrupt),
                Do::Cut => return Ok(Outcome::Cut),
                Do::Cost(name) => cost::note(name),
                Do::BeginIdle => {
                    IS_IDLE.store(true, Ordering::Relaxed);
                    self.idle_wakeups.set(clock::wakeups());
                }
                Do::EndIdle(passed) => say!("@ idle {passed} {}", clock::wakeups() - self.idle_wakeups.get()),
                Do::Close => {
                    mqtt.close();
                    self.wait().await;
                }
            }
        }
    }

    async fn wait(&self) {
        let deadline = self.story.borrow().deadline().map_or(u64::MAX, Instant::as_millis);
        // Whether news or the deadline, the story looks again.
        let _ = with_timeout(Duration::from_millis(deadline.saturating_sub(clock::millis()).max(1)), self.news.wait())
            .await;
    }
}

fn error_of<E: core::fmt::Debug>(error: LinkError<E>) -> Result<Outcome, &'static str> {
    match error {
        LinkError::Closed => Ok(Outcome::Goodbye),
        LinkError::Fault(fault) => {
            say!("{fault}");
            Err("the session ended in a fault")
        }
        _ => Ok(Outcome::Lost),
    }
}

/// The story's view of the session.
struct Mqtt<'h>(&'h Shared<'static>);

impl Client for Mqtt<'_> {
    fn publish(&mut self, publish: &Publish<'_>) -> Result<Option<PacketId>, PublishError> {
        self.0.try_publish(publish)
    }

    fn publish_external(&mut self, head: &Publish<'_>, payload: External) -> Result<Option<PacketId>, PublishError> {
        self.0.with(|session| session.publish_external(head, payload))
    }

    fn subscribe(&mut self, filters: &[Filter<'_>]) -> Result<PacketId, SubscribeError> {
        self.0.with(|session| session.subscribe(filters))
    }
}
