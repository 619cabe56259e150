//! `snapshot`: asks the running daemon for the rows of a table, and shows how far they are.

mod error;
mod list;
mod show;

use std::{path::Path, time::Duration};

use tokio::time::{Instant, sleep};

use self::{error::SnapshotError, show::Show};
use super::commands::{load_by, with_shutdown};
use crate::{
    admin::{Answer, Client, ClientError, Problem, RequestBody, Snapshot, Snapshots, Socket},
    config::Config,
    failure::Failure,
};

/// How often it is asked how far it is.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// How long a daemon may be away that is restarted meanwhile.
const AWAY_MAX: Duration = Duration::from_secs(60);

/// How it is shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Showing {
    /// As JSON.
    pub(super) json: bool,
    /// Only that it began.
    pub(super) detach: bool,
}

/// How following ended.
enum Followed {
    /// All rows are out, or the daemon was only to be asked.
    Done,
    /// Ctrl-C.
    Left(String),
}

pub(super) fn snapshot(
    path: &Path,
    body: &RequestBody,
    showing: Showing,
) -> Result<(), Box<dyn Failure>> {
    let client = client(path)?;
    let followed = with_shutdown(async |mut shutdown| {
        let mut left = None;
        tokio::select! {
            followed = follow(&client, body, showing, &mut left) => followed.map_err(Into::into),
            () = shutdown.requested() => Ok(Followed::Left(left.unwrap_or_default())),
        }
    })?;
    match followed {
        Followed::Done => {}
        Followed::Left(request) if request.is_empty() => {
            eprintln!(
                "stopped before the daemon answered: it may begin all the same; the same command \
                 follows it then."
            );
        }
        Followed::Left(request) => {
            eprintln!(
                "stopped following: the back-fill of {} goes on, as request {request}; the same \
                 command follows it again.",
                body.table
            );
        }
    }
    Ok(())
}

/// Shows which back-fills there are.
pub(super) fn list(path: &Path, json: bool) -> Result<(), Box<dyn Failure>> {
    let client = client(path)?;
    let asked = with_shutdown(async |mut shutdown| {
        tokio::select! {
            asked = client.get("/snapshots") => Ok(Some(answered(asked)?)),
            () = shutdown.requested() => Ok(None),
        }
    })?;
    match asked {
        Some(Snapshots { snapshots }) if json => print!("{}", list::as_json(&snapshots)),
        Some(Snapshots { snapshots }) => print!("{}", list::in_words(&snapshots)),
        None => {}
    }
    Ok(())
}

/// What the daemon answered to the first question.
fn answered<T>(asked: Result<Answer<T>, ClientError>) -> Result<T, SnapshotError> {
    match asked {
        Ok(Answer::Done(answer)) => Ok(answer),
        Ok(Answer::Refused(_, problem)) => Err(SnapshotError::Refused(problem)),
        Err(source) => Err(SnapshotError::NotConnected { source }),
    }
}

/// Who asks the daemon of these settings.
fn client(path: &Path) -> Result<Client, Box<dyn Failure>> {
    let config = load_by(Config::load_for_database, path)?;
    match &config.admin {
        Socket::Off => Err(SnapshotError::Off.into()),
        socket => Ok(Client::new(socket)),
    }
}

/// Asks, and follows it to its end. `request` is what it is called, once that is known.
async fn follow(
    client: &Client,
    body: &RequestBody,
    showing: Showing,
    request: &mut Option<String>,
) -> Result<Followed, SnapshotError> {
    let asked = client.post("/snapshots", body).await;
    let Snapshot { mut progress, is_known } = answered(asked)?;
    *request = Some(progress.request.clone());
    let mut show = Show::begin(&progress, is_known, showing);
    if showing.detach {
        return Ok(Followed::Done);
    }
    let path = format!("/snapshots/{}", progress.request);
    let mut heard_at = Instant::now();
    while progress.state.is_unfinished() {
        sleep(LOOK_INTERVAL).await;
        match client.get::<Snapshot>(&path).await {
            Ok(Answer::Done(snapshot)) => {
                (progress, heard_at) = (snapshot.progress, Instant::now());
                *request = Some(progress.request.clone());
                show.update(&progress);
            }
            // It is there, and not yet so far as to know.
            Ok(Answer::Refused(status, problem)) if status.is_server_error() => {
                heard_at = Instant::now();
                show.say(&problem.message);
            }
            Ok(Answer::Refused(_, Problem { message, hint, .. })) => {
                show.end();
                return Err(SnapshotError::Lost { message, hint });
            }
            Err(source) if heard_at.elapsed() >= AWAY_MAX => {
                show.end();
                return Err(SnapshotError::Away { source, table: progress.table });
            }
            Err(_) => show.say("the daemon does not answer; looking for it for a minute"),
        }
    }
    show.finish(&progress);
    match progress.failure {
        None => Ok(Followed::Done),
        Some(reason) => {
            let (table, rows) = (progress.table, progress.rows);
            Err(SnapshotError::Failed { table, rows, reason })
        }
    }
}
