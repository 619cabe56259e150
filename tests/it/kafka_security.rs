//! Logging in to Kafka by TLS and SASL, and what is said where that is not right.

use std::{fs, path::Path, time::Duration};

use crate::{
    refusals::{insert, refuse},
    support::{
        certificates::{Claim, Identity},
        foreign,
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

/// A pipeline by way of the broker's secure listener, with these properties.
fn secured(server: &Server, broker: &Broker, properties: &[(&str, &str)]) -> SettingsFile {
    let properties: Vec<String> =
        properties.iter().map(|(name, value)| format!("\"{name}\" = \"{value}\"")).collect();
    SettingsFile::new(server, broker, "shop")
        .replaced(&broker.brokers(), &broker.secure_brokers())
        .with("[kafka]", &format!("properties = {{ {} }}", properties.join(", ")))
}

/// Rows that were committed are on Kafka, and whoever they went through was let in.
fn publishes(server: &Server, broker: &Broker, settings: &SettingsFile) {
    let session = server.session("shop");
    let daemon = publishing(settings);
    insert(&session, 20);
    wait_until_published(&session, "tailwater");
    stop(daemon);
    assert_eq!(broker.read_committed("order.events").len(), 20);
}

#[test]
fn scram_lets_in_who_has_the_password() {
    let broker = Broker::start_with(
        "listener.security.protocol.map=CONTROLLER:PLAINTEXT,CLIENT:PLAINTEXT,\
         SECURE:SASL_PLAINTEXT\n\
         listener.name.secure.sasl.enabled.mechanisms=SCRAM-SHA-512\n\
         listener.name.secure.scram-sha-512.sasl.jaas.config=\
         org.apache.kafka.common.security.scram.ScramLoginModule required;\n",
    );
    foreign::create_scram_user(&broker, "tailwater", "right");
    let server = Server::start();
    shop(&server);
    let with_password = |password: &str| {
        secured(
            &server,
            &broker,
            &[
                ("security.protocol", "SASL_PLAINTEXT"),
                ("sasl.mechanism", "SCRAM-SHA-512"),
                ("sasl.username", "tailwater"),
                ("sasl.password", password),
            ],
        )
    };
    let ended = refuse(&with_password("mistaken"), "auth_failed", "sasl.password");
    assert!(!ended.stderr.contains("mistaken"), "{}", ended.stderr);
    publishes(&server, &broker, &with_password("right"));
}

#[test]
fn a_broker_that_asks_for_a_certificate_lets_in_who_has_one() {
    let authority = Claim::of("Authority", &[]).signed_by(None);
    let folder = new_folder("certificates");
    let broker_identity =
        Claim::of("kafka", &["localhost", "127.0.0.1"]).signed_by(Some(&authority));
    let keystore = broker_identity.both(&folder.join("kafka.pem"));
    let roots = authority.certificate(&folder.join("ca.crt"));
    let broker = Broker::start_with(&format!(
        "listener.security.protocol.map=CONTROLLER:PLAINTEXT,CLIENT:PLAINTEXT,SECURE:SSL\n\
         listener.name.secure.ssl.client.auth=required\n\
         listener.name.secure.ssl.keystore.type=PEM\n\
         listener.name.secure.ssl.keystore.location={}\n\
         listener.name.secure.ssl.truststore.type=PEM\n\
         listener.name.secure.ssl.truststore.location={}\n",
        keystore.display(),
        roots.display()
    ));
    let server = Server::start();
    shop(&server);
    let path = |path: &Path| path.display().to_string();
    let of = |name: &str, signer: &Identity| {
        let identity = Claim::of(name, &[]).signed_by(Some(signer));
        let certificate = identity.certificate(&folder.join(format!("{name}.crt")));
        let key = identity.locked_key(&folder.join(format!("{name}.key")), "opens");
        secured(
            &server,
            &broker,
            &[
                ("security.protocol", "SSL"),
                ("ssl.ca.location", &path(&roots)),
                ("ssl.certificate.location", &path(&certificate)),
                ("ssl.key.location", &path(&key)),
                ("ssl.key.password", "opens"),
            ],
        )
    };
    let stranger = Claim::of("Other", &[]).signed_by(None);
    refuse(&of("stranger", &stranger), "tls_failed", "ssl.certificate.location");
    let nobody = [("security.protocol", "SSL"), ("ssl.ca.location", &path(&roots))];
    refuse(&secured(&server, &broker, &nobody), "tls_failed", "ssl.certificate.location");
    publishes(&server, &broker, &of("tailwater", &authority));
}

/// A broker that lets in who has a token with the scope `publish`. Nobody need have signed it: that
/// is how Kafka tests this, and all but the broker's look at the signature is as with a provider.
fn broker_with_tokens() -> Broker {
    Broker::start_with(
        "listener.security.protocol.map=CONTROLLER:PLAINTEXT,CLIENT:PLAINTEXT,\
         SECURE:SASL_PLAINTEXT\n\
         listener.name.secure.sasl.enabled.mechanisms=OAUTHBEARER\n\
         listener.name.secure.oauthbearer.sasl.jaas.config=\
         org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required \
         unsecuredLoginStringClaim_sub=\"kafka\" unsecuredValidatorRequiredScope=\"publish\";\n",
    )
}

#[test]
fn oauthbearer_lets_in_who_has_a_token() {
    let broker = broker_with_tokens();
    let server = Server::start();
    shop(&server);
    let with_scope = |scope: &str| {
        secured(
            &server,
            &broker,
            &[
                ("security.protocol", "SASL_PLAINTEXT"),
                ("sasl.mechanism", "OAUTHBEARER"),
                ("enable.sasl.oauthbearer.unsecure.jwt", "true"),
                ("sasl.oauthbearer.config", &format!("principal=tailwater scope={scope}")),
            ],
        )
    };
    refuse(&with_scope("read"), "auth_failed", "sasl.mechanism");
    publishes(&server, &broker, &with_scope("publish"));
}

/// A provider of tokens, as OpenID Connect has them: by HTTPS, to who knows a secret.
#[cfg(feature = "oidc")]
mod provider {
    use std::{
        io::{Read, Write},
        net::TcpListener,
        path::Path,
        thread,
        time::{Duration, SystemTime, UNIX_EPOCH},
    };

    use openssl::{
        base64::encode_block,
        ssl::{SslAcceptor, SslFiletype, SslMethod},
    };

    use crate::support::certificates::Identity;

    /// Where it gives tokens with the scope `publish` to who logs in like this. It ends with the
    /// tests.
    pub fn start(
        identity: &Identity,
        folder: &Path,
        id: &'static str,
        secret: &'static str,
    ) -> String {
        let mut tls = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls()).expect("TLS");
        let certificate = identity.certificate(&folder.join("provider.crt"));
        tls.set_certificate_chain_file(certificate).expect("a certificate");
        let key = identity.key(&folder.join("provider.key"));
        tls.set_private_key_file(key, SslFiletype::PEM).expect("a key");
        let tls = tls.build();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(mut client) = tls.accept(client) else { continue };
                let mut request = [0; 8192];
                let length = client.read(&mut request).unwrap_or(0);
                let request = String::from_utf8_lossy(&request[..length]).into_owned();
                let login = format!("Basic {}", encode_block(format!("{id}:{secret}").as_bytes()));
                let (status, body) = match request.contains(&login) {
                    true => ("200 OK", format!("{{\"access_token\": \"{}\"}}", token())),
                    false => ("401 Unauthorized", "{\"error\": \"invalid_client\"}".to_owned()),
                };
                let _ = write!(
                    client,
                    "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: \
                     {}\r\nConnection: close\r\n\r\n{body}",
                    body.len()
                );
                let _ = client.shutdown();
            }
        });
        format!("https://localhost:{port}/token")
    }

    /// One that nobody signed, good for a few minutes.
    fn token() -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        let end = (now + Duration::from_secs(300)).as_secs();
        let claims = format!(
            "{{\"sub\": \"tailwater\", \"scope\": \"publish\", \"iat\": {}, \"exp\": {end}}}",
            now.as_secs()
        );
        let url_safe = |text: &str| {
            let text = encode_block(text.as_bytes());
            text.trim_end_matches('=').replace('+', "-").replace('/', "_")
        };
        format!("{}.{}.", url_safe("{\"alg\": \"none\"}"), url_safe(&claims))
    }
}

