//! Types by OID: those that need not be asked for, and those that were.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{Type, built_in::built_in};
use crate::change::Oid;

/// The types of one database that are known so far. A type's OID never becomes another type's while
/// somebody uses it, so an entry holds until its composite is altered: see [`Types::forget`].
#[derive(Debug, Default)]
pub struct Types {
    looked_up: HashMap<Oid, Arc<Type>>,
}

impl Types {
    /// Knows what is built in.
    pub fn new() -> Self {
        Self::default()
    }

    /// A type; none where it must be looked up.
    pub fn get(&self, oid: Oid) -> Option<&Arc<Type>> {
        built_in(oid).or_else(|| self.looked_up.get(&oid))
    }

    /// Which of these must be looked up, each once and in their order.
    pub fn missing(&self, oids: impl IntoIterator<Item = Oid>) -> Vec<Oid> {
        let mut seen = HashSet::new();
        oids.into_iter().filter(|oid| self.get(*oid).is_none() && seen.insert(*oid)).collect()
    }

    /// Takes a type in that was looked up, in the place of what was known of it.
    pub fn insert(&mut self, looked_up: Arc<Type>) {
        self.looked_up.insert(looked_up.oid, looked_up);
    }

    /// Has a type be looked up again: its text shows that it is another one by now, or was another
    /// one when the text was written. One that is built in stays.
    pub fn forget(&mut self, oid: Oid) {
        self.looked_up.remove(&oid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Kind;

    #[test]
    fn what_is_built_in_is_never_missing() {
        let (mut types, mood) = (Types::new(), Oid(16_400));
        let oids = [Oid(20), mood, Oid(1_016), mood, Oid(16_401)];
        assert_eq!(types.missing(oids), [mood, Oid(16_401)]);
        let looked_up = Type { oid: mood, name: "public.mood".to_owned(), kind: Kind::Enum };
        types.insert(Arc::new(looked_up));
        assert_eq!(types.missing(oids), [Oid(16_401)]);
        assert_eq!(types.get(mood).map(|known| known.name.as_str()), Some("public.mood"));
        types.forget(mood);
        types.forget(Oid(20));
        assert_eq!(types.missing(oids), [mood, Oid(16_401)]);
    }

    #[test]
    fn arrays_of_what_is_built_in_know_their_elements() {
        let types = Types::new();
        for (array, element, expected) in
            [(1_016, 20, b','), (1_020, 603, b';'), (6_150, 4_451, b',')]
        {
            let Some(Type { kind: Kind::Array { element: found, delimiter }, .. }) =
                types.get(Oid(array)).map(Arc::as_ref)
            else {
                panic!("{array} is no array")
            };
            assert_eq!((found.oid, *delimiter), (Oid(element), expected));
        }
    }
}
