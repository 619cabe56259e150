//! Whether each transaction of the database became visible as a whole, over all partitions and
//! topics, by the marks that Kafka's transactions leave in the log.
//!
//! Events are written in the order of (`pg-lsn`, `pg-seq`), so a Kafka transaction is a stretch of
//! that order, and what is looked for are the places where one ends and the next begins. Where
//! neighbours of that order have different producers, one begins between them. Of one producer's
//! events alone: its transaction ends with a marker in each partition that it wrote to. Two
//! neighbours of a partition without a marker of theirs in between are therefore of one
//! transaction, and none of that producer begins between them, on any partition. Where there is
//! one, a transaction of the producer begins somewhere between them. That place must be one where a
//! transaction of the database begins too, and which no other partition rules out.

use std::collections::HashMap;

use tailwater::lsn::Lsn;

use super::producer_log::ProducerLog;

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

/// An event of one producer.
struct Written {
    at: usize,
    /// How many of the producer's transactions ended in its partition before it.
    ended: usize,
    /// A Kafka transaction may begin with it.
    may_begin: bool,
}

impl Visibility {
    /// An event at its place.
    pub fn take(&mut self, position: (Lsn, u64), xid: u32, partition: (String, i32), offset: i64) {
        let next = self.partitions.len();
        let partition = *self.partitions.entry(partition).or_insert(next);
        self.events.push(Event { position, xid, partition, offset });
    }

    /// The places that only a torn transaction explains, in words. `may_be_split` tells of a
    /// transaction whether its events may become visible in parts.
    pub fn torn(mut self, log: &ProducerLog, may_be_split: impl Fn(u32) -> bool) -> Vec<String> {
        self.events.sort_unstable_by_key(|event| event.position);
        let mut torn = Vec::new();
        let mut written: HashMap<i64, Vec<Written>> = HashMap::new();
        let mut before: Option<i64> = None;
        let names = self.names();
        for (at, event) in self.events.iter().enumerate() {
            let begins = at == 0 || self.events[at - 1].position.0 != event.position.0;
            let may_begin = begins || may_be_split(event.xid);
            let Some((producer, ended)) = log.transaction(&names[event.partition], event.offset)
            else {
                torn.push(format!("{}: not in the log", self.place(at)));
                continue;
            };
            if before.replace(producer).is_some_and(|before| before != producer) && !may_begin {
                torn.push(format!("{}: of another producer than the one before", self.place(at)));
            }
            written.entry(producer).or_default().push(Written { at, ended, may_begin });
        }
        for written in written.into_values() {
            let gaps = self.impossible(&written);
            torn.extend(gaps.into_iter().map(|gap| self.words(gap)));
        }
        torn
    }

    /// Neighbours of a partition between which a transaction of the producer began, where none can.
    fn impossible(&self, written: &[Written]) -> Vec<(usize, usize)> {
        let mut last: Vec<Option<usize>> = vec![None; self.partitions.len()];
        let mut changes = vec![0_i64; written.len() + 1];
        let mut gaps = Vec::new();
        for (index, event) in written.iter().enumerate() {
            let partition = self.events[event.at].partition;
            let Some(before) = last[partition].replace(index) else { continue };
            if written[before].ended == event.ended {
                changes[before + 1] += 1;
                changes[index + 1] -= 1;
            } else {
                gaps.push((before, index));
            }
        }
        // How many places there are before each, at which a Kafka transaction may begin.
        let mut places = vec![0_usize; written.len() + 1];
        let mut depth = 0;
        for (index, event) in written.iter().enumerate() {
            depth += changes[index];
            places[index + 1] = places[index] + usize::from(depth == 0 && event.may_begin);
        }
        gaps.retain(|&(before, after)| places[after + 1] == places[before + 1]);
        gaps.into_iter().map(|(before, after)| (written[before].at, written[after].at)).collect()
    }

    fn names(&self) -> Vec<(String, i32)> {
        let mut names: Vec<_> = self.partitions.iter().collect();
        names.sort_by_key(|(_, index)| **index);
        names.into_iter().map(|(name, _)| name.clone()).collect()
    }

    fn place(&self, at: usize) -> String {
        let event = &self.events[at];
        let partition = self.partitions.iter().find(|(_, index)| **index == event.partition);
        let ((topic, partition), _) = partition.expect("each index is one of them");
        format!("{topic}/{partition} at {}, transaction {}", event.offset, event.xid)
    }

    fn words(&self, (before, after): (usize, usize)) -> String {
        let [before, after] = [self.place(before), self.place(after)];
        format!("between {before} and {after}: a Kafka transaction ended inside one of them")
    }
}
