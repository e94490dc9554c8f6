//! The session: public verbs, each a few lines that name the parts below.
//!
//! `outbound` and `inbound` hold the messages of the two directions and do not know each other; `filters` holds what
//! is subscribed; `keep_alive` alone does arithmetic on time; `next` asks them all what leaves next. Packets that came
//! are told apart in `incoming`, messages larger than the inbox in `large`.

#[cfg(any(
    test,
    not(any(
        feature = "durable",
        feature = "large",
        feature = "manual",
        all(feature = "suspend", not(feature = "verify"))
    ))
))]
pub(crate) mod acks;
#[cfg(all(feature = "qos2", feature = "subscribe"))]
pub(crate) mod common;
pub(crate) mod error;
pub(crate) mod event;
pub(crate) mod filters;
pub(crate) mod ids;
#[cfg(any(
    feature = "durable",
    feature = "large",
    feature = "manual",
    all(feature = "suspend", not(feature = "verify"))
))]
pub(crate) mod inbound;
mod incoming;
pub(crate) mod keep_alive;
#[cfg(feature = "large")]
mod large;
#[cfg(feature = "durable")]
pub(crate) mod mark;
#[cfg_attr(
    not(any(feature = "qos1", feature = "large", feature = "suspend")),
    expect(dead_code, reason = "QoS 0 alone speaks of little of it")
)]
pub(crate) mod message;
pub(crate) mod next;
pub(crate) mod options;
#[cfg(any(feature = "qos1", feature = "large", feature = "suspend"))]
pub(crate) mod outbound;
#[cfg(any(test, not(any(feature = "qos1", feature = "large", feature = "suspend"))))]
pub(crate) mod qos0;
#[cfg(any(feature = "durable", feature = "large", feature = "manual", feature = "qos1", feature = "suspend"))]
mod queue;
#[cfg(feature = "suspend")]
pub(crate) mod suspend;
#[cfg(feature = "table")]
mod table;
#[cfg(feature = "verify")]
mod verify;

#[cfg(not(any(
    feature = "durable",
    feature = "large",
    feature = "manual",
    all(feature = "suspend", not(feature = "verify"))
)))]
pub(crate) use acks as inbound;
#[cfg(feature = "durable")]
use error::RestoreError;
#[cfg(any(feature = "durable", feature = "subscribe"))]
use error::SubscribeError;
use error::{Fault, PublishError};
#[cfg(feature = "manual")]
use event::Receipt;
use event::{Event, Kind, Ready};
use filters::Filters;
use ids::Ids;
use inbound::Inbound;
use incoming::Pause;
use keep_alive::KeepAlive;
#[cfg(feature = "large")]
use large::Large;
#[cfg(feature = "durable")]
use mark::{Mark, Restored};
use message::{Admission, EXTERNAL_LEN, External, NoRoom, Notice, Replace, Server, to_usize};
use next::Sending;
use options::{Options, Publish};
use outbound::Outbound;
#[cfg(not(any(feature = "qos1", feature = "large", feature = "suspend")))]
pub(crate) use qos0 as outbound;
#[cfg(feature = "table")]
use table::Table;

use crate::inbox::Inbox;
use crate::log;
use crate::memory::Memory;
#[cfg(feature = "durable")]
use crate::memory::filter_len;
#[cfg(feature = "durable")]
use crate::packet::QoS;
use crate::packet::publish::{Flags, Outgoing};
use crate::packet::{PacketId, header, reader};
use crate::time::Instant;
#[cfg(feature = "subscribe")]
use crate::topic::Filter;
#[cfg(feature = "durable")]
use crate::topic::Topic;
use crate::topic::{self, MAX_TEXT};

