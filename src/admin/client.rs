//! Asks a daemon by its socket.

use std::{io, path::PathBuf, time::Duration};

use axum::http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{net::UnixStream, time::timeout};

use super::{Problem, Socket};

/// How long an answer may take: longer than the daemon takes to say that it has none.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// What an answer may hold.
const BODY_BYTES_MAX: usize = 16 << 20;

/// The daemon's answer.
#[derive(Clone, Debug)]
pub enum Answer<T> {
    /// What was asked for.
    Done(T),
    /// It is not to be had.
    Refused(StatusCode, Problem),
}

/// Nobody answered.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("no daemon answers at {}", list(.places))]
    Nobody {
        /// What was tried.
        places: Vec<PathBuf>,
        /// Why the last of them did not answer.
        #[source]
        source: io::Error,
    },
    /// Somebody does, who does not speak as we do, or broke off.
    #[error("could not ask the daemon at {}: {what}", .place.display())]
    Broken {
        /// Where.
        place: PathBuf,
        /// What happened.
        what: String,
    },
}

/// Asks a daemon.
#[derive(Clone, Debug)]
pub struct Client {
    places: Vec<PathBuf>,
}

impl Client {
    /// Of the daemon with that setting.
    pub fn new(socket: &Socket) -> Self {
        Self { places: socket.places() }
    }

    /// Asks for something.
    ///
    /// # Errors
    /// Where nobody answers.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<Answer<T>, ClientError> {
        self.ask(Method::GET, path, Bytes::new()).await
    }

    /// Asks for something to be done.
    ///
    /// # Errors
    /// Where nobody answers.
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Answer<T>, ClientError> {
        let body = serde_json::to_vec(body).expect("texts and numbers always encode");
        self.ask(Method::POST, path, body.into()).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Answer<T>, ClientError> {
        let (place, stream) = self.connect().await?;
        let broken = |what: String| ClientError::Broken { place: place.clone(), what };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "tailwater")
            .body(Full::new(body))
            .map_err(|error| broken(error.to_string()))?;
        match timeout(ANSWER_MAX, exchange(stream, request)).await {
            Ok(Ok((status, body))) => {
                read(status, &body).map_err(|error| broken(format!("it says {status}: {error}")))
            }
            Ok(Err(what)) => Err(broken(what)),
            Err(_) => Err(broken(format!("no answer for {} s", ANSWER_MAX.as_secs()))),
        }
    }

    async fn connect(&self) -> Result<(PathBuf, UnixStream), ClientError> {
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for place in &self.places {
            match UnixStream::connect(place).await.and_then(of_daemon) {
                Ok(stream) => return Ok((place.clone(), stream)),
                Err(error) => last = error,
            }
        }
        Err(ClientError::Nobody { places: self.places.clone(), source: last })
    }
}

/// In a folder that is open to all somebody else may listen there.
fn of_daemon(stream: UnixStream) -> io::Result<UnixStream> {
    // SAFETY: geteuid reads a number.
    let user = unsafe { libc::geteuid() };
    match stream.peer_cred()?.uid() {
        peer if user == 0 || peer == user => Ok(stream),
        peer => Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("whoever listens there is user {peer}, and no daemon of user {user}"),
        )),
    }
}

async fn exchange(
    stream: UnixStream,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, Bytes), String> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(words)?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(words)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await;
        body.map(|body| (status, body.to_bytes())).map_err(|error| error.to_string())
    };
    // It is what moves the bytes, and ends when they are through.
    let mut connection = std::pin::pin!(connection);
    tokio::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => return answer,
        _ = &mut connection => {}
    }
    exchange.await
}

fn words(error: hyper::Error) -> String {
    crate::pipeline::chain(&error)
}

fn read<T: DeserializeOwned>(status: StatusCode, body: &[u8]) -> serde_json::Result<Answer<T>> {
    match status.is_success() {
        true => serde_json::from_slice(body).map(Answer::Done),
        false => serde_json::from_slice(body).map(|problem| Answer::Refused(status, problem)),
    }
}

fn list(places: &[PathBuf]) -> String {
    let places: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
    places.join(", or ")
}
