//! Logging in to Kafka by TLS and SASL, and what is said where that is not right.

use std::{fs, time::Duration};

use crate::{
    refusals::{insert, refuse},
    support::{
        certificates::Claim,
        kafka::Broker,
        new_folder,
        postgres::Server,
        scene::{publishing, shop, stop, wait_until_published},
        settings::SettingsFile,
    },
};

/// What a mistake may take until it is told: librdkafka alone tries for ever.
const TOLD_MAX: Duration = Duration::from_secs(30);

#[test]
fn a_wrong_password_or_certificate_of_kafka_is_told_and_right_ones_publish() {
    let authority = Claim::of("Authority", &[]).signed_by(None);
    let folder = new_folder("certificates");
    let certificate = Claim::of("kafka", &["localhost", "127.0.0.1"]).signed_by(Some(&authority));
    let keystore = certificate.both(&folder.join("kafka.pem"));
    let broker = Broker::start_with(&format!(
        "listener.security.protocol.map=CONTROLLER:PLAINTEXT,CLIENT:PLAINTEXT,SECURE:SASL_SSL\n\
         listener.name.secure.sasl.enabled.mechanisms=PLAIN\n\
         listener.name.secure.plain.sasl.jaas.config=\
         org.apache.kafka.common.security.plain.PlainLoginModule required \
         user_tailwater=\"right\";\n\
         listener.name.secure.ssl.keystore.type=PEM\n\
         listener.name.secure.ssl.keystore.location={}\n",
        keystore.display()
    ));
    let server = Server::start();
    let session = shop(&server);
    let (password, roots) = (folder.join("password"), folder.join("ca.crt"));
    authority.certificate(&roots);
    fs::write(&password, "wrong\n").expect("written");
    let settings = SettingsFile::new(&server, &broker, "shop")
        .replaced(&broker.brokers(), &broker.secure_brokers())
        .with("[kafka]", &format!("password_file = \"{}\"", password.display()))
        .with(
            "[kafka]",
            &format!(
                "properties = {{ \"security.protocol\" = \"SASL_SSL\", \"sasl.mechanism\" = \
                 \"PLAIN\", \"sasl.username\" = \"tailwater\", \"ssl.ca.location\" = \"{}\" }}",
                roots.display()
            ),
        );
    let told = |code: &str, hint: &str| {
        let began = std::time::Instant::now();
        let ended = refuse(&settings, code, hint);
        // It is asked twice.
        assert!(began.elapsed() < 2 * TOLD_MAX, "{:?}: {}", began.elapsed(), ended.stderr);
        assert!(!ended.stderr.contains("wrong"), "{}", ended.stderr);
    };
    told("auth_failed", "kafka.password_file");

    fs::write(&password, "right\n").expect("written");
    Claim::of("Stranger", &[]).signed_by(None).certificate(&roots);
    told("tls_failed", "ssl.ca.location");

    authority.certificate(&roots);
    let daemon = publishing(&settings);
    insert(&session, 20);
    wait_until_published(&session, "tailwater");
    stop(daemon);
    assert_eq!(broker.read_committed("order.events").len(), 20);
}
