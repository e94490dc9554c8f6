//! Messages on their way in, where no acknowledgement has to wait for the application, a mark or the rest of a message:
//! stands in for `inbound`, which knows how to wait, and makes the same promises.
//!
//! An entry of the table is an acknowledgement that is owed, or a QoS 2 message whose PUBREL is awaited. Entries stand in
//! the order in which their messages came, and PUBACK and PUBREC leave in that order [MQTT-4.6.0-2] [MQTT-4.6.0-3]. The
//! table is looked through from its front and closed up when an entry leaves: in a device it is short.

use super::incoming::Pause;
use super::message::{Server, Stall, Verdict};
use crate::packet::publish::Flags;
use crate::packet::{PacketId, header};

/// Room to remember one incoming message, or one acknowledgement that is owed.
///
/// The lower half is the identifier. Above it stands the first byte of the acknowledgement, of which three bits tell how far
/// the message is; above that three more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Received(u32);

impl Received {
    /// An unused entry.
    pub const FREE: Self = Self(0);
}

const ID: u32 = 0xFFFF;
/// The acknowledgement is owed. Without this bit, PUBREL is awaited.
const OWED: u32 = 0x40 << 16;
/// The message is at QoS 2,
const QOS2: u32 = 0x10 << 16;
/// and its PUBREL has come.
const RELEASED: u32 = 0x20 << 16;
/// It is of the session that the server has now. Without this bit, it is in doubt: see `inbound`.
const CURRENT: u32 = 0x01 << 24;
/// The acknowledgement has left, and with it the entry is over.
const OVER: u32 = 0x02 << 24;
/// The message is at QoS 2, and its PUBREL is awaited.
const HELD: u32 = 0x04 << 24;

const _: () = {
    let bits = OWED | QOS2 | RELEASED;
    assert!(word(header::PUBACK, 0) & bits == OWED);
    assert!(word(header::PUBREC, 0) & bits == OWED | QOS2);
    assert!(word(header::PUBREL, 0) & bits == OWED | RELEASED);
    assert!(word(header::PUBCOMP, 0) & bits == OWED | QOS2 | RELEASED);
};

/// Whether there are messages at QoS 2.
const HAS_QOS2: bool = cfg!(feature = "qos2");
/// Whether there is anything that an entry could be made for.
const IN_USE: bool = HAS_QOS2 || cfg!(feature = "subscribe");

pub(crate) struct Inbound<'s> {
    table: &'s mut [Received],
    /// Entries in use, from the front.
    len: usize,
    /// The last entry was shown by the last `poll`, and is handled when the next one is called.
    is_unsettled: bool,
    stall: Stall,
}

impl<'s> Inbound<'s> {
    pub fn new(table: &'s mut [Received]) -> Self {
        Self { table, len: 0, is_unsettled: false, stall: Stall::No }
    }

    // Packets that came

    /// A PUBLISH at QoS 1 or 2. With `Show`, an entry has been made for it, from which its acknowledgement follows
    /// whatever the application does with the message [MQTT-3.3.4-1] [MQTT-4.5.0-2].
    pub fn on_publish(&mut self, flags: Flags, id: PacketId, _: bool) -> Verdict {
        let mut is_lost = false;
        if flags.is_qos2()
            && let Some(Received(entry)) = self.find_id(id)
        {
            is_lost = !flags.is_dup() && *entry & CURRENT == 0; // [MQTT-3.3.1-1]
            if !is_lost {
                if *entry & OWED != 0 {
                    return self.stall(); // one answer each: the one that is owed leaves first
                }
                // The session on the server knows it, so it is in doubt no more; its acknowledgement leaves behind those of
                // what came before it [MQTT-4.6.0-3].
                *entry = OVER;
                self.remove_all(OVER, OVER, 0);
                self.push(id, header::PUBREC);
                return Verdict::Taken; // [MQTT-4.3.3-2]
            }
        }
        // The last entry is kept for the answer to a PUBREL of an unknown identifier.
        if HAS_QOS2 && is_lost {
            self.remove_all(CURRENT | OWED, 0, 0); // in doubt
        } else if HAS_QOS2
            && self.space() < 2
            && let Some(oldest) = self.find(CURRENT | OWED, 0)
        {
            // The server cannot have so many under way, and those of a lost session are the oldest.
            *oldest = Received(OVER);
            self.remove_all(OVER, OVER, 0);
        }
        if self.space() < 2 {
            let is_owed = if HAS_QOS2 { self.find(OWED, OWED).is_some() } else { self.len > 0 };
            return if is_owed { self.stall() } else { Verdict::TooMany };
        }
        self.push(id, if flags.is_qos2() { header::PUBREC } else { header::PUBACK }); // [MQTT-4.3.2-2]
        Verdict::Show
    }

