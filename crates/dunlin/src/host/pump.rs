//! The driver's side of a client, without the stream: bytes in, bytes out, when to look again, whether to try again.
//!
//! A driver opens a stream and calls [`open`](Pump::open). Then, in turns: [`turn`](Pump::turn),
//! [`write_to`](Pump::write_to), read into [`space`](Pump::space); and when there was nothing to do, [`park`](Pump::park)
//! and sleep until bytes come, the output can be written, the deadline, or the waker. When the stream is gone,
//! [`lost`](Pump::lost) says whether and when to open the next one.
//!
//! One turn fills one buffer, so that a batch leaves with one write. The session is locked for the length of a turn,
//! never while the driver waits.

use std::io::{self, Write};
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use dunlin_core::memory::tx_len;
use dunlin_core::{Common, Event as Happened, Fault, Instant, QoS, Ready, Request, Transmit};

use super::deliveries::Outcome;
use super::error::Reason;
use super::output::Output;
use super::owned::{LONG, OwnedInbox};
use super::queue::Queue;
use super::received::{Event, Message};
use super::told::{self, Told};
use super::{Host, Link, State, wake};

/// See the module.
pub(crate) struct Pump {
    host: Arc<Host>,
    inbox: OwnedInbox,
    output: Output,
    /// Messages on the way from the inbox to the queue, and their bytes.
    messages: Queue,
    message_bytes: usize,
    wakes: Vec<Waker>,
    told: Told,
    /// The queue of received messages is full: nothing is read.
    is_held: bool,
    /// More of a packet came that takes its time.
    is_amid_packet: bool,
    /// When the ping left whose answer is awaited.
    pinged_at: Option<Duration>,
    doubt: Doubt,
    attempt: u32,
    /// An attempt has been made for the sake of a close.
    has_hurried: bool,
    /// Bytes read and written that the host has not been told of.
    moved: (u64, u64),
    /// Whether a failure before the first connection is final.
    must_connect: bool,
}

/// What to do after a turn, once the output is written.
#[derive(Clone, Debug)]
pub(crate) enum Turn {
    /// Go on; look again by then at the latest.
    Go { deadline: Option<Instant> },
    /// Write the output and take another turn. Once there is no output, or at this time, close the stream and call
    /// [`Pump::lost`].
    Close { reason: Reason, until: Instant },
}

/// What to do when a stream is gone.
#[derive(Clone, Debug)]
pub(crate) enum Next {
    /// Open the next one after this time, or as soon as the host calls.
    Retry(Duration),
    /// The client has ended.
    End,
}

/// Whether the server is still there. While messages leave, the session sends no ping, and those at QoS 0 have no answer:
/// on a dead link they would be lost for as long as the system goes on trying.
#[derive(Clone, Copy, Debug)]
enum Doubt {
    /// Something has come since the last turn.
    Heard,
    /// Nothing has come since then.
    Since(Instant),
    /// Likewise, and then a ping left.
    Asked(Instant),
}

/// So many times the bytes of the queue of received messages are taken while somebody waits for an acknowledgement.
const OVERFLOW: usize = 4;

impl Pump {
    /// The driver's side of `host`. There must be one.
    pub fn new(host: Arc<Host>, must_connect: bool) -> Self {
        let inbox = OwnedInbox::with_limit(host.settings.max_packet);
        Self {
            host,
            inbox,
            output: Output::default(),
            messages: Queue::default(),
            message_bytes: 0,
            wakes: Vec::new(),
            told: Told::default(),
            is_held: false,
            is_amid_packet: false,
            pinged_at: None,
            doubt: Doubt::Heard,
            attempt: 0,
            has_hurried: false,
            moved: (0, 0),
            must_connect,
        }
    }

    pub fn host(&self) -> &Arc<Host> {
        &self.host
    }

    /// A stream is up.
    pub fn open(&mut self) {
        self.output.clear();
        self.is_held = false;
        self.is_amid_packet = false;
        self.doubt = Doubt::Heard;
        let now = self.host.now();
        let mut state = self.host.state();
        self.inbox.on(|inbox| state.session.on(|session| session.open(now, inbox)));
    }

