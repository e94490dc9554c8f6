//! Power cuts on the target: the emulator is killed at random instants, its flash is a file that stays.
//!
//! The verdict is a ledger's: a subscriber of its own at the broker, with the testkit's codec, which shares no code with
//! the session under test.

use std::collections::HashSet;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use dunlin_testkit::mosquitto::Mosquitto;
use dunlin_testkit::packet::{Connect, Packet, Stream};
use dunlin_testkit::seed::{Rng, SEED};

use super::qemu::Run;

/// Bytes of the flash; `board::flash::SIZE`.
const FLASH: usize = 8 * 4096;
const TOPIC: &str = "till/1/sale";
/// Each run numbers its messages from a multiple of this on: it cannot sell so many.
const RUN: u32 = 100_000;

/// Kills the image so often while it sells, lets it come to its end, and compares.
pub fn run(image: &Path, kills: usize) -> Result<()> {
    let seed = std::env::var(SEED).ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let mut rng = Rng::new(seed);
    let broker = Mosquitto::start();
    let flash = broker.directory().join("flash");
    fs::write(&flash, vec![0xff; FLASH])?;
    let ledger = Ledger::open(broker.port())?;
    let mut runs = Vec::new();
    let (mut messages, mut released, mut in_recovery) = (0, 0, 0);
    let image = |goal: &str, first: u32| {
        Run::new(image).argument(broker.port()).argument(flash.display()).argument(goal).argument(first)
    };
    for (kill, first) in (0..kills).zip((RUN..).step_by(RUN as usize)) {
        // A quarter of them while it starts: in the mount, in the recovery, in the handshake.
        let sales = if kill % 4 == 3 { 0 } else { rng.below(24) };
        let delay = Duration::from_micros(rng.below(if sales == 0 { 150_000 } else { 15_000 }) as u64);
        let report =
            image("sell", first).killed_after("@ accepted", sales, delay).with_context(|| format!("kill {kill}"))?;
        // The last line may be cut short.
        let newest = report.figures("accepted").filter_map(|words| words.first()?.parse().ok()).max();
        runs.push((first, newest.map_or(0, |newest: u32| newest.saturating_sub(first) + 1)));
        match report.figures("recovered").next().as_deref() {
            Some([open, past_pubrec, damage]) => {
                messages += open.parse::<u32>()?;
                released += past_pubrec.parse::<u32>()?;
                ensure!(*damage == "0", "kill {kill}: the store reports damage");
            }
            _ => in_recovery += 1,
        }
    }
    image("last", 0).finish()?;
    let received = ledger.close()?;
    compare(&received, &runs).with_context(|| format!("the order as received: {received:?}"))?;
    let count = received.len();
    println!(
        "killed {kills} times ({SEED}={seed}; {in_recovery} times before it had recovered): {count} messages at QoS 2, each \
         received once and in order; {messages} came back from flash to be sent again, {released} to be released"
    );
    Ok(())
}

/// Each run, its first number and how many messages it said were accepted: all of them have come, once and in order, and at
/// most one more that was accepted and not said to be.
fn compare(received: &[u32], runs: &[(u32, u32)]) -> Result<()> {
    let mut rest = received.iter().copied().peekable();
    for (first, accepted) in runs {
        let arrived = (*first..).take_while(|number| rest.next_if_eq(number).is_some()).count();
        let said = usize::try_from(*accepted)?;
        ensure!(
            arrived == said || arrived == said + 1,
            "of the messages from {first} on, {said} were accepted, {arrived} arrived in order, and then {:?}",
            rest.peek()
        );
    }
    ensure!(rest.peek().is_none(), "{:?} came again", rest.peek());
    Ok(())
}

/// A subscriber that notes every message once, as QoS 2 asks of a receiver.
struct Ledger {
    outcome: mpsc::Receiver<Result<Vec<u32>>>,
}

impl Ledger {
    /// Returns when it is subscribed.
    fn open(port: u16) -> Result<Self> {
        let (sender, outcome) = mpsc::channel();
        let (ready, is_ready) = mpsc::channel();
        thread::spawn(move || drop(sender.send(read(port, &ready))));
        is_ready.recv().context("the ledger cannot subscribe")?;
        Ok(Self { outcome })
    }

    /// What was received, once the message came that says it was the last.
    fn close(self) -> Result<Vec<u32>> {
        self.outcome.recv_timeout(Duration::from_secs(60)).context("the last message has not come")?
    }
}

fn read(port: u16, ready: &mpsc::Sender<()>) -> Result<Vec<u32>> {
    let mut tcp = TcpStream::connect(("127.0.0.1", port))?;
    let connect =
        Connect { client_id: "ledger".into(), clean: true, keep_alive: 0, will: None, user_name: None, password: None };
    tcp.write_all(&Packet::Connect(connect).encode())?;
    tcp.write_all(&Packet::Subscribe { id: 1, filters: vec![(TOPIC.into(), 2)] }.encode())?;
    let mut stream = Stream::default();
    let mut unreleased = HashSet::new();
    let mut received = Vec::new();
    let mut bytes = [0; 4096];
    loop {
        let count = tcp.read(&mut bytes)?;
        ensure!(count > 0, "the broker has hung up on the ledger");
        stream.push(&bytes[..count]);
        while let Some(packet) = stream.next_packet().map_err(|breach| anyhow::anyhow!("{breach:?}"))? {
            match packet {
                Packet::Suback { .. } => ready.send(())?,
                Packet::Publish { id, message, .. } => {
                    if unreleased.insert(id) {
                        let text = String::from_utf8(message.payload)?;
                        if text == "end" {
                            return Ok(received);
                        }
                        received.push(text.parse().with_context(|| format!("not a number: {text}"))?);
                    }
                    tcp.write_all(&Packet::Pubrec(id).encode())?;
                }
                Packet::Pubrel(id) => {
                    unreleased.remove(&id);
                    tcp.write_all(&Packet::Pubcomp(id).encode())?;
                }
                Packet::Connack { code: 0, .. } => {}
                other => bail!("the ledger was sent {other:?}"),
            }
        }
    }
}
