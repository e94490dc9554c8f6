//! The store on flash: other formats, other sizes, damage, other programs' bytes.

use dunlin_core::{Filter, Mark, PacketId, Publish, QoS, Stage};
use dunlin_store::{Blocking, FlashStore, Store, StoreError};
use dunlin_testkit::flash::{Cut, Flash, FlashError, Operation};
use dunlin_testkit::seed::Rng;
use embedded_storage::nor_flash::NorFlash;

use crate::file::contents;
use crate::now;

type Small<'f> = FlashStore<Blocking<&'f mut Flash<4, 2048>>>;

fn id(number: u16) -> PacketId {
    PacketId::new(number).unwrap()
}

fn mark(number: u16, stage: Stage) -> Mark {
    Mark { id: id(number), stage }
}

fn mount(flash: &mut Flash<4, 2048>) -> Small<'_> {
    let end = flash.bytes().len() as u32;
    Small::mount_blocking(flash, 0..end).unwrap()
}

#[test]
fn what_was_stored_is_there_when_it_is_mounted_again() {
    let mut flash = Flash::<4, 2048>::new(3);
    let mut store = mount(&mut flash);
    now(store.put(id(1), 0, &Publish::new("a", b"one").exactly_once())).unwrap();
    now(store.put(id(2), 1, &Publish::new("b", b"two").at_least_once().retain())).unwrap();
    now(store.put(id(3), 2, &Publish::new("c", b"three").exactly_once())).unwrap();
    now(store.put(id(4), 3, &Publish::new("d", b"four").exactly_once())).unwrap();
    let marks =
        [mark(3, Stage::Released), mark(9, Stage::Received), mark(8, Stage::Received), mark(1, Stage::Released)];
    now(store.mark(&marks)).unwrap();
    now(store.subscribe(&Filter::new("x/#", QoS::AtLeastOnce).unwrap())).unwrap();
    now(store.mark(&[mark(9, Stage::Forgotten), mark(4, Stage::Done)])).unwrap();
    let expected = ["received 8", "released 3", "released 1", "b q1 #2 3 two", "filter x/#"];
    assert_eq!(contents(&mut store), expected);
    let mut store = mount(&mut flash);
    assert_eq!(contents(&mut store), expected);
    assert!(matches!(store.last(), Some((last, order)) if last == id(4) && order >= 3), "{:?}", store.last());
    assert_eq!(store.damage(), Default::default());
    now(store.unsubscribe("x/#")).unwrap();
    assert_eq!(contents(&mut mount(&mut flash)).len(), 4);
}

#[test]
fn payloads_are_read_from_any_offset() {
    let payload: Vec<u8> = (0..900_u32).map(|n| (n % 251) as u8).collect();
    let mut flash = Flash::<4, 2048>::new(3);
    let mut store = mount(&mut flash);
    now(store.put(id(1), 5, &Publish::new("topic/name", &payload).exactly_once())).unwrap();
    let mut store = mount(&mut flash);
    for offset in 0..=payload.len() {
        let mut out = [0; 1000];
        for len in [0, 1, payload.len() - offset] {
            let is_there = offset + len <= payload.len();
            let outcome = now(store.read(5, offset, &mut out[..len]));
            assert_eq!(outcome, if is_there { Ok(()) } else { Err(StoreError::Unreliable) });
            assert!(!is_there || out[..len] == payload[offset..offset + len]);
        }
    }
    assert_eq!(now(store.read(6, 0, &mut [0; 10])), Err(StoreError::Unreliable));
}

#[test]
fn a_full_store_refuses_what_it_could_not_bring_to_its_end() {
    let mut flash = Flash::<4, 2048>::new(2);
    let mut store = mount(&mut flash);
    let mut accepted = 0_u16;
    loop {
        let order = u32::from(accepted);
        match now(store.put(id(accepted + 1), order, &Publish::new("a", &[7; 100]).exactly_once())) {
            Ok(()) => accepted += 1,
            Err(StoreError::Full) => break,
            Err(error) => panic!("{error:?}"),
        }
    }
    assert!(accepted >= 4, "{accepted}");
    // Whatever becomes of them can still be stored, however often.
    for round in 0..40 {
        for number in 1..=21 {
            now(store.mark(&[mark(1000 + number, Stage::Received)]))
                .unwrap_or_else(|error| panic!("{round}: {error:?}"));
        }
        for number in 1..=21 {
            now(store.mark(&[mark(1000 + number, Stage::Forgotten)])).unwrap();
        }
    }
    for number in 1..=accepted {
        now(store.mark(&[mark(number, Stage::Released)])).unwrap();
    }
    for number in 1..=accepted {
        now(store.mark(&[mark(number, Stage::Done)])).unwrap();
    }
    assert!(contents(&mut mount(&mut flash)).is_empty());
}