    /// Takes what came, and fills the output if all of it was written.
    pub fn turn(&mut self) -> Turn {
        #[cfg(feature = "tracing")]
        let _span = tracing::trace_span!("turn", client = self.host.settings.name()).entered();
        let now = self.host.now();
        let host = self.host.clone();
        let mut guard = host.state();
        let state = &mut *guard;
        state.is_dirty = false;
        if std::mem::take(&mut self.is_amid_packet) {
            self.hold(state, now);
        }
        let mut result = Ok(());
        loop {
            result = result.and_then(|()| self.take(state, now));
            let is_full = self.is_held;
            if is_full {
                self.hold(state, now);
            }
            let is_busy = self.fill(state, now, &mut result);
            if result.is_err() || is_full || !is_busy {
                break;
            }
        }
        self.time_ping(state);
        #[cfg(feature = "store")]
        state.call_store();
        let turn = self.outcome(state, now, result);
        if state.may_admit() {
            self.wakes.extend(state.room.first());
        }
        self.wakes.append(&mut state.wakes);
        let mut events = std::mem::take(&mut state.events);
        self.count(state);
        if !self.messages.is_empty() || !events.is_empty() {
            let bytes = std::mem::take(&mut self.message_bytes);
            host.inward().bring(&mut self.messages, bytes, &mut events, &mut self.wakes);
        }
        state.events = events;
        drop(guard);
        self.told.tell(host.settings.name());
        wake(self.wakes.drain(..));
        turn
    }

    /// Whether something is to be written to the stream.
    pub fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    /// Writes some of it. Says how many bytes the stream took.
    pub fn write_to(&mut self, stream: &mut (impl Write + ?Sized)) -> io::Result<usize> {
        let n = self.output.write_to(stream)?;
        self.moved.1 += n as u64;
        Ok(n)
    }

    /// Where to read into. Empty: do not read now, since the application or the session cannot take more.
    pub fn space(&mut self) -> &mut [u8] {
        if self.is_held { &mut [] } else { self.inbox.space() }
    }

    /// So many bytes were read into it.
    pub fn filled(&mut self, n: usize) {
        self.is_amid_packet = self.inbox.on(|inbox| inbox.is_amid_packet());
        self.inbox.filled(n);
        self.moved.0 += n as u64;
        self.doubt = Doubt::Heard;
    }

    /// The driver is about to sleep. `false`: something has been asked for, take another turn.
    pub fn park(&mut self, waker: &Waker) -> bool {
        let mut state = self.host.state();
        let may_sleep = !state.is_dirty && (!self.is_held || self.must_starve(&state));
        if may_sleep {
            state.parked = Some(waker.clone());
            drop(state);
            // Whoever sleeps needs no buffers.
            self.output.rest();
            self.inbox.rest();
        }
        may_sleep
    }

    /// The driver sleeps no more.
    pub fn unpark(&mut self) {
        self.host.state().parked = None;
    }

    /// The driver sleeps between two streams, and wants to be woken only when the client is closed. `false`: it is
    /// being closed, and there is nothing to wait for.
    pub fn pause(&mut self, waker: &Waker) -> bool {
        let now = self.host.now();
        let mut state = self.host.state();
        let is_over = state.closing.is_some_and(|closing| now >= closing.until || state.unfinished_count() == 0);
        state.paused = Some(waker.clone());
        !is_over
    }

    /// Whether the next attempt is to be made now, and not when its time has come: the client is being closed, has little
    /// time, and something is left to do.
    pub fn must_hurry(&mut self) -> bool {
        if self.has_hurried || self.host.state().closing.is_none() {
            return false;
        }
        self.has_hurried = true;
        self.attempt = 0;
        true
    }

    /// The time limit of a close, if the client is being closed.
    pub fn closing_at(&self) -> Option<Instant> {
        self.host.state().closing.map(|closing| closing.until)
    }