#[cfg(feature = "oidc")]
#[test]
fn a_provider_of_tokens_lets_in_who_knows_its_secret() {
    let broker = broker_with_tokens();
    let authority = Claim::of("Authority", &[]).signed_by(None);
    let folder = new_folder("certificates");
    let roots = authority.certificate(&folder.join("ca.crt")).display().to_string();
    let identity = Claim::of("provider", &["localhost"]).signed_by(Some(&authority));
    let endpoint = provider::start(&identity, &folder, "tailwater", "sesame");
    let server = Server::start();
    shop(&server);
    let with_secret = |secret: &str| {
        secured(
            &server,
            &broker,
            &[
                ("security.protocol", "SASL_PLAINTEXT"),
                ("sasl.mechanism", "OAUTHBEARER"),
                ("sasl.oauthbearer.method", "oidc"),
                ("sasl.oauthbearer.client.id", "tailwater"),
                ("sasl.oauthbearer.client.secret", secret),
                ("sasl.oauthbearer.token.endpoint.url", &endpoint),
                ("https.ca.location", &roots),
            ],
        )
    };
    let ended = refuse(&with_secret("mistaken"), "auth_failed", "sasl.mechanism");
    assert!(!ended.stderr.contains("mistaken"), "{}", ended.stderr);
    publishes(&server, &broker, &with_secret("sesame"));
}
