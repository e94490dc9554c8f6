//! A session that moves to other memory, at any time, goes on as if it had not.

use dunlin_core::{
    Filter, Inbox, Instant, Memory, Options, Oversize, Publish, PublishError, QoS, Received, Session, Slot,
};
use dunlin_testkit::{Rng, seeds};

use crate::short_way::{Way, packet, turn_with};

/// Memory of some size, with an end that was used for something else.
struct Owned {
    tx: Vec<u8>,
    slots: Vec<Slot>,
    received: Vec<Received>,
    filters: Vec<u8>,
}

impl Owned {
    fn new(tx: usize, slots: usize, received: usize, filters: usize) -> Self {
        Self {
            tx: vec![0xA5; tx],
            slots: vec![Slot::FREE; slots],
            received: vec![Received::FREE; received],
            filters: vec![0xA5; filters],
        }
    }

    fn lend(&mut self) -> Memory<'_> {
        let Self { tx, slots, received, filters } = self;
        Memory { tx, slots, received, filters }
    }

    /// Longer by so much each, with what is in `memory`.
    fn with(memory: &Memory<'_>, more: usize) -> Self {
        let Memory { tx, slots, received, filters } = memory;
        let mut new = Self::new(tx.len() + more, slots.len() + more, received.len() + more, filters.len() + more);
        new.tx[..tx.len()].copy_from_slice(tx);
        new.slots[..slots.len()].copy_from_slice(slots);
        new.received[..received.len()].copy_from_slice(received);
        new.filters[..filters.len()].copy_from_slice(filters);
        new
    }
}

/// Moves the session to memory that is longer by so much.
fn move_on<'s>(session: &mut Session<'s>, more: usize) {
    let options = *session.options();
    let none = Memory { tx: &mut [], slots: &mut [], received: &mut [], filters: &mut [] };
    let (suspended, memory) = std::mem::replace(session, Session::new(options, none)).suspend();
    // Leaked, for a test that runs once.
    let owned = Box::leak(Box::new(Owned::with(&memory, more)));
    *session = Session::resume(options, suspended, owned.lend());
}

