//! A scripted walsender at the far end of a socket pair.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

use super::*;
use crate::{
    checkpoint::{CheckpointRecord, FlushLsn, Tracker},
    failure::{Code, Failure, Recovery},
    lsn::EndLsn,
    postgres::wire::{
        Authentication,
        tests::{frame, ready, report, welcome},
    },
};

/// What the client sends before it is logged in: the startup message of user `fox`.
const STARTUP_BYTES: usize = 18;

/// A stream, and the server's end of its socket.
pub(crate) async fn stream() -> (ReplicationStream, UnixStream) {
    let (client, mut server) = UnixStream::pair().expect("a socket pair");
    server.write_all(&welcome()).await.expect("room in the socket");
    let authentication = Authentication::new("fox", None);
    let channel = Channel::start(Socket::Unix(client), &[("user", "fox")], authentication);
    let channel = channel.await.expect("welcome");
    server.read_exact(&mut [0; STARTUP_BYTES]).await.expect("startup");
    (ReplicationStream::new(channel, "p".to_owned()), server)
}

/// A stream that has read `bytes`.
async fn stream_with(bytes: &[u8]) -> (ReplicationStream, UnixStream) {
    let (mut stream, mut server) = stream().await;
    server.write_all(bytes).await.expect("room in the socket");
    stream.read_chunk().await.expect("bytes");
    (stream, server)
}

fn lsn(position: u64) -> Lsn {
    Lsn::from_wire(position).expect("not zero")
}

/// A position that may be acknowledged.
fn flush_lsn(position: u64) -> FlushLsn {
    let mut tracker = Tracker::new(&CheckpointRecord::of_first_start(EndLsn(lsn(position))));
    tracker.observe_keepalive(lsn(position));
    tracker.flush_lsn().expect("the stream is past the checkpoint")
}

pub(crate) fn keepalive(wal_end: u64, reply_requested: u8) -> Vec<u8> {
    let body = [&b"k"[..], &wal_end.to_be_bytes(), &[0; 8], &[reply_requested]].concat();
    frame(tag::COPY_DATA, &body)
}

pub(crate) fn xlog_data(wal_start: u64, payload: &[u8]) -> Vec<u8> {
    let body = [&b"w"[..], &wal_start.to_be_bytes(), &[0; 16], payload].concat();
    frame(tag::COPY_DATA, &body)
}

/// A status update as it must be sent, its time apart.
fn status(write: u64, flush: u64, request_reply: u8) -> (Vec<u8>, u8) {
    let positions = [write, flush, flush].map(u64::to_be_bytes).concat();
    ([&b"d\0\0\0\x26r"[..], &positions].concat(), request_reply)
}

async fn read_status(server: &mut UnixStream) -> (Vec<u8>, u8) {
    let mut bytes = [0; 39];
    server.read_exact(&mut bytes).await.expect("a status update");
    (bytes[..30].to_vec(), bytes[38])
}

#[tokio::test]
async fn a_status_update_holds_write_flush_and_apply() {
    let (mut stream, mut server) = stream().await;
    stream.send_status(Some(lsn(0x30)), Some(flush_lsn(0x20)), false).await.expect("sent");
    assert_eq!(read_status(&mut server).await, status(0x30, 0x20, 0));
}

#[tokio::test]
async fn a_status_update_without_news_is_zero_and_may_ask_for_a_reply() {
    let (mut stream, mut server) = stream().await;
    stream.send_status(None, None, true).await.expect("sent");
    assert_eq!(read_status(&mut server).await, status(0, 0, 1));
}

#[tokio::test]
async fn a_keepalive_that_asks_for_a_reply_says_so() {
    let bytes = [keepalive(0x40, 1), keepalive(0, 0)].concat();
    let (mut stream, _server) = stream_with(&bytes).await;
    let message = stream.next_message().expect("well formed").expect("whole");
    let StreamMessage::Keepalive { wal_end, reply_requested: true } = message else {
        panic!("{message:?}");
    };
    assert_eq!(wal_end, Some(lsn(0x40)));
    let message = stream.next_message().expect("well formed").expect("whole");
    assert!(matches!(message, StreamMessage::Keepalive { wal_end: None, reply_requested: false }));
    assert!(stream.next_message().expect("well formed").is_none());
}