    /// The stream is gone, or could not be opened.
    pub fn lost(&mut self, reason: Reason) -> Next {
        let now = self.host.now();
        let host = self.host.clone();
        let mut guard = host.state();
        let state = &mut *guard;
        self.count(state);
        state.session.on(|session| session.lost());
        state.forget_qos0();
        self.output.clear();
        self.output.rest();
        self.pinged_at = None;
        let lasted = match state.link {
            Link::Up(since) => Some(Duration::from_millis(now.millis_since(since))),
            Link::Never | Link::Down => None,
        };
        if lasted.is_some_and(|lasted| host.settings.backoff.has_lasted(lasted)) {
            self.attempt = 0;
        }
        let is_final = !reason.may_heal() || (self.must_connect && state.link == Link::Never);
        let is_closed = state.closing.is_some_and(|closing| now >= closing.until || state.unfinished_count() == 0);
        if state.link != Link::Never {
            state.link = Link::Down;
        }
        let next = if is_final || is_closed {
            Next::End
        } else {
            let delay = host.settings.backoff.delay(self.attempt, fastrand::u64(..));
            self.attempt = self.attempt.saturating_add(1);
            // What is under way when the client is closed has only so much time.
            let left = state.closing.map(|closing| Duration::from_millis(closing.until.millis_since(now)));
            Next::Retry(left.map_or(delay, |left| delay.min(left)))
        };
        let retry_in = match next {
            Next::Retry(delay) => Some(delay),
            Next::End => None,
        };
        let reason = if is_closed { Reason::Closed } else { reason };
        state.events.push(Event::Disconnected { reason: reason.clone(), retry_in });
        let mut events = std::mem::take(&mut state.events);
        self.wakes.append(&mut state.wakes);
        self.wakes.extend(state.room.first());
        let bytes = std::mem::take(&mut self.message_bytes);
        host.inward().bring(&mut self.messages, bytes, &mut events, &mut self.wakes);
        state.events = events;
        drop(guard);
        told::lost(host.settings.name(), &reason, &next);
        wake(self.wakes.drain(..));
        if let Next::End = next {
            host.end(reason);
        }
        next
    }

    // Helpers

    fn count(&mut self, state: &mut State) {
        let (bytes_in, bytes_out) = std::mem::take(&mut self.moved);
        state.stats.bytes_in += bytes_in;
        state.stats.bytes_out += bytes_out;
        state.stats.received += self.messages.len() as u64;
    }

    /// Most messages, and bytes of them, that may wait for the application.
    fn receive_limit(&self, state: &State) -> (usize, usize) {
        let (messages, bytes) = self.host.settings.receive_queue;
        // An acknowledgement that somebody waits for may stand behind any number of messages in the stream.
        if state.is_waited_for() { (usize::MAX, bytes.saturating_mul(OVERFLOW)) } else { (messages, bytes) }
    }

    /// Whether there is no reason to read on, until the application has taken messages.
    fn must_starve(&self, state: &State) -> bool {
        let mut inward = self.host.inward();
        let in_batch = self.host.in_batch.get();
        let (_, bytes) = inward.room(self.receive_limit(state), in_batch);
        let is_over = bytes == 0 || !state.is_waited_for();
        is_over && inward.starve(self.host.settings.receive_queue, in_batch)
    }

    /// Whether to ask the server if it is there: nothing has come from it for the keep alive. When nothing has for as long
    /// again after that, and the time for an answer, it is not. That is more than the session gives the answer to a ping of
    /// its own: this one stands behind all that has left, which a slow link may have before it.
    fn doubt(&mut self, now: Instant) -> Result<bool, Fault> {
        let keep_alive = 1000 * u64::from(self.host.settings.keep_alive_s);
        let timeout = 1000 * u64::from(self.host.settings.answer_timeout_s);
        if self.is_held {
            self.doubt = Doubt::Heard; // nobody has looked
        }
        match self.doubt {
            Doubt::Heard => self.doubt = Doubt::Since(now),
            Doubt::Since(since) => return Ok(keep_alive > 0 && now.millis_since(since) >= keep_alive),
            Doubt::Asked(at) if now.millis_since(at) >= keep_alive + timeout => return Err(Fault::Silent),
            Doubt::Asked(_) => {}
        }
        Ok(false)
    }

    /// Behind a packet that has begun to leave, the next turn asks.
    fn ask(&mut self, state: &mut State, now: Instant) {
        let space = self.output.space();
        let n = state.session.on(|session| session.ping_past(space));
        self.output.filled(n);
        if n > 0 {
            self.doubt = Doubt::Asked(now);
        }
    }

    /// A ping leaves with the output of the turn that wrote it, and is answered in a later one.
    fn time_ping(&mut self, state: &mut State) {
        match (self.pinged_at, state.session.ask(|session| session.is_ping_unanswered())) {
            (None, true) => self.pinged_at = Some(self.host.elapsed()),
            (Some(at), false) => {
                state.stats.ping_round_trip = Some(self.host.elapsed().saturating_sub(at));
                self.pinged_at = None;
            }
            _ => {}
        }
    }