#[test]
fn a_session_that_moves_to_larger_memory_at_any_time_or_when_it_must_goes_on_as_if_it_had_not() {
    let (mut messages, mut delivered, mut faults, mut moves) = (0, 0, 0, 0);
    for seed in seeds(100) {
        let mut rng = Rng::new(seed);
        let mut options = Options::new("mover").window(3);
        let is_persistent = rng.chance(1, 2);
        if is_persistent {
            options = options.persistent();
        }
        if rng.chance(1, 3) {
            options = options.manual_acks();
        }
        if rng.chance(1, 3) {
            options = options.durable();
        }
        if rng.chance(1, 2) {
            options = options.oversize(Oversize::Skip);
        }
        // Large enough that neither is ever full, but for one whose table of received messages grows when it must.
        let is_growing = rng.chance(1, 2);
        let mut memories =
            [300, if is_growing { 2 } else { 300 }].map(|received| Owned::new(60_000, 300, received, 3_000));
        let [still, moving] = &mut memories;
        let (mut still, mut moving) = (Session::new(options, still.lend()), Session::new(options, moving.lend()));
        let mut buffers = [[0; 300]; 2];
        let [still_inbox, moving_inbox] = &mut buffers;
        let (mut still_inbox, mut moving_inbox) = (Inbox::new(still_inbox), Inbox::new(moving_inbox));
        moving.set_growing(is_growing);
        let (mut time, mut is_up) = (0, false);
        let (mut receipts, mut unread) = (Vec::new(), Vec::new());
        for _ in 0..200 {
            time += rng.below(300) as u64;
            let now = Instant::from_millis(time);
            if !is_up {
                still.open(now, &mut still_inbox);
                moving.open(now, &mut moving_inbox);
                unread = vec![0x20, 2, u8::from(is_persistent && rng.chance(2, 3)), 0];
                is_up = true;
            }
            match rng.below(9) {
                0..4 => unread.extend(packet(&mut rng)),
                4 | 5 => {
                    let payload = vec![9; rng.below(150)];
                    let qos = *rng.pick(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]);
                    let message = Publish::new(rng.pick::<&str>(&["a", "x/y"]), &payload).with_qos(qos);
                    assert_eq!(still.publish(&message), moving.publish(&message));
                }
                6 => {
                    if let Some(receipt) = receipts.pop() {
                        assert_eq!(still.acknowledge(receipt), moving.acknowledge(receipt));
                    }
                    while let Some(mark) = still.next_mark() {
                        assert_eq!(moving.next_mark(), Some(mark));
                        still.mark_stored(mark);
                        moving.mark_stored(mark);
                    }
                }
                7 => {
                    let filters = [Filter::literal("a/#", QoS::ExactlyOnce)];
                    assert_eq!(still.subscribe(&filters), moving.subscribe(&filters));
                }
                _ => {
                    let message = Publish::new("piece", b"by piece").at_least_once();
                    for _ in 0..rng.below(3) {
                        assert_eq!(still.publish(&message), moving.publish(&message));
                    }
                    // Between two pieces of a packet, if there is one to send.
                    let (mut a, mut b) = ([0; 3], [0; 3]);
                    assert_eq!(still.transmit(now, &mut a), moving.transmit(now, &mut b));
                    assert_eq!(a, b);
                    move_on(&mut moving, if is_growing { 0 } else { rng.below(9) });
                }
            }
            let n = rng.below(unread.len() + 1);
            let n = still_inbox.push(&unread[..n]);
            assert_eq!(moving_inbox.push(&unread[..n]), n);
            unread.drain(..n);
            let room = *rng.pick(&[1, 3, 4, 30, 1000]);
            let told = turn_with(&mut still, &mut still_inbox, now, Way { is_short: false, room }, |_| false);
            let is_short = rng.chance(1, 2);
            let told_moving = turn_with(&mut moving, &mut moving_inbox, now, Way { is_short, room }, |session| {
                let must_move = session.wants_received();
                if must_move {
                    move_on(session, 1);
                    moves += 1;
                }
                must_move
            });
            assert_eq!(told_moving, told, "seed {seed}");
            assert_eq!(still.deadline(), moving.deadline());
            assert_eq!(still.outgoing_count(), moving.outgoing_count());
            messages += told.events.iter().filter(|event| event.starts_with("Message")).count();
            delivered += told.events.iter().filter(|event| event.starts_with("Delivered")).count();
            faults += usize::from(told.fault.is_some());
            receipts.extend(told.receipts);
            if told.fault.is_some() || rng.chance(1, 40) {
                still.lost();
                moving.lost();
                is_up = false;
            }
        }
    }
    let counts = (messages, delivered, faults, moves);
    assert!(messages > 500 && delivered > 50 && faults > 30 && moves > 50, "{counts:?}");
}

#[test]
fn what_is_more_than_a_packet_can_hold_is_refused_in_memory_of_any_size() {
    const MOST: usize = 268_435_455;
    let options = Options::new("mover");
    let payload = vec![0; MOST - 4]; // with topic and identifier one byte too long
    for moves in [false, true] {
        let (mut little, mut much) = (Owned::new(0, 0, 0, 0), Owned::new(0, 1, 2, 0));
        much.tx = vec![0; MOST + 100];
        let mut session = if moves {
            let (suspended, _) = Session::new(options, little.lend()).suspend();
            Session::resume(options, suspended, much.lend())
        } else {
            Session::new(options, much.lend())
        };
        let message = Publish::new("a", &payload).at_least_once();
        assert_eq!(session.publish(&message), Err(PublishError::TooLarge));
        assert_eq!(session.publish_common(&message), None);
    }
}