    /// The message last admitted is being shown.
    pub fn shown(&mut self) {
        self.is_unsettled = true;
    }

    /// The application has handled the message last shown. `false` when that was known.
    pub fn settle(&mut self, _: bool) -> bool {
        core::mem::replace(&mut self.is_unsettled, false)
    }

    /// A PUBREL. Always answered, known or not.
    pub fn on_pubrel(&mut self, id: PacketId, _: bool) -> Pause {
        match self.find_id(id) {
            None => self.owe_stray(id, header::PUBCOMP),
            Some(Received(entry)) if *entry & HELD == 0 => self.wait(),
            Some(Received(entry)) => {
                *entry = *entry & !HELD | OWED | RELEASED;
                Pause::GoOn
            }
        }
    }

    /// A PUBREC that fits no message of ours: the server waits for PUBREL.
    pub fn on_stray_pubrec(&mut self, id: PacketId) -> Pause {
        self.owe_stray(id, header::PUBREL)
    }

    fn owe_stray(&mut self, id: PacketId, first: u8) -> Pause {
        if self.space() == 0 && self.len > 0 {
            return self.wait();
        }
        self.push(id, first);
        Pause::GoOn
    }

    // The connection

    /// The stream is gone. What is known of QoS 2 messages stays; what was owed is owed no more, since the server asks
    /// again: before it does, an acknowledgement would answer nothing on that connection [MQTT-2.3.1-6].
    pub fn rewind(&mut self, _: bool) {
        self.stall = Stall::No;
        if HAS_QOS2 {
            self.remove_all(HELD, 0, OWED);
        } else {
            self.len = 0;
        }
    }

    /// The session on the server may be another one than before. If it is, identifiers mean nothing any more
    /// [MQTT-3.1.2-6]; otherwise they are in doubt.
    pub fn renew(&mut self, server: Server, _: bool) {
        if server == Server::HasForgotten {
            self.len = 0;
        }
        if HAS_QOS2 {
            self.remove_all(OVER, OVER, CURRENT);
        }
    }

    // What leaves

    /// The next acknowledgement, its first byte and identifier; it counts as sent.
    pub fn next_ack(&mut self) -> Option<(u8, PacketId)> {
        let Received(entry) = self.find(OWED, OWED)?;
        let [_, first, high, low] = entry.to_be_bytes();
        let first = if HAS_QOS2 { first } else { header::PUBACK };
        *entry = if HAS_QOS2 && first == header::PUBREC { *entry & !OWED } else { OVER };
        self.remove_all(OVER, OVER, 0);
        if self.stall == Stall::Waiting {
            self.stall = Stall::Over;
        }
        PacketId::new(u16::from_be_bytes([high, low])).map(|id| (first, id)) // [MQTT-2.3.1-6]
    }

    /// Whether `poll` has more to do now, although no bytes came.
    pub fn can_go_on(&self) -> bool {
        IN_USE && self.stall == Stall::Over
    }

    /// Whether `poll` left a packet because something must leave first.
    pub fn is_stalled(&self) -> bool {
        self.stall != Stall::No
    }

    /// `poll` begins.
    pub fn go_on(&mut self) {
        if IN_USE {
            self.stall = Stall::No;
        }
    }

    /// Whether an identifier that the server has forgotten is still on stable storage.
    #[cfg(feature = "subscribe")]
    #[expect(clippy::unused_self, reason = "there is no stable storage here")]
    pub fn has_stale(&self) -> bool {
        false
    }

    // Helpers

    /// The entry of a QoS 2 message with this identifier.
    fn find_id(&mut self, id: PacketId) -> Option<&mut Received> {
        self.find(QOS2 | ID, QOS2 | word(0, id.get()))
    }

