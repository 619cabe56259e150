//! No secret in any log, error or answer, whatever is asked of it and however much it says.

use crate::{
    refusals::insert,
    support::{
        PATIENCE,
        daemon::{Daemon, run},
        kafka::Broker,
        new_folder,
        postgres::Server,
        scene::{shop, wait_until_published},
        settings::SettingsFile,
    },
};

/// Each of them as it is written, and none like another word.
const OF_THE_URL: &str = "pw-of-the-url-4711";
const OF_A_FILE: &str = "pw-of-a-file-4712";
const OF_A_PROPERTY: &str = "pw-of-a-property-4713";
const OF_A_KEY: &str = "pw-of-a-key-4714";
const OF_A_MASK: &str = "salt-of-a-mask-4715";
const SECRETS: [&str; 5] = [OF_THE_URL, OF_A_FILE, OF_A_PROPERTY, OF_A_KEY, OF_A_MASK];

/// What is asked of it, beside `run`.
const COMMANDS: [&[&str]; 8] = [
    &["init", "--print-sql"],
    &["check"],
    &["check", "--json"],
    &["init"],
    &["status"],
    &["status", "--json"],
    &["schema"],
    &["schema", "--format", "asyncapi"],
];

fn assert_discreet(what: &str, said: &str) {
    for secret in SECRETS {
        let place = said.find(secret).map(|at| &said[at.saturating_sub(200)..at]);
        assert!(place.is_none(), "{what} tells {secret} behind: {}", place.unwrap_or_default());
    }
}

fn assert_each_command_is_discreet(settings: &SettingsFile) {
    for arguments in COMMANDS {
        let ended = run(arguments, settings);
        assert_discreet(&format!("{arguments:?}"), &(ended.stdout + &ended.stderr));
    }
}

/// All that librdkafka and we can say.
const TALKATIVE: &str = "\n[log]\nfilter = \"trace\"\n";

#[test]
fn no_secret_is_told_by_a_pipeline_that_works() {
    let (server, broker) = (Server::start(), Broker::start());
    let session = shop(&server);
    session.run(&format!("CREATE ROLE discreet LOGIN SUPERUSER PASSWORD '{OF_THE_URL}'"));
    session.run("CREATE TABLE customers (id bigint PRIMARY KEY, email text)");
    server.admit("host all postgres all trust\nhost all all all scram-sha-256");
    let settings = SettingsFile::of_text(format!(
        "source = \"order-service\"\nmask_salt = \"{OF_A_MASK}\"\n\n[postgres]\nurl = \
         \"postgres://discreet:{OF_THE_URL}@127.0.0.1:{}/shop?sslpassword={OF_A_KEY}\"\n\n[kafka]\n\
         brokers = \"{}\"\nproperties = {{ \"sasl.password\" = \"{OF_A_PROPERTY}\", \
         \"ssl.key.password\" = \"{OF_A_KEY}\", \"debug\" = \"all\" }}\n\n[[outbox]]\ntable = \
         \"public.outbox_events\"\n\n[[table]]\nname = \"public.customers\"\ncolumns.mask = {{ \
         email = \"sha256\" }}\n{TALKATIVE}",
        server.port(),
        broker.brokers()
    ));
    assert_each_command_is_discreet(&settings);
    let (daemon, look) = (Daemon::start(&settings), Daemon::start_as("tail", &settings));
    look.wait_for("showing what is committed");
    insert(&session, 20);
    session.run("INSERT INTO customers VALUES (1, 'fox@example.org')");
    wait_until_published(&session, "tailwater");
    look.signal(libc::SIGTERM);
    assert_discreet("tail", &look.wait(PATIENCE).stderr);
    broker.restart();
    insert(&session, 20);
    wait_until_published(&session, "tailwater");
    daemon.signal(libc::SIGTERM);
    let ended = daemon.wait(PATIENCE);
    assert!(ended.stderr.contains("TRACE"), "it says all that it can: {}", ended.stderr);
    assert_discreet("run", &ended.stderr);
}

#[test]
fn no_secret_is_told_by_what_goes_wrong() {
    let (server, broker) = (Server::start(), Broker::start());
    let session = shop(&server);
    session.run("CREATE ROLE discreet LOGIN SUPERUSER PASSWORD 'another'");
    server.admit("host all postgres all trust\nhost all all all scram-sha-256");
    let folder = new_folder("secrets");
    let file = folder.join("password");
    std::fs::write(&file, format!("{OF_A_FILE}\n")).expect("written");
    let (port, brokers, file) = (server.port(), broker.brokers(), file.display());
    let database = format!("postgres://discreet:{OF_THE_URL}@127.0.0.1:{port}/shop");
    let text = |url: &str, of_postgres: &str, of_kafka: &str| {
        SettingsFile::of_text(format!(
            "source = \"order-service\"\n\n[postgres]\nurl = \"{url}\"\n{of_postgres}\n\n[kafka]\n\
             brokers = \"{brokers}\"\n{of_kafka}\n\n[[outbox]]\ntable = \"public.outbox_events\"\n\
             {TALKATIVE}"
        ))
    };
    let sasl = format!(
        "properties = {{ \"security.protocol\" = \"SASL_PLAINTEXT\", \"sasl.mechanism\" = \"PLAIN\", \
         \"sasl.username\" = \"tailwater\", \"sasl.password\" = \"{OF_A_PROPERTY}\" }}"
    );
    let trusted = format!("postgres://postgres:{OF_THE_URL}@127.0.0.1:{port}/shop");
    let password_file = format!("password_file = \"{file}\"");
    let salted = |salt: &str| {
        let salted = format!("source = \"order-service\"\nmask_salt = {salt}");
        text(&trusted, "", "").replaced("source = \"order-service\"", &salted)
    };
    for (what, settings, code) in [
        ("a wrong password", text(&database, "", ""), 1),
        ("a wrong password of a file", text(&database, &password_file, ""), 1),
        ("brokers without SASL", text(&trusted, "", &sasl), 1),
        ("a port that is none", text(&database.replace("/shop", "x/shop"), "", ""), 2),
        ("an unknown parameter", text(&format!("{database}?color=red"), "", ""), 2),
        ("a wrong value", text(&format!("{database}?sslmode=most"), "", ""), 2),
        ("a value of another kind", text(&database, "", "password_file = [7]"), 2),
        ("an unknown property", text(&database, "", &sasl.replace("sasl.mech", "sasl.moch")), 2),
        ("a salt of nothing", salted(&format!("\"{OF_A_MASK}\"")), 2),
        ("a salt in a list", salted(&format!("[\"{OF_A_MASK}\"]")), 2),
        ("a salt without its end", salted(&format!("\"{OF_A_MASK}")), 2),
        ("no TOML", text(&format!("{database}\"\"\""), "", &sasl), 2),
    ] {
        assert_each_command_is_discreet(&settings);
        // What only may pass is tried for ever by `run`, and for 30 s by `init`.
        let ended = run(&["init"], &settings);
        assert_eq!(ended.code, Some(code), "{what}: {}", ended.stderr);
        assert_discreet(what, &ended.stderr);
    }
}
