//! From a row to the bytes of its record.

mod domain_table;

use super::{DeadLetter, Encoder};
use crate::{
    event::{
        EventError, Raw, Unmapped,
        fixture::{Outbox, transaction},
    },
    sink::{Batch, FailureStage, Headers, Subject},
};

/// More than any record here has.
const RECORD_BYTES_MAX: usize = 1 << 20;

/// A record as the sink gets it.
#[derive(PartialEq, Eq, Debug)]
struct Written {
    value: Option<String>,
    headers: Vec<(String, String)>,
}

impl Written {
    /// The texts of the headers of that name.
    fn headers_of(&self, name: &str) -> Vec<&str> {
        let named = self.headers.iter().filter(|(header, _)| header == name);
        named.map(|(_, value)| value.as_str()).collect()
    }
}

fn write(outbox: &Outbox) -> Result<Written, EventError> {
    let mut batch = Batch::default();
    outbox.map(|event| {
        let encoded = Encoder::new(RECORD_BYTES_MAX).encode(&event, &transaction(), 3, &mut batch);
        let _ = encoded.expect("the event is small");
    })?;
    let [record] = batch.records() else { panic!("one record") };
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    let headers: Vec<_> = Headers::new(batch.slice(record.headers))
        .map(|(name, value)| (text(name), text(value)))
        .collect();
    assert_eq!(headers.len(), usize::from(record.header_count));
    Ok(Written { value: record.value.map(|span| text(batch.slice(span))), headers })
}

/// What each record is of, as the sink reads it.
fn subjects(batch: &Batch) -> Vec<Option<Subject>> {
    let headers = batch.records().iter().map(|record| Headers::new(batch.slice(record.headers)));
    headers.map(Subject::of).collect()
}

/// What becomes of a record that Kafka refuses is decided by it.
#[test]
fn a_dead_letter_says_whose_it_is() {
    let raw = Raw::Message { prefix: "orders", content: b"{" };
    let letter = |request| DeadLetter {
        unmapped: Unmapped { topic: None, key: None, raw },
        topic: "orders.dlq",
        stage: FailureStage::Map,
        reason: "it is none",
        request,
    };
    let (mut batch, mut encoder) = (Batch::default(), Encoder::new(RECORD_BYTES_MAX));
    let place = transaction();
    encoder.encode_dead_letter(&letter(None), &place, 3, &mut batch).expect("small");
    encoder.encode_snapshot_dead_letter(&letter(Some("r")), &place, &mut batch).expect("small");
    encoder.encode_snapshot_dead_letter(&letter(None), &place, &mut batch).expect("small");
    let read_lsn = place.commit_lsn.lsn();
    let row = |request: Option<&str>| {
        Some(Subject::Row { read_lsn, request: request.map(str::to_owned) })
    };
    let of_transaction = Some(Subject::Transaction(place.commit_lsn));
    assert_eq!(subjects(&batch), [of_transaction, row(Some("r")), row(None)]);
}

/// A batch's memory must not grow for what is refused anyway.
#[test]
fn what_the_sink_cannot_take_is_refused_before_it_is_written() {
    let outbox = Outbox::of(crate::event::outbox::PayloadForm::Data);
    let mut batch = Batch::default();
    let mut error = None;
    let mapped = outbox.map(|event| {
        error = Encoder::new(1).encode(&event, &transaction(), 0, &mut batch).err();
    });
    mapped.expect("an event");
    let text = error.expect("two bytes are too many").to_string();
    assert!(text.contains("16/B374D848") && text.contains("takes 1"), "{text}");
    assert_eq!((batch.capacity(), batch.records().len()), (0, 0));
}

mod headers {
    use super::*;
    use crate::event::{
        fixture::{JSON, JSONB, TEXT, USER_TYPE},
        outbox::{ColumnName, PayloadForm},
    };

    fn with_headers(type_oid: crate::change::Oid, text: &str) -> Outbox {
        Outbox::of(PayloadForm::Data).with_column("headers", type_oid, text)
    }

