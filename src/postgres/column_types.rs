//! What a column's type is made of, by its OID.
//!
//! The catalog is the one of today, while the log may be older: a type that was altered since is
//! described as it is, one that was dropped as [`Kind::Unknown`].

use std::{collections::HashMap, sync::Arc};

use tokio_postgres::Row;

use super::{PostgresError, sql::Sql};
use crate::{
    change::Oid,
    value::{Field, Kind, Type, built_in},
};

/// How deep types may be in one another: far above what people make, and far below what a stack
/// takes. What lies deeper is unknown, so it becomes its text.
const DEPTH_MAX: usize = 64;

/// Describes these types and all that they are made of, in one round trip; in none where all of them
/// are built in.
///
/// # Errors
/// Where the connection breaks.
pub async fn look_up(sql: &Sql, oids: &[Oid]) -> Result<Vec<Arc<Type>>, PostgresError> {
    // What a type is made of is asked for in rounds, each type once, so that the recursion ends
    // whatever the catalog holds. A type has the text form of an array if and only if its output
    // function is the one of arrays: int2vector has elements too, and a domain over an array has no
    // elements and yet that function. An array takes its delimiter from its elements. Names of
    // columns, and the letters of "char", as text, which tokio-postgres reads on every version.
    const SQL: &str = "WITH RECURSIVE part (oid) AS ( \
            SELECT unnest($1::oid[]) \
            UNION \
            SELECT inside.oid FROM part p JOIN pg_type t ON t.oid = p.oid CROSS JOIN LATERAL ( \
                SELECT t.typelem AS oid \
                WHERE t.typtype = 'b' AND t.typoutput = 'pg_catalog.array_out'::regproc \
                UNION ALL SELECT t.typbasetype WHERE t.typtype = 'd' \
                UNION ALL SELECT a.atttypid FROM pg_attribute a WHERE t.typtype = 'c' \
                    AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped \
            ) inside \
        ) \
        SELECT t.oid, \
            CASE n.nspname WHEN 'pg_catalog' THEN format_type(t.oid, NULL) \
                ELSE quote_ident(n.nspname) || '.' || quote_ident(t.typname) END, \
            CASE WHEN t.typtype = 'b' AND t.typoutput = 'pg_catalog.array_out'::regproc \
                    THEN 'array' \
                WHEN t.typname = 'hstore' AND EXISTS ( \
                    SELECT FROM pg_depend d JOIN pg_extension x \
                        ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = x.oid \
                    WHERE d.classid = 'pg_type'::regclass AND d.objid = t.oid \
                        AND d.deptype = 'e' AND x.extname = 'hstore') THEN 'hstore' \
                ELSE t.typtype::text END, \
            CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE t.typelem END, \
            e.typdelim::text, \
            ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE t.typtype = 'c' \
                AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped \
                ORDER BY a.attnum), \
            ARRAY(SELECT a.atttypid FROM pg_attribute a WHERE t.typtype = 'c' \
                AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped \
                ORDER BY a.attnum) \
        FROM part p JOIN pg_type t ON t.oid = p.oid JOIN pg_namespace n ON n.oid = t.typnamespace \
        LEFT JOIN pg_type e ON e.oid = t.typelem";
    let asked: Vec<u32> =
        oids.iter().filter(|oid| built_in(**oid).is_none()).map(|oid| oid.0).collect();
    let mut described = Described::default();
    if !asked.is_empty() {
        let rows = sql.rows("look up the types of columns", SQL, &[&asked]).await?;
        described.entries = rows.iter().map(|row| (Oid(row.get(0)), Entry::of(row))).collect();
    }
    Ok(oids.iter().map(|oid| described.resolve(*oid)).collect())
}

/// A type as the catalog has it, its parts by their OIDs.
#[derive(Clone)]
struct Entry {
    name: String,
    content: Content,
}

#[derive(Clone)]
enum Content {
    /// Nothing that it is made of has a form of its own.
    Plain(Kind),
    Array {
        element: Oid,
        delimiter: u8,
    },
    Domain {
        base: Oid,
    },
    Composite {
        fields: Vec<(String, Oid)>,
    },
}

