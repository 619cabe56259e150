//! Where an outbox table's columns lie, and whether their types can do.

use crate::{
    change::Oid,
    event::{
        ColumnAt, ColumnProblem, EventError,
        outbox::{ColumnName, ColumnNames, Settings},
    },
};

// Types by their OIDs, under the names of pg_type_d.h.
const BYTEAOID: Oid = Oid(17);
const TEXTOID: Oid = Oid(25);
const JSONOID: Oid = Oid(114);
const BPCHAROID: Oid = Oid(1042);
const VARCHAROID: Oid = Oid(1043);
const TIMESTAMPOID: Oid = Oid(1114);
const TIMESTAMPTZOID: Oid = Oid(1184);
const UUIDOID: Oid = Oid(2950);
const JSONBOID: Oid = Oid(3802);

/// Types from here on (C name `FirstNormalObjectId`) were made by users: the stream names a domain
/// by its own OID, and citext has another one in every database. Their values are judged instead.
const FIRST_NORMAL_OBJECT_ID: u32 = 16_384;

/// What an id column's text is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum IdText {
    /// It may be a UUID, which is then the event's id.
    Uuid,
    /// Never one, however many digits it has.
    Other,
}

/// What a payload column's text is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PayloadText {
    /// JSON that the server has parsed.
    Json,
    /// Text of any kind.
    Text,
    /// Bytes in hexadecimal, behind `\x`.
    Hexadecimal,
    /// A type of the user's: one of the others, to be judged value by value.
    OfUserType,
}

/// The column whose members become headers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct HeaderObject {
    pub(super) column: ColumnAt,
    pub(super) text: ObjectText,
}

/// What is known of the text of a column that should hold an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ObjectText {
    /// JSON in which no name comes twice.
    Jsonb,
    /// JSON.
    Json,
    /// Nothing: the type is a user's, probably a domain over one of the others.
    OfUserType,
}

/// Where everything lies.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Columns {
    pub(super) id: ColumnAt,
    pub(super) id_text: IdText,
    pub(super) aggregate_id: ColumnAt,
    pub(super) aggregate_type: Option<ColumnAt>,
    pub(super) event_type: ColumnAt,
    pub(super) payload: ColumnAt,
    pub(super) payload_text: PayloadText,
    pub(super) created_at: Option<ColumnAt>,
    pub(super) version: Option<ColumnAt>,
    pub(super) correlation_id: Option<ColumnAt>,
    pub(super) causation_id: Option<ColumnAt>,
    pub(super) traceparent: Option<ColumnAt>,
    /// Columns that become a header each.
    pub(super) headers: Vec<(String, ColumnAt)>,
    /// The column whose members become headers.
    pub(super) header_object: Option<HeaderObject>,
}

/// A table's columns as the stream or the catalog lists them: name and type, in tuple order.
#[derive(Clone, Copy)]
pub(crate) struct Listing<'l> {
    /// `schema.table`, for errors.
    pub(super) table: &'l str,
    pub(super) columns: &'l [(&'l str, Oid)],
}

impl Listing<'_> {
    fn find(&self, name: &str) -> Option<(ColumnAt, Oid)> {
        let index = self.columns.iter().position(|(column, _)| *column == name)?;
        let (_, type_oid) = self.columns.get(index)?;
        Some((ColumnAt::new(index, name), *type_oid))
    }

    /// The column, which must exist.
    pub(super) fn needed(&self, name: &str, role: &str) -> Result<(ColumnAt, Oid), EventError> {
        let missing = ColumnProblem::Missing { role: role.to_owned() };
        self.find(name).ok_or_else(|| self.error(name, missing))
    }

    /// The column, unless it is one of the layout's own that the table does without.
    fn optional(
        &self,
        name: &ColumnName,
        role: &str,
    ) -> Result<Option<(ColumnAt, Oid)>, EventError> {
        match name {
            ColumnName::Default(name) => Ok(self.find(name)),
            ColumnName::Configured(name) => self.needed(name, role).map(Some),
        }
    }

    fn error(&self, column: &str, problem: ColumnProblem) -> EventError {
        EventError::Column { table: self.table.to_owned(), column: column.to_owned(), problem }
    }

    fn type_error(
        &self,
        (column, type_oid): &(ColumnAt, Oid),
        role: &str,
        expected: &'static str,
    ) -> EventError {
        let problem = ColumnProblem::Type { type_oid: *type_oid, role: role.to_owned(), expected };
        self.error(column.name(), problem)
    }
}

