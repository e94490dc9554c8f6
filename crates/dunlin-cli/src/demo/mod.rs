//! `dunlin demo`: MQTT clients survive a bad day, told packet by packet.
//!
//! Four clients of the library, each on a [link](link::Link) of its own that shows the packets and can be cut, and a
//! broker. This file is the script. What was promised and what came stands in the [`Ledger`]: it decides how it ends.

mod actor;
mod broker;
mod ledger;
mod link;
mod packet;
mod screen;
mod tls;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use dunlin::{Publish, QoS};

use crate::args::DemoArgs;
use crate::exit::Failure;
use actor::{Actor, Security, Stage};
use broker::Broker;
use ledger::{Ledger, Row};
pub use link::Sabotage;
use packet::Kind;
use screen::{Screen, Way};

const QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

/// Nothing in the story takes longer.
const LIMIT: Duration = Duration::from_secs(5);

/// Runs the demo.
///
/// # Errors
/// Code 1: a promise was broken, or the story did not come to its end. Code 2 and 3: no such broker.
pub fn run(args: &DemoArgs) -> Result<(), Failure> {
    let screen = Arc::new(Screen::new(args.fast));
    let mut story = Story::new(args, screen.clone())?;
    let begin = Instant::now();
    let told = story.tell();
    let is_complete = told.is_ok();
    if let Err(failure) = told {
        screen.verdict(false, format_args!("\nThe story stops here: {}", failure.text));
    }
    let broken = story.close(begin.elapsed());
    match broken.len() {
        0 if is_complete => {
            screen.verdict(true, "Every promise was kept.");
            Ok(())
        }
        0 => Err(Failure::local("the demo did not come to its end")),
        1 => Err(Failure::local(format!("a promise was broken: {}", broken[0]))),
        count => Err(Failure::local(format!("{count} promises were broken"))),
    }
}

struct Story {
    screen: Arc<Screen>,
    ledger: Arc<Ledger>,
    stage: Stage,
    /// Ours, unless the user gave one.
    broker: Option<Broker>,
    sabotage: Option<Sabotage>,
    /// Reports, and is told what to do.
    pump: Actor,
    /// Sees the reports, and gives the orders.
    office: Actor,
    /// Has a will.
    valve: Actor,
    /// Comes late, and sees what state the valve is in.
    watch: Option<Actor>,
    /// Reports and orders so far: no two are the same.
    count: AtomicU32,
}

impl Story {
    fn new(args: &DemoArgs, screen: Arc<Screen>) -> Result<Self, Failure> {
        let ledger = Arc::new(Ledger::default());
        let (broker, stage) = match &args.broker {
            None => {
                let broker = Broker::start().map_err(|error| Failure::local(format!("the broker: {error}")))?;
                screen.line(format_args!("A broker (the crate mqtt5, in memory) listens on {}.", broker.address()));
                let security = args.tls.then(Security::new).transpose()?;
                if security.is_some() {
                    screen.line(
                        "In front of it, in this process, stands a door (rustls): it ends TLS, so that the packets can",
                    );
                    screen.line("be shown, and wants certificates. An authority for both sides was made for this run.");
                }
                let stage = Stage::ours(broker.address(), security, screen.clone(), ledger.clone());
                (Some(broker), stage)
            }
            Some(url) => (None, Stage::theirs(url, screen.clone(), ledger.clone())?),
        };
        if args.tls {
            screen.scene("Who is let in, and who is not");
            stage.refuse()?;
        }
        screen.scene(&format!("Three clients{}; one has a will, one subscribes with a wildcard", stage.credentials()));
        let office = stage.enter("office", |builder, topic| {
            builder.persistent().subscribe(&topic("plant/+/flow"), QoS::ExactlyOnce)
        })?;
        let pump = stage.enter("pump", |builder, _| builder.persistent())?;
        let valve = stage.enter("valve", |builder, topic| {
            builder.will(&Publish::new(&topic("plant/valve/status"), b"gone").at_least_once().retain())
        })?;
        let (sabotage, watch, count) = (args.sabotage, None, AtomicU32::new(0));
        Ok(Self { screen, ledger, stage, broker, sabotage, pump, office, valve, watch, count })
    }

