//! TCP, for drivers that may block while they connect.

use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

/// Connects to the first address of `host` that answers, within `timeout` for all of them. The name is resolved anew
/// each time.
pub(crate) fn connect(host: &str, port: u16, timeout: Duration) -> io::Result<TcpStream> {
    let addresses: Vec<SocketAddr> = (host, port).to_socket_addrs()?.collect();
    connect_any(&addresses, timeout)
}

/// Tries one address after the other. Each gets its share of the time that is left, so that a dead one leaves time for
/// the next.
fn connect_any(addresses: &[SocketAddr], timeout: Duration) -> io::Result<TcpStream> {
    let end = Instant::now() + timeout;
    let mut error = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for (at, address) in addresses.iter().enumerate() {
        let left = end.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(addresses.len() - at).unwrap_or(u32::MAX);
        if share.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match TcpStream::connect_timeout(address, share) {
            Ok(stream) => {
                // Small packets leave at once: Nagle's algorithm against delayed acknowledgements costs 40 ms.
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(failed) => error = failed,
        }
    }
    Err(error)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_next_address_is_tried_when_the_first_is_dead() {
        // [E12]
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let alive = listener.local_addr().unwrap();
        let refusing = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let stream = connect_any(&[refusing, alive], Duration::from_secs(5)).unwrap();
        assert_eq!(stream.peer_addr().unwrap(), alive);
        assert!(stream.nodelay().unwrap());
    }

    #[test]
    fn an_address_that_never_answers_leaves_time_for_the_next() {
        // [E12] A listener whose queue is full lets connections hang, as a dead host does.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let alive = listener.local_addr().unwrap();
        let full = TcpListener::bind("127.0.0.1:0").unwrap();
        let silent = full.local_addr().unwrap();
        let mut filling = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&silent, Duration::from_millis(50)) {
            filling.push(stream);
        }
        let start = Instant::now();
        let stream = connect_any(&[silent, alive], Duration::from_secs(1)).unwrap();
        assert_eq!(stream.peer_addr().unwrap(), alive);
        assert!(start.elapsed() < Duration::from_secs(1));
    }

    #[test]
    fn all_addresses_dead_is_the_error_of_the_last_one() {
        let refusing = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = connect_any(&[refusing, refusing], Duration::from_secs(5)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert!(connect_any(&[], Duration::from_secs(5)).is_err());
    }
}
