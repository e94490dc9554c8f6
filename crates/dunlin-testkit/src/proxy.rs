//! A bad network between a client and a real server: a TCP proxy on the loopback that stalls, crawls and cuts.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// A port on 127.0.0.1 that leads to another one.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    target: AtomicU16,
    is_over: AtomicBool,
    refuses: AtomicBool,
    stalls: AtomicBool,
    piece: AtomicUsize,
    pause_us: AtomicU64,
    accepted: AtomicUsize,
    links: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    /// A proxy to this port on 127.0.0.1 that passes everything on as it comes.
    ///
    /// # Panics
    /// When the loopback has no port left.
    pub fn to(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("a bound port").port();
        let shared = Arc::new(Shared {
            target: target.into(),
            is_over: false.into(),
            refuses: false.into(),
            stalls: false.into(),
            piece: usize::MAX.into(),
            pause_us: 0.into(),
            accepted: 0.into(),
            links: Mutex::default(),
        });
        let for_thread = shared.clone();
        thread::spawn(move || for_thread.accept(&listener));
        Self { port, shared }
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `mqtt://127.0.0.1:port`
    pub fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }

    /// Connections that have been made.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(SeqCst)
    }

    /// Passes nothing on until [`flow`](Self::flow), in either direction; connections stay. What has been read and
    /// not passed on is held, and lost with a cut.
    pub fn stall(&self) {
        self.shared.stalls.store(true, SeqCst);
    }

    /// Passes on again.
    pub fn flow(&self) {
        self.shared.stalls.store(false, SeqCst);
    }

    /// Passes on pieces of so many bytes at most, with a pause after each, from now on.
    pub fn crawl(&self, piece: usize, pause: Duration) {
        self.shared.piece.store(piece.max(1), SeqCst);
        self.shared.pause_us.store(u64::try_from(pause.as_micros()).unwrap_or(u64::MAX), SeqCst);
    }

    /// Ends all connections. What was under way is lost.
    pub fn cut(&self) {
        self.shared.cut();
    }

    /// Drops new connections as soon as they are made, until [`accept`](Self::accept).
    pub fn refuse(&self) {
        self.shared.refuses.store(true, SeqCst);
    }

    /// Takes new connections again.
    pub fn accept(&self) {
        self.shared.refuses.store(false, SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.is_over.store(true, SeqCst);
        self.shared.cut();
        let _ = TcpStream::connect(("127.0.0.1", self.port)); // ends the wait for a connection
    }
}

impl Shared {
    fn cut(&self) {
        for link in self.links.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = link.shutdown(Shutdown::Both);
        }
    }

    fn accept(self: Arc<Self>, listener: &TcpListener) {
        for near in listener.incoming().flatten() {
            if self.is_over.load(SeqCst) {
                return;
            }
            if self.refuses.load(SeqCst) {
                continue;
            }
            self.accepted.fetch_add(1, SeqCst);
            let _ = self.clone().connect(near);
        }
    }

    fn connect(self: Arc<Self>, near: TcpStream) -> std::io::Result<()> {
        let far = TcpStream::connect(("127.0.0.1", self.target.load(SeqCst)))?;
        near.set_nodelay(true)?;
        far.set_nodelay(true)?;
        self.links.lock().unwrap_or_else(PoisonError::into_inner).extend([near.try_clone()?, far.try_clone()?]);
        let (up, down) = ((near.try_clone()?, far.try_clone()?), (far, near));
        for (from, to) in [up, down] {
            let shared = self.clone();
            thread::spawn(move || shared.pass_on(from, to));
        }
        Ok(())
    }

    fn pass_on(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut buffer = vec![0; 64 * 1024];
        let _ = from.set_read_timeout(Some(Duration::from_millis(50)));
        while !self.is_over.load(SeqCst) {
            if self.stalls.load(SeqCst) {
                thread::sleep(Duration::from_millis(1));
                continue;
            }
            let piece = self.piece.load(SeqCst).min(buffer.len());
            match from.read(&mut buffer[..piece]) {
                Ok(0) => break,
                Ok(n) => {
                    // A stall that has begun meanwhile holds these bytes.
                    while self.stalls.load(SeqCst) && !self.is_over.load(SeqCst) {
                        thread::sleep(Duration::from_millis(1));
                    }
                    if to.write_all(&buffer[..n]).is_err() {
                        break;
                    }
                    thread::sleep(Duration::from_micros(self.pause_us.load(SeqCst)));
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => break,
            }
        }
        // One direction that has ended is passed on; the other may go on.
        let _ = to.shutdown(Shutdown::Write);
    }
}
