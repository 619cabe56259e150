//! The wish to stop, seen by everything that waits.

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tracing::info;

use crate::sink::kafka::Cancel;

/// Told once that the process should end; cloned into whatever waits.
#[derive(Clone, Debug)]
pub struct Shutdown {
    requested: watch::Receiver<bool>,
    cancel: Cancel,
}

/// Asks for the end.
#[derive(Debug)]
pub struct ShutdownTrigger {
    requested: watch::Sender<bool>,
    cancel: Cancel,
}

impl ShutdownTrigger {
    /// A trigger and what it triggers.
    pub fn new() -> (Self, Shutdown) {
        let (sender, receiver) = watch::channel(false);
        let cancel = Cancel::default();
        let trigger = Self { requested: sender, cancel: cancel.clone() };
        (trigger, Shutdown { requested: receiver, cancel })
    }

    /// Asks for the end; further calls change nothing.
    pub fn request(&self) {
        self.cancel.cancel();
        self.requested.send_replace(true);
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
        // A trigger that was dropped can ask no more: only a signal task drops it, after asking.
        if self.requested.wait_for(|requested| *requested).await.is_err() {
            std::future::pending::<()>().await;
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
