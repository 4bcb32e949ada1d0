//! Documents that nobody would write (HI-62): whatever the bytes, reading ends soon, refuses or accepts, and never
//! panics.

use std::path::Path;

use proptest::prelude::*;
use tollgate_config::{Document, Loader, Problems};

const SAMPLE: &str = include_str!("../gateway.toml");

fn load(text: &str) -> Result<Document, Problems> {
    Loader::with_environment(|_| None).load_text("test.toml", text, Path::new(""))
}

/// Refused, and the refusal can be printed.
#[track_caller]
fn refused(text: &str) -> Problems {
    let problems = load(text).expect_err("hostile");
    assert!(!problems.0.is_empty() && !problems.to_string().is_empty());
    assert!(problems.0.len() <= 1001, "{}", problems.0.len());
    problems
}

#[test]
fn deep_nesting_is_refused() {
    const DEPTH: usize = 200_000;
    refused(&format!(
        "[[route]]\nx = {}{}\n",
        "[".repeat(DEPTH),
        "]".repeat(DEPTH)
    ));
    refused(&format!("[[route]]\nx = {}\n", "{a=".repeat(DEPTH)));
    refused(&format!("[[route]]\n{}x = 1\n", "a.".repeat(DEPTH)));
    refused(&format!("{}x = 1\n", "a.".repeat(DEPTH)));
    refused(&format!(
        "[[route]]\nx = {{ {}x = 1 }}\n",
        "\"a\" . ".repeat(DEPTH)
    ));
    refused(&format!("[route.{}x]\n", "a.".repeat(DEPTH)));
    refused(&format!(
        "[[route]]\n[[upstream]]\n[route.{}x]\n",
        "a.".repeat(DEPTH)
    ));
    refused(&format!(
        "[[route]]\nx = {}1{}\n",
        "[".repeat(60),
        "]".repeat(60)
    ));
}

#[test]
fn huge_numbers_and_odd_values_are_refused() {
    for value in [
        "999999999999999999999999999999999999",
        "-1",
        "0xffffffffffffffffffff",
        "1e400",
        "nan",
        "-inf",
        "1979-05-27T07:32:00Z",
        "\"\"",
        "\"\\u0000\"",
        "[]",
        "{}",
        "true",
    ] {
        for key in [
            "max_connections",
            "header_timeout",
            "bind",
            "tls",
            "name",
            "trusted_proxies",
        ] {
            let bind = if key == "bind" {
                ""
            } else {
                "bind = \"127.0.0.1:0\"\n"
            };
            let loaded = load(&format!("[[listener]]\n{bind}{key} = {value}\n"));
            assert!(
                loaded.is_err() || (key == "trusted_proxies" && value == "[]"),
                "{key} = {value}"
            );
        }
    }
}

#[test]
fn a_line_of_a_megabyte_is_answered_with_a_short_refusal() {
    let long = "x".repeat(1 << 20);
    let texts = [
        format!("[[route]]\n{long} = 1\n"),
        format!("[[route]]\nupstream = \"{long}\"\n"),
        format!("[[{long}]]\n"),
        format!("{long}\n"),
        format!(
            "[[upstream]]\nname = \"a\"\nendpoints = [{}]\n",
            "\"a\", ".repeat(1 << 17)
        ),
        format!("[[route]]\nmatch = {{ path = \"/{long}%\" }}\nupstream = \"a\"\n"),
        format!(
            "[[route]]\nmatch = {{ path_regex = \"{}\" }}\nupstream = \"a\"\n",
            "(a|".repeat(1 << 16)
        ),
        "[[route]]\nx = 1\n".repeat(1 << 14),
        "[a]\n".repeat(1 << 16),
        "\"\"\"\n".repeat(1 << 16),
        (0..1 << 15).map(|n| format!("[s{n}]\n")).collect(),
    ];
    for text in texts {
        let problems = refused(&text);
        for problem in &problems.0 {
            assert!(problem.text.as_ref().is_none_or(|t| t.len() < 2000));
            assert!(
                problem.hint.as_ref().is_none_or(|h| h.len() < 4000),
                "{}",
                problem.code
            );
        }
    }
}