    fn tell(&mut self) -> Result<(), Failure> {
        let screen = self.screen.clone();
        self.subscribe()?;

        screen.scene("A retained message, and a subscriber who comes late");
        self.retained()?;

        screen.scene("QoS 0, 1 and 2, both ways");
        if let Some(how) = self.sabotage {
            self.pump.link.sabotage(how);
        }
        for qos in QOS {
            self.report(qos)?;
            self.all_over()?;
            self.order(qos)?;
            self.all_over()?;
        }

        screen.scene("The link breaks in the middle of QoS 2 exchanges, on the way out");
        screen.say("PUBREC is lost: the pump cannot know whether its message arrived, and sends it again, with DUP.");
        self.with_cut(Way::Down, Kind::Pubrec, |story| story.report(QoS::ExactlyOnce))?;
        // Not PUBCOMP: mqtt5 0.49 answers a PUBREL that it knows nothing of with the longer PUBCOMP of MQTT 5, which is
        // malformed here, and the client rightly hangs up, again and again.
        screen.say("PUBREL is lost: the broker has the message, which must not be sent again; only the release is.");
        self.with_cut(Way::Up, Kind::Pubrel, |story| story.report(QoS::ExactlyOnce))?;

        screen.scene("The same on the way in");
        screen.say("The pump's PUBREC is lost: the broker sends the order again. The pump carries it out once.");
        self.with_cut(Way::Up, Kind::Pubrec, |story| story.order(QoS::ExactlyOnce))?;
        screen.say("The pump's PUBCOMP is lost: the broker releases again.");
        self.with_cut(Way::Up, Kind::Pubcomp, |story| story.order(QoS::ExactlyOnce))?;

        screen.scene("The pump is offline: its messages wait on the device");
        self.offline()?;

        screen.scene("The pump is away: orders wait at the broker");
        self.away()?;

        screen.scene("The broker forgets everybody: the clients subscribe again, with no line of application code");
        self.forgetful()?;

        screen.scene("The valve dies, and its will is carried out");
        self.dies()
    }

    /// A filter that comes at run time, so that both kinds are there when the broker forgets.
    fn subscribe(&self) -> Result<(), Failure> {
        self.pump.client.subscribe(&self.stage.topic("order/pump/#"), QoS::ExactlyOnce)?;
        self.office.saw(Kind::Suback, 1)
    }

    fn retained(&mut self) -> Result<(), Failure> {
        let topic = self.stage.topic("plant/valve/status");
        let online = Publish::new(&topic, b"online").at_least_once().retain();
        self.valve.client.publish(&online)?.wait(LIMIT)?;
        self.ledger.promise("watch", &topic, "online", QoS::AtLeastOnce);
        self.watch = Some(
            self.stage
                .enter("watch", |builder, topic| builder.subscribe(&topic("plant/+/status"), QoS::AtLeastOnce))?,
        );
        self.all_over()
    }

    fn with_cut(&self, way: Way, kind: Kind, action: impl FnOnce(&Self) -> Result<(), Failure>) -> Result<(), Failure> {
        self.pump.link.cut_at(way, kind);
        action(self)?;
        if !self.pump.link.was_cut(LIMIT) {
            return Err(stuck("the packet to cut at"));
        }
        self.pump.comes_back(true)?;
        self.all_over()
    }

