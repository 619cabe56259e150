//! The types that every server has under the same OIDs.
//!
//! What `pg_type.dat` gives a number by hand (below C name `FirstGenbkiObjectId`) keeps it for good,
//! so these need not be asked for. Left out is what no column can have, and what is made of system
//! tables' rows: those differ from version to version.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};

use super::{Kind, Type};
use crate::change::Oid;

pub(super) const BOOL: u32 = 16;
pub(super) const BYTEA: u32 = 17;
pub(super) const INT8: u32 = 20;
pub(super) const INT2: u32 = 21;
pub(super) const INT4: u32 = 23;
pub(super) const OID: u32 = 26;
pub(super) const JSON: u32 = 114;
const BOX: u32 = 603;
pub(super) const FLOAT4: u32 = 700;
pub(super) const FLOAT8: u32 = 701;
pub(super) const TIMESTAMP: u32 = 1114;
pub(super) const TIMESTAMPTZ: u32 = 1184;
pub(super) const NUMERIC: u32 = 1700;
pub(super) const JSONB: u32 = 3802;

/// No type (C name `InvalidOid`).
const NONE: u32 = 0;

/// Base types: OID, OID of the array, name.
const BASE_TYPES: [(u32, u32, &str); 70] = [
    (BOOL, 1000, "boolean"),
    (BYTEA, 1001, "bytea"),
    (18, 1002, "\"char\""),
    (19, 1003, "name"),
    (INT8, 1016, "bigint"),
    (INT2, 1005, "smallint"),
    // These two are written without braces: base types to us, though they have elements.
    (22, 1006, "int2vector"),
    (30, 1013, "oidvector"),
    (INT4, 1007, "integer"),
    (24, 1008, "regproc"),
    (25, 1009, "text"),
    (OID, 1028, "oid"),
    (27, 1010, "tid"),
    (28, 1011, "xid"),
    (29, 1012, "cid"),
    (JSON, 199, "json"),
    (142, 143, "xml"),
    (194, NONE, "pg_node_tree"),
    (600, 1017, "point"),
    (601, 1018, "lseg"),
    (602, 1019, "path"),
    (BOX, 1020, "box"),
    (604, 1027, "polygon"),
    (628, 629, "line"),
    (650, 651, "cidr"),
    (FLOAT4, 1021, "real"),
    (FLOAT8, 1022, "double precision"),
    (718, 719, "circle"),
    (774, 775, "macaddr8"),
    (790, 791, "money"),
    (829, 1040, "macaddr"),
    (869, 1041, "inet"),
    (1033, 1034, "aclitem"),
    (1042, 1014, "character"),
    (1043, 1015, "character varying"),
    (1082, 1182, "date"),
    (1083, 1183, "time without time zone"),
    (TIMESTAMP, 1115, "timestamp without time zone"),
    (TIMESTAMPTZ, 1185, "timestamp with time zone"),
    (1186, 1187, "interval"),
    (1266, 1270, "time with time zone"),
    (1560, 1561, "bit"),
    (1562, 1563, "bit varying"),
    (NUMERIC, 1231, "numeric"),
    (1790, 2201, "refcursor"),
    (2202, 2207, "regprocedure"),
    (2203, 2208, "regoper"),
    (2204, 2209, "regoperator"),
    (2205, 2210, "regclass"),
    (2206, 2211, "regtype"),
    (2950, 2951, "uuid"),
    (2970, 2949, "txid_snapshot"),
    (3220, 3221, "pg_lsn"),
    (3361, NONE, "pg_ndistinct"),
    (3402, NONE, "pg_dependencies"),
    (3614, 3643, "tsvector"),
    (3615, 3645, "tsquery"),
    (3642, 3644, "gtsvector"),
    (3734, 3735, "regconfig"),
    (3769, 3770, "regdictionary"),
    (JSONB, 3807, "jsonb"),
    (4072, 4073, "jsonpath"),
    (4089, 4090, "regnamespace"),
    (4096, 4097, "regrole"),
    (4191, 4192, "regcollation"),
    (4600, NONE, "pg_brin_bloom_summary"),
    (4601, NONE, "pg_brin_minmax_multi_summary"),
    (5017, NONE, "pg_mcv_list"),
    (5038, 5039, "pg_snapshot"),
    (5069, 271, "xid8"),
];

/// Ranges and multiranges: OID, OID of the array, name.
const RANGES: [(u32, u32, &str); 12] = [
    (3904, 3905, "int4range"),
    (3906, 3907, "numrange"),
    (3908, 3909, "tsrange"),
    (3910, 3911, "tstzrange"),
    (3912, 3913, "daterange"),
    (3926, 3927, "int8range"),
    (4451, 6150, "int4multirange"),
    (4532, 6151, "nummultirange"),
    (4533, 6152, "tsmultirange"),
    (4534, 6153, "tstzmultirange"),
    (4535, 6155, "datemultirange"),
    (4536, 6157, "int8multirange"),
];

static TYPES: LazyLock<HashMap<Oid, Arc<Type>>> = LazyLock::new(|| {
    let base_types = BASE_TYPES.into_iter().map(|described| (described, Kind::Base));
    let ranges = RANGES.into_iter().map(|described| (described, Kind::Range));
    let mut types = HashMap::new();
    for ((oid, array, name), kind) in base_types.chain(ranges) {
        let element = Arc::new(Type { oid: Oid(oid), name: name.to_owned(), kind });
        types.insert(element.oid, Arc::clone(&element));
        if array != NONE {
            let delimiter = if oid == BOX { b';' } else { b',' };
            let name = format!("{name}[]");
            let kind = Kind::Array { element, delimiter };
            types.insert(Oid(array), Arc::new(Type { oid: Oid(array), name, kind }));
        }
    }
    types
});

/// The type that has this OID on every server; none for one that a database has of its own.
pub fn built_in(oid: Oid) -> Option<&'static Arc<Type>> {
    TYPES.get(&oid)
}

/// All of them, in no order.
pub fn built_in_types() -> impl Iterator<Item = &'static Arc<Type>> {
    TYPES.values()
}
