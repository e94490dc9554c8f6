//! A client for programs with threads. Its socket is served by a thread of its own, so that keep alive, reconnection
//! and delivery go on whatever the application does.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use dunlin_core::{Publish, PublishError, QoS, Replace};
use mio::{Events, Token};

use super::socket::{Kind, Polled, Readiness};
use super::wait::wait;
use crate::host::pump::{Next, Pump};
use crate::host::{
    AnswerWait, Builder, Delivery, DeliveryWait, EndAnyway, Error, Event, Granted, Host, Message, Outcome, Payload,
    Pending, Reason, Stats, Ticket, with_payload,
};
use crate::limit::{ends_at, millis};
use crate::transport::connection::{Connection, Step};
use crate::transport::target::Target;
use crate::transport::tcp;

/// A client that connects, and connects again, by itself.
///
/// Handles are cheap to clone and can be used from any number of threads. Messages at QoS 1 and 2 are kept, also without
/// a connection, until the server has taken them; what was subscribed to is subscribed to again when the server has
/// lost the session.
///
/// ```no_run
/// use dunlin::blocking::Client;
/// use dunlin::{Publish, QoS};
///
/// let client = Client::connect("mqtt://localhost:1883", "ten-lines")?;
/// client.subscribe("greet/+", QoS::AtLeastOnce)?;
/// client.publish(&Publish::new("greet/world", b"hello").at_least_once())?;
/// let message = client.next()?;
/// println!("{}: {}", message.topic(), String::from_utf8_lossy(message.payload()));
/// # Ok::<(), dunlin::blocking::Error>(())
/// ```
///
/// # Waiting
/// The thread of the socket never waits for the application, and no call of the application waits without an end but
/// [`next`](Self::next) and [`next_event`](Self::next_event): publishing from the loop that receives is safe, also with
/// all queues full.
///
/// # The end
/// [`close`](Self::close), or dropping the last handle, says goodbye to the server. The client ends by itself when the
/// server refuses it in a way that another attempt cannot heal; all calls then say why.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

/// Gone with the last handle.
struct Shared {
    host: Arc<Host>,
}

impl Client {
    /// Connects to the server at `url`, with a clean session and otherwise the defaults of [`Builder`].
    ///
    /// # Errors
    /// What is wrong with the URL, or why there is no connection. After the first connection the client reconnects by
    /// itself.
    pub fn connect(url: &str, client_id: &str) -> Result<Self, Error> {
        Self::builder(url, client_id).connect()
    }

    /// All options of a client. [`Builder::connect`] or [`Builder::start`] makes it.
    #[must_use]
    pub fn builder(url: &str, client_id: &str) -> Builder {
        Builder::new(url, client_id)
    }

    fn start(builder: Builder, must_connect: bool) -> Result<Self, Error> {
        let (target, settings) = builder.finish()?;
        let name = format!("dunlin {}", settings.name()); // no NUL in there: MQTT has none, and that was checked
        let host = Host::start(settings, Instant::now)?;
        let system = |error| Error::System(Arc::new(error));
        let poll = mio::Poll::new().map_err(system)?;
        let waker = mio::Waker::new(poll.registry(), WAKE).map_err(system)?;
        let waker = Waker::from(Arc::new(WakePoll(waker)));
        let runner = Runner { pump: Pump::new(host.clone(), must_connect), target, poll, waker };
        thread::Builder::new().name(name).spawn(move || runner.run()).map_err(system)?;
        Ok(Self { shared: Arc::new(Shared { host }) })
    }

    // Publishing

    /// Accepts a message for delivery, and waits for room if there is none, up to the
    /// [`timeout`](Builder::timeout) of the client. Room appears when messages on their way are acknowledged.
    ///
    /// Does not wait for the server: [`Delivery::wait`] does.
    ///
    /// # Errors
    /// [`PublishError::Offline`] for QoS 0 without a connection, at once; [`PublishError::Full`] when no room appeared
    /// in time; others as they say. The message was not accepted then. But with a store, [`Error::Ended`] may mean that
    /// the client ended while the message was on its way to the disk: if it got there, the next client delivers it.
    pub fn publish(&self, message: &Publish<'_>) -> Result<Delivery, Error> {
        self.publish_with(message, None, Replace::Nothing)
    }

