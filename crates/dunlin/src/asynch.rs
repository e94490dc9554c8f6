//! A session shared by tasks and interrupts, over `embedded-io-async`, for any executor and without a heap.
//!
//! [`Shared`] is the session behind a critical section; each call into it is short. A connection has two halves:
//! [`Events`] reads and [`Pump`] writes, in two tasks or joined in one. No future that does I/O on a live connection is
//! ever dropped, so the transport need not survive that; and a half that waits for the network holds nothing that
//! the other one needs, so two full windows cannot hold each other.
//!
//! ```no_run
//! # use dunlin::asynch::{Clock, Shared};
//! # use dunlin::{Event, Inbox, Publish};
//! # async fn run<R, W, C>(mqtt: &Shared<'_>, inbox: &mut Inbox<'_>, reader: R, writer: W, clock: C)
//! # where R: embedded_io_async::Read, W: embedded_io_async::Write, C: Clock + Copy {
//! let (mut events, pump) = mqtt.open(inbox, reader, writer, clock);
//! let listen = async {
//!     while let Ok(event) = events.next(inbox).await {
//!         if let Event::Connected { .. } = event {
//!             let _ = mqtt.try_publish(&Publish::new("room/4/status", b"online").retain());
//!         }
//!     }
//! };
//! // Either end means that this connection is over; the session keeps what is unacknowledged.
//! # async fn select<A, B>(_: A, _: B) {}
//! select(listen, pump.run()).await;
//! # }
//! ```
//!
//! Durable sessions need a store between the two halves and are not driven here.

use core::cell::RefCell;
use core::future::{Future, poll_fn};
use core::pin::pin;
use core::task::{Poll, Waker};

use critical_section::Mutex;
use embedded_io_async::{Read, Write};

pub use crate::blocking::LinkError;
use crate::{Event, Fault, Inbox, Instant, PacketId, Publish, PublishError, Session, Transmit};

/// How the application tells the time and waits for it: a few lines around its executor's timer.
pub trait Clock {
    /// Milliseconds since any fixed moment, by a clock that does not run backwards.
    fn now(&self) -> Instant;

    /// Waits until `deadline`. May be dropped at any time.
    fn sleep_until(&self, deadline: Instant) -> impl Future<Output = ()>;
}

/// Tasks that can wait for room at a time; a further one takes the place of another, which then asks again.
const WAITERS: usize = 4;

/// Bytes that [`Pump::run`] writes at a time.
const OUT: usize = 128;

/// A session that tasks and interrupts share. It outlives its connections.
pub struct Shared<'s> {
    inner: Mutex<RefCell<Inner<'s>>>,
}

struct Inner<'s> {
    session: Session<'s>,
    /// There may be something to send.
    is_due: bool,
    pump: Option<Waker>,
    /// Something has left since `Events` looked.
    has_sent: bool,
    events: Option<Waker>,
    /// `Events` waits for bytes: everything that came has been looked at.
    is_reading: bool,
    /// One half has found the stream gone.
    is_over: bool,
    room: [Option<Waker>; WAITERS],
}

impl<'s> Shared<'s> {
    /// Shares this session.
    pub const fn new(session: Session<'s>) -> Self {
        let inner = Inner {
            session,
            is_due: false,
            pump: None,
            has_sent: false,
            events: None,
            is_reading: false,
            is_over: false,
            room: [const { None }; WAITERS],
        };
        Self { inner: Mutex::new(RefCell::new(inner)) }
    }

    /// A byte stream to the server is up. Ends what was left of an earlier connection; its halves must have been dropped.
    ///
    /// When one half ends with an error the session knows that the connection is over, and the other half ends as well, at
    /// the latest when it has done what it waits for. Who drops both before says so: `shared.with(Session::lost)`.
    pub fn open<R: Read, W: Write, C: Clock + Copy>(
        &self,
        inbox: &mut Inbox<'_>,
        reader: R,
        writer: W,
        clock: C,
    ) -> (Events<'_, 's, R, C>, Pump<'_, 's, W, C>) {
        self.lock(|inner| {
            inner.session.open(clock.now(), inbox);
            (inner.is_due, inner.has_sent, inner.is_reading, inner.is_over) = (true, false, false, false);
        });
        (Events { shared: self, reader, clock }, Pump { shared: self, writer, clock })
    }

