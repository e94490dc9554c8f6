//! The same for `embedded-io-async`: a link, a stream, and the stream's two halves.

use embedded_io_async::{ErrorType, Read, Write};
use embedded_tls::{TlsConnection, TlsContext, TlsError, TlsReader, TlsWriter};

use super::cipher::Suite;
use super::port::{AsyncHandle, AsyncPort};
use super::verify::Provider;
use super::{Buffers, End, Fragment, conclude, name_of, tls_config};
use crate::{Config, Entropy, Error};

/// The two halves of a transport and the memory for TLS over them.
pub struct AsyncLink<'m, R, W> {
    port: AsyncPort<'m, R, W>,
    plain: &'m mut [u8],
    write: &'m mut [u8],
}

impl<'m, R: Read, W: Write> AsyncLink<'m, R, W> {
    /// Sends nothing yet. The transport's stream must be new.
    pub fn new(reader: R, writer: W, buffers: Buffers<'m>) -> Self {
        Self { port: AsyncPort::new(reader, writer, buffers.record), plain: buffers.plain, write: buffers.write }
    }

    /// Makes the handshake. Dropping the future means that the transport's stream is lost. The cryptography in it is
    /// not cut into pieces: each signature keeps the executor for as long as it takes.
    ///
    /// # Errors
    /// As [`Link::connect`](super::Link::connect).
    pub async fn connect(&mut self, config: &Config<'_>, entropy: Entropy) -> Result<AsyncStream<'_, 'm, R, W>, Error> {
        let fragment = Fragment::that_fits(self.plain.len());
        let write = Fragment::bound(fragment.as_ref(), self.write);
        let tls = tls_config(config, fragment);
        let mut provider = Provider::new(config, entropy)?;
        self.port.reset();
        let port = &self.port;
        let mut connection = TlsConnection::new(port.handle(), self.plain, write);
        let handshake = connection.open(TlsContext::new(&tls, &mut provider)).await;
        conclude(handshake, &provider, port.take_failure())?;
        port.established();
        Ok(AsyncStream { port, connection })
    }
}

/// A TLS connection with an authenticated server.
pub struct AsyncStream<'s, 'm, R: Read, W: Write> {
    port: &'s AsyncPort<'m, R, W>,
    connection: TlsConnection<'s, AsyncHandle<'s, 'm, R, W>, Suite>,
}

impl<'s, 'm, R: Read, W: Write> AsyncStream<'s, 'm, R, W> {
    /// Two halves, for two tasks or for `select` in one. A half that has failed returns its error again.
    pub fn split(&mut self) -> (AsyncReader<'_, 's, 'm, R, W>, AsyncWriter<'_, 's, 'm, R, W>) {
        let port = self.port;
        let (reader, writer) = self.connection.split();
        (AsyncReader { port, half: reader, end: End::Open }, AsyncWriter { port, half: writer, end: End::Open })
    }

    /// Says goodbye. The transport stays open.
    ///
    /// # Errors
    /// The transport's.
    pub async fn close(self) -> Result<(), Error> {
        self.connection.close().await.map(drop).map_err(|(_, error)| name_of(error, self.port.take_failure()))
    }
}

/// The reading half.
pub struct AsyncReader<'c, 's, 'm, R: Read, W: Write> {
    port: &'s AsyncPort<'m, R, W>,
    half: TlsReader<'c, AsyncHandle<'s, 'm, R, W>, Suite>,
    end: End,
}

/// The writing half. What is written is collected into a record until `flush`, or until the record is full.
pub struct AsyncWriter<'c, 's, 'm, R: Read, W: Write> {
    port: &'s AsyncPort<'m, R, W>,
    half: TlsWriter<'c, AsyncHandle<'s, 'm, R, W>, Suite>,
    end: End,
}

impl<R: Read, W: Write> ErrorType for AsyncReader<'_, '_, '_, R, W> {
    type Error = Error;
}

impl<R: Read, W: Write> ErrorType for AsyncWriter<'_, '_, '_, R, W> {
    type Error = Error;
}

impl<'c, 's: 'c, 'm: 'c, R: Read, W: Write> Read for AsyncReader<'c, 's, 'm, R, W> {
    /// 0 is the peer's goodbye. Dropping the future loses nothing.
    async fn read(&mut self, to: &mut [u8]) -> Result<usize, Error> {
        match self.end {
            End::Open => {}
            End::Closed => return Ok(0),
            End::Failed(error) => return Err(error),
        }
        match self.half.read(to).await {
            Ok(count) => Ok(count),
            Err(TlsError::ConnectionClosed) => {
                self.end = End::Closed;
                Ok(0)
            }
            Err(error) => {
                let error = name_of(error, self.port.take_failure());
                self.end = End::Failed(error);
                Err(error)
            }
        }
    }
}

impl<R: Read, W: Write> AsyncWriter<'_, '_, '_, R, W> {
    fn check(&self) -> Result<(), Error> {
        match self.end {
            End::Failed(error) => Err(error),
            End::Open | End::Closed => Ok(()),
        }
    }

    fn fail(&mut self, error: TlsError) -> Error {
        let error = name_of(error, self.port.take_failure());
        self.end = End::Failed(error);
        error
    }
}

impl<'c, 's: 'c, 'm: 'c, R: Read, W: Write> Write for AsyncWriter<'c, 's, 'm, R, W> {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        self.check()?;
        self.half.write(bytes).await.map_err(|error| self.fail(error))
    }

    async fn flush(&mut self) -> Result<(), Error> {
        self.check()?;
        self.half.flush().await.map_err(|error| self.fail(error))
    }
}