/// An MQTT client session, as a value: bytes and time in, bytes and events out.
///
/// A session outlives connections [MQTT-4.1.0-1], and is never given up while there is one [MQTT-4.1.0-2]. It speaks no
/// dialect [MQTT-7.0.0-2], over any ordered, lossless stream [MQTT-7.1.2-1]. Whoever owns it brings a byte stream and asks three questions, as often as it
/// likes and in any order: [`poll`](Self::poll) what happened, [`transmit`](Self::transmit) what to send,
/// [`deadline`](Self::deadline) when to ask again. See the crate's page for a whole program.
///
/// What every call looks at comes first, in reach of short instructions; options last, which are copied in one piece.
#[repr(C)]
pub struct Session<'s> {
    keep_alive: KeepAlive,
    link: Link,
    /// CONNECTs that left since the last CONNACK.
    connects: u8,
    /// Nothing has happened since `transmit` found nothing to send.
    is_quiet: bool,
    ids: Ids,
    sending: Sending,
    inbound: Inbound<'s>,
    ignored: u32,
    outbound: Outbound<'s>,
    filters: Filters<'s>,
    #[cfg(feature = "table")]
    table: Table,
    /// Why the link is closed, if not by goodbye.
    fault: Option<Fault>,
    #[cfg(feature = "large")]
    large: Large,
    #[cfg(feature = "large")]
    skipped: u32,
    options: Options<'s>,
}

/// What has become of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Link {
    Down,
    /// CONNECT is leaving.
    Handshake,
    /// CONNACK is awaited.
    Await,
    Up,
    /// DISCONNECT is to leave.
    Closing,
    /// Nothing more is taken, and nothing more is sent but what has begun.
    Closed,
}

impl<'s> Session<'s> {
    /// A session without a connection. What was in `memory` does not matter.
    #[must_use]
    pub fn new(options: Options<'s>, memory: Memory<'s>) -> Self {
        Self {
            options: options.clone_fields(),
            outbound: Outbound::new(memory.slots, memory.tx),
            inbound: Inbound::new(memory.received),
            filters: Filters::new(memory.filters),
            #[cfg(feature = "table")]
            table: Table::new(),
            ids: Ids::new(),
            link: Link::Down,
            fault: None,
            sending: Sending::new(),
            #[cfg(feature = "large")]
            large: Large::new(),
            keep_alive: KeepAlive::new(),
            connects: 0,
            is_quiet: false,
            ignored: 0,
            #[cfg(feature = "large")]
            skipped: 0,
        }
    }

    /// A byte stream to the server is up: CONNECT is next, and once [MQTT-3.1.0-2]. Implies [`lost`](Self::lost), and empties the inbox.
    pub fn open(&mut self, now: Instant, inbox: &mut Inbox<'_>) {
        self.lost();
        inbox.clear();
        #[cfg(feature = "manual")]
        self.inbound.open();
        self.keep_alive.open(now);
        self.link = Link::Handshake;
        if let Err(option) = self.options.check() {
            self.fail(Fault::Options(option));
        }
    }

    /// The stream is gone. What is unacknowledged stays, and goes out again on the next one. The message that `poll`
    /// returned last counts as handled.
    pub fn lost(&mut self) {
        self.settle();
        self.is_quiet = false;
        self.link = Link::Down;
        self.fault = None;
        self.sending = Sending::new();
        #[cfg(feature = "large")]
        self.lose_large();
        self.outbound.rewind(Server::MayRemember);
        if cfg!(feature = "subscribe") || cfg!(feature = "qos2") {
            self.inbound.rewind(self.options.is_durable());
        }
        self.rewind_requests(Server::MayRemember);
    }

    /// Says goodbye: acknowledgements that are owed leave, then DISCONNECT, so that the server drops the will
    /// [MQTT-3.14.4-3]; then `transmit` says [`Close`](next::Transmit::Close), and the stream is to be closed
    /// [MQTT-3.14.4-1]. What is unacknowledged stays. What has not left does not leave any more, and at QoS 0 is lost: call
    /// `transmit` until it is idle first.
    pub fn close(&mut self) {
        self.settle();
        self.is_quiet = false;
        self.link = match self.link {
            Link::Up => Link::Closing,
            Link::Handshake | Link::Await => Link::Closed,
            Link::Down | Link::Closing | Link::Closed => self.link,
        };
    }

    /// What happened: takes packets from the inbox until one of them is worth telling.
    ///
    /// `None` says that more bytes must come, or that something must leave first: call [`transmit`](Self::transmit)
    /// until it is idle, and poll again if it sent anything or [`deadline`](Self::deadline) has passed. The message
    /// returned before counts as handled now, unless acknowledgement is manual.
    ///
    /// # Errors
    /// [`Fault`]: the connection is over [MQTT-4.8.0-2], and says so until it is [`lost`](Self::lost) or another one is
    /// opened.
    pub fn poll<'b>(&mut self, now: Instant, inbox: &'b mut Inbox<'_>) -> Result<Option<Event<'b>>, Fault> {
        match self.next_kind(now, inbox) {
            Some(kind) => Ok(Some(inbox.event(Ready(kind)))),
            None => self.fault.map_or(Ok(None), Err),
        }
    }

