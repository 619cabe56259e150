//! TLS by OpenSSL, as libpq has it: what it trusts, whom it takes a certificate for, which files it
//! reads and which it refuses (C: `fe-secure-openssl.c`).
//!
//! Files are read at each connection, so that a renewed certificate counts from the next one on.

use std::{
    fs, io,
    net::IpAddr,
    os::unix::fs::MetadataExt,
    path::Path,
    pin::Pin,
    task::{Context, Poll, ready},
};

use openssl::{
    error::ErrorStack,
    pkey::{PKey, Private},
    ssl::{self, Ssl, SslContext, SslContextBuilder, SslFiletype, SslMethod, SslVerifyMode},
    x509::{X509VerifyResult, store::X509Lookup, verify::X509VerifyFlags},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, BufReader, ReadBuf},
    net::TcpStream,
};
use tokio_openssl::SslStream;

use super::{certificate, dial::Failed};
use crate::postgres::{
    Encryption, Host, Roots, Secret, Source, SslMode, SslNegotiation, error::TlsFault,
};

/// Where systems keep their authorities: Debian, Red Hat, Alpine.
const SYSTEM_ROOTS: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// What is read from the socket at once: many records, each of which is one row under load, and
/// would be two reads.
const READ_BYTES: usize = 64 << 10;

/// The one protocol that is spoken inside (ALPN), its length first.
const PROTOCOLS: &[u8] = b"\x0apostgresql";

/// What a handshake begins with.
#[derive(Debug)]
pub struct Session {
    ssl: Ssl,
    host: String,
    mode: SslMode,
    negotiation: SslNegotiation,
}

impl Session {
    /// Reads what the settings name.
    pub(super) fn prepare(encryption: &Encryption, host: &Host) -> Result<Self, Failed> {
        let Host::Tcp { host, .. } = host else {
            return Err(Failed::new(TlsFault::NotOffered, "a unix socket is never encrypted"));
        };
        let Encryption { mode, negotiation, .. } = *encryption;
        let ssl = context(encryption)?;
        let ssl = Ssl::new(&ssl).and_then(|mut ssl| {
            // An address is no name to choose a certificate by (RFC 6066, section 3).
            if host.parse::<IpAddr>().is_err() {
                ssl.set_hostname(host)?;
            }
            Ok(ssl)
        });
        let ssl = ssl.map_err(|error| unusable("the session", &error))?;
        Ok(Self { ssl, host: host.clone(), mode, negotiation })
    }

    /// Agrees with the server on keys, and on who it is.
    pub(super) async fn shake_hands(self, tcp: TcpStream) -> Result<TlsStream, Failed> {
        let tcp = BufReader::with_capacity(READ_BYTES, tcp);
        let mut stream =
            SslStream::new(self.ssl, tcp).map_err(|error| unusable("the session", &error))?;
        if let Err(error) = Pin::new(&mut stream).connect().await {
            let verified = stream.ssl().verify_result();
            return Err(unagreed(verified, error, self.negotiation));
        }
        let is_direct = self.negotiation == SslNegotiation::Direct;
        if is_direct && stream.ssl().selected_alpn_protocol().is_none() {
            return Err(Failed::new(
                TlsFault::Handshake,
                "the server agreed on no protocol inside TLS (ALPN), which sslnegotiation=direct \
                 needs",
            ));
        }
        let peer = stream
            .ssl()
            .peer_certificate()
            .ok_or_else(|| Failed::new(TlsFault::Untrusted, "the server showed no certificate"))?;
        if self.mode == SslMode::VerifyFull {
            certificate::check_name(&peer, &self.host)
                .map_err(|what| Failed::new(TlsFault::OtherName, what))?;
        }
        Ok(TlsStream { end_point: certificate::end_point(&peer), stream, unwritten: None })
    }
}

/// All that a session is made from.
fn context(encryption: &Encryption) -> Result<SslContext, Failed> {
    let unprepared = |error: ErrorStack| unusable("OpenSSL", &error);
    let mut context = SslContext::builder(SslMethod::tls_client()).map_err(unprepared)?;
    context.set_mode(
        ssl::SslMode::AUTO_RETRY
            | ssl::SslMode::ACCEPT_MOVING_WRITE_BUFFER
            | ssl::SslMode::ENABLE_PARTIAL_WRITE
            | ssl::SslMode::RELEASE_BUFFERS,
    );
    context.set_options(ssl::SslOptions::NO_RENEGOTIATION | ssl::SslOptions::NO_COMPRESSION);
    context.set_min_proto_version(Some(ssl::SslVersion::TLS1_2)).map_err(unprepared)?;
    context.set_alpn_protos(PROTOCOLS).map_err(unprepared)?;
    let verify =
        if trust(&mut context, encryption)? { SslVerifyMode::PEER } else { SslVerifyMode::NONE };
    context.set_verify(verify);
    introduce(&mut context, encryption)?;
    Ok(context.build())
}

