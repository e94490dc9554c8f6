//! The store in a directory: torn, damaged, full, written anew, shared by threads.

use std::collections::BTreeSet;
use std::io::BufRead;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use dunlin_core::{Filter, Mark, Options, PacketId, Publish, QoS, Session, Stage, Storage};
use dunlin_store::{Durable, Entry, FileStore, Store, StoreError};

use crate::now;

/// A directory of its own, removed at the end.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("dunlin-store-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Self(std::env::temp_dir().join(name))
    }

    fn log(&self) -> PathBuf {
        self.0.join("log")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn id(number: u16) -> PacketId {
    PacketId::new(number).unwrap()
}

fn mark(number: u16, stage: Stage) -> Mark {
    Mark { id: id(number), stage }
}

/// Everything in the store, as text.
pub fn contents<S: Store>(store: &mut S) -> Vec<String> {
    let mut all = Vec::new();
    while let Some(entry) = now(store.entry(all.len())).unwrap() {
        let (text, payload) = match entry {
            Entry::Released(id) => (format!("released {}", id.get()), None),
            Entry::Message { id, order, topic, qos, len, .. } => {
                (format!("{topic} q{} #{} {len}", qos.bits(), id.get()), Some((order, len)))
            }
            Entry::Received(id) => (format!("received {}", id.get()), None),
            Entry::Subscription { filter, .. } => (format!("filter {filter}"), None),
        };
        let payload = payload.map(|(order, len)| {
            let mut bytes = vec![0; len as usize];
            now(store.read(order, 0, &mut bytes)).unwrap();
            format!(" {}", String::from_utf8_lossy(&bytes))
        });
        all.push(text + &payload.unwrap_or_default());
    }
    all
}

#[test]
fn what_was_stored_is_there_when_it_is_opened_again() {
    let scratch = Scratch::new();
    let mut store = FileStore::open(&scratch.0).unwrap();
    now(store.put(id(1), 0, &Publish::new("a", b"one").exactly_once())).unwrap();
    now(store.put(id(2), 1, &Publish::new("b", b"two").at_least_once().retain())).unwrap();
    now(store.put(id(3), 2, &Publish::new("c", b"three").exactly_once())).unwrap();
    now(store.mark(&[mark(1, Stage::Released), mark(9, Stage::Received), mark(8, Stage::Received)])).unwrap();
    now(store.subscribe(&Filter::new("x/#", QoS::AtLeastOnce).unwrap())).unwrap();
    now(store.mark(&[mark(3, Stage::Released), mark(9, Stage::Forgotten)])).unwrap();
    let expected = ["received 8", "released 1", "released 3", "b q1 #2 3 two", "filter x/#"];
    assert_eq!(contents(&mut store), expected);
    let mut looked_at = FileStore::read_only(&scratch.0).unwrap();
    assert_eq!(contents(&mut looked_at), expected);
    assert!(now(looked_at.mark(&[mark(1, Stage::Done)])).is_err());
    drop(store);
    let mut store = FileStore::open(&scratch.0).unwrap();
    assert_eq!(contents(&mut store), expected);
    assert_eq!(store.last(), Some((id(3), 2)));
}

#[test]
fn one_process_at_a_time() {
    let scratch = Scratch::new();
    let _store = FileStore::open(&scratch.0).unwrap();
    let Err(StoreError::Medium(error)) = FileStore::open(&scratch.0) else { panic!("opened twice") };
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn a_store_that_was_dropped_can_be_opened_at_once() {
    let scratch = Scratch::new();
    for _ in 0..20 {
        drop(FileStore::open(&scratch.0).unwrap());
    }
    let store = FileStore::open(&scratch.0).unwrap();
    let clone = store.clone();
    drop(store);
    assert!(FileStore::open(&scratch.0).is_err(), "a clone has it");
    drop(clone);
    FileStore::open(&scratch.0).unwrap();
}

/// Lives for as long as its standard input is open: this test alone, in a child.
#[test]
#[ignore = "runs in a child of `a_process_that_was_started_meanwhile_does_not_hold_the_store`"]
fn child_that_waits() {
    println!("begun");
    let _ = std::io::stdin().read_line(&mut String::new());
}

#[test]
fn a_process_that_was_started_meanwhile_does_not_hold_the_store() {
    let scratch = Scratch::new();
    let store = FileStore::open(&scratch.0).unwrap();
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "file::child_that_waits"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // It runs, and is not about to become another program any more.
    let mut lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("begun")));
    drop(store);
    FileStore::open(&scratch.0).unwrap();
    drop(child.stdin.take());
    assert!(lines.any(|line| line.contains("1 passed")));
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_log_cut_off_anywhere_is_as_it_was_before_the_record_that_was_cut() {
    let scratch = Scratch::new();
    let mut store = FileStore::open(&scratch.0).unwrap();
    let mut states = vec![(store.log_len(), contents(&mut store))];
    for number in 1..=4_u16 {
        now(store.put(id(number), u32::from(number), &Publish::new("a", b"payload").exactly_once())).unwrap();
        states.push((store.log_len(), contents(&mut store)));
        now(store.mark(&[mark(number, if number % 2 == 0 { Stage::Released } else { Stage::Done })])).unwrap();
        states.push((store.log_len(), contents(&mut store)));
    }
    drop(store);
    let whole = std::fs::read(scratch.log()).unwrap();
    for len in 0..=whole.len() {
        std::fs::write(scratch.log(), &whole[..len]).unwrap();
        let mut store = FileStore::open(&scratch.0).unwrap();
        assert_eq!(store.damage(), Default::default(), "torn at {len}");
        let before = states.iter().rev().find(|(at, _)| *at <= len as u64).unwrap_or(&states[0]);
        assert_eq!(contents(&mut store), before.1, "torn at {len}");
        now(store.put(id(77), 1000, &Publish::new("after", b"").exactly_once())).unwrap();
        let kept = contents(&mut store);
        drop(store);
        assert_eq!(contents(&mut FileStore::open(&scratch.0).unwrap()), kept);
    }
}

#[test]
fn a_damaged_record_is_counted_and_the_others_are_kept() {
    // [F06]
    let scratch = Scratch::new();
    let mut store = FileStore::open(&scratch.0).unwrap();
    let mut ends = Vec::new();
    for number in 1..=3_u16 {
        now(store.put(id(number), u32::from(number), &Publish::new("a", b"payload").exactly_once())).unwrap();
        ends.push(store.log_len() as usize);
    }
    drop(store);
    let whole = std::fs::read(scratch.log()).unwrap();
    for at in ends[0]..ends[1] {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        std::fs::write(scratch.log(), &bytes).unwrap();
        let mut store = FileStore::open(&scratch.0).unwrap();
        assert_eq!(store.damage().records, 1, "byte {at}");
        assert_eq!(contents(&mut store), ["a q2 #1 7 payload", "a q2 #3 7 payload"], "byte {at}");
    }
}

#[test]
fn a_newer_format_is_refused_and_not_touched() {
    let scratch = Scratch::new();
    drop(FileStore::open(&scratch.0).unwrap());
    let mut bytes = std::fs::read(scratch.log()).unwrap();
    bytes[14] = 3;
    seal(&mut bytes);
    std::fs::write(scratch.log(), &bytes).unwrap();
    assert!(matches!(FileStore::open(&scratch.0), Err(StoreError::Newer { format: 3 })));
    assert_eq!(std::fs::read(scratch.log()).unwrap(), bytes);
}

/// Sets the checksum of a record, as format 1 has it.
fn seal(record: &mut [u8]) {
    let sum = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC).checksum(&[&record[..4], &record[8..]].concat());
    record[4..8].copy_from_slice(&sum.to_be_bytes());
}

