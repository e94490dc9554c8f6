//! What durability costs flash: erases and bytes per message, and the time to recover as the store fills.

use dunlin_core::{Mark, PacketId, Publish, Stage};
use dunlin_store::{Blocking, FlashStore, Store};
use dunlin_testkit::flash::Flash;

use crate::now;

/// Messages under way at a time.
const IN_FLIGHT: u32 = 4;

/// One thousand QoS 2 messages from `put` to "done".
fn wear<const W: usize, const E: usize>(pages: usize, payload: usize) -> String {
    let mut flash = Flash::<W, E>::new(pages);
    let end = (pages * E) as u32;
    {
        let mut store = FlashStore::<_, 25, 21, 2048>::mount_blocking(&mut flash, 0..end).unwrap();
        let name = |order: u32| PacketId::new((order % 65_535) as u16 + 1).unwrap();
        for order in 0..1000 + IN_FLIGHT {
            if order < 1000 {
                now(store.put(name(order), order, &Publish::new("till/12/sale", &vec![7; payload]).exactly_once()))
                    .unwrap();
            }
            if let Some(over) = order.checked_sub(IN_FLIGHT) {
                now(store.mark(&[Mark { id: name(over), stage: Stage::Released }])).unwrap();
                now(store.mark(&[Mark { id: name(over), stage: Stage::Done }])).unwrap();
            }
        }
    }
    let erases = flash.erases();
    let (least, most) = (erases.iter().min().unwrap(), erases.iter().max().unwrap());
    let sum: u32 = erases.iter().sum();
    let bytes = flash.bytes_written() / 1000;
    assert!(most - least <= 2, "worn evenly: {erases:?}");
    format!("| {E} | {pages} | {W} | {payload} | {sum} | {most} | {bytes} |")
}

#[test]
fn erases_per_thousand_messages() {
    println!("| page | pages | word | payload | erases | of the page worn most | bytes written per message |");
    println!("|---|---|---|---|---|---|---|");
    println!("{}", wear::<4, 2048>(4, 32));
    println!("{}", wear::<4, 4096>(4, 32));
    println!("{}", wear::<8, 8192>(4, 32));
    println!("{}", wear::<4, 4096>(16, 32));
    println!("{}", wear::<4, 4096>(4, 256));
    println!("{}", wear::<4, 4096>(8, 1024));
}

#[test]
#[ignore = "large pages, where the map compares each record with all others; cargo xtask verify"]
fn erases_per_thousand_messages_on_large_pages() {
    println!("{}", wear::<32, { 128 * 1024 }>(2, 32));
}

#[test]
fn recovery_reads_what_is_stored() {
    println!("| messages of 64 bytes | of them open | bytes read by mount |");
    println!("|---|---|---|");
    for (messages, open) in [(0, 0), (10, 10), (100, 10), (300, 10), (1000, 10)] {
        let mut flash = Flash::<4, 4096>::new(4);
        {
            let mut store = FlashStore::<_>::mount_blocking(&mut flash, 0..4 * 4096).unwrap();
            for order in 0..messages {
                let id = PacketId::new(order as u16 + 1).unwrap();
                now(store.put(id, order, &Publish::new("a", &[7; 64]).exactly_once())).unwrap();
                if order + open < messages {
                    now(store.mark(&[Mark { id, stage: Stage::Done }])).unwrap();
                }
            }
        }
        flash.clear_log();
        FlashStore::<Blocking<_>>::mount_blocking(&mut flash, 0..4 * 4096).unwrap();
        println!("| {messages} | {open} | {} |", flash.bytes_read());
        assert!(flash.bytes_read() < 200_000);
        assert_eq!(flash.bytes_written(), 0, "a mount after a clean end writes nothing");
    }
}
