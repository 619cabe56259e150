//! What each reply of a server comes down to, word by word as 14 to 18 say it.

use super::*;

/// SQLSTATE, message, detail, and the code that they mean.
type Reply = (&'static str, &'static str, &'static str, Code);

const CODED: &[Reply] = &[
    ("28000", "no pg_hba.conf entry for replication connection", "", Code::AuthFailed),
    ("28P01", "password authentication failed for user \"fox\"", "", Code::AuthFailed),
    // 14 and 15, then 16 on.
    ("42501", "must be superuser or replication role to start walsender", "", NO_ROLE),
    ("42501", "permission denied to start WAL sender", "Only roles with …", NO_ROLE),
    ("53400", "all replication slots are in use", "", Code::NoFreeSlot),
    ("42704", "replication slot \"s\" does not exist", "", Code::SlotMissing),
    ("42704", "publication \"p\" does not exist", "", Code::PublicationMissing),
    ("55000", "logical decoding requires wal_level >= logical", "", Code::WalLevel),
    ("55000", "logical decoding requires \"wal_level\" >= \"logical\"", "", Code::WalLevel),
    ("55000", "replication slot \"s\" was not created in this database", "", WRONG_PLUGIN),
    ("55000", "cannot use physical replication slot for logical decoding", "", WRONG_PLUGIN),
    ("55000", "cannot read from logical replication slot \"s\"", EXCEEDED, INVALIDATED),
    ("55000", "can no longer get changes from replication slot \"s\"", EXCEEDED, INVALIDATED),
    ("55000", "can no longer access replication slot \"s\"", REMOVED, INVALIDATED),
    ("58P01", "requested WAL segment 0A has already been removed", "", INVALIDATED),
];

const NO_ROLE: Code = Code::NoReplicationRole;
const WRONG_PLUGIN: Code = Code::SlotWrongPlugin;
const INVALIDATED: Code = Code::SlotInvalidated;
const EXCEEDED: &str =
    "This slot has been invalidated because it exceeded the maximum reserved size.";
const REMOVED: &str = "This replication slot has been invalidated due to \"wal_removed\".";

const SETTINGS: Code = Code::Settings;

/// What the settings name is not there, or cannot be used so.
const MISTAKEN: &[Reply] = &[
    ("3D000", "database \"d\" does not exist", "", SETTINGS),
    ("42P01", "relation \"public.outbox\" does not exist", "", SETTINGS),
    ("3F000", "schema \"db\" does not exist", "", SETTINGS),
    ("42809", "cannot add relation \"v\" to publication", "not supported for views.", SETTINGS),
    ("22023", "cannot add relation \"u\" to publication", "not for unlogged tables.", SETTINGS),
    ("55000", "publication \"p\" is defined as FOR ALL TABLES", "Tables cannot be …", SETTINGS),
];

/// Commands that this server refuses, whoever is to blame.
const REFUSED: &[(&str, &str)] = &[
    ("0A000", "client sent proto_version=9 but server only supports protocol 4 or lower"),
    ("0A000", "cannot use different column lists for table \"public.t\" in different publications"),
    ("22023", "requested proto_version=1 does not support streaming, need 2 or higher"),
    ("42601", "streaming requires a Boolean value"),
    ("42602", "invalid publication_names syntax"),
    ("42703", "column \"x\" does not exist"),
    ("42883", "function to_jsonb(x) does not exist"),
    ("XX000", "unrecognized pgoutput option: x"),
    ("42704", "unrecognized configuration parameter \"x\""),
];

/// Replies that may be over soon, and one that nobody has heard of.
const PASSING: &[(&str, &str)] = &[
    ("55006", "replication slot \"s\" is active for PID 4711"),
    ("53300", "number of requested standby connections exceeds max_wal_senders"),
    ("57P01", "terminating connection due to administrator command"),
    ("57P03", "the database system is starting up"),
    ("08006", "connection failure"),
    ("58030", "could not read file"),
    ("58P01", "could not open file"),
    ("55000", "cannot do this at the moment"),
    ("42710", "replication slot \"s\" already exists"),
    ("XX000", "could not open relation with OID 16384"),
    ("99999", "nobody has heard of this"),
];

fn server(sqlstate: &str, message: &str, detail: &str) -> PostgresError {
    let source = ServerMessage {
        severity: "ERROR".to_owned(),
        sqlstate: sqlstate.to_owned(),
        message: message.to_owned(),
        detail: (!detail.is_empty()).then(|| detail.to_owned()),
        hint: Some("the server's own hint".to_owned()),
        position: None,
    };
    PostgresError::Server { action: "do it".to_owned(), source: Box::new(source) }
}

/// `pg_publication_tables` says it of a table that is dropped meanwhile.
#[test]
fn an_internal_error_of_a_statement_is_tried_again() {
    let error = server("XX000", "could not open relation with OID 16390", "");
    let PostgresError::Server { action, source } = error else { panic!("{error}") };
    assert_eq!(PostgresError::Statement { action, source }.recovery(), Recovery::Retry);
}

#[test]
fn replies_that_somebody_must_mend_have_a_code_and_a_hint() {
    for (sqlstate, message, detail, code) in CODED.iter().chain(MISTAKEN) {
        let error = server(sqlstate, message, detail);
        assert_eq!(error.code(), Some(*code), "{sqlstate} {message}");
        assert_eq!(error.recovery(), Recovery::Stop, "{sqlstate} {message}");
        let hint = error.hint().expect("a hint");
        assert_ne!(hint, "the server's own hint", "{sqlstate} {message}");
    }
}

#[test]
fn commands_that_are_refused_stop_with_the_servers_hint_and_ours() {
    for (sqlstate, message) in REFUSED {
        let error = server(sqlstate, message, "");
        assert_eq!(error.code(), Some(Code::Settings), "{sqlstate} {message}");
        assert_eq!(error.recovery(), Recovery::Stop, "{sqlstate} {message}");
        let hint = error.hint().expect("a hint");
        assert!(hint.starts_with("the server's own hint"), "{sqlstate} {message}: {hint}");
        assert!(hint.contains("PostgreSQL 14 to 18"), "{sqlstate} {message}: {hint}");
    }
}

#[test]
fn replies_that_may_be_over_soon_are_tried_again() {
    for (sqlstate, message) in PASSING {
        let error = server(sqlstate, message, "");
        assert_eq!(error.code(), None, "{sqlstate} {message}");
        assert_eq!(error.recovery(), Recovery::Retry, "{sqlstate} {message}");
    }
}

#[test]
fn a_name_in_a_message_does_not_change_its_meaning() {
    let of_slot = server("42704", "replication slot \"my_publication\" does not exist", "");
    assert_eq!(of_slot.code(), Some(Code::SlotMissing));
    let of_publication = server("42704", "publication \"replication slot\" does not exist", "");
    assert_eq!(of_publication.code(), Some(Code::PublicationMissing));
    let invalidated = "can no longer get changes from replication slot \"wal_level\"";
    assert_eq!(server("55000", invalidated, EXCEEDED).code(), Some(INVALIDATED));
}

#[test]
fn every_reason_of_an_invalidation_is_one() {
    let message = "can no longer access replication slot \"s\"";
    for reason in ["wal_removed", "rows_removed", "wal_level_insufficient", "idle_timeout"] {
        let detail = format!("This replication slot has been invalidated due to \"{reason}\".");
        assert_eq!(server("55000", message, &detail).code(), Some(INVALIDATED), "{reason}");
    }
}

#[test]
fn a_slots_holder_is_named_where_the_server_names_it() {
    let named = server("55006", "replication slot \"s\" is active for PID 4711", "");
    assert_eq!(named.slot_holder(), Some(4711));
    let unnamed = server("55006", "replication slot \"s\" is in use", "");
    assert_eq!(unnamed.slot_holder(), Some(0));
    let another = server("42704", "replication slot \"s\" is active for PID 4711", "");
    assert_eq!(another.slot_holder(), None);
    assert_eq!(PostgresError::Ended.slot_holder(), None);
}

#[test]
fn a_servers_words_are_the_source_and_hold_the_detail() {
    use std::error::Error;

    let error = server("55000", "no more", "Because.");
    assert_eq!(error.to_string(), "could not do it");
    let source = error.source().expect("the server's words").to_string();
    assert_eq!(source, "no more (SQLSTATE 55000): Because.");
}

#[test]
fn a_broken_connection_is_tried_again() {
    let action = || "do it".to_owned();
    let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
    let errors = [
        PostgresError::Connect { host: "db:5432".to_owned(), source: refused() },
        PostgresError::Lost { action: action(), source: Some(refused()) },
        PostgresError::Lost { action: action(), source: None },
        PostgresError::Silent { action: action(), seconds: 30 },
        PostgresError::Ended,
    ];
    let texts = [
        "could not connect to PostgreSQL at db:5432",
        "could not do it: the connection to PostgreSQL was lost",
        "could not do it: the connection to PostgreSQL was lost",
        "could not do it: no answer from PostgreSQL for 30 s",
        "PostgreSQL ended the replication stream",
    ];
    for (error, text) in errors.iter().zip(texts) {
        assert_eq!(error.to_string(), text);
        assert_eq!((error.recovery(), error.code()), (Recovery::Retry, None), "{error}");
        assert_eq!(error.hint(), None, "{error}");
    }
}

#[test]
fn what_is_not_the_protocol_stops() {
    let what = || "it".to_owned();
    let protocol = PostgresError::Protocol { what: what() };
    assert_eq!((protocol.recovery(), protocol.code()), (Recovery::Stop, Some(Code::NotConnected)));
    assert!(protocol.hint().expect("a hint").contains("postgres.url"));
    let authentication = PostgresError::Authentication { what: what() };
    assert_eq!(authentication.recovery(), Recovery::Stop);
    assert_eq!(authentication.code(), Some(Code::AuthFailed));
    let skipped = PostgresError::PublicationSkipped { publication: "p".to_owned() };
    assert_eq!(skipped.recovery(), Recovery::Stop);
    assert_eq!(skipped.code(), Some(Code::PublicationMissing));
    assert_eq!(skipped.sqlstate(), None);
}
