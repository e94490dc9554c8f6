//! Messages larger than the inbox: shown in chunks, or skipped (MQTT has no limit to what a server may send).

use super::event::{Event, Kind, Parts};
use super::inbound::Verdict;
use super::options::Oversize;
use super::{Fault, Session, Step};
use crate::inbox::{Inbox, Span};
use crate::packet::header::{self, Header};
use crate::packet::publish::{self, Flags};
use crate::packet::{QoS, Violation, reader};

/// The message that is passing through the inbox.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Large {
    phase: Phase,
    /// Bytes to the end of the phase.
    left: usize,
    /// Bytes of the payload when streaming, of the packet when skipping.
    total: usize,
    flags: Flags,
    receipt: Option<super::event::Receipt>,
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
        let flags = Flags { qos: QoS::AtMostOnce, retain: false, dup: false };
        Self { phase: Phase::Idle, left: 0, total: 0, flags, receipt: None, refused: None }
    }

    pub fn is_idle(&self) -> bool {
        self.phase == Phase::Idle
    }

    /// The stream is gone, in the middle of a message perhaps.
    pub fn rewind(&mut self) {
        self.phase = Phase::Idle;
    }
}

impl Session<'_> {
    /// A packet begins that the inbox cannot hold.
    pub(super) fn begin_large(&mut self, header: Header, inbox: &mut Inbox<'_>) -> Result<Step, Fault> {
        let len = header.len.wrapping_add(header.remaining);
        if header.kind != header::Kind::Publish {
            return Err(Fault::TooLarge { len });
        }
        let flags = Flags::read(header.first).map_err(Fault::Malformed)?;
        let body = inbox.pending().get(header.len..).unwrap_or_default();
        let Ok((topic_len, _)) = reader::u16(body) else { return Ok(Step::Wait) };
        let head_len = usize::from(topic_len).wrapping_add(2).wrapping_add(flags.id_len());
        if topic_len == 0 || head_len > header.remaining {
            return Err(Fault::Malformed(if topic_len == 0 { Violation::Topic } else { Violation::Length }));
        }
        let fits = header.len.wrapping_add(head_len) < inbox.capacity();
        if cfg!(feature = "large") && self.options.chunk_align > 0 && fits {
            return self.begin_stream(header, flags, head_len, inbox);
        }
        // The same message again, after it has ended a connection: ending another helps nobody.
        let is_again = flags.dup && self.large.refused == Some(len);
        if self.options.oversize == Oversize::Close && !is_again {
            self.large.refused = Some(len);
            return Err(Fault::TooLarge { len });
        }
        let then = header.remaining.wrapping_sub(head_len);
        self.drop_front(inbox, header.len);
        let phase = Phase::Topic { then };
        self.large =
            Large { phase, left: usize::from(topic_len).wrapping_add(2), total: len, flags, ..self.large.clone() };
        Ok(Step::Again)
    }

    fn begin_stream(
        &mut self,
        header: Header,
        flags: Flags,
        head_len: usize,
        inbox: &mut Inbox<'_>,
    ) -> Result<Step, Fault> {
        let before = header.len.wrapping_add(head_len);
        let Some(payload) = inbox.pending().get(before..) else { return Ok(Step::Wait) };
        let total = header.remaining.wrapping_sub(head_len);
        // The first chunk comes with the topic, so both must be in the inbox.
        let is_enough = payload.len() >= usize::from(self.options.chunk_align).min(total);
        if !is_enough && inbox.pending().len() < inbox.capacity() {
            return Ok(Step::Wait);
        }
        let body = inbox.pending().get(header.len..before).unwrap_or_default();
        let head = publish::head(flags, body).map_err(Fault::Malformed)?;
        let receipt = match self.inbound.on_publish(flags, head.id) {
            Verdict::Show(receipt) => receipt,
            Verdict::Repeat => {
                self.drop_front(inbox, before);
                self.large = Large { phase: Phase::Skip { report: Report::No }, left: total, ..self.large.clone() };
                return Ok(Step::Again);
            }
            Verdict::Stall => return Ok(Step::Wait),
            Verdict::TooMany => return Err(Fault::TooMany),
        };
        self.large = Large { phase: Phase::Stream, left: total, total, flags, receipt, ..self.large.clone() };
        let topic = inbox.span(header.len.wrapping_add(2), head.topic_len);
        Ok(self.chunk(topic, before, inbox))
    }

    /// Goes on with the message that is passing through.
    pub(super) fn go_on_large(&mut self, inbox: &mut Inbox<'_>) -> Result<Step, Fault> {
        match self.large.phase {
            Phase::Idle => Ok(Step::Wait),
            Phase::Stream => Ok(self.chunk(Span::EMPTY, 0, inbox)),
            Phase::Topic { then } => {
                if self.drop_left(inbox) > 0 {
                    Ok(Step::Wait)
                } else {
                    self.skip_id(then, inbox)
                }
            }
            Phase::Skip { report } => {
                if self.drop_left(inbox) > 0 {
                    return Ok(Step::Wait);
                }
                self.large.phase = Phase::Idle;
                if report == Report::No {
                    return Ok(Step::Again);
                }
                self.inbound.shown();
                self.skipped = self.skipped.wrapping_add(1);
                self.large.refused = None;
                Ok(Step::Tell(Kind::Plain(Event::Skipped { qos: self.large.flags.qos, len: self.large.total })))
            }
        }
    }

    /// The packet identifier of a message that is skipped.
    fn skip_id(&mut self, then: usize, inbox: &mut Inbox<'_>) -> Result<Step, Fault> {
        let flags = self.large.flags;
        let id = match flags.qos {
            QoS::AtMostOnce => None,
            QoS::AtLeastOnce | QoS::ExactlyOnce => {
                let Some(bytes) = inbox.pending().get(..2) else { return Ok(Step::Wait) };
                let (id, _) = reader::packet_id(bytes).map_err(Fault::Malformed)?;
                Some(id)
            }
        };
        let report = match self.inbound.on_publish(flags, id) {
            Verdict::Show(_) => Report::Yes,
            Verdict::Repeat => Report::No,
            Verdict::Stall => return Ok(Step::Wait),
            Verdict::TooMany => return Err(Fault::TooMany),
        };
        self.drop_front(inbox, flags.id_len());
        self.large.phase = Phase::Skip { report };
        self.large.left = then;
        Ok(Step::Again)
    }

    /// Shows what is there of the payload, `before` bytes behind the front, in whole units.
    fn chunk(&mut self, topic: Span, before: usize, inbox: &mut Inbox<'_>) -> Step {
        let there = inbox.pending().len();
        let payload = there.wrapping_sub(before).min(self.large.left);
        let align = usize::from(self.options.chunk_align);
        let is_last = payload == self.large.left;
        let is_full = there == inbox.capacity();
        let rest = payload.checked_rem(align).unwrap_or_default();
        // Less than one unit is shown only if no more can come before it is.
        let len = if is_last || (is_full && rest == payload) { payload } else { payload.wrapping_sub(rest) };
        if len == 0 {
            return Step::Wait;
        }
        let large = &self.large;
        let parts = Parts {
            topic,
            payload: inbox.span(before, len),
            qos: large.flags.qos,
            retain: large.flags.retain,
            dup: large.flags.dup,
            receipt: large.receipt,
        };
        let (offset, total) = (large.total.wrapping_sub(large.left), large.total);
        inbox.take(before.wrapping_add(len));
        self.large.left = self.large.left.wrapping_sub(len);
        if self.large.left == 0 {
            self.large.phase = Phase::Idle;
            self.inbound.shown();
        }
        Step::Tell(Kind::Chunk { parts, offset, total })
    }

    /// Drops what is there of the phase, and says how much of it is still to come.
    fn drop_left(&mut self, inbox: &mut Inbox<'_>) -> usize {
        let len = self.large.left.min(inbox.pending().len());
        self.drop_front(inbox, len);
        self.large.left = self.large.left.wrapping_sub(len);
        self.large.left
    }

    #[allow(clippy::unused_self)]
    pub(super) fn drop_front(&self, inbox: &mut Inbox<'_>, len: usize) {
        inbox.take(len);
        inbox.discard_used();
    }
}