impl Entry {
    fn of(row: &Row) -> Self {
        let inside = Oid(row.get(3));
        let content = match row.get(2) {
            "array" => {
                let delimiter: Option<&str> = row.get(4);
                let delimiter = delimiter.and_then(|text| text.bytes().next()).unwrap_or(b',');
                Content::Array { element: inside, delimiter }
            }
            "hstore" => Content::Plain(Kind::Hstore),
            "b" => Content::Plain(Kind::Base),
            "c" => {
                let (names, types): (Vec<String>, Vec<u32>) = (row.get(5), row.get(6));
                Content::Composite {
                    fields: names.into_iter().zip(types.into_iter().map(Oid)).collect(),
                }
            }
            "d" => Content::Domain { base: inside },
            "e" => Content::Plain(Kind::Enum),
            "r" | "m" => Content::Plain(Kind::Range),
            _ => Content::Plain(Kind::Unknown),
        };
        Self { name: row.get(1), content }
    }
}

/// The catalog's answer, and what was made of it.
#[derive(Default)]
struct Described {
    entries: HashMap<Oid, Entry>,
    resolved: HashMap<Oid, Arc<Type>>,
    /// What is being made: one within the other.
    open: Vec<Oid>,
}

impl Described {
    fn resolve(&mut self, oid: Oid) -> Arc<Type> {
        if let Some(known) = built_in(oid).or_else(|| self.resolved.get(&oid)) {
            return Arc::clone(known);
        }
        let Some(entry) = self.entries.get(&oid).cloned() else {
            return unknown(oid, format!("with OID {oid}"));
        };
        // PostgreSQL lets no type contain itself. Its word is not what ends this.
        if self.open.contains(&oid) || self.open.len() >= DEPTH_MAX {
            return unknown(oid, entry.name);
        }
        self.open.push(oid);
        let resolved = Arc::new(self.assemble(oid, entry));
        self.open.pop();
        self.resolved.insert(oid, Arc::clone(&resolved));
        resolved
    }

    fn assemble(&mut self, oid: Oid, Entry { name, content }: Entry) -> Type {
        match content {
            Content::Plain(kind) => Type { oid, name, kind },
            Content::Array { element, delimiter } => {
                let element = self.resolve(element);
                let name = format!("{}[]", element.name);
                Type { oid, name, kind: Kind::Array { element, delimiter } }
            }
            Content::Domain { base } => {
                Type { oid, name, kind: Kind::Domain { base: self.resolve(base) } }
            }
            Content::Composite { fields } => {
                let field = |(name, oid)| Field { name, field_type: self.resolve(oid) };
                let fields = fields.into_iter().map(field).collect();
                Type { oid, name, kind: Kind::Composite { fields } }
            }
        }
    }
}

fn unknown(oid: Oid, name: String) -> Arc<Type> {
    Arc::new(Type { oid, name, kind: Kind::Unknown })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(entries: Vec<(u32, Content)>) -> Described {
        let entry = |(oid, content)| (Oid(oid), Entry { name: format!("public.t{oid}"), content });
        Described { entries: entries.into_iter().map(entry).collect(), ..Described::default() }
    }

    fn array(element: u32) -> Content {
        Content::Array { element: Oid(element), delimiter: b',' }
    }

    fn composite(field_types: &[u32]) -> Content {
        let fields = field_types.iter().map(|oid| (format!("f{oid}"), Oid(*oid)));
        Content::Composite { fields: fields.collect() }
    }

    #[test]
    fn a_composite_that_would_contain_itself_is_unknown_within() {
        let mut described =
            described(vec![(17_000, composite(&[20, 17_001])), (17_001, array(17_000))]);
        let resolved = described.resolve(Oid(17_000));
        let Kind::Composite { fields } = &resolved.kind else { panic!("{resolved:?}") };
        let Kind::Array { element, .. } = &fields[1].field_type.kind else { panic!("{fields:?}") };
        assert_eq!((element.oid, &element.kind), (Oid(17_000), &Kind::Unknown));
        assert_eq!(fields[1].field_type.name, "public.t17000[]");
    }

    #[test]
    fn what_lies_too_deep_is_unknown() {
        let depth = u32::try_from(DEPTH_MAX).expect("a small number");
        let domains = (0..=depth).map(|n| (17_000 + n, Content::Domain { base: Oid(17_001 + n) }));
        let mut innermost = described(domains.collect()).resolve(Oid(17_000));
        for _ in 0..depth {
            let Kind::Domain { base } = &innermost.kind else { panic!("{innermost:?}") };
            innermost = Arc::clone(base);
        }
        assert_eq!((innermost.oid, &innermost.kind), (Oid(17_000 + depth), &Kind::Unknown));
    }

    #[test]
    fn a_type_that_the_catalog_does_not_have_is_unknown() {
        let mut described = described(vec![(17_000, array(17_001))]);
        let resolved = described.resolve(Oid(17_000));
        assert_eq!(resolved.name, "with OID 17001[]");
        assert_eq!(described.resolve(Oid(17_001)).kind, Kind::Unknown);
    }
}
