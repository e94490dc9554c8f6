//! Things found by packet identifier.
//!
//! Identifiers are given out in rising order, so the low bits of one say where its thing lies. Where two would lie in
//! one place, since an old one has stayed, the newer one goes to a map beside.

use dunlin_core::PacketId;
use rustc_hash::FxHashMap;

pub(crate) struct ById<T> {
    /// Empty, or a power of two, at least twice as many as things.
    near: Vec<Option<(PacketId, T)>>,
    far: FxHashMap<PacketId, T>,
    count: usize,
}

impl<T> Default for ById<T> {
    fn default() -> Self {
        Self { near: Vec::new(), far: FxHashMap::default(), count: 0 }
    }
}

impl<T> ById<T> {
    pub fn len(&self) -> usize {
        self.count
    }

    pub fn contains(&self, id: PacketId) -> bool {
        self.get(id).is_some()
    }

    pub fn get(&self, id: PacketId) -> Option<&T> {
        match self.near.get(self.place(id)) {
            Some(Some((near, thing))) if *near == id => Some(thing),
            _ => self.far.get(&id),
        }
    }

    /// Adds a thing under an identifier that nothing is under.
    pub fn insert(&mut self, id: PacketId, thing: T) {
        if self.near.len() < 2 * (self.count + 1) {
            self.grow();
        }
        self.count += 1;
        self.put(id, thing);
    }

    pub fn remove(&mut self, id: PacketId) -> Option<T> {
        let place = self.place(id);
        let thing = match self.near.get_mut(place) {
            Some(near) if near.as_ref().is_some_and(|(near, _)| *near == id) => near.take().map(|(_, thing)| thing),
            _ => self.far.remove(&id),
        };
        self.count -= usize::from(thing.is_some());
        thing
    }

    fn place(&self, id: PacketId) -> usize {
        usize::from(id.get()) & self.near.len().wrapping_sub(1)
    }

    fn put(&mut self, id: PacketId, thing: T) {
        let place = self.place(id);
        match &mut self.near[place] {
            near @ None => *near = Some((id, thing)),
            Some(_) => drop(self.far.insert(id, thing)),
        }
    }

    fn grow(&mut self) {
        let len = (2 * self.near.len()).max(32);
        let old = std::mem::replace(&mut self.near, std::iter::repeat_with(|| None).take(len).collect());
        let far = std::mem::take(&mut self.far);
        for (id, thing) in old.into_iter().flatten().chain(far) {
            self.put(id, thing);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_found_under_its_identifier_also_beside_old_ones() {
        let id = |n: u16| PacketId::new(n).unwrap();
        let mut things = ById::default();
        let mut expected = std::collections::BTreeMap::new();
        // Every seventh stays, the others go as soon as ten newer ones came.
        for n in 1..=2_000_u16 {
            things.insert(id(n), n);
            expected.insert(n, n);
            if n > 10 && (n - 10) % 7 != 0 {
                assert_eq!(things.remove(id(n - 10)), expected.remove(&(n - 10)));
            }
            assert_eq!(things.len(), expected.len());
        }
        for n in 1..=2_001_u16 {
            assert_eq!(things.get(id(n)), expected.get(&n));
            assert_eq!(things.contains(id(n)), expected.contains_key(&n));
        }
        assert_eq!(things.remove(id(2_001)), None);
    }
}
