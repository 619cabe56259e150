//! Which partition a key goes to.
//!
//! The partition is computed here and not by the client library, so that a team that changes over
//! from another producer keeps each key's partition, and with it the order of its events. Each
//! hash is tested against the program that it follows (`tests/it/partitioners.rs`).

/// The hash of a key, as another producer computes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Partitioner {
    /// The Java clients, and kafkajs' default.
    #[default]
    Murmur2,
    /// kafkajs' `Partitioners.LegacyPartitioner`.
    KafkajsLegacy,
    /// librdkafka's default (`consistent`).
    Crc32,
    /// Sarama's default (`NewHashPartitioner`).
    Fnv1a,
}

// MurmurHash2, as the Java clients use it.
const MURMUR2_SEED: u32 = 0x9747_b28c;
const MURMUR2_MULTIPLIER: u32 = 0x5bd1_e995;

// FNV-1a of 32 bits.
const FNV_OFFSET_BASIS: u32 = 0x811c_9dc5;
const FNV_PRIME: u32 = 0x0100_0193;

impl Partitioner {
    /// The partition of `key` in a topic of `partitions` partitions; 0 where there is none.
    ///
    /// For a null key the caller gives the text of the event's id.
    pub fn partition(self, key: &[u8], partitions: u32) -> i32 {
        // Kafka numbers partitions by i32, so neither bound is ever met.
        let count = i32::try_from(partitions).unwrap_or(i32::MAX).max(1);
        match self {
            Self::Murmur2 => (murmur2(key) & i32::MAX) % count,
            Self::KafkajsLegacy => (murmur2_in_doubles(key) & i32::MAX) % count,
            Self::Crc32 => {
                let hash = i64::from(crc32fast::hash(key));
                i32::try_from(hash % i64::from(count)).unwrap_or_default()
            }
            // The remainder of a signed hash, and then its absolute value.
            Self::Fnv1a => (fnv1a(key) % count).abs(),
        }
    }
}

fn murmur2(key: &[u8]) -> i32 {
    let multiply = |value: u32| value.wrapping_mul(MURMUR2_MULTIPLIER);
    let mut hash = MURMUR2_SEED ^ key.len() as u32;
    let (words, tail) = key.as_chunks::<4>();
    for word in words {
        let word = multiply(u32::from_le_bytes(*word));
        hash = multiply(hash) ^ multiply(word ^ word >> 24);
    }
    if !tail.is_empty() {
        hash = multiply(hash ^ zero_extended(tail));
    }
    hash = multiply(hash ^ hash >> 13);
    (hash ^ hash >> 15) as i32
}

/// MurmurHash2 as JavaScript computes it with plain numbers.
///
/// It differs in two ways. A product is a double of 53 bits, so it has lost its low bits before
/// the next bitwise operator cuts it to 32. And a last word of less than four bytes is mixed in
/// twice: as a word filled up with zeroes, because the number of words is not rounded down, and
/// then as the tail that it is.
fn murmur2_in_doubles(key: &[u8]) -> i32 {
    let multiply = |value: i32| f64::from(value) * f64::from(MURMUR2_MULTIPLIER);
    let unsigned_shift = |value: i32, bits: u32| (value as u32 >> bits) as i32;
    let mut hash = MURMUR2_SEED as i32 ^ key.len() as i32;
    let (words, tail) = key.as_chunks::<4>();
    let last_word = (!tail.is_empty()).then(|| zero_extended(tail));
    for word in words.iter().map(|word| u32::from_le_bytes(*word)).chain(last_word) {
        let word = to_int32(multiply(word as i32));
        let word = to_int32(multiply(word ^ unsigned_shift(word, 24)));
        hash = to_int32(multiply(hash)) ^ word;
    }
    if let Some(tail) = last_word {
        hash = to_int32(multiply(hash ^ tail as i32));
    }
    hash = to_int32(multiply(hash ^ unsigned_shift(hash, 13)));
    hash ^ unsigned_shift(hash, 15)
}

/// ECMAScript's ToInt32. Products of two 32-bit numbers stay below 2^62, so they are exact as i64.
fn to_int32(number: f64) -> i32 {
    number as i64 as i32
}

/// Up to three bytes as a little-endian number.
fn zero_extended(tail: &[u8]) -> u32 {
    tail.iter().rev().fold(0, |number, byte| number << 8 | u32::from(*byte))
}

fn fnv1a(key: &[u8]) -> i32 {
    key.iter()
        .fold(FNV_OFFSET_BASIS, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(FNV_PRIME))
        as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_partition_lies_within_the_topic() {
        let mut random = fastrand::Rng::with_seed(13);
        for _ in 0..10_000 {
            let length = random.usize(0..40);
            let key: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(length).collect();
            let count = random.u32(1..1000);
            for partitioner in ALL {
                let partition = partitioner.partition(&key, count);
                assert!((0..count as i32).contains(&partition), "{partitioner:?} {key:?}");
            }
        }
    }

    #[test]
    fn no_partitions_is_partition_zero() {
        for partitioner in ALL {
            assert_eq!(partitioner.partition(b"key", 0), 0);
        }
    }

    const ALL: [Partitioner; 4] =
        [Partitioner::Murmur2, Partitioner::KafkajsLegacy, Partitioner::Crc32, Partitioner::Fnv1a];
}
