//! A session on a stream, for devices and single-threaded programs.
//!
//! Nothing runs by itself here: whoever owns the link calls it. It holds the stream and the bytes that are being
//! written, never the session or the inbox, so a program can publish while it holds a message.

use core::fmt;

use dunlin_core::{Event, Fault, Inbox, Instant, Session, Transmit};
use embedded_io::{Read, ReadReady, Write, WriteReady};

/// One connection: a session on a byte stream. Needs no heap.
///
/// # Who calls, and how often
/// You do. Call [`poll`](Self::poll) until it says `None`, then sleep: until bytes arrive, until something of your own
/// happens, or until [`deadline`](Self::deadline), whichever comes first. Then poll again. Late is safe as far as the
/// protocol goes: the server hears from you later, and closes the connection after one and a half times the keep
/// alive. Early is harmless. After a request to the session (`publish`, `subscribe`, …) poll at once, since only `poll`
/// sends.
///
/// A program that has nothing else to do calls [`next`](Self::next), which polls and sleeps by itself.
///
/// # Blocking
/// `poll` reads only what is there. It writes with [`Write::write`], which by its contract may wait until the stream
/// takes a byte. With a stream that implements [`WriteReady`], [`poll_nonblocking`](Self::poll_nonblocking) never waits.
///
/// ```
/// use dunlin::blocking::{Link, LinkError};
/// use dunlin::{Event, Filter, Instant, Options, Publish, QoS, Session, Storage};
/// use embedded_io::{Read, ReadReady, Write};
///
/// const OPTIONS: Options = Options::new("pump-3").subscriptions(&[Filter::literal("pump/3/set", QoS::AtLeastOnce)]);
///
/// /// Serves one connection to its end; the session stays, and goes on with the next one.
/// fn serve<S: Read + ReadReady + Write>(session: &mut Session<'_>, rx: &mut [u8], stream: S, clock: fn() -> u64) {
///     let now = || Instant::from_millis(clock());
///     let mut inbox = dunlin::Inbox::new(rx);
///     let mut out = [0; 256];
///     let mut link = Link::open(stream, &mut out, session, &mut inbox, now());
///     loop {
///         match link.poll(now(), session, &mut inbox) {
///             Ok(Some(Event::Message(message))) => {
///                 // The message borrows the inbox: answering needs no copy.
///                 let _ = session.publish(&Publish::new("pump/3/state", message.payload));
///             }
///             Ok(Some(_)) => {}
///             Ok(None) => { /* sleep until bytes, a sample, or link.deadline(session) */ }
///             Err(_ended) => return,
///         }
///     }
/// }
/// # use core::convert::Infallible;
/// # struct Gone;
/// # impl embedded_io::ErrorType for Gone { type Error = Infallible; }
/// # impl Read for Gone { fn read(&mut self, _: &mut [u8]) -> Result<usize, Infallible> { Ok(0) } }
/// # impl ReadReady for Gone { fn read_ready(&mut self) -> Result<bool, Infallible> { Ok(true) } }
/// # impl Write for Gone {
/// #     fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> { Ok(bytes.len()) }
/// #     fn flush(&mut self) -> Result<(), Infallible> { Ok(()) }
/// # }
/// # let mut storage: Storage<256, 16, 2> = Storage::new();
/// # let (memory, _) = storage.split();
/// # serve(&mut Session::new(OPTIONS, memory), &mut [0; 256], Gone, || 0);
/// ```
#[derive(Debug)]
pub struct Link<'o, S> {
    stream: S,
    out: &'o mut [u8],
    /// `out[written..filled]` is to be written.
    written: usize,
    filled: usize,
    /// What was written waits in the stream perhaps.
    is_unflushed: bool,
    /// The last poll ended although there may be more to read.
    is_busy: bool,
}

/// A poll reads so many times without anything to tell; then it is the caller's turn again, whatever the server sends.
const READS: u8 = 32;

/// The connection is over. [`Session::lost`] has been called; what is unacknowledged goes out on the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkError<E> {
    /// The stream failed.
    Stream(E),
    /// The server closed the stream.
    ServerClosed,
    /// The session ended the connection. [`Fault::may_heal`] tells whether to try again.
    Fault(Fault),
    /// [`Session::close`] was called, and the goodbye has been written.
    Closed,
    /// A payload that was published with `publish_external` was not supplied: see [`Link::poll_supplying`].
    #[cfg(feature = "large")]
    NoPayload {
        /// The key of the payload.
        key: u32,
    },
}

/// What a step of the output came to.
enum Output {
    Idle,
    Sent,
    /// The stream takes nothing now.
    Full,
}

impl<'o, S: Read + Write> Link<'o, S> {
    /// A stream to the server is up. `out` holds what is being written; packets leave whole, and in batches, as far as
    /// it has room. 64 bytes do; the size of a TCP segment is best.
    pub fn open(stream: S, out: &'o mut [u8], session: &mut Session<'_>, inbox: &mut Inbox<'_>, now: Instant) -> Self {
        session.open(now, inbox);
        Self { stream, out, written: 0, filled: 0, is_unflushed: false, is_busy: false }
    }