#[test]
fn topics_and_payloads_that_can_never_fit_are_told_apart_from_a_full_store() {
    let mut flash = Flash::<4, 2048>::new(2);
    let mut store = mount(&mut flash);
    let long = "t".repeat(256);
    assert_eq!(now(store.put(id(1), 0, &Publish::new(&long, b"").exactly_once())), Err(StoreError::TooLarge));
    assert_eq!(now(store.put(id(1), 0, &Publish::new("a", &[0; 1000]).exactly_once())), Err(StoreError::TooLarge));
    now(store.put(id(1), 0, &Publish::new(&long[1..], b"x").exactly_once())).unwrap();
}

#[test]
fn a_program_with_fewer_slots_finds_the_messages_in_the_others() {
    let mut flash = Flash::<4, 2048>::new(3);
    let mut store = mount(&mut flash);
    for number in 1..=9_u16 {
        now(store.put(id(number), u32::from(number), &Publish::new("a", b"x").exactly_once())).unwrap();
    }
    let done: Vec<Mark> = (1..=6).map(|number| mark(number, Stage::Done)).collect();
    now(store.mark(&done)).unwrap();
    let expected = ["a q2 #7 1 x", "a q2 #8 1 x", "a q2 #9 1 x"];
    assert_eq!(contents(&mut store), expected);
    {
        let mut store = FlashStore::<_, 5, 21>::mount_blocking(&mut flash, 0..3 * 2048).unwrap();
        assert_eq!(contents(&mut store), expected);
        now(store.mark(&[mark(8, Stage::Done)])).unwrap();
        now(store.put(id(10), 10, &Publish::new("a", b"y").exactly_once())).unwrap();
    }
    assert_eq!(contents(&mut mount(&mut flash)), ["a q2 #7 1 x", "a q2 #9 1 x", "a q2 #10 1 y"]);
    let outcome = FlashStore::<_, 3, 21>::mount_blocking(&mut flash, 0..3 * 2048);
    assert!(matches!(outcome, Err(StoreError::TooSmall)), "too small for three: it says so, and touches nothing");
    assert_eq!(contents(&mut mount(&mut flash)).len(), 3);
}

#[test]
fn identifiers_for_which_there_is_room_are_stored_before_one_is_refused() {
    let mut flash = Flash::<4, 2048>::new(3);
    let mut store = FlashStore::<_, 5, 2>::mount_blocking(&mut flash, 0..3 * 2048).unwrap();
    let marks = [mark(7, Stage::Received), mark(8, Stage::Received), mark(9, Stage::Received)];
    assert_eq!(now(store.mark(&marks)), Err(StoreError::TooSmall));
    // What is known is not stored a second time, so it must have been stored.
    now(store.mark(&marks[..2])).unwrap();
    assert_eq!(contents(&mut mount(&mut flash)), ["received 7", "received 8"]);
}

#[test]
fn bytes_of_another_program_are_erased_and_that_is_said() {
    let mut flash = Flash::<4, 2048>::new(2);
    for (at, byte) in flash.bytes_mut().iter_mut().enumerate() {
        *byte = (at * 31 % 251) as u8;
    }
    flash.erase(2048, 4096).unwrap();
    flash.bytes_mut()[2048..].fill(0x5a);
    let mut store = mount(&mut flash);
    now(store.put(id(1), 0, &Publish::new("a", b"one").exactly_once())).unwrap();
    let mut store = mount(&mut flash);
    assert_eq!(contents(&mut store), ["a q2 #1 3 one"]);
}

#[test]
fn damaged_bytes_never_make_a_panic_or_a_message_that_nobody_sent() {
    let mut flash = Flash::<4, 2048>::new(2);
    let mut store = mount(&mut flash);
    let payload = [b'p'; 300];
    now(store.put(id(1), 0, &Publish::new("a", &payload).exactly_once())).unwrap();
    now(store.put(id(2), 1, &Publish::new("b", b"two").exactly_once())).unwrap();
    now(store.mark(&[mark(2, Stage::Released), mark(7, Stage::Received)])).unwrap();
    now(store.put(id(4), 2, &Publish::new("c", b"four").exactly_once())).unwrap();
    let whole = contents(&mut store);
    // The last record cannot be told from one that the power cut short.
    let written = flash.log().iter().rev().filter_map(|operation| match operation {
        Operation::Write { offset, .. } => Some(*offset as usize),
        Operation::Erase { .. } => None,
    });
    let end = written.take(3).min().unwrap();
    let mut told = 0;
    for at in 0..end {
        for flip in [0x01, 0x80, 0xff] {
            let mut flash = flash.clone();
            flash.allow_zeroing();
            flash.bytes_mut()[at] ^= flip;
            let mut store = mount(&mut flash);
            for entry in contents(&mut store) {
                // Of a message, what it was before may come back; never anything that was not stored.
                assert!(whole.contains(&entry) || entry == "b q2 #2 3 two", "byte {at}: {entry}");
            }
            let is_told = store.damage() != Default::default();
            assert!(is_told || contents(&mut store) == whole, "byte {at}, {flip:02x}: lost and not told");
            told += u32::from(is_told);
            now(store.put(id(5), 3, &Publish::new("c", b"five").exactly_once())).unwrap();
        }
    }
    println!("{told} of {} damaged bytes were told; the others cost nothing", 3 * end);
}

