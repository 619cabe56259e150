//! How much of what was produced a client still holds.

use std::collections::VecDeque;

use super::turn::Turn;

/// What the producers hold that is not answered, in bytes of keys, values and headers.
///
/// librdkafka counts its records, and bounds the bytes of their values by one number, which is also
/// the largest value that it takes. That one has to be large, while what it takes to keep brokers busy
/// is less: so it is counted here too. Records are taken to be answered in the order in which they were
/// produced, which over all partitions is nearly so.
#[derive(Debug)]
pub(super) struct Queued {
    of_each: [Sizes; Turn::COUNT],
    bytes_max: usize,
}

/// Of one producer.
#[derive(Debug, Default)]
struct Sizes {
    sizes: VecDeque<u32>,
    bytes: usize,
}

impl Queued {
    /// Holds fewer bytes than these before the record that reaches them.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { of_each: <[Sizes; Turn::COUNT]>::default(), bytes_max }
    }

    /// Whether that producer takes one more record, whatever its size. `waiting` counts those that are
    /// not answered, and is asked only where it matters.
    pub(super) fn has_room(&mut self, producer: usize, waiting: impl FnOnce() -> usize) -> bool {
        let sizes = &mut self.of_each[producer];
        if sizes.bytes >= self.bytes_max {
            sizes.keep_last(waiting());
        }
        sizes.bytes < self.bytes_max
    }

    /// That producer has taken a record.
    pub(super) fn add(&mut self, producer: usize, bytes: usize) {
        let sizes = &mut self.of_each[producer];
        let size = u32::try_from(bytes).unwrap_or(u32::MAX);
        sizes.sizes.push_back(size);
        sizes.bytes += size as usize;
    }
}

impl Sizes {
    fn keep_last(&mut self, count: usize) {
        let answered = self.sizes.len().saturating_sub(count);
        self.bytes -= self.sizes.drain(..answered).map(|size| size as usize).sum::<usize>();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_answered_takes_up_room_of_its_own_producer() {
        let mut queued = Queued::new(100);
        for bytes in [60, 30, 500] {
            assert!(queued.has_room(0, || unreachable!("there is room")));
            queued.add(0, bytes);
        }
        assert!(!queued.has_room(0, || 3));
        assert!(!queued.has_room(0, || 1));
        assert!(queued.has_room(1, || unreachable!("nothing of it is there")));
        // It may be counted too high.
        assert!(!queued.has_room(0, || 2));
        assert!(queued.has_room(0, || 0));
        queued.add(0, 99);
        assert!(queued.has_room(0, || unreachable!("there is room")));
    }
}
