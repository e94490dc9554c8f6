//! TCP/IP for a superloop: smoltcp over the Ethernet chip, and one connection as a byte stream.
//!
//! [`Net`] has two faces. A loop that does everything itself uses [`Net::poll`], [`Net::socket`] and
//! [`Net::sleep`]. What wants a stream to block on, such as a TLS handshake, uses it as
//! `embedded_io::{Read, Write, ReadReady}`: it then runs the stack and sleeps until the bytes are there.
use core::fmt;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet, SocketStorage};
use smoltcp::phy::{self, DeviceCapabilities, Medium};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, IpCidr, Ipv4Address};

use crate::clock;
use crate::lan9118::{Frames, Lan9118, MAX_FRAME};

/// The Ethernet chip and its buffers.
pub struct Device<'a> {
    chip: Lan9118,
    frames: &'a mut Frames,
}

/// One TCP connection over one interface.
pub struct Net<'a> {
    device: Device<'a>,
    interface: Interface,
    sockets: SocketSet<'a>,
    handle: SocketHandle,
    local_port: u16,
}

/// Why the stream is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetError {
    /// Nothing came, or nothing could be sent, for [`TIMEOUT_MS`].
    Timeout,
    /// The connection was refused or has been closed.
    Closed,
}

/// How long a blocking call waits for the peer.
pub const TIMEOUT_MS: u64 = 10_000;

impl<'a> Net<'a> {
    /// Brings the interface up, with a fixed address. `seed` must differ from boot to boot.
    pub fn new(
        chip: Lan9118,
        frames: &'a mut Frames,
        storage: &'a mut [SocketStorage<'a>],
        rx: &'a mut [u8],
        tx: &'a mut [u8],
        seed: u64,
    ) -> Self {
        let mut config = Config::new(EthernetAddress(crate::MAC).into());
        config.random_seed = seed;
        let mut device = Device { chip, frames };
        let mut interface = Interface::new(config, &mut device, now());
        let [a, b, c, d] = crate::ADDRESS;
        interface.update_ip_addrs(|addresses| {
            // The list is empty and has room for one.
            let _ = addresses.push(IpCidr::new(Ipv4Address::new(a, b, c, d).into(), 24));
        });
        let mut sockets = SocketSet::new(storage);
        let mut socket = tcp::Socket::new(tcp::SocketBuffer::new(rx), tcp::SocketBuffer::new(tx));
        socket.set_nagle_enabled(false);
        let handle = sockets.add(socket);
        Self { device, interface, sockets, handle, local_port: 49152 + (seed as u16 & 0x3fff) }
    }

    /// Lets the stack do what is due.
    pub fn poll(&mut self) {
        self.interface.poll(now(), &mut self.device, &mut self.sockets);
    }

    /// The connection's socket.
    pub fn socket(&mut self) -> &mut tcp::Socket<'a> {
        self.sockets.get_mut(self.handle)
    }

    /// Starts to connect to `port` on the host, from a port that was not used last.
    pub fn connect(&mut self, port: u16) -> Result<(), NetError> {
        self.local_port = self.local_port.checked_add(1).unwrap_or(49152);
        let [a, b, c, d] = crate::HOST;
        let socket = self.sockets.get_mut::<tcp::Socket>(self.handle);
        socket.abort();
        socket
            .connect(self.interface.context(), (Ipv4Address::new(a, b, c, d), port), self.local_port)
            .map_err(|_| NetError::Closed)
    }

    /// Connects and waits for the answer.
    pub fn connect_now(&mut self, port: u16) -> Result<(), NetError> {
        self.poll();
        self.connect(port)?;
        self.until(|socket| match socket.state() {
            tcp::State::Established => Some(Ok(())),
            tcp::State::Closed => Some(Err(NetError::Closed)),
            _ => None,
        })
    }

    /// Says goodbye on the TCP level and waits until the peer has heard it.
    pub fn close(&mut self) {
        self.socket().close();
        // A peer that does not answer has gone: nothing is lost.
        let _ = self.until(|socket| match socket.state() {
            tcp::State::Closed | tcp::State::TimeWait | tcp::State::FinWait2 => Some(Ok(())),
            _ => None,
        });
    }

    /// Sleeps until the earliest of `deadline` (in milliseconds), what the stack needs, a frame, or `ready`.
    pub fn sleep(&mut self, deadline: Option<u64>, ready: impl FnOnce() -> bool) {
        let stack = self.interface.poll_at(now(), &self.sockets).map(|at| at.total_millis() as u64);
        let earliest = [deadline, stack].into_iter().flatten().min();
        self.device.chip.arm();
        let chip = &self.device.chip;
        clock::sleep_until(earliest, || chip.has_frame() || ready());
    }

    fn until<R>(
        &mut self,
        mut done: impl FnMut(&mut tcp::Socket<'a>) -> Option<Result<R, NetError>>,
    ) -> Result<R, NetError> {
        let give_up = clock::millis() + TIMEOUT_MS;
        loop {
            self.poll();
            if let Some(result) = done(self.socket()) {
                return result;
            }
            if clock::millis() >= give_up {
                return Err(NetError::Timeout);
            }
            self.sleep(Some(give_up), || false);
        }
    }
}

