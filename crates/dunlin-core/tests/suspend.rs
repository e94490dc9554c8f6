//! A session that moves to other memory, at any time, goes on as if it had not.

use dunlin_core::{Inbox, Instant, Memory, Options, Publish, PublishError, Received, Session, Slot};
use dunlin_testkit::{Rng, seeds};

use crate::short_way::{Counts, Difference, Twin, compare, options};

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

/// The other one moves: now and then, or when it must.
struct Moving {
    /// It has hardly a table of received messages, and moves when that is wanted.
    is_growing: bool,
    moves: usize,
}

impl<'s> Difference<'s> for Moving {
    fn is_short(&mut self, rng: &mut Rng) -> bool {
        rng.chance(1, 2)
    }

    fn meanwhile(&mut self, rng: &mut Rng, now: Instant, still: &mut Session<'s>, moving: &mut Session<'s>) {
        let message = Publish::new("piece", b"by piece").at_least_once();
        for _ in 0..rng.below(3) {
            assert_eq!(still.publish(&message), moving.publish(&message));
        }
        // Between two pieces of a packet, if there is one to send.
        let (mut a, mut b) = ([0; 3], [0; 3]);
        assert_eq!(still.transmit(now, &mut a), moving.transmit(now, &mut b));
        assert_eq!(a, b);
        move_on(moving, if self.is_growing { 0 } else { rng.below(9) });
    }

    fn grow(&mut self, moving: &mut Session<'s>) -> bool {
        let must_move = moving.wants_received();
        if must_move {
            move_on(moving, 1);
            self.moves += 1;
        }
        must_move
    }
}

#[test]
fn a_session_that_moves_to_larger_memory_at_any_time_or_when_it_must_goes_on_as_if_it_had_not() {
    let mut counts = Counts::default();
    let mut moves = 0;
    for seed in seeds(100) {
        counts.seed = seed;
        let mut rng = Rng::new(seed);
        let (options, is_persistent) = options(&mut rng);
        let is_growing = rng.chance(1, 2);
        // Large enough that neither is ever full, but for one whose table of received messages grows when it must.
        let mut memories =
            [300, if is_growing { 2 } else { 300 }].map(|received| Owned::new(60_000, 300, received, 3_000));
        let mut buffers = [[0; 300]; 2];
        let [still_inbox, moving_inbox] = buffers.each_mut().map(|buffer| Inbox::new(buffer));
        let [still, mut moving] = memories.each_mut().map(|memory| Session::new(options, memory.lend()));
        moving.set_growing(is_growing);
        let mut twins = [Twin { session: still, inbox: still_inbox }, Twin { session: moving, inbox: moving_inbox }];
        let mut difference = Moving { is_growing, moves: 0 };
        compare(&mut rng, is_persistent, &mut twins, &mut difference, &mut counts);
        moves += difference.moves;
    }
    assert!(counts.messages > 500 && counts.delivered > 50 && counts.faults > 30 && moves > 50, "{counts:?} {moves}");
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
