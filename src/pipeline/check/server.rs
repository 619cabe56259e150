//! The server: whether it is the right one, and whether it lets us replicate.

use super::{
    finding::Finding,
    standby_names::{self, Match, Naming},
};
use crate::{
    failure::Code,
    pipeline::{
        refusal::Refusal,
        settings::Settings,
        start::{Failed, Server, connect_replication, identify},
    },
    postgres::{
        self, PostgresError, catalog,
        diagnosis::{self, Diagnosis},
        name::quote_literal,
        quote_identifier, slot,
        sql::Sql,
    },
};

/// The oldest server that we speak to.
const VERSION_MIN: i32 = 140_000;

/// Below this a pause of ours, as a status every ten seconds, could cost the connection.
const SENDER_TIMEOUT_MIN_MS: u64 = 20_000;

/// Nobody is logged in.
pub(super) fn unreached(settings: &Settings, failure: &Failed) -> Finding {
    const NAME: &str = "postgres";
    let error: &dyn std::error::Error = &**failure;
    let said = error.downcast_ref().and_then(PostgresError::server_message);
    // What it says where it asks for no password; else it does not tell such a role from others.
    let has_no_role = said
        .is_some_and(|said| said.sqlstate == "28000" && said.message.ends_with("does not exist"));
    if has_no_role {
        let role = quote_identifier(&settings.postgres.user);
        let fix = format!("CREATE ROLE {role} LOGIN REPLICATION; -- and PASSWORD '…' as it needs");
        return Finding::refused(NAME, &**failure, fix);
    }
    Finding::of(NAME, &**failure)
}

/// What is known of the server.
pub(super) struct Examined {
    pub(super) diagnosis: Diagnosis,
    pub(super) is_in_recovery: bool,
    /// None where we may not replicate.
    pub(super) server: Option<Server>,
}

/// Looks at the server. What follows needs a primary, and says so where this is none.
pub(super) async fn examine(
    settings: &Settings,
    sql: &Sql,
    findings: &mut Vec<Finding>,
) -> Result<Examined, PostgresError> {
    let diagnosis = diagnosis::server(sql).await?;
    let facts = catalog::server(sql).await?;
    findings.push(version(&settings.postgres, &diagnosis));
    if facts.is_in_recovery {
        let refusal = Refusal::InRecovery { host: settings.postgres.hosts() };
        let fix =
            "name the primary in postgres.url (several hosts: the primary among them is found)";
        findings.push(Finding::refused("primary", &refusal, fix));
    } else {
        findings.push(Finding::fine("primary", "it is no standby"));
    }
    findings.push(match facts.wal_level.as_str() {
        "logical" => Finding::fine("wal_level", "logical"),
        _ => Finding::refused(
            "wal_level",
            &Refusal::WalLevel { wal_level: facts.wal_level.clone() },
            "ALTER SYSTEM SET wal_level = 'logical'; -- then restart PostgreSQL (managed services \
             have a parameter of their own for it)",
        ),
    });
    let is_first_start = slot::describe(sql, &settings.slot).await?.is_none();
    let server = replication(settings, &diagnosis, is_first_start, findings).await;
    findings.push(standbys(settings, sql, &diagnosis).await?);
    findings.push(retention(&diagnosis));
    Ok(Examined { diagnosis, is_in_recovery: facts.is_in_recovery, server })
}

fn version(place: &postgres::Settings, diagnosis: &Diagnosis) -> Finding {
    let (host, version) = (place.hosts(), &diagnosis.version);
    let postgres::Settings { user, database, .. } = place;
    if diagnosis.version_number < VERSION_MIN {
        return Finding::wrong(
            "postgres",
            Some(Code::Settings),
            format!("the server at {host} is PostgreSQL {version}, and 14 is the least"),
            "upgrade PostgreSQL to 14 or later",
        );
    }
    Finding::fine(
        "postgres",
        format!("PostgreSQL {version} at {host}, database {database}, role {user}"),
    )
}

/// The right to replicate is found out by doing it: managed services grant it by a membership.
async fn replication(
    settings: &Settings,
    diagnosis: &Diagnosis,
    is_first_start: bool,
    findings: &mut Vec<Finding>,
) -> Option<Server> {
    let role = &settings.postgres.user;
    let mut connection = match connect_replication(settings).await {
        Ok(connection) => connection,
        Err(failure) => {
            findings.push(refused(role, diagnosis, &failure));
            return None;
        }
    };
    let timeout = connection.setting("wal_sender_timeout").await;
    match (timeout, identify(&mut connection).await) {
        (Ok(timeout), Ok(server)) => {
            findings.push(Finding::fine("role", format!("role {role} may replicate")));
            findings.push(senders(diagnosis, is_first_start));
            findings.push(sender_timeout(role, &timeout));
            Some(server)
        }
        (Err(error), _) => {
            findings.push(Finding::of("role", &error));
            None
        }
        (_, Err(failure)) => {
            findings.push(Finding::of("role", &*failure));
            None
        }
    }
}

