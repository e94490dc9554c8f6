//! What is to be written to a stream: packets in a buffer, and between them payloads that lie elsewhere.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};

use smallvec::SmallVec;

use super::payload::Payload;
use super::pool;

/// Most bytes of packets that one write carries.
pub(crate) const OUT: usize = 256 * 1024;

/// Less room than this in the buffer is left for the next turn, so that packets leave whole.
const LITTLE: usize = 4 * 1024;

/// Payloads that one write carries, at most; packets lie before, between and behind them.
const PARTS: usize = 15;

/// Most bytes of payloads that are attached at a time. While more is under way than the session knows to be sent, it
/// cannot tell a slow link from a dead one.
pub(crate) const ATTACHED: usize = 128 * 1024;

/// See the module.
#[derive(Default)]
pub(crate) struct Output {
    /// `buffer[written..filled]` is to be written, apart from the payloads between.
    buffer: Vec<u8>,
    written: usize,
    filled: usize,
    parts: VecDeque<Part>,
    /// Bytes of payloads that were attached since everything was written.
    attached: usize,
}

/// A payload, of which the bytes `from..to` are to be written when the buffer has been written up to `at`.
struct Part {
    at: usize,
    payload: Payload,
    from: usize,
    to: usize,
}

impl Output {
    pub fn is_empty(&self) -> bool {
        self.written == self.filled && self.parts.is_empty()
    }

    /// Forgets what was not written.
    pub fn clear(&mut self) {
        (self.written, self.filled, self.attached) = (0, 0, 0);
        self.parts.clear();
    }

    /// Begins with the first `filled` bytes of this buffer, and leaves an unused one, possibly none, in its place. To
    /// be called when everything was written.
    pub fn begin_with(&mut self, buffer: &mut Vec<u8>, filled: usize) {
        std::mem::swap(&mut self.buffer, buffer);
        (self.written, self.filled) = (0, filled);
    }

    /// Room for more packets; empty when there is little.
    pub fn space(&mut self) -> &mut [u8] {
        if self.buffer.is_empty() {
            self.buffer = pool::take(OUT);
        }
        let is_full =
            self.buffer.len() - self.filled < LITTLE || self.parts.len() >= PARTS || self.attached >= ATTACHED;
        if is_full { &mut [] } else { &mut self.buffer[self.filled..] }
    }

    /// So many bytes were put there.
    pub fn filled(&mut self, n: usize) {
        self.filled += n;
    }

    /// The bytes of `payload` from `from` on follow, or as many of them as may now. Says how many.
    pub fn attach(&mut self, payload: Payload, from: usize) -> usize {
        let n = payload.len().saturating_sub(from).min(ATTACHED.saturating_sub(self.attached));
        self.attached += n;
        self.parts.push_back(Part { at: self.filled, payload, from, to: from + n });
        n
    }

    /// Writes some of it. Says how many bytes that were.
    pub fn write_to(&mut self, stream: &mut (impl Write + ?Sized)) -> io::Result<usize> {
        let n = if self.parts.is_empty() {
            stream.write(&self.buffer[self.written..self.filled])?
        } else {
            stream.write_vectored(&self.slices().map(IoSlice::new).collect::<SmallVec<[_; 32]>>())?
        };
        self.wrote(n);
        Ok(n)
    }

    /// Gives the buffer back, if everything was written.
    pub fn rest(&mut self) {
        if self.is_empty() {
            pool::give(std::mem::take(&mut self.buffer));
            self.clear();
            self.parts = VecDeque::new();
        }
    }

    /// What is to be written, in its order.
    fn slices(&self) -> impl Iterator<Item = &[u8]> {
        let mut at = self.written;
        let parts = self.parts.iter().flat_map(move |part| {
            let before = &self.buffer[std::mem::replace(&mut at, part.at)..part.at];
            [before, part.payload.get(part.from..part.to).unwrap_or_default()]
        });
        let last = self.parts.back().map_or(self.written, |part| part.at);
        parts.chain([&self.buffer[last..self.filled]]).filter(|slice| !slice.is_empty())
    }

    fn wrote(&mut self, mut n: usize) {
        while let Some(part) = self.parts.front_mut() {
            let before = n.min(part.at - self.written);
            self.written += before;
            n -= before;
            let left = part.to - part.from;
            if n < left || self.written < part.at {
                part.from += n;
                return;
            }
            n -= left;
            self.parts.pop_front();
        }
        self.written += n;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes `0` bytes at most in one call.
    struct Narrow(usize, Vec<u8>);

    impl Write for Narrow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.write_vectored(&[IoSlice::new(bytes)])
        }

        fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
            let all: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
            let n = all.len().min(self.0);
            self.1.extend(&all[..n]);
            Ok(n)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn put(output: &mut Output, bytes: &[u8]) {
        output.space()[..bytes.len()].copy_from_slice(bytes);
        output.filled(bytes.len());
    }

    #[test]
    fn whatever_a_write_takes_the_bytes_keep_their_order() {
        for most in 1..20 {
            let mut output = Output::default();
            put(&mut output, b"one ");
            assert_eq!(output.attach(Payload::from(b"-two ".to_vec()), 1), 4);
            output.attach(Payload::from(&b"three "[..]), 0);
            put(&mut output, b"four ");
            output.attach(Payload::from(String::from("five")), 0);
            let mut stream = Narrow(most, Vec::new());
            while !output.is_empty() {
                assert!(output.write_to(&mut stream).unwrap() > 0);
            }
            assert_eq!(stream.1, b"one two three four five");
            output.rest();
            assert!(output.buffer.is_empty());
        }
    }

    #[test]
    fn a_long_payload_goes_out_in_pieces_of_which_the_session_hears() {
        let payload = Payload::from((0..3 * ATTACHED).map(|n| n.to_le_bytes()[1]).collect::<Vec<_>>());
        let (mut output, mut stream) = (Output::default(), Narrow(usize::MAX, Vec::new()));
        while stream.1.len() < payload.len() {
            assert!(!output.space().is_empty());
            assert_eq!(output.attach(payload.clone(), stream.1.len()), ATTACHED);
            assert!(output.space().is_empty());
            assert_eq!(output.attach(payload.clone(), 0), 0);
            output.write_to(&mut stream).unwrap();
            assert!(output.is_empty());
            output.clear();
        }
        assert_eq!(stream.1[..], payload[..]);
    }

    #[test]
    fn what_was_gathered_elsewhere_goes_first_and_its_buffer_is_exchanged() {
        let mut output = Output::default();
        let mut gathered = b"one two".to_vec();
        gathered.resize(OUT, 0);
        output.begin_with(&mut gathered, 4);
        assert!(gathered.is_empty());
        put(&mut output, b"three");
        let mut stream = Narrow(usize::MAX, Vec::new());
        output.write_to(&mut stream).unwrap();
        assert_eq!(stream.1, b"one three");
    }
}