    /// As [`poll`](Self::poll), by index: for drivers that loop and return the event, which the borrow checker would
    /// refuse with a reference. Turn it into the event with [`Inbox::event`].
    ///
    /// # Errors
    /// As [`poll`](Self::poll).
    pub fn poll_ready(&mut self, now: Instant, inbox: &mut Inbox<'_>) -> Result<Option<Ready>, Fault> {
        match self.next_kind(now, inbox) {
            Some(kind) => Ok(Some(Ready(kind))),
            None => self.fault.map_or(Ok(None), Err),
        }
    }

    /// What happened. `None`: nothing more, or the connection is over.
    fn next_kind(&mut self, now: Instant, inbox: &mut Inbox<'_>) -> Option<Kind> {
        self.settle();
        self.inbound.go_on();
        self.tick(now);
        if let Some((id, notice)) = self.outbound.next_notice(self.options.is_durable()) {
            self.is_quiet = false; // the window is open again
            return Some(match notice {
                Notice::Forgotten => Kind::Forgotten(id),
                Notice::Replaced => Kind::Replaced(id),
            });
        }
        loop {
            inbox.discard_used();
            if !self.is_open() {
                inbox.clear(); // nothing that comes after the goodbye, or a fault, matters
                return None;
            }
            match self.step(inbox) {
                Ok(kind) => return Some(kind),
                Err(Pause::GoOn) => {}
                Err(Pause::Wait) if self.is_overdue() => {
                    self.fail(if self.link == Link::Up { Fault::Silent } else { Fault::ConnectTimeout });
                }
                Err(Pause::Wait) => {
                    inbox.give_back();
                    return None;
                }
            }
        }
    }

    /// Says that what the server sends is not being read for now, since the application cannot take more, or that it
    /// stands behind a packet [that takes its time](Inbox::is_amid_packet). Then a missing answer is not the server's fault:
    /// whatever is awaited may take its full time again from `now` on.
    pub fn hold(&mut self, now: Instant) {
        self.tick(now);
        self.keep_alive.hold();
    }

