//! Several hosts in `postgres.url`.

use std::fs;

use tailwater::postgres::{PostgresError, Settings, replication::Connection, sql::Sql};

use crate::{
    refusals::{Shop, insert, published},
    support::{
        postgres::Server,
        scene::{publishing, stop, wait_until_published},
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