/// Sets whom we trust. False where there is nothing to verify by, and nothing must be verified.
fn trust(context: &mut SslContextBuilder, encryption: &Encryption) -> Result<bool, Failed> {
    match &encryption.roots {
        Roots::System => {
            let loaded = context.set_default_verify_paths();
            loaded.map_err(|error| unusable("the system's root certificates", &error))?;
            // An OpenSSL that was built with us does not know where this system keeps them.
            let is_told =
                ["SSL_CERT_FILE", "SSL_CERT_DIR"].map(std::env::var_os).iter().any(Option::is_some);
            let bundle = SYSTEM_ROOTS.iter().map(Path::new).find(|path| path.is_file());
            if let (false, Some(path)) = (is_told, bundle) {
                let loaded = context.set_ca_file(path);
                loaded.map_err(|error| unreadable("root certificate file", path, &error))?;
            }
        }
        Roots::File(source) => match present("root certificate file", source)? {
            Some(path) => {
                let loaded = context.set_ca_file(path);
                loaded.map_err(|error| unreadable("root certificate file", path, &error))?;
            }
            None if encryption.mode >= SslMode::VerifyCa => {
                let looked_for = match source {
                    Source::Usual(path) => format!(" (\"{}\" does not exist)", path.display()),
                    Source::Named(_) | Source::Nowhere => String::new(),
                };
                let what = format!(
                    "sslmode asks to verify the server's certificate, and there is no root \
                     certificate to do it by{looked_for}"
                );
                return Err(Failed::new(TlsFault::Files, what));
            }
            None => return Ok(false),
        },
    }
    if let Some(path) = present("certificate revocation list", &encryption.revoked)? {
        let store = context.cert_store_mut();
        let loaded = store
            .add_lookup(X509Lookup::file())
            .and_then(|lookup| lookup.load_crl_file(path, SslFiletype::PEM));
        loaded
            .and_then(|_| {
                store.set_flags(X509VerifyFlags::CRL_CHECK | X509VerifyFlags::CRL_CHECK_ALL)
            })
            .map_err(|error| unreadable("certificate revocation list", path, &error))?;
    }
    Ok(true)
}

/// Sets who we are, where there is a certificate that says so.
fn introduce(context: &mut SslContextBuilder, encryption: &Encryption) -> Result<(), Failed> {
    let Some(certificate) = present("certificate file", &encryption.certificate)? else {
        return Ok(());
    };
    let loaded = context.set_certificate_chain_file(certificate);
    loaded.map_err(|error| unreadable("certificate file", certificate, &error))?;
    let Some(path) = present("private key file", &encryption.key)? else {
        let what = format!(
            "there is a certificate, \"{}\", but no private key file for it",
            certificate.display()
        );
        return Err(Failed::new(TlsFault::Files, what));
    };
    check_rights(path)?;
    let key = private_key(path, encryption.key_password.as_ref())?;
    let paired = context.set_private_key(&key).and_then(|()| context.check_private_key());
    paired.map_err(|error| {
        let what = format!(
            "the private key file \"{}\" does not belong to the certificate \"{}\"",
            path.display(),
            certificate.display()
        );
        Failed { fault: TlsFault::Files, what, source: Some(io::Error::other(error)) }
    })
}

/// The file, where it is there or must be.
fn present<'a>(what: &str, source: &'a Source) -> Result<Option<&'a Path>, Failed> {
    match source {
        Source::Nowhere => Ok(None),
        Source::Usual(path) => Ok(path.exists().then_some(path.as_path())),
        Source::Named(path) => match fs::metadata(path) {
            Ok(_) => Ok(Some(path)),
            Err(error) => {
                let what = format!("the {what} \"{}\" cannot be read", path.display());
                Err(Failed { fault: TlsFault::Files, what, source: Some(error) })
            }
        },
    }
}

/// A key that others can read is no secret.
fn check_rights(path: &Path) -> Result<(), Failed> {
    let refuse = |why: &str, source| Failed {
        what: format!("the private key file \"{}\" {why}", path.display()),
        fault: TlsFault::Files,
        source,
    };
    let metadata = fs::metadata(path).map_err(|error| refuse("cannot be read", Some(error)))?;
    if !metadata.is_file() {
        return Err(refuse("is not a file", None));
    }
    let forbidden = if metadata.uid() == 0 { 0o037 } else { 0o077 };
    if metadata.mode() & forbidden != 0 {
        return Err(refuse(
            "is open to others: it must have the mode 0600 or less, or 0640 where root owns it",
            None,
        ));
    }
    Ok(())
}

fn private_key(path: &Path, password: Option<&Secret>) -> Result<PKey<Private>, Failed> {
    let bytes = fs::read(path).map_err(|error| {
        let what = format!("the private key file \"{}\" cannot be read", path.display());
        Failed { fault: TlsFault::Files, what, source: Some(error) }
    })?;
    // Asked for by an encrypted key alone. Without the callback OpenSSL would ask the terminal.
    let answer = |room: &mut [u8]| {
        let password = password.map_or(&[][..], |password| password.reveal().as_bytes());
        let count = password.len().min(room.len());
        for (to, from) in room.iter_mut().zip(password) {
            *to = *from;
        }
        Ok(count)
    };
    let key = PKey::private_key_from_pem_callback(&bytes, answer);
    key.or_else(|error| PKey::private_key_from_der(&bytes).map_err(|_| error)).map_err(|error| {
        let what = format!(
            "the private key file \"{}\" cannot be used: it holds no key in PEM or DER, or \
             sslpassword does not open it",
            path.display()
        );
        Failed { fault: TlsFault::Files, what, source: Some(io::Error::other(error)) }
    })
}

