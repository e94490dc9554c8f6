//! Messages larger than the inbox: shown in chunks, or skipped (MQTT has no limit to what a server may send).

use super::event::Kind;
#[cfg(feature = "manual")]
use super::event::Receipt;
use super::incoming::Pause;
use super::options::Oversize;
use super::{Fault, Session};
use crate::inbox::Inbox;
use crate::packet::header::Header;
use crate::packet::publish::{self, Flags};
use crate::packet::{Violation, reader};

/// The message that is passing through the inbox.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Large {
    phase: Phase,
    /// Bytes to the end of the phase.
    left: usize,
    /// Bytes of the payload when streaming, of the packet when skipping.
    total: usize,
    flags: Flags,
    #[cfg(feature = "manual")]
    receipt: Option<Receipt>,
    /// Length of the packet that last ended a connection for being too large.
    refused: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Idle,
    /// Dropping the topic of a message that is skipped, to get at its packet identifier. So many bytes follow that.
    Topic {
        then: usize,
    },
    /// Dropping its payload.
    Skip {
        report: Report,
    },
    Stream,
}

/// Whether a skipped message is reported; a repeated one was reported before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Report {
    Yes,
    No,
}

impl Large {
    pub const fn new() -> Self {
        Self {
            phase: Phase::Idle,
            left: 0,
            total: 0,
            flags: Flags::new(0),
            #[cfg(feature = "manual")]
            receipt: None,
            refused: None,
        }
    }

    pub fn is_idle(&self) -> bool {
        self.phase == Phase::Idle
    }

    /// Whether a message passes by that was handled before.
    pub fn is_repeated(&self) -> bool {
        self.phase == Phase::Skip { report: Report::No }
    }

    /// Whether a message is being shown, or passes by in place of that, that has an entry among those received.
    pub fn is_arriving(&self) -> bool {
        let is_new = matches!(self.phase, Phase::Stream | Phase::Skip { report: Report::Yes });
        is_new && !self.flags.is_qos0()
    }

    /// The stream is gone, in the middle of a message perhaps.
    pub fn rewind(&mut self) {
        self.phase = Phase::Idle;
    }
}

