//! Which lists of serde are sets: their elements come in another order each time, so it is not content.
//!
//! serde shows a `HashSet` as a list like any other. Only the name of the type that is serialized tells them apart.

/// Modules whose collections and iterators follow the order of a hash.
const HASHED: [&str; 4] = [
    "std::collections::hash::set",
    "std::collections::hash::map",
    "hashbrown::set",
    "hashbrown::map",
];

/// Sets without an order, in whatever crate: dashmap, im, imbl, papaya, rpds, scc and others.
const SETS: [&str; 6] = [
    "AHashSet",
    "DashSet",
    "GenericHashSet",
    "HashBag",
    "HashSet",
    "HashTrieSet",
];

/// What only points to a collection, or passes on what another iterator yields.
const AROUND: [&str; 5] = [
    "alloc::borrow::Cow",
    "alloc::boxed::Box",
    "alloc::rc::Rc",
    "alloc::sync::Arc",
    "core::iter::adapters",
];

/// Whether a type of this name ([`std::any::type_name`]) has no order of its own.
pub(crate) fn is_unordered(type_name: &str) -> bool {
    let name = type_name.trim_start_matches('&').trim_start_matches("mut ");
    let path = name.split(['<', '>', ',']).next().unwrap_or_default();
    if AROUND.iter().any(|around| path.starts_with(around)) {
        let arguments = name[path.len()..].trim_start_matches('<');
        return is_unordered(arguments.trim_start_matches("'_, "));
    }
    path.rsplit_once("::").is_some_and(|(module, ty)| {
        let is_list_of = path.starts_with(['[', '(']);
        !is_list_of && (HASHED.contains(&module) || SETS.contains(&ty))
    })
}

#[cfg(test)]
mod tests {
    use std::{
        any::type_name,
        borrow::Cow,
        collections::{BTreeSet, HashMap, HashSet, VecDeque},
        hash::{BuildHasherDefault, DefaultHasher},
        sync::Arc,
    };

    use super::*;

    fn of<T: ?Sized>() -> bool {
        is_unordered(type_name::<T>())
    }

    fn of_value<T>(_: T) -> bool {
        of::<T>()
    }

    #[test]
    fn sets_and_what_iterates_over_hashes_have_no_order() {
        assert!(of::<HashSet<String>>());
        assert!(of::<HashSet<Vec<u8>, BuildHasherDefault<DefaultHasher>>>());
        assert!(of::<&Box<Arc<Cow<'_, HashSet<u8>>>>>());
        let (set, map) = (HashSet::from([1]), HashMap::from([(1, 2)]));
        assert!(of_value(set.iter()));
        assert!(of_value(map.keys()));
        assert!(of_value(map.values()));
        assert!(of_value(map.iter().filter(|_| true).map(|(key, _)| key)));
        for name in [
            "hashbrown::set::HashSet<u8>",
            "dashmap::set::DashSet<u8>",
            "&im::hash::set::HashSet<u8>",
        ] {
            assert!(is_unordered(name), "{name}");
        }
    }

    #[test]
    fn what_only_holds_sets_keeps_its_order() {
        type Set = HashSet<u8>;
        assert!(!of::<Vec<Set>>());
        assert!(!of::<[Set]>());
        assert!(!of::<[Set; 2]>());
        assert!(!of::<(Set, Set)>());
        assert!(!of::<VecDeque<Set>>());
        assert!(!of::<Option<Set>>());
        assert!(!of::<BTreeSet<u8>>());
        assert!(!of::<str>());
        let sets = [Set::new()];
        assert!(!of_value(sets.iter().map(Set::len)));
    }
}
