//! Packet identifiers: which one is next (MQTT 2.3.1).

use crate::packet::PacketId;

/// Hands out identifiers in rising order, past those that are in use.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Ids {
    next: u16,
    /// So many identifiers from `next` on are known to be free.
    free: u8,
}

/// The 32 identifiers from `first` on, and which of them are in use.
pub(crate) struct Window {
    first: u16,
    taken: u32,
}

impl Window {
    /// `id` is in use.
    pub fn mark(&mut self, id: u16) {
        let distance = u32::from(id.wrapping_sub(self.first));
        if distance < u32::BITS {
            self.taken |= 1_u32.wrapping_shl(distance);
        }
    }
}

impl Ids {
    pub const fn new() -> Self {
        Self { next: 1, free: 0 }
    }

    /// The next identifier that is not in use [MQTT-2.3.1-2]; `None` when all 65,535 are. One pass over those in use,
    /// which `mark_all` makes, serves up to 32 calls.
    pub fn allocate(&mut self, mark_all: impl Fn(&mut Window)) -> Option<PacketId> {
        // 65,536 numbers in windows of 32.
        for _ in 0..2048_u16 {
            if self.free > 0 {
                break;
            }
            let mut window = Window { first: self.next, taken: 0 };
            window.mark(0); // never free [MQTT-2.3.1-1]
            mark_all(&mut window);
            for _ in 0..u32::BITS {
                if window.taken & 1 == 0 {
                    break;
                }
                window.taken = window.taken >> 1 | 1 << 31;
                self.next = self.next.wrapping_add(1);
            }
            let [free, ..] = window.taken.trailing_zeros().to_le_bytes();
            self.free = free;
        }
        self.free = self.free.checked_sub(1)?;
        let id = PacketId::new(self.next)?;
        self.next = self.next.wrapping_add(1);
        Some(id)
    }

    /// An identifier came into use that was not given out here: what is free must be looked up again.
    #[cfg(feature = "durable")]
    pub fn look_again(&mut self) {
        self.free = 0;
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
            assert_eq!(
                ids.allocate(|window| in_use.iter().for_each(|id| window.mark(*id))).map(PacketId::get),
                expected.next()
            );
        }
    }

    #[test]
    fn with_all_identifiers_in_use_there_is_none_left() {
        // [F01]
        let mut ids = Ids::new();
        assert_eq!(ids.allocate(|window| (1..=65_535).for_each(|id| window.mark(id))), None);
        assert_eq!(
            ids.allocate(|window| (1..=65_535).filter(|id| *id != 777).for_each(|id| window.mark(id)))
                .map(PacketId::get),
            Some(777)
        );
        assert_eq!(ids.allocate(|window| (1..=65_535).for_each(|id| window.mark(id))), None);
    }
}
