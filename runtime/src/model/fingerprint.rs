//! The fingerprint: a digest of the content that must be the same when a key comes again.

use std::fmt;

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::canonical::{self, Canonical};
use crate::error::{Error, ErrorKind};

/// A digest of content: equal for equal content, and different for any other.
///
/// Content is what serde shows of a value to a format like JSON:
///
/// * The order of fields and of a map's keys does not matter, nor that of a set. The order of any other list does.
/// * A number is compared with all of its digits. `1` and `1.0` differ, as do `0.0` and `-0.0`; `NaN` is equal to itself.
/// * Names of types do not matter, so a struct may be renamed; names of fields and variants do.
/// * `None` and a field that is left out differ, as do `None` and `Some(None)`.
/// * A field with `#[serde(skip_serializing)]` is not seen: two requests that differ in nothing else are the same request.
///   If it matters, name it as well: `fingerprint(cmd, cmd.card)`.
///
/// A set is known by the name of its type: `HashSet`, those of hashbrown, dashmap, im and others, and iterators over them
/// and over a `HashMap`. A list whose order differs from one request to the next is not recognised where that name is hidden:
/// in a `Serialize` written by hand as a loop, behind `erased_serde`, and in the fields of a variant that `#[serde(flatten)]`
/// or a tagged enum inside another makes serde keep aside. There use a `BTreeSet`, or serialize it sorted; otherwise the same
/// request is refused with [`ErrorKind::Mismatch`].
///
/// ```
/// use std::collections::HashSet;
///
/// use effectively::Fingerprint;
///
/// let (one, other) = (HashSet::from(["a", "b"]), HashSet::from(["b", "a"]));
/// assert_eq!(Fingerprint::of(&one)?, Fingerprint::of(&other)?);
/// assert_ne!(Fingerprint::of(&["a", "b"])?, Fingerprint::of(&["b", "a"])?);
/// # Ok::<_, effectively::Error>(())
/// ```
///
/// The digest is SHA-256 over a canonical form in which lengths come first. It is stored with the outcome and compared for as
/// long as the retention, by newer versions of a program, too. RFC 8785 is not used on purpose: it turns numbers into doubles,
/// and two amounts above 2^53 would be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(pub(crate) [u8; 32]);

impl Fingerprint {
    /// The fingerprint of a value.
    ///
    /// # Errors
    /// [`ErrorKind::Encode`] when the value's own `Serialize` fails.
    pub fn of(content: &(impl Serialize + ?Sized)) -> Result<Self, Error> {
        Content::of(content).map(|content| content.fingerprint())
    }

    /// The fingerprint of several values, as of a list of them.
    pub(crate) fn of_all(contents: &[Content]) -> Self {
        let mut digest = Sha256::new();
        digest.update(canonical::head(b'a', contents.len()));
        contents
            .iter()
            .for_each(|content| digest.update(&content.0));
        Self(digest.finalize().into())
    }
}

/// The canonical form of one value of a fingerprint.
pub struct Content(Vec<u8>);

impl Content {
    /// # Errors
    /// As [`Fingerprint::of`].
    pub(crate) fn of(value: &(impl Serialize + ?Sized)) -> Result<Self, Error> {
        Canonical::of(value)
            .map(|canonical| Self(canonical.bytes))
            .map_err(|source| Error::caused_by(ErrorKind::Encode("a fingerprinted value"), source))
    }

    pub(crate) fn fingerprint(&self) -> Fingerprint {
        Fingerprint(Sha256::digest(&self.0).into())
    }
}

