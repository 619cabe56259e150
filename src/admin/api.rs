//! What can be asked, as JSON.
//!
//! | request | answer |
//! |---|---|
//! | `POST /snapshots` with [`RequestBody`] | 202 and [`Snapshot`] |
//! | `GET /snapshots` | 200 and [`Snapshots`] |
//! | `GET /snapshots/{request}` | 200 and [`Snapshot`] |
//!
//! Whatever else is answered is a [`Problem`].

use axum::{
    Router,
    body::Bytes,
    extract::{
        DefaultBodyLimit, Path, State,
        rejection::{BytesRejection, PathRejection},
    },
    http::{Method, StatusCode, Uri, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::pipeline::{Accepted, Phase, RefusalKind, RequestRefused, Requests, SnapshotProgress};

/// A condition of many pages has its place in a view.
const BODY_BYTES_MAX: usize = 64 << 10;

/// Asks for the rows of a table.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestBody {
    /// `schema.table`.
    pub table: String,
    /// Which rows, as an SQL condition.
    #[serde(rename = "where", default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
}

/// A back-fill.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Snapshot {
    /// How far it is.
    #[serde(flatten)]
    pub progress: SnapshotProgress,
    /// It was under way before it was asked for.
    #[serde(default)]
    pub is_known: bool,
}

/// All back-fills.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Snapshots {
    /// Those that are not over, and the last ones that are.
    pub snapshots: Vec<SnapshotProgress>,
}

/// What was asked for is not done.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Problem {
    /// For programs.
    pub code: String,
    /// What, and why.
    pub message: String,
    /// What to do.
    pub hint: String,
}

impl Problem {
    fn new(code: &str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into(), hint: hint.into() }
    }
}

impl From<&RequestRefused> for Problem {
    fn from(refused: &RequestRefused) -> Self {
        Self::new(refused.word(), refused.to_string(), refused.hint())
    }
}

/// The paths and what answers there.
pub(super) fn router(requests: Requests) -> Router {
    Router::new()
        .route("/snapshots", post(ask).get(all))
        .route("/snapshots/{request}", get(one))
        .fallback(nowhere)
        .method_not_allowed_fallback(nowhere)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(requests)
}

async fn ask(State(requests): State<Requests>, body: Result<Bytes, BytesRejection>) -> Response {
    let Ok(body) = body else {
        let message = format!("the request is larger than {BODY_BYTES_MAX} bytes, or broke off");
        return problem(
            StatusCode::PAYLOAD_TOO_LARGE,
            &Problem::new("too_large", message, BODY_HINT),
        );
    };
    let RequestBody { table, condition } = match read(&body) {
        Ok(request) => request,
        Err(problem_of_body) => return problem(StatusCode::BAD_REQUEST, &problem_of_body),
    };
    // On its own: whoever asks may hang up, and what was begun is answered to the next one.
    let asked = tokio::spawn(async move { requests.ask(table, condition).await });
    match asked.await.unwrap_or(Err(RequestRefused::Interrupted)) {
        Ok(Accepted { progress, is_known }) => {
            answer(StatusCode::ACCEPTED, &Snapshot { progress, is_known })
        }
        Err(refused) => {
            let status = match refused.kind() {
                RefusalKind::Request => StatusCode::UNPROCESSABLE_ENTITY,
                RefusalKind::Conflict => StatusCode::CONFLICT,
                RefusalKind::Later => StatusCode::SERVICE_UNAVAILABLE,
            };
            problem(status, &Problem::from(&refused))
        }
    }
}

const PATHS_HINT: &str = "There are POST /snapshots, GET /snapshots and GET /snapshots/{request}.";

const BODY_HINT: &str = r#"Send {"table": "public.orders", "where": "status = 'open'"}."#;

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| {
        Problem::new("not_understood", format!("the request is not understood: {error}"), BODY_HINT)
    })
}

async fn all(State(requests): State<Requests>) -> Response {
    answer(StatusCode::OK, &Snapshots { snapshots: requests.all() })
}

async fn one(
    State(requests): State<Requests>,
    request: Result<Path<String>, PathRejection>,
) -> Response {
    let request = match request {
        Ok(Path(request)) => request,
        Err(error) => {
            let message = format!("the request's name is not understood: {error}");
            return problem(
                StatusCode::BAD_REQUEST,
                &Problem::new("not_understood", message, PATHS_HINT),
            );
        }
    };
    match (requests.find(&request), requests.phase()) {
        (Some(progress), _) => answer(StatusCode::OK, &Snapshot { progress, is_known: true }),
        (None, Phase::Publishing) => {
            let message = format!("no back-fill \"{request}\" is known");
            let hint = "It is over, and ended when nobody could see how: its record in the checkpoint \
                        topic says that; or there never was one.";
            problem(StatusCode::NOT_FOUND, &Problem::new("unknown_request", message, hint))
        }
        // It is read with the checkpoint.
        (None, phase @ (Phase::Starting | Phase::Standby | Phase::Retrying | Phase::Halting)) => {
            let refused = RequestRefused::NotRunning { phase };
            problem(StatusCode::SERVICE_UNAVAILABLE, &Problem::from(&refused))
        }
    }
}

async fn nowhere(method: Method, uri: Uri) -> Response {
    let message = format!("there is nothing at {method} {}", uri.path());
    problem(StatusCode::NOT_FOUND, &Problem::new("not_found", message, PATHS_HINT))
}

fn problem(status: StatusCode, problem: &Problem) -> Response {
    answer(status, problem)
}

fn answer(status: StatusCode, body: &impl Serialize) -> Response {
    let body = serde_json::to_vec(body).expect("texts and numbers always encode");
    (status, [(CONTENT_TYPE, "application/json")], body).into_response()
}
