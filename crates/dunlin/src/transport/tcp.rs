//! TCP, for drivers that try one address after the other.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::{Duration, Instant};

use crate::host::Reason;

/// The addresses of `host`, resolved anew each time. May block for as long as the resolver takes.
pub(crate) fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    Ok((host, port).to_socket_addrs()?.collect())
}

/// Tries one address after the other with `connect`. Each gets its share of the time that is left, so that a dead one
/// leaves time for the next. Only a failure of the socket leads to the next address.
pub(crate) fn connect_any<T>(
    addresses: &[SocketAddr],
    timeout: Duration,
    mut connect: impl FnMut(SocketAddr, Duration) -> Result<T, Reason>,
) -> Result<T, Reason> {
    let end = crate::limit::ends_at(timeout);
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address").into();
    for (at, address) in addresses.iter().enumerate() {
        let left = end.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(addresses.len() - at).unwrap_or(u32::MAX);
        if share.is_zero() {
            return Err(io::Error::from(io::ErrorKind::TimedOut).into());
        }
        match connect(*address, share) {
            Err(reason @ Reason::Io(_)) => last = reason,
            result => return result,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn connect(addresses: &[SocketAddr], timeout: Duration) -> Result<TcpStream, Reason> {
        connect_any(addresses, timeout, |address, share| Ok(TcpStream::connect_timeout(&address, share)?))
    }

    #[test]
    fn the_next_address_is_tried_when_the_first_is_dead() {
        // [E12]
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let alive = listener.local_addr().unwrap();
        let refusing = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let stream = connect(&[refusing, alive], Duration::from_secs(5)).unwrap();
        assert_eq!(stream.peer_addr().unwrap(), alive);
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
        let stream = connect(&[silent, alive], Duration::from_secs(1)).unwrap();
        assert_eq!(stream.peer_addr().unwrap(), alive);
    }

    #[test]
    fn all_addresses_dead_is_the_error_of_the_last_one() {
        let refusing = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let Err(Reason::Io(error)) = connect(&[refusing, refusing], Duration::from_secs(5)) else {
            panic!("connected")
        };
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert!(connect(&[], Duration::from_secs(5)).is_err());
    }

    #[test]
    fn a_reason_that_is_not_the_sockets_ends_the_search() {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut tried = 0;
        let result = connect_any::<()>(&[address, address], Duration::from_secs(5), |_, _| {
            tried += 1;
            Err(Reason::Closed)
        });
        assert!(matches!(result, Err(Reason::Closed)) && tried == 1);
    }
}
