//! A connection as TCP gives it: bytes in order, in both directions, cut into pieces at will, delayed, stalled, broken.
//!
//! Nothing is lost, doubled or reordered while the connection lives; when it is cut, what has not arrived is gone. All
//! in virtual time, and from a seed where chance has a part. It knows nothing of MQTT.

use std::collections::VecDeque;

use crate::seed::Rng;

/// Where a stream is cut into pieces. A read returns at most one piece.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Split {
    /// Whatever is there.
    #[default]
    Whole,
    /// Pieces of this many bytes at most.
    Every(usize),
    /// A piece ends at each of these positions of the stream, counted from its first byte; ascending.
    At(Vec<u64>),
    /// Pieces of 1 to `most` bytes, by chance.
    Random {
        /// Largest piece.
        most: usize,
        /// Where the sizes come from.
        rng: Rng,
    },
}

/// One direction of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Pipe {
    /// Bytes on their way, with the time at which they arrive.
    on_the_way: VecDeque<(u64, u8)>,
    /// Bytes that the far end has read since the connection was made.
    carried: u64,
    /// How pieces are made.
    pub split: Split,
    /// Milliseconds from one end to the other.
    pub delay_ms: u64,
    /// Up to this much more, by chance; the order is kept.
    pub jitter: Option<(u64, Rng)>,
    /// Bytes that fit on the way; more are not taken. `None`: any number.
    pub window: Option<usize>,
    /// The far end reads nothing.
    pub stalled: bool,
    /// After this many more bytes have been read, the connection breaks.
    pub cut_after: Option<u64>,
}

impl Pipe {
    /// Puts bytes on their way and returns how many were taken.
    pub fn write(&mut self, now: u64, bytes: &[u8]) -> usize {
        let room = self.window.map_or(bytes.len(), |window| window.saturating_sub(self.on_the_way.len()));
        let taken = room.min(bytes.len());
        let jitter = self.jitter.as_mut().map_or(0, |(most, rng)| rng.below(*most as usize + 1) as u64);
        let last = self.on_the_way.back().map_or(0, |(due, _)| *due);
        let due = last.max(now.saturating_add(self.delay_ms + jitter));
        self.on_the_way.extend(bytes[..taken].iter().map(|byte| (due, *byte)));
        taken
    }

    /// Bytes that the far end reads now, at most one piece and at most `max`.
    pub fn read(&mut self, now: u64, max: usize) -> Vec<u8> {
        if self.stalled {
            return Vec::new();
        }
        let arrived = self.on_the_way.iter().take_while(|(due, _)| *due <= now).count();
        let piece = match &mut self.split {
            Split::Whole => usize::MAX,
            Split::Every(size) => (*size).max(1),
            Split::At(points) => {
                let next = points.iter().find(|point| **point > self.carried);
                next.map_or(usize::MAX, |point| (*point - self.carried) as usize)
            }
            Split::Random { most, rng } if arrived > 0 => 1 + rng.below(*most),
            Split::Random { .. } => 1,
        };
        let left = self.cut_after.map_or(usize::MAX, |left| left as usize);
        let count = arrived.min(piece).min(max).min(left);
        self.carried += count as u64;
        self.cut_after = self.cut_after.map(|left| left - count as u64);
        self.on_the_way.drain(..count).map(|(_, byte)| byte).collect()
    }

    /// When the far end can read more, if nothing else happens.
    pub fn next_arrival(&self) -> Option<u64> {
        self.on_the_way.front().filter(|_| !self.stalled).map(|(due, _)| *due)
    }

    /// Bytes on their way.
    pub fn len(&self) -> usize {
        self.on_the_way.len()
    }

    /// Whether nothing is on its way.
    pub fn is_empty(&self) -> bool {
        self.on_the_way.is_empty()
    }

    /// Bytes that the far end has read since the connection was made.
    pub fn carried(&self) -> u64 {
        self.carried
    }

    fn lose(&mut self) {
        self.on_the_way.clear();
        self.carried = 0;
    }
}

/// Both directions. Splits, delays and windows outlive a connection; bytes do not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Wire {
    /// From the client to the broker.
    pub up: Pipe,
    /// From the broker to the client.
    pub down: Pipe,
}