/// Finds every column that the settings name.
///
/// # Errors
/// The first one that is missing or of a type that can never do.
pub(crate) fn read(listing: Listing<'_>, settings: &Settings) -> Result<Columns, EventError> {
    let names = &settings.columns;
    let (id, id_text) = read_id(listing, names)?;
    let (payload, payload_text) = read_payload(listing, names)?;
    let optional =
        |name: &ColumnName, role| Ok(listing.optional(name, role)?.map(|(column, _)| column));
    Ok(Columns {
        id,
        id_text,
        aggregate_id: listing.needed(names.aggregate_id.as_str(), "columns.aggregate_id")?.0,
        aggregate_type: optional(&names.aggregate_type, "columns.aggregate_type")?,
        event_type: listing.needed(names.event_type.as_str(), "columns.event_type")?.0,
        payload,
        payload_text,
        created_at: read_created_at(listing, names)?,
        version: optional(&names.version, "columns.version")?,
        correlation_id: optional(&names.correlation_id, "columns.correlation_id")?,
        causation_id: optional(&names.causation_id, "columns.causation_id")?,
        traceparent: optional(&names.traceparent, "columns.traceparent")?,
        headers: settings
            .headers
            .iter()
            .map(|(header, column)| Ok((header.clone(), listing.needed(column, "headers")?.0)))
            .collect::<Result<_, EventError>>()?,
        header_object: read_header_object(listing, names)?,
    })
}

/// A column that merely happens to be called `headers` counts only where it can hold JSON objects.
fn read_header_object(
    listing: Listing<'_>,
    names: &ColumnNames,
) -> Result<Option<HeaderObject>, EventError> {
    let role = "columns.headers";
    let Some(found) = listing.optional(&names.headers, role)? else { return Ok(None) };
    let text = match (found.1, &names.headers) {
        (JSONBOID, _) => ObjectText::Jsonb,
        (JSONOID, _) => ObjectText::Json,
        (Oid(user), _) if user >= FIRST_NORMAL_OBJECT_ID => ObjectText::OfUserType,
        (Oid(_), ColumnName::Default(_)) => return Ok(None),
        (Oid(_), ColumnName::Configured(_)) => {
            return Err(listing.type_error(&found, role, "jsonb or json"));
        }
    };
    Ok(Some(HeaderObject { column: found.0, text }))
}

fn read_id(listing: Listing<'_>, names: &ColumnNames) -> Result<(ColumnAt, IdText), EventError> {
    let (column, type_oid) = listing.needed(names.id.as_str(), "columns.id")?;
    let text = match type_oid {
        UUIDOID | TEXTOID | VARCHAROID | BPCHAROID => IdText::Uuid,
        Oid(user) if user >= FIRST_NORMAL_OBJECT_ID => IdText::Uuid,
        Oid(_) => IdText::Other,
    };
    Ok((column, text))
}

fn read_payload(
    listing: Listing<'_>,
    names: &ColumnNames,
) -> Result<(ColumnAt, PayloadText), EventError> {
    let role = "columns.payload";
    let found = listing.needed(names.payload.as_str(), role)?;
    let text = match found.1 {
        JSONBOID | JSONOID => PayloadText::Json,
        TEXTOID | VARCHAROID => PayloadText::Text,
        BYTEAOID => PayloadText::Hexadecimal,
        Oid(user) if user >= FIRST_NORMAL_OBJECT_ID => PayloadText::OfUserType,
        Oid(_) => {
            let expected = "jsonb, json, or text or bytea that holds JSON";
            return Err(listing.type_error(&found, role, expected));
        }
    };
    Ok((found.0, text))
}

fn read_created_at(
    listing: Listing<'_>,
    names: &ColumnNames,
) -> Result<Option<ColumnAt>, EventError> {
    let role = "columns.created_at";
    let Some(found) = listing.optional(&names.created_at, role)? else { return Ok(None) };
    match found.1 {
        TIMESTAMPTZOID | TIMESTAMPOID => Ok(Some(found.0)),
        Oid(user) if user >= FIRST_NORMAL_OBJECT_ID => Ok(Some(found.0)),
        Oid(_) => Err(listing.type_error(&found, role, "timestamptz or timestamp")),
    }
}
