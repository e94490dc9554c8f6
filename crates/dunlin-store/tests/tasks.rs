//! Futures that are dropped in the middle, and threads that publish at the same time.

use std::future::Future;
use std::pin::pin;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};

use dunlin_core::{Mark, Options, PacketId, Publish, Session, Stage, Storage};
use dunlin_store::{Durable, FileStore, FlashStore, Job, Shared, Store};
use dunlin_testkit::flash::{Flash, FlashError};

use embedded_storage_async::nor_flash::{ErrorType, NorFlash, ReadNorFlash};

use crate::file::{Scratch, contents};
use crate::now;

const OPTIONS: Options<'static> = Options::new("c").durable().keep_alive(0);

/// Flash whose every write and erase is pending once.
struct Slow<'f>(&'f mut Flash<4, 2048>);

async fn pending_once() {
    let mut is_ready = false;
    std::future::poll_fn(|context| {
        context.waker().wake_by_ref();
        if std::mem::replace(&mut is_ready, true) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

impl ErrorType for Slow<'_> {
    type Error = FlashError;
}

impl ReadNorFlash for Slow<'_> {
    const READ_SIZE: usize = 1;

    async fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), FlashError> {
        embedded_storage::nor_flash::ReadNorFlash::read(self.0, offset, bytes)
    }

    fn capacity(&self) -> usize {
        self.0.bytes().len()
    }
}

impl NorFlash for Slow<'_> {
    const WRITE_SIZE: usize = 4;
    const ERASE_SIZE: usize = 2048;

    async fn erase(&mut self, from: u32, to: u32) -> Result<(), FlashError> {
        pending_once().await;
        embedded_storage::nor_flash::NorFlash::erase(self.0, from, to)
    }

    async fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), FlashError> {
        pending_once().await;
        embedded_storage::nor_flash::NorFlash::write(self.0, offset, bytes)
    }
}

/// Polls a future so many times; `None` if it is dropped before it is ready.
fn poll<F: Future>(future: F, times: usize) -> Option<F::Output> {
    let mut future = pin!(future);
    (0..times).find_map(|_| match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    })
}

#[test]
fn who_waits_waits_for_slow_flash_too() {
    let mut flash = Flash::<4, 2048>::new(2);
    let mut store = FlashStore::<Slow<'_>>::new(Slow(&mut flash), 0..4096);
    for number in 1..=60_u16 {
        let id = |number| PacketId::new(number).unwrap();
        let publish = Publish::new("a", &[b'p'; 40]).exactly_once();
        store.run(Job::Put { id: id(number), order: number.into(), publish: &publish }).unwrap();
        if number > 1 {
            store.run(Job::Mark(&[Mark { id: id(number - 1), stage: Stage::Done }])).unwrap();
        }
    }
    let expected = [format!("a q2 #60 40 {}", "p".repeat(40))];
    assert_eq!(contents(&mut store), expected);
    assert!(flash.erases().iter().sum::<u32>() > 2, "pages were filled and erased");
    assert_eq!(contents(&mut FlashStore::<_>::mount_blocking(&mut flash, 0..4096).unwrap()), expected);
}

#[test]
fn a_publish_that_is_dropped_anywhere_costs_only_itself() {
    let payload = [b'p'; 400];
    for times in 0..30 {
        let mut flash = Flash::<4, 2048>::new(3);
        let mut storage: Storage<512, 64, 8> = Storage::new();
        let (memory, _) = storage.split();
        let store = poll(FlashStore::<Slow<'_>>::mount(Slow(&mut flash), 0..6144), 1000).unwrap().unwrap();
        let mut mqtt = poll(Durable::recover_async(Session::new(OPTIONS, memory), store), 1000).unwrap().unwrap();
        let mut publish = |topic: &str, times| {
            let publish = Publish::new(topic, &payload).exactly_once();
            poll(mqtt.publish_async(&publish), times).is_some_and(|outcome| outcome.is_ok())
        };
        assert!(publish("before", 1000));
        let is_done = publish("dropped", times);
        assert!(publish("after", 1000));
        assert!(publish("later", 1000));
        let outgoing = 3 + usize::from(is_done);
        assert_eq!(mqtt.session().outgoing_count(), outgoing, "what was dropped is not sent");
        let mut store = FlashStore::<_>::mount_blocking(&mut flash, 0..6144).unwrap();
        assert_eq!(store.damage(), Default::default(), "dropped after {times} polls");
        let kept = contents(&mut store);
        let has = |topic: &str| kept.iter().any(|entry| entry.starts_with(topic));
        assert!(has("before") && has("after") && has("later"), "dropped after {times} polls: {kept:?}");
        assert!(has("dropped") || !is_done);
    }
}

#[test]
fn threads_publish_while_others_are_being_stored() {
    let scratch = Scratch::new();
    let mut storage: Storage<4096, 64, 100> = Storage::new();
    let (memory, _) = storage.split();
    let durable = Durable::recover(Session::new(OPTIONS, memory), FileStore::open(&scratch.0).unwrap()).unwrap();
    let shared = Shared::new(durable, Mutex::new, |store| store);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let shared = &shared;
            scope.spawn(move || {
                for n in 0..20 {
                    let text = format!("{thread}.{n}");
                    now(shared.publish(&Publish::new("a", text.as_bytes()).exactly_once())).unwrap().unwrap();
                }
            });
        }
    });
    assert_eq!(shared.with(|session| session.outgoing_count()), 80);
    drop(shared);
    let mut store = FileStore::open(&scratch.0).unwrap();
    let kept = contents(&mut store);
    assert_eq!(kept.len(), 80);
    for thread in 0..4 {
        let own: Vec<_> = kept.iter().filter(|entry| entry.contains(&format!(" {thread}."))).collect();
        assert!((0..20).all(|n| own[n].ends_with(&format!(" {thread}.{n}"))), "in the order of each thread");
    }
}
