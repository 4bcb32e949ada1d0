//! Which nodes go first. The same revision always chooses the same nodes, whoever asks and however often; another
//! revision chooses others, so that no node is the one on which everything is tried. Pure.

use std::collections::BTreeSet;

use tollgate_config::control_plane::Stage;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Adds nodes to those that were chosen before, until a stage has as many as it wants of `there`.
///
/// Who was chosen stays chosen, also while it is away: nobody takes its place, for whatever took it away may have been
/// the revision.
pub(super) fn choose(
    stage: Stage,
    there: &BTreeSet<String>,
    chosen: &BTreeSet<String>,
    first: &[String],
    revision: u64,
) -> BTreeSet<String> {
    let wanted = wanted(stage, there.union(chosen).count());
    let mut rest: Vec<&String> = there.difference(chosen).collect();
    rest.sort_by_cached_key(|name| {
        let asked = first.iter().position(|one| one == *name);
        let hash = xxh3_64_with_seed(name.as_bytes(), revision);
        (asked.unwrap_or(usize::MAX), hash, (*name).clone())
    });
    let missing = wanted.saturating_sub(chosen.len());
    let more = rest.into_iter().take(missing).cloned();
    chosen.iter().cloned().chain(more).collect()
}

/// How many of so many a stage wants.
pub(super) fn wanted(stage: Stage, all: usize) -> usize {
    match stage {
        Stage::Nodes(nodes) => nodes as usize,
        Stage::Percent(share) => (all * share as usize).div_ceil(100),
        Stage::All => all,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> BTreeSet<String> {
        (0..count).map(|number| format!("edge-{number}")).collect()
    }

    #[test]
    fn a_stage_has_as_many_as_it_says_and_keeps_those_before_it() {
        let there = names(30);
        let none = BTreeSet::new();
        let one = choose(Stage::Nodes(1), &there, &none, &[], 7);
        assert_eq!(one.len(), 1);
        assert_eq!(
            one,
            choose(Stage::Nodes(1), &there, &none, &[], 7),
            "stable"
        );
        let tenth = choose(Stage::Percent(10), &there, &one, &[], 7);
        assert_eq!(tenth.len(), 3);
        assert!(tenth.is_superset(&one));
        assert_eq!(choose(Stage::All, &there, &tenth, &[], 7), there);
        assert_eq!(choose(Stage::Percent(1), &names(3), &none, &[], 7).len(), 1);
        assert_eq!(choose(Stage::Nodes(5), &names(3), &none, &[], 7).len(), 3);
        assert!(choose(Stage::Nodes(1), &none, &none, &[], 7).is_empty());
    }

    #[test]
    fn every_revision_tries_another_node_and_all_get_their_turn() {
        let there = names(5);
        let mut tried = BTreeSet::new();
        for revision in 0..60 {
            tried.extend(choose(
                Stage::Nodes(1),
                &there,
                &BTreeSet::new(),
                &[],
                revision,
            ));
        }
        assert_eq!(tried, there);
    }

    #[test]
    fn who_is_asked_for_goes_first_and_who_is_gone_is_not_replaced() {
        let there = names(9);
        let first = ["edge-4".to_owned(), "nobody".to_owned()];
        let one = choose(Stage::Nodes(1), &there, &BTreeSet::new(), &first, 3);
        assert_eq!(one, BTreeSet::from(["edge-4".to_owned()]));
        let mut without = there;
        without.remove("edge-4");
        assert_eq!(choose(Stage::Nodes(1), &without, &one, &first, 3), one);
    }
}
