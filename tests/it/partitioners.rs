//! Each partitioner beside the program that it follows: the same keys, the same partitions.

use std::ptr;

use tailwater::sink::kafka::Partitioner;

use crate::support::foreign;

/// Keys as they occur, and as they should not: 10,000 of them, the same in every run.
fn keys() -> Vec<Vec<u8>> {
    let mut random = fastrand::Rng::with_seed(20_260_101);
    let mut keys = vec![Vec::new()];
    for length in 1..=40 {
        keys.push(vec![0; length]);
        keys.push(vec![0xff; length]);
        keys.push("0123456789abcdefghijklmnopqrstuvwxyzABCD".as_bytes()[..length].to_vec());
    }
    while keys.len() < 10_000 {
        keys.push(match random.u8(0..5) {
            0 => format!("order-{}", random.u32(..)).into_bytes(),
            1 => uuid::Builder::from_random_bytes(random.u128(..).to_le_bytes())
                .into_uuid()
                .to_string()
                .into_bytes(),
            2 => (0..random.usize(0..20)).map(|_| random.char(..)).collect::<String>().into_bytes(),
            3 => random.i64(..).to_string().into_bytes(),
            _ => (0..random.usize(0..=40)).map(|_| random.u8(..)).collect(),
        });
    }
    keys
}

/// A topic's size that hides nothing: prime, and larger than a byte.
const PARTITIONS: u32 = 1009;

fn assert_same(partitioner: Partitioner, keys: &[Vec<u8>], partitions: u32, expected: &[i32]) {
    assert_eq!(keys.len(), expected.len());
    for (key, expected) in keys.iter().zip(expected) {
        assert_eq!(partitioner.partition(key, partitions), *expected, "{partitioner:?} of {key:?}");
    }
}

#[test]
fn keys_go_where_both_partitioners_of_kafkajs_put_them() {
    let keys = keys();
    for partitions in [1, 6, PARTITIONS] {
        let kafkajs = foreign::kafkajs_partitions(&keys, partitions);
        assert_same(Partitioner::Murmur2, &keys, partitions, &kafkajs.default);
        assert_same(Partitioner::KafkajsLegacy, &keys, partitions, &kafkajs.legacy);
    }
}

type LibrdkafkaPartitioner = unsafe extern "C" fn(
    *const rdkafka_sys::rd_kafka_topic_t,
    *const std::ffi::c_void,
    usize,
    i32,
    *mut std::ffi::c_void,
    *mut std::ffi::c_void,
) -> i32;

fn ask_librdkafka(partitioner: LibrdkafkaPartitioner, key: &[u8]) -> i32 {
    // SAFETY: these partitioners read `key.len()` bytes at `key` and neither the topic nor the
    // opaque pointers.
    unsafe {
        partitioner(
            ptr::null(),
            key.as_ptr().cast(),
            key.len(),
            PARTITIONS as i32,
            ptr::null_mut(),
            ptr::null_mut(),
        )
    }
}

#[test]
fn keys_go_where_librdkafka_puts_them() {
    let keys = keys();
    let originals: [(Partitioner, LibrdkafkaPartitioner); 3] = [
        (Partitioner::Crc32, rdkafka_sys::rd_kafka_msg_partitioner_consistent),
        (Partitioner::Murmur2, rdkafka_sys::rd_kafka_msg_partitioner_murmur2),
        (Partitioner::Fnv1a, rdkafka_sys::rd_kafka_msg_partitioner_fnv1a),
    ];
    for (partitioner, original) in originals {
        let expected: Vec<i32> = keys.iter().map(|key| ask_librdkafka(original, key)).collect();
        assert_same(partitioner, &keys, PARTITIONS, &expected);
    }
}

/// What `sarama.NewHashPartitioner` of Sarama 1.61.1 answers for topics of these sizes.
const SARAMA_SIZES: [u32; 6] = [1, 3, 6, 12, 100, 2_147_483_647];
const SARAMA_ANSWERS: [(&[u8], [i32; 6]); 12] = [
    (b"", [0, 0, 3, 3, 35, 2_128_831_035]),
    (b"a", [0, 0, 0, 0, 76, 468_965_076]),
    (b"order-1", [0, 1, 1, 1, 49, 729_795_949]),
    (b"order-2", [0, 1, 4, 4, 92, 679_463_092]),
    (b"order-3", [0, 0, 3, 3, 11, 696_240_711]),
    ("Bestellung-für-Jürgen".as_bytes(), [0, 1, 4, 4, 36, 895_409_836]),
    ("注文-42".as_bytes(), [0, 1, 4, 4, 36, 1_530_430_336]),
    (b"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", [0, 2, 5, 11, 99, 1_189_721_999]),
    (b"\xff\x00\x80\x7f", [0, 0, 3, 3, 51, 1_162_984_851]),
    (b"0123456789012345678901234567890123456789", [0, 2, 5, 5, 61, 553_869_461]),
    (b"negative", [0, 2, 2, 2, 78, 23_886_278]),
    (b"customer:77", [0, 0, 3, 3, 51, 1_210_926_951]),
];

#[test]
fn keys_go_where_sarama_puts_them() {
    for (key, answers) in SARAMA_ANSWERS {
        for (partitions, answer) in SARAMA_SIZES.into_iter().zip(answers) {
            assert_eq!(Partitioner::Fnv1a.partition(key, partitions), answer, "{key:?}");
        }
    }
}
