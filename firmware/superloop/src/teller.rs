//! One loop that drives a session over any byte stream and tells the story.

use board::net::Net;
use board::{clock, cost, say, sensor};
use dunlin_core::{Inbox, Instant, Publish, Session, Storage, Transmit};
use embedded_io::{Read, ReadReady, Write};
use static_cell::ConstStaticCell;
use story::{Do, LARGE, OPTIONS, READING_PERIOD_MS, READING_TOPIC, READINGS, Story, large_byte};

/// A byte stream that can wait for whatever comes first.
pub trait Stream: Read + ReadReady + Write {
    /// Sleeps until `deadline` in milliseconds, an interrupt, or bytes.
    fn sleep(&mut self, deadline: Option<u64>);
}

/// The socket; between connections over TLS, too.
impl Stream for Net<'_> {
    fn sleep(&mut self, deadline: Option<u64>) {
        Net::sleep(self, deadline, sensor::has_reading);
    }
}

/// How a connection ended.
pub enum Outcome {
    /// By its own goodbye: the story is over.
    Goodbye,
    /// It was lost, or the broker was asked to go away: connect again.
    Lost,
    /// The story wants it cut.
    Cut,
}

/// The session and what it tells.
pub struct Teller {
    session: Session<'static>,
    inbox: Inbox<'static>,
    story: Story,
    idle_wakeups: u32,
}

impl Teller {
    pub fn new(idle_ms: u64) -> Self {
        static STORAGE: ConstStaticCell<Storage<512, 256, 10>> = ConstStaticCell::new(Storage::new());
        let (memory, inbox) = STORAGE.take().split();
        Self { session: Session::new(OPTIONS, memory), inbox, story: Story::new(idle_ms), idle_wakeups: 0 }
    }

    /// Lets some time pass without a connection.
    pub fn wait_before_retry(&mut self, stream: &mut impl Stream) {
        const BACK_OFF_MS: u64 = 50;
        let until = clock::millis() + BACK_OFF_MS;
        while clock::millis() < until {
            stream.sleep(Some(until));
        }
    }

    /// Tells what can be told over this connection.
    pub fn tell(&mut self, stream: &mut impl Stream) -> Result<Outcome, &'static str> {
        self.session.open(now(), &mut self.inbox);
        let outcome = self.run(stream);
        self.session.lost();
        outcome
    }

    fn run(&mut self, stream: &mut impl Stream) -> Result<Outcome, &'static str> {
        loop {
            while sensor::has_reading() && self.publish_reading()? {}
            match self.receive(stream) {
                Ok(true) => {}
                Ok(false) => return Ok(Outcome::Lost),
                Err(error) => return Ok(lost(error)),
            }
            self.take_events()?;
            if let Some(outcome) = self.follow_story()? {
                return Ok(outcome);
            }
            match self.send(stream) {
                Ok(true) => {}
                Ok(false) => return Ok(Outcome::Goodbye),
                Err(error) => return Ok(lost(error)),
            }
            let earliest = [self.session.deadline(), self.story.deadline()].into_iter().flatten().min();
            stream.sleep(earliest.map(Instant::as_millis));
        }
    }

    /// The stream's bytes into the inbox, as far as there is room; `false` at its end.
    fn receive<S: Stream>(&mut self, stream: &mut S) -> Result<bool, S::Error> {
        while stream.read_ready()? {
            let space = self.inbox.space();
            if space.is_empty() {
                break;
            }
            match stream.read(space)? {
                0 => return Ok(false),
                count => self.inbox.filled(count),
            }
            // Room for what is still to be read.
            if self.take_events().is_err() {
                break;
            }
        }
        Ok(true)
    }

    fn take_events(&mut self) -> Result<(), &'static str> {
        loop {
            match self.session.poll(now(), &mut self.inbox) {
                Ok(Some(event)) => self.story.on_event(&event),
                Ok(None) => return Ok(()),
                Err(fault) => {
                    say!("{fault}");
                    return Err("the session ended in a fault");
                }
            }
        }
    }

    fn follow_story(&mut self) -> Result<Option<Outcome>, &'static str> {
        loop {
            match self.story.step(&mut self.session, now())? {
                Do::Nothing => return Ok(None),
                Do::Again => {}
                Do::Note(note) => say!("{:6} ms  {note}", clock::millis()),
                Do::RestartBroker => say!("@ restart-broker"),
                Do::WipeBroker => say!("@ wipe-broker"),
                Do::StartSensor => sensor::start(READINGS, READING_PERIOD_MS, sensor::queue),
                Do::Cut => return Ok(Some(Outcome::Cut)),
                Do::Cost(name) => cost::note(name),
                Do::BeginIdle => self.idle_wakeups = clock::wakeups(),
                Do::EndIdle(passed) => {
                    say!("@ idle {passed} {}", clock::wakeups() - self.idle_wakeups);
                }
                Do::Close => {
                    self.session.close();
                    return Ok(None);
                }
            }
        }
    }

    /// What the session has to say, to the stream; `false` when it has said goodbye.
    fn send<S: Stream>(&mut self, stream: &mut S) -> Result<bool, S::Error> {
        let mut out = [0; 256];
        loop {
            let count = match self.session.transmit(now(), &mut out) {
                Transmit::Bytes(count) => count,
                Transmit::Payload { key, offset, len } if key == LARGE.key => {
                    let count = len.min(out.len());
                    out.iter_mut().zip(offset..).for_each(|(byte, at)| *byte = large_byte(at));
                    self.session.supplied(count);
                    count
                }
                Transmit::Close => {
                    stream.flush()?;
                    return Ok(false);
                }
                _ => break,
            };
            stream.write_all(&out[..count])?;
        }
        stream.flush()?;
        Ok(true)
    }

    /// One reading from the interrupt's queue to the session, if there is room.
    fn publish_reading(&mut self) -> Result<bool, &'static str> {
        // A reading that does not fit stays in the queue; the queue's limit holds the sensor back.
        if self.session.outgoing_count() >= 8 {
            return Ok(false);
        }
        let Some(reading) = sensor::take() else { return Ok(false) };
        let payload = reading.to_be_bytes();
        match self.session.publish(&Publish::new(READING_TOPIC, &payload).at_least_once()) {
            Ok(_) => Ok(true),
            Err(_) => Err("a reading found no room"),
        }
    }
}

fn lost(error: impl core::fmt::Debug) -> Outcome {
    say!("lost: {error:?}");
    Outcome::Lost
}

fn now() -> Instant {
    Instant::from_millis(clock::millis())
}
