//! A client on a host, without its threads, sockets and executors: what the blocking and the asynchronous client
//! share.
//!
//! `Host` is what the handles of a client share: an owned session in a mutex, who waits for what, and the queue of
//! received messages. Requests lock, change the session, unlock, and wake the driver if it sleeps. `pump::Pump` is
//! the driver's side: bytes in, bytes out, when to ask again, and whether to connect again. Neither waits: whatever
//! may have to wait is a `poll_` function that takes a [`Waker`], and a blocking client makes one out of its thread.
//!
//! No call can wait for another one in a circle. The driver never waits for the application: when the queue of received
//! messages is full it reads no more, unless somebody waits for an answer, which may stand behind messages in the
//! stream. All other waits have a time limit or belong to a future that may be dropped.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use dunlin_core::memory::tx_len;
use dunlin_core::{Filter, Instant, PacketId, Publish, PublishError, QoS, Receipt, Replace, SubscribeError};
use rustc_hash::FxHashMap;

mod builder;
mod by_id;
mod deliveries;
#[cfg(feature = "store")]
mod durable;
mod error;
mod futures;
mod output;
mod owned;
mod payload;
mod pool;
pub(crate) mod pump;
mod queue;
mod received;
mod replies;
mod requests;
#[cfg(test)]
mod tests;
mod told;
mod waiters;

pub use builder::Builder;
pub use deliveries::Outcome;
#[cfg(feature = "websocket")]
pub use error::WebSocketError;
pub use error::{Error, Reason};
pub use payload::Payload;
pub use received::{Event, Message};

pub(crate) use builder::Settings;
pub(crate) use received::Batch;
pub(crate) use requests::Granted;
pub(crate) use waiters::Ticket;

use deliveries::{Deliveries, Ended, Load};
use output::OUT;
use owned::OwnedSession;
use queue::Queue;
use received::{InBatch, Inward};
use replies::Replies;
use requests::Requests;
use waiters::Waiters;

/// What all handles of a client and its driver share.
pub(crate) struct Host {
    pub settings: Arc<Settings>,
    state: Mutex<State>,
    /// Messages that handles have taken from there at once; not used by a receiver that has its own.
    batch: Mutex<Batch>,
    in_batch: InBatch,
    /// Locked for moments only; where several are, `batch` comes first, then `state`.
    inward: Mutex<Inward>,
    clock: Clock,
    zero: std::time::Instant,
}

/// Where time comes from: the system, or a runtime that can pretend.
pub(crate) type Clock = fn() -> std::time::Instant;

struct State {
    session: OwnedSession,
    deliveries: Deliveries,
    requests: Requests,
    replies: Replies,
    /// Payloads that are not in the session's memory.
    payloads: FxHashMap<u32, External>,
    last_key: u32,
    /// What all messages on their way out take.
    load: Load,
    /// What those of them take that are at QoS 0, in the session, and have not left.
    qos0: Load,
    /// Those that need no place in the session, since they overtake nothing: packets that leave before all else.
    staged: Staged,
    /// What `load` may reach in the memory that the session has, and in the largest that it may have.
    limit: Load,
    most: Load,
    /// Most messages at QoS 1 and 2 in flight.
    window: usize,
    /// Publishers that wait for room.
    room: Waiters,
    /// Those who wait for a connection, or for the end.
    phase: Waiters,
    link: Link,
    /// The driver sleeps.
    parked: Option<Waker>,
    /// The driver waits for the time of the next attempt.
    paused: Option<Waker>,
    /// Something has been asked for since the driver looked.
    is_dirty: bool,
    closing: Option<Closing>,
    ended: Option<Reason>,
    /// What could not be finished when the client ended.
    unfinished: usize,
    stats: Stats,
    /// To be brought to the application when the driver looks next.
    events: Vec<Event>,
    /// To be woken when the driver looks next.
    wakes: Vec<Waker>,
    #[cfg(feature = "store")]
    durable: Option<durable::Durable>,
}

/// Packets in `buffer[..len]`.
#[derive(Default)]
struct Staged {
    buffer: Vec<u8>,
    len: usize,
    count: usize,
}

struct External {
    payload: Payload,
    /// At QoS 0: not needed any more when it has been put to the output.
    passes_by: bool,
}

/// What has become of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    /// There has been none.
    Never,
    Down,
    Up(Instant),
}

#[derive(Clone, Copy, Debug)]
struct Closing {
    until: Instant,
}

/// Figures of a client since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Messages that `publish` accepted.
    pub published: u64,
    /// Messages at QoS 1 and 2 that the server has taken.
    pub delivered: u64,
    /// Messages that arrived.
    pub received: u64,
    /// Bytes written to the stream.
    pub bytes_out: u64,
    /// Bytes read from the stream.
    pub bytes_in: u64,
    /// Connections that the server accepted; all but the first are reconnects.
    pub connections: u64,
    /// Messages at QoS 1 and 2 on their way out now.
    pub in_flight: usize,
    /// Bytes of messages on their way out now, at any quality of service.
    pub outgoing_bytes: usize,
    /// Calls of `publish` that wait for room now.
    pub publishers: usize,
    /// Received messages that wait for the application now.
    pub waiting: usize,
    /// How long the server took for its last answer to a ping, including what stood before it on the way.
    pub ping_round_trip: Option<Duration>,
    /// Acknowledgements that fitted nothing; see [`Session::ignored_count`](dunlin_core::Session::ignored_count).
    pub ignored: u64,
}