impl Wire {
    /// A wire that does nothing to the bytes.
    pub fn new() -> Self {
        Self::default()
    }

    /// A wire that splits and delays by chance.
    pub fn rough(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let mut pipe = || Pipe {
            split: Split::Random { most: 1 + rng.below(40), rng: Rng::new(rng.number()) },
            delay_ms: rng.below(50) as u64,
            jitter: Some((rng.below(50) as u64, Rng::new(rng.number()))),
            window: rng.chance(1, 3).then(|| 1 + rng.below(100)),
            ..Pipe::default()
        };
        Self { up: pipe(), down: pipe() }
    }

    /// Whether one direction has carried all that it was to carry: both are dead then.
    pub fn is_cut(&self) -> bool {
        self.up.cut_after == Some(0) || self.down.cut_after == Some(0)
    }

    /// The connection is gone with all that was on its way; the next one starts whole.
    pub fn reset(&mut self) {
        for pipe in [&mut self.up, &mut self.down] {
            pipe.lose();
            if pipe.cut_after == Some(0) {
                pipe.cut_after = None;
            }
        }
    }

    /// When bytes arrive at either end, if nothing else happens.
    pub fn next_arrival(&self) -> Option<u64> {
        [self.up.next_arrival(), self.down.next_arrival()].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(pipe: &mut Pipe) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| Some(pipe.read(0, 1000)).filter(|piece| !piece.is_empty())).collect()
    }

    #[test]
    fn bytes_come_in_order_and_in_the_pieces_asked_for() {
        let mut pipe = Pipe::default();
        assert_eq!(pipe.write(0, b"abcdef"), 6);
        assert_eq!(pieces(&mut pipe), [b"abcdef"]);
        pipe = Pipe { split: Split::Every(4), ..Pipe::default() };
        pipe.write(0, b"abcdef");
        assert_eq!(pieces(&mut pipe), [&b"abcd"[..], b"ef"]);
        pipe = Pipe { split: Split::At(vec![1, 5]), ..Pipe::default() };
        pipe.write(0, b"abcdef");
        assert_eq!(pieces(&mut pipe), [&b"a"[..], b"bcde", b"f"]);
        pipe = Pipe { split: Split::Random { most: 3, rng: Rng::new(1) }, ..Pipe::default() };
        pipe.write(0, b"abcdef");
        assert_eq!(pieces(&mut pipe).concat(), b"abcdef");
    }

    #[test]
    fn a_delay_holds_bytes_back_and_keeps_their_order() {
        let mut pipe = Pipe { delay_ms: 10, jitter: Some((20, Rng::new(3))), ..Pipe::default() };
        for byte in b'a'..=b'z' {
            pipe.write(0, &[byte]);
        }
        assert_eq!(pipe.read(9, 100), b"");
        assert!(pipe.next_arrival() >= Some(10));
        assert_eq!(pipe.read(30, 100), (b'a'..=b'z').collect::<Vec<_>>());
    }

    #[test]
    fn a_full_window_takes_no_more_and_a_stalled_end_reads_nothing() {
        let mut pipe = Pipe { window: Some(3), stalled: true, ..Pipe::default() };
        assert_eq!(pipe.write(0, b"abcdef"), 3);
        assert_eq!(pipe.write(0, b"def"), 0);
        assert_eq!(pipe.read(0, 100), b"");
        pipe.stalled = false;
        assert_eq!(pipe.read(0, 2), b"ab");
        assert_eq!(pipe.write(0, b"def"), 2);
    }

    #[test]
    fn a_cut_falls_after_the_byte_that_was_named_and_kills_both_directions() {
        let mut wire = Wire::new();
        wire.up.cut_after = Some(4);
        wire.up.write(0, b"abcdef");
        wire.down.write(0, b"xyz");
        assert!(!wire.is_cut());
        assert_eq!(wire.up.read(0, 100), b"abcd");
        assert!(wire.is_cut());
        wire.reset();
        assert!(!wire.is_cut() && wire.up.is_empty() && wire.down.is_empty());
    }
}