    /// When to poll at the latest, if nothing else happens; `None`: no need. A time that has passed means now: the server
    /// may have sent more than one poll reads.
    ///
    /// With [`poll_nonblocking`](Self::poll_nonblocking) also poll when the stream has room again, while
    /// [`is_writing`](Self::is_writing).
    #[must_use]
    pub fn deadline(&self, session: &Session<'_>) -> Option<Instant> {
        if self.is_busy { Some(Instant::from_millis(0)) } else { session.deadline() }
    }

    /// Whether bytes wait for room in the stream.
    #[must_use]
    pub const fn is_writing(&self) -> bool {
        self.written < self.filled
    }

    /// The stream.
    pub const fn stream(&mut self) -> &mut S {
        &mut self.stream
    }

    /// Gives the stream back, to close it. What had not been written is lost with the connection.
    #[must_use]
    pub fn into_stream(self) -> S {
        self.stream
    }

    /// One step of the output: writes what is there, or asks the session for more.
    fn push(
        &mut self,
        now: Instant,
        session: &mut Session<'_>,
        can_write: &mut impl FnMut(&mut S) -> Result<bool, S::Error>,
        supply: &mut impl FnMut(u32, usize, &mut [u8]) -> usize,
    ) -> Result<Output, LinkError<S::Error>> {
        if self.written < self.filled {
            if !can_write(&mut self.stream).map_err(LinkError::Stream)? {
                return Ok(Output::Full);
            }
            let output = self.out.get(self.written..self.filled).unwrap_or_default();
            match self.stream.write(output).map_err(LinkError::Stream)? {
                0 => return Err(LinkError::ServerClosed),
                n => self.written = self.written.saturating_add(n),
            }
            self.is_unflushed = true;
            return Ok(Output::Sent);
        }
        (self.written, self.filled) = (0, 0);
        #[cfg(not(feature = "large"))]
        let _ = supply;
        match session.transmit(now, self.out) {
            Transmit::Bytes(n) => self.filled = n,
            #[cfg(feature = "large")]
            Transmit::Payload { key, offset, len } => {
                let room = len.min(self.out.len());
                let n = supply(key, offset, self.out.get_mut(..room).unwrap_or_default()).min(room);
                if n == 0 && len > 0 {
                    return Err(LinkError::NoPayload { key });
                }
                session.supplied(n);
                self.filled = n;
            }
            Transmit::Close => {
                self.flush()?;
                return Err(session.fault().map_or(LinkError::Closed, LinkError::Fault));
            }
            _ => {
                self.flush()?;
                return Ok(Output::Idle);
            }
        }
        Ok(Output::Sent)
    }

    /// A batch is complete: streams that gather bytes (TLS) send them now.
    fn flush(&mut self) -> Result<(), LinkError<S::Error>> {
        if core::mem::take(&mut self.is_unflushed) {
            self.stream.flush().map_err(LinkError::Stream)?;
        }
        Ok(())
    }
}

