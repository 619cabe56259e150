//! Forms by type and setting.

use super::*;
use crate::{
    change::Oid,
    value::{Field, built_in::built_in},
};

fn known(oid: u32) -> Arc<Type> {
    Arc::clone(built_in(Oid(oid)).expect("a type that is built in"))
}

fn named(oid: u32, kind: Kind) -> Arc<Type> {
    Arc::new(Type { oid: Oid(oid), name: format!("public.t{oid}"), kind })
}

fn domain(base: Arc<Type>) -> Arc<Type> {
    named(17_000, Kind::Domain { base })
}

fn array(element: Arc<Type>) -> Arc<Type> {
    named(17_001, Kind::Array { element, delimiter: b',' })
}

fn composite(field_types: Vec<Arc<Type>>) -> Arc<Type> {
    let field =
        |(index, field_type): (usize, Arc<Type>)| Field { name: format!("f{index}"), field_type };
    let fields = field_types.into_iter().enumerate().map(field).collect();
    named(17_002, Kind::Composite { fields })
}

fn written(form: &Form, text: &str) -> String {
    let mut target = Vec::new();
    let written = form.write(text.as_bytes(), &mut target);
    assert_eq!(written, Ok(Written::AsDescribed), "{text}");
    String::from_utf8(target).expect("UTF-8")
}

const OTHER: Options =
    Options { int8: Int8Form::String, numeric: NumericForm::Number, bytea: ByteaForm::Hex };