    /// The first entry with these bits under `mask`.
    fn find(&mut self, mask: u32, bits: u32) -> Option<&mut Received> {
        let handled = self.len.wrapping_sub(usize::from(self.is_unsettled));
        self.table.iter_mut().take(handled).find(|entry| entry.0 & mask == bits)
    }

    fn space(&self) -> usize {
        self.table.len().wrapping_sub(self.len)
    }

    fn push(&mut self, id: PacketId, first: u8) {
        if let Some(place) = self.table.get_mut(self.len) {
            let held = if first == header::PUBREC { HELD } else { 0 };
            *place = Received(word(first, id.get()) | CURRENT | held);
            self.len = self.len.wrapping_add(1);
        }
    }

    /// Removes the entries with these bits under `mask`, and takes the bits `clear` from the others.
    fn remove_all(&mut self, mask: u32, bits: u32, clear: u32) {
        let mut count = 0_usize;
        for index in 0..self.len {
            let Some(entry) = self.table.get(index).copied() else { return };
            if let Some(place) = self.table.get_mut(count) {
                *place = Received(entry.0 & !clear);
            }
            if entry.0 & mask != bits {
                count = count.wrapping_add(1);
            }
        }
        self.len = count;
    }

    /// The packet stays in the inbox until something has left.
    fn wait(&mut self) -> Pause {
        self.stall = Stall::Waiting;
        Pause::Wait
    }

    fn stall(&mut self) -> Verdict {
        self.wait();
        Verdict::Stall
    }
}

/// Where things stand, for model checkers, who take a session apart: it cannot grow.
#[cfg(all(feature = "verify", not(any(feature = "durable", feature = "large", feature = "manual"))))]
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    is_unsettled: bool,
    stall: Stall,
}

#[cfg(all(feature = "verify", not(any(feature = "durable", feature = "large", feature = "manual"))))]
#[expect(clippy::unused_self, reason = "stands in for what can grow")]
impl<'s> Inbound<'s> {
    pub fn set_growing(&mut self, _: bool) {}

    pub fn wants_space(&self) -> bool {
        false
    }

    /// State and memory apart, what is unused cleared; and how many entries are in use.
    pub fn into_parts(self) -> (State, &'s mut [Received], usize) {
        self.table.get_mut(self.len..).unwrap_or_default().fill(Received::FREE);
        (State { is_unsettled: self.is_unsettled, stall: self.stall }, self.table, self.len)
    }

    pub fn from_parts(state: State, table: &'s mut [Received], len: usize) -> Self {
        Self { table, len, is_unsettled: state.is_unsettled, stall: state.stall }
    }

    pub fn invariant(&self) -> Result<(), &'static str> {
        let used = self.table.get(..self.len).ok_or("more entries are in use than there are")?;
        let is_idle = |entry: &&Received| entry.0 & (OWED | HELD) == 0;
        if used.iter().any(|entry| is_idle(&entry)) {
            return Err("an entry stands for nothing");
        }
        Ok(())
    }
}

/// An entry with nothing but this first byte and identifier.
const fn word(first: u8, id: u16) -> u32 {
    let [high, low] = id.to_be_bytes();
    u32::from_be_bytes([0, first, high, low])
}

#[cfg(test)]
mod tests {
    use dunlin_testkit::{Rng, seeds};

    use super::super::inbound;
    use super::*;
    use crate::packet::QoS;

    /// How far a server is with a QoS 2 message.
    #[derive(Clone, Copy, PartialEq)]
    enum Exchange {
        None,
        Published,
        Received,
        Released,
    }