    /// When to call [`poll`](Self::poll) and [`transmit`](Self::transmit) at the latest, if nothing else happens.
    /// `None`: no need. Being late is safe, being early is harmless. A time that has passed means now: there is
    /// something in the inbox that can be taken.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        if !self.is_open() {
            return None;
        }
        if self.inbound.can_go_on() {
            return Some(Instant::from_millis(0));
        }
        self.keep_alive.deadline(self.keep_alive_s(), self.options.answer_timeout_s)
    }

    /// Accepts a message for delivery and copies it into the session's memory.
    ///
    /// Needs one slot and [`tx_len`](crate::memory::tx_len) bytes of `tx`. Returns the packet identifier for QoS 1
    /// and 2. Sends nothing itself: the bytes leave with the next [`transmit`](Self::transmit). QoS 1 and 2 need no
    /// connection.
    ///
    /// # Errors
    /// Any [`PublishError`] leaves the session as it was.
    pub fn publish(&mut self, publish: &Publish<'_>) -> Result<Option<PacketId>, PublishError> {
        self.admit(&outgoing(publish, None), publish.payload, None, Replace::Nothing)
    }

    /// As [`publish`](Self::publish), and when it must, pushes out messages that wait and that were published with
    /// the same policy.
    ///
    /// A message that is pushed out is not lost in silence. Either the new one takes its place under its identifier,
    /// which is then returned a second time; or it is reported as [`Event::Replaced`].
    ///
    /// # Errors
    /// As [`publish`](Self::publish); [`Full`](PublishError::Full) when what may be pushed out does not make enough
    /// room. Nothing has been pushed out then.
    #[cfg(feature = "qos1")]
    pub fn publish_replacing(
        &mut self,
        publish: &Publish<'_>,
        policy: Replace,
    ) -> Result<Option<PacketId>, PublishError> {
        self.admit(&outgoing(publish, None), publish.payload, None, policy)
    }

    /// As [`publish`](Self::publish), with a payload that stays where it is: `tx` takes only what comes before it,
    /// and eight bytes. The payload in `head` is not looked at.
    ///
    /// [`Transmit::Payload`](next::Transmit::Payload) asks for its bytes when the stream has room. Until the message
    /// is [`Delivered`](Event::Delivered), they may be asked for again on a later connection.
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    #[cfg(feature = "large")]
    pub fn publish_external(
        &mut self,
        head: &Publish<'_>,
        payload: External,
    ) -> Result<Option<PacketId>, PublishError> {
        self.publish_stored(head, Some(payload))
    }

    /// As [`publish_external`](Self::publish_external), or as [`publish`](Self::publish) where the payload is not outside:
    /// for stores, which keep nothing at QoS 0.
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    #[cfg(feature = "large")]
    #[inline(always)] // both ways into one call
    pub fn publish_stored(
        &mut self,
        publish: &Publish<'_>,
        payload: Option<External>,
    ) -> Result<Option<PacketId>, PublishError> {
        self.admit(&outgoing(publish, payload), publish.payload, payload, Replace::Nothing)
    }

    /// Subscribes to all of `filters` with one packet; the answer is [`Event::Subscribed`].
    ///
    /// Needs no connection. Takes [`filter_len`](crate::memory::filter_len) bytes each of `Memory::filters` for as
    /// long as the filter is subscribed: when the server loses the session, they are subscribed to again.
    ///
    /// # Errors
    /// Any [`SubscribeError`] leaves the session as it was.
    #[cfg(feature = "subscribe")]
    pub fn subscribe(&mut self, filters: &[Filter<'_>]) -> Result<PacketId, SubscribeError> {
        self.filters.check_subscribe(filters)?;
        let id = self.allocate().ok_or(SubscribeError::Full)?;
        self.filters.subscribe(id, filters);
        self.is_quiet = false;
        Ok(id)
    }

    /// As [`subscribe`](Self::subscribe), with filters that do not stand side by side in memory: for callers in C.
    ///
    /// # Errors
    /// As [`subscribe`](Self::subscribe).
    #[cfg(feature = "subscribe")]
    pub fn subscribe_each<'f>(
        &mut self,
        filters: impl Iterator<Item = Filter<'f>> + Clone,
    ) -> Result<PacketId, SubscribeError> {
        self.filters.check_room(filters::room(filters.clone().map(|filter| filter.text())))?;
        let id = self.allocate().ok_or(SubscribeError::Full)?;
        for filter in filters {
            self.filters.subscribe_to(id, filter.text().as_bytes(), filter.qos());
        }
        self.is_quiet = false;
        Ok(id)
    }

    /// As [`subscribe`](Self::subscribe), with one filter, which a store keeps: but for its length it is not checked again.
    ///
    /// # Errors
    /// As [`subscribe`](Self::subscribe).
    #[cfg(feature = "durable")]
    pub fn subscribe_stored(&mut self, filter: Topic<'_>, qos: QoS) -> Result<PacketId, SubscribeError> {
        let filter = filter.as_bytes();
        if !(1..=MAX_TEXT).contains(&filter.len()) {
            return Err(SubscribeError::InvalidFilter); // [MQTT-4.7.3-1] [MQTT-4.7.3-3]
        }
        self.filters.check_room(filter_len(filter.len()))?;
        let id = self.allocate().ok_or(SubscribeError::Full)?;
        self.filters.subscribe_to(id, filter, qos);
        self.is_quiet = false;
        Ok(id)
    }

    /// Whether [`subscribe`](Self::subscribe) would take these filters now; for who has to store them first.
    ///
    /// # Errors
    /// What it would say.
    #[cfg(all(feature = "durable", feature = "subscribe"))]
    pub fn check_subscribe(&mut self, filters: &[Filter<'_>]) -> Result<(), SubscribeError> {
        self.filters.check_subscribe(filters)?;
        self.check_id()
    }

    /// Whether [`unsubscribe`](Self::unsubscribe) would take these filters now.
    ///
    /// # Errors
    /// What it would say.
    #[cfg(all(feature = "durable", feature = "subscribe"))]
    pub fn check_unsubscribe(&mut self, filters: &[&str]) -> Result<(), SubscribeError> {
        self.filters.check_unsubscribe(filters)?;
        self.check_id()
    }

    /// Unsubscribes from all of `filters` with one packet; the answer is [`Event::Unsubscribed`]. Messages that are
    /// under way may still arrive, and are acknowledged [MQTT-3.10.4-3]. The server compares filters character by
    /// character, so they go out as they are [MQTT-3.10.4-1]. Filters of the static table come back when the server loses the session.
    ///
    /// # Errors
    /// Any [`SubscribeError`] leaves the session as it was.
    #[cfg(feature = "subscribe")]
    pub fn unsubscribe(&mut self, filters: &[&str]) -> Result<PacketId, SubscribeError> {
        self.filters.check_unsubscribe(filters)?;
        let id = self.allocate().ok_or(SubscribeError::Full)?;
        self.filters.unsubscribe(id, filters);
        self.is_quiet = false;
        Ok(id)
    }

    /// As [`unsubscribe`](Self::unsubscribe), with filters that do not stand side by side in memory: for callers in C.
    ///
    /// # Errors
    /// As [`unsubscribe`](Self::unsubscribe).
    #[cfg(feature = "subscribe")]
    pub fn unsubscribe_each<'f>(
        &mut self,
        filters: impl Iterator<Item = &'f str> + Clone,
    ) -> Result<PacketId, SubscribeError> {
        if !filters.clone().all(topic::is_filter) {
            return Err(SubscribeError::InvalidFilter);
        }
        self.filters.check_room(filters::room(filters.clone()))?;
        let id = self.allocate().ok_or(SubscribeError::Full)?;
        for filter in filters {
            self.filters.unsubscribe_from(id, filter.as_bytes());
        }
        self.is_quiet = false;
        Ok(id)
    }

    /// The application has handled a message; only with [`Options::manual_acks`]. Acknowledgements leave in the order
    /// in which their messages came, so one that is missing holds up those behind it [MQTT-4.6.0-2] [MQTT-4.6.0-3].
    ///
    /// `false` when there is nothing to acknowledge any more: the server sends such a message again.
    #[cfg(feature = "manual")]
    pub fn acknowledge(&mut self, receipt: Receipt) -> bool {
        let coming = self.coming();
        let is_taken = self.inbound.acknowledge(receipt, coming, self.options.is_durable());
        self.is_quiet &= !is_taken;
        is_taken
    }

    /// Takes back a message that has not begun to leave. `false` when it may have been sent before: then it goes its
    /// way, since its identifier belongs to the exchange [MQTT-2.3.1-3].
    #[cfg(feature = "qos1")]
    pub fn withdraw(&mut self, id: PacketId) -> bool {
        let is_back = self.outbound.withdraw(id, self.sending.is_publish(), self.options.is_durable());
        self.is_quiet &= !is_back;
        is_back
    }

    /// The next fact to put on stable storage, if any; only with `Options::durable`. Asking twice gives the same
    /// answer. Nothing that depends on it leaves before [`mark_stored`](Self::mark_stored).
    #[cfg(feature = "durable")]
    #[must_use]
    pub fn next_mark(&mut self) -> Option<Mark> {
        self.inbound.next_mark().or_else(|| self.outbound.next_mark())
    }

    /// All facts that wait to be put on stable storage, [`next_mark`](Self::next_mark) first, for stores that take
    /// several at a time. A store must keep them in this order: after a power cut, a part of them from the front.
    #[cfg(feature = "durable")]
    pub fn marks(&self) -> impl Iterator<Item = Mark> + '_ {
        self.inbound.marks().chain(self.outbound.marks())
    }

    /// `mark` is on stable storage. Several may be under way at a time, and one that is not waited for any more
    /// changes nothing.
    #[cfg(feature = "durable")]
    pub fn mark_stored(&mut self, mark: Mark) {
        let is_news = match mark.stage {
            mark::Stage::Received | mark::Stage::Forgotten => self.inbound.mark_stored(mark),
            mark::Stage::Accepted | mark::Stage::Refused | mark::Stage::Released | mark::Stage::Done => {
                self.outbound.mark_stored(mark)
            }
        };
        self.is_quiet &= !is_news;
    }

    /// Takes back what a store kept over a restart. Before the first [`open`](Self::open), one call per entry.
    ///
    /// # Errors
    /// Any [`RestoreError`] leaves the session as it was.
    #[cfg(feature = "durable")]
    pub fn restore(&mut self, entry: Restored<'_>) -> Result<(), RestoreError> {
        if self.link != Link::Down {
            return Err(RestoreError::Connected);
        }
        match entry {
            Restored::Message { id, publish } => {
                self.restore_message(id, &outgoing(&publish, None).repeated(), publish.payload, None)
            }
            #[cfg(feature = "large")]
            Restored::External { id, topic, qos, retain, payload } => {
                let outgoing =
                    Outgoing::new(Flags::of(qos, retain), topic.as_bytes(), to_usize(payload.len)).repeated();
                self.restore_message(id, &outgoing, &[], Some(payload))
            }
            Restored::Released(id) => {
                self.check_free(id)?;
                self.outbound.admit_released(id).map_err(|_| RestoreError::Full)?;
                self.ids.look_again(); // [MQTT-2.3.1-2]
                Ok(())
            }
            Restored::Received(id) => self.inbound.restore(id),
            Restored::Subscription { filter, qos } => {
                // Asked for again: the server may have lost the session, and the power failed before that was heard.
                self.subscribe_stored(filter, qos).map_err(|refused| match refused {
                    SubscribeError::Full => RestoreError::Full,
                    SubscribeError::Empty | SubscribeError::InvalidFilter => RestoreError::Invalid,
                })?;
                Ok(())
            }
            Restored::NextId(id) => {
                self.ids = Ids::from(id);
                Ok(())
            }
        }
    }

    /// The identifier that the next message or request is likely to get; for stores.
    #[cfg(feature = "durable")]
    #[must_use]
    pub fn next_id(&self) -> Option<PacketId> {
        self.ids.peek()
    }

    /// Why [`transmit`](Self::transmit) says [`Close`](next::Transmit::Close); `None` after [`close`](Self::close).
    #[must_use]
    pub const fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// Whether the server has accepted the connection and it is not over.
    #[must_use]
    pub const fn is_connected(&self) -> bool {
        matches!(self.link, Link::Up)
    }

    /// Whether [`close`](Self::close) was called and all that was to leave before the end has left: that the server closes
    /// the stream now is no fault.
    #[must_use]
    pub fn has_said_goodbye(&self) -> bool {
        self.link == Link::Closed && self.fault.is_none() && self.sending.is_nothing()
    }

    /// Whether a ping has been sent whose answer has not come: for drivers that measure how long it takes.
    #[must_use]
    pub const fn is_ping_unanswered(&self) -> bool {
        self.keep_alive.is_ping_unanswered()
    }

    /// Whether `poll` has left a packet in the inbox because something must leave first: more bytes would not help, only
    /// [`transmit`](Self::transmit) does. For drivers that wait for one thing at a time.
    #[must_use]
    pub fn is_stalled(&self) -> bool {
        self.inbound.is_stalled()
    }

    /// Outgoing messages that are not over: accepted, and not yet sent (QoS 0) or acknowledged (QoS 1 and 2).
    #[must_use]
    pub fn outgoing_count(&self) -> usize {
        self.outbound.open_count()
    }

    /// Whether everything asked for has been sent and answered: no message and no request is under way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        #[cfg(feature = "table")]
        if self.table.is_waiting(self.options.subscriptions) {
            return false;
        }
        self.outbound.open_count() == 0 && !self.filters.is_waiting()
    }

    /// Acknowledgements that fitted nothing, counted since the session was made. A server that causes many is worth
    /// a look.
    #[must_use]
    pub const fn ignored_count(&self) -> u32 {
        self.ignored
    }

    /// Messages that were skipped since the session was made because they did not fit the inbox.
    #[cfg(feature = "large")]
    #[must_use]
    pub const fn skipped_count(&self) -> u32 {
        self.skipped
    }

    /// The options it was made with.
    #[must_use]
    pub const fn options(&self) -> &Options<'s> {
        &self.options
    }

    // Helpers

    /// The message last shown is handled, or left to `acknowledge`.
    fn settle(&mut self) {
        #[cfg(feature = "manual")]
        if self.options.is_manual() {
            return self.inbound.leave_unsettled();
        }
        self.handled();
    }

    /// The message last shown is handled.
    fn handled(&mut self) {
        if cfg!(feature = "subscribe") && self.inbound.settle(self.options.is_durable()) {
            self.is_quiet = false;
        }
    }

    /// Whether there is a connection and it is not over.
    const fn is_open(&self) -> bool {
        matches!(self.link, Link::Handshake | Link::Await | Link::Up)
    }

    fn tick(&mut self, now: Instant) {
        self.keep_alive.tick(now, self.keep_alive_s());
    }

    /// A ping belongs to a connection that is up.
    fn keep_alive_s(&self) -> u16 {
        if self.link == Link::Up { self.options.keep_alive_s } else { 0 }
    }

    /// Everything that came has been looked at: is an answer missing?
    fn is_overdue(&mut self) -> bool {
        if self.options.is_manual() && self.inbound.is_stalled() {
            self.keep_alive.hold(); // the application holds it up, not the server
        }
        self.keep_alive.is_overdue(self.options.answer_timeout_s)
    }

    /// Messages that have an entry among those received and are not complete.
    #[cfg(all(feature = "large", feature = "manual"))]
    fn coming(&self) -> usize {
        usize::from(self.large.is_arriving())
    }

    #[cfg(all(not(feature = "large"), feature = "manual"))]
    #[expect(clippy::unused_self, reason = "only a message that the inbox cannot hold comes in parts")]
    fn coming(&self) -> usize {
        0
    }

    /// A message that the inbox could not hold was on its way: it begins again.
    #[cfg(feature = "large")]
    fn lose_large(&mut self) {
        if self.large.is_arriving() {
            self.inbound.drop_last();
        }
        self.large.rewind();
    }

    /// The session on the server may be a new one, or is known to be.
    fn renew(&mut self, server: Server) {
        if cfg!(feature = "subscribe") || cfg!(feature = "qos2") {
            self.inbound.renew(server, self.options.is_durable());
        }
        self.rewind_requests(Server::HasForgotten);
    }

    fn rewind_requests(&mut self, server: Server) {
        if cfg!(feature = "subscribe") {
            self.filters.rewind(server);
        }
        #[cfg(feature = "table")]
        self.table.rewind(server);
    }

    /// Ends the connection [MQTT-4.8.0-1]. What has begun to leave is not finished.
    #[inline(never)]
    fn fail(&mut self, fault: Fault) -> Pause {
        log::fault(fault);
        self.sending = Sending::new();
        self.link = Link::Closed;
        self.fault = Some(fault);
        Pause::GoOn
    }

    fn allocate(&mut self) -> Option<PacketId> {
        let (outbound, filters) = (&mut self.outbound, &self.filters);
        #[cfg(feature = "table")]
        let table_id = self.table.id();
        self.ids.allocate(|ids| {
            mark_ids(outbound, filters, ids);
            #[cfg(feature = "table")]
            ids.mark(table_id.map_or(0, PacketId::get));
        })
    }

    /// Whether there is an identifier; the next request gets it.
    #[cfg(all(feature = "durable", feature = "subscribe"))]
    fn check_id(&mut self) -> Result<(), SubscribeError> {
        let id = self.allocate().ok_or(SubscribeError::Full)?;
        self.ids = Ids::from(id);
        Ok(())
    }

    /// Checks, makes room, names, admits: in this order, so that a refusal changes nothing. One that a
    /// store gives back is stored.
    fn admit(
        &mut self,
        outgoing: &Outgoing<'_>,
        payload: &[u8],
        external: Option<External>,
        policy: Replace,
    ) -> Result<Option<PacketId>, PublishError> {
        if !is_name(outgoing.topic) {
            return Err(PublishError::InvalidTopic); // [MQTT-3.3.2-2] [MQTT-4.7.3-1]
        }
        let is_qos0 = outgoing.flags.is_qos0();
        if is_qos0 && self.link != Link::Up {
            return Err(PublishError::Offline);
        }
        let is_supported =
            if outgoing.flags.is_qos2() { cfg!(feature = "qos2") } else { is_qos0 | cfg!(feature = "qos1") };
        if !is_supported {
            return Err(PublishError::NotSupported);
        }
        let stored = stored_len(outgoing, external).ok_or(PublishError::TooLarge)?;
        let id = match self.room_for(outgoing, stored, policy)? {
            Some(id) => Some(id),
            None if is_qos0 => None,
            None => Some(self.allocate().ok_or(PublishError::Full)?), // [MQTT-2.3.1-2]
        };
        let wants_mark = self.options.is_durable() && !(is_qos0 | outgoing.flags.is_dup());
        let admission = Admission { id, stored, replaces: policy, wants_mark };
        self.outbound.admit(outgoing, payload, &admission, external);
        self.is_quiet = false;
        Ok(id)
    }

    /// Makes room for a message, at the cost of those that `policy` may push out. Gives the identifier that the new
    /// message takes over, if any.
    fn room_for(
        &mut self,
        outgoing: &Outgoing<'_>,
        stored: usize,
        policy: Replace,
    ) -> Result<Option<PacketId>, PublishError> {
        let refused = |no_room| match no_room {
            NoRoom::Now => PublishError::Full,
            NoRoom::Ever => PublishError::TooLarge,
        };
        if cfg!(feature = "qos1") && policy != Replace::Nothing && !outgoing.flags.is_qos0() {
            return self
                .outbound
                .make_room_replacing(stored, policy, outgoing.topic, self.sending.is_publish())
                .map_err(refused);
        }
        self.outbound.make_room(stored).map_err(refused)?;
        Ok(None)
    }

    #[cfg(feature = "durable")]
    #[inline(always)] // a store gives payloads back in one of the two ways
    fn restore_message(
        &mut self,
        id: PacketId,
        outgoing: &Outgoing<'_>,
        payload: &[u8],
        external: Option<External>,
    ) -> Result<(), RestoreError> {
        self.check_free(id)?;
        let next = core::mem::replace(&mut self.ids, Ids::from(id));
        let outcome = self.admit(outgoing, payload, external, Replace::Nothing);
        self.ids = next;
        self.ids.look_again(); // [MQTT-2.3.1-2]
        match outcome {
            Ok(_) => Ok(()),
            Err(PublishError::Full | PublishError::TooLarge) => Err(RestoreError::Full),
            Err(PublishError::InvalidTopic | PublishError::Offline | PublishError::NotSupported) => {
                Err(RestoreError::Invalid)
            }
        }
    }

    #[cfg(feature = "durable")]
    #[inline(always)] // in one function
    fn check_free(&mut self, id: PacketId) -> Result<(), RestoreError> {
        let is_free = Ids::is_free(id, |ids| mark_ids(&mut self.outbound, &self.filters, ids));
        if is_free { Ok(()) } else { Err(RestoreError::PacketIdInUse) }
    }
}

