//! Streams of bytes to a server: what lies between a socket and the session.
//!
//! Everything here is non-blocking and knows no executor. A [`Socket`] reads and writes what it can and says
//! `WouldBlock` otherwise; TLS, WebSocket and proxies lie over it in the same manner. So the blocking and the
//! asynchronous client share all of it, and differ only in how they sleep: [`Connection`](connection::Connection) is
//! what both of them drive.

pub(crate) mod connection;
pub(crate) mod target;
pub(crate) mod tcp;

use std::future::poll_fn;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::sync::Arc;
use std::task::Poll;

use crate::host::Reason;
use crate::url::Scheme;
use target::Target;

/// A socket that never blocks. When it has said `WouldBlock`, whoever drives it is woken as soon as it can go on.
pub(crate) trait Socket: Read + Write + Send + 'static {
    /// Tells the other side that nothing more comes from here.
    fn finish(&mut self) -> io::Result<()>;
}

/// A stream that carries MQTT.
pub(crate) enum Stream<S> {
    Plain(S),
}

/// Makes a stream that carries MQTT out of a connected socket: goes through the handshakes of all layers.
pub(crate) async fn open<S: Socket>(socket: S, target: Arc<Target>) -> Result<Stream<S>, Reason> {
    match target.address.scheme() {
        Scheme::Mqtt | Scheme::Unix => Ok(Stream::Plain(socket)),
        // `Target::check` has refused what this build cannot do.
        _ => Err(Reason::from(io::Error::from(ErrorKind::Unsupported))),
    }
}

impl<S: Socket> Stream<S> {
    /// Nothing more will be written: says so on all layers.
    pub fn finish(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.finish(),
        }
    }
}

impl<S: Socket> Read for Stream<S> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buf),
        }
    }
}

/// What `write` has taken may wait inside for room in the socket, until `flush` says `Ok`.
impl<S: Socket> Write for Stream<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
        }
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write_vectored(parts),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
        }
    }
}

/// Turns `WouldBlock` into `Pending`, so that a handshake can be written as a sequence.
///
/// Nothing is registered here: the socket has seen to that, and whoever drives it polls again when it can go on.
pub(crate) async fn until_ready<T>(mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    poll_fn(|_| {
        loop {
            match attempt() {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => return Poll::Ready(result),
            }
        }
    })
    .await
}
