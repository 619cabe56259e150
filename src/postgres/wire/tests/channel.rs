//! Login, queries and their failures.

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::{frame, pipe_with, ready, report, welcome, written};
use crate::{
    failure::{Code, Failure, Recovery},
    postgres::{
        error::PostgresError,
        wire::{Authentication, Channel, tag},
    },
};

const PARAMETERS: [(&str, &str); 1] = [("user", "fox")];

async fn login(stream: DuplexStream) -> Result<Channel<DuplexStream>, PostgresError> {
    Channel::start(stream, &PARAMETERS, Authentication::new("fox", None)).await
}

/// A channel that is logged in and has `answers` to read.
async fn logged_in(answers: &[u8]) -> (Channel<DuplexStream>, DuplexStream) {
    let (client, server) = pipe_with(&[&welcome(), answers].concat()).await;
    (login(client).await.expect("welcome"), server)
}

fn row(value: &str) -> Vec<u8> {
    let length = i32::try_from(value.len()).expect("short");
    let body = [&1_i16.to_be_bytes()[..], &length.to_be_bytes(), value.as_bytes()].concat();
    frame(tag::DATA_ROW, &body)
}

fn one_row(value: &str) -> Vec<u8> {
    let done = frame(tag::COMMAND_COMPLETE, b"SELECT 1\0");
    [frame(tag::ROW_DESCRIPTION, &[0, 0]), row(value), done, ready()].concat()
}

#[tokio::test]
async fn the_startup_message_holds_version_and_parameters() {
    let (channel, server) = logged_in(b"").await;
    drop(channel);
    let expected = [&[0, 0, 0, 18, 0, 3, 0, 0][..], b"user\0fox\0\0"].concat();
    assert_eq!(written(server).await, expected);
}

#[tokio::test]
async fn the_session_keeps_what_the_server_says_of_itself() {
    let (channel, _server) = logged_in(b"").await;
    assert_eq!(channel.session().parameters["server_version"], "15.18");
}

#[tokio::test]
async fn a_refused_login_is_the_servers_error() {
    let (client, _server) = pipe_with(&report(tag::ERROR, "28P01", "no entry")).await;
    let error = login(client).await.expect_err("refused");
    assert_eq!(error.to_string(), "could not log in");
    assert_eq!(error.sqlstate(), Some("28P01"));
    assert_eq!(error.code(), Some(Code::AuthFailed));
}

#[tokio::test]
async fn frames_may_come_byte_by_byte() {
    let (client, mut server) = tokio::io::duplex(1);
    let serving = async {
        let mut startup = [0; 18];
        server.read_exact(&mut startup).await.expect("startup");
        server.write_all(&welcome()).await.expect("welcome");
        let mut query = [0; 14];
        server.read_exact(&mut query).await.expect("query");
        server.write_all(&one_row("seven")).await.expect("a row");
        query
    };
    let asking = async {
        let mut channel = login(client).await.expect("welcome");
        channel.query("SELECT 7", "ask").await
    };
    let (rows, query) = tokio::join!(asking, serving);
    assert_eq!(rows.expect("a row"), [[Some("seven".to_owned())]]);
    assert_eq!(query, *b"Q\0\0\0\x0dSELECT 7\0");
}

#[tokio::test]
async fn a_refused_query_leaves_the_channel_usable() {
    let refusal = [report(tag::ERROR, "42704", "replication slot \"s\" does not exist"), ready()];
    let (mut channel, _server) = logged_in(&[refusal.concat(), one_row("7")].concat()).await;
    let error = channel.query("DROP_REPLICATION_SLOT s", "drop it").await.expect_err("refused");
    assert_eq!(error.to_string(), "could not drop it");
    assert_eq!(error.code(), Some(Code::SlotMissing));
    let rows = channel.query("SELECT 7", "ask").await.expect("a row");
    assert_eq!(rows, [[Some("7".to_owned())]]);
}

