//! Sockets of a tokio runtime, used without blocking and without `async`.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;

use crate::transport::Stream;
use crate::transport::target::Target;

/// A socket that wakes its driver when it can go on.
pub(crate) struct Woken {
    kind: Kind,
    waker: Waker,
}

enum Kind {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
}

impl Woken {
    /// Connects to the first hop on the way to the server.
    pub async fn connect(target: &Target, timeout: Duration, waker: Waker) -> io::Result<Self> {
        #[cfg(unix)]
        if let Some(path) = target.socket_path() {
            return Ok(Self { kind: Kind::Unix(UnixStream::connect(path).await?), waker });
        }
        let stream = connect_any(target.first_hop(), timeout).await?;
        Ok(Self { kind: Kind::Tcp(stream), waker })
    }

    fn poll<T>(
        &mut self,
        poll: impl FnOnce(Pin<&mut dyn Both>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> io::Result<T> {
        let cx = &mut Context::from_waker(&self.waker);
        let result = match &mut self.kind {
            Kind::Tcp(stream) => poll(Pin::new(stream), cx),
            #[cfg(unix)]
            Kind::Unix(stream) => poll(Pin::new(stream), cx),
        };
        match result {
            Poll::Ready(result) => result,
            Poll::Pending => Err(ErrorKind::WouldBlock.into()),
        }
    }
}

trait Both: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Both for T {}

/// Tries one address after the other. Each gets its share of the time that is left, so that a dead one leaves time for
/// the next. The name is resolved anew each time.
async fn connect_any((host, port): (&str, u16), timeout: Duration) -> io::Result<TcpStream> {
    let end = crate::limit::ends_at(timeout);
    let addresses: Vec<_> = tokio::net::lookup_host((host, port)).await?.collect();
    let mut error = io::Error::new(ErrorKind::NotFound, "the name has no address");
    for (at, address) in addresses.iter().enumerate() {
        let left = end.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(addresses.len() - at).unwrap_or(u32::MAX);
        match tokio::time::timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Small packets leave at once: Nagle's algorithm against delayed acknowledgements costs 40 ms.
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Ok(Err(failed)) => error = failed,
            Err(_) => error = ErrorKind::TimedOut.into(),
        }
    }
    Err(error)
}

impl Read for Woken {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.poll(|stream, cx| {
            let mut buf = ReadBuf::new(buf);
            stream.poll_read(cx, &mut buf).map_ok(|()| buf.filled().len())
        })
    }
}

impl Write for Woken {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.poll(|stream, cx| stream.poll_write(cx, bytes))
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.poll(|stream, cx| stream.poll_write_vectored(cx, parts))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for Woken {
    fn finish(&mut self) -> io::Result<()> {
        self.poll(|stream, cx| stream.poll_shutdown(cx))
    }
}
