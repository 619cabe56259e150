//! The published schema, by events that it must accept and events that it must refuse.

use serde_json::{Value, json};

use crate::support::oracle::event_schema;

/// An event as Tailwater writes it around a payload.
fn event() -> Value {
    json!({
        "id": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        "type": "order.placed",
        "version": "1.0",
        "source": "order-service",
        "correlationId": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        "occurredAt": "2026-03-01T12:00:00.000000Z",
        "data": { "orderId": "order-7" }
    })
}

fn with(field: &str, value: Value) -> Value {
    let mut event = event();
    event[field] = value;
    event
}

#[track_caller]
fn assert_accepted(field: &str, values: impl IntoIterator<Item = Value>) {
    let schema = event_schema();
    for value in values {
        let event = with(field, value);
        if let Err(error) = schema.validate(&event) {
            panic!("{event}: {error}");
        }
    }
}

/// By its patterns alone: most validators look at `format` only where they are told to.
#[track_caller]
fn assert_refused(field: &str, values: impl IntoIterator<Item = Value>) {
    let text = include_str!("../../schemas/domain-event.schema.json");
    let schema = serde_json::from_str(text).expect("JSON");
    let schema = jsonschema::draft202012::new(&schema).expect("a schema");
    for value in values {
        let event = with(field, value);
        let error = schema.validate(&event).expect_err(&event.to_string());
        assert_eq!(error.instance_path().to_string(), format!("/{field}"), "{event}: {error}");
    }
}

#[test]
fn every_field_but_the_optional_ones_is_required() {
    let schema = event_schema();
    let whole = event();
    schema.validate(&whole).expect("an event");
    for field in whole.as_object().expect("an object").keys() {
        let mut event = event();
        event.as_object_mut().expect("an object").remove(field);
        assert!(!schema.is_valid(&event), "without {field}");
    }
    for value in [json!(null), json!([]), json!("order.placed"), json!({})] {
        assert!(!schema.is_valid(&value), "{value}");
    }
}

#[test]
fn an_id_is_a_uuid_with_hyphens() {
    assert_accepted("id", [json!("A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11")]);
    let braces = "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}";
    let newline = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11\n";
    let plain = "a0eebc999c0b4ef8bb6d6bb9bd380a11";
    assert_refused(
        "id",
        [json!(braces), json!(newline), json!(plain), json!(""), json!(7), json!(null)],
    );
}

#[test]
fn a_type_is_never_empty() {
    assert_accepted("type", [json!("order"), json!("Bestellung.bestätigt"), json!("a.b.c")]);
    assert_refused("type", [json!(""), json!(null), json!(["order.placed"])]);
}

#[test]
fn an_event_occurred_at_an_rfc_3339_instant() {
    assert_accepted(
        "occurredAt",
        [
            json!("2026-03-01T12:00:00Z"),
            json!("2026-03-01t12:00:00.1z"),
            json!("2024-02-29T23:59:59.123456789+05:30"),
            json!("0001-01-01T00:00:00-23:59"),
            json!("2016-12-31T23:59:60Z"),
        ],
    );
    assert_refused(
        "occurredAt",
        [
            json!("2026-03-01 12:00:00Z"),
            json!("2026-03-01T12:00:00"),
            json!("2026-03-01T12:00:00.Z"),
            json!("2026-03-01T12:00:00+0530"),
            json!("2026-13-01T12:00:00Z"),
            json!("2026-03-01T24:00:00Z"),
            json!("2026-03-01T12:00Z"),
            json!("2026-03-01T12:00:00Z\n"),
            json!("+12026-03-01T12:00:00Z"),
            json!("infinity"),
            json!(1_772_366_400),
            json!(null),
        ],
    );
}

#[test]
fn texts_of_the_application_are_texts() {
    for field in ["version", "source", "correlationId", "causationId"] {
        assert_accepted(field, [json!("2"), json!("Zoë 山田")]);
        assert_refused(field, [json!(1.0), json!(null), json!({})]);
    }
}

#[test]
fn data_is_any_json() {
    let all = [json!(null), json!(1e300), json!("text"), json!([]), json!({ "a": [null] })];
    assert_accepted("data", all);
}

#[test]
fn unavailable_columns_are_names() {
    assert_accepted("unavailable", [json!([]), json!(["picture"])]);
    let schema = event_schema();
    for value in [json!("picture"), json!([1]), json!(null)] {
        assert!(!schema.is_valid(&with("unavailable", value)));
    }
}

#[test]
fn unknown_fields_are_the_applications_own() {
    assert_accepted("tenant", [json!("acme"), json!(null), json!({ "deep": [] })]);
}