    /// Accepts a message if there is room now: [`Session::publish`]. May be called in an interrupt.
    ///
    /// # Errors
    /// Any [`PublishError`] leaves the session as it was.
    pub fn try_publish(&self, publish: &Publish<'_>) -> Result<Option<PacketId>, PublishError> {
        self.with(|session| session.publish(publish))
    }

    /// Accepts a message, and waits until there is room for it: not for the network. Four tasks can wait at a time; of more,
    /// some ask again and again, which keeps the executor awake.
    ///
    /// # Cancel safety
    /// Safe: dropped before it is ready, it has done nothing.
    ///
    /// # Errors
    /// Any [`PublishError`] but [`Full`](PublishError::Full).
    pub async fn publish(&self, publish: &Publish<'_>) -> Result<Option<PacketId>, PublishError> {
        poll_fn(|cx| {
            self.lock(|inner| match inner.session.publish(publish) {
                Err(PublishError::Full) => {
                    inner.wait_for_room(cx.waker());
                    Poll::Pending
                }
                done => {
                    inner.wake_pump();
                    Poll::Ready(done)
                }
            })
        })
        .await
    }

    /// Says goodbye: what is owed leaves, then DISCONNECT, then [`Pump::run`] returns. As with [`Session::close`], messages
    /// that have not left stay behind.
    pub fn close(&self) {
        self.with(Session::close);
    }

    /// Calls into the session, for whatever has no method here. Interrupts are off meanwhile: be short.
    pub fn with<T>(&self, call: impl FnOnce(&mut Session<'s>) -> T) -> T {
        self.lock(|inner| {
            let result = call(&mut inner.session);
            inner.wake_pump();
            result
        })
    }

    fn lock<T>(&self, call: impl FnOnce(&mut Inner<'s>) -> T) -> T {
        critical_section::with(|cs| call(&mut self.inner.borrow_ref_mut(cs)))
    }
}

impl Inner<'_> {
    fn wake_pump(&mut self) {
        self.is_due = true;
        wake(&mut self.pump);
    }

    /// Something has left: there may be room, and `poll` may go on.
    fn has_progressed(&mut self) {
        self.has_sent = true;
        wake(&mut self.events);
        self.room.iter_mut().for_each(wake);
    }

    /// The stream is gone, and nothing at QoS 0 waits for the next one. An end that the session knows of stays as it is.
    fn stream_is_gone(&mut self) {
        if self.session.fault().is_some() || self.session.has_said_goodbye() {
            return;
        }
        self.session.lost();
        self.is_over = true;
        self.wake_pump();
        self.has_progressed();
    }

    fn wait_for_room(&mut self, waker: &Waker) {
        let known = self.room.iter().position(|place| place.as_ref().is_some_and(|known| known.will_wake(waker)));
        let free = self.room.iter().position(Option::is_none);
        if let Some(place) = self.room.get_mut(known.or(free).unwrap_or(0)) {
            match place {
                Some(known) if known.will_wake(waker) => {}
                _ => {
                    wake(place); // who was here asks again and finds another place
                    *place = Some(waker.clone());
                }
            }
        }
    }
}

/// The reading half of a connection.
pub struct Events<'h, 's, R, C> {
    shared: &'h Shared<'s>,
    reader: R,
    clock: C,
}

impl<R: Read, C: Clock> Events<'_, '_, R, C> {
    /// Waits for the next event. A message counts as handled when this is called again.
    ///
    /// `inbox` is the one that the connection was opened with.
    ///
    /// # Cancel safety
    /// As safe as dropping the stream's own `read`, which is all that it waits for besides room; of the session nothing
    /// is lost.
    ///
    /// # Errors
    /// The connection is over.
    pub async fn next<'b>(&mut self, inbox: &'b mut Inbox<'_>) -> Result<Event<'b>, LinkError<R::Error>> {
        loop {
            let now = self.clock.now();
            let (ready, is_stalled) = self.shared.lock(|inner| {
                if inner.is_over {
                    return Err(LinkError::ServerClosed);
                }
                inner.has_sent = false;
                let ready = inner.session.poll_ready(now, inbox);
                // An acknowledgement may be owed, and a message delivered has made room.
                inner.wake_pump();
                inner.room.iter_mut().for_each(wake);
                Ok((ready.map_err(LinkError::Fault)?, inner.session.is_stalled()))
            })?;
            match ready {
                Some(ready) => return Ok(inbox.event(ready)),
                // What came cannot be taken before something has left. Reading more would not help.
                None if is_stalled => self.progress().await,
                None => self.read(inbox).await?,
            }
        }
    }

