//! An encrypted socket, against OpenSSL's own server.

use std::{
    io::{Read, Write},
    net::TcpListener,
    time::Duration,
};

use openssl::{
    asn1::Asn1Time,
    ec::{EcGroup, EcKey},
    hash::MessageDigest,
    nid::Nid,
    pkey::PKey,
    ssl::{HandshakeError, SslAcceptor, SslMethod, SslVerifyMode},
    x509::X509,
};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::postgres::{
    Encryption, Host, SslMode,
    wire::{Socket, alert, tls::Session},
};

/// A server whose certificate nobody knows, and what it asks of its clients.
fn acceptor(verify: SslVerifyMode) -> SslAcceptor {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).expect("a curve");
    let key = EcKey::generate(&group).and_then(PKey::from_ec_key).expect("a key");
    let mut certificate = X509::builder().expect("a builder");
    certificate.set_pubkey(&key).expect("set");
    certificate.set_not_before(&Asn1Time::days_from_now(0).expect("a time")).expect("set");
    certificate.set_not_after(&Asn1Time::days_from_now(1).expect("a time")).expect("set");
    certificate.sign(&key, MessageDigest::sha256()).expect("signed");
    let mut acceptor =
        SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).expect("an acceptor");
    acceptor.set_certificate(&certificate.build()).expect("set");
    acceptor.set_private_key(&key).expect("set");
    acceptor.set_verify(verify);
    acceptor.build()
}

/// A server that writes each piece as a record, and then listens.
fn serve(pieces: &'static [&'static [u8]]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let acceptor = acceptor(SslVerifyMode::NONE);
    std::thread::spawn(move || {
        let (tcp, _) = listener.accept().expect("a client");
        let mut stream = acceptor.accept(tcp).expect("a handshake");
        for piece in pieces {
            stream.write_all(piece).expect("written");
        }
        drop(stream.read(&mut [0]));
    });
    port
}

async fn connect(port: u16) -> Socket {
    let host = Host::Tcp { host: "127.0.0.1".to_owned(), port };
    let encryption = Encryption { mode: SslMode::Require, ..Encryption::NONE };
    let session = Session::prepare(&encryption, &host).expect("a session");
    let socket = Socket::connect(&host).await.expect("connected");
    socket.secure(session).await.expect("a handshake")
}

#[tokio::test]
async fn bytes_that_tls_holds_back_count_as_waiting() {
    let port = serve(&[b"first", b"second"]);
    let mut socket = connect(port).await;
    assert!(socket.is_encrypted() && socket.end_point().is_some() && socket.has_window());
    let mut first = [0; 1];
    socket.read_exact(&mut first).await.expect("a byte");
    assert!(socket.waiting_bytes() >= b"irst".len(), "the rest of the record is held");
    let mut rest = [0; 10];
    socket.read_exact(&mut rest).await.expect("the rest");
    assert_eq!((&first[..], &rest[..]), (&b"f"[..], &b"irstsecond"[..]));
    assert_eq!(socket.waiting_bytes(), 0);
    // What is asked of the kernel is asked of the socket below.
    drop(socket.hush());
    assert!(socket.fullness() < 100);
}

/// By TLS 1.3 the client is through before the server looks at its certificate, and what it writes
/// then may meet a connection that is reset.
#[tokio::test]
async fn what_a_server_said_before_it_closed_is_told_by_a_write_too() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let acceptor = acceptor(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
    let server = std::thread::spawn(move || {
        let (tcp, _) = listener.accept().expect("a client");
        let Err(HandshakeError::Failure(refused)) = acceptor.accept(tcp) else {
            panic!("there is no certificate")
        };
        SockRef::from(refused.get_ref()).set_linger(Some(Duration::ZERO)).expect("set");
    });
    let mut socket = connect(port).await;
    server.join().expect("closed");
    let mut written = Ok(1);
    // The first one may be on its way before the reset is seen.
    while written.is_ok() {
        written = socket.write(b"hello").await;
    }
    let alert = written.map_err(|error| alert(&error).expect("an alert"));
    assert!(alert.expect_err("nobody listens").contains("certificate required"));
}
