//! A seeded shuffle buffer: the order of a stream, made random without holding the stream.

use rand::{Rng, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

/// Holds up to `capacity` items. Once full, each new item takes a random one's place, which is passed on; at the end
/// the rest follows in random order. Capacity 1 keeps the order.
#[derive(Debug)]
pub struct ShuffleBuffer<T> {
    capacity: usize,
    items: Vec<T>,
    rng: ChaCha8Rng,
}

impl<T> ShuffleBuffer<T> {
    /// An empty buffer; the order depends on `seed` and `epoch` alone.
    pub fn new(capacity: usize, seed: u64, epoch: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(epoch);
        Self { capacity: capacity.max(1), items: Vec::new(), rng }
    }

    /// The items held, in their places, and how far the random numbers have been used: all that [`Self::restore`] needs.
    pub(crate) fn state(&self) -> (&[T], u128) {
        (&self.items, self.rng.get_word_pos())
    }

    /// Goes on where a buffer of the same seed and epoch was.
    pub(crate) fn restore(&mut self, items: Vec<T>, used: u128) {
        self.items = items;
        self.rng.set_word_pos(used);
    }

    /// Adds an item; returns the one that leaves, if any.
    pub fn push(&mut self, item: T) -> Option<T> {
        if self.items.len() < self.capacity {
            self.items.push(item);
            return None;
        }
        let place = self.rng.random_range(0..self.capacity);
        Some(std::mem::replace(&mut self.items[place], item))
    }

    /// What is left, in random order.
    pub fn finish(mut self) -> Vec<T> {
        self.items.shuffle(&mut self.rng);
        self.items
    }
}

#[cfg(test)]
mod tests {
    use super::ShuffleBuffer;

    fn run(capacity: usize, seed: u64, epoch: u64) -> Vec<u32> {
        let mut buffer = ShuffleBuffer::new(capacity, seed, epoch);
        let mut out: Vec<u32> = (0..100).filter_map(|item| buffer.push(item)).collect();
        out.extend(buffer.finish());
        out
    }

    #[test]
    fn order_depends_on_seed_and_epoch_and_loses_nothing() {
        let first = run(16, 1, 0);
        assert_eq!(first, run(16, 1, 0));
        assert_ne!(first, run(16, 2, 0));
        assert_ne!(first, run(16, 1, 1));
        let mut sorted = first.clone();
        sorted.sort_unstable();
        assert!(sorted.into_iter().eq(0..100) && first.iter().copied().ne(0..100));
        assert!(run(1, 1, 0).into_iter().eq(0..100));
    }
}