impl Stats {
    /// How often the client has connected again.
    #[must_use]
    pub const fn reconnects(&self) -> u64 {
        self.connections.saturating_sub(1)
    }
}

/// A message on its way out. Dropping it loses nothing.
///
/// It can be waited for with [`wait`](Delivery::wait), or awaited with
/// [`confirmed`](Delivery::confirmed) under any executor.
#[must_use = "dropping it loses nothing, but says that nobody cares whether the message arrives: `let _ =` does that"]
pub struct Delivery {
    /// `None` for QoS 0.
    open: Option<(Arc<Host>, PacketId)>,
    number: u64,
}

/// A request to subscribe or unsubscribe that is on its way.
#[must_use = "dropping it loses only the answer: `let _ =` does that"]
pub struct Pending {
    host: Arc<Host>,
    number: u64,
    filters: Vec<String>,
}

/// Payloads up to this length are copied into the session's memory if there is room, longer ones have their own.
const INLINE: usize = 16 * 1024;

/// As `INLINE`, for a payload that is shared with the application: up to here a copy is cheaper.
const INLINE_SHARED: usize = 4 * 1024;

/// Bytes for where such a payload is.
const EXTERNAL: usize = 8;

/// When so many bytes of the session's memory are used for messages on their way out, further ones wait for room, or, without
/// a connection, have memory of their own.
const ARENA: usize = 1 << 20;

impl Host {
    pub fn new(settings: Arc<Settings>, clock: Clock) -> Result<Self, Error> {
        let (count, bytes) = settings.queue;
        let most = Load { count, arena: bytes, bytes };
        #[cfg(feature = "store")]
        let stored = settings.store.as_ref().map(durable::Durable::open).transpose()?;
        #[cfg(feature = "store")]
        let session = match &stored {
            None => OwnedSession::new(settings.clone(), most, None),
            Some((_, snapshot)) => {
                let stored = durable::load(snapshot);
                let at_once = Load { arena: bytes.min(ARENA), ..most }.plus(stored);
                OwnedSession::new(settings.clone(), most.plus(stored), Some(at_once))
            }
        };
        #[cfg(not(feature = "store"))]
        let session = OwnedSession::new(settings.clone(), most, None);
        let mut state = State {
            deliveries: Deliveries::default(),
            requests: Requests::default(),
            replies: Replies::default(),
            payloads: FxHashMap::default(),
            last_key: 0,
            load: Load::default(),
            qos0: Load::default(),
            staged: Staged::default(),
            limit: most.within(session.capacity()),
            most,
            session,
            window: usize::from(settings.window),
            room: Waiters::default(),
            phase: Waiters::default(),
            link: Link::Never,
            parked: None,
            paused: None,
            is_dirty: false,
            closing: None,
            ended: None,
            unfinished: 0,
            stats: Stats::default(),
            events: Vec::new(),
            wakes: Vec::new(),
            #[cfg(feature = "store")]
            durable: None,
        };
        #[cfg(feature = "store")]
        if let Some((durable, snapshot)) = stored {
            let known = settings.subscriptions.iter().map(|(text, _)| text.as_str());
            state.restore(snapshot, &known.collect())?;
            state.durable = Some(durable);
        }
        // Behind what was stored, whose identifiers are taken. Some servers take no more than eight at a time.
        for group in settings.subscriptions.chunks(8) {
            let filters: Vec<_> = group.iter().map(|(text, qos)| (text.as_str(), *qos)).collect();
            state.subscribe_anyway(&filters)?;
        }
        Ok(Self {
            settings,
            state: Mutex::new(state),
            batch: Mutex::default(),
            in_batch: InBatch::default(),
            inward: Mutex::default(),
            clock,
            zero: clock(),
        })
    }

    /// A host, with the threads that it needs.
    pub fn start(settings: Arc<Settings>, clock: Clock) -> Result<Arc<Self>, Error> {
        let host = Arc::new(Self::new(settings, clock)?);
        #[cfg(feature = "store")]
        host.start_store()?;
        Ok(host)
    }

