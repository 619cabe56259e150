//! An encrypted socket, against OpenSSL's own server.

use std::{
    io::{Read, Write},
    net::TcpListener,
};

use openssl::{
    asn1::Asn1Time,
    ec::{EcGroup, EcKey},
    hash::MessageDigest,
    nid::Nid,
    pkey::PKey,
    ssl::{SslAcceptor, SslMethod},
    x509::X509,
};
use tokio::io::AsyncReadExt;

use crate::postgres::{
    Encryption, Host, SslMode,
    wire::{Socket, tls::Session},
};

/// A server whose certificate nobody knows. It writes each piece as a record, and then listens.
fn acceptor() -> SslAcceptor {
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
    acceptor.build()
}

fn serve(pieces: &'static [&'static [u8]]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let acceptor = acceptor();
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

#[tokio::test]
async fn bytes_that_tls_holds_back_count_as_waiting() {
    let port = serve(&[b"first", b"second"]);
    let host = Host::Tcp { host: "127.0.0.1".to_owned(), port };
    let encryption = Encryption { mode: SslMode::Require, ..Encryption::NONE };
    let session = Session::prepare(&encryption, &host).expect("a session");
    let socket = Socket::connect(&host).await.expect("connected");
    let mut socket = socket.secure(session).await.expect("a handshake");
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