impl Session<'_> {
    /// A packet begins that the inbox cannot hold.
    pub(super) fn too_large(&mut self, header: Header, len: usize, inbox: &mut Inbox<'_>) -> Result<Kind, Pause> {
        if !header.is_publish() {
            return Err(self.fail(Fault::TooLarge { len }));
        }
        let flags = Flags::new(header.first);
        let body = inbox.pending().get(header.len..).unwrap_or_default();
        let Some(topic_len) = reader::number(body, 0) else { return Err(Pause::Wait) };
        let topic_len = usize::from(topic_len);
        let head_len = topic_len.wrapping_add(2).wrapping_add(flags.id_len());
        if topic_len == 0 {
            return Err(self.fail(Fault::Malformed(Violation::Topic)));
        }
        if head_len > header.remaining {
            return Err(self.fail(Fault::Malformed(Violation::Length)));
        }
        let fits = header.len.wrapping_add(head_len) < inbox.capacity();
        if fits && self.options.chunk_align > 0 {
            return self.begin_stream(header, flags, head_len, inbox);
        }
        // The same message again, after it has ended a connection: ending another helps nobody.
        let is_again = flags.is_dup() && self.large.refused == Some(len);
        if self.options.oversize == Oversize::Close && !is_again {
            self.large.refused = Some(len);
            return Err(self.fail(Fault::TooLarge { len }));
        }
        inbox.drop_front(header.len);
        self.large.phase = Phase::Topic { then: header.remaining.wrapping_sub(head_len) };
        self.large.left = topic_len.wrapping_add(2);
        self.large.total = len;
        self.large.flags = flags;
        Err(Pause::GoOn)
    }

    fn begin_stream(
        &mut self,
        header: Header,
        flags: Flags,
        head_len: usize,
        inbox: &mut Inbox<'_>,
    ) -> Result<Kind, Pause> {
        let before = header.len.wrapping_add(head_len);
        let payload = inbox.pending().get(before..).ok_or(Pause::Wait)?;
        let total = header.remaining.wrapping_sub(head_len);
        // The first chunk comes with the topic, so both must be in the inbox.
        let is_enough = payload.len() >= usize::from(self.options.chunk_align).min(total);
        if !is_enough && !inbox.is_full() {
            return Err(Pause::Wait);
        }
        let body = inbox.pending().get(header.len..before).unwrap_or_default();
        let head = self.checked(publish::head(flags, body))?;
        self.large.left = total;
        self.large.total = total;
        self.large.flags = flags;
        if !self.admit_received(flags, head.id)? {
            inbox.drop_front(before);
            self.large.phase = Phase::Skip { report: Report::No };
            return Err(Pause::GoOn);
        }
        self.large.phase = Phase::Stream;
        #[cfg(feature = "manual")]
        {
            self.large.receipt = head.id.map(|id| self.inbound.receipt(flags.is_qos2(), id));
        }
        self.chunk(before, head.topic_len, inbox)
    }

    /// Goes on with the message that is passing through.
    pub(super) fn go_on_large(&mut self, inbox: &mut Inbox<'_>) -> Result<Kind, Pause> {
        match self.large.phase {
            Phase::Idle => Err(Pause::GoOn),
            Phase::Stream => self.chunk(0, 0, inbox),
            Phase::Topic { then } => {
                self.drop_left(inbox)?;
                self.skip_id(then, inbox)
            }
            Phase::Skip { report } => {
                self.drop_left(inbox)?;
                self.large.phase = Phase::Idle;
                if report == Report::No {
                    return Err(Pause::GoOn);
                }
                self.large_shown();
                self.handled(); // there is nothing to do with it, and nobody has a receipt for it
                self.skipped = self.skipped.wrapping_add(1);
                self.large.refused = None;
                Ok(Kind::Skipped { qos: self.large.flags.qos(), len: self.large.total })
            }
        }
    }

    /// The packet identifier of a message that is skipped.
    fn skip_id(&mut self, then: usize, inbox: &mut Inbox<'_>) -> Result<Kind, Pause> {
        let flags = self.large.flags;
        let id = if flags.is_qos0() {
            None
        } else {
            let bytes = inbox.pending().get(..2).ok_or(Pause::Wait)?;
            Some(self.checked(reader::packet_id(bytes, 0))?)
        };
        let report = if self.admit_received(flags, id)? { Report::Yes } else { Report::No };
        inbox.drop_front(flags.id_len());
        self.large.phase = Phase::Skip { report };
        self.large.left = then;
        Err(Pause::GoOn)
    }

    /// The message that passed by is complete.
    fn large_shown(&mut self) {
        if !self.large.flags.is_qos0() {
            self.inbound.shown();
        }
    }

    /// Shows what is there of the payload, `before` bytes behind the front, in whole units.
    fn chunk(&mut self, before: usize, topic_len: usize, inbox: &mut Inbox<'_>) -> Result<Kind, Pause> {
        let there = inbox.pending().len();
        let payload = there.wrapping_sub(before).min(self.large.left);
        let align = usize::from(self.options.chunk_align);
        let is_last = payload == self.large.left;
        let is_full = inbox.is_full();
        let rest = payload.checked_rem(align).unwrap_or_default();
        // Less than one unit is shown only if no more can come before it is.
        let len = if is_last || (is_full && rest == payload) { payload } else { payload.wrapping_sub(rest) };
        if len == 0 {
            return Err(Pause::Wait);
        }
        self.keep_alive.hold(); // what else is awaited stands behind it
        let (flags, total) = (self.large.flags, self.large.total);
        let offset = total.wrapping_sub(self.large.left);
        let topic_at = before.wrapping_sub(topic_len.wrapping_add(flags.id_len()));
        inbox.take(before.wrapping_add(len), len, topic_at, topic_len);
        self.large.left = self.large.left.wrapping_sub(len);
        if self.large.left == 0 {
            self.large.phase = Phase::Idle;
            self.large_shown();
        }
        Ok(Kind::Chunk {
            flags,
            #[cfg(feature = "manual")]
            receipt: self.large.receipt,
            offset,
            total,
        })
    }

    /// Drops what is there of the phase, and waits if some of it is still to come.
    fn drop_left(&mut self, inbox: &mut Inbox<'_>) -> Result<(), Pause> {
        let len = self.large.left.min(inbox.pending().len());
        if len > 0 {
            self.keep_alive.hold();
        }
        inbox.drop_front(len);
        self.large.left = self.large.left.wrapping_sub(len);
        if self.large.left > 0 { Err(Pause::Wait) } else { Ok(()) }
    }
}
