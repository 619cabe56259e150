//! Serves the socket, for as long as the daemon lives.

use std::{path::PathBuf, sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    task::{JoinHandle, JoinSet},
    time::{Instant, interval_at, sleep, timeout},
};
use tracing::{debug, info, warn};

use super::{
    Socket, api,
    socket::{BoundSocket, SocketError},
};
use crate::{pipeline::Requests, telemetry::Seldom};

/// How often it is tried again to listen, and looked whether the file is still there.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// How often it is said that there is no socket.
const SAID_EVERY: Duration = Duration::from_secs(600);

/// So many connections at once. Those beyond wait.
const CONNECTIONS_MAX: usize = 32;

/// How long a request's head may take.
const HEAD_MAX: Duration = Duration::from_secs(5);

/// How long a connection may last, whatever it does: longer than any answer takes.
const CONNECTION_MAX: Duration = Duration::from_secs(120);

/// The bytes of a head, and of what is read at once.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// Listens until it is dropped; the file is removed then.
#[derive(Debug)]
pub struct Server(Option<JoinHandle<()>>);

impl Server {
    /// Must be called within a tokio runtime.
    pub fn start(socket: &Socket, requests: Requests) -> Self {
        if *socket == Socket::Off {
            return Self(None);
        }
        let serving = Serving { places: socket.places(), router: api::router(requests) };
        Self(Some(tokio::spawn(serving.run())))
    }

    /// Ends it, and removes the file.
    pub async fn stop(mut self) {
        if let Some(task) = self.0.take() {
            task.abort();
            // What it holds is dropped with it.
            let _ = task.await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

struct Serving {
    places: Vec<PathBuf>,
    router: Router,
}

impl Serving {
    async fn run(self) {
        let mut said = Seldom::every(SAID_EVERY);
        let mut last = None;
        loop {
            match BoundSocket::bind(&self.places) {
                Ok((bound, listener)) => {
                    info!(socket = %bound.path.display(), "commands reach this daemon there");
                    (said, last) = (Seldom::every(SAID_EVERY), None);
                    self.serve(&bound, &listener).await;
                    warn!(socket = %bound.path.display(), "the socket was removed; making it again");
                }
                Err(error) => {
                    let words = crate::pipeline::chain(&error);
                    // Another reason is said at once.
                    if last.as_ref() != Some(&words) {
                        said = Seldom::every(SAID_EVERY);
                    }
                    if said.is_due().is_some() {
                        warn!(
                            error = words,
                            hint = hint(&error),
                            "no command reaches this daemon; trying again"
                        );
                    }
                    last = Some(words);
                    sleep(LOOK_INTERVAL).await;
                }
            }
        }
    }

    /// Until the file is gone.
    async fn serve(&self, bound: &BoundSocket, listener: &UnixListener) {
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut looks = interval_at(Instant::now() + LOOK_INTERVAL, LOOK_INTERVAL);
        // Ended with this function.
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = accept(listener, &permits) => {
                    if let Some((stream, permit)) = accepted {
                        let router = self.router.clone();
                        connections.spawn(async move {
                            let served = timeout(CONNECTION_MAX, serve_one(stream, router));
                            if let Ok(Err(error)) = served.await {
                                debug!(%error, "a connection to the socket broke");
                            }
                            drop(permit);
                        });
                    }
                }
                Some(_) = connections.join_next() => {}
                _ = looks.tick() => {
                    if !bound.is_there() {
                        return;
                    }
                }
            }
        }
    }
}

/// The next connection, once there is room for it.
///
/// # Cancel safety
/// A connection is returned, or waits.
async fn accept(
    listener: &UnixListener,
    permits: &Arc<Semaphore>,
) -> Option<(UnixStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(permits).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, permit)),
        Err(error) => {
            // No descriptors are left, most often.
            debug!(%error, "could not take a connection to the socket");
            sleep(Duration::from_millis(100)).await;
            None
        }
    }
}

async fn serve_one(stream: UnixStream, router: Router) -> hyper::Result<()> {
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        // A client may close its side when it has said all.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await
}

fn hint(error: &SocketError) -> &'static str {
    match error {
        SocketError::Taken(_) => {
            "Give each daemon of a machine a place of its own by admin.socket. A standby takes it \
             over with the slot."
        }
        SocketError::Contended(_) => "It is soon done.",
        SocketError::NoSocket(_) => "Remove it, or name another place by admin.socket.",
        SocketError::Io { .. } | SocketError::Nowhere => {
            "Name a place by admin.socket where the daemon may make files, or say \"off\"."
        }
    }
}