/// Marks the identifiers of messages and requests. Apart from where they are given out, since it is seldom needed.
#[inline(never)]
fn mark_ids(outbound: &mut Outbound<'_>, filters: &Filters<'_>, ids: &mut Ids) {
    outbound.mark_ids(ids);
    filters.mark_ids(ids);
}

/// [`topic::is_name`], by the check of names that come where that is there anyway: it is the faster one, and sees
/// whether what a store kept is text.
fn is_name(topic: &[u8]) -> bool {
    match topic.len() {
        0..=MAX_TEXT if cfg!(any(feature = "durable", feature = "subscribe")) => reader::check_name(topic).is_ok(),
        _ => topic::is_name_in_bytes(topic),
    }
}

/// A message as the encoder wants it.
fn outgoing<'a>(publish: &Publish<'a>, external: Option<External>) -> Outgoing<'a> {
    let payload_len = external.map_or(publish.payload.len(), |payload| to_usize(payload.len));
    Outgoing::new(Flags::of(publish.qos, publish.retain), publish.topic.as_bytes(), payload_len)
}

/// Bytes of `tx` that a message takes: its packet, which is too long if `tx` is too short for it; or its head and where
/// its payload is, which is too long if MQTT cannot say so much.
fn stored_len(outgoing: &Outgoing<'_>, external: Option<External>) -> Option<usize> {
    let packet = outgoing.packet_len();
    match external {
        None => Some(packet),
        // On 32 bits their sum could overflow.
        Some(payload) if to_usize(payload.len) > header::MAX_REMAINING => None,
        Some(_) if packet > header::MAX_PACKET => None,
        Some(payload) => Some(packet.wrapping_sub(to_usize(payload.len)).wrapping_add(EXTERNAL_LEN)),
    }
}