    /// The answer to a ping is not waited for, nor timed.
    fn hold(&mut self, state: &mut State, now: Instant) {
        state.session.on(|session| session.hold(now));
        self.pinged_at = None;
    }

    /// Takes packets, as many as the application has room for.
    fn take(&mut self, state: &mut State, now: Instant) -> Result<(), Fault> {
        let inward = self.host.inward();
        let (mut count, mut bytes) = inward.room(self.receive_limit(state), self.host.in_batch.get());
        drop(inward);
        count = count.saturating_sub(self.messages.len());
        bytes = bytes.saturating_sub(self.message_bytes);
        loop {
            self.take_common(state, &mut count, &mut bytes);
            self.is_held = count == 0 || bytes == 0;
            if self.is_held {
                return Ok(());
            }
            let ready = state.session.on(|session| self.inbox.poll(session, now))?;
            let Some(ready) = ready else {
                if state.session.make_room_if_wanted() {
                    continue;
                }
                return Ok(());
            };
            if let Some(len) = self.note(state, ready, now) {
                count -= 1;
                bytes = bytes.saturating_sub(len);
                self.message_bytes += len;
            }
        }
    }

    /// Takes short messages and acknowledgements by the short way, while there is room for so many messages and bytes.
    fn take_common(&mut self, state: &mut State, count: &mut usize, bytes: &mut usize) {
        if state.replies.is_waited_for() {
            return;
        }
        let Self { inbox, messages, message_bytes, told, .. } = self;
        loop {
            let delivered = state.session.on(|session| {
                inbox.on(|inbox| {
                    while *count > 0 && *bytes > 0 {
                        match session.poll_common(inbox)? {
                            Common::Message(message) => {
                                told.received(&message);
                                let place = messages.add();
                                place.set(&message);
                                let len = place.len();
                                *count -= 1;
                                *bytes = bytes.saturating_sub(len);
                                *message_bytes += len;
                            }
                            Common::Delivered(id) => return Some(id),
                        }
                    }
                    None
                })
            });
            let Some(id) = delivered else { return };
            state.end(id, Outcome::Delivered);
        }
    }

    /// Notes what happened. Gives the length of a message.
    fn note(&mut self, state: &mut State, ready: Ready, now: Instant) -> Option<usize> {
        let buffer_len = self.inbox.buffer_len();
        match self.inbox.event(ready) {
            Happened::Message(message)
                if state.replies.is_waited_for() && !message.retain && state.replies.wants(&message.topic) =>
            {
                state.stats.received += 1;
                let waker = state.replies.bring(Message::copy(&message));
                state.wakes.extend(waker);
            }
            Happened::Message(message) => {
                self.told.received(&message);
                let packet = long_packet(&message);
                let is_whole = packet > 0 && packet == buffer_len;
                let mut owned = if is_whole { Message::whole(&message, packet) } else { Message::copy(&message) };
                self.inbox.message_came(packet);
                if is_whole {
                    owned.lie_in(self.inbox.take());
                }
                let len = owned.len();
                *self.messages.add() = owned;
                return Some(len);
            }
            Happened::Delivered(id) => state.end(id, Outcome::Delivered),
            Happened::Forgotten(id) => state.end(id, Outcome::Forgotten),
            Happened::Replaced(id) => state.end(id, Outcome::Replaced),
            Happened::Connected { resumed } => {
                self.told.connected(resumed);
                if !resumed {
                    state.requests.rewind();
                }
                state.link = Link::Up(now);
                state.stats.connections += 1;
                state.events.push(Event::Connected { resumed });
                state.wakes.extend(state.phase.take(usize::MAX));
                self.must_connect = false;
            }
            Happened::Subscribed(subscribed) => {
                if let Request::Filters(id) = subscribed.request {
                    let refused = state.requests.answer(id, subscribed.codes.granted().collect(), &mut state.wakes);
                    state.events.extend(refused.into_iter().map(|filter| Event::SubscriptionRefused { filter }));
                }
            }
            Happened::Unsubscribed(id) => _ = state.requests.answer(id, Vec::new(), &mut state.wakes),
            Happened::Skipped { qos, len } => state.events.push(Event::Skipped { qos, len }),
            _ => {}
        }
        None
    }