    /// Time as the session counts it.
    pub fn now(&self) -> Instant {
        Instant::from_millis(u64::try_from(self.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    fn elapsed(&self) -> Duration {
        (self.clock)().saturating_duration_since(self.zero)
    }

    // Publishing

    /// Accepts a message as soon as there is room; `shared` is its payload, if that need not be copied. Those who wait
    /// are served in the order in which they came. Without a waker nobody waits, and no room is `Pending` at once.
    pub fn poll_publish(
        self: &Arc<Self>,
        publish: &Publish<'_>,
        shared: Option<&Payload>,
        replace: Replace,
        ticket: &mut Ticket,
        waker: Option<&Waker>,
    ) -> Poll<Result<Delivery, Error>> {
        let mut state = self.state();
        if let Err(error) = state.check_open() {
            return Poll::Ready(Err(error));
        }
        // Nobody overtakes those who wait.
        let result = match state.room.is_first(*ticket) {
            true => state.publish(publish, shared, replace),
            false => Err(state.check(publish).err().unwrap_or(PublishError::Full)),
        };
        let (id, number) = match result {
            Ok(accepted) => accepted,
            Err(error) => return self.not_published(state, error, ticket, waker),
        };
        let next = if state.room.leave(ticket) { state.room.first() } else { None };
        let driver = state.call_driver_for(publish.qos());
        let told = if replace == Replace::Nothing { Vec::new() } else { self.tell_replaced(&mut state) };
        drop(state);
        told::accepted(publish);
        wake(told);
        wake(next);
        wake(driver);
        let open = id.map(|id| (self.clone(), id));
        Poll::Ready(Ok(Delivery { open, number }))
    }

    /// Brings what a message has pushed out to those who wait for it: the driver may be far from its next turn.
    #[cold]
    fn tell_replaced(&self, state: &mut State) -> Vec<Waker> {
        let mut wakes = std::mem::take(&mut state.wakes);
        self.inward().bring(&mut Queue::default(), 0, &mut state.events, &mut wakes);
        wakes
    }

    /// Waits, if that can help.
    #[cold]
    fn not_published<T>(
        &self,
        mut state: MutexGuard<'_, State>,
        error: PublishError,
        ticket: &mut Ticket,
        waker: Option<&Waker>,
    ) -> Poll<Result<T, Error>> {
        if let (PublishError::Full, Some(waker)) = (error, waker) {
            state.room.wait(ticket, waker);
            let driver = self.if_starving(&mut state);
            drop(state);
            wake(driver);
            return Poll::Pending;
        }
        let next = if state.room.leave(ticket) { state.room.first() } else { None };
        drop(state);
        wake(next);
        if error == PublishError::Full { Poll::Pending } else { Poll::Ready(Err(error.into())) }
    }

    /// A wait for room is given up.
    pub fn leave_room(&self, ticket: &mut Ticket) {
        let mut state = self.state();
        let next = if state.room.leave(ticket) { state.room.first() } else { None };
        drop(state);
        wake(next);
    }

    // Subscribing

    pub fn subscribe(self: &Arc<Self>, filters: &[(&str, QoS)]) -> Result<Pending, Error> {
        let mut state = self.state();
        let (number, filters) = state.subscribe(filters)?;
        // What was subscribed to for an answer alone belongs to the application from now on.
        filters.iter().for_each(|filter| state.replies.keep(filter));
        let driver = state.call_driver();
        drop(state);
        wake(driver);
        Ok(Pending { host: self.clone(), number, filters })
    }

    pub fn unsubscribe(self: &Arc<Self>, filters: &[&str]) -> Result<Pending, Error> {
        let mut state = self.state();
        let number = state.unsubscribe(filters)?;
        let driver = state.call_driver();
        drop(state);
        wake(driver);
        Ok(Pending { host: self.clone(), number, filters: Vec::new() })
    }

    // Receiving

    /// The next message.
    pub fn poll_message(&self, ticket: &mut Ticket, waker: Option<&Waker>) -> Poll<Result<Message, Error>> {
        self.poll_message_of(&mut self.batch(), ticket, waker)
    }

    /// A message that was taken from the queue with one before it.
    #[inline]
    pub fn next_in_batch(&self) -> Option<Message> {
        self.next_of(&mut self.batch())
    }

    #[inline]
    fn next_of(&self, batch: &mut Batch) -> Option<Message> {
        if batch.take_next(&self.in_batch)? {
            self.feed();
        }
        batch.pop()
    }

    /// As [`poll_message`](Self::poll_message), for the only receiver there is, which has a batch of its own.
    #[inline]
    pub fn poll_message_of(
        &self,
        batch: &mut Batch,
        ticket: &mut Ticket,
        waker: Option<&Waker>,
    ) -> Poll<Result<Message, Error>> {
        match self.next_of(batch) {
            Some(message) => {
                if *ticket != 0 {
                    let next = self.inward().leave(batch, ticket);
                    wake(next);
                }
                Poll::Ready(Ok(message))
            }
            None => self.poll_queue(batch, ticket, waker),
        }
    }

    /// The next message, when the batch is empty.
    #[cold]
    fn poll_queue(
        &self,
        batch: &mut Batch,
        ticket: &mut Ticket,
        waker: Option<&Waker>,
    ) -> Poll<Result<Message, Error>> {
        let mut inward = self.inward();
        let message = inward.next(batch, self.settings.receive_queue, ticket, waker);
        // While the lock is held, so that the driver never misses what has gone from one place to the other.
        self.in_batch.set(batch);
        let feeds = inward.feeds(self.settings.receive_queue, self.in_batch.get());
        drop(inward);
        self.feed_if(feeds);
        message
    }

    /// Messages have been taken: a driver that starves goes on when there is room enough.
    #[cold]
    fn feed(&self) {
        let feeds = self.inward().feeds(self.settings.receive_queue, self.in_batch.get());
        self.feed_if(feeds);
    }

    fn feed_if(&self, feeds: bool) {
        if feeds {
            let driver = self.state().call_driver();
            wake(driver);
        }
    }

    /// What else happened.
    pub fn poll_event(&self, ticket: &mut Ticket, waker: Option<&Waker>) -> Poll<Result<Event, Error>> {
        self.inward().next_event(ticket, waker)
    }

    /// Nobody will take messages any more: they are counted, acknowledged, and forgotten.
    #[cfg(feature = "tokio")]
    pub fn discard_messages(&self, batch: &mut Batch) {
        batch.clear();
        self.in_batch.set(batch);
        self.inward().discard();
        let driver = self.state().call_driver();
        wake(driver);
    }

    /// A wait for a message is given up.
    pub fn leave_messages(&self, ticket: &mut Ticket) {
        let batch = self.batch();
        let next = self.inward().leave(&batch, ticket);
        drop(batch);
        wake(next);
    }

    /// A wait for an event is given up.
    pub fn leave_events(&self, ticket: &mut Ticket) {
        let next = self.inward().leave_events(ticket);
        wake(next);
    }

    /// With manual acknowledgement: the message is handled.
    pub fn acknowledge(&self, receipt: Receipt) -> bool {
        let mut state = self.state();
        let is_taken = state.session.on(|session| session.acknowledge(receipt));
        let driver = if is_taken { state.call_driver() } else { None };
        drop(state);
        wake(driver);
        is_taken
    }

    // The connection

    /// Ready when there is a connection, or will never be.
    pub fn poll_connected(&self, ticket: &mut Ticket, waker: Option<&Waker>) -> Poll<Result<(), Error>> {
        let mut state = self.state();
        let result = match (&state.ended, state.link) {
            (Some(reason), _) => Err(Error::Ended(reason.clone())),
            (None, Link::Up(_)) => Ok(()),
            (None, Link::Never | Link::Down) => {
                if let Some(waker) = waker {
                    state.phase.wait(ticket, waker);
                }
                return Poll::Pending;
            }
        };
        state.phase.leave(ticket);
        Poll::Ready(result)
    }

    pub fn leave_connected(&self, ticket: &mut Ticket) {
        self.state().phase.leave(ticket);
    }

    pub fn is_connected(&self) -> bool {
        matches!(self.state().link, Link::Up(_))
    }

    /// Asks the driver to end: nothing new is accepted, and after what is under way, or `limit`, DISCONNECT goes out.
    pub fn close(&self, limit: Duration) {
        let until = self.now().after_millis(crate::limit::millis(limit));
        let mut state = self.state();
        let until = state.closing.map_or(until, |closing| closing.until.min(until));
        state.closing = Some(Closing { until });
        let driver = state.call_driver().or(state.paused.take());
        let room: Vec<_> = state.room.take(usize::MAX).collect();
        drop(state);
        wake(driver);
        wake(room);
    }

    /// Ready when the driver has ended, and what was accepted is on the disk if there is a store: whether everything was
    /// finished.
    pub fn poll_ended(&self, ticket: &mut Ticket, waker: Option<&Waker>) -> Poll<Result<(), Error>> {
        let mut state = self.state();
        #[cfg(feature = "store")]
        let is_over = state.ended.is_some() && !state.is_saving();
        #[cfg(not(feature = "store"))]
        let is_over = state.ended.is_some();
        if !is_over {
            if let Some(waker) = waker {
                state.phase.wait(ticket, waker);
            }
            return Poll::Pending;
        }
        state.phase.leave(ticket);
        Poll::Ready(match &state.ended {
            Some(Reason::Closed) if state.unfinished > 0 => Err(Error::Unfinished(state.unfinished)),
            Some(Reason::Closed) | None => Ok(()),
            Some(reason) => Err(Error::Ended(reason.clone())),
        })
    }

    pub fn stats(&self) -> Stats {
        let waiting = self.inward().waiting_count() + self.in_batch.get().0;
        let state = self.state();
        let ignored = state.session.ask(|session| u64::from(session.ignored_count()));
        let load = state.load;
        Stats {
            in_flight: state.deliveries.count(),
            outgoing_bytes: load.bytes,
            publishers: state.room.len(),
            waiting,
            ignored,
            ..state.stats
        }
    }

    // Helpers

    /// A thread that panicked while it held the lock leaves the session whole: it validates before it changes.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn batch(&self) -> MutexGuard<'_, Batch> {
        self.batch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn inward(&self) -> MutexGuard<'_, Inward> {
        self.inward.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody begins to wait for an answer: a driver that has stopped reading has to go on.
    fn if_starving(&self, state: &mut State) -> Option<Waker> {
        if self.inward().is_starving() { state.call_driver() } else { None }
    }
}

impl State {
    fn check_open(&self) -> Result<(), Error> {
        match (&self.ended, self.closing) {
            (Some(reason), _) => Err(Error::Ended(reason.clone())),
            (None, Some(_)) => Err(Error::Ended(Reason::Closed)),
            (None, None) => Ok(()),
        }
    }

    /// Notes that the driver has something to do; gives what wakes it if it sleeps.
    fn call_driver(&mut self) -> Option<Waker> {
        self.is_dirty = true;
        self.parked.take()
    }

    /// Subscribes, also after a restart; gives the number of the request, and the filters.
    fn subscribe(&mut self, filters: &[(&str, QoS)]) -> Result<(u64, Vec<String>), Error> {
        let subscribed = self.subscribe_for_now(filters)?;
        #[cfg(feature = "store")]
        self.durable.iter_mut().for_each(|durable| durable.subscribe(filters));
        Ok(subscribed)
    }

    /// Subscribes; a restart ends it.
    fn subscribe_for_now(&mut self, filters: &[(&str, QoS)]) -> Result<(u64, Vec<String>), Error> {
        self.check_open()?;
        let (id, texts) = subscribe(&mut self.session, filters)?;
        Ok((self.requests.add(id, texts.clone()), texts))
    }

    /// Subscribes, and nobody waits for the answer: to be called before the client runs.
    fn subscribe_anyway(&mut self, filters: &[(&str, QoS)]) -> Result<(), Error> {
        let (id, texts) = subscribe(&mut self.session, filters)?;
        let number = self.requests.add(id, texts);
        self.requests.drop_token(number);
        Ok(())
    }

    /// Unsubscribes; gives the number of the request.
    fn unsubscribe(&mut self, filters: &[&str]) -> Result<u64, Error> {
        let number = self.unsubscribe_for_now(filters)?;
        #[cfg(feature = "store")]
        self.durable.iter_mut().for_each(|durable| durable.unsubscribe(filters));
        Ok(number)
    }

    /// Unsubscribes from what was subscribed to for now.
    fn unsubscribe_for_now(&mut self, filters: &[&str]) -> Result<u64, Error> {
        self.check_open()?;
        let id = asking(&mut self.session, |session| session.unsubscribe(filters))?;
        self.requests.forget(filters);
        Ok(self.requests.add(id, Vec::new()))
    }

    /// Whether somebody waits for what only the server can answer.
    fn is_waited_for(&self) -> bool {
        !self.room.is_empty()
            || self.deliveries.is_waited_for()
            || self.requests.is_waited_for()
            || self.replies.is_waited_for()
    }

    /// Whether to wake a publisher that waits for room. While there is enough to send without it, that waits until
    /// half of the queue is free, so that threads change places once in many messages.
    fn may_admit(&self) -> bool {
        if self.room.is_empty() {
            return false;
        }
        let count = self.load.count;
        let is_busy = self.deliveries.count() >= 2 * self.window;
        count < self.most.count && !(is_busy && count > self.most.count / 2)
    }

    /// Notes that a message at this quality of service was accepted; gives what wakes the driver, if it has to do
    /// something. Behind a full window it has not, until an acknowledgement comes.
    fn call_driver_for(&mut self, qos: QoS) -> Option<Waker> {
        let is_held = qos != QoS::AtMostOnce && self.deliveries.count() > self.window;
        #[cfg(feature = "store")]
        let is_held = is_held && self.durable.is_none();
        if is_held { None } else { self.call_driver() }
    }

    /// Whether the message could be accepted if there were room.
    fn check(&self, publish: &Publish<'_>) -> Result<(), PublishError> {
        if !dunlin_core::topic::is_name(publish.topic()) {
            return Err(PublishError::InvalidTopic);
        }
        let is_connected = self.session.ask(|session| session.is_connected());
        let needs_link = publish.qos() == QoS::AtMostOnce;
        if needs_link && !is_connected { Err(PublishError::Offline) } else { Ok(()) }
    }

    fn publish(
        &mut self,
        publish: &Publish<'_>,
        shared: Option<&Payload>,
        replace: Replace,
    ) -> Result<Accepted, PublishError> {
        if publish.qos() == QoS::AtMostOnce && self.stage(publish)? {
            self.stats.published += 1;
            return Ok((None, self.deliveries.number()));
        }
        #[cfg(feature = "store")]
        if let Some(durable) = self.durable.as_ref().filter(|_| publish.qos() != QoS::AtMostOnce) {
            durable.check(publish)?;
        }
        let result = match (replace, publish.qos()) {
            (Replace::Nothing, _) | (_, QoS::AtMostOnce) => self.admit(publish, shared, Replace::Nothing),
            (Replace::SameTopic, _) => self.replace_same_topic(publish),
            (replace, _) => loop {
                match self.admit(publish, shared, replace) {
                    Err(PublishError::Full) if self.push_out_oldest() => {}
                    result => break result,
                }
            },
        };
        self.stats.published += u64::from(result.is_ok());
        #[cfg(feature = "store")]
        if let (Ok((Some(id), number)), Some(durable)) = (&result, &mut self.durable) {
            self.wakes.extend(durable.accept(*id, *number, publish));
        }
        result
    }

    /// Takes a message at QoS 0 past the session, if that overtakes nothing and there is room: then it is encoded once,
    /// where the driver writes it from.
    fn stage(&mut self, publish: &Publish<'_>) -> Result<bool, PublishError> {
        if publish.payload().len() > INLINE_SHARED || self.load.count >= self.most.count {
            return Ok(false);
        }
        if self.staged.buffer.is_empty() {
            if !self.session.ask(|session| session.is_connected()) {
                return Ok(false);
            }
            self.staged.buffer = pool::take(OUT);
        }
        let most = OUT.min(self.staged.len + self.most.bytes.saturating_sub(self.load.bytes));
        let Self { session, staged, load, .. } = self;
        let out = &mut staged.buffer[staged.len..most];
        let Some(n) = session.on(|session| session.publish_past(publish, out))? else { return Ok(false) };
        staged.len += n;
        staged.count += 1;
        load.count += 1;
        load.bytes += n;
        Ok(true)
    }

    /// What was staged is on its way, or gone.
    fn forget_staged(&mut self) {
        let Staged { len, count, .. } = &mut self.staged;
        self.load = self.load.minus(Load { count: std::mem::take(count), arena: 0, bytes: std::mem::take(len) });
    }

    /// Accepts a message if the limits leave room.
    fn admit(
        &mut self,
        publish: &Publish<'_>,
        shared: Option<&Payload>,
        replace: Replace,
    ) -> Result<Accepted, PublishError> {
        let (topic, payload) = (publish.topic().len(), publish.payload());
        let bytes = tx_len(topic, payload.len());
        let inline = Load { count: 1, arena: bytes, bytes };
        let most_inline = if shared.is_some() { INLINE_SHARED } else { INLINE };
        if payload.len() <= most_inline {
            if self.load.arena + bytes > ARENA {
                return self.admit_beyond(publish, shared, replace, inline);
            }
            if self.fits(inline) {
                return self.admit_inline(publish, replace, inline);
            }
        }
        self.admit_external(publish, shared, replace, bytes)
    }

    /// Accepts one that there is room for, with its payload in the session's memory.
    fn admit_inline(
        &mut self,
        publish: &Publish<'_>,
        replace: Replace,
        inline: Load,
    ) -> Result<Accepted, PublishError> {
        let id = match self.session.on(|session| session.publish_common(publish)) {
            None => self.session.on(|session| session.publish(publish))?,
            id => id,
        };
        Ok(self.note(id, inline, None, replace))
    }

    /// What to do with a short message when so many are under way: with a connection, more would make nothing faster;
    /// without one, they wait here.
    #[cold]
    fn admit_beyond(
        &mut self,
        publish: &Publish<'_>,
        shared: Option<&Payload>,
        replace: Replace,
        inline: Load,
    ) -> Result<Accepted, PublishError> {
        if inline.fits(self.most) && self.session.ask(|session| session.is_connected()) {
            return Err(PublishError::Full);
        }
        // Too short to have memory of its own.
        if publish.payload().len() <= EXTERNAL && self.fits(inline) {
            return self.admit_inline(publish, replace, inline);
        }
        self.admit_external(publish, shared, replace, inline.bytes)
    }

    /// Likewise, with a payload that is not in the session's memory.
    #[cold]
    fn admit_external(
        &mut self,
        publish: &Publish<'_>,
        shared: Option<&Payload>,
        replace: Replace,
        bytes: usize,
    ) -> Result<Accepted, PublishError> {
        let (topic, payload) = (publish.topic().len(), publish.payload());
        let external = Load { count: 1, arena: tx_len(topic, 0) + EXTERNAL, bytes };
        if bytes > self.most.bytes {
            return Err(PublishError::TooLarge);
        }
        if payload.len() <= EXTERNAL || !self.fits(external) {
            return Err(PublishError::Full);
        }
        let len = u32::try_from(payload.len()).map_err(|_| PublishError::TooLarge)?;
        let key = self.next_key();
        let place = dunlin_core::External { key, len };
        let id = self.session.on(|session| session.publish_external(publish, place))?;
        let payload = shared.cloned().unwrap_or_else(|| payload.to_vec().into());
        self.payloads.insert(key, External { payload, passes_by: id.is_none() });
        Ok(self.note(id, external, Some(key), replace))
    }

    /// A name for a payload: not zero.
    fn next_key(&mut self) -> u32 {
        self.last_key = self.last_key.wrapping_add(1).max(1);
        self.last_key
    }

    /// Newest wins: the waiting message with the same topic goes, room or not.
    fn replace_same_topic(&mut self, publish: &Publish<'_>) -> Result<Accepted, PublishError> {
        let bytes = tx_len(publish.topic().len(), publish.payload().len());
        let load = Load { count: 1, arena: bytes, bytes };
        if bytes > self.most.arena.min(ARENA) {
            return Err(PublishError::TooLarge);
        }
        self.fits(load); // its memory grows if it may: the session itself knows no other limit
        let id = self.session.on(|session| session.publish_replacing(publish, Replace::SameTopic))?;
        if let Some(id) = id {
            let has_replaced = self.deliveries.is_open(id);
            self.end(id, Outcome::Replaced);
            if !has_replaced && !self.fits(load) {
                self.session.on(|session| session.withdraw(id));
                return Err(PublishError::Full);
            }
        }
        Ok(self.note(id, load, None, Replace::SameTopic))
    }

    /// Makes room at the cost of the oldest message that allows it and has never been sent.
    fn push_out_oldest(&mut self) -> bool {
        while let Some(id) = self.deliveries.next_replaceable() {
            if self.session.on(|session| session.withdraw(id)) {
                self.end(id, Outcome::Replaced);
                #[cfg(feature = "store")]
                self.durable.iter_mut().for_each(|durable| durable.withdraw(id));
                return true;
            }
        }
        false
    }

    /// Whether there is, or can be made, room for a message.
    fn fits(&mut self, more: Load) -> bool {
        let sum = self.load.plus(more);
        sum.fits(self.limit) || self.make_room_for(sum)
    }

    /// Lets the session's memory grow, as far as it may.
    #[cold]
    fn make_room_for(&mut self, sum: Load) -> bool {
        self.session.make_room_for(sum.count.min(self.most.count), sum.arena.min(self.most.arena));
        self.limit = self.most.within(self.session.capacity());
        sum.fits(self.most)
    }

    fn note(&mut self, id: Option<PacketId>, load: Load, key: Option<u32>, replace: Replace) -> Accepted {
        self.load = self.load.plus(load);
        match id {
            Some(id) => (Some(id), self.deliveries.add(id, load, key, replace)),
            None => {
                self.qos0 = self.qos0.plus(load);
                (None, self.deliveries.number())
            }
        }
    }

    /// A message at QoS 1 or 2 is over.
    fn end(&mut self, id: PacketId, outcome: Outcome) {
        let Some(Ended { number, load, key }) = self.deliveries.end(id, outcome, &mut self.wakes) else { return };
        self.load = self.load.minus(load);
        if key != 0 {
            self.payloads.remove(&key);
        }
        match outcome {
            Outcome::Delivered => self.stats.delivered += 1,
            Outcome::Forgotten => self.events.push(Event::Forgotten(number)),
            Outcome::Replaced => self.events.push(Event::Replaced(number)),
        }
    }

    /// The session has nothing more to send now. Messages at QoS 0 have left, but for those behind one at QoS 1 or 2
    /// that waits for the window; they count in full until the last one has left.
    fn note_idle(&mut self) {
        if self.qos0.count == 0 {
            return;
        }
        let open = self.deliveries.count();
        if open < self.window || self.session.ask(|session| session.outgoing_count()) == open {
            self.load = self.load.minus(std::mem::take(&mut self.qos0));
        }
    }

    /// What was at QoS 0 and has not left is gone.
    fn forget_qos0(&mut self) {
        self.load = self.load.minus(std::mem::take(&mut self.qos0));
        self.forget_staged();
        self.payloads.retain(|_, payload| !payload.passes_by);
    }

    /// Messages and requests that are not over.
    fn unfinished_count(&self) -> usize {
        let is_idle = self.session.ask(|session| session.is_idle());
        #[cfg(feature = "store")]
        let is_idle = is_idle && !self.is_storing();
        self.deliveries.count().max(usize::from(!is_idle))
    }
}

impl Delivery {
    /// The number of the message, rising in the order in which messages were accepted. Events name it.
    #[must_use]
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// How it ended; `None` while it is on its way.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        match self.poll(None) {
            Poll::Ready(Ok(outcome)) => Some(outcome),
            Poll::Ready(Err(_)) | Poll::Pending => None,
        }
    }

    /// Resolves when the message is over, or will never be. Any number of tasks may wait.
    ///
    /// # Cancel safety
    /// Safe: dropping the future loses nothing.
    ///
    /// # Errors
    /// [`Error::Ended`]: the client ended before.
    pub async fn confirmed(&self) -> Result<Outcome, Error> {
        let mut wait = DeliveryWait { delivery: self, ticket: 0 };
        std::future::poll_fn(|cx| self.poll(Some((&mut wait.ticket, cx.waker())))).await
    }

    pub(crate) fn poll(&self, wait: Option<(&mut Ticket, &Waker)>) -> Poll<Result<Outcome, Error>> {
        let Some((host, id)) = &self.open else { return Poll::Ready(Ok(Outcome::Delivered)) };
        let mut state = host.state();
        let is_wait = wait.is_some();
        match (state.deliveries.poll(*id, self.number, wait), &state.ended) {
            (Poll::Ready(outcome), _) => Poll::Ready(Ok(outcome)),
            (Poll::Pending, Some(reason)) => Poll::Ready(Err(Error::Ended(reason.clone()))),
            (Poll::Pending, None) => {
                let driver = if is_wait { host.if_starving(&mut state) } else { None };
                drop(state);
                wake(driver);
                Poll::Pending
            }
        }
    }
}

/// A wait for a delivery, which ends when it is dropped.
pub(crate) struct DeliveryWait<'a> {
    pub delivery: &'a Delivery,
    pub ticket: Ticket,
}