    async fn read(&mut self, inbox: &mut Inbox<'_>) -> Result<(), LinkError<R::Error>> {
        if inbox.space().is_empty() {
            self.progress().await;
            return Ok(());
        }
        let is_amid_packet = inbox.is_amid_packet();
        let space = inbox.space();
        let reading = Reading::begin(self.shared);
        let count = self.reader.read(space).await;
        drop(reading);
        if matches!(count, Ok(0) | Err(_)) {
            self.shared.lock(Inner::stream_is_gone);
        }
        match count.map_err(LinkError::Stream)? {
            // The server hangs up at a goodbye, before the other half has seen the last byte of it off perhaps.
            0 if self.shared.lock(|inner| inner.session.has_said_goodbye()) => Err(LinkError::Closed),
            0 => Err(LinkError::ServerClosed),
            count => {
                inbox.filled(count);
                if is_amid_packet {
                    let now = self.clock.now();
                    self.shared.lock(|inner| inner.session.hold(now));
                }
                Ok(())
            }
        }
    }

    /// Waits until something has left since the last look.
    async fn progress(&self) {
        poll_fn(|cx| {
            self.shared.lock(|inner| {
                if inner.has_sent {
                    return Poll::Ready(());
                }
                inner.events = Some(cx.waker().clone());
                Poll::Pending
            })
        })
        .await;
    }
}

/// `Events` waits for bytes, until this is dropped: also with the future that waits, after which nobody looks at what comes.
struct Reading<'h, 's>(&'h Shared<'s>);

impl<'h, 's> Reading<'h, 's> {
    fn begin(shared: &'h Shared<'s>) -> Self {
        shared.lock(|inner| inner.is_reading = true);
        Self(shared)
    }
}

impl Drop for Reading<'_, '_> {
    fn drop(&mut self) {
        self.0.lock(|inner| inner.is_reading = false);
    }
}

/// The writing half of a connection: everything that leaves, and every deadline.
pub struct Pump<'h, 's, W, C> {
    shared: &'h Shared<'s>,
    writer: W,
    clock: C,
}

impl<W: Write, C: Clock> Pump<'_, '_, W, C> {
    /// Writes what is to be sent until the connection is over.
    ///
    /// # Cancel safety
    /// Dropped, it may leave part of a packet behind, so the connection has to end with it. The session goes on with the
    /// next one, and sends again what is unacknowledged.
    ///
    /// # Errors
    /// Always ends with one: [`LinkError::Closed`] after [`Shared::close`], which is not a failure.
    pub async fn run(self) -> LinkError<W::Error> {
        self.run_with(&mut [0; OUT], |_, _, _| 0).await
    }

