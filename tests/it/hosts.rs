//! Several hosts in `postgres.url`.

use std::fs;

use tailwater::postgres::{PostgresError, Settings, replication::Connection, sql::Sql};

use crate::{
    refusals::{Shop, insert, published},
    support::{
        PATIENCE,
        daemon::run,
        postgres::Server,
        scene::{publishing, stop, wait_until_published},
        wait_until,
    },
    tls::{on_runtime, settings},
};

fn identity(server: &Server) -> String {
    let sql = "SELECT system_identifier FROM pg_control_system()";
    server.session("postgres").value(sql).expect("an identifier")
}

/// Which cluster both connections lead to.
async fn found(settings: &Settings) -> Result<String, PostgresError> {
    let sql = Sql::connect(settings).await?;
    let mut replication = Connection::connect(settings).await?;
    let identity = "SELECT system_identifier::text FROM pg_control_system()";
    let rows = sql.rows("ask", identity, &[]).await?;
    let system_id = replication.identify_system().await?.system_id;
    assert_eq!(rows.first().map(|row| row.get::<_, String>(0)), Some(system_id.clone()));
    Ok(system_id)
}

#[test]
fn of_several_hosts_the_first_is_taken_that_is_no_standby() {
    let (standby, primary) = (Server::start(), Server::start());
    fs::write(standby.data_folder().join("standby.signal"), "").expect("written");
    standby.restart();
    let url = |first: &Server, second: &Server| {
        let (first, second) = (first.port(), second.port());
        format!("postgres://postgres@127.0.0.1:{first},127.0.0.1:{second}/postgres")
    };
    let found = |url: &str| on_runtime(found(&settings(url)));
    for url in [url(&standby, &primary), url(&primary, &standby)] {
        assert_eq!(found(&url).expect("the primary"), identity(&primary), "{url}");
    }
    // A standby alone is found, so that it can be said what it is.
    primary.kill();
    assert_eq!(found(&url(&primary, &standby)).expect("the standby"), identity(&standby));
    primary.restart();
    // One that does not answer is passed over.
    standby.kill();
    assert_eq!(found(&url(&standby, &primary)).expect("the primary"), identity(&primary));
    primary.kill();
    let error = found(&url(&standby, &primary)).expect_err("nobody is there");
    assert!(matches!(error, PostgresError::Connect { .. }), "{error}");
}

#[test]
fn a_daemon_goes_on_where_the_url_names_a_host_that_is_gone() {
    let shop = Shop::open();
    let port = shop.server.port();
    let shop = shop.with_settings(|settings| {
        // Nothing listens on port 1.
        settings.replaced(&format!("127.0.0.1:{port}"), &format!("127.0.0.1:1,127.0.0.1:{port}"))
    });
    let daemon = publishing(&shop.settings);
    insert(&shop.session, 5);
    wait_until_published(&shop.session, "tailwater");
    stop(daemon);
    assert_eq!(published(&shop), 5);
}

/// Gives `replica` the data of `primary`, and has it start as a standby, of nobody yet.
fn copy(primary: &Server, replica: &Server, settings: &str) {
    primary.stop();
    let backup = primary.copy_data();
    replica.stop();
    replica.restore_data(&backup);
    let path = replica.data_folder().join("postgresql.auto.conf");
    let text = fs::read_to_string(&path).expect("settings");
    let (from, to) = (primary.socket_folder().display(), replica.socket_folder().display());
    let text = text.replace(&from.to_string(), &to.to_string());
    let text = text.replace(&primary.port().to_string(), &replica.port().to_string());
    fs::write(&path, format!("{text}\n{settings}")).expect("written");
    fs::write(replica.data_folder().join("standby.signal"), "").expect("written");
    // Before the standby, which then finds it at once.
    primary.restart();
    replica.restart();
}

/// Has `replica` follow `primary` under that name.
pub fn follow(primary: &Server, replica: &Server, name: &str) {
    let port = primary.port();
    let place = format!("host=127.0.0.1 port={port} user=postgres application_name={name}");
    copy(primary, replica, &format!("primary_conninfo = '{place}'\n"));
}

/// Has `replica` go on with what `primary` has as a primary of its own, on the next timeline: what a
/// failover leaves where the former primary was only cut off.
fn fail_over(primary: &Server, replica: &Server) {
    copy(primary, replica, "");
    let session = replica.session("shop");
    session.run("SELECT pg_promote()");
    wait_until("the promotion", PATIENCE, || {
        session.value("SELECT pg_is_in_recovery()").as_deref() == Some("f")
    });
}

#[test]
fn a_former_primary_is_passed_over_and_alone_it_is_refused() {
    let shop = Shop::open();
    let daemon = publishing(&shop.settings);
    insert(&shop.session, 5);
    wait_until_published(&shop.session, "tailwater");
    stop(daemon);
    let replica = Server::start();
    fail_over(&shop.server, &replica);
    let session = replica.session("shop");
    // Published from the present primary, while the former one cannot be reached.
    shop.server.freeze();
    let (former, present) = (shop.server.port(), replica.port());
    let both = format!("127.0.0.1:{former},127.0.0.1:{present}");
    let shop =
        shop.with_settings(|settings| settings.replaced(&format!("127.0.0.1:{former}"), &both));
    let daemon = publishing(&shop.settings);
    insert(&session, 7);
    wait_until_published(&session, "tailwater");
    stop(daemon);
    assert_eq!(published(&shop), 12);
    // It comes back, and has rows of its own.
    shop.server.thaw();
    let shop = Shop { session: shop.server.session("shop"), ..shop };
    insert(&shop.session, 3);
    let daemon = publishing(&shop.settings);
    daemon.wait_for("a former primary; trying the next host");
    insert(&session, 2);
    wait_until_published(&session, "tailwater");
    // Whoever else is asked looks at the present one too.
    let ask = |command: &[&str]| run(command, &shop.settings);
    let checked = ask(&["check", "--json"]);
    assert_eq!(checked.code, Some(0), "{}", checked.stdout);
    assert!(checked.stdout.contains("a former primary among"), "{}", checked.stdout);
    let asked = ask(&["status", "--json"]);
    assert!(asked.code == Some(0) && asked.stdout.contains("\"running\""), "{asked:?}");
    let made = ask(&["init"]);
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    stop(daemon);
    assert_eq!(published(&shop), 14, "what the former primary has is not published");
    let shop =
        shop.with_settings(|settings| settings.replaced(&both, &format!("127.0.0.1:{former}")));
    shop.refuse("timeline_diverged", "former primary");
    for command in ["check", "status", "init"] {
        let ended = run(&[command], &shop.settings);
        let is_told =
            format!("{}{}", ended.stdout, ended.stderr).contains("code=timeline_diverged");
        assert!(ended.code == Some(1) && is_told, "{command}: {ended:?}");
    }
}