    /// As [`publish`](Self::publish), with a payload that is sent from where it is, without a copy if it has more than
    /// 4 KiB. The one of `head` is not looked at.
    ///
    /// ```no_run
    /// # fn send(client: &dunlin::blocking::Client, image: Vec<u8>) -> Result<(), dunlin::blocking::Error> {
    /// let _ = client.publish_shared(&dunlin::Publish::new("camera/7", b"").at_least_once(), &image.into())?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    pub fn publish_shared(&self, head: &Publish<'_>, payload: &Payload) -> Result<Delivery, Error> {
        self.publish_with(&with_payload(head, payload), Some(payload), Replace::Nothing)
    }

    /// As [`publish`](Self::publish), without waiting for room.
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    pub fn try_publish(&self, message: &Publish<'_>) -> Result<Delivery, Error> {
        match self.host().poll_publish(message, None, Replace::Nothing, &mut 0, None) {
            Poll::Ready(result) => result,
            Poll::Pending => Err(PublishError::Full.into()),
        }
    }

    /// As [`publish`](Self::publish); may push out messages at QoS 1 and 2 that were published with the same policy
    /// and have not been sent yet. Those end as [`Outcome::Replaced`]. With [`Replace::SameTopic`], topic and payload
    /// have at most 1 MiB.
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    pub fn publish_replacing(&self, message: &Publish<'_>, policy: Replace) -> Result<Delivery, Error> {
        self.publish_with(message, None, policy)
    }

    /// Publishes a request, and waits for its answer: the next message on `reply_topic` that is not a retained one, up to
    /// the [`timeout`](Builder::timeout) of the client.
    ///
    /// MQTT 3.1.1 correlates nothing, so give each request a topic of its own for the answer, such as
    /// `pump/3/answer/17`; of several who wait on one topic, the first to ask gets the first answer. If no subscription
    /// of this client covers the topic, it subscribes, with the quality of service of the request, and unsubscribes
    /// afterwards. The answer is not among the messages of [`next`](Self::next). With manual acknowledgement it is to
    /// be acknowledged as any other message.
    ///
    /// # Errors
    /// As [`subscribe`](Self::subscribe) and [`publish`](Self::publish).
    pub fn request(&self, request: &Publish<'_>, reply_topic: &str) -> Result<Message, Error> {
        let until = ends_at(self.host().settings.timeout);
        let mut answer = pin!(self.host().request(request, reply_topic));
        let answer = wait(Some(until), |waker| answer.as_mut().poll(&mut Context::from_waker(waker)));
        answer.unwrap_or(Err(Error::Timeout))
    }

    // Subscribing

    /// Subscribes, and waits for the server's answer: the quality of service that it grants.
    ///
    /// # Errors
    /// [`Error::SubscriptionRefused`]; [`Error::Timeout`] when no answer came in the [`timeout`](Builder::timeout) of
    /// the client, for want of a connection perhaps. Then the request stays, and is answered later.
    pub fn subscribe(&self, filter: &str, qos: QoS) -> Result<QoS, Error> {
        let granted = self.request_subscribe(&[(filter, qos)])?.wait(self.host().settings.timeout)?;
        granted.first().copied().flatten().ok_or_else(|| Error::SubscriptionRefused(filter.to_owned()))
    }

    /// Subscribes to all of these filters with one packet, and does not wait.
    ///
    /// # Errors
    /// What is wrong with the filters, or that there is no room for them.
    pub fn request_subscribe(&self, filters: &[(&str, QoS)]) -> Result<Pending, Error> {
        self.host().subscribe(filters)
    }

    /// Unsubscribes, and waits for the server's answer. Messages that are under way may still arrive.
    ///
    /// # Errors
    /// As [`subscribe`](Self::subscribe).
    pub fn unsubscribe(&self, filter: &str) -> Result<(), Error> {
        self.request_unsubscribe(&[filter])?.wait(self.host().settings.timeout).map(|_| ())
    }

    /// Unsubscribes from all of these filters with one packet, and does not wait.
    ///
    /// # Errors
    /// As [`request_subscribe`](Self::request_subscribe).
    pub fn request_unsubscribe(&self, filters: &[&str]) -> Result<Pending, Error> {
        self.host().unsubscribe(filters)
    }

    // Receiving

    /// Waits for the next message. Of several threads that wait, one gets it.
    ///
    /// A message at QoS 1 or 2 is acknowledged when it has reached the client's queue, unless acknowledgement is
    /// [manual](Builder::manual_acks).
    ///
    /// # Errors
    /// [`Error::Ended`]: the client has ended, and all messages have been taken.
    #[inline]
    pub fn next(&self) -> Result<Message, Error> {
        match self.host().next_in_batch() {
            Some(message) => Ok(message),
            None => self.next_until(None).unwrap_or(Err(Error::Timeout)),
        }
    }

    /// As [`next`](Self::next), for so long: `None` when nothing came. With [`Duration::ZERO`] it does not wait.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub fn next_timeout(&self, time: Duration) -> Result<Option<Message>, Error> {
        self.next_until(Some(ends_at(time))).transpose()
    }

    /// All messages, until the client ends.
    pub fn messages(&self) -> impl Iterator<Item = Message> + '_ {
        std::iter::from_fn(|| self.next().ok())
    }

    /// With [manual](Builder::manual_acks) acknowledgement: the message is handled. Acknowledgements leave in the order
    /// in which their messages came, so one that is missing holds up those behind it.
    ///
    /// `false` when there is nothing to acknowledge (any more): the server sends such a message again.
    #[must_use = "a message that could not be acknowledged comes again"]
    pub fn acknowledge(&self, message: &Message) -> bool {
        message.receipt().is_some_and(|receipt| self.host().acknowledge(receipt))
    }

    // The connection

    /// Waits for what happens besides messages. Up to 1,024 events are kept for whoever asks.
    ///
    /// # Errors
    /// [`Error::Ended`]: the client has ended, and all events have been taken.
    pub fn next_event(&self) -> Result<Event, Error> {
        self.next_event_until(None).unwrap_or(Err(Error::Timeout))
    }

    /// As [`next_event`](Self::next_event), for so long: `None` when nothing happened.
    ///
    /// # Errors
    /// As [`next_event`](Self::next_event).
    pub fn next_event_timeout(&self, time: Duration) -> Result<Option<Event>, Error> {
        self.next_event_until(Some(ends_at(time))).transpose()
    }

    /// Whether there is a connection now.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.host().is_connected()
    }

    /// Waits for a connection.
    ///
    /// # Errors
    /// [`Error::Timeout`], or [`Error::Ended`]: there will be none.
    pub fn wait_connected(&self, time: Duration) -> Result<(), Error> {
        let mut ticket = Ticket::default();
        let until = Some(ends_at(time));
        let result = wait(until, |waker| self.host().poll_connected(&mut ticket, Some(waker)));
        result.unwrap_or_else(|| {
            self.host().leave_connected(&mut ticket);
            Err(Error::Timeout)
        })
    }

    /// Figures of this client.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.host().stats()
    }

    /// Ends the client: accepts nothing new, waits for what is on its way, at most for `limit`, then says goodbye to
    /// the server. Received messages can still be taken.
    ///
    /// # Errors
    /// [`Error::Unfinished`]: the limit was reached before everything had arrived. [`Error::Ended`]: the client had
    /// ended for another reason.
    pub fn close(&self, limit: Duration) -> Result<(), Error> {
        self.host().close(limit);
        let mut ticket = Ticket::default();
        // The thread may be in a name resolver, which takes its time.
        let until = Some(ends_at(limit.saturating_add(GOODBYE)));
        let result = wait(until, |waker| self.host().poll_ended(&mut ticket, Some(waker)));
        result.unwrap_or(Err(Error::Timeout))
    }

    // Helpers

    fn host(&self) -> &Arc<Host> {
        &self.shared.host
    }

    #[inline]
    fn publish_with(
        &self,
        message: &Publish<'_>,
        shared: Option<&Payload>,
        policy: Replace,
    ) -> Result<Delivery, Error> {
        let mut ticket = Ticket::default();
        let result = match self.host().poll_publish(message, shared, policy, &mut ticket, None) {
            Poll::Ready(result) => result,
            Poll::Pending => self.publish_when_room(message, shared, policy),
        };
        #[cfg(feature = "store")]
        if let Ok(delivery) = &result {
            match self.host().poll_stored(delivery, None) {
                Poll::Ready(stored) => stored?,
                // The disk may take its time; that the message was accepted cannot be taken back.
                Poll::Pending => {
                    wait(None, |waker| self.host().poll_stored(delivery, Some(waker))).unwrap_or(Ok(()))?;
                }
            }
        }
        result
    }

    /// Waits for room, and publishes.
    #[cold]
    fn publish_when_room(
        &self,
        message: &Publish<'_>,
        shared: Option<&Payload>,
        policy: Replace,
    ) -> Result<Delivery, Error> {
        let mut ticket = Ticket::default();
        let mut publish = |waker: Option<&Waker>| self.host().poll_publish(message, shared, policy, &mut ticket, waker);
        let until = ends_at(self.host().settings.timeout);
        match wait(Some(until), |waker| publish(Some(waker))) {
            Some(result) => result,
            // Room is announced in batches: at the end of its time a publisher takes what is there.
            None => match publish(None) {
                Poll::Ready(result) => result,
                Poll::Pending => Err(PublishError::Full.into()),
            },
        }
    }

    fn next_until(&self, until: Option<Instant>) -> Option<Result<Message, Error>> {
        let mut ticket = Ticket::default();
        if let Poll::Ready(message) = self.host().poll_message(&mut ticket, None) {
            return Some(message);
        }
        let message = wait(until, |waker| self.host().poll_message(&mut ticket, Some(waker)));
        if message.is_none() {
            self.host().leave_messages(&mut ticket);
        }
        message
    }

    fn next_event_until(&self, until: Option<Instant>) -> Option<Result<Event, Error>> {
        let mut ticket = Ticket::default();
        let event = wait(until, |waker| self.host().poll_event(&mut ticket, Some(waker)));
        if event.is_none() {
            self.host().leave_events(&mut ticket);
        }
        event
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("options", &self.host().settings).finish_non_exhaustive()
    }
}

