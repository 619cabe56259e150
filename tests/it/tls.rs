//! TLS to PostgreSQL, and who is let in: each `sslmode` against each kind of certificate, for SQL
//! and for replication alike.

use std::{
    error::Error as _,
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    time::{Duration, Instant},
};

use tailwater::{
    config::{Config, Environment},
    failure::{Code, Failure, Recovery},
    postgres::{PostgresError, Roots, Settings, Source, replication::Connection, sql::Sql},
};

use crate::{
    refusals::{Shop, insert, published},
    support::{
        certificates::{Claim, Identity},
        new_folder,
        postgres::Server,
        scene::{publishing, stop, wait_until_published},
    },
};

/// What a mistake may take until it is told.
const TOLD_MAX: Duration = Duration::from_secs(30);

const MODES: [&str; 6] = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];

/// How a login ended.
#[derive(Debug, PartialEq)]
enum Outcome {
    Clear,
    Tls,
    /// The code, and all that was said.
    Refused(Code, String),
}

impl Outcome {
    fn assert_refused(&self, code: Code, words: &str) {
        match self {
            Self::Refused(found, said) if *found == code && said.contains(words) => {}
            other => panic!("{code} with \"{words}\" was expected, not {other:?}"),
        }
    }
}

/// The settings of that URL, without what this machine's user has in `~/.postgresql`.
pub fn settings(url: &str) -> Settings {
    let text = format!(
        "source = \"x\"\n[postgres]\nurl = \"{url}\"\n[kafka]\nbrokers = \"none:1\"\n\
         [[outbox]]\ntable = \"public.outbox_events\"\n"
    );
    let config = Config::read(&text, "tailwater.toml", &Environment::new()).expect(url);
    let mut settings = config.pipeline.postgres;
    let forget = |source: &mut Source| {
        if matches!(source, Source::Usual(_)) {
            *source = Source::Nowhere;
        }
    };
    // Its two connections are told from those of others by that.
    settings.application_name = format!("test-{:08x}", fastrand::u32(..));
    let encryption = &mut settings.encryption;
    if let Roots::File(source) = &mut encryption.roots {
        forget(source);
    }
    forget(&mut encryption.revoked);
    forget(&mut encryption.certificate);
    forget(&mut encryption.key);
    settings
}

/// Runs it to its end.
pub fn on_runtime<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(work)
}

/// Whether both connections are encrypted, each asked of the server.
async fn connect(settings: &Settings) -> Result<bool, PostgresError> {
    let sql = Sql::connect(settings).await;
    let replication = Connection::connect(settings).await;
    let (sql, mut replication) = match (sql, replication) {
        (Ok(sql), Ok(replication)) => (sql, replication),
        (Err(one), Err(other)) => {
            assert_eq!(one.code(), other.code(), "{one}; {other}");
            return Err(other);
        }
        (one, other) => panic!("{one:?}, but {other:?}"),
    };
    replication.identify_system().await?;
    let rows = sql
        .rows(
            "ask",
            "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
             WHERE application_name = current_setting('application_name')",
            &[],
        )
        .await?;
    let encrypted: Vec<bool> = rows.iter().map(|row| row.get(0)).collect();
    let [one, other] = encrypted[..] else { panic!("two connections, not {encrypted:?}") };
    assert_eq!(one, other, "one path is encrypted and the other one is not");
    Ok(one)
}

fn log_in(url: &str) -> Outcome {
    let began = Instant::now();
    let outcome = match on_runtime(connect(&settings(url))) {
        Ok(true) => Outcome::Tls,
        Ok(false) => Outcome::Clear,
        Err(error) => {
            assert_eq!(error.recovery(), Recovery::Stop, "{error}");
            let hint = error.hint().expect("what to do");
            let mut said = format!("{error}; {hint}");
            let mut source = error.source();
            while let Some(error) = source {
                said.push_str(&format!("; {error}"));
                source = error.source();
            }
            assert!(!said.contains("secret"), "{said}");
            Outcome::Refused(error.code().expect("a code"), said)
        }
    };
    assert!(began.elapsed() < TOLD_MAX, "{outcome:?} took {:?}", began.elapsed());
    outcome
}

/// A server with TLS, the authority that it trusts, and a folder for what clients have.
struct Scene {
    server: Server,
    authority: Identity,
    folder: PathBuf,
}