#[test]
fn null_bytes_and_other_control_characters_are_refused() {
    refused("\0");
    refused("[[route]]\nname = \"a\0\"\n");
    refused(&format!(
        "{SAMPLE}\n[[route]]\nupstream = \"orders\"\nname = \"a\\u0000b\"\n"
    ));
    refused("\r\r[[route]]\rx=1");
}

#[test]
fn a_byte_order_mark_and_other_line_ends_change_nothing() {
    let windows = format!("\u{feff}{}", SAMPLE.replace('\n', "\r\n"));
    let plain = load(SAMPLE).expect("the sample");
    let document = load(&windows).unwrap_or_else(|p| panic!("{p}"));
    assert_eq!(document.routes.len(), plain.routes.len());
    for (a, b) in plain.routes.iter().zip(&document.routes) {
        assert_eq!(
            (a.line, format!("{:?}", a.value)),
            (b.line, format!("{:?}", b.value))
        );
    }
}

#[test]
fn a_file_that_is_not_utf8_is_refused_with_its_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.toml");
    std::fs::write(&path, b"# one\nx = \"\xff\"\n").expect("written");
    let problems = Loader::new().load(&path).expect_err("not text");
    assert_eq!(problems.0[0].code, "not-utf8");
    assert!(
        problems.0[0]
            .place
            .as_ref()
            .is_some_and(|p| (p.line, p.column) == (2, 6))
    );
    let folder_itself = Loader::new().load(folder.path()).expect_err("a folder");
    assert_eq!(folder_itself.0[0].code, "missing-file");
}

#[test]
fn an_empty_document_is_refused_for_its_missing_listener() {
    for text in ["", "\n", "# nothing", "\u{feff}"] {
        assert_eq!(refused(text).0[0].code, "no-listener");
    }
}

/// One change to a text: where, what is taken out, what is put in.
fn change() -> impl Strategy<Value = (prop::sample::Index, usize, String)> {
    let pieces = prop::sample::select(vec![
        "",
        "[",
        "]",
        "[[",
        "]]",
        "{",
        "}",
        "\"",
        "'",
        "\"\"\"",
        "'''",
        "=",
        ".",
        ",",
        "\n",
        "\r",
        "#",
        "\\",
        "\0",
        "${",
        "${env:A}",
        "[[route]]",
        "[server]",
        "[route.retry]",
        "[upstream.health]",
        "include = [\"*\"]\n",
        "true",
        "-1",
        "99999999999999999999",
        "1.5",
        "é",
        "\u{feff}",
        "\u{202e}",
        "off",
        "/*",
        "{id}",
        "route = []\n",
    ]);
    (
        any::<prop::sample::Index>(),
        0usize..20,
        pieces.prop_map(str::to_owned),
    )
}

/// As many cases as `TOLLGATE_FUZZ_CASES` says, and `least` without it.
fn cases(least: u32) -> ProptestConfig {
    let more = std::env::var("TOLLGATE_FUZZ_CASES").ok();
    let cases = more.and_then(|text| text.parse().ok()).unwrap_or(least);
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(cases.max(least))
    }
}

proptest! {
    #![proptest_config(cases(400))]

    #[test]
    fn no_change_to_the_sample_makes_reading_panic(changes in prop::collection::vec(change(), 1..12)) {
        let mut text: Vec<char> = SAMPLE.chars().collect();
        for (at, taken, put) in changes {
            let at = at.index(text.len() + 1);
            let end = (at + taken).min(text.len());
            text.splice(at..end, put.chars());
        }
        let text: String = text.into_iter().collect();
        let mut loader = Loader::with_environment(|_| None);
        let first = loader.load_text("test.toml", &text, Path::new("/nowhere"));
        let second = loader.load_text("test.toml", &text, Path::new("/nowhere"));
        match (first, second) {
            (Ok(a), Ok(b)) => prop_assert_eq!(a.hash, b.hash),
            (Err(a), Err(b)) => {
                prop_assert!(!a.0.is_empty());
                prop_assert_eq!(a.to_string(), b.to_string());
            }
            _ => prop_assert!(false, "the same text was accepted once and refused once"),
        }
    }

    #[test]
    fn no_text_makes_reading_panic(text in "\\PC*|[\\[\\]{}\"'=.#a-c\\n\\\\ ]{0,200}") {
        drop(load(&text));
    }
}
