//! Packet identifiers: which one is next (MQTT 2.3.1).

use crate::packet::PacketId;

/// Hands out identifiers in rising order, past those that are in use.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Ids {
    next: u16,
    /// So many identifiers from `next` on are known to be free.
    free: u16,
}

impl Ids {
    pub const fn new() -> Self {
        Self { next: 0, free: 0 }
    }

    /// The next identifier that is not in use [MQTT-2.3.1-2]; `None` when all 65,535 are. One pass over those in use,
    /// which `mark_all` makes, serves until the first of them comes round.
    pub fn allocate(&mut self, mut mark_all: impl FnMut(&mut Self)) -> Option<PacketId> {
        // Each turn passes over one identifier in use, or zero.
        for _ in 0..0x1_0000_u32 {
            if self.free == 0 {
                self.free = 0_u16.wrapping_sub(self.next); // up to zero, which never is [MQTT-2.3.1-1]
                mark_all(self);
            }
            let next = self.next;
            self.next = next.wrapping_add(1);
            if self.free > 0 {
                self.free = self.free.wrapping_sub(1);
                return PacketId::new(next);
            }
        }
        None
    }

    /// `id` is in use: what is free ends before it.
    #[inline(never)] // from several loops
    pub fn mark(&mut self, id: u16) {
        self.free = self.free.min(id.wrapping_sub(self.next));
    }

    /// An identifier came into use that was not given out here: what is free must be looked up again.
    #[cfg(any(feature = "durable", feature = "suspend"))]
    pub fn look_again(&mut self) {
        self.free = 0;
    }

    /// Whether `id` is not in use.
    #[cfg(feature = "durable")]
    pub fn is_free(id: PacketId, mark_all: impl FnOnce(&mut Self)) -> bool {
        let mut ids = Self { next: id.get(), free: 1 };
        mark_all(&mut ids);
        ids.free > 0
    }

    /// Those from `id` on.
    #[cfg(feature = "durable")]
    pub const fn from(id: PacketId) -> Self {
        Self { next: id.get(), free: 0 }
    }

    /// The identifier that would be looked at next.
    #[cfg(feature = "durable")]
    pub fn peek(&self) -> Option<PacketId> {
        PacketId::new(self.next).or(PacketId::new(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_rise_wrap_and_skip_zero_and_those_in_use() {
        // [MQTT-2.3.1-1] [MQTT-2.3.1-2]
        let in_use = [3, 4, 5, 40, 65_535];
        let mut ids = Ids::new();
        let mut expected = (1..=65_534).filter(|id| !in_use.contains(id)).cycle();
        for _ in 0..200_000 {
            assert_eq!(
                ids.allocate(|ids| in_use.iter().for_each(|id| ids.mark(*id))).map(PacketId::get),
                expected.next()
            );
        }
    }

    #[test]
    fn with_all_identifiers_in_use_there_is_none_left() {
        // [F01] All identifiers in use: whichever is next is among them.
        let mut ids = Ids::new();
        assert_eq!(ids.allocate(|ids| ids.mark(ids.next)), None);
        let all_but_777 = |ids: &mut Ids| {
            if ids.next != 777 {
                ids.mark(ids.next);
            }
            ids.mark(778);
        };
        assert_eq!(ids.allocate(all_but_777).map(PacketId::get), Some(777));
        assert_eq!(ids.allocate(|ids| ids.mark(ids.next)), None);
    }
}