#[test]
fn each_type_has_its_form() {
    for (oid, text, expected) in [
        (built_in::BOOL, "t", "true"),
        (built_in::BOOL, "f", "false"),
        (built_in::INT2, "-32768", "-32768"),
        (built_in::INT4, "2147483647", "2147483647"),
        (built_in::INT8, "-9223372036854775808", "-9223372036854775808"),
        (built_in::OID, "4294967295", "4294967295"),
        (built_in::FLOAT4, "-0", "-0"),
        (built_in::FLOAT8, "1e-05", "1e-05"),
        (built_in::FLOAT8, "1.7976931348623157e+308", "1.7976931348623157e+308"),
        (built_in::FLOAT8, "-Infinity", "\"-Infinity\""),
        (built_in::NUMERIC, "12.50", "\"12.50\""),
        (built_in::NUMERIC, "NaN", "\"NaN\""),
        (built_in::TIMESTAMP, "2026-02-03 04:05:06", "\"2026-02-03T04:05:06\""),
        (built_in::TIMESTAMPTZ, "2026-02-03 04:05:06+00", "\"2026-02-03T04:05:06Z\""),
        (built_in::JSON, "{\"a\" : 1.50, \"a\":\n2}", "{\"a\" : 1.50, \"a\":\n2}"),
        (built_in::JSONB, "null", "null"),
        (built_in::BYTEA, "\\x00ff5c", "\"AP9c\""),
        // time, interval, int2vector, int8range, text
        (1083, "24:00:00", "\"24:00:00\""),
        (1186, "P1Y2M-3DT4H5M6.789S", "\"P1Y2M-3DT4H5M6.789S\""),
        (22, "1 2", "\"1 2\""),
        (3926, "[1,6)", "\"[1,6)\""),
        (25, "a\"b\n", "\"a\\\"b\\n\""),
        // int8[], jsonb[], boolean[], timestamptz[]
        (1016, "{1,NULL}", "[1,null]"),
        (
            3807,
            r#"{"{\"a\": [1, null]}",null,NULL,"\"NULL\""}"#,
            "[{\"a\": [1, null]},null,null,\"NULL\"]",
        ),
        (1000, "{{t},{f}}", "[[true],[false]]"),
        (1185, r#"{"2026-02-03 04:05:06+00",infinity}"#, "[\"2026-02-03T04:05:06Z\",\"infinity\"]"),
    ] {
        assert_eq!(written(&Form::of(&known(oid), Options::default()), text), expected);
    }
}

#[test]
fn options_hold_for_elements_bases_and_fields() {
    let bigint = known(built_in::INT8);
    for (described, text, plain, other) in [
        (known(1016), "{1}", "[1]", "[\"1\"]"),
        (known(1231), "{1.50,NaN}", "[\"1.50\",\"NaN\"]", "[1.50,\"NaN\"]"),
        (known(1001), r#"{"\\x00"}"#, "[\"AA==\"]", "[\"00\"]"),
        (domain(domain(Arc::clone(&bigint))), "1", "1", "\"1\""),
        (array(domain(array(bigint))), r#"{"{1,2}","{}"}"#, "[[1,2],[]]", "[[\"1\",\"2\"],[]]"),
        (
            composite(vec![known(1016), known(built_in::BYTEA)]),
            r#"({1},"\\xff")"#,
            r#"{"f0":[1],"f1":"/w=="}"#,
            r#"{"f0":["1"],"f1":"ff"}"#,
        ),
    ] {
        assert_eq!(written(&Form::of(&described, Options::default()), text), plain);
        assert_eq!(written(&Form::of(&described, OTHER), text), other);
    }
}

#[test]
fn a_columns_own_form_wins_over_the_options() {
    for (described, form, text, expected) in [
        (known(built_in::INT8), ColumnForm::Number, "1", "1"),
        (known(built_in::NUMERIC), ColumnForm::String, "1.5", "\"1.5\""),
        (array(domain(known(built_in::BYTEA))), ColumnForm::Base64, r#"{"\\xff"}"#, "[\"/w==\"]"),
    ] {
        let of_column = Form::of_column(&described, OTHER, Some(form)).expect("a form of the type");
        assert_eq!(written(&of_column, text), expected);
    }
    let default = Options::default();
    for (oid, form, text, expected) in [
        (built_in::INT8, ColumnForm::String, "1", "\"1\""),
        (1231, ColumnForm::Number, "{1.5}", "[1.5]"),
        (built_in::BYTEA, ColumnForm::Hex, "\\xff", "\"ff\""),
    ] {
        let of_column = Form::of_column(&known(oid), default, Some(form)).expect("a form of it");
        assert_eq!(written(&of_column, text), expected);
    }
    let of_column =
        Form::of_column(&known(built_in::INT8), OTHER, None).expect("no word of its own");
    assert_eq!(written(&of_column, "1"), "\"1\"");
}

#[test]
fn a_form_that_the_type_does_not_have_is_refused_with_those_it_has() {
    for (described, form, expected) in [
        (
            known(built_in::INT8),
            ColumnForm::Hex,
            "\"hex\" is no form of type bigint: \"number\" and \"string\" are",
        ),
        (
            known(1231),
            ColumnForm::Base64,
            "\"base64\" is no form of type numeric[]: \"number\" and \"string\" are",
        ),
        (
            known(built_in::BYTEA),
            ColumnForm::Number,
            "\"number\" is no form of type bytea: \"base64\" and \"hex\" are",
        ),
        (
            known(built_in::INT4),
            ColumnForm::Number,
            "\"number\" is no form of type integer, which has only one",
        ),
        (
            composite(vec![known(built_in::INT8)]),
            ColumnForm::String,
            "\"string\" is no form of type public.t17002, which has only one",
        ),
    ] {
        let refused = Form::of_column(&described, Options::default(), Some(form));
        assert_eq!(refused.expect_err("no form of it").to_string(), expected);
    }
}

#[test]
fn what_a_type_cannot_have_written_is_refused() {
    for (oid, text, expected) in [
        (built_in::BOOL, &b"true"[..], "t or f"),
        (built_in::INT8, b"1.5", "an integer"),
        (built_in::FLOAT8, b"nan", "a number"),
        (25, b"\xff", "UTF-8"),
        (built_in::JSON, b"\"\xff\"", "UTF-8"),
        (1016, b"{1,a}", "an integer"),
    ] {
        let refused = Form::of(&known(oid), Options::default()).write(text, &mut Vec::new());
        let refused = refused.expect_err("malformed");
        assert_eq!(refused.to_string(), format!("the value's text is not {expected}"));
    }
}

/// As a tree of writers this one would have 2^40.
#[test]
fn composites_that_hold_the_same_type_often_share_its_writer() {
    let mut described = known(built_in::INT4);
    for _ in 0..40 {
        described = composite(vec![Arc::clone(&described), described]);
    }
    let form = Form::of(&described, Options::default());
    assert_eq!(written(&form, "(,)"), r#"{"f0":null,"f1":null}"#);
}
