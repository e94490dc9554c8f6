//! A real broker for tests: mosquitto on a free port of the loopback, in a directory of its own.
//!
//! Found as `mosquitto` or `/usr/sbin/mosquitto`; Debian has it in the package of that name. Ended, with its directory,
//! when the value is dropped.

use std::hash::BuildHasher;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// One broker. It can be killed and started again on the same port, with what it had saved.
#[derive(Debug)]
pub struct Mosquitto {
    directory: PathBuf,
    port: u16,
    child: Option<Child>,
    /// Ends the broker when this process is gone, however that came.
    guard: Option<Child>,
}

impl Mosquitto {
    /// A broker that lets everybody in, queues without limit and keeps nothing over a restart.
    ///
    /// # Panics
    /// When mosquitto is not installed or does not start.
    pub fn start() -> Self {
        Self::with("")
    }

    /// The same with more lines of `mosquitto.conf`, which may name files in [`directory`](Self::directory) relative
    /// to it.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub fn with(config: &str) -> Self {
        Self::with_files(config, &[])
    }

    /// The same, with files for it to read.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub fn with_files(config: &str, files: &[(&str, &str)]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("dunlin-mosquitto-{}-{count}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory for the broker");
        let port = free_port();
        let config = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\nuser root\nmax_queued_messages 0\n\
             persistence_location {}/\n{config}\n",
            directory.display()
        );
        std::fs::write(directory.join("mosquitto.conf"), config).expect("a configuration");
        for (name, text) in files {
            std::fs::write(directory.join(name), text).expect("a file for the broker");
        }
        let mut broker = Self { directory, port, child: None, guard: None };
        broker.restart();
        broker
    }

    /// A broker with persistence that saves its state within a second of each change, and when told to by
    /// [`save`](Self::save).
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub fn persistent() -> Self {
        Self::with("persistence true\nautosave_on_changes true\nautosave_interval 1\n")
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `mqtt://127.0.0.1:port`
    pub fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }

    /// Its directory, which it starts in.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Its process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// What it has written since it was started: a line for each packet.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    /// Ends it with SIGKILL: what it had not saved is gone.
    pub fn kill(&mut self) {
        self.release();
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Ends it with SIGTERM: it saves and says goodbye to nobody.
    pub fn stop(&mut self) {
        self.release();
        if let Some(mut child) = self.child.take() {
            signal(&child, "TERM");
            let _ = child.wait();
        }
    }

    /// Stops it from running until [`go_on`](Self::go_on): connections stay, nothing is read or answered.
    pub fn freeze(&self) {
        self.child.iter().for_each(|child| signal(child, "STOP"));
    }

    /// Goes on after [`freeze`](Self::freeze).
    pub fn go_on(&self) {
        self.child.iter().for_each(|child| signal(child, "CONT"));
    }

    /// Makes it save its state. Gives when that is done, for state that existed before.
    ///
    /// # Panics
    /// When nothing is saved within ten seconds.
    pub fn save(&self) {
        let database = self.directory.join("mosquitto.db");
        let written = || std::fs::metadata(&database).and_then(|data| data.modified()).ok();
        let before = written();
        self.child.iter().for_each(|child| signal(child, "USR1"));
        wait_until("the broker saves its state", || written() != before);
    }

    /// Starts it, if it does not run, with what it had saved.
    ///
    /// # Panics
    /// When it does not start.
    pub fn restart(&mut self) {
        if self.child.is_some() {
            return;
        }
        let log = std::fs::File::create(self.directory.join("log")).expect("a log for the broker");
        let child = Command::new(executable())
            .arg("-v")
            .args(["-c", "mosquitto.conf"])
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("mosquitto: is it installed? (apt-get install mosquitto)");
        self.release();
        // Its standard input ends with this process.
        let guard = format!("read _; kill -KILL {}", child.id());
        self.guard = Command::new("sh").args(["-c", &guard]).stdin(Stdio::piped()).spawn().ok();
        self.child = Some(child);
        wait_until("the broker listens", || TcpStream::connect(("127.0.0.1", self.port)).is_ok());
    }
}

impl Mosquitto {
    /// The broker has ended: there is nothing to guard.
    fn release(&mut self) {
        if let Some(mut guard) = self.guard.take() {
            let _ = guard.kill();
            let _ = guard.wait();
        }
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.go_on();
        self.release();
        self.kill();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// A port that nobody listens on.
///
/// # Panics
/// When the loopback has none.
pub fn free_port() -> u16 {
    // Below those that systems give to outgoing connections: none of them takes it while a broker is away.
    const PORTS: std::ops::Range<u64> = 10_000..32_000;
    let random = || std::collections::hash_map::RandomState::new().hash_one(());
    std::iter::repeat_with(random)
        .take(1000)
        .map(|number| u16::try_from(PORTS.start + number % (PORTS.end - PORTS.start)).expect("a port"))
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a free port")
}

fn executable() -> &'static str {
    if Path::new("/usr/sbin/mosquitto").exists() { "/usr/sbin/mosquitto" } else { "mosquitto" }
}

fn signal(child: &Child, name: &str) {
    let _ = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status();
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !is_so() {
        assert!(Instant::now() < end, "not in ten seconds: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