    /// Fills the output, if all of it was written. `true` when something was put there, so that the session may have
    /// more to tell.
    fn fill(&mut self, state: &mut State, now: Instant, result: &mut Result<(), Fault>) -> bool {
        if !self.output.is_empty() {
            return false;
        }
        self.output.clear();
        if state.staged.len > 0 {
            self.output.begin_with(&mut state.staged.buffer, state.staged.len);
            state.forget_staged();
        }
        match self.doubt(now) {
            Ok(false) => {}
            Ok(true) => self.ask(state, now),
            Err(fault) => *result = Err(fault),
        }
        loop {
            let space = self.output.space();
            if space.is_empty() {
                break;
            }
            let n = state.session.on(|session| session.transmit_common(space));
            self.output.filled(n);
            let space = self.output.space();
            if space.is_empty() {
                break;
            }
            match state.session.on(|session| session.transmit(now, space)) {
                Transmit::Bytes(n) => self.output.filled(n),
                Transmit::Payload { key, offset, len } => {
                    let payload = state.payloads.get(&key).map(|external| external.payload.clone());
                    let Some(payload) = payload.filter(|payload| payload.len() == offset + len) else { break };
                    let n = self.output.attach(payload, offset);
                    state.session.on(|session| session.supplied(n));
                    if n == len && state.payloads.get(&key).is_some_and(|external| external.passes_by) {
                        state.payloads.remove(&key);
                    }
                }
                Transmit::Close => {
                    if let Some(fault) = state.session.ask(|session| session.fault()) {
                        *result = Err(fault);
                    }
                    break;
                }
                _ => {
                    state.note_idle();
                    break;
                }
            }
        }
        !self.output.is_empty()
    }

    /// What the turn comes to.
    fn outcome(&mut self, state: &mut State, now: Instant, result: Result<(), Fault>) -> Turn {
        if let Err(fault) = result {
            let until = if fault == Fault::TooMany {
                // The acknowledgements of this turn leave: without them the next connection would begin as this one.
                now.after_millis(500)
            } else {
                self.output.clear();
                now
            };
            return Turn::Close { reason: Reason::Fault(fault), until };
        }
        let mut deadline = state.session.ask(|session| session.deadline());
        if self.is_held {
            // What could go on is held up by the application, which calls.
            deadline = deadline.filter(|deadline| *deadline > now).or(Some(now.after_millis(1000)));
        }
        let Some(closing) = state.closing else { return Turn::Go { deadline } };
        let is_done = self.output.is_empty() && state.room.is_empty() && state.unfinished_count() == 0;
        if is_done || now >= closing.until {
            state.session.on(|session| session.close());
            let mut result = Ok(());
            self.fill(state, now, &mut result);
            // The goodbye has half a second, however little time there was.
            return Turn::Close { reason: Reason::Closed, until: closing.until.after_millis(500) };
        }
        Turn::Go { deadline: Some(deadline.map_or(closing.until, |deadline| deadline.min(closing.until))) }
    }
}

/// Bytes of the packet that a message came in, if it is a long one. Zero if it is not.
fn long_packet(message: &dunlin_core::Message<'_>) -> usize {
    if message.payload.len() < LONG {
        return 0;
    }
    // `tx_len` counts a packet identifier.
    let id_len = if message.qos == QoS::AtMostOnce { 2 } else { 0 };
    tx_len(message.topic.as_bytes().len(), message.payload.len() - id_len)
}

impl Host {
    /// The client has ended: nobody waits any longer.
    pub fn end(&self, reason: Reason) {
        let mut wakes = Vec::new();
        let mut state = self.state();
        if state.ended.is_none() {
            state.unfinished = state.unfinished_count();
            state.ended = Some(reason.clone());
            if state.link != Link::Never {
                state.link = Link::Down;
            }
            let State { room, phase, deliveries, requests, replies, .. } = &mut *state;
            wakes.extend(room.take(usize::MAX).chain(phase.take(usize::MAX)));
            wakes.extend(deliveries.wakers());
            wakes.extend(requests.wakers());
            wakes.extend(replies.wakers());
            #[cfg(feature = "store")]
            wakes.extend(state.durable.iter_mut().flat_map(|durable| durable.wakers()));
            self.inward().end(reason, &mut wakes);
        }
        drop(state);
        wake(wakes);
    }
}