impl<S: Read + ReadReady + Write> Link<'_, S> {
    /// Reads what is there, writes what is due, and tells what happened; `None`: nothing (more) for now.
    ///
    /// # Errors
    /// [`LinkError`]: the connection is over. Drop the link, and open another one on a new stream.
    pub fn poll<'b>(
        &mut self,
        now: Instant,
        session: &mut Session<'_>,
        inbox: &'b mut Inbox<'_>,
    ) -> Result<Option<Event<'b>>, LinkError<S::Error>> {
        self.step(now, session, inbox, &mut |_| Ok(true), &mut |_, _, _| 0)
    }

    /// As [`poll`](Self::poll), for sessions with messages whose payload is not in their memory: see
    /// [`Session::publish_external`].
    ///
    /// `supply` is given the key of a payload, an offset in it, and where to put its bytes from there on; it says how
    /// many it put there. Giving none ends the connection.
    ///
    /// # Errors
    /// As [`poll`](Self::poll).
    #[cfg(feature = "large")]
    pub fn poll_supplying<'b>(
        &mut self,
        now: Instant,
        session: &mut Session<'_>,
        inbox: &'b mut Inbox<'_>,
        mut supply: impl FnMut(u32, usize, &mut [u8]) -> usize,
    ) -> Result<Option<Event<'b>>, LinkError<S::Error>> {
        self.step(now, session, inbox, &mut |_| Ok(true), &mut supply)
    }

    /// Waits for the next event: polls, and sleeps in between.
    ///
    /// `clock` tells the time. `sleep` returns when bytes have arrived or the time it is given has come, or sooner;
    /// with `None` there is nothing to wait for but bytes. On a device without interrupts from the stream it waits a
    /// few milliseconds.
    ///
    /// # Errors
    /// As [`poll`](Self::poll).
    pub fn next<'b>(
        &mut self,
        session: &mut Session<'_>,
        inbox: &'b mut Inbox<'_>,
        mut clock: impl FnMut() -> Instant,
        mut sleep: impl FnMut(&mut S, Option<Instant>),
    ) -> Result<Event<'b>, LinkError<S::Error>> {
        loop {
            let ready = self.step_ready(clock(), session, inbox, &mut |_| Ok(true), &mut |_, _, _| 0)?;
            if let Some(ready) = ready {
                return Ok(inbox.event(ready));
            }
            let deadline = self.deadline(session);
            sleep(&mut self.stream, deadline);
        }
    }

    fn step<'b>(
        &mut self,
        now: Instant,
        session: &mut Session<'_>,
        inbox: &'b mut Inbox<'_>,
        can_write: &mut impl FnMut(&mut S) -> Result<bool, S::Error>,
        supply: &mut impl FnMut(u32, usize, &mut [u8]) -> usize,
    ) -> Result<Option<Event<'b>>, LinkError<S::Error>> {
        let ready = self.step_ready(now, session, inbox, can_write, supply)?;
        Ok(ready.map(|ready| inbox.event(ready)))
    }

    fn step_ready(
        &mut self,
        now: Instant,
        session: &mut Session<'_>,
        inbox: &mut Inbox<'_>,
        can_write: &mut impl FnMut(&mut S) -> Result<bool, S::Error>,
        supply: &mut impl FnMut(u32, usize, &mut [u8]) -> usize,
    ) -> Result<Option<dunlin_core::Ready>, LinkError<S::Error>> {
        let result = self.turn(now, session, inbox, can_write, supply);
        if result.is_err() {
            (self.written, self.filled) = (0, 0);
            session.lost();
        }
        result
    }

    /// Looks at what is in the inbox, then writes, then reads, until something has happened or nothing more can.
    fn turn(
        &mut self,
        now: Instant,
        session: &mut Session<'_>,
        inbox: &mut Inbox<'_>,
        can_write: &mut impl FnMut(&mut S) -> Result<bool, S::Error>,
        supply: &mut impl FnMut(u32, usize, &mut [u8]) -> usize,
    ) -> Result<Option<dunlin_core::Ready>, LinkError<S::Error>> {
        self.is_busy = false;
        let mut reads = 0;
        loop {
            match session.poll_ready(now, inbox) {
                Ok(Some(ready)) => return Ok(Some(ready)),
                Ok(None) => {}
                Err(fault) => return Err(LinkError::Fault(fault)),
            }
            let mut has_sent = false;
            let is_full = loop {
                match self.push(now, session, can_write, supply)? {
                    Output::Sent => has_sent = true,
                    Output::Idle => break false,
                    Output::Full => break true,
                }
            };
            let is_amid_packet = inbox.is_amid_packet();
            let has_read = self.pull(inbox)?;
            if has_read && is_amid_packet {
                session.hold(now);
            }
            // What was sent may let the session go on with what is in the inbox.
            if !has_read && (!has_sent || is_full) {
                return Ok(None);
            }
            reads += u8::from(has_read);
            if reads == READS {
                self.is_busy = true;
                return Ok(None);
            }
        }
    }

    /// Reads what is there, if there is room for it.
    fn pull(&mut self, inbox: &mut Inbox<'_>) -> Result<bool, LinkError<S::Error>> {
        let space = inbox.space();
        if space.is_empty() || !self.stream.read_ready().map_err(LinkError::Stream)? {
            return Ok(false);
        }
        match self.stream.read(space).map_err(LinkError::Stream)? {
            0 => Err(LinkError::ServerClosed),
            n => {
                inbox.filled(n);
                Ok(true)
            }
        }
    }
}

impl<S: Read + ReadReady + Write + WriteReady> Link<'_, S> {
    /// As [`poll`](Link::poll), and never waits for the stream to take bytes: what does not go now is written by a
    /// later call, while [`is_writing`](Link::is_writing).
    ///
    /// # Errors
    /// As [`poll`](Link::poll).
    pub fn poll_nonblocking<'b>(
        &mut self,
        now: Instant,
        session: &mut Session<'_>,
        inbox: &'b mut Inbox<'_>,
    ) -> Result<Option<Event<'b>>, LinkError<S::Error>> {
        self.step(now, session, inbox, &mut S::write_ready, &mut |_, _, _| 0)
    }
}

impl<E: fmt::Debug> fmt::Display for LinkError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stream(error) => write!(f, "the stream failed: {error:?}"),
            Self::ServerClosed => f.write_str("the server closed the connection"),
            Self::Fault(fault) => fault.fmt(f),
            Self::Closed => f.write_str("closed"),
            #[cfg(feature = "large")]
            Self::NoPayload { key } => write!(f, "the payload {key} was not supplied"),
        }
    }
}

impl<E: fmt::Debug> core::error::Error for LinkError<E> {}
