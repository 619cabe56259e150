//! Whether each transaction of the database became visible as a whole, over all partitions and
//! topics, by the marks that Kafka's transactions leave in the log.
//!
//! One producer writes events in the order of (`pg-lsn`, `pg-seq`), so a Kafka transaction is a
//! stretch of that order, and what is looked for are the places where one ends and the next begins.
//! A Kafka transaction ends with a marker in each partition that it wrote to, and the marker takes
//! an offset. Two neighbours of a partition without a gap are therefore of one Kafka transaction:
//! none begins between them, on any partition. Where there is a gap, one begins somewhere between
//! them. That place must be one where a transaction of the database begins too, and which no other
//! partition rules out.

use std::collections::HashMap;

use tailwater::lsn::Lsn;

/// Collects where events lie.
#[derive(Default)]
pub struct Visibility {
    events: Vec<Event>,
    partitions: HashMap<(String, i32), usize>,
}

struct Event {
    /// `pg-lsn` and `pg-seq`.
    position: (Lsn, u64),
    xid: u32,
    partition: usize,
    offset: i64,
}

impl Visibility {
    /// An event at its place.
    pub fn take(&mut self, position: (Lsn, u64), xid: u32, partition: (String, i32), offset: i64) {
        let next = self.partitions.len();
        let partition = *self.partitions.entry(partition).or_insert(next);
        self.events.push(Event { position, xid, partition, offset });
    }

    /// The gaps that only a torn transaction explains, in words. `may_be_split` tells of a
    /// transaction whether its events may become visible in parts.
    pub fn torn(mut self, may_be_split: impl Fn(u32) -> bool) -> Vec<String> {
        self.events.sort_unstable_by_key(|event| event.position);
        let (ruled_out, gaps) = self.neighbours();
        // How many places there are before each, at which a Kafka transaction may begin.
        let mut places = vec![0_usize; self.events.len() + 1];
        for (at, event) in self.events.iter().enumerate() {
            let begins = at == 0 || self.events[at - 1].position.0 != event.position.0;
            let is_possible = !ruled_out[at] && (begins || may_be_split(event.xid));
            places[at + 1] = places[at] + usize::from(is_possible);
        }
        let is_torn = |&(before, after): &(usize, usize)| places[after + 1] == places[before + 1];
        gaps.into_iter().filter(is_torn).map(|gap| self.words(gap)).collect()
    }

    /// Before which events no Kafka transaction begins, and the neighbours with a gap in between.
    fn neighbours(&self) -> (Vec<bool>, Vec<(usize, usize)>) {
        let mut last: Vec<Option<usize>> = vec![None; self.partitions.len()];
        let mut changes = vec![0_i64; self.events.len() + 1];
        let mut gaps = Vec::new();
        for (at, event) in self.events.iter().enumerate() {
            let Some(before) = last[event.partition].replace(at) else { continue };
            match event.offset - self.events[before].offset {
                1 => {
                    changes[before + 1] += 1;
                    changes[at + 1] -= 1;
                }
                // Out of order, which is another fault.
                ..=0 => {}
                _ => gaps.push((before, at)),
            }
        }
        let depth = changes.iter().scan(0, |depth, change| {
            *depth += change;
            Some(*depth > 0)
        });
        (depth.collect(), gaps)
    }

    fn words(&self, (before, after): (usize, usize)) -> String {
        let [before, after] = [&self.events[before], &self.events[after]];
        let partition = self.partitions.iter().find(|(_, index)| **index == after.partition);
        let ((topic, partition), _) = partition.expect("each index is one of them");
        format!(
            "{topic}/{partition} between offsets {} of transaction {} and {} of transaction {}: \
             a Kafka transaction ended inside one of them",
            before.offset, before.xid, after.offset, after.xid
        )
    }
}
