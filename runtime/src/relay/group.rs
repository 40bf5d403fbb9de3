//! Which relays share leases: those with the same routes. Their group has leases of its own on all partitions, so relays for
//! other topics neither take them nor wait for them.

use sha2::{Digest, Sha256};

use super::route::Routed;
use crate::model::Pattern;

/// The routes of a relay, as other relays see them.
#[derive(Debug)]
pub(super) struct Group {
    /// The same for the same routes.
    pub(super) number: i64,
    /// A JSON list of the topics, sorted.
    pub(super) routes: String,
    patterns: Vec<Pattern>,
}

/// What a relay does about one of another group that is alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// No topic is of both.
    Apart,
    /// One has routes of the other and more or fewer: two versions of one relay. The newcomer waits for the other to end.
    Succeeds,
    /// Topics of both, by different routes. They may go on only one after the other, too, and nothing says that either will end.
    Overlaps,
}

impl Group {
    pub(super) fn of(routes: &[Routed]) -> Self {
        let patterns = routes.iter().map(|routed| routed.pattern.clone());
        Self::new(patterns.collect())
    }

    fn new(patterns: Vec<Pattern>) -> Self {
        let mut topics: Vec<_> = patterns.iter().map(Pattern::to_string).collect();
        topics.sort_unstable();
        let routes = serde_json::json!(topics).to_string();
        let digest = Sha256::digest(routes.as_bytes());
        let (number, _) = digest.split_first_chunk().unwrap_or((&[0; 8], &[]));
        Self {
            number: i64::from_be_bytes(*number),
            routes,
            patterns,
        }
    }

    /// How it stands to a relay with these routes; `None`: of a version that does not tell, which takes any partition.
    pub(super) fn beside(&self, routes: Option<&str>) -> Standing {
        let topics = routes.and_then(|routes| serde_json::from_str::<Vec<String>>(routes).ok());
        let others = topics.and_then(|topics| {
            let patterns = topics.iter().map(|topic| Pattern::new(topic));
            patterns.collect::<Result<Vec<_>, _>>().ok()
        });
        let Some(others) = others else {
            return Standing::Succeeds;
        };
        let overlap = |own: &Pattern| others.iter().any(|other| own.overlaps(other));
        if self.patterns.iter().any(|own| others.contains(own)) {
            Standing::Succeeds
        } else if self.patterns.iter().any(overlap) {
            Standing::Overlaps
        } else {
            Standing::Apart
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(topics: &[&str]) -> Group {
        let patterns = topics.iter().map(|topic| Pattern::new(topic).unwrap());
        Group::new(patterns.collect())
    }

    #[test]
    fn the_order_of_routes_makes_no_other_group() {
        let (one, other) = (group(&["orders", "mail.*"]), group(&["mail.*", "orders"]));
        assert_eq!((one.number, &one.routes), (other.number, &other.routes));
        assert_ne!(one.number, group(&["orders"]).number);
    }

    #[test]
    fn groups_stand_apart_or_succeed_each_other_or_overlap() {
        use Standing::*;
        for (own, other, standing) in [
            (&["orders"][..], &["mail.*"][..], Apart),
            (&["orders", "a"], &["mail.*", "orders.eu"], Apart),
            (&["orders", "mail.*"], &["orders"], Succeeds),
            (&["orders"], &["orders", "*"], Succeeds),
            (&["a", "b"], &["b", "c"], Succeeds),
            (&["orders"], &["*"], Overlaps),
            (&["orders", "mail.*"], &["mail.welcome"], Overlaps),
            (&["orders.*"], &["orders.eu.*"], Overlaps),
        ] {
            let (own, other) = (group(own), group(other));
            assert_eq!(
                own.beside(Some(&other.routes)),
                standing,
                "{own:?} {other:?}"
            );
            assert_eq!(
                other.beside(Some(&own.routes)),
                standing,
                "{other:?} {own:?}"
            );
        }
        assert_eq!(group(&["a"]).beside(None), Succeeds);
    }
}
