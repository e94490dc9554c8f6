//! What the session and the store hold of each other: filters in both or neither, messages that wait for room.

use dunlin_core::{
    Filter, Inbox, Instant, Memory, Options, PacketId, Publish, QoS, Received, Session, Slot, SubscribeError,
};
use dunlin_store::{Blocking, Durable, Entry, FilterError, FlashStore, MemoryStore, Store, StoreError};
use dunlin_testkit::flash::{Cut, Flash, FlashError};

use crate::now;

/// Memory with room for one filter of one byte, and one message.
struct Room {
    tx: [u8; 64],
    slots: [Slot; 1],
    received: [Received; 2],
    filters: [u8; 6],
}

impl Room {
    fn new() -> Self {
        Self { tx: [0; 64], slots: [Slot::FREE; 1], received: [Received::FREE; 2], filters: [0; 6] }
    }

    fn session(&mut self) -> Session<'_> {
        let Self { tx, slots, received, filters } = self;
        Session::new(Options::new("c").durable(), Memory { tx, slots, received, filters })
    }
}

#[test]
fn a_filter_that_the_session_refuses_leaves_the_store_as_it_was() {
    let mut room = Room::new();
    let mut client = Durable::recover(room.session(), MemoryStore::new()).unwrap();
    client.subscribe(&Filter::literal("a", QoS::AtMostOnce)).unwrap();
    let refused = Err(FilterError::Session(SubscribeError::Full));
    for filter in ["a", "b"] {
        let filter = Filter::literal(filter, QoS::ExactlyOnce);
        assert_eq!(client.subscribe(&filter), refused);
        assert_eq!(now(client.subscribe_async(&filter)), refused);
    }
    assert_eq!(client.unsubscribe("a"), refused);
    assert_eq!(now(client.unsubscribe_async("a")), refused);
    let kept = now(client.store().entry(0)).unwrap();
    assert!(matches!(kept, Some(Entry::Subscription { filter, qos: QoS::AtMostOnce }) if filter == "a"), "{kept:?}");
    assert_eq!(now(client.store().entry(1)), Ok(None));
}

#[test]
fn a_filter_that_the_store_refuses_leaves_the_session_as_it_was() {
    for is_async in [false, true] {
        let mut flash = Flash::<4, 2048>::new(2);
        let mut room = Room::new();
        let store = FlashStore::<_>::new(Blocking(&mut flash), 0..4096);
        let mut client = Durable::recover(room.session(), store).unwrap();
        client.store().flash().0.cut_power(Cut { operation: 0, tear: 0, seed: 0 });
        let before = client.session().next_id();
        let filter = Filter::literal("a", QoS::AtMostOnce);
        let outcomes = match is_async {
            false => [client.subscribe(&filter), client.unsubscribe("a")],
            true => [now(client.subscribe_async(&filter)), now(client.unsubscribe_async("a"))],
        };
        assert_eq!(outcomes, [Err(FilterError::Store(StoreError::Medium(FlashError::PowerOff))); 2]);
        assert_eq!(client.session().next_id(), before);
        assert!(client.session().is_idle());
    }
}

#[test]
fn what_waits_for_room_still_waits_when_the_store_cannot_be_read() {
    for is_async in [false, true] {
        let mut flash = Flash::<4, 2048>::new(2);
        let mut store = FlashStore::<_>::new(Blocking(&mut flash), 0..4096);
        for number in 1..=2_u16 {
            let message = Publish::new("a", b"1").exactly_once();
            now(store.put(PacketId::new(number).unwrap(), u32::from(number), &message)).unwrap();
        }
        now(store.subscribe(&Filter::literal("a", QoS::AtMostOnce))).unwrap();
        let mut room = Room::new();
        let mut client = Durable::recover(room.session(), store).unwrap();
        let recovery = client.recovery();
        assert_eq!((recovery.messages, recovery.waiting), (1, 1));
        assert_eq!((recovery.subscriptions, recovery.given_up), (1, 0));
        let mut bytes = [0; 64];
        let mut inbox = Inbox::new(&mut bytes);
        let mut open = |client: &mut Durable<'_, _>| match is_async {
            false => client.open(Instant::from_millis(1), &mut inbox),
            true => now(client.open_async(Instant::from_millis(1), &mut inbox)),
        };
        client.store().flash().0.cut_power(Cut { operation: 0, tear: 0, seed: 0 });
        now(client.store().unsubscribe("a")).unwrap_err();
        assert_eq!(open(&mut client), Err(StoreError::Medium(FlashError::PowerOff)));
        client.store().flash().0.power_on();
        assert_eq!(client.recovery(), recovery);
        open(&mut client).unwrap();
        // Nor is what does not wait given to the session once more.
        assert_eq!(client.recovery(), recovery);
    }
}
