//! A request that is refused leaves the session as it was: every entry point, from many states.

use dunlin_core::{External, Filter, Publish, QoS, Replace, Restored};
use dunlin_testkit::{CLEAN, DURABLE, Marks, Message, Pair, RESUMING, Rng, Sizes, seeds};

use crate::id;

/// A session in some state, by chance.
fn somewhere(rng: &mut Rng) -> Pair {
    let options =
        *rng.pick(&[CLEAN, RESUMING, DURABLE, RESUMING.manual_acks(), DURABLE.manual_acks(), RESUMING.stream_large(1)]);
    let sizes = Sizes {
        tx: rng.below(120),
        rx: 16 + rng.below(60),
        slots: rng.below(5),
        received: 2 + rng.below(4),
        filters: rng.below(40),
    };
    let mut pair = Pair::with(options, sizes);
    pair.external = vec![7; 100];
    pair.broker.max_in_flight = 1;
    pair
}

const NAMES: [&str; 6] = ["a", "a/b", "", "a/+", "a/long/topic/name", "nul\0"];

/// One request by chance. `true` when it was refused.
fn request(pair: &mut Pair, rng: &mut Rng) -> bool {
    let payload = vec![b'x'; rng.below(40)];
    let topic = *rng.pick(&NAMES);
    let publish = Publish::new(topic, &payload).with_qos(QoS::from_bits(rng.below(3) as u8).unwrap());
    let filter = Filter::new(["a", "b/#", "+/c/d/e"][rng.below(3)], QoS::ExactlyOnce).unwrap();
    let number = id(1 + rng.below(6) as u16);
    match rng.below(12) {
        0 | 1 => pair.publish(&publish).is_err(),
        2 => pair.publish_replacing(&publish, Replace::SameTopic).is_err(),
        3 => pair.publish_replacing(&publish, Replace::Oldest).is_err(),
        4 => {
            let len = *rng.pick(&[0, 10, 100, u32::MAX]);
            pair.client.publish_external(&publish, External { key: 1, len }).is_err()
        }
        5 => pair.client.subscribe(&[filter, filter][..rng.below(3)]).is_err(),
        6 => pair.client.unsubscribe(&[filter.text(), topic][..rng.below(3)]).is_err(),
        7 => pair.receipts.clone().first().is_some_and(|receipt| !pair.client.acknowledge(*receipt)),
        8 => !pair.client.withdraw(number),
        9 => pair.client.restore(Restored::Message { id: number, publish }).is_err(),
        10 => pair.client.restore(Restored::Released(number)).is_err(),
        _ => pair.client.restore(Restored::Received(number)).is_err(),
    }
}

#[test]
fn a_refused_request_leaves_the_session_as_it_was() {
    let mut refused = 0;
    for seed in seeds(600) {
        let mut rng = Rng::new(seed);
        let mut pair = somewhere(&mut rng);
        for _ in 0..60 {
            let before = pair.snapshot();
            if request(&mut pair, &mut rng) {
                assert_eq!(pair.snapshot(), before);
                refused += 1;
            }
            match rng.below(8) {
                0 | 1 => drop(pair.step()),
                2 if pair.client.is_connected() => pair.broker.publish(Message::new("a", "x").qos(rng.below(3) as u8)),
                3 => pair.cut(),
                4 => pair.marks = *rng.pick(&[Marks::Stored, Marks::Left]),
                5 => pair.out = 1 + rng.below(20),
                _ => {}
            }
        }
    }
    println!("{refused} requests refused");
    assert!(refused > 5000);
}

#[test]
fn asking_for_marks_deadlines_and_counts_changes_nothing() {
    for seed in seeds(50) {
        let mut rng = Rng::new(seed);
        let mut pair = somewhere(&mut rng);
        pair.marks = Marks::Left;
        for _ in 0..40 {
            request(&mut pair, &mut rng);
            pair.step();
            let before = pair.snapshot();
            let first = (pair.client.next_mark(), pair.client.deadline(), pair.client.is_idle(), pair.client.fault());
            let again = (pair.client.next_mark(), pair.client.deadline(), pair.client.is_idle(), pair.client.fault());
            assert_eq!(first, again);
            assert_eq!(pair.snapshot(), before);
        }
    }
}
