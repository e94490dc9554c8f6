//! A link between one client and the server, that shows the packets on it and can be cut at any of them.
//!
//! A proxy on loopback. It forwards whole packets, so a cut falls between two of them: what a story needs. The tests of
//! the library cut at every byte.

use std::io::{self, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::LIMIT;
use super::packet::{Kind, Packet};
use super::screen::{Fate, Screen, Way};
use super::tls::{Door, Wire};

/// A link. Dropping it leaves its threads to end with the process.
#[derive(Clone)]
pub struct Link(Arc<Shared>);

struct Shared {
    name: &'static str,
    address: SocketAddr,
    screen: Arc<Screen>,
    /// Where TLS ends, if there is any.
    door: Option<Arc<Door>>,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    server: String,
    is_up: bool,
    /// Whether connections are accepted: follows `is_up`.
    is_listening: bool,
    /// Both ends of the connection that is up.
    wires: Option<(Arc<Wire>, Arc<Wire>)>,
    cut: Option<Cut>,
    sabotage: Option<Sabotage>,
    bytes: u64,
    /// Packets forwarded, by their kind.
    counts: [usize; 16],
}

/// Where to cut the link: instead of forwarding the next packet of this kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cut {
    way: Way,
    kind: Kind,
}

/// A promise to break, so that one can see that it is noticed. Works once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Sabotage {
    /// Swallow a message at QoS 1 and acknowledge it all the same
    Lose,
    /// Hand a message at QoS 2 to the server twice
    Double,
}

/// The packet identifier of the forged copy: clients count from 1 and do not get here.
const FORGED: u16 = 0xFFF0;

impl Link {
    /// A link to `server` (host and port), up; clients come in through the door.
    ///
    /// # Errors
    /// No port on loopback.
    pub fn new(name: &'static str, server: &str, screen: Arc<Screen>, door: Option<Arc<Door>>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let (server, counts) = (server.to_owned(), [0; 16]);
        let state =
            State { server, is_up: true, is_listening: true, wires: None, cut: None, sabotage: None, bytes: 0, counts };
        let address = listener.local_addr()?;
        let (state, changed) = (Mutex::new(state), Condvar::new());
        let link = Self(Arc::new(Shared { name, address, screen, door, state, changed }));
        listener.set_nonblocking(true)?;
        let listening = link.clone();
        thread::spawn(move || listening.listen(listener));
        Ok(link)
    }

    /// What the client connects to.
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// Cuts the link instead of forwarding the next `kind` of packet in this direction.
    pub fn cut_at(&self, way: Way, kind: Kind) {
        self.state().cut = Some(Cut { way, kind });
    }

    /// Waits for that cut.
    #[must_use]
    pub fn was_cut(&self, limit: Duration) -> bool {
        let waiting = self.0.changed.wait_timeout_while(self.state(), limit, |state| state.cut.is_some());
        !waiting.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Cuts the link, and keeps it down.
    pub fn down(&self) {
        let mut state = self.state();
        state.is_up = false;
        state.close();
        let _down = self.0.changed.wait_while(state, |state| state.is_listening);
    }

    /// Lets connections through again.
    pub fn up(&self) {
        self.state().is_up = true;
    }

    /// Leads to another server from the next connection on.
    pub fn lead_to(&self, server: &str) {
        self.state().server = server.to_owned();
    }

    /// Breaks a promise, once.
    pub fn sabotage(&self, how: Sabotage) {
        self.state().sabotage = Some(how);
    }

    /// Bytes forwarded, both ways.
    pub fn bytes(&self) -> u64 {
        self.state().bytes
    }

    /// Packets of this kind forwarded, either way.
    pub fn count(&self, kind: Kind) -> usize {
        self.state().counts[kind as usize]
    }

    /// Waits until so many packets of this kind have been forwarded.
    #[must_use]
    pub fn wait_for(&self, kind: Kind, count: usize, limit: Duration) -> bool {
        let state = self.state();
        let waiting = self.0.changed.wait_timeout_while(state, limit, |state| state.counts[kind as usize] < count);
        !waiting.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Accepts connections while the link is up. While it is down they are refused, as by a server that is not there.
    fn listen(&self, listener: TcpListener) {
        let mut listener = Some(listener);
        loop {
            let is_up = self.state().is_up;
            match (&listener, is_up) {
                (Some(listening), true) => {
                    if let Ok((client, _)) = listening.accept() {
                        let _ = self.serve(client);
                        continue;
                    }
                }
                (None, true) => {
                    listener = TcpListener::bind(self.0.address).ok();
                    if let Some(listener) = &listener {
                        let _ = listener.set_nonblocking(true);
                    }
                }
                (_, false) => listener = None,
            }
            self.state().is_listening = listener.is_some();
            self.0.changed.notify_all();
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn serve(&self, client: TcpStream) -> io::Result<()> {
        client.set_nonblocking(false)?;
        client.set_nodelay(true)?;
        let client = Arc::new(match &self.0.door {
            None => Wire::Plain(client),
            Some(door) => {
                // Whoever does not get in is not heard of at the broker.
                client.set_read_timeout(Some(LIMIT))?;
                let (wire, text) = door.let_in(client.try_clone()?).inspect_err(|error| {
                    self.0.screen.note("door", format_args!("does not let {} in: {error}", self.0.name));
                })?;
                client.set_read_timeout(None)?;
                self.0.screen.note("door", text);
                wire
            }
        });
        let server = TcpStream::connect(self.state().server.clone())?;
        server.set_nodelay(true)?;
        let server = Arc::new(Wire::Plain(server));
        self.state().wires = Some((client.clone(), server.clone()));
        for (way, from, to) in [(Way::Up, client.clone(), server.clone()), (Way::Down, server, client)] {
            let link = self.clone();
            thread::spawn(move || {
                let _ = link.forward(way, &from, &to);
                from.shut();
                to.shut();
            });
        }
        Ok(())
    }

    fn forward(&self, way: Way, mut from: &Wire, mut to: &Wire) -> io::Result<()> {
        let mut reader = BufReader::new(from);
        loop {
            let packet = Packet::read(&mut reader)?;
            let mut state = self.state();
            if packet.id() == Some(FORGED) {
                if packet.kind == Kind::Pubrec {
                    from.write_all(&Packet::ack(Kind::Pubrel, FORGED).bytes)?;
                }
                continue;
            }
            if state.cut == Some(Cut { way, kind: packet.kind }) {
                self.0.screen.packet(self.0.name, way, &packet, Fate::Lost);
                state.cut = None;
                state.close();
                self.0.changed.notify_all();
                return Ok(());
            }
            match (state.sabotage, way, packet.kind, packet.qos(), packet.id()) {
                (Some(Sabotage::Lose), Way::Up, Kind::Publish, 1, Some(id)) => {
                    state.sabotage = None;
                    from.write_all(&Packet::ack(Kind::Puback, id).bytes)?;
                    continue;
                }
                (Some(Sabotage::Double), Way::Up, Kind::Publish, 2, _) => {
                    state.sabotage = None;
                    to.write_all(&packet.with_id(FORGED).bytes)?;
                }
                _ => {}
            }
            // Shown first: nobody is to see an answer before what it answers.
            self.0.screen.packet(self.0.name, way, &packet, Fate::Passed);
            state.bytes += packet.bytes.len() as u64;
            state.counts[packet.kind as usize] += 1;
            drop(state);
            to.write_all(&packet.bytes)?;
            self.0.changed.notify_all();
        }
    }
}

impl State {
    fn close(&mut self) {
        if let Some((client, server)) = self.wires.take() {
            client.shut();
            server.shut();
        }
    }
}