fn refused(role: &str, diagnosis: &Diagnosis, failure: &Failed) -> Finding {
    if failure.code() == Some(Code::NoReplicationRole) {
        let fix = format!(
            "ALTER ROLE {quoted} REPLICATION; -- Amazon RDS: GRANT rds_replication TO {quoted};",
            quoted = quote_identifier(role)
        );
        return Finding::refused("role", &**failure, fix);
    }
    // 53300 says it of walsenders and of connections of whatever kind.
    if diagnosis.senders >= diagnosis.senders_max {
        return Finding::refused("wal_senders", &**failure, more_senders(diagnosis));
    }
    Finding::of("role", &**failure)
}

/// One was free, for we got it. A first start needs another one for a moment, to make its slot.
fn senders(diagnosis: &Diagnosis, is_first_start: bool) -> Finding {
    let Diagnosis { senders, senders_max, .. } = diagnosis;
    let detail = format!("{senders} of max_wal_senders = {senders_max} in use");
    if is_first_start && senders + 2 > *senders_max {
        let detail = format!("{detail}, and a first start needs two for a moment");
        return Finding::wrong("wal_senders", None, detail, more_senders(diagnosis));
    }
    Finding::fine("wal_senders", detail)
}

fn more_senders(diagnosis: &Diagnosis) -> String {
    format!(
        "ALTER SYSTEM SET max_wal_senders = {}; -- then restart PostgreSQL",
        diagnosis.senders_max + 4
    )
}

/// We ask for 60 s at login, over whatever the server, database or role say; a proxy may lose that.
fn sender_timeout(role: &str, timeout: &str) -> Finding {
    let is_short =
        milliseconds(timeout).is_some_and(|limit| (1..SENDER_TIMEOUT_MIN_MS).contains(&limit));
    if is_short {
        return Finding::wrong(
            "wal_sender_timeout",
            None,
            format!("wal_sender_timeout is {timeout} for our connection: a pause would end it"),
            format!(
                "ALTER ROLE {} SET wal_sender_timeout = '60s'; -- what stands between us and \
                 PostgreSQL does not pass on the options of a connection",
                quote_identifier(role)
            ),
        );
    }
    Finding::fine("wal_sender_timeout", format!("{timeout}, for our connection"))
}

