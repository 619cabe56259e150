//! Login by each method that is built.

use bytes::BytesMut;

use super::frame;
use crate::{
    failure::{Code, Failure, Recovery},
    postgres::{Secret, error::PostgresError, wire::Authentication},
};

/// An AuthenticationRequest's body.
fn request(kind: i32, rest: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], rest].concat()
}

fn answer(
    authentication: &mut Authentication<'_>,
    kind: i32,
    rest: &[u8],
) -> Result<BytesMut, PostgresError> {
    let mut outgoing = BytesMut::new();
    authentication.answer(&request(kind, rest), &mut outgoing).map(|()| outgoing)
}

#[test]
fn trust_asks_for_nothing() {
    let mut authentication = Authentication::new("fox", None);
    assert!(answer(&mut authentication, 0, b"").expect("trusted").is_empty());
}

#[test]
fn a_cleartext_password_is_sent_as_it_is() {
    let password = Secret::new("den");
    let mut authentication = Authentication::new("fox", Some(&password));
    let sent = answer(&mut authentication, 3, b"").expect("a password");
    assert_eq!(sent, frame(b'p', b"den\0"));
}

#[test]
fn an_md5_password_is_the_known_hash() {
    // 'md5' || md5(md5('md5_password' || 'md5_user') || salt), from PostgreSQL's own md5().
    let password = Secret::new("password");
    let mut authentication = Authentication::new("md5_user", Some(&password));
    let sent = answer(&mut authentication, 5, &[0x2a, 0x3d, 0x8f, 0xe0]).expect("a password");
    assert_eq!(sent, frame(b'p', b"md562af4dd09bbb41884907a838a3233294\0"));
}

#[test]
fn an_md5_salt_that_is_too_short_is_refused() {
    let password = Secret::new("password");
    let mut authentication = Authentication::new("md5_user", Some(&password));
    assert!(answer(&mut authentication, 5, &[1, 2, 3]).is_err());
}

#[test]
fn a_password_that_nobody_gave_is_asked_for() {
    for (kind, rest) in [(3, &b""[..]), (5, b"salt"), (10, b"SCRAM-SHA-256\0\0")] {
        let error = answer(&mut Authentication::new("fox", None), kind, rest).expect_err("none");
        assert!(error.to_string().contains("postgres.password_file"), "{error}");
        assert_eq!(error.code(), Some(Code::AuthFailed));
        assert_eq!(error.recovery(), Recovery::Stop);
    }
}

#[test]
fn a_method_that_is_not_built_is_refused() {
    for kind in [1, 2, 6, 7, 9, -1] {
        let password = Secret::new("den");
        let error = answer(&mut Authentication::new("fox", Some(&password)), kind, b"\0")
            .expect_err("not built");
        assert_eq!(
            error.to_string(),
            format!(
                "cannot authenticate at PostgreSQL: the server asks for method {kind}, which is \
                 not built"
            )
        );
    }
}

#[test]
fn a_request_that_ends_early_is_refused() {
    let mut outgoing = BytesMut::new();
    let mut authentication = Authentication::new("fox", None);
    assert!(authentication.answer(&[0, 0, 0], &mut outgoing).is_err());
    assert!(answer(&mut authentication, 10, b"SCRAM-SHA-256").is_err());
}

#[test]
fn scram_is_chosen_among_what_is_offered() {
    let password = Secret::new("pencil");
    let mut authentication = Authentication::new("fox", Some(&password));
    let offered = b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0";
    let sent = answer(&mut authentication, 10, offered).expect("SCRAM");
    let text = String::from_utf8_lossy(&sent).into_owned();
    assert!(text.starts_with('p') && text.contains("SCRAM-SHA-256\0"), "{text:?}");
    assert!(text.contains("n,,n=,r="), "{text:?}");
}

#[test]
fn a_server_without_scram_is_refused_by_name() {
    let password = Secret::new("pencil");
    let mut authentication = Authentication::new("fox", Some(&password));
    let error = answer(&mut authentication, 10, b"GSS-SPNEGO\0\0").expect_err("not built");
    assert!(error.to_string().ends_with("the server offers only GSS-SPNEGO"), "{error}");
}

/// A SCRAM exchange up to the server's proof: the client's nonce is echoed, as a server would.
fn scram_before_the_proof(password: &Secret) -> Authentication<'_> {
    let mut authentication = Authentication::new("fox", Some(password));
    let sent = answer(&mut authentication, 10, b"SCRAM-SHA-256\0\0").expect("SCRAM");
    let text = String::from_utf8_lossy(&sent).into_owned();
    // A nonce may have any printable character but a comma.
    let (_, nonce) = text.split_once("n,,n=,r=").expect("a nonce");
    let first = format!("r={nonce}server,s=QSXCR+Q6sek8bf92,i=4096");
    let answered = answer(&mut authentication, 11, first.as_bytes()).expect("a proof");
    assert!(String::from_utf8_lossy(&answered).contains(",p="));
    authentication
}

#[test]
fn a_server_that_does_not_know_the_password_is_refused() {
    let password = Secret::new("pencil");
    let mut authentication = scram_before_the_proof(&password);
    let wrong = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";
    let error = answer(&mut authentication, 12, wrong).expect_err("a wrong proof");
    assert_eq!(error.code(), Some(Code::AuthFailed));
}

#[test]
fn a_server_that_reports_a_scram_error_is_refused() {
    let password = Secret::new("pencil");
    let mut authentication = scram_before_the_proof(&password);
    assert!(answer(&mut authentication, 12, b"e=invalid-proof").is_err());
}

#[test]
fn a_nonce_that_is_not_ours_is_refused() {
    let password = Secret::new("pencil");
    let mut authentication = Authentication::new("fox", Some(&password));
    answer(&mut authentication, 10, b"SCRAM-SHA-256\0\0").expect("SCRAM");
    let first = b"r=someone-elses,s=QSXCR+Q6sek8bf92,i=4096";
    assert!(answer(&mut authentication, 11, first).is_err());
}

#[test]
fn scram_that_never_began_does_not_go_on() {
    let password = Secret::new("pencil");
    for kind in [11, 12] {
        let mut authentication = Authentication::new("fox", Some(&password));
        let error = answer(&mut authentication, kind, b"v=x").expect_err("out of order");
        assert!(error.to_string().contains("never began"), "{error}");
    }
}