#[tokio::test]
async fn messages_come_in_order_with_notices_between() {
    let bytes = [
        xlog_data(0x40, b"first"),
        report(tag::NOTICE, "01000", "by the way"),
        frame(tag::PARAMETER_STATUS, b"TimeZone\0UTC\0"),
        xlog_data(0x50, b"second"),
    ];
    let (mut stream, _server) = stream_with(&bytes.concat()).await;
    for (expected_start, expected) in [(0x40, &b"first"[..]), (0x50, b"second")] {
        let message = stream.next_message().expect("well formed").expect("whole");
        let StreamMessage::XLogData { wal_start, payload } = message else {
            panic!("{message:?}");
        };
        assert_eq!((wal_start, payload), (Some(lsn(expected_start)), expected));
    }
    assert!(stream.next_message().expect("well formed").is_none());
}

#[tokio::test]
async fn half_a_message_waits_for_the_rest() {
    let whole = xlog_data(0x40, b"first");
    let (mut stream, mut server) = stream_with(&whole[..10]).await;
    assert!(stream.next_message().expect("well formed").is_none());
    server.write_all(&whole[10..]).await.expect("room in the socket");
    stream.read_chunk().await.expect("bytes");
    assert!(stream.next_message().expect("well formed").is_some());
}

#[tokio::test]
async fn an_error_in_the_stream_is_the_servers_error() {
    let error = report(tag::ERROR, "42704", "publication \"p\" does not exist");
    let (mut stream, _server) = stream_with(&error).await;
    let error = stream.next_message().expect_err("refused");
    assert_eq!(error.to_string(), "could not read the replication stream");
    assert_eq!(error.code(), Some(Code::PublicationMissing));
}

#[tokio::test]
async fn a_skipped_publication_stops_the_stream() {
    let notice = report(tag::NOTICE, "55000", "skipped loading publication \"p\"");
    let (mut stream, _server) = stream_with(&[notice, xlog_data(0x40, b"later")].concat()).await;
    let error = stream.next_message().expect_err("changes would be lost");
    assert_eq!(error.code(), Some(Code::PublicationMissing));
    assert_eq!(error.recovery(), Recovery::Stop);
}

#[tokio::test]
async fn another_notice_of_the_same_sqlstate_is_a_mere_notice() {
    let notice = report(tag::NOTICE, "55000", "something else");
    let (mut stream, _server) = stream_with(&[notice, keepalive(0x40, 0)].concat()).await;
    assert!(stream.next_message().expect("well formed").is_some());
}

#[tokio::test]
async fn the_servers_own_end_is_told_from_a_lost_connection() {
    for end in [frame(tag::COPY_DONE, b""), frame(tag::COMMAND_COMPLETE, b"COPY 0\0")] {
        let (mut stream, _server) = stream_with(&end).await;
        let error = stream.next_message().expect_err("the end");
        assert!(matches!(error, PostgresError::Ended), "{error}");
        assert_eq!(error.recovery(), Recovery::Retry);
    }
    let (mut stream, server) = stream().await;
    drop(server);
    let error = stream.read_chunk().await.expect_err("the end");
    assert!(matches!(error, PostgresError::Lost { source: None, .. }), "{error}");
}

#[tokio::test]
async fn an_unheard_of_message_in_the_stream_is_refused() {
    let (mut stream, _server) = stream_with(&frame(b'!', b"")).await;
    let error = stream.next_message().expect_err("not the protocol");
    assert!(error.to_string().contains("type 0x21"), "{error}");
    assert_eq!(error.recovery(), Recovery::Stop);
}

#[tokio::test]
async fn a_stream_message_that_is_none_is_refused() {
    let (mut stream, _server) = stream_with(&frame(tag::COPY_DATA, b"k123")).await;
    let error = stream.next_message().expect_err("too short");
    assert!(error.to_string().ends_with("a stream message of 4 bytes is none"), "{error}");
}