    /// A server, and the table beside the one that it stands in for: they say the same.
    struct Pair<'s> {
        short: Inbound<'s>,
        long: inbound::Inbound<'s>,
        exchanges: [Exchange; 5],
    }

    fn id(number: usize) -> PacketId {
        PacketId::new(u16::try_from(number).unwrap()).unwrap()
    }

    impl Pair<'_> {
        /// What `poll` does first.
        fn settle(&mut self) {
            assert_eq!(self.short.settle(false), self.long.settle(false));
            self.short.go_on();
            self.long.go_on();
        }

        /// Whether it can be taken now, and whether it is shown.
        fn publish(&mut self, qos: QoS, is_dup: bool, number: usize) -> Verdict {
            let flags = Flags::new(header::PUBLISH | qos.bits() << 1 | u8::from(is_dup) << 3);
            self.settle();
            let verdict = self.short.on_publish(flags, id(number), false);
            assert_eq!(verdict, self.long.on_publish(flags, id(number), false));
            if verdict == Verdict::Show {
                self.short.shown();
                self.long.shown();
            }
            verdict
        }

        fn pubrel(&mut self, number: usize) -> Pause {
            self.settle();
            let pause = self.short.on_pubrel(id(number), false);
            assert_eq!(pause, self.long.on_pubrel(id(number), false));
            pause
        }

        /// The next acknowledgement reaches the server.
        fn acknowledge(&mut self) -> bool {
            let ack = self.short.next_ack();
            assert_eq!(ack, self.long.next_ack());
            assert_eq!(self.short.can_go_on(), self.long.can_go_on());
            assert_eq!(self.short.is_stalled(), self.long.is_stalled());
            assert_eq!(self.short.has_stale(), self.long.has_stale());
            let Some((first, id)) = ack else { return false };
            if let Some(exchange) = self.exchanges.get_mut(usize::from(id.get())) {
                *exchange = match (*exchange, first) {
                    (Exchange::Published, header::PUBREC) => Exchange::Received,
                    (Exchange::Released, header::PUBCOMP) => Exchange::None,
                    (exchange, _) => exchange,
                }
            }
            true
        }

        /// Another connection. The server may have lost the session, and may not say so.
        fn reconnect(&mut self, rng: &mut Rng) {
            self.settle();
            self.short.rewind(false);
            self.long.rewind(false);
            let (server, is_lost) = *rng.pick(&[
                (None, false),
                (Some(Server::MayRemember), false),
                (Some(Server::MayRemember), true),
                (Some(Server::HasForgotten), true),
            ]);
            if let Some(server) = server {
                self.short.renew(server, false);
                self.long.renew(server, false);
            }
            for number in 1..self.exchanges.len() {
                match self.exchanges[number] {
                    _ if is_lost => self.exchanges[number] = Exchange::None,
                    Exchange::None => {}
                    Exchange::Published => {
                        while self.publish(QoS::ExactlyOnce, true, number) == Verdict::Stall && self.acknowledge() {}
                    }
                    Exchange::Received | Exchange::Released => {
                        self.exchanges[number] = Exchange::Released;
                        while self.pubrel(number) == Pause::Wait && self.acknowledge() {}
                    }
                }
            }
        }

        fn step(&mut self, rng: &mut Rng) {
            let number = 1 + rng.below(self.exchanges.len() - 1);
            match (rng.below(10), self.exchanges[number]) {
                (0, _) => {
                    self.publish(QoS::AtLeastOnce, rng.chance(1, 4), 5 + number);
                }
                (1, _) => self.reconnect(rng),
                (2, _) => {
                    self.pubrel(20 + number); // of nothing we know
                }
                (3, _) => {
                    self.settle();
                    assert_eq!(self.short.on_stray_pubrec(id(30)), self.long.on_stray_pubrec(id(30)));
                }
                (4..=6, Exchange::None) => match self.publish(QoS::ExactlyOnce, false, number) {
                    Verdict::Show | Verdict::Taken => self.exchanges[number] = Exchange::Published,
                    Verdict::Stall => {}
                    Verdict::TooMany => self.reconnect(rng),
                },
                (4..=6, Exchange::Received | Exchange::Released) => {
                    if self.pubrel(number) == Pause::GoOn {
                        self.exchanges[number] = Exchange::Released;
                    }
                }
                _ => {
                    self.acknowledge();
                }
            }
        }
    }

    #[test]
    fn it_answers_a_server_as_what_it_stands_in_for_does() {
        for seed in seeds(400) {
            let mut rng = Rng::new(seed);
            let len = 2 + rng.below(6);
            let (mut short, mut long) = ([Received::FREE; 8], [inbound::Received::FREE; 8]);
            let mut pair = Pair {
                short: Inbound::new(&mut short[..len]),
                long: inbound::Inbound::new(&mut long[..len]),
                exchanges: [Exchange::None; 5],
            };
            for _ in 0..400 {
                pair.step(&mut rng);
            }
        }
    }
}
