#![no_std]
#![no_main]
//! What the session itself costs: ticks and stack of each exchange, with a broker made of bytes.
//!
//! From the call to the acknowledgement handled, without any transport: only calls into the session are counted. In
//! QEMU with `-icount`, ticks are instructions by a fixed factor.
use board::{clock, host, say, stack};
use cortex_m_rt::entry;
use dunlin_core::{Event, Filter, Inbox, Instant, Options, Publish, QoS, Session, Storage, Transmit};

const OPTIONS: Options = Options::new("measure-1").subscriptions(TABLE);
const TABLE: &[Filter] = &[Filter::literal("plant/7/#", QoS::ExactlyOnce)];
const TOPIC: &str = "plant/7/pressure";
const PAYLOAD: &[u8; 16] = b"0123456789abcdef";
const ROUNDS: u32 = 2;

#[entry]
fn main() -> ! {
    board::start();
    host::exit(run())
}

fn run() -> Result<(), &'static str> {
    static STORAGE: static_cell::ConstStaticCell<Storage<256, 256, 4>> =
        static_cell::ConstStaticCell::new(Storage::new());
    let (memory, mut inbox) = STORAGE.take().split();
    let mut session = Session::new(OPTIONS, memory);
    let mut meter = Meter { ticks: 0, stack: 0 };
    meter.of(|| {}); // the empty measurement
    let nothing = meter.ticks;
    report("nothing", &meter, 1, 0);

    let mut meter = Meter { ticks: 0, stack: 0 };
    session.open(NOW, &mut inbox);
    let mut peer = Peer { session: &mut session, inbox: &mut inbox, meter: &mut meter, calls: 0 };
    peer.transmit();
    peer.feed(b"\x20\x02\x00\x00");
    peer.poll(); // connected
    peer.transmit(); // the table
    peer.feed(b"\x90\x03\x00\x01\x02");
    peer.poll(); // subscribed
    let calls = peer.calls;
    report("connect", &meter, 1, calls * nothing);

    let mut meter = Meter { ticks: 0, stack: 0 };
    for _ in 0..ROUNDS {
        let mut lent = [0; 128];
        let mut sent = None;
        // From the call to the message in the buffer of the stream: nothing is kept, nothing is to come.
        meter.of(|| sent = session.publish_past(&Publish::new(TOPIC, PAYLOAD), &mut lent).ok().flatten());
        if sent != Some(2 + 2 + TOPIC.len() + PAYLOAD.len()) {
            return Err("not sent");
        }
    }
    report("publish0", &meter, ROUNDS, u64::from(ROUNDS) * nothing);

    for (name, qos) in
        [("publish0-kept", QoS::AtMostOnce), ("publish1", QoS::AtLeastOnce), ("publish2", QoS::ExactlyOnce)]
    {
        let mut meter = Meter { ticks: 0, stack: 0 };
        let mut calls = 0;
        for _ in 0..ROUNDS {
            let mut peer = Peer { session: &mut session, inbox: &mut inbox, meter: &mut meter, calls: 0 };
            peer.publish(qos)?;
            calls += peer.calls;
        }
        report(name, &meter, ROUNDS, calls * nothing);
    }
    for (name, first, id) in [("receive0", 0x30, None), ("receive1", 0x32, Some(7)), ("receive2", 0x34, Some(7))] {
        let mut meter = Meter { ticks: 0, stack: 0 };
        let mut calls = 0;
        for _ in 0..ROUNDS {
            let mut peer = Peer { session: &mut session, inbox: &mut inbox, meter: &mut meter, calls: 0 };
            peer.receive(first, id)?;
            calls += peer.calls;
        }
        report(name, &meter, ROUNDS, calls * nothing);
    }
    Ok(())
}

/// Nothing here depends on time.
const NOW: Instant = Instant::from_millis(1000);

struct Meter {
    ticks: u64,
    stack: usize,
}

impl Meter {
    fn of(&mut self, mut call: impl FnMut()) {
        let mut ticks = 0;
        let stack = stack::needed(|| {
            let before = clock::ticks();
            call();
            ticks = clock::ticks() - before;
        });
        self.ticks += ticks;
        self.stack = self.stack.max(stack);
    }
}

/// The session's calls, each measured, and the broker's bytes.
struct Peer<'p, 's> {
    session: &'p mut Session<'s>,
    inbox: &'p mut Inbox<'s>,
    meter: &'p mut Meter,
    calls: u64,
}

impl Peer<'_, '_> {
    fn publish(&mut self, qos: QoS) -> Result<(), &'static str> {
        let mut id = None;
        let session = &mut *self.session;
        self.calls += 1;
        self.meter.of(|| id = session.publish(&Publish::new(TOPIC, PAYLOAD).with_qos(qos)).ok().flatten());
        self.transmit();
        let Some(id) = id else { return Ok(()) };
        let [high, low] = id.get().to_be_bytes();
        if qos == QoS::ExactlyOnce {
            self.feed(&[0x50, 2, high, low]);
            self.poll();
            self.transmit();
            self.feed(&[0x70, 2, high, low]);
        } else {
            self.feed(&[0x40, 2, high, low]);
        }
        match self.poll() {
            true => Ok(()),
            false => Err("not delivered"),
        }
    }

    fn receive(&mut self, first: u8, id: Option<u8>) -> Result<(), &'static str> {
        let id_len = if id.is_some() { 2 } else { 0 };
        self.feed(&[first, 2 + TOPIC.len() as u8 + id_len + PAYLOAD.len() as u8, 0, TOPIC.len() as u8]);
        self.feed(TOPIC.as_bytes());
        if let Some(id) = id {
            self.feed(&[0, id]);
        }
        self.feed(PAYLOAD);
        if !self.poll() {
            return Err("not received");
        }
        self.poll(); // handled
        self.transmit();
        if first == 0x34 {
            self.feed(&[0x62, 2, 0, 7]);
            self.poll();
            self.transmit();
        }
        Ok(())
    }

    fn feed(&mut self, bytes: &[u8]) {
        self.inbox.push(bytes);
    }

    /// Whether it was an event to tell the application.
    fn poll(&mut self) -> bool {
        let mut event = false;
        let (session, inbox) = (&mut *self.session, &mut *self.inbox);
        self.calls += 1;
        self.meter.of(|| {
            event = matches!(session.poll(NOW, inbox), Ok(Some(Event::Message(_) | Event::Delivered(_))));
        });
        event
    }

    fn transmit(&mut self) {
        let mut out = [0; 128];
        let session = &mut *self.session;
        self.calls += 1;
        self.meter.of(|| while let Transmit::Bytes(_) = session.transmit(NOW, &mut out) {});
    }
}

fn report(name: &str, meter: &Meter, rounds: u32, overhead: u64) {
    say!("@ cost {name} {} {}", meter.ticks.saturating_sub(overhead) / u64::from(rounds), meter.stack);
}
