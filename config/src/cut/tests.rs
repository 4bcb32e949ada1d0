//! What is cut where, and that cutting again after a change gives what cutting anew gives.

use super::*;
use proptest::prelude::*;

fn lists(section: &str) -> bool {
    matches!(section, "route" | "upstream")
}

fn blocks(text: &str) -> Vec<(&str, u32, &str)> {
    match cut(text, lists) {
        Cut::Blocks(blocks) => blocks
            .all
            .iter()
            .map(|b| (b.section(text), b.line, b.text(text)))
            .collect(),
        Cut::Whole { .. } => panic!("not cut: {text}"),
    }
}

#[test]
fn a_sub_table_stays_with_its_item() {
    let text = "include = []\n\n# one\n[[route]]\na = 1\n  [route.retry]\n  b = 2\n\n# two\n[[route]]\nc = 3";
    assert_eq!(
        blocks(text),
        vec![
            ("", 1, "include = []\n"),
            ("route", 4, "[[route]]\na = 1\n  [route.retry]\n  b = 2\n"),
            ("route", 10, "[[route]]\nc = 3"),
        ]
    );
}

#[test]
fn headers_inside_strings_and_comments_are_text() {
    let text = "[[route]]\na = \"\"\"\n[[route]]\n\\\"\"\"\" # [[route]]\nb = '''\n[x]\n'''\nc = [\n  [\"[[d]]\"],\n  [1], # ]\n]\n[[upstream]]\n";
    let found = blocks(text);
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!((found[1].0, found[1].1), ("upstream", 12));
}

#[test]
fn what_is_never_closed_ends_at_the_next_header() {
    for broken in [
        "a = [1,",
        "a = \"x",
        "a = {",
        "a = \"\"\"",
        "a = '''x",
        "a = 'x",
    ] {
        let text = format!("[[route]]\n{broken}\n[[upstream]]\nb = 1\n");
        let found = blocks(&text);
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!((found[1].0, found[1].1), ("upstream", 3));
    }
}

#[test]
fn what_belongs_together_but_stands_apart_is_read_whole() {
    assert_eq!(
        cut("[[route]]\n[[upstream]]\n[route.retry]\n", lists),
        Cut::Whole { too_deep: None }
    );
    assert_eq!(
        cut("[server]\n[telemetry]\n[server.x]\n", lists),
        Cut::Whole { too_deep: None }
    );
}

#[test]
fn a_key_with_very_many_dots_is_seen_before_it_is_parsed() {
    let deep = format!("[[route]]\nx = 1\n{}a = 1\n", "a.".repeat(100));
    match cut(&deep, lists) {
        Cut::Blocks(blocks) => assert_eq!(blocks.all[0].too_deep, Some(3)),
        Cut::Whole { .. } => panic!("not cut"),
    }
}

#[test]
fn only_what_changed_is_cut_again() {
    let text = |middle: &str| {
        format!("[server]\n[[route]]\na = 1\n{middle}[[route]]\nb = 2\n[[route]]\nc = 3\n")
    };
    let former = text("");
    let Cut::Blocks(mut blocks) = cut(&former, lists) else {
        panic!("not cut");
    };
    let next = text("x = 1\n");
    let replaced = recut(&former, &mut blocks, &next, lists).expect("cut again");
    assert_eq!((replaced.at, replaced.new), (1, 1));
    assert_eq!(replaced.gone.len(), 1);
    assert_eq!(Cut::Blocks(blocks), cut(&next, lists));
}

/// Lines, and what turns one kind of line into another.
const PIECES: &[&str] = &[
    "[[route]]\n",
    "[[upstream]]\n",
    "[server]\n",
    "[route.retry]\n",
    "[x.y]\n",
    "a = 1\n",
    "b = [\n",
    "]\n",
    "\n",
    "# [[route]]\n",
    "s = \"\"\"\n",
    "\"\"\"\n",
    "t = '''\n",
    "'''",
    "  [\"x\"],\n",
    "[\"\"]\n",
    "[[",
    "]",
    "\"",
    "'",
    "\\",
    "\n",
    "é",
    "a.a.a.a.a.a.a.a.a.a = 1\n",
    "[",
    ".",
    "\r\n",
    " ",
    "= {",
];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000) })]

    #[test]
    fn cutting_again_is_cutting_anew(
        first in prop::collection::vec(prop::sample::select(PIECES), 0..40),
        changes in prop::collection::vec(
            (any::<prop::sample::Index>(), 0usize..12, prop::collection::vec(prop::sample::select(PIECES), 0..3)),
            1..12,
        ),
    ) {
        let mut former = first.concat();
        let mut known = cut(&former, lists);
        for (at, taken, put) in changes {
            let mut next: Vec<char> = former.chars().collect();
            let at = at.index(next.len() + 1);
            let end = (at + taken).min(next.len());
            next.splice(at..end, put.concat().chars());
            let next: String = next.into_iter().collect();
            let anew = cut(&next, lists);
            let again = match &mut known {
                Cut::Blocks(blocks) => {
                    let before = blocks.all.len();
                    recut(&former, blocks, &next, lists).map(|r| before - r.gone.len() + r.new)
                }
                Cut::Whole { .. } => None,
            };
            match again {
                Some(count) => {
                    prop_assert_eq!(&known, &anew, "{:?} after {:?}", next, former);
                    prop_assert!(matches!(&known, Cut::Blocks(blocks) if blocks.all.len() == count));
                }
                None => known = anew,
            }
            former = next;
        }
    }
}
