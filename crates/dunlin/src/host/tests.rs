//! The client without threads and sockets, against the model broker: what has to be seen from inside.

use std::cell::Cell;
use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, Wake, Waker};
use std::time::Duration;

use dunlin_core::Fault;
use dunlin_testkit::{Broker, LinkId, Message as Sent, PUBREC, Rng, Then, seeds};

use super::pump::{Next, Pump, Turn};
use super::*;
use crate::reconnect::Backoff;

/// A client, its driver's side, and a broker.
struct World {
    host: Arc<Host>,
    pump: Pump,
    broker: Broker,
    link: Option<LinkId>,
}

/// Takes so many bytes.
struct Up {
    left: usize,
    bytes: Vec<u8>,
}

impl Write for Up {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = bytes.len().min(self.left);
        self.left -= n;
        self.bytes.extend(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn builder() -> Builder {
    Builder::new("mqtt://localhost", "client").persistent().reconnect(Backoff::new(Duration::ZERO, Duration::ZERO))
}

impl World {
    fn new(builder: Builder) -> Self {
        let (_, settings) = builder.finish().unwrap();
        let host = Arc::new(Host::new(settings, std::time::Instant::now).unwrap());
        let pump = Pump::new(host.clone(), false);
        Self { host, pump, broker: Broker::new(), link: None }
    }

    fn open(&mut self) {
        self.link = Some(self.broker.accept(0));
        self.pump.open();
    }

    /// Passes bytes on until nothing moves, or until so many have gone up: then the link is cut.
    fn run(&mut self, mut bytes: usize) -> Turn {
        let link = self.link.unwrap();
        loop {
            let turn = self.pump.turn();
            let mut up = Up { left: bytes, bytes: Vec::new() };
            while self.pump.has_output() && up.left > 0 {
                self.pump.write_to(&mut up).unwrap();
            }
            self.broker.receive(link, &up.bytes, 0);
            let n = up.bytes.len();
            bytes -= n;
            if bytes == 0 {
                self.cut();
                return turn;
            }
            let space = self.pump.space();
            let came = self.broker.output(link, space.len());
            space[..came.len()].copy_from_slice(&came);
            self.pump.filled(came.len());
            if n == 0 && came.is_empty() {
                return turn;
            }
        }
    }

    fn cut(&mut self) {
        self.broker.hung_up(self.link.take().unwrap(), 0);
        assert!(matches!(self.pump.lost(Reason::ServerClosed), Next::Retry(_)));
    }

    fn publish(&self, message: &Publish<'_>) -> Poll<Result<Delivery, Error>> {
        self.host.poll_publish(message, None, Replace::Nothing, &mut 0, None)
    }

    fn received(&self) -> Vec<Message> {
        std::iter::from_fn(|| match self.host.poll_message(&mut 0, None) {
            Poll::Ready(Ok(message)) => Some(message),
            _ => None,
        })
        .collect()
    }
}

#[test]
fn ten_thousand_connections_that_are_cut_leak_nothing_lose_nothing_and_double_nothing() {
    // [E09]
    for seed in seeds(1) {
        let mut rng = Rng::new(seed);
        let mut world = World::new(builder().queue(8, 100_000).subscribe("in/#", QoS::ExactlyOnce));
        let (mut sent, mut came) = (0_u32, 0_u32);
        world.open();
        let _ = world.run(usize::MAX);
        world.cut();
        for _ in 0..10_000 {
            let payload = sent.to_string();
            let large = vec![b'x'; 20_000 + rng.below(5)];
            // The model keeps its whole history, so few enough to finish.
            if rng.chance(1, 30)
                && let Poll::Ready(delivery) = world.publish(&Publish::new("out", payload.as_bytes()).exactly_once())
            {
                drop(delivery.unwrap());
                world.broker.publish(Sent::new("in/x", &payload).qos(2));
                sent += 1;
            }
            world.open();
            let most = *rng.pick(&[60, 150, 600]);
            let bytes = 1 + rng.below(most);
            let _ = world.run(bytes);
            if world.link.is_some() {
                // Large ones at QoS 0 lie outside the session's memory, and go with the link.
                let _ = world.publish(&Publish::new("lost", &large));
                world.cut();
            }
            for message in world.received() {
                assert_eq!(message.text(), Some(came.to_string().as_str()));
                came += 1;
            }
        }
        world.open();
        let _ = world.run(usize::MAX);
        came += world.received().len() as u32;
        assert_eq!(came, sent);
        let payloads: Vec<_> =
            world.broker.received_from("client").into_iter().map(|message| message.payload).collect();
        assert_eq!(payloads, (0..sent).map(|n| n.to_string().into_bytes()).collect::<Vec<_>>());
        assert_eq!(world.broker.breaches(), []);
        let state = world.host.state();
        assert_eq!((state.deliveries.count(), state.payloads.len(), state.load), (0, 0, Load::default()));
        assert_eq!(state.unfinished_count(), 0);
        assert!(sent > 200, "{sent}");
    }
}

#[test]
fn no_more_messages_are_in_flight_than_the_window_lets_through() {
    let mut world = World::new(builder().window(3));
    world.broker.always(PUBREC, Then::Hold);
    for n in 0..10 {
        let Poll::Ready(Ok(_)) = world.publish(&Publish::new("a", &[n]).exactly_once()) else { panic!("no room") };
    }
    world.open();
    let _ = world.run(usize::MAX);
    assert_eq!(world.broker.awaiting_release("client").len(), 3);
    // A message at QoS 0 keeps its place behind those that wait, and its room until it has left.
    let Poll::Ready(Ok(_)) = world.publish(&Publish::new("b", b"")) else { panic!("no room") };
    let _ = world.run(usize::MAX);
    assert_eq!(world.host.state().qos0.count, 1);
    world.cut();
    assert_eq!(world.host.state().qos0.count, 0);
    world.open();
    let _ = world.run(usize::MAX);
    assert_eq!(world.broker.awaiting_release("client").len(), 3);
    world.broker.behave();
    world.broker.release_all();
    let _ = world.run(usize::MAX);
    assert_eq!(world.broker.received().len(), 10);
    assert_eq!(world.host.state().load, Load::default());
}

#[test]
fn those_who_wait_for_room_are_served_in_their_order_and_pass_on_what_they_give_up() {
    let mut world = World::new(builder().queue(1, 1_000));
    let message = Publish::new("a", b"x").at_least_once();
    let Poll::Ready(Ok(_)) = world.publish(&message) else { panic!("no room") };
    let waker = Waker::noop();
    let mut tickets = [0; 3];
    let poll = |world: &World, ticket: &mut Ticket| {
        world.host.poll_publish(&message, None, Replace::Nothing, ticket, Some(waker)).is_ready()
    };
    for ticket in &mut tickets {
        assert!(!poll(&world, ticket));
    }
    world.open();
    let _ = world.run(usize::MAX);
    let [first, second, third] = &mut tickets;
    assert!(world.publish(&message).is_pending(), "overtaken by one who waits for nothing");
    assert!(!poll(&world, second) && !poll(&world, third));
    world.host.leave_room(first);
    assert!(!poll(&world, third) && poll(&world, second));
    let _ = world.run(usize::MAX);
    assert!(poll(&world, third));
    // What can never be accepted is said at once, room or not.
    let Poll::Ready(Err(error)) = world.publish(&Publish::new("a", &[0; 2_000]).at_least_once()) else { panic!() };
    assert!(matches!(error, Error::Publish(PublishError::TooLarge)));
}

#[test]
fn a_driver_whose_messages_nobody_takes_reads_on_only_while_somebody_waits_for_an_answer() {
    let mut world = World::new(builder().receive_queue(4, 10_000).subscribe("in", QoS::AtMostOnce));
    world.open();
    let _ = world.run(usize::MAX);
    for n in 0..50 {
        world.broker.publish(Sent::new("in", [n]));
    }
    let _ = world.run(usize::MAX);
    assert_eq!(world.host.stats().waiting, 4);
    assert!(world.pump.space().is_empty());
    assert!(world.pump.park(Waker::noop()));
    let Poll::Ready(Ok(delivery)) = world.publish(&Publish::new("out", b"").at_least_once()) else { panic!() };
    let _ = world.run(usize::MAX);
    assert_eq!((world.host.stats().waiting, delivery.outcome()), (4, None));
    assert!(delivery.poll(Some((&mut 0, Waker::noop()))).is_pending());
    assert!(!world.pump.park(Waker::noop()), "somebody waits");
    let _ = world.run(usize::MAX);
    assert_eq!(delivery.outcome(), Some(Outcome::Delivered));
    let came: Vec<_> = world.received().iter().map(|message| message.payload()[0]).collect();
    assert_eq!(came, (0..50).collect::<Vec<u8>>());
}

#[test]
fn a_delivery_knows_how_its_message_ended_long_after() {
    let mut world = World::new(builder());
    let publish = |world: &World, qos| match world.publish(&Publish::new("a", b"").with_qos(qos)) {
        Poll::Ready(delivery) => delivery.unwrap(),
        Poll::Pending => panic!("no room"),
    };
    let once = publish(&world, QoS::AtLeastOnce);
    world.broker.on_next(dunlin_testkit::PUBCOMP, Then::Hold);
    let forgotten = publish(&world, QoS::ExactlyOnce);
    world.open();
    let _ = world.run(usize::MAX);
    assert_eq!(publish(&world, QoS::AtMostOnce).outcome(), Some(Outcome::Delivered));
    assert_eq!((once.outcome(), forgotten.outcome()), (Some(Outcome::Delivered), None));
    world.cut();
    world.broker.forget("client");
    world.open();
    let _ = world.run(usize::MAX);
    assert_eq!(forgotten.outcome(), Some(Outcome::Forgotten));
}

#[test]
fn a_number_knows_how_its_message_ended_when_the_identifier_has_another_owner() {
    let mut deliveries = Deliveries::default();
    let id = PacketId::new(1).unwrap();
    let load = Load::default();
    let mut pass = |outcome| {
        let number = deliveries.add(id, load, None, Replace::Nothing);
        deliveries.end(id, outcome, &mut Vec::new());
        number
    };
    let odd = [pass(Outcome::Forgotten), pass(Outcome::Replaced)];
    let numbers: Vec<_> = (0..1_000).map(|_| pass(Outcome::Delivered)).collect();
    let open = deliveries.add(id, load, None, Replace::Nothing);
    let mut outcome = |number| deliveries.poll(id, number, None);
    assert_eq!(odd.map(&mut outcome), [Poll::Ready(Outcome::Forgotten), Poll::Ready(Outcome::Replaced)]);
    assert!(numbers.into_iter().all(|number| outcome(number) == Poll::Ready(Outcome::Delivered)));
    assert_eq!(outcome(open), Poll::Pending);
}

#[test]
fn the_goodbye_leaves_after_what_is_under_way_or_when_its_time_is_over() {
    let will = Publish::new("will", b"").at_least_once();
    let mut world = World::new(builder().will(&will));
    let Poll::Ready(Ok(_)) = world.publish(&Publish::new("a", b"").at_least_once()) else { panic!() };
    world.broker.on_next(dunlin_testkit::PUBACK, Then::Hold);
    world.open();
    let _ = world.run(usize::MAX);
    world.host.close(Duration::from_secs(60));
    assert!(matches!(world.run(usize::MAX), Turn::Go { deadline: Some(_) }));
    assert!(matches!(world.publish(&Publish::new("a", b"")), Poll::Ready(Err(Error::Ended(Reason::Closed)))));
    world.broker.release_all();
    assert!(matches!(world.run(usize::MAX), Turn::Close { reason: Reason::Closed, .. }));
    assert!(matches!(world.pump.lost(Reason::Closed), Next::End));
    world.broker.hung_up(world.link.unwrap(), 0);
    assert_eq!(world.broker.received().len(), 1, "the will of a client that said goodbye");
    assert!(matches!(world.host.poll_ended(&mut 0, None), Poll::Ready(Ok(()))));
}

#[test]
fn by_default_as_many_exchanges_are_open_as_there_are_identifiers() {
    let mut world = World::new(builder());
    world.pump.open();
    let mut sink = Up { left: usize::MAX, bytes: Vec::new() };
    let _ = world.pump.turn();
    world.pump.write_to(&mut sink).unwrap();
    let mut came = 0;
    // A server that never releases a message, and an application that takes all of them.
    let packets = (1..=u16::MAX).map(|id| [&b"\x34\x05\x00\x01a"[..], &id.to_be_bytes()].concat());
    for bytes in std::iter::once(b"\x20\x02\x00\x00".to_vec()).chain(packets) {
        let space = world.pump.space();
        assert!(space.len() > bytes.len());
        space[..bytes.len()].copy_from_slice(&bytes);
        world.pump.filled(bytes.len());
        let turn = world.pump.turn();
        assert!(matches!(turn, Turn::Go { .. }), "{turn:?} after {came}");
        while world.pump.has_output() {
            world.pump.write_to(&mut sink).unwrap();
        }
        sink.bytes.clear();
        came += world.received().len();
    }
    assert_eq!(came, usize::from(u16::MAX));
}

/// Counts how often it is called.
#[derive(Default)]
struct Calls(std::sync::atomic::AtomicUsize);

impl std::task::Wake for Calls {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}

/// Runs `poll` of two futures of one kind, drops a third that waited, lets something happen, and sees both woken and ready.
fn all_who_wait<T: PartialEq + fmt::Debug>(future: impl Fn() -> Boxed<T>, happen: impl FnOnce()) -> T {
    let calls = [(); 3].map(|()| Arc::new(Calls::default()));
    let wakers = calls.clone().map(Waker::from);
    let mut futures = [future(), future(), future()];
    let poll = |future: &mut Boxed<T>, waker| future.as_mut().poll(&mut std::task::Context::from_waker(waker));
    for (future, waker) in futures.iter_mut().zip(&wakers) {
        assert_eq!(poll(future, waker), Poll::Pending);
    }
    let [mut first, mut second, given_up] = futures;
    drop(given_up);
    happen();
    assert_eq!(calls.map(|calls| calls.0.load(std::sync::atomic::Ordering::Relaxed)), [1, 1, 0]);
    let [Poll::Ready(result), Poll::Ready(same)] = [poll(&mut first, &wakers[0]), poll(&mut second, &wakers[1])] else {
        panic!("woken and not ready")
    };
    assert_eq!(result, same);
    result
}

type Boxed<T> = std::pin::Pin<Box<dyn Future<Output = T>>>;

#[test]
fn all_who_wait_for_one_message_or_answer_are_woken_and_one_who_gives_up_disturbs_nobody() {
    let mut world = World::new(builder());
    world.open();
    let _ = world.run(usize::MAX);
    let Poll::Ready(Ok(delivery)) = world.publish(&Publish::new("a", b"x").exactly_once()) else { panic!() };
    let pending = world.host.subscribe(&[("b", QoS::AtLeastOnce)]).unwrap();
    let (delivery, pending) = (Arc::new(delivery), Arc::new(pending));
    let delivered = || {
        let delivery = delivery.clone();
        Box::pin(async move { delivery.confirmed().await.unwrap() }) as Boxed<_>
    };
    let answered = || {
        let pending = pending.clone();
        Box::pin(async move { pending.answered().await.unwrap() }) as Boxed<_>
    };
    let mut granted = Vec::new();
    let outcome = all_who_wait(delivered, || granted = all_who_wait(answered, || drop(world.run(usize::MAX))));
    assert_eq!((outcome, granted), (Outcome::Delivered, vec![Some(QoS::AtLeastOnce)]));
    assert!(!world.host.state().is_waited_for());
}

#[test]
fn what_an_application_subscribes_to_while_it_waits_for_an_answer_there_stays() {
    let mut world = World::new(builder());
    world.open();
    let _ = world.run(usize::MAX);
    let subscriptions = |world: &mut World| {
        let _ = world.run(usize::MAX);
        world.broker.subscriptions("client").into_iter().map(|(filter, _)| filter).collect::<Vec<_>>()
    };
    let (reply, pending) = world.host.expect_reply("answer/1", QoS::AtLeastOnce).unwrap();
    assert!(pending.is_some());
    assert_eq!(subscriptions(&mut world), ["answer/1"]);
    drop(reply);
    assert!(subscriptions(&mut world).is_empty());

    let (reply, _pending) = world.host.expect_reply("answer/2", QoS::AtLeastOnce).unwrap();
    let (second, pending) = world.host.expect_reply("answer/2", QoS::AtLeastOnce).unwrap();
    assert!(pending.is_none(), "one subscription is enough for two");
    drop(reply);
    assert_eq!(subscriptions(&mut world), ["answer/2"]);
    let _ = world.host.subscribe(&[("answer/2", QoS::AtLeastOnce)]).unwrap();
    drop(second);
    assert_eq!(subscriptions(&mut world), ["answer/2"]);

    assert!(matches!(
        world.host.expect_reply("answer/+", QoS::AtLeastOnce),
        Err(Error::Publish(PublishError::InvalidTopic))
    ));
}

/// Lets the client send what it has, gives it these bytes, and says what its last turn came to.
fn feed(pump: &mut Pump, mut bytes: &[u8]) -> Turn {
    loop {
        let turn = pump.turn();
        if pump.has_output() {
            pump.write_to(&mut io::sink()).unwrap();
        }
        if bytes.is_empty() || !matches!(turn, Turn::Go { .. }) {
            return turn;
        }
        let space = pump.space();
        let n = space.len().min(bytes.len());
        space[..n].copy_from_slice(&bytes[..n]);
        pump.filled(n);
        bytes = &bytes[n..];
    }
}

/// So many messages at QoS 2, of which none is released.
fn unreleased(count: u16) -> Vec<u8> {
    (1..=count).flat_map(|id| [0x34, 5, 0, 1, b'a', id.to_be_bytes()[0], id.to_be_bytes()[1]]).collect()
}

#[test]
fn memory_for_received_messages_grows_as_far_as_it_may_and_no_further() {
    let mut world = World::new(builder());
    world.pump.open();
    feed(&mut world.pump, b"\x20\x02\x00\x00");
    // As many as there are identifiers.
    let mut count = 0;
    for packets in unreleased(u16::MAX).chunks(7 * 500) {
        assert!(matches!(feed(&mut world.pump, packets), Turn::Go { .. }));
        count += world.received().len();
    }
    assert_eq!(count, usize::from(u16::MAX));
    // All are known, whatever memory the session has moved through.
    let again: Vec<u8> = unreleased(u16::MAX).chunks(7).flat_map(|packet| [&[0x3C], &packet[1..]].concat()).collect();
    assert!(matches!(feed(&mut world.pump, &again), Turn::Go { .. }));
    assert_eq!(world.received().len(), 0);

    let mut world = World::new(builder().receive_window(250));
    world.pump.open();
    feed(&mut world.pump, b"\x20\x02\x00\x00");
    assert!(matches!(feed(&mut world.pump, &unreleased(250)), Turn::Go { .. }));
    let one_more = [0x34, 5, 0, 1, b'a', 1, 0];
    let turn = feed(&mut world.pump, &one_more);
    assert!(matches!(turn, Turn::Close { reason: Reason::Fault(Fault::TooMany), .. }));
    assert_eq!(world.received().len(), 250);
}

#[test]
fn memory_for_messages_on_their_way_out_grows_as_far_as_it_may_and_no_further() {
    let mut world = World::new(builder().queue(100, 40_000));
    let message = Publish::new("a", &[7; 90]).exactly_once();
    for _ in 0..99 {
        assert!(world.publish(&message).is_ready());
    }
    // The last one takes all the bytes that are left, many times what the session has memory for now.
    let rest = vec![7; 40_000 - 99 * tx_len(1, 90) - tx_len(1, 0) - 2];
    assert!(world.publish(&Publish::new("a", &rest).exactly_once()).is_ready());
    // Where there may be no more, nothing moves.
    let place = || world.host.state().session.ask(|session| std::ptr::from_ref(session).addr());
    let before = place();
    assert!(world.publish(&Publish::new("a", b"x").exactly_once()).is_pending());
    assert_eq!(place(), before);
    assert!(world.publish(&message).is_pending());
    // One that replaces nothing needs room as well.
    let newest = world.host.poll_publish(&message, None, Replace::SameTopic, &mut 0, None);
    assert!(newest.is_pending());
    let large =
        world.host.poll_publish(&Publish::new("b", &rest).at_least_once(), None, Replace::SameTopic, &mut 0, None);
    assert!(large.is_pending());
    world.open();
    world.run(usize::MAX);
    assert_eq!(world.host.stats().delivered, 100);
}

#[test]
fn as_many_short_messages_wait_as_the_limits_say_however_much_they_are_together() {
    // Those of eight bytes are too short to have memory of their own.
    for (len, count) in [(8, 30_000), (90, 20_000), (2_000, 3_000)] {
        let topic = "a/topic/that/is/longer/than/some/payloads";
        let bytes = count * tx_len(topic.len(), len);
        assert!(bytes > ARENA);
        let mut world = World::new(builder().queue(count, bytes).window(100));
        let payloads = (0..count).map(|n| format!("{n:0len$}")).collect::<Vec<_>>();
        let message = |n: usize| Publish::new(topic, payloads[n].as_bytes()).at_least_once();
        for n in 0..count {
            assert!(matches!(world.publish(&message(n)), Poll::Ready(Ok(_))), "{n} of {len} bytes");
        }
        assert!(world.publish(&message(0)).is_pending());
        world.open();
        world.run(usize::MAX);
        assert_eq!(world.host.stats().delivered, count as u64);
        let arrived = world.broker.received();
        assert!(arrived.iter().map(|sent| &sent.payload[..]).eq(payloads.iter().map(String::as_bytes)));
    }
}

#[test]
fn memory_for_filters_grows_as_far_as_it_may_and_no_further() {
    let host = World::new(builder().filter_memory(1000)).host;
    let filter = |n: usize| format!("{n:045}");
    for n in 0..20 {
        let _ = host.subscribe(&[(&filter(n), QoS::AtLeastOnce)]).unwrap();
    }
    let one_more = host.subscribe(&[(&filter(20), QoS::AtLeastOnce)]).err();
    assert!(matches!(one_more, Some(Error::Subscribe(SubscribeError::Full))), "{one_more:?}");
    let less = host.unsubscribe(&[&filter(0)]).err();
    assert!(matches!(less, Some(Error::Subscribe(SubscribeError::Full))), "{less:?}");
}

/// Notes that it was woken.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Woken {
    fn was(self: &Arc<Self>) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

fn publish_replacing(host: &Arc<Host>, payload: &[u8], policy: Replace) -> Delivery {
    let message = Publish::new("a", payload).exactly_once();
    match host.poll_publish(&message, None, policy, &mut 0, None) {
        Poll::Ready(delivery) => delivery.unwrap(),
        Poll::Pending => panic!("no room"),
    }
}

#[test]
fn what_was_pushed_out_is_told_at_once_also_without_a_connection() {
    for policy in [Replace::Oldest, Replace::SameTopic] {
        let host = World::new(builder().queue(1, 1000)).host;
        let older = publish_replacing(&host, b"older", policy);
        let (woken, watching) = (Arc::new(Woken::default()), Arc::new(Woken::default()));
        assert!(older.poll(Some((&mut 0, &woken.clone().into()))).is_pending());
        assert!(host.poll_event(&mut 0, Some(&watching.clone().into())).is_pending());
        let _ = publish_replacing(&host, b"newer", policy);
        assert!(woken.was() && watching.was(), "{policy:?}");
        assert_eq!(older.outcome(), Some(Outcome::Replaced));
        let event = host.poll_event(&mut 0, None);
        assert!(matches!(event, Poll::Ready(Ok(Event::Replaced(number))) if number == older.number()), "{event:?}");
    }
}

/// The filters whose refusal has been told.
fn refused(world: &World) -> Vec<String> {
    let events = std::iter::from_fn(|| match world.host.poll_event(&mut 0, None) {
        Poll::Ready(Ok(event)) => Some(event),
        _ => None,
    });
    let refused = |event| if let Event::SubscriptionRefused { filter } = event { Some(filter) } else { None };
    events.filter_map(refused).collect()
}

#[test]
fn a_refusal_is_told_by_its_filter_whatever_is_asked_about_that_meanwhile() {
    let (a, b) = (("a", QoS::AtMostOnce), ("b", QoS::AtMostOnce));
    let answered = |world: &mut World, answers: &[u8]| {
        world.pump.open();
        assert!(matches!(feed(&mut world.pump, b"\x20\x02\x00\x00"), Turn::Go { .. }));
        assert!(matches!(feed(&mut world.pump, answers), Turn::Go { .. }));
        refused(world)
    };
    // Taken, and refused when it is asked for again.
    let mut world = World::new(builder());
    drop(world.host.subscribe(&[a]).unwrap());
    drop(world.host.subscribe(&[a]).unwrap());
    assert_eq!(answered(&mut world, b"\x90\x03\x00\x01\x00\x90\x03\x00\x02\x80"), ["a"]);
    // The second answer comes first.
    let mut world = World::new(builder());
    drop(world.host.subscribe(&[a, b]).unwrap());
    drop(world.host.subscribe(&[a]).unwrap());
    assert_eq!(answered(&mut world, b"\x90\x03\x00\x02\x00\x90\x04\x00\x01\x00\x80"), ["b"]);
    // No longer wanted before the answer is there, which speaks of it all the same.
    let mut world = World::new(builder());
    drop(world.host.subscribe(&[a, b]).unwrap());
    drop(world.host.unsubscribe(&["a"]).unwrap());
    assert_eq!(answered(&mut world, b"\x90\x04\x00\x01\x00\x80\xb0\x02\x00\x02"), ["b"]);
    // Named twice, it is asked for once when the server has lost the session.
    let mut world = World::new(builder());
    drop(world.host.subscribe(&[a, a, b]).unwrap());
    world.open();
    let _ = world.run(usize::MAX);
    world.cut();
    world.broker.forget("client");
    world.broker.refused_filters.insert("b".to_owned());
    world.open();
    let _ = world.run(usize::MAX);
    assert_eq!(refused(&world), ["b"]);
}

#[cfg(feature = "store")]
#[test]
fn what_is_subscribed_to_for_an_answer_is_not_subscribed_to_after_a_restart() {
    let directory = std::env::temp_dir().join(format!("dunlin-answer-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&directory);
    let store = dunlin_store::FileStore::open(&directory).unwrap();
    let host = World::new(builder().store(store.clone())).host;
    let filters = || {
        while host.store(&store).unwrap() {}
        let filters = store.snapshot().unwrap().filters;
        filters.into_iter().map(|(filter, _)| filter).collect::<Vec<_>>()
    };
    let (reply, _pending) = host.expect_reply("answer/1", QoS::AtLeastOnce).unwrap();
    assert!(filters().is_empty());
    let _ = host.subscribe(&[("answer/1", QoS::AtLeastOnce)]).unwrap();
    drop(reply);
    assert_eq!(filters(), ["answer/1"]);
    std::fs::remove_dir_all(&directory).unwrap();
}

#[cfg(feature = "store")]
#[test]
fn a_message_that_is_pushed_out_while_it_is_being_stored_is_over_on_the_disk_too() {
    for (policy, is_first_stored) in
        [(Replace::Oldest, false), (Replace::Oldest, true), (Replace::SameTopic, false), (Replace::SameTopic, true)]
    {
        let name = format!("dunlin-replaced-{policy:?}-{is_first_stored}-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&directory);
        let store = dunlin_store::FileStore::open(&directory).unwrap();
        let host = World::new(builder().queue(1, 1000).store(store.clone())).host;
        let older = publish_replacing(&host, b"older", policy);
        let woken = Arc::new(Woken::default());
        assert!(host.poll_stored(&older, Some(&woken.clone().into())).is_pending());
        if is_first_stored {
            assert!(host.store(&store).unwrap());
        }
        let newer = publish_replacing(&host, b"newer", policy);
        while host.store(&store).unwrap() {}
        assert!(woken.was(), "who waits for the disk waits for ever: {policy:?}");
        assert!(host.poll_stored(&older, None).is_ready() && host.poll_stored(&newer, None).is_ready());
        assert_eq!(older.outcome(), Some(Outcome::Replaced));
        let payloads: Vec<_> = store.snapshot().unwrap().messages.into_iter().map(|message| message.payload).collect();
        assert_eq!(payloads, [b"newer"], "{policy:?}");
        std::fs::remove_dir_all(&directory).unwrap();
    }
}

thread_local! {
    /// Milliseconds, for [`clock`].
    static TIME: Cell<u64> = const { Cell::new(0) };
}

/// A clock that stands still until `TIME` is set.
fn clock() -> std::time::Instant {
    static ZERO: OnceLock<std::time::Instant> = OnceLock::new();
    *ZERO.get_or_init(std::time::Instant::now) + Duration::from_millis(TIME.get())
}

/// A client with a keep alive of 10 seconds and an answer time of 3, connected when its clock says zero.
fn connected_at_zero() -> (Arc<Host>, Pump) {
    let seconds = Duration::from_secs;
    let (_, settings) = builder().keep_alive(seconds(10)).answer_timeout(seconds(3)).finish().unwrap();
    TIME.set(0);
    let host = Arc::new(Host::new(settings, clock).unwrap());
    let mut pump = Pump::new(host.clone(), false);
    pump.open();
    feed(&mut pump, b"\x20\x02\x00\x00");
    (host, pump)
}

/// What it does when it publishes a message at QoS 0 each second, while the server answers the first so many pings: when
/// pings leave, and when it gives up.
fn seconds_of_pings(answers: usize) -> (Vec<u64>, Option<u64>) {
    let (host, mut pump) = connected_at_zero();
    let mut pings = Vec::new();
    for second in 1..100 {
        TIME.set(second * 1000);
        let message = host.poll_publish(&Publish::new("a", b"x"), None, Replace::Nothing, &mut 0, None);
        assert!(matches!(message, Poll::Ready(Ok(_))));
        match pump.turn() {
            Turn::Close { reason: Reason::Fault(Fault::Silent), .. } => return (pings, Some(second)),
            Turn::Close { reason, .. } => panic!("{reason}"),
            Turn::Go { .. } => {}
        }
        let mut up = Up { left: usize::MAX, bytes: Vec::new() };
        pump.write_to(&mut up).unwrap();
        if up.bytes.ends_with(b"\xC0\0") {
            pings.push(second);
            if pings.len() <= answers {
                feed(&mut pump, b"\xD0\0");
            }
        }
    }
    (pings, None)
}

#[test]
fn a_server_that_says_nothing_is_found_out_while_messages_at_qos_0_leave() {
    let (pings, end) = seconds_of_pings(2);
    assert_eq!((pings, end), (vec![10, 20, 30], Some(43)));
}

#[test]
fn a_server_that_answers_pings_is_there_while_messages_at_qos_0_leave() {
    let (pings, end) = seconds_of_pings(usize::MAX);
    assert_eq!((pings, end), ((1..10).map(|n| 10 * n).collect(), None));
}

#[test]
fn a_server_that_is_asked_behind_what_took_long_to_leave_has_its_time_to_answer() {
    let (host, mut pump) = connected_at_zero();
    let payload = Payload::from(vec![7; 4 << 20]);
    let message = Publish::new("a", &payload);
    assert!(matches!(host.poll_publish(&message, Some(&payload), Replace::Nothing, &mut 0, None), Poll::Ready(Ok(_))));
    let mut asked = None;
    for second in 1..100 {
        TIME.set(second * 1000);
        if let Turn::Close { reason, .. } = pump.turn() {
            assert!(matches!(reason, Reason::Fault(Fault::Silent)), "{reason}");
            let asked = asked.expect("a ping");
            assert!(asked > 23, "{asked} s: the message should take longer than any answer may");
            assert!(second > asked + 10, "given up at {second} s, asked at {asked} s");
            return;
        }
        // One piece of it each second.
        let mut up = Up { left: usize::MAX, bytes: Vec::new() };
        while pump.write_to(&mut up).unwrap() > 0 {}
        if asked.is_none() && up.bytes.ends_with(b"\xC0\0") {
            asked = Some(second);
        }
    }
    panic!("never given up; asked {asked:?}");
}

#[test]
fn a_long_message_may_take_longer_than_the_answer_to_a_ping_which_stands_behind_it() {
    // [A27]
    let (host, mut pump) = connected_at_zero();
    let packet = [b"\x30\xfe\x7f\0\x01a", &[7; 16_379][..]].concat();
    for (second, piece) in (2..).step_by(2).zip(packet.chunks(600)) {
        TIME.set(second * 1000);
        assert!(matches!(feed(&mut pump, piece), Turn::Go { .. }), "{second} s");
    }
    assert!(TIME.get() > 50_000, "it should take longer than any answer may");
    assert!(matches!(host.poll_message(&mut 0, None), Poll::Ready(Ok(message)) if message.payload().len() == 16_379));
    assert_eq!(host.stats().ping_round_trip, None, "none was answered");
    // One that stops coming does not.
    feed(&mut pump, &packet[..2000]);
    let end = (0..60).find_map(|second| {
        TIME.set(TIME.get() + 1000);
        match feed(&mut pump, b"") {
            Turn::Close { reason, .. } => Some((second, reason)),
            Turn::Go { .. } => None,
        }
    });
    assert!(matches!(end, Some((_, Reason::Fault(Fault::Silent)))), "{end:?}");
}