impl embedded_io::ErrorType for Net<'_> {
    type Error = NetError;
}

impl embedded_io::Read for Net<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, NetError> {
        self.until(|socket| match (socket.can_recv(), socket.may_recv()) {
            (true, _) => Some(socket.recv_slice(buffer).map_err(|_| NetError::Closed)),
            (false, true) => None,
            (false, false) => Some(Ok(0)),
        })
    }
}

impl embedded_io::ReadReady for Net<'_> {
    /// True as well when the peer has closed: then `read` says so at once.
    fn read_ready(&mut self) -> Result<bool, NetError> {
        self.poll();
        let socket = self.socket();
        Ok(socket.can_recv() || !socket.may_recv())
    }
}

impl embedded_io::Write for Net<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, NetError> {
        self.until(|socket| match (socket.may_send(), socket.can_send()) {
            (false, _) => Some(Err(NetError::Closed)),
            (true, true) => Some(socket.send_slice(bytes).map_err(|_| NetError::Closed)),
            (true, false) => None,
        })
    }

    fn flush(&mut self) -> Result<(), NetError> {
        self.poll();
        Ok(())
    }
}

impl fmt::Display for NetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Timeout => "the peer is silent",
            Self::Closed => "the connection is closed",
        })
    }
}

impl core::error::Error for NetError {}

impl embedded_io::Error for NetError {
    fn kind(&self) -> embedded_io::ErrorKind {
        match self {
            Self::Timeout => embedded_io::ErrorKind::TimedOut,
            Self::Closed => embedded_io::ErrorKind::ConnectionReset,
        }
    }
}

impl phy::Device for Device<'_> {
    type RxToken<'t>
        = Frame<'t>
    where
        Self: 't;
    type TxToken<'t>
        = Room<'t>
    where
        Self: 't;

    fn receive(&mut self, _: Instant) -> Option<(Frame<'_>, Room<'_>)> {
        if !self.chip.has_room() {
            return None; // an answer might be due, and could not be sent
        }
        let len = self.chip.receive(&mut self.frames.received)?;
        Some((Frame(&self.frames.received[..len]), Room(&mut self.chip, &mut self.frames.outgoing)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Room<'_>> {
        self.chip.has_room().then_some(Room(&mut self.chip, &mut self.frames.outgoing))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = MAX_FRAME;
        capabilities.max_burst_size = Some(1);
        capabilities
    }
}

/// A frame that came.
pub struct Frame<'t>(&'t [u8]);

/// Room for a frame to send.
pub struct Room<'t>(&'t mut Lan9118, &'t mut [u8; MAX_FRAME]);

impl phy::RxToken for Frame<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(self.0)
    }
}

impl phy::TxToken for Room<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, fill: F) -> R {
        let frame = &mut self.1[..len];
        let result = fill(frame);
        self.0.send(frame);
        result
    }
}

fn now() -> Instant {
    Instant::from_millis(clock::millis() as i64)
}
