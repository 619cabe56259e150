//! Where the database is and who we are there.

use std::{fmt, iter::once, path::PathBuf};

use super::Encryption;

/// The forms of values, pinned in every session of ours (reference manual, runtime-config-client): a
/// row's text must not depend on the role's or the database's settings, nor on whether it was
/// streamed or selected. Settings of the startup message win over those. `value` reads these forms
/// and no other. Pinned with them is how our own statements are read: keys of rows are literals there,
/// which may hold backslashes, or be arrays that hold NULL.
///
/// `search_path`, on which the names of regclass and its like depend, is left to the role and the
/// database, which give the same one to all our sessions: conditions of the settings are SQL in it.
pub(super) const VALUE_OPTIONS: &str = "-c datestyle=ISO -c intervalstyle=iso_8601 \
    -c extra_float_digits=3 -c timezone=UTC -c bytea_output=hex -c lc_monetary=C \
    -c quote_all_identifiers=off -c standard_conforming_strings=on -c array_nulls=on";

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes the text in.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the one who sends it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("***")
    }
}

/// How the server is reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Host {
    /// TCP, by name or address.
    Tcp {
        /// Name or address.
        host: String,
        /// 5432 where the URL names none.
        port: u16,
    },
    /// A unix socket: `<folder>/.s.PGSQL.<port>`.
    Unix {
        /// The folder.
        folder: PathBuf,
        /// Part of the socket's name.
        port: u16,
    },
}

impl Host {
    /// Name, address or folder, as libpq's `host` takes it.
    pub fn name(&self) -> String {
        match self {
            Self::Tcp { host, .. } => host.clone(),
            Self::Unix { folder, .. } => folder.display().to_string(),
        }
    }

    /// The port.
    pub fn port(&self) -> u16 {
        match self {
            Self::Tcp { port, .. } | Self::Unix { port, .. } => *port,
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } => write!(formatter, "{host}:{port}"),
            Self::Unix { folder, port } => {
                write!(formatter, "{}/.s.PGSQL.{port}", folder.display())
            }
        }
    }
}

/// A connection's settings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// How the server is reached.
    pub host: Host,
    /// Where else it may be: the first one is taken that answers and is no standby.
    pub other_hosts: Vec<Host>,
    /// The role.
    pub user: String,
    /// Its password, where the server asks for one.
    pub password: Option<Secret>,
    /// The database.
    pub database: String,
    /// What `pg_stat_activity` shows.
    pub application_name: String,
    /// In the clear or by TLS.
    pub encryption: Encryption,
}

impl Settings {
    /// Has the next host of several be tried first, and the first one last.
    pub fn rotate_hosts(&mut self) {
        if !self.other_hosts.is_empty() {
            let next = self.other_hosts.remove(0);
            self.other_hosts.push(std::mem::replace(&mut self.host, next));
        }
    }

    /// Everywhere that the server may be, for people.
    pub fn hosts(&self) -> String {
        let hosts: Vec<String> =
            once(&self.host).chain(&self.other_hosts).map(Host::to_string).collect();
        hosts.join(", ")
    }
}