impl Drop for DeliveryWait<'_> {
    fn drop(&mut self) {
        if let (Some((host, _)), true) = (&self.delivery.open, self.ticket != 0) {
            host.state().deliveries.leave(self.delivery.number, self.ticket);
        }
    }
}

impl Pending {
    pub(crate) fn poll(&self, wait: Option<(&mut Ticket, &Waker)>) -> Poll<Result<Granted, Error>> {
        let mut state = self.host.state();
        let is_wait = wait.is_some();
        match (state.requests.poll(self.number, wait), &state.ended) {
            (Poll::Ready(granted), _) => Poll::Ready(Ok(granted)),
            (Poll::Pending, Some(reason)) => Poll::Ready(Err(Error::Ended(reason.clone()))),
            (Poll::Pending, None) => {
                let driver = if is_wait { self.host.if_starving(&mut state) } else { None };
                drop(state);
                wake(driver);
                Poll::Pending
            }
        }
    }

    /// Resolves with what the server granted for each filter: the quality of service, or `None` where it refused. Empty
    /// for an unsubscription. Any number of tasks may wait.
    ///
    /// # Cancel safety
    /// Safe: dropping the future loses nothing.
    ///
    /// # Errors
    /// [`Error::Ended`]: the client ended before.
    pub async fn answered(&self) -> Result<Vec<Option<QoS>>, Error> {
        let mut wait = AnswerWait { pending: self, ticket: 0 };
        std::future::poll_fn(|cx| self.poll(Some((&mut wait.ticket, cx.waker())))).await
    }
}

