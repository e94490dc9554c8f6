//! `--store`: what survives SIGKILL, judged from outside of the process that is killed.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use dunlin::blocking::Client;
use dunlin::{Publish, QoS};
use dunlin_store::{FileStore, Store};
use dunlin_testkit::Rng;
use dunlin_testkit::mosquitto::Mosquitto;

use crate::tool::{LIMIT, Running, dunlin, dunlin_at, fails, run, succeeds};

/// Mosquitto keeps the order of messages only with a window of one, or with none.
const IN_ORDER: &str = "max_inflight_messages 0\n";
const KILLS: u32 = 50;

/// A directory that goes with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("dunlin-cli-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn store(&self) -> PathBuf {
        self.0.join("store")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Lets it live for a moment, from before its start is over to well into its work.
fn kill(mut child: Child, rng: &mut Rng) {
    let life = Duration::from_micros(3_000 + rng.below(150_000) as u64);
    // What is timed is how long the other process runs; nothing is awaited here.
    std::thread::park_timeout(life);
    child.kill().unwrap();
    child.wait().unwrap();
}

/// How many messages the store has taken.
fn taken(store: &Path) -> u32 {
    match FileStore::read_only(store) {
        Ok(store) => store.last().map_or(0, |(_, order)| order + 1),
        Err(dunlin_store::StoreError::Medium(error)) if error.kind() == ErrorKind::NotFound => 0,
        // It was killed before its first record was whole.
        Err(dunlin_store::StoreError::Region) => 0,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn lines_that_the_store_has_taken_arrive_once_and_in_order_through_fifty_kills() {
    let broker = Mosquitto::with(IN_ORDER);
    let receiver = Client::builder(&broker.url(), "office").subscribe("till", QoS::ExactlyOnce).connect().unwrap();
    receiver.subscribe("ready", QoS::AtMostOnce).unwrap();
    let scratch = Scratch::new("pub");
    let mut rng = Rng::new(11);
    let publish = |arguments: &str| -> Command {
        let mut command = dunlin_at(&broker, arguments);
        command.args(["-i", "till", "-q", "2", "--quiet", "--store"]).arg(scratch.store());
        command
    };
    for _ in 0..KILLS {
        let next = taken(&scratch.store()) + 1;
        let mut child = publish("pub -t till -l").stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let feeder = std::thread::spawn(move || {
            let mut number = next;
            while writeln!(stdin, "{number}").is_ok() {
                number += 1;
            }
        });
        kill(child, &mut rng);
        feeder.join().unwrap();
    }
    let total = taken(&scratch.store());
    assert!(total > KILLS, "{total} messages");
    // What is left is delivered by a run that publishes nothing.
    let (code, _, error) = Running::start(publish("pub")).end();
    assert_eq!(code, 0, "{error}");
    for number in 1..=total {
        let message = receiver.next_timeout(LIMIT).unwrap().expect("a message that the store had taken");
        assert_eq!(message.payload(), number.to_string().as_bytes());
    }
    assert!(receiver.next_timeout(Duration::from_millis(200)).unwrap().is_none(), "one more");
    println!("killed {KILLS} times; {total} lines taken, each received once and in order");
}

#[test]
fn messages_are_printed_once_through_fifty_kills_and_those_printed_again_are_flagged() {
    let broker = Mosquitto::with(IN_ORDER);
    let scratch = Scratch::new("sub");
    let mut rng = Rng::new(12);
    let (out, errors) = (scratch.0.join("out"), scratch.0.join("errors"));
    let append = |path: &Path| -> File { OpenOptions::new().create(true).append(true).open(path).unwrap() };
    let subscribe = || {
        let mut command = dunlin_at(&broker, "sub -t till -q 2 -i office --reconnect-min 0.01");
        command.arg("--store").arg(scratch.store()).stdout(append(&out)).stderr(append(&errors));
        command
    };
    // The server has to know the session before there is anything to keep for it.
    let mut child = subscribe().spawn().unwrap();
    let till = Client::connect(&broker.url(), "till").unwrap();
    while !broker.log().contains("Sending SUBACK to office") {
        assert!(child.try_wait().unwrap().is_none(), "{}", fs::read_to_string(&errors).unwrap());
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let mut number = 0;
    for _ in 0..KILLS {
        let child = subscribe().spawn().unwrap();
        for _ in 0..40 {
            number += 1;
            let _ = till.publish(&Publish::new("till", number.to_string().as_bytes()).exactly_once()).unwrap();
        }
        kill(child, &mut rng);
    }
    let _ = till.publish(&Publish::new("till", b"end").exactly_once()).unwrap();
    let mut child = subscribe().spawn().unwrap();
    while !fs::read_to_string(&out).unwrap().ends_with("end\n") {
        assert!(child.try_wait().unwrap().is_none(), "{}", fs::read_to_string(&errors).unwrap());
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();

    // A run that begins goes back to where the marks that were stored end, and on from there without a gap. mosquitto
    // 2.0.11 sends a PUBLISH once more after its PUBREL, if two connections break behind that: then these come again, and
    // those behind them that are known still do not. Packet identifiers count as the messages do.
    let log = broker.log();
    let is_released_before = |number: u32| {
        let (before, _) = log.rsplit_once(&format!("PUBLISH to office (d1, q2, r0, m{number},")).unwrap_or_default();
        before.contains(&format!("Sending PUBREL to office (m{number})"))
    };
    let printed = fs::read_to_string(&out).unwrap();
    let (mut newest, mut last, mut again, mut went_back) = (0, 0, 0, 0);
    for line in printed.lines().filter(|line| *line != "end") {
        let this: u32 = line.parse().unwrap();
        let is_next = this <= last + 1 || (this <= newest + 1 && is_released_before(last));
        assert!(is_next, "{this} after {last}");
        went_back += u32::from(this <= last);
        again += usize::from(this <= newest);
        newest = newest.max(this);
        last = this;
    }
    assert_eq!((newest, last), (number, number), "nothing is missing");
    let flagged = fs::read_to_string(&errors).unwrap().matches("may have been printed before").count();
    assert!(again <= flagged && went_back <= KILLS, "{again} printed again, {flagged} flagged, {went_back} times");
    println!("killed {KILLS} times; {number} messages, {again} printed again, {flagged} flagged");
}

#[test]
fn one_process_at_a_time_and_never_without_an_identifier() {
    let scratch = Scratch::new("lock");
    let store = scratch.store();
    let held = FileStore::open(&store).unwrap();
    let mut command = dunlin("pub -t a -m b -q 2 -i till --store");
    command.arg(&store);
    let (code, _, error) = Running::start(command).end();
    assert_eq!(code, 1, "{error}");
    assert!(error.contains("another process uses the store"), "{error}");
    drop(held);
    let mut command = dunlin("pub -t a -m b -q 2 --store");
    command.arg(&store);
    let (code, _, error) = Running::start(command).end();
    assert_eq!(code, 2, "{error}");
    assert!(error.contains("-i"), "{error}");
}

#[test]
fn a_file_that_is_no_log_is_said_and_put_aside() {
    let scratch = Scratch::new("diary");
    let store = scratch.store();
    fs::create_dir_all(&store).unwrap();
    fs::write(store.join("log"), "the diary of somebody else, page by page").unwrap();
    let show = || {
        let mut command = dunlin("store show");
        command.arg(&store);
        command
    };
    fails(show(), 1, "nothing in the log can be read");
    let mut command = dunlin("pub -p 9 -t a -m b -q 2 -i till -W 0 --quiet --store");
    command.arg(&store);
    let (_, _, error) = run(command);
    assert!(error.contains("put aside"), "{error}");
    assert!(store.join("log.unreadable.1").exists());
    succeeds(show());
}
