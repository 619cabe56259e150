//! `postgres.url`.

use serde_json::{Value as Json, json};
use tokio_postgres::config::Host as UrlHost;

use super::{
    document::{Node, Value},
    encryption_parameters::EncryptionParameters,
    mistake::Mistakes,
    section::Read,
};
use crate::postgres::{Encryption, Host, Secret};

/// PostgreSQL's port unless said otherwise.
const PORT: u16 = 5432;

/// Where the database is, as its URL says.
#[derive(Clone, Debug)]
pub(super) struct DatabaseUrl {
    pub(super) host: Host,
    pub(super) other_hosts: Vec<Host>,
    pub(super) user: String,
    pub(super) password: Option<Secret>,
    pub(super) database: String,
    pub(super) application_name: Option<String>,
    pub(super) encryption: Encryption,
}

/// What is expected of it.
const EXPECTED: &str = "a URL as \"postgres://user@host:5432/database\"";

/// What becomes of a parameter of the URL.
enum Parameter {
    /// It is read.
    Taken,
    /// It asks for what is done anyway.
    Harmless,
    /// It asks for what is not done, and would be dropped silently.
    Refused(&'static str),
}

/// libpq's parameters (manual page libpq-connect).
fn judge_parameter(name: &str, value: &str) -> Parameter {
    match (name, value) {
        ("host" | "port" | "user" | "password" | "dbname" | "application_name", _) => {
            Parameter::Taken
        }
        ("gssencmode", "disable" | "prefer")
        // The primary is looked for in any case.
        | ("target_session_attrs", "any" | "read-write" | "primary") => Parameter::Harmless,
        ("gssencmode", _) => Parameter::Refused("there is no encryption by GSSAPI"),
        ("target_session_attrs", _) => Parameter::Refused("only a primary can be followed"),
        ("options", _) => Parameter::Refused("the forms of values rest on options of our own"),
        ("hostaddr", _) => Parameter::Refused("write the address in the place of the host"),
        (name, _) if name.starts_with("ssl") => Parameter::Refused(
            "of TLS there are sslmode, sslrootcert, sslcrl, sslcert, sslkey, sslpassword and \
             sslnegotiation",
        ),
        ("connect_timeout" | "tcp_user_timeout", _) => {
            Parameter::Refused("time-outs are fixed: a login has 10 s")
        }
        (name, _) if name.starts_with("keepalives") => {
            Parameter::Refused("the probes of a connection are fixed")
        }
        _ => Parameter::Refused("it is no parameter that is known here"),
    }
}

/// The URL with those parameters alone that its parser reads, and what the rest says of encryption.
fn screened(text: &str) -> Result<(String, EncryptionParameters), String> {
    let mut encryption = EncryptionParameters::default();
    let Some((before, parameters)) = text.split_once('?') else {
        return Ok((text.to_owned(), encryption));
    };
    let mut taken = Vec::new();
    for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        if encryption.take(name, value)? {
            continue;
        }
        match judge_parameter(name, value) {
            Parameter::Taken => taken.push(parameter),
            Parameter::Harmless => {}
            Parameter::Refused(why) => {
                return Err(format!("has the parameter {name}, which is not supported: {why}"));
            }
        }
    }
    Ok((format!("{before}?{}", taken.join("&")), encryption))
}

impl DatabaseUrl {
    fn parse(text: &str) -> Result<Self, String> {
        let expected = || format!("must be {EXPECTED}");
        if !["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme)) {
            return Err(expected());
        }
        let (screened, encryption) = screened(text)?;
        let parsed = screened.parse();
        let config: tokio_postgres::Config = parsed.map_err(|error: tokio_postgres::Error| {
            match std::error::Error::source(&error) {
                // The source names the parameter, never the password.
                Some(source) => format!("{}: {source}", expected()),
                None => expected(),
            }
        })?;
        let mut hosts = hosts(&config)?.into_iter();
        let host = hosts
            .next()
            .ok_or("names no host; a unix socket is written as ?host=/var/run/postgresql")?;
        let folder = std::env::home_dir().map(|home| home.join(".postgresql"));
        let encryption = encryption.settle(folder.as_deref())?;
        let user = config.get_user().ok_or("names no user, as in postgres://user@host/database")?;
        Ok(Self {
            host,
            other_hosts: hosts.collect(),
            user: user.to_owned(),
            password: config
                .get_password()
                .map(|password| Secret::new(String::from_utf8_lossy(password))),
            // As libpq: a database of the user's name.
            database: config.get_dbname().unwrap_or(user).to_owned(),
            application_name: config.get_application_name().map(str::to_owned),
            encryption,
        })
    }
}