impl Scene {
    fn open(server: Server) -> Self {
        let authority = Claim::of("Authority", &[]).signed_by(None);
        let folder = new_folder("certificates");
        authority.certificate(&folder.join("ca.crt"));
        server.encrypt(&good(&authority), &authority);
        let role = "CREATE ROLE fox LOGIN REPLICATION PASSWORD 'secret'";
        server.create_database("shop").run(role);
        server.admit("host all fox 127.0.0.1/32 trust");
        Self { server, authority, folder }
    }

    /// A URL by the host's name.
    fn url(&self, parameters: &str) -> String {
        self.url_of("fox", parameters)
    }

    fn url_of(&self, user: &str, parameters: &str) -> String {
        format!("postgres://{user}@localhost:{}/shop?{parameters}", self.server.port())
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// What becomes of each mode, with these certificates trusted.
    fn modes(&self, roots: &str) -> Vec<Outcome> {
        let roots = self.path(roots);
        let url = |mode: &&str| self.url(&format!("sslmode={mode}&sslrootcert={roots}"));
        MODES.iter().map(|mode| log_in(&url(mode))).collect()
    }
}

fn good(authority: &Identity) -> Identity {
    Claim::of("db", &["localhost", "127.0.0.1"]).signed_by(Some(authority))
}

#[test]
fn each_sslmode_trusts_what_libpq_trusts() {
    let scene = Scene::open(Server::start());
    let [_, _, prefer, require, verify_ca, verify_full] = &scene.modes("ca.crt")[..] else {
        panic!("six modes")
    };
    for outcome in [prefer, require, verify_ca, verify_full] {
        assert_eq!(*outcome, Outcome::Tls, "signed by the authority, with the right name");
    }
    let address = scene.url(&format!("sslmode=verify-full&sslrootcert={}", scene.path("ca.crt")));
    assert_eq!(log_in(&address.replace("localhost", "127.0.0.1")), Outcome::Tls);
    for mode in ["disable", "allow"] {
        assert_eq!(log_in(&scene.url(&format!("sslmode={mode}"))), Outcome::Clear);
    }
    for mode in ["prefer", "require"] {
        assert_eq!(log_in(&scene.url(&format!("sslmode={mode}"))), Outcome::Tls);
    }
    for mode in ["verify-ca", "verify-full"] {
        let outcome = log_in(&scene.url(&format!("sslmode={mode}")));
        outcome.assert_refused(Code::TlsFailed, "no root certificate");
    }
    // The operating system knows nothing of it.
    log_in(&scene.url("sslrootcert=system")).assert_refused(Code::TlsFailed, "not trusted");

    let other = Claim::of("other", &["db.internal"]).signed_by(Some(&scene.authority));
    scene.server.encrypt(&other, &scene.authority);
    let outcomes = scene.modes("ca.crt");
    for outcome in &outcomes[2..5] {
        assert_eq!(*outcome, Outcome::Tls, "a wrong name");
    }
    outcomes[5].assert_refused(Code::TlsFailed, "is for \"db.internal\", not for \"localhost\"");
    assert_eq!(outcomes[..2], [Outcome::Clear, Outcome::Clear]);

    // Without alternative names the common one counts.
    let common = Claim::of("localhost", &[]).signed_by(Some(&scene.authority));
    scene.server.encrypt(&common, &scene.authority);
    assert_eq!(scene.modes("ca.crt")[5], Outcome::Tls);

    let expired = Claim { name: "db", hosts: &["localhost"], days: -1 };
    scene.server.encrypt(&expired.signed_by(Some(&scene.authority)), &scene.authority);
    let outcomes = scene.modes("ca.crt");
    // What prefer cannot verify it does without, as libpq does.
    assert_eq!(outcomes[..3], [Outcome::Clear, Outcome::Clear, Outcome::Clear]);
    for outcome in &outcomes[3..] {
        outcome.assert_refused(Code::TlsFailed, "expired");
    }
}

#[test]
fn a_self_signed_certificate_is_trusted_by_its_own_copy_alone() {
    let scene = Scene::open(Server::start());
    let lonely = Claim::of("db", &["localhost"]).signed_by(None);
    lonely.certificate(&scene.folder.join("own.crt"));
    scene.server.encrypt(&lonely, &scene.authority);
    for outcome in &scene.modes("ca.crt")[3..] {
        outcome.assert_refused(Code::TlsFailed, "not trusted: self");
    }
    for outcome in &scene.modes("own.crt")[2..] {
        assert_eq!(*outcome, Outcome::Tls);
    }
    assert_eq!(log_in(&scene.url("sslmode=require")), Outcome::Tls);
    let missing = scene.path("missing.crt");
    let outcome = log_in(&scene.url(&format!("sslmode=require&sslrootcert={missing}")));
    outcome.assert_refused(Code::TlsFailed, "missing.crt\" cannot be read");
}

#[test]
fn a_server_without_tls_is_refused_where_it_must_have_it() {
    let server = Server::start();
    server.create_database("shop").run("CREATE ROLE fox LOGIN REPLICATION");
    let authority = Claim::of("Authority", &[]).signed_by(None);
    let folder = new_folder("certificates");
    authority.certificate(&folder.join("ca.crt"));
    let scene = Scene { server, authority, folder };
    let outcomes = scene.modes("ca.crt");
    assert_eq!(outcomes[..3], [Outcome::Clear, Outcome::Clear, Outcome::Clear]);
    for outcome in &outcomes[3..] {
        outcome.assert_refused(Code::TlsFailed, "the server has no TLS");
    }
}

#[test]
fn allow_and_prefer_try_the_way_that_pg_hba_lets_in() {
    let scene = Scene::open(Server::start());
    scene.server.admit("hostssl all fox 127.0.0.1/32 trust");
    let log_in_by = |mode: &str| log_in(&scene.url(&format!("sslmode={mode}")));
    for mode in ["allow", "prefer", "require"] {
        assert_eq!(log_in_by(mode), Outcome::Tls, "{mode}");
    }
    log_in_by("disable").assert_refused(Code::AuthFailed, "no encryption");
    scene.server.admit("hostnossl all fox 127.0.0.1/32 trust");
    for mode in ["disable", "allow", "prefer"] {
        assert_eq!(log_in_by(mode), Outcome::Clear, "{mode}");
    }
    log_in_by("require").assert_refused(Code::AuthFailed, "pg_hba.conf");
    // Both ways fail, and the one that is not allowed at all says nothing.
    for rule in ["hostssl", "hostnossl"] {
        scene.server.admit(&format!("{rule} all fox 127.0.0.1/32 scram-sha-256"));
        for mode in ["allow", "prefer"] {
            let url = scene.url(&format!("sslmode={mode}")).replace("fox@", "fox:wrong@");
            log_in(&url).assert_refused(Code::AuthFailed, "password authentication failed");
        }
    }
}

#[test]
fn a_login_is_bound_to_the_session_where_it_can_and_must_be() {
    let scene = Scene::open(Server::start());
    scene.server.admit("host all fox 127.0.0.1/32 scram-sha-256");
    let with = |password: &str, parameters: &str| {
        log_in(&scene.url(parameters).replace("fox@", &format!("fox{password}@")))
    };
    for binding in ["disable", "prefer", "require"] {
        let parameters = format!("sslmode=require&channel_binding={binding}");
        assert_eq!(with(":secret", &parameters), Outcome::Tls, "{binding}");
        with(":wrong", &parameters)
            .assert_refused(Code::AuthFailed, "password authentication failed");
        with("", &parameters).assert_refused(Code::AuthFailed, "asks for a password");
    }
    // In the clear there is nothing to bind to; by TLS there is.
    assert_eq!(with(":secret", "sslmode=prefer&channel_binding=require"), Outcome::Tls);
    with(":secret", "sslmode=allow&channel_binding=require")
        .assert_refused(Code::AuthFailed, "channel_binding=require");
    // Other methods bind nothing.
    for method in ["trust", "password"] {
        scene.server.admit(&format!("host all fox 127.0.0.1/32 {method}"));
        with(":secret", "sslmode=require&channel_binding=require")
            .assert_refused(Code::AuthFailed, "channel_binding=require");
        assert_eq!(with(":secret", "sslmode=require"), Outcome::Tls, "{method}");
    }
}

#[test]
fn a_role_can_be_known_by_its_certificate() {
    let scene = Scene::open(Server::start());
    scene.server.admit("hostssl all fox 127.0.0.1/32 cert");
    let fox = Claim::of("fox", &[]).signed_by(Some(&scene.authority));
    fox.certificate(&scene.folder.join("fox.crt"));
    fox.key(&scene.folder.join("fox.key"));
    fox.locked_key(&scene.folder.join("locked.key"), "secret");
    let stranger = Claim::of("fox", &[]).signed_by(None);
    stranger.certificate(&scene.folder.join("stranger.crt"));
    stranger.key(&scene.folder.join("stranger.key"));
    let with = |certificate: &str, key: &str, more: &str| {
        let (certificate, key) = (scene.path(certificate), scene.path(key));
        log_in(&scene.url(&format!("sslmode=require&sslcert={certificate}&sslkey={key}{more}")))
    };
    assert_eq!(with("fox.crt", "fox.key", ""), Outcome::Tls);
    assert_eq!(with("fox.crt", "locked.key", "&sslpassword=secret"), Outcome::Tls);
    for (key, more, words) in [
        ("locked.key", "", "sslpassword does not open it"),
        ("locked.key", "&sslpassword=wrong", "sslpassword does not open it"),
        ("stranger.key", "", "does not belong to the certificate"),
        ("missing.key", "", "missing.key\" cannot be read"),
        ("fox.crt", "", "holds no key"),
    ] {
        if key == "fox.crt" {
            let closed = fs::Permissions::from_mode(0o600);
            fs::set_permissions(scene.folder.join(key), closed).expect("closed to others");
        }
        with("fox.crt", key, more).assert_refused(Code::TlsFailed, words);
    }
    with("stranger.crt", "stranger.key", "")
        .assert_refused(Code::TlsFailed, "the server refused the session");
    log_in(&scene.url("sslmode=require")).assert_refused(Code::AuthFailed, "client certificate");
    fs::set_permissions(scene.folder.join("fox.key"), fs::Permissions::from_mode(0o644))
        .expect("open to others");
    with("fox.crt", "fox.key", "").assert_refused(Code::TlsFailed, "0600");
}

#[test]
fn direct_tls_needs_no_question() {
    let scene = Scene::open(Server::start_version(18));
    let roots = scene.path("ca.crt");
    for mode in ["require", "verify-full"] {
        let url = scene.url(&format!("sslmode={mode}&sslrootcert={roots}&sslnegotiation=direct"));
        assert_eq!(log_in(&url), Outcome::Tls, "{mode}");
    }
    scene.server.admit("host all fox 127.0.0.1/32 scram-sha-256");
    let parameters = "sslmode=require&sslnegotiation=direct&channel_binding=require";
    let url = scene.url(parameters).replace("fox@", "fox:secret@");
    assert_eq!(log_in(&url), Outcome::Tls);
}

#[test]
fn a_server_that_knows_no_direct_tls_is_told_from_a_refusal() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    // As a server before 17 does with what is no message of its protocol.
    std::thread::spawn(move || listener.incoming().for_each(drop));
    let url = format!("postgres://fox@127.0.0.1:{port}/shop?sslmode=require&sslnegotiation=direct");
    let error = on_runtime(connect(&settings(&url))).expect_err("broken off");
    // It may be a server that is going down.
    assert_eq!(error.recovery(), Recovery::Retry);
    assert!(error.to_string().contains("sslnegotiation=direct"), "{error}");
    assert!(error.hint().expect("a hint").contains("PostgreSQL 17"));
}