    /// As [`run`](Self::run), through a buffer of the caller's, and with external payloads: `supply` is given the key,
    /// the offset and room, fills it and says how much it has written.
    ///
    /// # Cancel safety
    /// As [`run`](Self::run).
    pub async fn run_with(
        mut self,
        out: &mut [u8],
        mut supply: impl FnMut(u32, usize, &mut [u8]) -> usize,
    ) -> LinkError<W::Error> {
        loop {
            match self.turn(out, &mut supply).await {
                Ok(()) => {}
                Err(error) => {
                    self.shared.lock(Inner::stream_is_gone);
                    return error;
                }
            }
        }
    }

    /// Sends until nothing is left, then waits for the next reason to send.
    async fn turn(
        &mut self,
        out: &mut [u8],
        supply: &mut impl FnMut(u32, usize, &mut [u8]) -> usize,
    ) -> Result<(), LinkError<W::Error>> {
        let mut has_written = false;
        loop {
            let now = self.clock.now();
            let transmit = self.shared.lock(|inner| {
                inner.is_due = false;
                inner.session.transmit(now, out)
            });
            let count = match transmit {
                Transmit::Bytes(count) => count,
                #[cfg(feature = "large")]
                Transmit::Payload { key, offset, len } => {
                    let room = len.min(out.len());
                    let count = supply(key, offset, out.get_mut(..room).unwrap_or_default()).min(room);
                    if count == 0 && len > 0 {
                        return Err(LinkError::NoPayload { key });
                    }
                    self.shared.lock(|inner| inner.session.supplied(count));
                    count
                }
                Transmit::Close => {
                    self.writer.flush().await.map_err(LinkError::Stream)?;
                    let fault = self.shared.lock(|inner| inner.session.fault());
                    return Err(fault.map_or(LinkError::Closed, LinkError::Fault));
                }
                _ => break,
            };
            #[cfg(not(feature = "large"))]
            let _ = &supply;
            self.writer.write_all(out.get(..count).unwrap_or_default()).await.map_err(LinkError::Stream)?;
            self.shared.lock(Inner::has_progressed);
            has_written = true;
        }
        if has_written {
            self.writer.flush().await.map_err(LinkError::Stream)?;
        }
        self.wait().await
    }

    /// Until there may be something to send, or a deadline has passed.
    async fn wait(&self) -> Result<(), LinkError<W::Error>> {
        let (deadline, is_stalled) = self.shared.lock(|inner| {
            if inner.is_over {
                return Err(LinkError::ServerClosed);
            }
            Ok((inner.session.deadline(), inner.session.is_stalled()))
        })?;
        // A stall that is over has a deadline of zero, and is for `Events`, which has been woken.
        let deadline = deadline.filter(|_| !is_stalled);
        let now = self.clock.now();
        if deadline.is_some_and(|deadline| deadline <= now) && !self.is_due() {
            // `transmit` has sent the ping that was due, so what is missing is an answer.
            return self.shared.lock(|inner| {
                if inner.is_reading {
                    let is_up = inner.session.is_connected();
                    return Err(LinkError::Fault(if is_up { Fault::Silent } else { Fault::ConnectTimeout }));
                }
                inner.session.hold(now); // it may have come: nobody has looked
                Ok(())
            });
        }
        let mut sleep = pin!(async {
            match deadline {
                Some(deadline) => self.clock.sleep_until(deadline).await,
                None => core::future::pending().await,
            }
        });
        poll_fn(|cx| {
            let is_due = self.shared.lock(|inner| {
                inner.pump = Some(cx.waker().clone());
                inner.is_due
            });
            match is_due {
                true => Poll::Ready(()),
                false => sleep.as_mut().poll(cx),
            }
        })
        .await;
        Ok(())
    }

    fn is_due(&self) -> bool {
        self.shared.lock(|inner| inner.is_due)
    }
}

fn wake(waiter: &mut Option<Waker>) {
    if let Some(waker) = waiter.take() {
        waker.wake();
    }
}
