//! (placeholder until merged)
use super::{PostgresError, sql::Sql};
use crate::{
    change::Oid,
    value::{Kind, Type},
};
use std::sync::Arc;

/// Looks types up.
/// # Errors
/// never
pub async fn look_up(_sql: &Sql, oids: &[Oid]) -> Result<Vec<Arc<Type>>, PostgresError> {
    Ok(oids
        .iter()
        .map(|oid| Arc::new(Type { oid: *oid, name: String::new(), kind: Kind::Unknown }))
        .collect())
}