/// A record of format 1.
fn record(contents: &[u8]) -> Vec<u8> {
    let mut record = [&(contents.len() as u32).to_be_bytes()[..], &[0; 4], contents].concat();
    seal(&mut record);
    record
}

/// The contents of a record of a message at QoS 2 on the topic `a`.
fn message(number: u8, payload: &[u8]) -> Vec<u8> {
    [&[1, 0, number, 0, 0, 0, number, 2, 0, 1, b'a'][..], payload].concat()
}

#[test]
fn a_log_of_the_first_format_is_read_and_written_anew() {
    let scratch = Scratch::new();
    std::fs::create_dir(&scratch.0).unwrap();
    let records = [&b"dunlin\x01"[..], &message(1, b"one"), &message(2, b"two"), &[2, 1, 0, 1], b"\x03\x01in/#"];
    let log = records.map(record).concat();
    let kept = ["released 1", "a q2 #2 3 two", "filter in/#"];
    std::fs::write(scratch.log(), &log).unwrap();
    assert_eq!(contents(&mut FileStore::read_only(&scratch.0).unwrap()), kept);
    assert_eq!(std::fs::read(scratch.log()).unwrap(), log, "looking at it changes nothing");
    for _ in 0..2 {
        let mut store = FileStore::open(&scratch.0).unwrap();
        assert_eq!(contents(&mut store), kept);
        assert_eq!(store.damage(), Default::default());
    }
    assert_eq!(std::fs::read(scratch.log()).unwrap()[14], 2);
}

