//! A flash on which some bytes have changed: what is read is what was written, or reported as lost.
//!
//! Whatever lies there: no panic, no loop without end, and the store works afterwards, or says why not.

#![no_main]

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use arbitrary::Arbitrary;
use dunlin_core::{Filter, Mark, PacketId, Publish, QoS, Stage};
use dunlin_store::{Blocking, Entry, FlashStore, Store, StoreError};
use dunlin_testkit::flash::Flash;
use libfuzzer_sys::fuzz_target;

const PAGES: usize = 3;
const END: u32 = 3 * 1024;

#[derive(Arbitrary, Debug)]
struct Case {
    /// What the store was used for before.
    history: Vec<Use>,
    /// Bytes that have changed: where, and to what.
    changes: Vec<(u16, u8)>,
    /// What it is used for afterwards.
    future: Vec<Use>,
}

#[derive(Arbitrary, Debug)]
enum Use {
    Put { id: u8, len: u8, is_qos2: bool },
    Mark { id: u8, stage: u8 },
    Subscribe(u8),
    Unsubscribe(u8),
}

type Small<'f> = FlashStore<Blocking<&'f mut Flash<4, 1024>>>;

fuzz_target!(|case: Case| {
    let mut flash = Flash::<4, 1024>::new(PAGES);
    let mut order = 0;
    if let Ok(mut store) = Small::mount_blocking(&mut flash, 0..END) {
        for step in case.history.iter().take(60) {
            use_it(&mut store, step, &mut order);
        }
    }
    for (at, to) in &case.changes {
        let len = flash.bytes().len();
        flash.bytes_mut()[usize::from(*at) % len] = *to;
    }
    let Ok(mut store) = Small::mount_blocking(&mut flash, 0..END) else { return };
    read_all(&mut store);
    for step in case.future.iter().take(60) {
        use_it(&mut store, step, &mut order);
    }
    read_all(&mut store);
});

fn use_it(store: &mut Small<'_>, step: &Use, order: &mut u32) {
    let filter = |n: u8| ["a", "a/+", "plant/#", "#"][usize::from(n % 4)];
    let outcome = match step {
        Use::Put { id, len, is_qos2 } => {
            *order += 1;
            let payload = vec![*id; usize::from(*len)];
            let publish = Publish::new("plant/7", &payload);
            let publish = if *is_qos2 { publish.exactly_once() } else { publish.at_least_once() };
            now(store.put(name(*id), *order, &publish))
        }
        Use::Mark { id, stage } => {
            let stage = match stage % 4 {
                0 => Stage::Released,
                1 => Stage::Done,
                2 => Stage::Received,
                _ => Stage::Forgotten,
            };
            now(store.mark(&[Mark { id: name(*id), stage }]))
        }
        Use::Subscribe(n) => {
            let Ok(filter) = Filter::new(filter(*n), QoS::AtLeastOnce) else { return };
            now(store.subscribe(&filter))
        }
        Use::Unsubscribe(n) => now(store.unsubscribe(filter(*n))),
    };
    match outcome {
        Ok(()) | Err(StoreError::Full | StoreError::TooLarge) => {}
        // The bytes were changed behind its back: it may find that out at any time, and says so.
        Err(_) => {}
    }
}

fn read_all(store: &mut Small<'_>) {
    let mut index = 0;
    while let Ok(Some(entry)) = now(store.entry(index)) {
        index += 1;
        assert!(index < 1000, "entries without end");
        if let Entry::Message { order, len, topic, .. } = entry {
            assert!(dunlin_core::topic::is_name(topic.as_str()));
            let mut bytes = [0; 1000];
            let _ = now(store.read(order, 0, bytes.get_mut(..len as usize).unwrap_or_default()));
        }
    }
}

fn name(id: u8) -> PacketId {
    PacketId::new(u16::from(id % 16) + 1).unwrap_or_else(|| unreachable!())
}

/// What a future gives that is never pending.
fn now<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("pending"),
    }
}
