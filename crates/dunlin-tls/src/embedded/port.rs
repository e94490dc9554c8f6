//! Where `embedded-tls` reads and writes: the transport, with the gate before its reading side.
//!
//! `embedded-tls` owns the handle that it reads from and gives it back only at the end, so the state behind it is
//! shared through cells.

use core::cell::{Cell, RefCell};

use embedded_io::{Error as _, ErrorKind, ErrorType, Read, ReadReady, Write};

use super::gate::Gate;
use crate::Error;

/// A blocking transport behind the gate.
pub(crate) struct Port<'m, T> {
    gate: RefCell<Gate<'m>>,
    transport: RefCell<T>,
    /// Whether a read may wait for the transport.
    may_wait: Cell<bool>,
    /// A read would have had to wait, and has taken nothing.
    starved: Cell<bool>,
    failure: Cell<Option<Error>>,
}

impl<'m, T> Port<'m, T> {
    pub(crate) fn new(transport: T, record: &'m mut [u8]) -> Self {
        Self {
            gate: RefCell::new(Gate::new(record)),
            transport: RefCell::new(transport),
            may_wait: Cell::new(true),
            starved: Cell::new(false),
            failure: Cell::new(None),
        }
    }

    pub(crate) fn reset(&mut self) {
        self.gate.get_mut().reset();
        self.may_wait.set(true);
        self.failure.set(None);
    }

    pub(crate) fn established(&self) {
        self.gate.borrow_mut().established();
    }

    pub(crate) fn handle(&self) -> BlockingHandle<'_, 'm, T> {
        BlockingHandle(self)
    }

    pub(crate) fn with_transport<R>(&self, lend: impl FnOnce(&mut T) -> R) -> R {
        lend(&mut self.transport.borrow_mut())
    }

    pub(crate) fn may_wait(&self, may: bool) {
        self.may_wait.set(may);
    }

    pub(crate) fn take_starved(&self) -> bool {
        self.starved.take()
    }

    /// Why the last read or write failed, if it was not `embedded-tls` that refused.
    pub(crate) fn take_failure(&self) -> Option<Error> {
        self.failure.take()
    }

    /// Records why and passes it on.
    fn failed<R>(&self, error: Error) -> Result<R, Error> {
        self.failure.set(Some(error));
        Err(error)
    }
}

impl<T: Read> Port<'_, T> {
    /// Reads once from the transport, towards a whole record.
    fn fetch(&self) -> Result<(), Error> {
        let mut gate = self.gate.borrow_mut();
        let result = match self.transport.borrow_mut().read(gate.missing()) {
            Ok(0) => Err(Error::Closed),
            Ok(count) => gate.filled(count),
            Err(error) => Err(Error::Io(error.kind())),
        };
        result.or_else(|error| self.failed(error))
    }
}

impl<T: Read + ReadReady> Port<'_, T> {
    /// Takes what the transport has; whether that completes a record.
    pub(crate) fn stage(&self) -> Result<bool, Error> {
        loop {
            if self.gate.borrow().is_whole() {
                return Ok(true);
            }
            let ready = self.transport.borrow_mut().read_ready();
            match ready {
                Ok(true) => self.fetch()?,
                Ok(false) => return Ok(false),
                Err(error) => return self.failed(Error::Io(error.kind())),
            }
        }
    }
}

/// What `embedded-tls` holds.
pub(crate) struct BlockingHandle<'s, 'm, T>(&'s Port<'m, T>);

impl<T> ErrorType for BlockingHandle<'_, '_, T> {
    type Error = Error;
}

impl<T: Read> Read for BlockingHandle<'_, '_, T> {
    fn read(&mut self, to: &mut [u8]) -> Result<usize, Error> {
        while !self.0.gate.borrow().is_whole() {
            if !self.0.may_wait.get() {
                self.0.starved.set(true);
                return Err(Error::Io(ErrorKind::Interrupted));
            }
            self.0.fetch()?;
        }
        Ok(self.0.gate.borrow_mut().take(to))
    }
}

impl<T: Write> Write for BlockingHandle<'_, '_, T> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        let written = self.0.transport.borrow_mut().write(bytes);
        written.or_else(|error| self.0.failed(Error::Io(error.kind())))
    }

    fn flush(&mut self) -> Result<(), Error> {
        let flushed = self.0.transport.borrow_mut().flush();
        flushed.or_else(|error| self.0.failed(Error::Io(error.kind())))
    }
}

/// Two halves of an asynchronous transport, with the gate before the reading one.
///
/// Each half has its own cell, so that one task may wait in a read while another waits in a write.
pub(crate) struct AsyncPort<'m, R, W> {
    reader: RefCell<(Gate<'m>, R)>,
    writer: RefCell<W>,
    failure: Cell<Option<Error>>,
}

impl<'m, R, W> AsyncPort<'m, R, W> {
    pub(crate) fn new(reader: R, writer: W, record: &'m mut [u8]) -> Self {
        Self {
            reader: RefCell::new((Gate::new(record), reader)),
            writer: RefCell::new(writer),
            failure: Cell::new(None),
        }
    }

    pub(crate) fn reset(&mut self) {
        self.reader.get_mut().0.reset();
        self.failure.set(None);
    }

    pub(crate) fn established(&self) {
        self.reader.borrow_mut().0.established();
    }

    pub(crate) fn handle(&self) -> AsyncHandle<'_, 'm, R, W> {
        AsyncHandle(self)
    }

    pub(crate) fn take_failure(&self) -> Option<Error> {
        self.failure.take()
    }

    fn failed<X>(&self, error: Error) -> Result<X, Error> {
        self.failure.set(Some(error));
        Err(error)
    }
}

/// What `embedded-tls` and each of its halves holds.
pub(crate) struct AsyncHandle<'s, 'm, R, W>(&'s AsyncPort<'m, R, W>);

impl<R, W> Clone for AsyncHandle<'_, '_, R, W> {
    fn clone(&self) -> Self {
        Self(self.0)
    }
}

impl<R, W> ErrorType for AsyncHandle<'_, '_, R, W> {
    type Error = Error;
}

#[expect(clippy::await_holding_refcell_ref, reason = "only one half reads; the other cell is free meanwhile")]
impl<R: embedded_io_async::Read, W> embedded_io_async::Read for AsyncHandle<'_, '_, R, W> {
    /// May be dropped and called again: bytes are counted after the transport has returned, and `embedded-tls` gets
    /// nothing of a record before all of it is here.
    async fn read(&mut self, to: &mut [u8]) -> Result<usize, Error> {
        let mut half = self.0.reader.borrow_mut();
        let (gate, transport) = &mut *half;
        while !gate.is_whole() {
            let result = match transport.read(gate.missing()).await {
                Ok(0) => Err(Error::Closed),
                Ok(count) => gate.filled(count),
                Err(error) => Err(Error::Io(error.kind())),
            };
            if let Err(error) = result {
                return self.0.failed(error);
            }
        }
        Ok(gate.take(to))
    }
}

#[expect(clippy::await_holding_refcell_ref, reason = "only one half writes; the other cell is free meanwhile")]
impl<R, W: embedded_io_async::Write> embedded_io_async::Write for AsyncHandle<'_, '_, R, W> {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        let written = self.0.writer.borrow_mut().write(bytes).await;
        written.or_else(|error| self.0.failed(Error::Io(error.kind())))
    }

    async fn flush(&mut self) -> Result<(), Error> {
        let flushed = self.0.writer.borrow_mut().flush().await;
        flushed.or_else(|error| self.0.failed(Error::Io(error.kind())))
    }
}