fn unreadable(what: &str, path: &Path, error: &ErrorStack) -> Failed {
    unusable(&format!("the {what} \"{}\"", path.display()), error)
}

fn unusable(what: &str, error: &ErrorStack) -> Failed {
    let source = Some(io::Error::other(reasons(error)));
    Failed { fault: TlsFault::Files, what: format!("{what} cannot be used"), source }
}

/// Why no session came about.
fn unagreed(verified: X509VerifyResult, error: ssl::Error, negotiation: SslNegotiation) -> Failed {
    let reason = error.ssl_error().map(reasons).unwrap_or_default();
    // What was found of the certificate is there also where nothing was to be verified.
    if verified != X509VerifyResult::OK && reason.contains("certificate verify failed") {
        let what = format!("the server's certificate is not trusted: {}", verified.error_string());
        return Failed::new(TlsFault::Untrusted, what);
    }
    if let Some(what) = error.ssl_error().and_then(refusal) {
        return Failed::new(TlsFault::Refused, what);
    }
    // A postmaster that cannot start a process says so in the clear.
    let is_clear = negotiation == SslNegotiation::Direct && reason.contains("wrong version number");
    match error.ssl_error() {
        Some(_) if !may_pass(&reason) && !is_clear => {
            Failed::new(TlsFault::Handshake, format!("no handshake: {reason}"))
        }
        _ => {
            let direct = match negotiation {
                SslNegotiation::Postgres => "",
                SslNegotiation::Direct => {
                    " (a server before PostgreSQL 17 does so with sslnegotiation=direct)"
                }
            };
            let what = format!("the server broke the handshake off{direct}");
            let source = error.into_io_error().ok();
            Failed { fault: TlsFault::Interrupted, what, source }
        }
    }
}

/// What the peer said by TLS, where it broke the connection off so.
pub fn alert(error: &io::Error) -> Option<String> {
    refusal(error.get_ref()?.downcast_ref::<ssl::Error>()?.ssl_error()?)
}

/// Silence or noise in the middle: a server that goes down, has no memory, or a line that is bad.
fn may_pass(reasons: &str) -> bool {
    ["unexpected eof", "internal error", "bad record mac", "user cancel", "close notify"]
        .iter()
        .any(|passing| reasons.contains(passing))
}

/// An alert that the server sent. Its own failures may pass, and are none.
fn refusal(errors: &ErrorStack) -> Option<String> {
    let reasons = reasons(errors);
    let is_alert = reasons.contains(" alert ") && !may_pass(&reasons);
    is_alert.then(|| format!("the server refused the session: {reasons}"))
}

/// OpenSSL's reasons, without places in its sources.
fn reasons(errors: &ErrorStack) -> String {
    let reasons: Vec<&str> = errors
        .errors()
        .iter()
        .filter_map(|error| error.reason().or_else(|| error.library()))
        .collect();
    if reasons.is_empty() { "OpenSSL does not say why".to_owned() } else { reasons.join(", ") }
}

/// An encrypted stream. Dropping it closes the connection.
#[derive(Debug)]
pub struct TlsStream {
    stream: SslStream<BufReader<TcpStream>>,
    end_point: Option<Vec<u8>>,
    /// Why a write has failed, until it is known what the server said before.
    unwritten: Option<io::Error>,
}

impl TlsStream {
    pub(super) fn tcp(&self) -> &TcpStream {
        self.stream.get_ref().get_ref()
    }

    /// Bytes that were taken from the socket and not handed out, decrypted or not.
    pub(super) fn held_bytes(&self) -> usize {
        self.stream.ssl().pending() + self.stream.get_ref().buffer().len()
    }

    /// What a login is bound to: the server's certificate.
    pub(super) fn end_point(&self) -> Option<Vec<u8>> {
        self.end_point.clone()
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Self { stream, unwritten, .. } = self.get_mut();
        let mut stream = Pin::new(stream);
        if unwritten.is_none() {
            match ready!(stream.as_mut().poll_write(context, bytes)) {
                Ok(count) => return Poll::Ready(Ok(count)),
                Err(error) => *unwritten = Some(error),
            }
        }
        // A server that takes nothing any more may have said why. The connection is gone, so that
        // there is an end to what it said.
        let said = ready!(stream.poll_peek(context, &mut [0]));
        let unwritten = unwritten.take().expect("a write has failed");
        Poll::Ready(Err(match said {
            Err(said) if said.ssl_error().and_then(refusal).is_some() => io::Error::other(said),
            Ok(_) | Err(_) => unwritten,
        }))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