#[test]
fn rows_are_published_by_tls_and_a_certificate_not_trusted_stops_the_daemon() {
    let shop = Shop::open();
    let authority = Claim::of("Authority", &[]).signed_by(None);
    shop.server.encrypt(&good(&authority), &authority);
    let clear = shop.server.url("shop");
    let roots = shop.settings.folder().join("ca.crt");
    authority.certificate(&roots);
    let (port, roots) = (shop.server.port(), roots.display().to_string());
    let encrypted = format!(
        "postgres://postgres@localhost:{port}/shop?sslmode=verify-full&sslrootcert={roots}"
    );
    let shop = shop.with_settings(|settings| settings.replaced(&clear, &encrypted));
    let daemon = publishing(&shop.settings);
    let ssl = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_replication USING (pid)";
    assert_eq!(shop.session.value(ssl).as_deref(), Some("t"));
    // One transaction of several megabytes: many records, read in large pieces.
    shop.session.run(
        "INSERT INTO outbox_events (id, aggregate_id, event_type, payload, created_at) \
         SELECT gen_random_uuid(), 'order-' || row, 'order.placed', \
         jsonb_build_object('text', repeat('x', row % 3000)), now() \
         FROM generate_series(1, 20000) AS row",
    );
    insert(&shop.session, 20);
    wait_until_published(&shop.session, "tailwater");
    stop(daemon);
    assert_eq!(published(&shop), 20_020);
    let stranger = Claim::of("Stranger", &[]).signed_by(None);
    stranger.certificate(&shop.settings.folder().join("ca.crt"));
    shop.refuse("tls_failed", "sslrootcert");
}