/// The last handle is gone: what is on its way has a moment left, then the server is told goodbye.
impl Drop for Shared {
    fn drop(&mut self) {
        let linger = if self.host.is_connected() { self.host.settings.linger } else { Duration::ZERO };
        self.host.close(linger);
        let mut ticket = Ticket::default();
        wait(Some(ends_at(linger.saturating_add(GOODBYE))), |waker| self.host.poll_ended(&mut ticket, Some(waker)));
    }
}

impl Builder {
    /// Starts a blocking client and waits for its first connection, for one attempt.
    ///
    /// # Errors
    /// What is wrong with the options, or why there is no connection; then nothing goes on in the background.
    pub fn connect(self) -> Result<Client, Error> {
        let client = Client::start(self, true)?;
        let mut ticket = Ticket::default();
        let connected = wait(None, |waker| client.host().poll_connected(&mut ticket, Some(waker)));
        connected.unwrap_or(Ok(())).map(|()| client)
    }

    /// Starts a blocking client and does not wait: it connects in the background, as often as it takes.
    ///
    /// # Errors
    /// What is wrong with the options.
    pub fn start(self) -> Result<Client, Error> {
        Client::start(self, false)
    }
}

impl Delivery {
    /// Waits until the message is over. Any number of threads may wait.
    ///
    /// # Errors
    /// [`Error::Timeout`]: not in this time; the message is still on its way. [`Error::Ended`]: the client ended before.
    pub fn wait(&self, time: Duration) -> Result<Outcome, Error> {
        let mut place = DeliveryWait { delivery: self, ticket: 0 };
        let outcome = wait(Some(ends_at(time)), |waker| self.poll(Some((&mut place.ticket, waker))));
        outcome.unwrap_or(Err(Error::Timeout))
    }
}