#[test]
fn what_a_message_contains_never_passes_for_a_record() {
    let scratch = Scratch::new();
    let mut store = FileStore::open(&scratch.0).unwrap();
    let forged = [record(&message(7, b"forged")), vec![b'.'; 100]].concat();
    now(store.put(id(1), 1, &Publish::new("a", &forged).exactly_once())).unwrap();
    let end = store.log_len() as usize;
    now(store.put(id(2), 2, &Publish::new("a", b"second").exactly_once())).unwrap();
    drop(store);
    let whole = std::fs::read(scratch.log()).unwrap();
    for (bytes, kept) in [(&whole[..end - 1], &[][..]), (&whole[..], &["a q2 #2 6 second"][..])] {
        let mut bytes = bytes.to_vec();
        if bytes.len() > end {
            bytes[end - 1] ^= 1;
        }
        std::fs::write(scratch.log(), &bytes).unwrap();
        assert_eq!(contents(&mut FileStore::open(&scratch.0).unwrap()), kept);
    }
}

#[test]
fn identifiers_without_messages_do_not_make_the_log_be_written_anew_each_time() {
    let scratch = Scratch::new();
    let mut store = FileStore::open(&scratch.0).unwrap();
    let received: Vec<_> = (1..=20_000).map(|number| mark(number, Stage::Received)).collect();
    now(store.mark(&received)).unwrap();
    let len = store.log_len();
    now(store.mark(&[mark(20_001, Stage::Received)])).unwrap();
    now(store.mark(&[mark(20_001, Stage::Forgotten)])).unwrap();
    assert!(store.log_len() > len, "appended to");
}

#[test]
fn the_log_is_written_anew_and_stays_small() {
    let scratch = Scratch::new();
    let mut store = FileStore::with_limit(&scratch.0, 100_000).unwrap();
    now(store.put(id(9), 0, &Publish::new("keep", b"this").exactly_once())).unwrap();
    now(store.put(id(8), 1, &Publish::new("keep", b"that").exactly_once())).unwrap();
    now(store.mark(&[mark(8, Stage::Released), mark(5, Stage::Received)])).unwrap();
    for order in 2..2000 {
        now(store.put(id(1), order, &Publish::new("a", &[7; 1000]).exactly_once())).unwrap();
        now(store.mark(&[mark(1, Stage::Released)])).unwrap();
        now(store.mark(&[mark(1, Stage::Done)])).unwrap();
        assert!(store.log_len() < 70_000);
    }
    let expected = ["received 5", "released 8", "keep q2 #9 4 this"];
    assert_eq!(contents(&mut store), expected);
    drop(store);
    let mut store = FileStore::open(&scratch.0).unwrap();
    assert_eq!(contents(&mut store), expected);
    assert_eq!(store.last(), Some((id(1), 1999)));
}

