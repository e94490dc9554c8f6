//! Bytes received and not yet used up.
//!
//! The caller reads from its stream into [`Inbox::space`] and says how much came; the session takes packets from the
//! front. Packets are parsed where they lie, and events borrow them from here. The inbox knows nothing of a session:
//! one inbox can serve one session after another.

use crate::bytes;
use crate::packet::header;
use crate::topic::Topic;

/// A buffer for received bytes. Its length is the largest packet that can be received whole, unless it is
/// [`growing`](Self::growing).
#[derive(Debug)]
pub struct Inbox<'m> {
    buf: &'m mut [u8],
    /// The longest packet that is waited for.
    limit: usize,
    start: usize,
    end: usize,
    /// Bytes from `start` that the event last returned still borrows.
    used: usize,
    /// Where its two parts lie, topic and payload, or nothing and return codes: the first `topic_len` bytes behind
    /// `topic_at` of them, and the last `body_len`.
    topic_at: usize,
    topic_len: usize,
    body_len: usize,
}

/// With so many bytes of it there, a packet counts as one that takes its time to come.
const LONG: usize = 1024;

impl<'m> Inbox<'m> {
    /// An empty inbox in `buf`. At least 16 bytes are needed to speak MQTT at all.
    #[must_use]
    pub const fn new(buf: &'m mut [u8]) -> Self {
        Self::growing(buf, 0)
    }

    /// An empty inbox in `buf` for packets of up to `limit` bytes, however short `buf` is.
    ///
    /// Whoever makes one promises to go on with a larger one when [`wants`](Self::wants) says so: make it, and push
    /// what is [`pending`](Self::pending). So memory follows the bytes that came, not what a server claims.
    #[must_use]
    pub const fn growing(buf: &'m mut [u8], limit: usize) -> Self {
        let len = buf.len();
        let limit = if limit > len { limit } else { len };
        Self { buf, limit, start: 0, end: 0, used: 0, topic_at: limit, topic_len: 0, body_len: 0 }
    }

    /// Bytes of the packet at the front, when it is longer than the buffer and within the limit. To be asked after
    /// `poll` has found nothing more to tell.
    #[must_use]
    pub fn wants(&self) -> Option<usize> {
        let header = header::read(self.pending()).ok()??;
        let len = header.len.wrapping_add(header.remaining);
        (len > self.buf.len() && len <= self.limit).then_some(len)
    }

    /// Where to read the next bytes into.
    ///
    /// Empty when the session must send something before it can take the packet that fills the inbox. Do not read
    /// then, since reading into nothing looks like the end of the stream: send what `transmit` gives, and poll.
    pub fn space(&mut self) -> &mut [u8] {
        let tail = self.buf.len().wrapping_sub(self.end);
        // Moving is worth it when it gains more room than there is.
        if self.used == 0 && self.start > tail {
            self.end = self.end.wrapping_sub(self.start);
            bytes::slide(self.buf, 0, self.start, self.end);
            self.start = 0;
        }
        self.buf.get_mut(self.end..).unwrap_or_default()
    }

    /// Says that `n` bytes were read into [`space`](Self::space).
    pub fn filled(&mut self, n: usize) {
        self.end = self.end.saturating_add(n).min(self.buf.len());
    }

    /// Copies in as much of `bytes` as there is room for, and says how much.
    pub fn push(&mut self, bytes: &[u8]) -> usize {
        let n = crate::packet::writer::copy(self.space(), bytes);
        self.filled(n);
        n
    }

    /// Forgets what was received, for a new stream.
    pub fn clear(&mut self) {
        self.start = 0;
        self.end = 0;
        self.used = 0;
    }

    /// The largest packet that can be received whole, in bytes.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.limit
    }

    /// Whether nothing is in it.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Bytes received that no event has taken yet.
    #[must_use]
    pub fn pending(&self) -> &[u8] {
        self.buf.get(self.start.wrapping_add(self.used)..self.end).unwrap_or_default()
    }

    /// Whether 1 KiB or more of a packet is there, and the rest is still to come. To be asked after `poll` has found nothing
    /// more to tell.
    ///
    /// For drivers: when more of it comes then, they [`hold`](crate::Session::hold), since the answer to a ping stands behind
    /// it, however long it takes on a slow link.
    #[must_use]
    pub fn is_amid_packet(&self) -> bool {
        self.pending().len() >= LONG
    }

    /// What is pending, when no event borrows anything.
    pub(crate) fn front(&self) -> Option<&[u8]> {
        self.buf.get(self.start..self.end)
    }

    /// Whether no more can come in before something is taken.
    #[cfg(feature = "large")]
    pub(crate) fn is_full(&self) -> bool {
        self.pending().len() == self.buf.len()
    }

    /// Drops the bytes of the event last returned.
    pub(crate) fn discard_used(&mut self) {
        self.start = self.start.wrapping_add(self.used);
        self.used = 0;
        if self.start >= self.end {
            self.start = 0;
            self.end = 0;
        }
    }

    /// Drops `len` bytes off the front, of those that are pending.
    #[cfg(feature = "large")]
    pub(crate) fn drop_front(&mut self, len: usize) {
        self.used = len;
        self.discard_used();
    }

    /// Takes `len` bytes off the front, which stay readable until `discard_used`. The last `body_len` of them are the
    /// body of the event, `topic_len` bytes from `topic_at` on its topic.
    pub(crate) fn take(&mut self, len: usize, body_len: usize, topic_at: usize, topic_len: usize) {
        self.used = len;
        self.topic_at = topic_at;
        self.topic_len = topic_len;
        self.body_len = body_len;
    }

    /// The packet last taken stays at the front.
    pub(crate) fn give_back(&mut self) {
        self.used = 0;
    }

    /// As [`take`](Self::take), for an event that does not come from here.
    #[cfg(all(feature = "qos2", feature = "subscribe"))]
    pub(crate) fn use_up(&mut self, len: usize) {
        self.used = len;
    }

    /// What was used up, from `from` on.
    #[cfg(all(feature = "qos2", feature = "subscribe"))]
    pub(crate) fn used(&self, from: usize) -> &[u8] {
        self.buf.get(self.start.wrapping_add(from)..self.start.wrapping_add(self.used)).unwrap_or_default()
    }

    /// The topic of the event last returned. It was checked when it was decoded.
    pub(crate) fn topic(&self) -> Topic<'_> {
        Topic::new(self.bytes(self.topic_at, self.topic_len))
    }

    /// The body of the event last returned.
    pub(crate) fn body(&self) -> &[u8] {
        self.bytes(self.used.wrapping_sub(self.body_len), self.body_len)
    }

    #[inline(never)] // twice for each message
    fn bytes(&self, at: usize, len: usize) -> &[u8] {
        if !cfg!(feature = "subscribe") {
            return &[]; // no event has either
        }
        let from_start = self.buf.get(self.start.wrapping_add(at)..).unwrap_or_default();
        from_start.get(..len).unwrap_or_default()
    }
}