impl Pending {
    /// Waits for the server's answer: for each filter the quality of service that it grants, `None` where it refused;
    /// empty for an unsubscription. Any number of threads may wait.
    ///
    /// # Errors
    /// [`Error::Timeout`]: not in this time; the request goes on. [`Error::Ended`]: the client ended before.
    pub fn wait(&self, time: Duration) -> Result<Granted, Error> {
        let mut place = AnswerWait { pending: self, ticket: 0 };
        let granted = wait(Some(ends_at(time)), |waker| self.poll(Some((&mut place.ticket, waker))));
        granted.unwrap_or(Err(Error::Timeout))
    }
}

/// The thread of the socket.
struct Runner {
    pump: Pump,
    target: Arc<Target>,
    poll: mio::Poll,
    waker: Waker,
}

const WAKE: Token = Token(0);
const STREAM: Token = Token(1);

/// How long the thread may take to end after the limit of a close.
const GOODBYE: Duration = Duration::from_secs(1);

impl Runner {
    fn run(mut self) {
        let _end = EndAnyway(self.pump.host().clone());
        loop {
            let reason = self.serve().unwrap_or_else(|reason| reason);
            match self.pump.lost(reason) {
                Next::End => return,
                Next::Retry(delay) if self.pause(delay) => {}
                Next::Retry(_) => {
                    self.pump.host().end(Reason::Closed);
                    return;
                }
            }
        }
    }