    fn offline(&self) -> Result<(), Failure> {
        self.pump.goes()?;
        for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            self.report(qos)?;
        }
        self.pump.note(format_args!("has {} messages waiting", self.pump.client.stats().in_flight));
        match self.pump.client.publish(&Publish::new(&self.stage.topic("plant/pump/flow"), b"0")) {
            Err(error) => self.pump.note(format_args!("is told at once: {error}")),
            Ok(_) => return Err(stuck("the refusal of QoS 0 while offline")),
        }
        self.pump.link.up();
        self.pump.comes_back(true)?;
        self.all_over()
    }

    fn away(&self) -> Result<(), Failure> {
        self.pump.goes()?;
        for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce, QoS::ExactlyOnce] {
            self.order(qos)?;
        }
        self.quiet()?;
        self.pump.link.up();
        self.pump.comes_back(true)?;
        self.all_over()
    }

    fn forgetful(&mut self) -> Result<(), Failure> {
        let subscribers = [Some(&self.office), Some(&self.pump), self.watch.as_ref().filter(|_| self.broker.is_some())];
        let subscribers: Vec<_> = subscribers.into_iter().flatten().collect();
        let subscribed: Vec<_> = subscribers.iter().map(|actor| actor.link.count(Kind::Suback)).collect();
        subscribers.iter().try_for_each(|actor| actor.goes())?;
        if self.broker.is_some() {
            // Last, and when nobody is there to see its will.
            self.valve.goes()?;
            let broker = Broker::start().map_err(|error| Failure::local(format!("the broker: {error}")))?;
            self.screen.note("broker", "is replaced by one that knows nothing");
            self.stage.move_to(broker.address());
            self.broker = Some(broker);
            self.valve.link.lead_to(&self.stage.server);
            self.valve.link.up();
            self.valve.comes_back(false)?;
        } else {
            self.screen.note("broker", "is made to forget: clients of the same names ask it for clean sessions");
            subscribers.iter().try_for_each(|actor| self.stage.wipe(actor.name))?;
        }
        for (actor, count) in subscribers.iter().zip(subscribed) {
            actor.link.lead_to(&self.stage.server);
            actor.link.up();
            actor.comes_back(false)?;
            actor.saw(Kind::Suback, count + 1)?;
        }
        self.report(QoS::ExactlyOnce)?;
        self.order(QoS::ExactlyOnce)?;
        self.all_over()
    }

    fn dies(&self) -> Result<(), Failure> {
        self.ledger.promise("watch", &self.stage.topic("plant/valve/status"), "gone", QoS::AtLeastOnce);
        self.valve.goes()?;
        self.all_over()
    }

    /// The pump reports to the office.
    fn report(&self, qos: QoS) -> Result<(), Failure> {
        self.publish(&self.pump, "office", "plant/pump/flow", qos)
    }

    /// The office gives the pump an order.
    fn order(&self, qos: QoS) -> Result<(), Failure> {
        self.publish(&self.office, "pump", "order/pump/speed", qos)
    }

    fn publish(&self, from: &Actor, to: &'static str, topic: &str, qos: QoS) -> Result<(), Failure> {
        let topic = self.stage.topic(topic);
        let payload = (self.count.fetch_add(1, Ordering::Relaxed) + 1).to_string();
        self.ledger.promise(to, &topic, &payload, qos);
        let _ = from.client.publish(&Publish::new(&topic, payload.as_bytes()).with_qos(qos))?;
        Ok(())
    }

    /// Waits until everything has arrived and all exchanges are over: what comes next is to begin with its own packets.
    fn all_over(&self) -> Result<(), Failure> {
        if !self.ledger.wait(LIMIT) {
            return Err(stuck("a message"));
        }
        self.quiet()
    }

    fn quiet(&self) -> Result<(), Failure> {
        let until = Instant::now() + LIMIT;
        let state =
            || self.actors().map(|actor| (actor.link.bytes(), actor.client.stats().in_flight)).collect::<Vec<_>>();
        let mut before = Vec::new();
        while Instant::now() < until {
            let now = state();
            if now == before && now.iter().all(|(_, in_flight)| *in_flight == 0) {
                return Ok(());
            }
            before = now;
            std::thread::sleep(Duration::from_millis(60));
        }
        Err(stuck("the end of all exchanges"))
    }

    fn actors(&self) -> impl Iterator<Item = &Actor> {
        [&self.office, &self.pump, &self.valve].into_iter().chain(&self.watch)
    }

    /// Ends all clients, shows the table, and gives the promises that were broken.
    fn close(self, time: Duration) -> Vec<String> {
        for actor in self.actors() {
            let _ = actor.client.close(Duration::from_secs(1));
        }
        let reconnects: u64 = self.actors().map(|actor| actor.client.stats().connections.saturating_sub(1)).sum();
        let bytes: u64 = self.actors().map(|actor| actor.link.bytes()).sum();
        if self.broker.is_none() {
            self.stage.clean_up(self.actors().map(|actor| actor.name));
        }
        let line = |text: std::fmt::Arguments<'_>| self.screen.line(text);
        line(format_args!("\n         sent  received  duplicates  lost   promise"));
        for (qos, promise) in QOS.into_iter().zip(["at most once", "at least once", "exactly once"]) {
            let Row { sent, received, duplicates, lost } = self.ledger.row(qos);
            let qos = qos.bits();
            line(format_args!("  QoS {qos}{sent:>6}{received:>10}{duplicates:>12}{lost:>6}   {promise}"));
        }
        line(format_args!("  {reconnects} reconnects, {bytes} bytes on the links, {:.1} s", time.as_secs_f32()));
        if let Some((full, resumed)) = self.stage.handshakes() {
            line(format_args!("  {full} TLS handshakes with both certificates verified, {resumed} resumed ones"));
        }
        line(format_args!(""));
        let broken = self.ledger.broken();
        for text in &broken {
            self.screen.verdict(false, format_args!("  broken: {text}"));
        }
        broken
    }
}

/// Nothing came for [`LIMIT`].
fn stuck(what: &str) -> Failure {
    Failure::local(format!("waited {} s for {what}", LIMIT.as_secs()))
}
