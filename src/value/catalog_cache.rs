//! (placeholder until merged)
use super::{Kind, Type};
use crate::change::Oid;
use std::{collections::HashMap, sync::Arc};

/// Types that are known.
#[derive(Clone, Debug, Default)]
pub struct Types(HashMap<Oid, Arc<Type>>);

impl Types {
    /// Which are not known.
    pub fn missing(&self, oids: impl IntoIterator<Item = Oid>) -> Vec<Oid> {
        oids.into_iter().filter(|oid| oid.0 >= 16_384 && !self.0.contains_key(oid)).collect()
    }
    /// Adds.
    pub fn insert(&mut self, t: Arc<Type>) {
        self.0.insert(t.oid, t);
    }
    /// The type.
    pub fn get(&self, oid: Oid) -> Arc<Type> {
        self.0
            .get(&oid)
            .cloned()
            .unwrap_or_else(|| Arc::new(Type { oid, name: String::new(), kind: Kind::Unknown }))
    }
}
