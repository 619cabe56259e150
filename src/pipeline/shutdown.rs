//! The wish to stop, seen by everything that waits, and the one deadline that it sets.
//!
//! A stop is promised to end within 5 s of the signal, whatever was under way. Its steps (draining,
//! closing both sides) each have a bound of their own, and together they would exceed it; so what
//! takes time goes through [`Shutdown::within`], which also ends with the time that is left.

use std::time::Duration;

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::{Instant, sleep, sleep_until},
};
use tracing::info;

use crate::sink::kafka::Cancel;

/// From the signal to the end of all that is waited for: the 5 s that are promised, without what
/// the process itself takes to end on a busy machine.
const STOP_MAX: Duration = Duration::from_millis(4_500);

/// Told once that the process should end; cloned into whatever waits.
#[derive(Clone, Debug)]
pub struct Shutdown {
    requested_at: watch::Receiver<Option<Instant>>,
    cancel: Cancel,
}

/// Asks for the end.
#[derive(Debug)]
pub struct ShutdownTrigger {
    requested_at: watch::Sender<Option<Instant>>,
    cancel: Cancel,
}

impl ShutdownTrigger {
    /// A trigger and what it triggers.
    pub fn new() -> (Self, Shutdown) {
        let (sender, receiver) = watch::channel(None);
        let cancel = Cancel::default();
        let trigger = Self { requested_at: sender, cancel: cancel.clone() };
        (trigger, Shutdown { requested_at: receiver, cancel })
    }

    /// Asks for the end; further calls change nothing.
    pub fn request(&self) {
        self.cancel.cancel();
        self.requested_at.send_if_modified(|requested_at| {
            let is_first = requested_at.is_none();
            requested_at.get_or_insert_with(Instant::now);
            is_first
        });
    }
}

impl Shutdown {
    /// A shutdown that SIGTERM and SIGINT request. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// Where the signal handlers cannot be installed.
    pub fn on_signals() -> std::io::Result<Self> {
        let (trigger, shutdown) = ShutdownTrigger::new();
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::spawn(async move {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            info!(signal = name, "stopping");
            trigger.request();
        });
        Ok(shutdown)
    }

    /// Resolves once the end is asked for.
    ///
    /// # Cancel safety
    /// The wish stays; waiting again resolves at once.
    pub async fn requested(&mut self) {
        self.requested_at().await;
    }

    /// Does `work` for at most `most`, and for no longer than a stop may take: nothing where it was
    /// not done by then.
    ///
    /// # Cancel safety
    /// That of `work`.
    pub(super) async fn within<T>(
        &mut self,
        most: Duration,
        work: impl Future<Output = T>,
    ) -> Option<T> {
        tokio::select! {
            biased;
            done = work => Some(done),
            () = sleep(most) => None,
            () = self.deadline() => None,
        }
    }

    async fn deadline(&mut self) {
        let requested_at = self.requested_at().await;
        sleep_until(requested_at + STOP_MAX).await;
    }

    async fn requested_at(&mut self) -> Instant {
        // A trigger that was dropped can ask no more: only a signal task drops it, after asking.
        match self.requested_at.wait_for(Option::is_some).await.map(|requested_at| *requested_at) {
            Ok(Some(requested_at)) => requested_at,
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    /// Whether the end is asked for.
    pub fn is_requested(&self) -> bool {
        self.cancel.is_cancelled()
    }

    /// The wish as a flag, for calls that block.
    pub fn cancel(&self) -> Cancel {
        self.cancel.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn work_ends_with_its_own_bound_while_nobody_asked_for_the_end() {
        let (_trigger, mut shutdown) = ShutdownTrigger::new();
        let brief = Duration::from_millis(10);
        assert_eq!(shutdown.within(LONG, async { 7 }).await, Some(7));
        assert_eq!(shutdown.within(brief, std::future::pending::<()>()).await, None);
    }

    #[tokio::test]
    async fn all_steps_of_a_stop_share_one_deadline_from_the_first_signal_on() {
        let (trigger, mut shutdown) = ShutdownTrigger::new();
        let began = Instant::now();
        trigger.request();
        let mut other = shutdown.clone();
        assert_eq!(shutdown.within(LONG, std::future::pending::<()>()).await, None);
        let first = began.elapsed();
        assert!((STOP_MAX..STOP_MAX * 2).contains(&first), "{first:?}");
        // A second signal gives no more time.
        trigger.request();
        assert_eq!(other.within(LONG, std::future::pending::<()>()).await, None);
        assert!(began.elapsed() < STOP_MAX * 2, "{:?}", began.elapsed());
        // What needs no time is done all the same.
        assert_eq!(other.within(LONG, async { 7 }).await, Some(7));
    }
}