    #[track_caller]
    fn assert_unmappable(outbox: &Outbox, words: &str) {
        let error = write(outbox).expect_err("no event");
        let text = error.to_string();
        assert!(matches!(error, EventError::Unmappable { .. }), "{text}");
        for part in ["public.outbox_events", "\"headers\"", "16/B374D848", words] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn a_header_name_as_long_as_a_record_takes_is_written() {
        let name = "n".repeat(65_535);
        let written = write(&with_headers(JSONB, &format!("{{\"{name}\": \"x\"}}")));
        assert_eq!(written.expect("an event").headers_of(&name), ["x"]);
    }

    #[test]
    fn a_longer_header_name_cannot_be_mapped() {
        let name = "n".repeat(65_536);
        assert_unmappable(&with_headers(JSONB, &format!("{{\"{name}\": 1}}")), "65535 bytes");
    }

    fn members(count: usize) -> String {
        let members: Vec<_> = (0..count).map(|number| format!("\"h{number}\": 1")).collect();
        format!("{{{}}}", members.join(", "))
    }

    #[test]
    fn as_many_headers_as_a_record_takes_are_written() {
        let written = write(&with_headers(JSONB, &members(65_000))).expect("an event");
        assert_eq!(written.headers_of("h64999"), ["1"]);
    }

    #[test]
    fn more_headers_cannot_be_mapped() {
        assert_unmappable(&with_headers(JSONB, &members(65_001)), "65000");
        assert_unmappable(&with_headers(JSONB, &members(70_000)), "65000");
    }

    #[test]
    fn a_domain_over_jsonb_holds_headers_under_any_name() {
        let configured = Outbox::of(PayloadForm::Data)
            .with_column("extra", USER_TYPE, "{\"tenant\": \"acme\"}")
            .with_settings(|settings| {
                settings.columns.headers = ColumnName::Configured("extra".to_owned());
            });
        for outbox in [configured, with_headers(USER_TYPE, "{\"tenant\": \"acme\"}")] {
            assert_eq!(write(&outbox).expect("an event").headers_of("tenant"), ["acme"]);
        }
    }

    #[test]
    fn headers_of_a_user_type_are_judged_value_by_value() {
        assert_unmappable(&with_headers(USER_TYPE, "\"tenant\"=>\"acme\""), "JSON object");
        assert_unmappable(&with_headers(USER_TYPE, "{\"tenant\": acme}"), "JSON object");
        assert!(write(&with_headers(USER_TYPE, "null")).is_ok());
    }

    #[test]
    fn headers_that_are_no_object_cannot_be_mapped() {
        assert_unmappable(&with_headers(JSONB, "[1]"), "is not a JSON object");
    }

    #[test]
    fn an_escape_that_is_no_character_cannot_be_mapped() {
        assert_unmappable(&with_headers(JSON, r#"{"a": "\ud800"}"#), "no character");
    }

    const EVERYTHING: &str = r#"{"content-type": "x", "schema-version": "x", "event-id": "x",
        "event-type": "x", "correlation-id": "x", "traceparent": "theirs", "pg-lsn": "x",
        "pg-seq": "x", "pg-xid": "x", "occurred-at": "theirs", "source": "theirs",
        "causation-id": "theirs", "tenant": "acme"}"#;

    #[track_caller]
    fn assert_each_once(written: &Written) {
        let mut names: Vec<_> = written.headers.iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all, "{:?}", written.headers);
        assert!(written.headers.iter().all(|(_, value)| value != "x"), "{:?}", written.headers);
        assert_eq!(written.headers_of("tenant"), ["acme"]);
    }

    #[test]
    fn our_own_headers_win_over_members_of_their_name() {
        let written = write(&with_headers(JSONB, EVERYTHING)).expect("an event");
        assert_each_once(&written);
        assert_eq!(written.headers_of("event-type"), ["order.placed"]);
        // What the record does not carry is the application's own.
        for name in ["traceparent", "occurred-at", "source", "causation-id"] {
            assert_eq!(written.headers_of(name), ["theirs"], "{name}");
        }
    }

    #[test]
    fn a_bare_value_has_more_headers_of_its_own() {
        let bare = Outbox::of(PayloadForm::Bare).with_column("headers", JSONB, EVERYTHING);
        let written = write(&bare).expect("an event");
        assert_each_once(&written);
        assert_eq!(written.headers_of("source"), ["order-service"]);
        assert_eq!(written.headers_of("occurred-at"), ["2026-03-01T11:59:59.500000Z"]);
        assert_eq!(written.headers_of("causation-id"), ["theirs"]);
        let caused = bare.with_column("causation_id", TEXT, "ours");
        let written = write(&caused).expect("an event");
        assert_each_once(&written);
        assert_eq!(written.headers_of("causation-id"), ["ours"]);
    }

    #[test]
    fn a_traceparent_is_taken_from_its_column_first() {
        let outbox = with_headers(JSONB, r#"{"traceparent": "member"}"#);
        let both = outbox.with_column("traceparent", TEXT, "column");
        assert_eq!(write(&both).expect("an event").headers_of("traceparent"), ["column"]);
        let null = both.with_null("traceparent");
        assert_eq!(write(&null).expect("an event").headers_of("traceparent"), ["member"]);
    }

    #[test]
    fn headers_of_the_settings_win_over_members() {
        let outbox = with_headers(JSONB, r#"{"tenant": "member", "region": "eu"}"#)
            .with_column("tenant_id", TEXT, "column")
            .with_settings(|settings| {
                settings.headers = vec![("tenant".to_owned(), "tenant_id".to_owned())];
            });
        let written = write(&outbox).expect("an event");
        assert_eq!(written.headers_of("tenant"), ["column"]);
        assert_eq!(written.headers_of("region"), ["eu"]);
        let null = write(&outbox.with_null("tenant_id")).expect("an event");
        assert_eq!(null.headers_of("tenant"), ["member"]);
    }

    #[test]
    fn of_members_with_one_name_the_last_becomes_the_header() {
        let json = with_headers(JSON, r#"{"a": 1, "a": 2, "b": 1, "b": null}"#);
        let written = write(&json).expect("an event");
        assert_eq!((written.headers_of("a"), written.headers_of("b")), (vec!["2"], vec![]));
    }
}

mod envelopes {
    use super::*;
    use crate::event::{
        fixture::{ID, INT8, JSON, TEXT},
        outbox::PayloadForm,
    };

    fn envelope(text: &str) -> Outbox {
        Outbox::of(PayloadForm::Envelope).with_column("payload", JSON, text)
    }

    #[track_caller]
    fn completed(text: &str) -> String {
        write(&envelope(text)).expect("an event").value.expect("a value")
    }

    #[track_caller]
    fn assert_unmappable(text: &str, words: &str) {
        let error = write(&envelope(text)).expect_err("no event");
        assert!(matches!(error, EventError::Unmappable { .. }), "{error}");
        assert!(error.to_string().contains(words), "{words}: {error}");
    }

    /// Every field but those, from the columns and the settings.
    fn fields_but(left_out: &[&str]) -> String {
        [
            ("id", ID),
            ("type", "order.placed"),
            ("version", "1.0"),
            ("source", "order-service"),
            ("correlationId", ID),
            ("occurredAt", "2026-03-01T11:59:59.500000Z"),
        ]
        .into_iter()
        .filter(|(name, _)| !left_out.contains(name))
        .map(|(name, value)| format!(",\"{name}\":\"{value}\""))
        .collect()
    }

    #[test]
    fn a_whole_envelope_stays_byte_for_byte() {
        let text = format!(
            " {{\"data\" : {{\"n\": 1.10}},\n \"type\":\"order.\\u0070laced\", \"id\":\"{ID}\", \
             \"version\":\"2\",\"source\":\"x\", \"correlationId\":\"c\", \"causationId\":\"d\", \
             \"occurredAt\":\"2026-03-01T13:00:00+01:00\", \"mine\":[1, {{}}]}} "
        );
        assert_eq!(completed(&text), text);
    }

    #[test]
    fn missing_fields_are_appended_in_order() {
        let expected = format!("{{\"data\": 1 {}}}", fields_but(&[]));
        assert_eq!(completed("{\"data\": 1 }"), expected);
    }

    #[test]
    fn a_null_field_is_cut_out_wherever_it_stands() {
        for (text, kept) in [
            ("{\"version\": null, \"data\": 1}", "{\"data\": 1"),
            ("{\"data\": 1, \"version\": null}", "{\"data\": 1"),
            ("{\"data\": 1, \"version\": null, \"x\": 2}", "{\"data\": 1, \"x\": 2"),
            ("{\"source\":null,\"version\" : null ,\"data\": 1}", "{\"data\": 1"),
            ("{\"source\":null, \"data\": 1, \"version\":null}", "{\"data\": 1"),
            ("{ \"v\\u0065rsion\": null, \"data\": null}", "{ \"data\": null"),
        ] {
            assert_eq!(completed(text), format!("{kept}{}}}", fields_but(&[])), "{text}");
        }
    }

    #[test]
    fn a_null_cause_that_nobody_knows_is_only_cut_out() {
        let expected = format!("{{\"data\": 1{}}}", fields_but(&[]));
        assert_eq!(completed("{\"causationId\": null, \"data\": 1}"), expected);
        let caused = envelope("{\"causationId\": null, \"data\": 1}").with_column(
            "causation_id",
            TEXT,
            "command \"7\"",
        );
        let value = write(&caused).expect("an event").value.expect("a value");
        assert!(value.contains(",\"causationId\":\"command \\\"7\\\"\","), "{value}");
    }

    #[test]
    fn fields_that_are_there_win() {
        let text = "{\"version\":\"3\",\"correlationId\":\"c-1\",\"source\":\"old\",\"data\":1,\
                    \"occurredAt\":\"1999-12-31T23:59:60Z\"}";
        let text = text.replace("1999-12-31T23:59:60Z", "2016-12-31T23:59:60.123456789+00:00");
        let outbox = envelope(&text).with_column("version", TEXT, "9").with_column(
            "correlation_id",
            TEXT,
            "c-9",
        );
        let written = write(&outbox).expect("an event");
        let without_brace = text.strip_suffix('}').expect("an object");
        let rest = fields_but(&["version", "correlationId", "source", "occurredAt"]);
        assert_eq!(written.value, Some(format!("{without_brace}{rest}}}")));
        assert_eq!(written.headers_of("schema-version"), ["3"]);
        assert_eq!(written.headers_of("correlation-id"), ["c-1"]);
    }

    #[test]
    fn unknown_fields_are_kept_as_they_are() {
        let text = "{\"tenant\": null, \"data\":{}, \"Data\" : 1e400, \"tenant\":[ ]}";
        let kept = text.strip_suffix('}').expect("an object");
        assert_eq!(completed(text), format!("{kept}{}}}", fields_but(&[])));
    }

    #[test]
    fn a_known_field_twice_cannot_be_mapped() {
        for text in [
            "{\"data\": 1, \"data\": 1}",
            "{\"version\": null, \"data\": 1, \"version\": \"1\"}",
            "{\"version\": \"1\", \"data\": 1, \"\\u0076ersion\": null}",
        ] {
            assert_unmappable(text, "is there twice");
        }
    }

    #[test]
    fn an_envelope_needs_its_data() {
        assert_unmappable("{}", "field \"data\" is missing");
        assert_unmappable("{\"version\": null}", "field \"data\" is missing");
        assert_unmappable("[]", "is not a JSON object");
    }

    #[test]
    fn fields_of_another_type_cannot_be_mapped() {
        for field in ["id", "type", "version", "source", "correlationId", "causationId"] {
            assert_unmappable(&format!("{{\"data\": 1, \"{field}\": 1}}"), "is not a string");
        }
        assert_unmappable("{\"data\": 1, \"source\": \"\\ud800\"}", "is no character");
    }

    #[test]
    fn instants_that_are_not_rfc_3339_cannot_be_mapped() {
        for instant in ["2026-03-01", "2026-03-01 12:00:00Z", "infinity", ""] {
            let text = format!("{{\"data\": 1, \"occurredAt\": \"{instant}\"}}");
            assert_unmappable(&text, "is not an RFC 3339 instant");
        }
    }

    #[test]
    fn a_type_must_be_that_of_the_column() {
        let text = "{\"data\": 1, \"type\": \"order.paid\"}";
        assert_unmappable(text, "field \"type\" contradicts column \"event_type\"");
    }

    #[test]
    fn an_id_in_upper_case_agrees_and_is_kept() {
        let text = format!("{{\"id\": \"{}\", \"data\": 1}}", ID.to_uppercase());
        let kept = text.strip_suffix('}').expect("an object");
        let written = write(&envelope(&text)).expect("an event");
        assert_eq!(written.headers_of("event-id"), [ID.to_uppercase()]);
        let rest = fields_but(&["id"]).replace(ID, &ID.to_uppercase());
        assert_eq!(written.value, Some(format!("{kept}{rest}}}")));
    }

    #[test]
    fn an_id_in_another_form_agrees_and_is_written_with_hyphens() {
        let plain = ID.replace('-', "");
        for id in
            [plain.clone(), format!("{{{ID}}}"), plain.to_uppercase(), format!("urn:uuid:{ID}")]
        {
            let text = format!("{{\"id\": \"{id}\", \"data\": 1}}");
            assert_eq!(completed(&text), format!("{{\"data\": 1{}}}", fields_but(&[])), "{id}");
        }
    }

    /// A key that is no UUID says nothing of the event's id, so that of the envelope wins.
    #[test]
    fn the_id_of_an_envelope_wins_over_one_made_of_a_key() {
        let of_key = |payload: &str| {
            let outbox = Outbox::of(PayloadForm::Envelope).with_column("payload", JSON, payload);
            write(&outbox.with_column("id", INT8, "42"))
        };
        let made = of_key("{\"data\": 1}").expect("an event").headers_of("event-id").concat();
        assert_eq!(made.as_bytes()[14], b'8');
        for id in [ID.to_owned(), ID.to_uppercase(), ID.replace('-', "")] {
            let written = of_key(&format!("{{\"id\": \"{id}\", \"data\": 1}}")).expect("an event");
            let published = written.headers_of("event-id").concat();
            assert_eq!(published.to_lowercase(), ID);
            let value = written.value.expect("a value");
            assert!(value.contains(&format!("\"{published}\"")), "{value}");
        }
        let error = of_key("{\"id\": \"42\", \"data\": 1}").expect_err("no UUID");
        assert!(error.to_string().contains("field \"id\" is not a UUID"), "{error}");
    }

    #[test]
    fn another_id_contradicts_in_every_form() {
        let other = ID.replace("a11", "a12");
        let plain = other.replace('-', "");
        for id in [other.clone(), other.to_uppercase(), plain, format!("{{{other}}}")] {
            let text = format!("{{\"id\": \"{id}\", \"data\": 1}}");
            assert_unmappable(&text, "field \"id\" contradicts column \"id\"");
        }
        for id in ["42", "", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1g"] {
            let text = format!("{{\"id\": \"{id}\", \"data\": 1}}");
            assert_unmappable(&text, "field \"id\" is not a UUID");
        }
    }
}

mod payloads {
    use super::*;
    use crate::event::{
        fixture::{BYTEA, ID, INT8, JSONB, NUMERIC, TEXT, TIMESTAMP, TIMESTAMPTZ, USER_TYPE},
        outbox::PayloadForm,
    };

    fn data(type_oid: crate::change::Oid, text: &str) -> Outbox {
        Outbox::of(PayloadForm::Data).with_column("payload", type_oid, text)
    }

    #[track_caller]
    fn assert_unmappable(outbox: &Outbox, words: &str) {
        let error = write(outbox).expect_err("no event");
        assert!(matches!(error, EventError::Unmappable { .. }), "{error}");
        assert!(error.to_string().contains(words), "{words}: {error}");
    }

    #[test]
    fn data_of_every_column_type_is_written_as_it_is() {
        let json = "{\"n\": 1.10, \"u\": \"\\u00e9\"}";
        let digits: String = json.bytes().map(|byte| format!("{byte:02x}")).collect();
        let hexadecimal = format!("\\x{digits}");
        for (type_oid, text) in [
            (JSONB, json),
            (TEXT, json),
            (BYTEA, &hexadecimal),
            (USER_TYPE, json),
            (USER_TYPE, &hexadecimal),
        ] {
            let value = write(&data(type_oid, text)).expect("an event").value.expect("a value");
            assert!(value.ends_with(&format!(",\"data\":{json}}}")), "{value}");
        }
    }

    #[test]
    fn what_is_no_json_cannot_be_mapped() {
        for type_oid in [TEXT, USER_TYPE] {
            assert_unmappable(&data(type_oid, "{\"a\": }"), "\"payload\" is not valid JSON");
        }
        assert_unmappable(&data(BYTEA, "\\x7b7b"), "is not valid JSON");
        assert_unmappable(&data(BYTEA, "\\x22ff22"), "is not valid UTF-8");
    }

    #[test]
    fn a_null_payload_is_null_data_a_null_value_or_no_envelope() {
        let null = |form| Outbox::of(form).with_null("payload");
        let value = write(&null(PayloadForm::Data)).expect("an event").value.expect("a value");
        assert!(value.ends_with(",\"data\":null}"), "{value}");
        assert_eq!(write(&null(PayloadForm::Bare)).expect("an event").value, None);
        assert_unmappable(&null(PayloadForm::Envelope), "column \"payload\" is NULL");
    }

    #[test]
    fn times_that_no_instant_says_cannot_be_mapped() {
        for (time, words) in [
            ("infinity", "is infinite"),
            ("-infinity", "is infinite"),
            ("0044-03-15 00:00:00+00 BC", "a year outside 0001 to 9999"),
            ("10000-01-01 00:00:00+00", "a year outside 0001 to 9999"),
        ] {
            for type_oid in [TIMESTAMPTZ, TIMESTAMP] {
                let time =
                    if type_oid == TIMESTAMP { time.replace("+00", "") } else { time.into() };
                let outbox = data(JSONB, "1").with_column("created_at", type_oid, &time);
                assert_unmappable(&outbox, words);
            }
        }
    }

    #[test]
    fn a_row_without_a_time_occurred_when_it_was_committed() {
        let committed = data(JSONB, "1").with_null("created_at");
        let value = write(&committed).expect("an event").value.expect("a value");
        assert!(value.contains("\"occurredAt\":\"2026-03-01T12:00:00.123456Z\""), "{value}");
        let utc = data(JSONB, "1").with_column("created_at", TIMESTAMP, "2026-03-01 07:00:00");
        let value = write(&utc).expect("an event").value.expect("a value");
        assert!(value.contains("\"occurredAt\":\"2026-03-01T07:00:00.000000Z\""), "{value}");
    }

    #[test]
    fn a_key_that_is_no_uuid_becomes_one_that_is_made_of_it() {
        let id_of = |type_oid, key: &str| {
            let event = write(&data(JSONB, "1").with_column("id", type_oid, key));
            event.expect("an event").headers_of("event-id").concat()
        };
        assert_eq!(id_of(INT8, "42"), id_of(TEXT, "42"));
        assert_ne!(id_of(INT8, "42"), id_of(INT8, "43"));
        // A number is never a UUID, however many digits it has.
        let digits = "12345678901234567890123456789012";
        assert_eq!(id_of(TEXT, digits).replace('-', ""), digits);
        assert_ne!(id_of(NUMERIC, digits), id_of(TEXT, digits));
    }

    #[test]
    fn what_every_event_needs_cannot_be_null_or_empty() {
        assert_unmappable(&data(JSONB, "1").with_null("id"), "\"id\" is NULL");
        assert_unmappable(&data(JSONB, "1").with_null("event_type"), "\"event_type\" is NULL");
        let empty = data(JSONB, "1").with_column("event_type", TEXT, "");
        assert_unmappable(&empty, "\"event_type\" is empty");
        let empty = data(JSONB, "1").with_column("id", TEXT, "");
        assert_unmappable(&empty, "\"id\" is empty");
        let plain = data(JSONB, "1").with_column("id", TEXT, &ID.replace('-', ""));
        assert_eq!(write(&plain).expect("an event").headers_of("event-id"), [ID]);
    }
}
