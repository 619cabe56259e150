//! `postgres.url`.

use serde_json::{Value as Json, json};
use tokio_postgres::config::{Host as UrlHost, SslMode};

use super::{
    document::{Node, Value},
    mistake::Mistakes,
    section::Read,
};
use crate::postgres::{Host, Secret};

/// PostgreSQL's port unless said otherwise.
const PORT: u16 = 5432;

/// Where the database is, as its URL says.
#[derive(Clone, Debug)]
pub(super) struct DatabaseUrl {
    pub(super) host: Host,
    pub(super) user: String,
    pub(super) password: Option<Secret>,
    pub(super) database: String,
    pub(super) application_name: Option<String>,
}

impl DatabaseUrl {
    fn parse(text: &str) -> Result<Self, String> {
        let expected = "must be a URL as \"postgres://user@host:5432/database\"";
        let config: tokio_postgres::Config =
            text.parse().map_err(|error| match std::error::Error::source(&error) {
                // The source names the parameter, never the password.
                Some(source) => format!("{expected}: {source}"),
                None => expected.to_owned(),
            })?;
        if config.get_ssl_mode() == SslMode::Require {
            return Err("has sslmode=require, but this version speaks no TLS; use \
                        sslmode=disable or a unix socket"
                .to_owned());
        }
        let [host] = config.get_hosts() else {
            return Err(match config.get_hosts() {
                [] => "names no host; a unix socket is written as ?host=/var/run/postgresql",
                _ => "names several hosts; name the primary",
            }
            .to_owned());
        };
        let port = config.get_ports().first().copied().unwrap_or(PORT);
        let user = config.get_user().ok_or("names no user, as in postgres://user@host/database")?;
        Ok(Self {
            host: match host {
                UrlHost::Tcp(name) => Host::Tcp { host: name.clone(), port },
                UrlHost::Unix(folder) => Host::Unix { folder: folder.clone(), port },
            },
            user: user.to_owned(),
            password: config
                .get_password()
                .map(|password| Secret::new(String::from_utf8_lossy(password))),
            // As libpq: a database of the user's name.
            database: config.get_dbname().unwrap_or(user).to_owned(),
            application_name: config.get_application_name().map(str::to_owned),
        })
    }
}

impl Read for DatabaseUrl {
    fn read(node: &Node, key: &str, mistakes: &mut Mistakes) -> Option<Self> {
        let parsed = match &node.value {
            Value::Text(text) => Self::parse(text),
            other => Err(format!(
                "must be a URL as \"postgres://user@host/database\", not {}",
                other.kind()
            )),
        };
        parsed.map_err(|problem| mistakes.add(&node.origin, key, problem)).ok()
    }

    fn schema() -> Json {
        json!({ "type": "string", "minLength": 1 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<DatabaseUrl, String> {
        DatabaseUrl::parse(text)
    }

    #[test]
    fn parts_of_a_url_have_their_defaults() {
        let url = read("postgres://tailwater@db.internal/shop").expect("a URL");
        assert_eq!(url.host, Host::Tcp { host: "db.internal".to_owned(), port: 5432 });
        assert_eq!((url.user.as_str(), url.database.as_str()), ("tailwater", "shop"));
        let url = read("postgres://shop:s%40cret@[::1]:6432").expect("a URL");
        assert_eq!(url.host, Host::Tcp { host: "::1".to_owned(), port: 6432 });
        assert_eq!(url.database, "shop");
        assert_eq!(url.password, Some(Secret::new("s@cret")));
    }

    #[test]
    fn a_unix_socket_is_a_folder() {
        for text in [
            "postgres://tailwater@%2Fvar%2Frun%2Fpostgresql/shop",
            "postgres://tailwater@/shop?host=/var/run/postgresql",
        ] {
            let url = read(text).expect(text);
            let folder = "/var/run/postgresql".into();
            assert_eq!(url.host, Host::Unix { folder, port: 5432 });
        }
    }

    #[test]
    fn what_a_url_lacks_is_said_without_its_password() {
        for (text, expected) in [
            ("postgres://db/shop", "no user"),
            ("postgres://user:secret@/shop", "no host"),
            ("postgres://user:secret@one,two/shop", "several hosts"),
            ("postgres://user:secret@db/shop?sslmode=require", "TLS"),
            ("postgres://user:secret@db/shop?sslmood=disable", "sslmood"),
            ("db.internal", "must be a URL"),
        ] {
            let problem = read(text).expect_err(text);
            assert!(problem.contains(expected), "{text}: {problem}");
            assert!(!problem.contains("secret"), "{problem}");
        }
    }
}
