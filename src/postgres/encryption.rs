//! Whether a connection is encrypted, and whom it trusts: libpq's words and meanings (manual page
//! libpq-ssl). What is said here holds for SQL and for replication alike.

use std::path::PathBuf;

use super::{Host, Secret};

/// `sslmode`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum SslMode {
    /// In the clear.
    Disable,
    /// In the clear, and by TLS where the server does not let us in so.
    Allow,
    /// By TLS, and in the clear where the server has none or does not let us in so.
    #[default]
    Prefer,
    /// By TLS. The certificate is verified where there is something to verify it by.
    Require,
    /// By TLS, with a certificate that leads to a trusted one.
    VerifyCa,
    /// The same, and the certificate is for the host's name.
    VerifyFull,
}

/// `sslnegotiation`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SslNegotiation {
    /// The server is asked first whether it speaks TLS.
    #[default]
    Postgres,
    /// TLS from the first byte on. PostgreSQL 17 and later.
    Direct,
}

/// `channel_binding`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ChannelBinding {
    /// Never.
    Disable,
    /// Where the server offers it.
    #[default]
    Prefer,
    /// Always: a login without it fails.
    Require,
}

/// A file that the settings name, or that libpq looks for by itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    /// It must be there.
    Named(PathBuf),
    /// It is read where it is there.
    Usual(PathBuf),
    /// There is no such file.
    Nowhere,
}

/// `sslrootcert`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Roots {
    /// The operating system's authorities.
    System,
    /// Those of a file.
    File(Source),
}

/// All that decides over encryption.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Encryption {
    /// `sslmode`.
    pub mode: SslMode,
    /// `sslnegotiation`.
    pub negotiation: SslNegotiation,
    /// `channel_binding`.
    pub channel_binding: ChannelBinding,
    /// `sslrootcert`: whom we trust.
    pub roots: Roots,
    /// `sslcrl`: whom no more.
    pub revoked: Source,
    /// `sslcert`: who we are.
    pub certificate: Source,
    /// `sslkey`: that it is us.
    pub key: Source,
    /// `sslpassword`: opens the key.
    pub key_password: Option<Secret>,
}

impl Encryption {
    /// Everything in the clear.
    pub const NONE: Self = Self {
        mode: SslMode::Disable,
        negotiation: SslNegotiation::Postgres,
        channel_binding: ChannelBinding::Prefer,
        roots: Roots::File(Source::Nowhere),
        revoked: Source::Nowhere,
        certificate: Source::Nowhere,
        key: Source::Nowhere,
        key_password: None,
    };

    /// The ways to try, one after the other. A unix socket is never encrypted.
    pub(super) fn attempts(&self, host: &Host) -> &'static [Attempt] {
        match (host, self.mode) {
            (Host::Unix { .. }, _) | (Host::Tcp { .. }, SslMode::Disable) => &[Attempt::Clear],
            // In the clear there is nothing to bind to.
            (Host::Tcp { .. }, SslMode::Prefer)
                if self.channel_binding == ChannelBinding::Require =>
            {
                &[Attempt::Tls]
            }
            (Host::Tcp { .. }, SslMode::Allow) => &[Attempt::Clear, Attempt::Tls],
            (Host::Tcp { .. }, SslMode::Prefer) => &[Attempt::TlsIfOffered, Attempt::Clear],
            (Host::Tcp { .. }, SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull) => {
                &[Attempt::Tls]
            }
        }
    }
}

/// One way to try.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Attempt {
    /// In the clear.
    Clear,
    /// By TLS; on the same connection in the clear where the server has none.
    TlsIfOffered,
    /// By TLS.
    Tls,
}
