//! Two different keys never share a hash, and exactly the keys that break a rule are refused.

use std::borrow::Cow;
use std::collections::BTreeSet;

use effectively::{Error, ErrorKind, IdempotencyKey, Key, KeyPart, KeyProblem};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::bounded;

fn key(scope: &str, parts: &[String]) -> Result<Key, Error> {
    let parts: Vec<&(dyn KeyPart + Sync)> = parts
        .iter()
        .map(|part| part as &(dyn KeyPart + Sync))
        .collect();
    Key::new(Cow::Owned(scope.to_owned()), &parts)
}

/// Which rule is broken first: the scope, then the parts in their order.
fn broken(scope: &str, parts: &[String]) -> Option<ErrorKind> {
    let in_scope = |c: char| matches!(c, 'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '_' | '-');
    if !(1..=64).contains(&scope.len()) || !scope.chars().all(in_scope) {
        return Some(ErrorKind::ScopeInvalid);
    }
    if parts.is_empty() {
        return Some(ErrorKind::KeyInvalid(KeyProblem::NoParts));
    }
    parts.iter().zip(1..).find_map(|(text, part)| {
        let control = |c| matches!(c, '\0'..='\x1f' | '\x7f'..='\u{9f}');
        let problem = match text.len() {
            0 => KeyProblem::Empty { part },
            256.. => KeyProblem::TooLong { part },
            _ if text.chars().any(control) => KeyProblem::ControlCharacter { part },
            _ => return None,
        };
        Some(ErrorKind::KeyInvalid(problem))
    })
}

/// Scopes and parts out of few letters, so that many of them almost meet.
fn almost_equal() -> impl Strategy<Value = (String, Vec<String>)> {
    ("[ps.]{1,2}", vec("[ps/0]{1,3}", 1..4))
}

/// Anything, and what lies at the edges of the rules.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        ".{0,8}",
        any::<String>(),
        "[a-zA-Z0-9._-]{0,70}",
        (250_usize..260).prop_map(|length| "x".repeat(length)),
        (120_usize..130).prop_map(|length| "é".repeat(length)),
        any::<char>().prop_map(String::from),
    ]
}

proptest! {
    #![proptest_config(bounded(256))]

    #[test]
    fn two_keys_are_equal_only_when_scope_and_parts_are(keys in vec(almost_equal(), 2..24)) {
        let made: Vec<_> = keys.iter().map(|(scope, parts)| key(scope, parts).expect("a key")).collect();
        for (left, left_key) in keys.iter().zip(&made) {
            for (right, right_key) in keys.iter().zip(&made) {
                prop_assert_eq!(left == right, left_key == right_key, "{:?} and {:?}", left, right);
            }
        }
    }

    #[test]
    fn no_way_to_split_a_text_into_parts_is_another(text in "[ -~]{3,12}") {
        let part = |from: usize, to: usize| text[from..to].to_owned();
        let places = 1..text.len() - 1;
        let halves = places.clone().map(|at| vec![part(0, at), part(at, text.len())]);
        // As if the letter in that place were what separates parts.
        let separated = places.map(|at| vec![part(0, at), part(at + 1, text.len())]);
        let mut all: BTreeSet<Vec<String>> = halves.chain(separated).collect();
        all.insert(vec![text.clone()]);
        all.insert(text.chars().map(String::from).collect());
        let all: Vec<_> = all.into_iter().collect();
        for (place, left) in all.iter().enumerate() {
            for right in &all[place + 1..] {
                let (one, other) = (key("s", left), key("s", right));
                prop_assert_ne!(one.expect("a key"), other.expect("a key"), "{:?} and {:?}", left, right);
            }
        }
    }

    #[test]
    fn a_key_breaks_exactly_the_rules_of_the_model(scope in text(), good in any::<bool>(), parts in vec(text(), 0..4)) {
        let scope = if good { "orders.place".to_owned() } else { scope };
        let found = key(&scope, &parts).err().map(|error| error.kind().clone());
        prop_assert_eq!(&found, &broken(&scope, &parts));
        if let [part] = parts.as_slice() && good {
            let header = IdempotencyKey::new(part.clone()).err().map(|error| error.kind().clone());
            prop_assert_eq!(header, found, "a header is a part");
        }
    }
}
