//! Running `dunlin`, and what it is run against.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use dunlin::QoS;
use dunlin::blocking::{Client, Message};
use dunlin_testkit::mosquitto::Mosquitto;

/// Longer than anything takes, also on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(60);

/// `dunlin` with these arguments, separated by spaces.
pub fn dunlin(arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dunlin"));
    command.args(arguments.split_whitespace()).env_remove("DUNLIN_PASSWORD");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// `dunlin` against this broker.
pub fn dunlin_at(broker: &Mosquitto, arguments: &str) -> Command {
    let mut command = dunlin(arguments);
    command.args(["-h", "127.0.0.1", "-p", &broker.port().to_string()]);
    command
}

/// A command that runs. Killed when dropped.
pub struct Running {
    child: Child,
    stdout: Option<JoinHandle<String>>,
    stderr: Option<JoinHandle<String>>,
}

impl Running {
    pub fn start(mut command: Command) -> Self {
        let mut child = command.spawn().expect("the binary");
        let stdout = child.stdout.take().map(read);
        let stderr = child.stderr.take().map(read);
        Self { child, stdout, stderr }
    }

    /// With a standard input that the test writes.
    pub fn with_open_input(mut command: Command) -> (Self, ChildStdin) {
        command.stdin(Stdio::piped());
        let mut running = Self::start(command);
        let stdin = running.child.stdin.take().expect("a pipe");
        (running, stdin)
    }

    /// With something on standard input, which is closed after it.
    pub fn with_input(command: Command, input: impl Into<Vec<u8>>) -> Self {
        let (running, mut stdin) = Self::with_open_input(command);
        let input = input.into();
        // The command may end before it has read everything.
        thread::spawn(move || stdin.write_all(&input));
        running
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(status.expect("kill").success());
    }

    /// Waits for its end: exit code, standard output, standard error.
    pub fn end(mut self) -> (i32, String, String) {
        let status = self.wait();
        let text =
            |reader: &mut Option<JoinHandle<String>>| reader.take().map_or(String::new(), |it| it.join().unwrap());
        (status.code().unwrap_or(-1), text(&mut self.stdout), text(&mut self.stderr))
    }

    fn wait(&mut self) -> ExitStatus {
        let until = Instant::now() + LIMIT;
        loop {
            if let Some(status) = self.child.try_wait().expect("its status") {
                return status;
            }
            assert!(Instant::now() < until, "does not end");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(mut stream: impl Read + Send + 'static) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Runs it to its end.
pub fn run(command: Command) -> (i32, String, String) {
    Running::start(command).end()
}

/// It did what it should, and had nothing to complain about.
#[track_caller]
pub fn succeeds(command: Command) -> String {
    let (code, stdout, stderr) = run(command);
    assert_eq!((code, stderr.as_str()), (0, ""));
    stdout
}

/// It failed with this code and one line that has this text in it.
#[track_caller]
pub fn fails(command: Command, code: i32, text: &str) {
    let (actual, stdout, stderr) = run(command);
    assert_eq!(actual, code, "{stderr}");
    assert!(stderr.starts_with("dunlin: ") && stderr.contains(text), "{stderr}");
    assert_eq!((stderr.lines().count(), stdout.as_str()), (1, ""), "{stderr}");
}

/// Waits until the broker has logged this.
#[track_caller]
pub fn logged(broker: &Mosquitto, text: &str, count: usize) {
    let path = broker.directory().join("log");
    let until = Instant::now() + LIMIT;
    while std::fs::read_to_string(&path).unwrap_or_default().matches(text).count() < count {
        assert!(Instant::now() < until, "the broker never said {text:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A client of the library that sees what is published below `filter`.
pub fn observer(broker: &Mosquitto, filter: &str) -> Client {
    let client =
        Client::builder(&broker.url(), "observer").receive_queue(100_000, 1 << 26).connect().expect("a connection");
    client.subscribe(filter, QoS::ExactlyOnce).expect("a subscription");
    client
}

/// The next message.
#[track_caller]
pub fn next(client: &Client) -> Message {
    client.next_timeout(LIMIT).expect("a client").expect("a message")
}

/// Topic, payload, quality of service, retained.
#[track_caller]
pub fn next_text(client: &Client) -> (String, String, u8, bool) {
    let message = next(client);
    let payload = String::from_utf8_lossy(message.payload()).into_owned();
    (message.topic().to_owned(), payload, message.qos().bits(), message.is_retain())
}

/// A link to a broker that breaks again and again, after so many bytes in both directions together.
pub struct BadLink {
    pub port: u16,
}

impl BadLink {
    /// `lengths` gives how many bytes each connection carries; after the last, links hold.
    pub fn to(broker: &Mosquitto, mut lengths: impl Iterator<Item = usize> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let server = broker.port();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)) else { continue };
                let left =
                    std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(lengths.next().unwrap_or(usize::MAX)));
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (from, to, left) = (from.try_clone().unwrap(), to.try_clone().unwrap(), left.clone());
                    thread::spawn(move || pass(&from, &to, &left));
                }
            }
        });
        Self { port }
    }
}

fn pass(mut from: &TcpStream, mut to: &TcpStream, left: &std::sync::atomic::AtomicUsize) {
    use std::sync::atomic::Ordering::SeqCst;
    let mut buffer = [0; 4096];
    loop {
        let n = from.read(&mut buffer).unwrap_or(0);
        let may = left.load(SeqCst).min(n);
        left.fetch_sub(may, SeqCst);
        if may == 0 || to.write_all(&buffer[..may]).is_err() || may < n {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

/// A server for one connection: answers what comes with these, one after the other, and gives what came first.
pub fn stub(answers: &'static [&'static [u8]]) -> (u16, JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let first = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        serve(&mut stream, answers)
    });
    (port, first)
}

/// What a [`stub`] does with its connection.
pub fn serve(stream: &mut (impl Read + Write), answers: &[&[u8]]) -> Vec<u8> {
    let mut came = Vec::new();
    let mut buffer = [0; 4096];
    for answer in answers {
        came.push(stream.read(&mut buffer).map_or(Vec::new(), |n| buffer[..n].to_vec()));
        let _ = stream.write_all(answer);
    }
    // The other side closes, so that no answer is lost in a reset.
    while stream.read(&mut buffer).is_ok_and(|n| n > 0) {}
    came.swap_remove(0)
}
