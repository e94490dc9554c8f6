//! Sockets under a poll of mio.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mio::event::{Event, Source};
use mio::{Interest, Registry, Token};

use crate::transport::Stream;

/// A socket that belongs to a poll. It remembers what it cannot do, so that nothing is tried in vain.
pub(crate) struct Polled {
    kind: Kind,
    readiness: Arc<Readiness>,
}

/// The kinds of sockets.
pub(crate) enum Kind {
    Tcp(mio::net::TcpStream),
    #[cfg(unix)]
    Unix(mio::net::UnixStream),
}

/// What a socket can do, as far as its poll and its last calls have told. Shared, since the socket is below layers
/// that know nothing of polls; both ends are used by one thread.
#[derive(Debug)]
pub(crate) struct Readiness {
    can_read: AtomicBool,
    can_write: AtomicBool,
    /// The other side writes no more. Nothing announces that again, so from then on reading is always worth it.
    is_read_closed: AtomicBool,
}

impl Polled {
    /// Registers the socket. Events for it are to be given to the [`Readiness`].
    pub fn register(mut kind: Kind, registry: &Registry, token: Token) -> io::Result<(Self, Arc<Readiness>)> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        match &mut kind {
            Kind::Tcp(stream) => stream.register(registry, token, interest)?,
            #[cfg(unix)]
            Kind::Unix(stream) => stream.register(registry, token, interest)?,
        }
        let readiness = Arc::new(Readiness {
            can_read: AtomicBool::new(true),
            can_write: AtomicBool::new(true),
            is_read_closed: AtomicBool::new(false),
        });
        Ok((Self { kind, readiness: readiness.clone() }, readiness))
    }

    /// Whether the connection that was asked for is there; makes it ready for small packets.
    pub fn is_connected(&self) -> io::Result<bool> {
        #[cfg_attr(not(unix), expect(irrefutable_let_patterns))]
        let Kind::Tcp(stream) = &self.kind else { return Ok(true) };
        if let Some(error) = stream.take_error()? {
            return Err(error);
        }
        match stream.peer_addr() {
            // They leave at once: Nagle's algorithm against delayed acknowledgements costs 40 ms.
            Ok(_) => stream.set_nodelay(true).map(|()| true),
            Err(error) if error.kind() == ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn write_with(&mut self, write: impl FnOnce(&mut dyn Write) -> io::Result<usize>) -> io::Result<usize> {
        if !self.readiness.can_write.load(Ordering::Relaxed) {
            return Err(ErrorKind::WouldBlock.into());
        }
        let result = match &mut self.kind {
            Kind::Tcp(stream) => write(stream),
            #[cfg(unix)]
            Kind::Unix(stream) => write(stream),
        };
        if result.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock) {
            self.readiness.can_write.store(false, Ordering::Relaxed);
        }
        result
    }
}

impl Readiness {
    /// The poll has news.
    pub fn note(&self, event: &Event) {
        if event.is_read_closed() || event.is_error() {
            self.is_read_closed.store(true, Ordering::Relaxed);
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            self.can_read.store(true, Ordering::Relaxed);
        }
        if event.is_writable() || event.is_write_closed() || event.is_error() {
            self.can_write.store(true, Ordering::Relaxed);
        }
    }
}

impl Read for Polled {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if !self.readiness.can_read.load(Ordering::Relaxed) {
            return Err(ErrorKind::WouldBlock.into());
        }
        let result = match &mut self.kind {
            Kind::Tcp(stream) => stream.read(buf),
            #[cfg(unix)]
            Kind::Unix(stream) => stream.read(buf),
        };
        let is_drained = match &result {
            // Less than there was room for: everything was read. Where readiness comes by completion, only an attempt
            // that would block asks for more.
            Ok(n) => *n < buf.len() && !cfg!(windows) && !self.readiness.is_read_closed.load(Ordering::Relaxed),
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        };
        if is_drained {
            self.readiness.can_read.store(false, Ordering::Relaxed);
        }
        result
    }
}

impl Write for Polled {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_with(|stream| stream.write(bytes))
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.write_with(|stream| stream.write_vectored(parts))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for Polled {
    fn finish(&mut self) -> io::Result<()> {
        match &mut self.kind {
            Kind::Tcp(stream) => stream.shutdown(Shutdown::Write),
            #[cfg(unix)]
            Kind::Unix(stream) => stream.shutdown(Shutdown::Write),
        }
    }
}