/// One port for each host, or one for all. The parameter `host` holds several as libpq has it, in a
/// list that its parser takes for one name.
fn hosts(config: &tokio_postgres::Config) -> Result<Vec<Host>, String> {
    let mut names = Vec::new();
    for host in config.get_hosts() {
        let text = match host {
            UrlHost::Tcp(name) => name.as_str(),
            UrlHost::Unix(folder) => folder.to_str().ok_or("names a folder that is not UTF-8")?,
        };
        names.extend(text.split(',').map(str::to_owned));
    }
    let ports = config.get_ports();
    if ports.len() > 1 && ports.len() != names.len() {
        return Err(format!("has {} ports for {} hosts", ports.len(), names.len()));
    }
    if names.iter().any(String::is_empty) {
        return Err("has an empty name in its list of hosts".to_owned());
    }
    let port = |index: usize| ports.get(index).or(ports.first()).copied().unwrap_or(PORT);
    let host = |(index, name): (usize, String)| match name.starts_with('/') {
        true => Host::Unix { folder: name.into(), port: port(index) },
        false => Host::Tcp { host: name, port: port(index) },
    };
    Ok(names.into_iter().enumerate().map(host).collect())
}

impl Read for DatabaseUrl {
    fn read(node: &Node, key: &str, mistakes: &mut Mistakes) -> Option<Self> {
        let parsed = match &node.value {
            Value::Text(text) => Self::parse(text),
            other => Err(format!("must be {EXPECTED}, not {}", other.kind())),
        };
        parsed.map_err(|problem| mistakes.add(&node.origin, key, problem)).ok()
    }

    fn expected(_key: &str) -> String {
        EXPECTED.to_owned()
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
    fn each_host_of_several_has_its_port() {
        let tcp = |host: &str, port| Host::Tcp { host: host.to_owned(), port };
        for text in [
            "postgres://tailwater@one,two:6432/shop",
            "postgres://tailwater@/shop?host=one,two&port=5432,6432",
        ] {
            let url = read(text).expect(text);
            assert_eq!((url.host, url.other_hosts), (tcp("one", 5432), vec![tcp("two", 6432)]));
        }
        let url = read("postgres://tailwater@/shop?host=one,two&port=6432").expect("one for all");
        assert_eq!((url.host, url.other_hosts), (tcp("one", 6432), vec![tcp("two", 6432)]));
    }

    #[test]
    fn what_a_url_lacks_is_said_without_its_password() {
        for (text, expected) in [
            ("postgres://db/shop", "no user"),
            ("postgres://user:secret@/shop", "no host"),
            ("postgres://user:secret@/shop?host=one,two,three&port=1,2", "2 ports for 3 hosts"),
            ("postgres://user:secret@/shop?host=one,,two", "an empty name"),
            ("postgres://user:secret@db:port/shop", "must be a URL"),
            ("db.internal", "must be a URL"),
            ("host=db user=user password=secret", "must be a URL"),
        ] {
            let problem = read(text).expect_err(text);
            assert!(problem.contains(expected), "{text}: {problem}");
            assert!(!problem.contains("secret"), "{problem}");
        }
    }

    #[test]
    fn a_parameter_that_would_have_no_effect_is_refused() {
        for parameter in [
            "sslcompression=1",
            "gssencmode=require",
            "target_session_attrs=standby",
            "options=-csearch_path%3Dshop",
            "hostaddr=10.0.0.7",
            "connect_timeout=3",
            "keepalives_idle=5",
            "sslmood=disable",
        ] {
            let text = format!("postgres://user:secret@db/shop?{parameter}");
            let problem = read(&text).expect_err(parameter);
            let (name, _) = parameter.split_once('=').expect("a value");
            let expected = format!("has the parameter {name}, which is not supported: ");
            assert!(problem.starts_with(&expected), "{parameter}: {problem}");
            assert!(!problem.contains("secret"), "{problem}");
        }
    }

    #[test]
    fn a_parameter_that_asks_for_what_is_done_anyway_is_taken() {
        for parameter in
            ["sslmode=disable", "gssencmode=disable", "target_session_attrs=read-write"]
        {
            let url = read(&format!("postgres://user@db/shop?{parameter}&application_name=mine"));
            let url = url.expect(parameter);
            assert_eq!(url.application_name.as_deref(), Some("mine"), "{parameter}");
        }
    }
}
