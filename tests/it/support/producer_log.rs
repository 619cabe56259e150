//! Who wrote what lies in the partitions, and where its transactions ended: no consumer is told of
//! producers, so the batches' headers are read from a broker's own files.

use std::{collections::HashMap, fs, path::Path};

use super::kafka::{Broker, Record};

/// What precedes the length of a batch that its length field counts, in bytes: the base offset and
/// the field itself.
const BEFORE_LENGTH_BYTES: usize = 12;

/// A batch's header (KIP-98, record batch version 2), in bytes.
const HEADER_BYTES: usize = 61;

/// The attribute of a batch that holds a marker.
const CONTROL: u16 = 0x20;

/// Topic and partition.
type Partition = (String, i32);

/// All batches of a broker's partitions, in order.
#[derive(Default)]
pub struct ProducerLog {
    partitions: HashMap<Partition, Vec<Batch>>,
}

#[derive(Clone, Copy)]
struct Batch {
    first: i64,
    last: i64,
    producer: i64,
    is_marker: bool,
    /// How many of the producer's transactions ended in the partition before it.
    ended: usize,
}

/// Adds a batch behind the others.
fn push(batches: &mut Vec<Batch>, offsets: (i64, i64), producer: i64, is_marker: bool) {
    let before = batches.iter().rev().find(|batch| batch.producer == producer);
    let ended = before.map_or(0, |batch| batch.ended + usize::from(batch.is_marker));
    let (first, last) = offsets;
    batches.push(Batch { first, last, producer, is_marker, ended });
}

impl ProducerLog {
    /// Reads the log of everything but Kafka's own topics.
    pub fn read(broker: &Broker) -> Self {
        let mut partitions: HashMap<Partition, Vec<Batch>> = HashMap::new();
        for entry in fs::read_dir(broker.data_folder()).expect("a data folder").flatten() {
            let name = entry.file_name().into_string().expect("a name");
            let Some((topic, partition)) = name.rsplit_once('-') else { continue };
            let Ok(partition) = partition.parse() else { continue };
            if topic.starts_with("__") {
                continue;
            }
            partitions.insert((topic.to_owned(), partition), batches(&entry.path()));
        }
        Self { partitions }
    }

    /// The log of one producer that wrote these records and nothing else: what is missing between
    /// two offsets are its markers.
    pub fn of_one_producer(records: &[Record]) -> Self {
        let mut records: Vec<&Record> = records.iter().collect();
        records.sort_by_key(|record| (&record.topic, record.partition, record.offset));
        records.dedup_by_key(|record| (&record.topic, record.partition, record.offset));
        let mut log = Self::default();
        for record in records {
            log.add(record, 1);
        }
        log
    }

    /// Adds a record of a producer; what is missing before it are markers of that producer.
    pub fn add(&mut self, record: &Record, producer: i64) {
        let batches = self.partitions.entry((record.topic.clone(), record.partition)).or_default();
        let end = batches.last().map_or(0, |batch| batch.last + 1);
        if end < record.offset {
            push(batches, (end, record.offset - 1), producer, true);
        }
        push(batches, (record.offset, record.offset), producer, false);
    }

    /// Adds a marker of a producer at the end of a partition.
    pub fn add_marker(&mut self, partition: Partition, producer: i64) {
        let batches = self.partitions.entry(partition).or_default();
        let end = batches.last().map_or(0, |batch| batch.last + 1);
        push(batches, (end, end), producer, true);
    }

    /// Where the next record of a partition goes.
    pub fn end(&self, partition: &Partition) -> i64 {
        let last = self.partitions.get(partition).and_then(|batches| batches.last());
        last.map_or(0, |batch| batch.last + 1)
    }

    /// A record's producer, and how many of that producer's transactions ended in the partition
    /// before it.
    pub fn transaction(&self, partition: &Partition, offset: i64) -> Option<(i64, usize)> {
        let batches = self.partitions.get(partition)?;
        let at = batches.partition_point(|batch| batch.last < offset);
        let batch = batches.get(at).filter(|batch| batch.first <= offset && !batch.is_marker)?;
        Some((batch.producer, batch.ended))
    }
}

fn batches(folder: &Path) -> Vec<Batch> {
    let mut segments: Vec<_> = fs::read_dir(folder)
        .expect("a partition's folder")
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    // Named by their first offset, with leading zeros.
    segments.sort();
    let mut batches = Vec::new();
    for segment in segments {
        let bytes = fs::read(&segment).expect("a segment");
        let mut rest = bytes.as_slice();
        while let Some((header, length)) = header(rest) {
            push(&mut batches, (header.first, header.last), header.producer, header.is_marker);
            rest = rest.get(length..).unwrap_or_default();
        }
    }
    batches
}

struct Header {
    first: i64,
    last: i64,
    producer: i64,
    is_marker: bool,
}

/// The header of the batch at the beginning, and the batch's length.
fn header(bytes: &[u8]) -> Option<(Header, usize)> {
    fn field<const N: usize>(header: &[u8], at: usize) -> [u8; N] {
        header[at..at + N].try_into().expect("a field of the header")
    }
    let header = bytes.get(..HEADER_BYTES)?;
    let first = i64::from_be_bytes(field(header, 0));
    let length = usize::try_from(i32::from_be_bytes(field(header, 8))).ok()?;
    let last = first + i64::from(i32::from_be_bytes(field(header, 23)));
    let producer = i64::from_be_bytes(field(header, 43));
    let is_marker = u16::from_be_bytes(field(header, 21)) & CONTROL != 0;
    Some((Header { first, last, producer, is_marker }, length + BEFORE_LENGTH_BYTES))
}
