//! TLS over a socket that never blocks.
//!
//! Reading does not wait for writing, as in rustls' own stream: a server that stops reading until it is read would
//! stop both sides for ever.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::ClientConnection;

use super::{Stream, until_ready};
use crate::host::Reason;
use crate::tls::{Handshake, TlsError};

/// See the module.
pub(crate) struct TlsStream {
    tls: ClientConnection,
    socket: Box<dyn Stream>,
    /// The server asked for a certificate that is not there.
    missed: Arc<AtomicBool>,
    /// Something of the server's has been decrypted: it has accepted this client.
    is_accepted: bool,
}

/// Most bytes that wait encrypted; a whole output of the session fits.
const BUFFER: usize = 256 * 1024;

/// Reads in a row that may bring nothing but what TLS says to itself; more than any server needs for its tickets.
const EMPTY: usize = 64;

impl TlsStream {
    /// Goes through the handshake.
    pub async fn open(socket: Box<dyn Stream>, handshake: Handshake) -> Result<Self, Reason> {
        let Handshake { config, server_name, missed } = handshake;
        let mut tls =
            ClientConnection::new(config, server_name).map_err(|error| TlsError::from_rustls(error, false))?;
        tls.set_buffer_limit(Some(BUFFER));
        let mut stream = Self { tls, socket, missed, is_accepted: false };
        until_ready(|| stream.shake_hands()).await?;
        Ok(stream)
    }

    fn shake_hands(&mut self) -> io::Result<()> {
        loop {
            self.push()?;
            if !self.tls.is_handshaking() {
                return Ok(());
            }
            if self.pull()? == 0 {
                return Err(self.closed());
            }
        }
    }

    /// Writes what is encrypted.
    fn push(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut self.socket) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if is_transient(&error) => return Err(error),
                Err(error) => return Err(self.last_words().unwrap_or(error)),
            }
        }
        Ok(())
    }

    /// Reads and decrypts; 0: the server has closed the stream.
    fn pull(&mut self) -> io::Result<usize> {
        let n = self.tls.read_tls(&mut self.socket)?;
        if let Err(error) = self.tls.process_new_packets() {
            // The server is to know why: an alert has been made.
            let _ = self.tls.write_tls(&mut self.socket);
            let missed = self.missed.load(Ordering::Relaxed);
            return Err(io::Error::new(ErrorKind::InvalidData, TlsError::from_rustls(error, missed)));
        }
        Ok(n)
    }

    /// The server takes nothing any more. Perhaps it has said why before.
    fn last_words(&mut self) -> Option<io::Error> {
        loop {
            match self.pull() {
                Ok(0) => return None,
                Ok(_) => {}
                Err(error) if error.get_ref().is_some_and(|error| error.is::<TlsError>()) => return Some(error),
                Err(_) => return None,
            }
        }
    }

    /// The server has closed the stream without a word. If it had asked in vain for a certificate, that is why.
    fn closed(&self) -> io::Error {
        if self.missed.load(Ordering::Relaxed) && !self.is_accepted {
            return io::Error::new(ErrorKind::InvalidData, TlsError::NoIdentity);
        }
        ErrorKind::UnexpectedEof.into()
    }
}

impl Read for TlsStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        for _ in 0..EMPTY {
            match self.tls.reader().read(buf) {
                Ok(n) => {
                    self.is_accepted |= n > 0;
                    return Ok(n);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Err(self.closed()),
                Err(error) => return Err(error),
            }
            self.pull()?;
        }
        Err(ErrorKind::Interrupted.into())
    }
}

impl Write for TlsStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push()?;
        self.tls.writer().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.push()
    }
}

impl Stream for TlsStream {
    fn finish(&mut self) -> io::Result<()> {
        self.tls.send_close_notify();
        self.push()?;
        self.socket.finish()
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
