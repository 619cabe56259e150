//! Whatever stands in a value: JSON or refused.
//!
//! The input's first byte chooses the type, its second one the options; the rest is the text.

#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use serde::de::IgnoredAny;
use tailwater::{
    change::Oid,
    value::{ByteaForm, Field, Form, Int8Form, Kind, NumericForm, Options, Type, built_in},
};

/// JSON is passed on as the server has checked it.
const JSON: u32 = 114;

static TYPES: LazyLock<Vec<Arc<Type>>> = LazyLock::new(|| {
    // bool, int8, float8, numeric, timestamp, timestamptz, bytea, text, int8[], bytea[], box[]
    let built_in = [16, 20, 701, 1700, 1114, 1184, 17, 25, 1016, 1001, 1020];
    let mut types: Vec<Arc<Type>> = built_in.into_iter().map(known).collect();
    let hstore = own(Kind::Hstore);
    let inner = composite(vec![known(20), known(1016), known(25), Arc::clone(&hstore)]);
    let domain = own(Kind::Domain { base: array(Arc::clone(&inner)) });
    let outer = composite(vec![known(1184), Arc::clone(&inner), Arc::clone(&domain)]);
    types.extend([hstore, array(own(Kind::Hstore)), array(domain), array(outer), inner]);
    types.extend([composite(Vec::new()), known(JSON)]);
    types
});

fn known(oid: u32) -> Arc<Type> {
    Arc::clone(built_in(Oid(oid)).expect("a type that is built in"))
}

fn own(kind: Kind) -> Arc<Type> {
    Arc::new(Type { oid: Oid(17_000), name: "public.own".to_owned(), kind })
}

fn array(element: Arc<Type>) -> Arc<Type> {
    own(Kind::Array { element, delimiter: b',' })
}

fn composite(field_types: Vec<Arc<Type>>) -> Arc<Type> {
    let field = |field_type: Arc<Type>| Field { name: "f\"".to_owned(), field_type };
    own(Kind::Composite { fields: field_types.into_iter().map(field).collect() })
}

fn options(byte: u8) -> Options {
    let is = |bit: u8| byte & bit != 0;
    Options {
        int8: if is(1) { Int8Form::String } else { Int8Form::Number },
        numeric: if is(2) { NumericForm::Number } else { NumericForm::String },
        bytea: if is(4) { ByteaForm::Hex } else { ByteaForm::Base64 },
    }
}

fuzz_target!(|input: &[u8]| {
    let [choice, settings, text @ ..] = input else { return };
    let described = &TYPES[usize::from(*choice) % TYPES.len()];
    let form = Form::of(described, options(*settings));
    let mut target = b"before".to_vec();
    if form.write(text, &mut target).is_err() {
        return;
    }
    let json = target.strip_prefix(b"before").expect("what was there stays");
    if described.oid == Oid(JSON) {
        assert_eq!(json, text);
    } else {
        serde_json::from_slice::<IgnoredAny>(json).expect("JSON");
    }
});