    /// Makes one connection, and serves it to its end.
    fn serve(&mut self) -> Result<Reason, Reason> {
        let timeout = self.pump.host().settings.connect_timeout;
        let until = self.pump.host().now().after_millis(millis(timeout));
        let plan = self.target.plan()?;
        let (socket, readiness) = self.connect(timeout)?;
        let mut connection = Connection::new(socket, plan, until);
        let mut events = Events::with_capacity(8);
        loop {
            let deadline = match connection.go_on(&mut self.pump, &self.waker) {
                Step::Sleep(deadline) => deadline,
                Step::Over(reason) => return Ok(reason),
            };
            let now = self.pump.host().now();
            let left = deadline.map(|deadline| Duration::from_millis(deadline.millis_since(now)));
            match self.poll.poll(&mut events, left) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
                _ => {}
            }
            self.pump.unpark();
            events.iter().filter(|event| event.token() == STREAM).for_each(|event| readiness.note(event));
        }
    }

    /// Connects a socket to the first address that answers.
    fn connect(&mut self, timeout: Duration) -> Result<(Polled, Arc<Readiness>), Reason> {
        let target = self.target.clone();
        #[cfg(unix)]
        if let Some(path) = target.socket_path() {
            let stream = Kind::Unix(mio::net::UnixStream::connect(path)?);
            return Ok(Polled::register(stream, self.poll.registry(), STREAM)?);
        }
        let (host, port) = target.first_hop();
        tcp::connect_any(&tcp::resolve(host, port)?, timeout, |address, share| self.connect_to(address, share))
    }

    /// Connects a socket to this address. A close that leaves nothing to wait for ends it.
    fn connect_to(&mut self, address: SocketAddr, time: Duration) -> Result<(Polled, Arc<Readiness>), Reason> {
        let stream = mio::net::TcpStream::connect(address)?;
        let (socket, readiness) = Polled::register(Kind::Tcp(stream), self.poll.registry(), STREAM)?;
        let until = ends_at(time);
        let mut events = Events::with_capacity(8);
        loop {
            if !self.pump.pause(&self.waker) {
                return Err(Reason::Closed);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::Error::from(ErrorKind::TimedOut).into());
            }
            let now = self.pump.host().now();
            let closing = self.pump.closing_at().map(|at| Duration::from_millis(at.millis_since(now)));
            match self.poll.poll(&mut events, Some(closing.map_or(left, |closing| closing.min(left)))) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
                _ => {}
            }
            if events.iter().any(|event| event.token() == STREAM) && socket.is_connected()? {
                return Ok((socket, readiness));
            }
        }
    }

    /// Sleeps until the next attempt. `false`: the client is closed meanwhile.
    fn pause(&mut self, delay: Duration) -> bool {
        let until = ends_at(delay);
        let mut events = Events::with_capacity(4);
        loop {
            if !self.pump.pause(&self.waker) {
                return false;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || self.pump.must_hurry() {
                return true;
            }
            if self.poll.poll(&mut events, Some(left)).is_err_and(|error| error.kind() != ErrorKind::Interrupted) {
                thread::sleep(left.min(Duration::from_millis(100)));
            }
        }
    }
}

struct WakePoll(mio::Waker);

impl Wake for WakePoll {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // An error means that the poll is gone, and with it the thread.
        let _ = self.0.wake();
    }
}
