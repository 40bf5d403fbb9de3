//! The fingerprint is of the content: neither more than it, as the order of fields, nor less.

use std::collections::BTreeMap;

use effectively::Fingerprint;
use proptest::collection::vec;
use proptest::prelude::*;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::bounded;

proptest! {
    #![proptest_config(bounded(256))]

    #[test]
    fn the_order_of_fields_is_no_content(value in json(), seed in any::<u64>()) {
        prop_assert_eq!(fingerprint(&value), fingerprint(&value.shuffled(seed)));
    }

    #[test]
    fn any_other_content_has_another_fingerprint(values in vec(json(), 2..8)) {
        for left in &values {
            for right in &values {
                prop_assert_eq!(left.sorted() == right.sorted(), fingerprint(left) == fingerprint(right), "{:?} and {:?}", left, right);
            }
        }
    }

    #[test]
    fn a_field_of_another_name_is_other_content(value in json(), one in "[ab]{0,2}", other in "[ab]{0,2}") {
        let named = |name: &str| fingerprint(&Json::Object(vec![(name.to_owned(), value.clone())]));
        prop_assert_eq!(one == other, named(&one) == named(&other));
    }

    #[test]
    fn a_changed_leaf_is_other_content(value in json(), place in any::<prop::sample::Index>()) {
        let changed = value.with_leaf_changed(place.index(value.leaves()));
        prop_assert_ne!(fingerprint(&value), fingerprint(&changed), "{:?} and {:?}", value, changed);
    }
}

/// JSON whose fields are written in the order that they stand in.
#[derive(Debug, Clone, PartialEq)]
enum Json {
    Null,
    Bool(bool),
    Number(i128),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

fn json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::Bool),
        prop_oneof![-2_i128..3, any::<i128>()].prop_map(Json::Number),
        "[ab1]{0,2}".prop_map(Json::Text),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Json::List),
            prop::collection::btree_map("[ab]{0,2}", inner, 0..4)
                .prop_map(|fields: BTreeMap<_, _>| Json::Object(fields.into_iter().collect())),
        ]
    })
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(flag) => serializer.serialize_bool(*flag),
            Self::Number(number) => serializer.serialize_i128(*number),
            Self::Text(text) => serializer.serialize_str(text),
            Self::List(items) => items.serialize(serializer),
            Self::Object(fields) => {
                let mut map = serializer.serialize_map(Some(fields.len()))?;
                for (name, field) in fields {
                    map.serialize_entry(name, field)?;
                }
                map.end()
            }
        }
    }
}

impl Json {
    fn shuffled(&self, seed: u64) -> Self {
        match self {
            Self::List(items) => Self::List(items.iter().map(|item| item.shuffled(seed)).collect()),
            Self::Object(fields) => {
                let fields = fields
                    .iter()
                    .map(|(name, field)| (name.clone(), field.shuffled(seed / 3)));
                let mut fields: Vec<_> = fields.collect();
                fields.reverse();
                let middle = (seed % (fields.len() as u64 + 1)) as usize;
                fields.rotate_left(middle);
                Self::Object(fields)
            }
            leaf => leaf.clone(),
        }
    }

    fn sorted(&self) -> Self {
        match self {
            Self::List(items) => Self::List(items.iter().map(Self::sorted).collect()),
            Self::Object(fields) => {
                let fields: BTreeMap<_, _> = fields
                    .iter()
                    .map(|(name, field)| (name.clone(), field.sorted()))
                    .collect();
                Self::Object(fields.into_iter().collect())
            }
            leaf => leaf.clone(),
        }
    }

    /// Values without others in them.
    fn leaves(&self) -> usize {
        match self {
            Self::List(items) if !items.is_empty() => items.iter().map(Self::leaves).sum(),
            Self::Object(fields) if !fields.is_empty() => {
                fields.iter().map(|(_, field)| field.leaves()).sum()
            }
            _ => 1,
        }
    }

    /// The same value but for the leaf in this place, counted from 0.
    fn with_leaf_changed(&self, place: usize) -> Self {
        let mut left = place;
        self.change_leaf(&mut left)
    }

    fn change_leaf(&self, left: &mut usize) -> Self {
        match self {
            Self::List(items) if !items.is_empty() => {
                Self::List(items.iter().map(|item| item.change_leaf(left)).collect())
            }
            Self::Object(fields) if !fields.is_empty() => {
                let mut change =
                    |(name, field): &(String, Self)| (name.clone(), field.change_leaf(left));
                Self::Object(fields.iter().map(&mut change).collect())
            }
            leaf => {
                let here = *left == 0;
                *left = left.wrapping_sub(1);
                if here { leaf.changed() } else { leaf.clone() }
            }
        }
    }

    fn changed(&self) -> Self {
        match self {
            Self::Null => Self::Bool(false),
            Self::Bool(flag) => Self::Bool(!flag),
            Self::Number(number) => Self::Number(number ^ 1),
            Self::Text(text) => Self::Text(format!("{text}a")),
            Self::List(_) => Self::Object(Vec::new()),
            Self::Object(_) => Self::List(Vec::new()),
        }
    }
}

fn fingerprint(value: &Json) -> Fingerprint {
    Fingerprint::of(value).expect("a fingerprint")
}