/// Shows nothing of it.
impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Content").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

    use serde_json::{Value, json, value::RawValue};

    use super::*;

    fn of(value: &(impl Serialize + ?Sized)) -> Fingerprint {
        Fingerprint::of(value).unwrap()
    }

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    /// A set whose elements come in another order than those of the next one.
    fn set() -> HashSet<String> {
        (0..20).map(|n| format!("item {n}")).collect()
    }

    #[derive(Serialize)]
    #[serde(tag = "kind")]
    enum Tagged {
        List(Holder),
    }

    #[derive(Serialize)]
    struct Holder {
        list: Vec<HashSet<String>>,
        #[serde(serialize_with = "lengths")]
        by_hand: HashSet<String>,
        #[serde(flatten)]
        flat: Flat,
    }

    #[derive(Serialize)]
    struct Flat {
        set: Option<HashSet<String>>,
        map: HashMap<String, HashSet<String>>,
    }

    fn lengths<S: serde::Serializer>(
        set: &HashSet<String>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(set.iter().map(|text| text.to_uppercase()))
    }

    fn holder(first: &str) -> Tagged {
        Tagged::List(Holder {
            list: vec![HashSet::from([first.to_owned()]), set(), set()],
            by_hand: set(),
            flat: Flat {
                set: Some(set()),
                map: set().into_iter().map(|key| (key, set())).collect(),
            },
        })
    }

    #[test]
    fn the_order_of_fields_does_not_matter() {
        let one: Value = serde_json::from_str(r#"{"a":1,"b":{"c":[1,2],"d":null}}"#).unwrap();
        let two: Value = serde_json::from_str(r#"{"b":{"d":null,"c":[1,2]},"a":1}"#).unwrap();
        assert_eq!(of(&one), of(&two));
    }

    #[test]
    fn a_set_is_the_same_content_in_any_order_and_wherever_it_is() {
        for _ in 0..5 {
            assert_eq!(of(&set()), of(&set()));
            assert_eq!(of(&holder("a")), of(&holder("a")));
        }
        assert_ne!(of(&holder("a")), of(&holder("b")));
        assert_ne!(
            of(&["a", "b"]),
            of(&["b", "a"]),
            "the order of a list is content"
        );
        let sets = |one: u8, other: u8| of(&[HashSet::from([one]), HashSet::from([other])]);
        assert_ne!(sets(1, 2), sets(2, 1), "also of a list of sets");
    }

    #[test]
    fn keys_of_a_map_may_be_anything() {
        let map = || (0..20).map(|n| ((n, set()), n)).collect::<Vec<_>>();
        type Keyed = HashMap<(u8, BTreeSet<String>), u8>;
        let keyed = |map: Vec<((u8, HashSet<String>), u8)>| -> Keyed {
            map.into_iter()
                .map(|((n, set), value)| ((n, set.into_iter().collect()), value))
                .collect()
        };
        assert_eq!(of(&keyed(map())), of(&keyed(map())));
        assert_ne!(
            of(&BTreeMap::from([(1, 1)])),
            of(&BTreeMap::from([("1", 1)]))
        );
        assert_ne!(
            of(&BTreeMap::from([(None::<&str>, 1)])),
            of(&BTreeMap::from([(Some("null"), 1)]))
        );
    }

    #[test]
    fn members_of_one_name_are_all_content() {
        let of_text = |text| of(&raw(text));
        assert_ne!(of_text(r#"{"a":1,"a":2}"#), of_text(r#"{"a":2}"#));
        assert_ne!(of_text(r#"{"a":1,"a":2}"#), of_text(r#"{"a":2,"a":1}"#));
    }

    #[test]
    fn a_raw_value_is_the_same_content_as_what_it_says() {
        let value = json!({"a": [1, 2.50, "b"], "c": null});
        assert_eq!(
            of(&raw(r#" {"c":null, "a":[1,2.5,"\u0062"]} "#)),
            of(&value)
        );
        assert_ne!(
            of(&raw("18446744073709551616")),
            of(&raw("18446744073709551617"))
        );
        assert_ne!(of(&raw("0.1")), of(&raw("0.1000000000000000000001")));
    }

    /// What a program stored before must still be found, by every later version.
    #[test]
    fn the_digest_of_a_value_never_changes() {
        let value = json!({"b": [true, false, null, "ä"], "a": {"x": 1, "y": -2, "z": 1.5e300}});
        let digest = of(&value).0.map(|byte| format!("{byte:02x}")).concat();
        assert_eq!(
            digest,
            "b6ed12c9c828c7c7d0a9da197622d207dc309a461fc32ed3cbe25bd8189f1004"
        );
    }

    #[test]
    fn different_content_differs() {
        #[derive(Serialize)]
        enum Variant {
            Unit,
            Newtype(u8),
            Tuple(u8, u8),
            Struct { a: u8 },
        }
        #[derive(Serialize)]
        struct Left {
            #[serde(skip_serializing_if = "Option::is_none")]
            out: Option<u8>,
        }
        #[derive(Serialize)]
        struct There {
            out: Option<u8>,
        }
        let values = [
            of(&["ab"]),
            of(&["a", "b"]),
            of("ab"),
            of(&json!({"a": "b"})),
            of(&json!({"a": {"b": 1}})),
            of(&json!({"a": 1, "b": 1})),
            of(&[0_u8; 0]),
            of(&json!({})),
            of(&None::<u8>),
            of(&Some(None::<u8>)),
            of(&Some(Some(None::<u8>))),
            of(&[None::<u8>]),
            of("1"),
            of(&1),
            of(&1.0),
            of(&u64::MAX),
            of(&(u128::from(u64::MAX) + 1)),
            of(&(u128::from(u64::MAX) + 2)),
            of(&u128::MAX),
            of(&i128::MIN),
            of(&9_007_199_254_740_992_u64),
            of(&9_007_199_254_740_993_u64),
            of(&0.0),
            of(&-0.0),
            of(&f64::NAN),
            of(&f64::INFINITY),
            of(&f64::NEG_INFINITY),
            of("NaN"),
            of(&0.1_f32),
            of(&0.1_f64),
            of(&Variant::Unit),
            of(&Variant::Newtype(1)),
            of(&Variant::Tuple(1, 2)),
            of(&Variant::Struct { a: 1 }),
            of(&There { out: None }),
        ];
        for (i, left) in values.iter().enumerate() {
            for (j, right) in values.iter().enumerate().skip(i + 1) {
                assert_ne!(left, right, "{i} and {j}");
            }
        }
        assert_ne!(of(&Left { out: None }), of(&There { out: None }));
    }

    #[test]
    fn several_values_are_as_a_list_of_them() {
        let contents = [Content::of("a").unwrap(), Content::of(&1).unwrap()];
        assert_eq!(Fingerprint::of_all(&contents), of(&("a", 1)));
    }
}
