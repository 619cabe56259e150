//! Kafka, exactly once. (in work)
