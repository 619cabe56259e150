//! A Kafka transaction that the brokers give up because it takes longer than they wait.
//!
//! Once, that is a stalled broker or a paused process: it is tried again. Where the same transaction
//! comes to the same end, it would do so for ever.

use std::time::Duration;

use crate::{
    failure::{Code, Failure, Recovery},
    sink::kafka::KafkaError,
};

/// The same transaction was given up twice.
#[derive(Debug, thiserror::Error)]
#[error(
    "Kafka gave up the same transaction twice: {bytes} bytes went into it in {} s ({} bytes a \
     second), and the brokers wait for {} s",
    .open_for.as_secs_f32(), rate(*bytes, *open_for), .timeout.as_secs_f32()
)]
pub(super) struct TransactionTooSlow {
    bytes: usize,
    open_for: Duration,
    timeout: Duration,
}

fn rate(bytes: usize, time: Duration) -> u64 {
    (bytes as f64 / time.as_secs_f64().max(0.001)) as u64
}

impl TransactionTooSlow {
    /// Of what the sink says where its transaction ran out of time; none where it ended otherwise.
    pub(super) fn of(failure: &dyn Failure) -> Option<Self> {
        let error: &dyn std::error::Error = failure;
        match error.downcast_ref::<KafkaError>() {
            Some(KafkaError::Fenced { bytes, open_for: Some(open_for), timeout, .. })
                if open_for >= timeout =>
            {
                Some(Self { bytes: *bytes, open_for: *open_for, timeout: *timeout })
            }
            _ => None,
        }
    }
}

impl Failure for TransactionTooSlow {
    fn code(&self) -> Option<Code> {
        Some(Code::TransactionTooSlow)
    }

    fn recovery(&self) -> Recovery {
        Recovery::Stop
    }

    fn hint(&self) -> Option<String> {
        let milliseconds = self.open_for.as_millis().saturating_mul(4);
        Some(format!(
            "Raise transaction.timeout.ms in kafka.properties, to {milliseconds} for example, and \
             transaction.max.timeout.ms of the brokers where it is lower; or let less go into one \
             transaction: kafka.large_transactions = \"split\", a smaller kafka.transaction_bytes. \
             Nothing is lost: start again."
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fenced(open_for: Option<u64>) -> KafkaError {
        KafkaError::Fenced {
            transactional_id: "tailwater".to_owned(),
            bytes: 6_000_000,
            open_for: open_for.map(Duration::from_secs),
            timeout: Duration::from_secs(60),
        }
    }

    #[test]
    fn a_transaction_that_was_open_for_as_long_as_brokers_wait_is_too_slow() {
        assert!(TransactionTooSlow::of(&fenced(None)).is_none());
        assert!(TransactionTooSlow::of(&fenced(Some(59))).is_none());
        let error = TransactionTooSlow::of(&fenced(Some(60))).expect("too slow");
        assert_eq!(
            error.to_string(),
            "Kafka gave up the same transaction twice: 6000000 bytes went into it in 60 s (100000 \
             bytes a second), and the brokers wait for 60 s"
        );
        assert_eq!(
            (error.code(), error.recovery()),
            (Some(Code::TransactionTooSlow), Recovery::Stop)
        );
        assert!(error.hint().expect("a hint").contains("to 240000 for example"));
    }
}
