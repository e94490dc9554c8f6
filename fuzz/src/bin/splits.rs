//! One stream of bytes, cut in pieces in two ways: the same events and the same end.

#![no_main]

use arbitrary::Arbitrary;
use dunlin_core::{Event, Fault, Instant, Session, Transmit};
use dunlin_fuzz::{Served, Setup};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Case {
    setup: Setup,
    served: Vec<Served>,
    pieces: Vec<u8>,
}

fuzz_target!(|case: Case| {
    let bytes: Vec<u8> = case.served.iter().take(40).flat_map(Served::bytes).collect();
    let whole = live(&case.setup, &bytes, &[255]);
    let pieces: Vec<u8> = case.pieces.iter().map(|len| len % 32).chain([1]).collect();
    assert_eq!(whole, live(&case.setup, &bytes, &pieces), "pieces {pieces:?} of {bytes:02x?}");
});

/// What a session tells of `bytes` that come in such pieces, again and again.
fn live(setup: &Setup, bytes: &[u8], pieces: &[u8]) -> (Vec<String>, Option<Fault>) {
    let mut room = setup.room();
    let (memory, mut inbox) = room.split();
    let mut session = Session::new(setup.options(), memory);
    let now = Instant::from_millis(1);
    let mut told = Vec::new();
    session.open(now, &mut inbox);
    drain(&mut session, now);
    // What is asked for has left before the pieces begin: a server cannot answer earlier.
    inbox.push(b"\x20\x02\x00\x00");
    while let Ok(Some(_)) = session.poll(now, &mut inbox) {}
    drain(&mut session, now);
    let mut pieces = pieces.iter().cycle();
    let mut rest = bytes;
    while !rest.is_empty() {
        let piece = usize::from(*pieces.next().unwrap_or(&1)).clamp(1, rest.len());
        let n = inbox.push(&rest[..piece]);
        rest = &rest[n..];
        loop {
            match session.poll(now, &mut inbox) {
                Ok(Some(event)) => tell(&event, &mut told),
                Ok(None) if drain(&mut session, now) => {}
                Ok(None) => break,
                Err(fault) => return (told, Some(fault)),
            }
        }
        if n == 0 && inbox.space().is_empty() {
            break; // with manual acknowledgement, it waits for the application
        }
    }
    (told, None)
}

/// Whether anything left.
fn drain(session: &mut Session<'_>, now: Instant) -> bool {
    let mut out = [0; 512];
    let mut has_sent = false;
    while let Transmit::Bytes(_) = session.transmit(now, &mut out) {
        has_sent = true;
    }
    has_sent
}

/// Chunks depend on the pieces, what they add up to does not.
fn tell(event: &Event<'_>, told: &mut Vec<String>) {
    match event {
        Event::Chunk(chunk) => {
            let text = format!("large {:?} of {}: {:02x?}", chunk.topic, chunk.total, chunk.bytes);
            match told.last_mut() {
                Some(last) if chunk.offset > 0 => last.push_str(&format!("{:02x?}", chunk.bytes).replace("][", ", ")),
                _ => told.push(text),
            }
            if let Some(last) = told.last_mut() {
                *last = last.replace("][", ", ");
            }
        }
        Event::Message(message) => {
            told.push(format!("{:?} {} {} {:02x?}", message.qos, message.dup, &*message.topic, message.payload));
        }
        other => told.push(format!("{other:?}")),
    }
}
