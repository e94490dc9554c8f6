//! Packet identifiers: which one is next (MQTT 2.3.1).

use crate::packet::PacketId;

/// Hands out identifiers in rising order, past those that are in use.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Ids {
    next: u16,
    /// So many identifiers from `next` on are known to be free.
    free: u32,
}

/// Identifiers looked at in one pass over those in use.
const WINDOW: u32 = u32::BITS;

impl Ids {
    pub const fn new() -> Self {
        Self { next: 1, free: 0 }
    }

    /// The next identifier that is not in use [MQTT-2.3.1-2]; `None` when all 65,535 are. Each pass over `in_use`
    /// serves many calls.
    pub fn allocate<I: Iterator<Item = u16>>(&mut self, in_use: impl Fn() -> I) -> Option<PacketId> {
        if self.free == 0 {
            self.find_free(in_use)?;
        }
        let id = PacketId::new(self.next)?;
        self.next = self.next.wrapping_add(1);
        self.free = self.free.saturating_sub(1);
        Some(id)
    }

    fn find_free<I: Iterator<Item = u16>>(&mut self, in_use: impl Fn() -> I) -> Option<()> {
        // 65,536 numbers in windows of 32.
        for _ in 0..2048_u16 {
            let next = self.next;
            // Zero is never free [MQTT-2.3.1-1].
            let taken = in_use().chain([0]).fold(0_u32, |taken, id| {
                let distance = u32::from(id.wrapping_sub(next));
                if distance < WINDOW { taken | 1_u32.wrapping_shl(distance) } else { taken }
            });
            let skipped = taken.trailing_ones();
            self.next = self.next.wrapping_add(u16::try_from(skipped).unwrap_or_default());
            if skipped < WINDOW {
                let rest = taken.wrapping_shr(skipped);
                self.free = rest.trailing_zeros().min(WINDOW.saturating_sub(skipped));
                return Some(());
            }
        }
        None
    }

    /// Goes on from `id`, after a restart.
    pub fn go_on_from(&mut self, id: PacketId) {
        *self = Self { next: id.get(), free: 0 };
    }

    /// The identifier that would be looked at next.
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
            assert_eq!(ids.allocate(|| in_use.into_iter()).map(PacketId::get), expected.next());
        }
    }

    #[test]
    fn with_all_identifiers_in_use_there_is_none_left() {
        // [F01]
        let mut ids = Ids::new();
        assert_eq!(ids.allocate(|| 1..=65_535), None);
        assert_eq!(ids.allocate(|| (1..=65_535).filter(|id| *id != 777)).map(PacketId::get), Some(777));
        assert_eq!(ids.allocate(|| 1..=65_535), None);
    }
}