/// Two messages that stay, and others that come and go, until the power fails or pages have gone round.
fn come_and_go(flash: &mut Flash<4, 2048>) -> Result<(), StoreError<FlashError>> {
    let end = flash.bytes().len() as u32;
    let mut store = Small::mount_blocking(flash, 0..end)?;
    for number in 1..=60_u16 {
        let payload = if number <= 2 { &b"stays"[..] } else { &[7; 40] };
        now(store.put(id(number), u32::from(number), &Publish::new("a", payload).exactly_once()))?;
        if number > 2 {
            now(store.mark(&[mark(number, Stage::Done)]))?;
        }
    }
    Ok(())
}

#[test]
fn the_power_may_fail_in_one_erase_again_and_again() {
    let mut flash = Flash::<4, 2048>::new(2);
    come_and_go(&mut flash).unwrap();
    let is_erase = |operation: &Operation| matches!(operation, Operation::Erase { .. });
    let erases: Vec<usize> = (0..flash.log().len()).filter(|at| is_erase(&flash.log()[*at])).collect();
    assert!(erases.len() > 2);
    for operation in erases {
        for seed in 0..40 {
            let mut flash = Flash::<4, 2048>::new(2);
            flash.allow_zeroing();
            flash.cut_power(Cut { operation, tear: 1, seed });
            assert_eq!(come_and_go(&mut flash), Err(StoreError::Medium(FlashError::PowerOff)));
            for again in 0..12 {
                flash.power_on();
                flash.cut_power(Cut { operation: again % 3, tear: 1, seed: seed + 100 * again as u64 });
                let _ = Small::mount_blocking(&mut flash, 0..4096);
            }
            flash.power_on();
            flash.keep_power();
            let mut store = mount(&mut flash);
            assert_eq!(store.damage(), Default::default(), "{operation}, {seed}");
            assert_eq!(contents(&mut store)[..2], ["a q2 #1 5 stays", "a q2 #2 5 stays"], "{operation}, {seed}");
        }
    }
}

/// Messages that come and go under one identifier, beside those that stay, until the power fails.
fn one_after_the_other(flash: &mut Flash<4, 2048>) -> Result<(), StoreError<FlashError>> {
    let end = flash.bytes().len() as u32;
    let mut store = Small::mount_blocking(flash, 0..end)?;
    loop {
        let order = store.last().map_or(0, |(_, order)| order + 1);
        now(store.put(id(3), order, &Publish::new("a", &[7; 90]).exactly_once()))?;
        now(store.mark(&[mark(3, Stage::Released)]))?;
        now(store.mark(&[mark(3, Stage::Done)]))?;
    }
}

#[test]
fn the_power_may_fail_anywhere_for_ever() {
    for seed in 0..40 {
        let mut rng = Rng::new(seed);
        let mut flash = Flash::<4, 2048>::new(2 + seed as usize % 2);
        flash.allow_zeroing();
        let mut store = mount(&mut flash);
        now(store.put(id(1), 0, &Publish::new("a", b"stays").exactly_once())).unwrap();
        now(store.put(id(2), 1, &Publish::new("a", b"stays").exactly_once())).unwrap();
        for life in 0..60 {
            // Often in the same place: the moves of a page, and what brings them to an end.
            let operation = if rng.chance(3, 4) { rng.below(12) } else { rng.below(150) };
            let tear = if rng.chance(1, 2) { rng.below(3) } else { rng.below(130) };
            flash.cut_power(Cut { operation, tear, seed: rng.number() });
            let outcome = one_after_the_other(&mut flash);
            assert_eq!(outcome, Err(StoreError::Medium(FlashError::PowerOff)), "{seed}, {life}");
            flash.power_on();
            if rng.chance(1, 2) {
                let mut store = mount(&mut flash);
                assert_eq!(store.damage(), Default::default(), "{seed}, {life}");
                let contents = contents(&mut store);
                let stays = ["a q2 #1 5 stays", "a q2 #2 5 stays"];
                assert!(
                    stays.iter().all(|stays| contents.iter().any(|entry| entry == stays)),
                    "{seed}, {life}: {contents:?}"
                );
            }
        }
    }
}

#[test]
fn regions_that_are_none_are_refused() {
    let mut flash = Flash::<4, 2048>::new(4);
    for range in [0..2048, 0..8192 + 2048, 100..4196, 4096..4096] {
        let outcome = Small::mount_blocking(&mut flash, range.clone());
        assert!(matches!(outcome, Err(StoreError::Region)), "{range:?}");
    }
    let mut store = Small::mount_blocking(&mut flash, 2048..6144).unwrap();
    now(store.put(id(1), 0, &Publish::new("a", b"one").exactly_once())).unwrap();
    assert!(flash.bytes()[..2048].iter().chain(&flash.bytes()[6144..]).all(|byte| *byte == 0xff), "nothing outside");
}