/// A wait for an answer, which ends when it is dropped.
pub(crate) struct AnswerWait<'a> {
    pub pending: &'a Pending,
    pub ticket: Ticket,
}

impl Drop for AnswerWait<'_> {
    fn drop(&mut self) {
        if self.ticket != 0 {
            self.pending.host.state().requests.leave(self.pending.number, &mut self.ticket);
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.host.state().requests.drop_token(self.number);
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = self.open.as_ref().map(|(_, id)| id);
        f.debug_struct("Delivery").field("number", &self.number).field("id", &id).finish_non_exhaustive()
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").field("filters", &self.filters).finish_non_exhaustive()
    }
}

/// The identifier at QoS 1 and 2, and the number.
type Accepted = (Option<PacketId>, u64);

/// Checks and takes a subscription. Gives its identifier, and the filters.
fn subscribe(session: &mut OwnedSession, filters: &[(&str, QoS)]) -> Result<(PacketId, Vec<String>), Error> {
    let checked: Result<Vec<_>, _> = filters.iter().map(|(text, qos)| Filter::new(text, *qos)).collect();
    let checked = checked.map_err(|_| SubscribeError::InvalidFilter)?;
    let id = asking(session, |session| session.subscribe(&checked))?;
    Ok((id, filters.iter().map(|(text, _)| (*text).to_owned()).collect()))
}

/// Asks for subscriptions or their end, with as much memory for filters as it takes and there may be.
fn asking(
    session: &mut OwnedSession,
    request: impl Fn(&mut dunlin_core::Session<'_>) -> Result<PacketId, SubscribeError>,
) -> Result<PacketId, SubscribeError> {
    loop {
        match session.on(&request) {
            Err(SubscribeError::Full) if session.make_room_for_filters() => {}
            result => return result,
        }
    }
}

/// The same message with another payload.
pub(crate) fn with_payload<'a>(head: &Publish<'a>, payload: &'a Payload) -> Publish<'a> {
    let publish = Publish::new(head.topic(), payload).with_qos(head.qos());
    if head.is_retain() { publish.retain() } else { publish }
}

/// Wakes whoever sleeps. Never to be called with a lock held.
fn wake(wakers: impl IntoIterator<Item = Waker>) {
    for waker in wakers {
        waker.wake();
    }
}

/// Should a driver panic or be dropped, nobody is left waiting for it.
pub(crate) struct EndAnyway(pub Arc<Host>);

impl Drop for EndAnyway {
    fn drop(&mut self) {
        self.0.end(Reason::Closed);
    }
}