/// A duration as the server writes it, in the largest unit that it is a multiple of.
fn milliseconds(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "ms" | "" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

async fn standbys(
    settings: &Settings,
    sql: &Sql,
    diagnosis: &Diagnosis,
) -> Result<Finding, PostgresError> {
    const NAME: &str = "synchronous_standby_names";
    let setting = &diagnosis.synchronous_standby_names;
    let application = &settings.postgres.application_name;
    let detail = format!(
        "{NAME} = '{setting}' takes our walsender (application_name {application}) for a standby: \
         commits would wait until their events are on Kafka"
    );
    Ok(match standby_names::find(setting, application) {
        None => Finding::fine(NAME, format!("'{setting}': no commit waits for us")),
        Some(Match::Name) => Finding::wrong(
            NAME,
            None,
            detail,
            format!("add application_name={application}_events to the parameters of postgres.url"),
        ),
        Some(Match::Everybody) => {
            let standbys = diagnosis::standbys(sql, application).await?;
            Finding::wrong(NAME, None, detail, name_standbys(setting, standbys))
        }
    })
}

/// Names the standbys, where they can be seen, in the place of everybody.
fn name_standbys(setting: &str, standbys: Vec<Option<String>>) -> String {
    const NAME: &str = "synchronous_standby_names";
    let named: Option<Vec<String>> = standbys.into_iter().collect();
    let Some(named) = named else {
        return format!(
            "write the names of the standbys (their application_name in pg_stat_replication, which \
             shows them to members of pg_monitor) in the place of * in {NAME}"
        );
    };
    let Some(Naming { value, lowered_from }) = standby_names::naming(setting, &named) else {
        return format!(
            "write the names of the standbys (their application_name, which is cluster_name unless \
             primary_conninfo has one) in the place of * in {NAME}; none is connected at this \
             moment. Where there are to be none, write '': no commit waits for any"
        );
    };
    let lowered = lowered_from.map_or(String::new(), |wanted| {
        format!(
            "commits waited for {wanted}, and {} connected: raise the number again when they are \
             more; ",
            match named.len() {
                1 => "1 is".to_owned(),
                number => format!("{number} are"),
            }
        )
    });
    format!(
        "ALTER SYSTEM SET {NAME} = {}; SELECT pg_reload_conf(); -- {lowered}add the names of \
         standbys that are not connected at this moment",
        quote_literal(&value)
    )
}

/// What the server keeps for a slot whose daemon is away, and for how long. Only its operator can say
/// whether that is right.
fn retention(diagnosis: &Diagnosis) -> Finding {
    const NAME: &str = "wal_retention";
    let bound = match diagnosis.slot_wal_keep_mebibytes {
        Some(mebibytes) => format!(
            "max_slot_wal_keep_size: a slot that would hold more than {mebibytes} MiB is lost"
        ),
        None => "no max_slot_wal_keep_size: while the daemon is away, WAL is kept until the \
                 disk is full"
            .to_owned(),
    };
    let timeout = diagnosis.idle_slot_timeout_seconds.map(|seconds| {
        format!(
            "; idle_replication_slot_timeout: it is lost too when the daemon is away for \
             {seconds} s"
        )
    });
    match (diagnosis.slot_wal_keep_mebibytes, timeout) {
        (Some(_), None) => Finding::fine(NAME, bound),
        (_, timeout) => Finding::note(NAME, bound + &timeout.unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::check::Verdict;

    #[test]
    fn a_short_wal_sender_timeout_is_found_in_every_unit() {
        for (timeout, is_ok) in [
            ("1min", true),
            ("0", true),
            ("20s", true),
            ("19s", false),
            ("500ms", false),
            ("1h", true),
            ("somewhat", true),
        ] {
            let found = sender_timeout("tail\"water", timeout);
            assert_eq!(found.is_ok(), is_ok, "{timeout}");
        }
        let fix = sender_timeout("tail\"water", "1s").fix.expect("a fix");
        assert!(fix.starts_with("ALTER ROLE \"tail\"\"water\" SET wal_sender_timeout = '60s';"));
    }

    fn diagnosis() -> Diagnosis {
        Diagnosis {
            version: "18.4".to_owned(),
            version_number: 180_004,
            slots_max: 10,
            slots: 0,
            senders_max: 10,
            senders: 1,
            slot_wal_keep_mebibytes: Some(64),
            idle_slot_timeout_seconds: None,
            synchronous_standby_names: String::new(),
            synchronized_standby_slots: None,
            physical_slots: 0,
        }
    }

    #[test]
    fn standbys_that_cannot_be_seen_or_are_not_there_are_named_in_no_sql() {
        let standby = |name: &str| Some(name.to_owned());
        for standbys in [vec![], vec![standby("s1"), None]] {
            let fix = name_standbys("ANY 1 (*)", standbys);
            assert!(fix.starts_with("write the names of the standbys"), "{fix}");
            assert!(!fix.contains("ALTER SYSTEM"), "{fix}");
        }
        let fix = name_standbys("ANY 3 (*)", vec![standby("s1"), standby("it's")]);
        let expected = "ALTER SYSTEM SET synchronous_standby_names = 'ANY 2 (\"s1\", \"it''s\")'; \
                        SELECT pg_reload_conf(); -- commits waited for 3, and 2 are connected";
        assert!(fix.starts_with(expected), "{fix}");
    }

    #[test]
    fn a_server_before_14_is_found() {
        let place = postgres::Settings {
            host: postgres::Host::Tcp { host: "db".to_owned(), port: 5432 },
            other_hosts: Vec::new(),
            user: "tailwater".to_owned(),
            password: None,
            database: "shop".to_owned(),
            application_name: "tailwater".to_owned(),
            encryption: postgres::Encryption::NONE,
        };
        assert!(version(&place, &diagnosis()).is_ok());
        let old = Diagnosis { version: "13.9".to_owned(), version_number: 130_009, ..diagnosis() };
        let found = version(&place, &old);
        assert_eq!(found.verdict, Verdict::Wrong(Some(Code::Settings)));
        assert!(found.detail.starts_with("the server at db:5432 is PostgreSQL 13.9"), "{found:?}");
    }

    #[test]
    fn what_may_happen_to_a_slot_without_a_daemon_is_told() {
        assert_eq!(retention(&diagnosis()).verdict, Verdict::Fine);
        let found = retention(&Diagnosis { idle_slot_timeout_seconds: Some(3600), ..diagnosis() });
        assert_eq!(found.verdict, Verdict::Note);
        assert!(found.detail.contains("64 MiB") && found.detail.contains("3600 s"), "{found:?}");
        let found = retention(&Diagnosis { slot_wal_keep_mebibytes: None, ..diagnosis() });
        assert!(found.detail.contains("until the disk is full"), "{found:?}");
    }
}