#[tokio::test]
async fn notices_and_parameters_may_come_between() {
    let aside = [
        report(tag::NOTICE, "01000", "by the way"),
        frame(tag::PARAMETER_STATUS, b"TimeZone\0UTC\0"),
        frame(tag::NOTIFICATION, &[0, 0, 0, 1, b'c', 0, 0]),
    ];
    let (mut channel, _server) = logged_in(&[aside.concat(), one_row("7")].concat()).await;
    assert_eq!(channel.query("SELECT 7", "ask").await.expect("a row").len(), 1);
    assert_eq!(channel.session().parameters["TimeZone"], "UTC");
}

#[tokio::test]
async fn an_empty_query_has_no_rows() {
    let answer = [frame(tag::EMPTY_QUERY, b""), ready()].concat();
    let (mut channel, _server) = logged_in(&answer).await;
    assert!(channel.query("", "ask").await.expect("nothing").is_empty());
}

#[tokio::test]
async fn an_unheard_of_message_is_refused() {
    let (mut channel, _server) = logged_in(&frame(b'!', b"")).await;
    let error = channel.query("SELECT 7", "ask").await.expect_err("not the protocol");
    assert_eq!(
        error.to_string(),
        "cannot read what PostgreSQL sent: a message of type 0x21 came while trying to ask"
    );
    assert_eq!(error.recovery(), Recovery::Stop);
}

#[tokio::test]
async fn the_end_inside_a_frame_is_a_lost_connection() {
    let whole = one_row("seven");
    for end in 0..whole.len() {
        let (mut channel, server) = logged_in(&whole[..end]).await;
        drop(server);
        let error = channel.query("SELECT 7", "ask").await.expect_err("cut");
        assert!(matches!(error, PostgresError::Lost { .. }), "{error} at {end}");
        assert_eq!(error.recovery(), Recovery::Retry);
    }
}

#[tokio::test]
async fn a_frame_length_that_cannot_be_is_refused() {
    for length in [-1, 0, 3, i32::MAX] {
        let header = [&[tag::DATA_ROW][..], &i32::to_be_bytes(length)].concat();
        let (mut channel, _server) = logged_in(&header).await;
        let error = channel.query("SELECT 7", "ask").await.expect_err("no such length");
        assert!(matches!(error, PostgresError::Protocol { .. }), "{error}");
    }
}

#[tokio::test]
async fn copy_both_starts_where_the_server_says_so() {
    let (mut channel, _server) = logged_in(&frame(tag::COPY_BOTH_RESPONSE, &[0, 0, 0])).await;
    channel.start_copy_both("START_REPLICATION …", "stream").await.expect("CopyBoth");
}

#[tokio::test]
async fn a_refused_copy_both_is_the_servers_error() {
    let answer = report(tag::ERROR, "55006", "replication slot \"s\" is active for PID 7");
    let (mut channel, _server) = logged_in(&answer).await;
    let error = channel.start_copy_both("START_REPLICATION …", "stream").await.expect_err("held");
    assert_eq!(error.slot_holder(), Some(7));
    assert_eq!(error.recovery(), Recovery::Retry);
}

#[tokio::test]
async fn a_message_larger_than_the_pipe_is_sent_whole() {
    let (client, mut server) = tokio::io::duplex(64);
    let sql = "x".repeat(1_000);
    let serving = async {
        server.read_exact(&mut [0; 18]).await.expect("startup");
        server.write_all(&welcome()).await.expect("welcome");
        let mut query = vec![0; 1_006];
        server.read_exact(&mut query).await.expect("query");
        server.write_all(&ready()).await.expect("ready");
        query
    };
    let asking = async {
        let mut channel = login(client).await.expect("welcome");
        channel.query(&sql, "ask").await
    };
    let (rows, query) = tokio::join!(asking, serving);
    assert!(rows.expect("nothing").is_empty());
    assert_eq!(query, frame(b'Q', format!("{sql}\0").as_bytes()));
}

#[tokio::test]
async fn a_goodbye_is_said_before_the_end() {
    let (channel, server) = logged_in(b"").await;
    channel.terminate().await;
    assert!(written(server).await.ends_with(b"X\0\0\0\x04"));
}