#[tokio::test]
async fn finish_sends_the_last_status_and_says_goodbye() {
    let (stream, mut server) = stream().await;
    let walsender = async {
        let last = read_status(&mut server).await;
        let mut copy_done = [0; 5];
        server.read_exact(&mut copy_done).await.expect("CopyDone");
        // What was under way still comes, and is dropped.
        let rest = [xlog_data(0x50, b"late"), frame(tag::COPY_DONE, b"")].concat();
        server.write_all(&rest).await.expect("room in the socket");
        let end = [frame(tag::COMMAND_COMPLETE, b"COPY 0\0"), ready()].concat();
        server.write_all(&end).await.expect("room in the socket");
        let mut goodbye = Vec::new();
        server.read_to_end(&mut goodbye).await.expect("the end");
        (last, copy_done, goodbye)
    };
    let finish = stream.finish(Some(lsn(0x30)), Some(flush_lsn(0x20)));
    let ((), (last, copy_done, goodbye)) = tokio::join!(finish, walsender);
    assert_eq!(last, status(0x30, 0x20, 0));
    assert_eq!(copy_done, *b"c\0\0\0\x04");
    assert_eq!(goodbye, b"X\0\0\0\x04");
}

#[tokio::test]
async fn finish_answers_the_servers_own_end() {
    let (mut stream, mut server) = stream_with(&frame(tag::COPY_DONE, b"")).await;
    let error = stream.next_message().expect_err("the end");
    assert!(matches!(error, PostgresError::Ended), "{error}");
    let walsender = async {
        read_status(&mut server).await;
        let mut copy_done = [0; 5];
        server.read_exact(&mut copy_done).await.expect("CopyDone");
        let end = [frame(tag::COMMAND_COMPLETE, b"COPY 0\0"), ready()].concat();
        server.write_all(&end).await.expect("room in the socket");
        let mut goodbye = Vec::new();
        server.read_to_end(&mut goodbye).await.expect("the end");
        (copy_done, goodbye)
    };
    let ((), (copy_done, goodbye)) = tokio::join!(stream.finish(None, None), walsender);
    assert_eq!((&copy_done[..], &goodbye[..]), (&b"c\0\0\0\x04"[..], &b"X\0\0\0\x04"[..]));
}

#[tokio::test]
async fn finish_does_not_wait_for_a_server_that_is_gone_or_silent() {
    let (stream_of_gone, server) = stream().await;
    drop(server);
    stream_of_gone.finish(None, None).await;
    let (stream_of_silent, _server) = stream().await;
    let began = Instant::now();
    stream_of_silent.finish(None, None).await;
    assert!(began.elapsed() < 5 * FINISH_MAX);
}

#[tokio::test]
async fn a_server_that_is_silent_for_too_long_counts_as_gone() {
    let (mut stream, _server) = stream().await;
    stream.silence = SILENT_MAX + Duration::from_secs(1);
    let error = stream.send_status(None, None, true).await.expect_err("gone");
    assert_eq!(
        error.to_string(),
        "could not follow the replication stream: no answer from PostgreSQL for 120 s"
    );
    assert_eq!(error.recovery(), Recovery::Retry);
}

#[tokio::test]
async fn silence_is_time_listened_to_without_a_byte() {
    const WAIT: Duration = Duration::from_millis(20);
    let (mut stream, mut server) = stream().await;
    // Waits that are cancelled, as the loop's ticks do it, were listening too.
    for _ in 0..3 {
        assert!(timeout(WAIT, stream.read_chunk()).await.is_err(), "nothing came");
    }
    let heard = stream.silent_for();
    assert!(heard >= 3 * WAIT, "{heard:?}");
    // Nothing is read for a while, as where the sink stalls.
    sleep(WAIT).await;
    stream.send_status(None, None, false).await.expect("sent");
    assert_eq!(stream.silent_for(), heard);
    server.write_all(&keepalive(0x40, 0)).await.expect("room in the socket");
    stream.read_chunk().await.expect("bytes");
    assert_eq!(stream.silent_for(), Duration::ZERO);
}

#[test]
fn xlog_data_of_a_relation_has_no_position() {
    let body = [&b"w"[..], &[0; 24], b"R..."].concat();
    let message = copy_data(&body).expect("well formed");
    let StreamMessage::XLogData { wal_start: None, payload } = message else {
        panic!("{message:?}");
    };
    assert_eq!(payload, b"R...");
}

#[test]
fn short_and_foreign_stream_messages_are_refused() {
    for body in [&b""[..], b"w", b"w1234567", b"k1234567", &[b'k'; 19], b"x"] {
        assert!(copy_data(body).is_err(), "{body:?}");
    }
}
