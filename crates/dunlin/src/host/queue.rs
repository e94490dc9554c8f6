//! Received messages in their order.
//!
//! A message has many bytes, so none is moved that need not be: it is copied to its place in the queue, and from there
//! to the application. Places are used again, with what is left in them of the message before.

use super::received::Message;

#[derive(Default)]
pub(crate) struct Queue {
    /// Messages in `places[first..end]`; the others have no heap.
    places: Vec<Message>,
    first: usize,
    end: usize,
}

impl Queue {
    #[inline]
    pub fn len(&self) -> usize {
        self.end - self.first
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.first == self.end
    }

    /// A place behind the last message, for one to be put there.
    #[inline]
    pub fn add(&mut self) -> &mut Message {
        if self.end == self.places.len() {
            self.make_room();
        }
        self.end += 1;
        &mut self.places[self.end - 1]
    }

    #[inline]
    pub fn front(&self) -> Option<&Message> {
        if self.is_empty() { None } else { self.places.get(self.first) }
    }

    #[inline]
    pub fn pop(&mut self) -> Option<Message> {
        if self.is_empty() {
            return None;
        }
        let place = self.places.get_mut(self.first)?;
        self.first += 1;
        if self.first == self.end {
            (self.first, self.end) = (0, 0);
        }
        Some(place.take())
    }

    /// Takes all messages of another queue, behind its own.
    pub fn append(&mut self, other: &mut Self) {
        if self.is_empty() {
            std::mem::swap(self, other);
        }
        while let Some(message) = other.pop() {
            *self.add() = message;
        }
    }

    #[cold]
    fn make_room(&mut self) {
        if self.first > self.places.len() / 2 {
            self.places.rotate_left(self.first);
            (self.first, self.end) = (0, self.end - self.first);
        } else {
            self.places.resize_with((2 * self.places.len()).max(8), || Message::EMPTY);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    #[test]
    fn messages_keep_their_order_and_their_bytes_whatever_was_in_their_places() {
        let mut random = fastrand::Rng::with_seed(7);
        let (mut queues, mut expected) = ([Queue::default(), Queue::default()], [VecDeque::new(), VecDeque::new()]);
        let mut longest = 0;
        for number in 0..20_000_u32 {
            let side = random.usize(..2);
            match random.u32(..20) {
                0 => {
                    let [one, other] = &mut queues;
                    one.append(other);
                    let [one, other] = &mut expected;
                    one.append(other);
                }
                1..=9 => {
                    assert_eq!(queues[side].front().map(Message::payload), expected[side].front().map(Vec::as_slice));
                    assert_eq!(
                        queues[side].pop().map(|message| message.payload().to_vec()),
                        expected[side].pop_front()
                    );
                }
                10..19 => {
                    let mut payload = number.to_be_bytes().to_vec();
                    payload.resize(random.usize(4..100), 7);
                    queues[side].add().put(b"a/b", &payload);
                    expected[side].push_back(payload);
                }
                _ => {}
            }
            assert_eq!(queues.each_ref().map(Queue::len), expected.each_ref().map(VecDeque::len));
            longest = longest.max(queues[0].len()).max(queues[1].len());
            assert_eq!(queues[side].is_empty(), expected[side].is_empty());
        }
        assert!(queues.iter().all(|queue| queue.places.len() <= 4 * longest));
    }
}