#[test]
fn a_full_store_refuses_and_takes_again_what_was_made_room_for() {
    let scratch = Scratch::new();
    let mut store = FileStore::with_limit(&scratch.0, 3000).unwrap();
    assert!(matches!(now(store.put(id(1), 0, &Publish::new("a", &[0; 4000]))), Err(StoreError::TooLarge)));
    now(store.put(id(1), 0, &Publish::new("a", &[0; 2000]).exactly_once())).unwrap();
    assert!(matches!(now(store.put(id(2), 1, &Publish::new("a", &[0; 2000]))), Err(StoreError::Full)));
    now(store.mark(&[mark(1, Stage::Released)])).unwrap();
    now(store.put(id(2), 1, &Publish::new("a", &[0; 2000]).exactly_once())).unwrap();
}

#[test]
fn threads_that_store_at_the_same_time_lose_nothing() {
    let scratch = Scratch::new();
    let store = FileStore::open(&scratch.0).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8_u32 {
            let mut store = store.clone();
            scope.spawn(move || {
                for n in 0..20 {
                    let order = thread * 100 + n;
                    let name = id(order as u16 + 1);
                    now(store.put(name, order, &Publish::new("a", b"x").exactly_once())).unwrap();
                    if n % 2 == 0 {
                        now(store.mark(&[Mark { id: name, stage: Stage::Done }])).unwrap();
                    }
                }
            });
        }
    });
    drop(store);
    let kept: BTreeSet<String> = contents(&mut FileStore::open(&scratch.0).unwrap()).into_iter().collect();
    let expected: BTreeSet<String> = (0..8)
        .flat_map(|thread| (1..20).step_by(2).map(move |n| format!("a q2 #{} 1 x", thread * 100 + n + 1)))
        .collect();
    assert_eq!(kept, expected);
}

#[test]
fn orders_come_round() {
    let scratch = Scratch::new();
    let mut store = FileStore::open(&scratch.0).unwrap();
    for (number, order) in [(1, u32::MAX - 1), (2, u32::MAX), (3, 0), (4, 1)] {
        now(store.put(id(number), order, &Publish::new("a", b"x").exactly_once())).unwrap();
    }
    let expected = ["a q2 #1 1 x", "a q2 #2 1 x", "a q2 #3 1 x", "a q2 #4 1 x"];
    assert_eq!(contents(&mut store), expected);
    drop(store);
    assert_eq!(contents(&mut FileStore::open(&scratch.0).unwrap()), expected);
}

#[test]
fn a_session_smaller_than_the_store_takes_the_rest_later() {
    let scratch = Scratch::new();
    let options = Options::new("c").durable().keep_alive(0);
    let mut storage: Storage<512, 64, 8> = Storage::new();
    let (memory, _) = storage.split();
    let mut mqtt = Durable::recover(Session::new(options, memory), FileStore::open(&scratch.0).unwrap()).unwrap();
    for n in 0..6_u8 {
        mqtt.publish(&Publish::new("a", &[n]).exactly_once()).unwrap();
    }
    drop(mqtt);
    let mut storage: Storage<64, 64, 2> = Storage::new();
    let (memory, _) = storage.split();
    let mut mqtt = Durable::recover(Session::new(options, memory), FileStore::open(&scratch.0).unwrap()).unwrap();
    let recovery = mqtt.recovery();
    assert_eq!((recovery.messages, recovery.waiting), (2, 4));
    assert!(mqtt.publish(&Publish::new("a", b"new").exactly_once()).is_err(), "what waits goes first");
}

#[test]
fn a_file_that_is_no_log_is_put_aside_and_not_overwritten() {
    let scratch = Scratch::new();
    std::fs::create_dir_all(&scratch.0).unwrap();
    for number in 1..=3 {
        let text = format!("the diary of somebody else, part {number}");
        std::fs::write(scratch.log(), &text).unwrap();
        assert!(FileStore::read_only(&scratch.0).unwrap().damage().is_reset);
        let store = FileStore::open(&scratch.0).unwrap();
        assert!(store.damage().is_reset);
        store.store(&[(id(1), 0, Publish::new("a", b"x").at_least_once())], &[]).unwrap();
        drop(store);
        let aside = scratch.0.join(format!("log.unreadable.{number}"));
        assert_eq!(std::fs::read_to_string(aside).unwrap(), text);
        let mut store = FileStore::open(&scratch.0).unwrap();
        assert_eq!(contents(&mut store), ["a q1 #1 1 x"]);
    }
}
