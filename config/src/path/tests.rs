//! What the normal form promises: examples from the catalogue of hostile inputs, and properties over anything.

use proptest::prelude::*;

use super::*;

fn normal(path: &str) -> String {
    normalize(path)
        .unwrap_or_else(|error| panic!("{path}: {error}"))
        .into_owned()
}

#[test]
fn a_normal_path_is_borrowed_and_unchanged() {
    for path in [
        "/",
        "*",
        "/a",
        "/a/",
        "/a.b/..c/.d/e..",
        "/A;x=1/~_-!$&'()*+,=:@",
        "/caf%C3%A9/%20%25%3F%23",
        "/%7Bid%7D",
        "/...",
        "/...;/.a;/..a;/a..;",
    ] {
        assert!(
            matches!(normalize(path), Ok(Cow::Borrowed(same)) if same == path),
            "{path}"
        );
    }
}

/// HI-52
#[test]
fn other_spellings_of_a_path_have_one_normal_form() {
    for (path, expected) in [
        ("//admin", "/admin"),
        ("/x/../admin", "/admin"),
        ("/x/%2e%2e/admin", "/admin"),
        ("/x/.%2E/admin", "/admin"),
        ("/./admin", "/admin"),
        ("/%61dmin", "/admin"),
        ("/%7Euser", "/~user"),
        ("/admin/.", "/admin/"),
        ("/admin/x/..", "/admin/"),
        ("/admin//", "/admin/"),
        ("///", "/"),
        ("/a/..", "/"),
        ("/a//../b", "/b"),
        ("/caf%c3%a9", "/caf%C3%A9"),
        ("/a|b^c{d}[e]", "/a%7Cb%5Ec%7Bd%7D%5Be%5D"),
        ("/%2e", "/"),
    ] {
        assert_eq!(normal(path), expected, "{path}");
    }
}

/// HI-52
#[test]
fn parameters_and_case_make_another_path() {
    assert_eq!(normal("/admin;x"), "/admin;x");
    assert_eq!(normal("/ADMIN"), "/ADMIN");
}

/// HI-52
#[test]
fn an_escape_is_decoded_once() {
    assert_eq!(normal("/%252e%252e/a"), "/%252e%252e/a");
    assert_eq!(normal("/%2561"), "/%2561");
}

/// HI-52
#[test]
fn a_path_with_two_readings_is_refused() {
    for (path, expected) in [
        ("", PathError::NotAbsolute),
        ("admin", PathError::NotAbsolute),
        ("**", PathError::NotAbsolute),
        ("http://h/", PathError::NotAbsolute),
        ("/admin%2f", PathError::EncodedSlash),
        ("/api..%2Fadmin", PathError::EncodedSlash),
        ("/a\\b", PathError::Backslash),
        ("/..%5cadmin", PathError::Backslash),
        ("/a%5C", PathError::Backslash),
        ("/%00", PathError::Control),
        ("/a%0d%0aX", PathError::Control),
        ("/%7f", PathError::Control),
        ("/%C2%85", PathError::Control),
        ("/a\tb", PathError::Control),
        ("/a\u{7f}", PathError::Control),
        ("/%", PathError::BadEscape),
        ("/%4", PathError::BadEscape),
        ("/%4g", PathError::BadEscape),
        ("/%+1", PathError::BadEscape),
        ("/%c0%af", PathError::NotUtf8),
        ("/%C0%AE%C0%AE/", PathError::NotUtf8),
        ("/%e0%80%af", PathError::NotUtf8),
        ("/%ED%A0%80", PathError::NotUtf8),
        ("/%F4%90%80%80", PathError::NotUtf8),
        ("/%ff", PathError::NotUtf8),
        ("/%C3", PathError::NotUtf8),
        ("/%C3x", PathError::NotUtf8),
        ("/%C3/%A9", PathError::NotUtf8),
        ("/%A9", PathError::NotUtf8),
        ("/é", PathError::NotAscii),
        ("/a b", PathError::Forbidden(' ')),
        ("/\"", PathError::Forbidden('"')),
        ("/<", PathError::Forbidden('<')),
        ("/>", PathError::Forbidden('>')),
        ("/`", PathError::Forbidden('`')),
        ("/a?b", PathError::Forbidden('?')),
        ("/..", PathError::AboveRoot),
        ("/%2e%2e/", PathError::AboveRoot),
        ("/a/../../b", PathError::AboveRoot),
        ("//..", PathError::AboveRoot),
        ("/a#b", PathError::Fragment),
        ("/..;/admin", PathError::DotsWithParameters),
        ("/a/..;x=1", PathError::DotsWithParameters),
        ("/a/.;/b", PathError::DotsWithParameters),
        ("/a/%2e%2E;/b", PathError::DotsWithParameters),
        ("/a/.%2e%3b/b", PathError::DotsWithParameters),
        ("/a/..%3B", PathError::DotsWithParameters),
    ] {
        assert_eq!(normalize(path), Err(expected), "{path}");
    }
}

#[test]
fn a_query_is_passed_on_or_refused_but_never_changed() {
    assert_eq!(check_query("a=%2F..%00&b=\\|{}\"<>^`"), Ok(()));
    assert_eq!(check_query(""), Ok(()));
    assert_eq!(check_query("a b"), Err(PathError::Forbidden(' ')));
    assert_eq!(check_query("a\rb"), Err(PathError::Control));
    assert_eq!(check_query("a\u{7f}"), Err(PathError::Control));
    assert_eq!(check_query("a#b"), Err(PathError::Fragment));
    assert_eq!(check_query("ä"), Err(PathError::NotAscii));
}

/// GW-105
#[test]
fn a_pattern_has_literals_captures_and_a_rest() {
    let literal = |text: &str| Segment::Literal(text.to_owned());
    let capture = |text: &str| Segment::Capture(text.to_owned());
    for (text, segments, rest, trailing_slash) in [
        ("/", vec![], false, false),
        ("/*", vec![], true, false),
        ("/a", vec![literal("a")], false, false),
        ("/a/", vec![literal("a")], false, true),
        ("/a/*", vec![literal("a")], true, false),
        (
            "/a/{id}/b",
            vec![literal("a"), capture("id"), literal("b")],
            false,
            false,
        ),
        ("/{_x1}/", vec![capture("_x1")], false, true),
        ("/%7Bid%7D", vec![literal("%7Bid%7D")], false, false),
    ] {
        let pattern = PathPattern::parse(text).unwrap();
        assert_eq!(
            pattern,
            PathPattern {
                segments,
                rest,
                trailing_slash
            },
            "{text}"
        );
        assert_eq!(pattern.to_string(), text);
    }
}

/// GW-105
#[test]
fn a_pattern_that_is_wrong_is_told_what_to_write() {
    for (text, part) in [
        ("", "must begin with `/`"),
        ("a", "must begin with `/`"),
        ("/a*", "trailing `/*`"),
        ("/*/a", "trailing `/*`"),
        ("/a/**", "trailing `/*`"),
        ("/a{id}", "whole segment"),
        ("/{id}.json", "whole segment"),
        ("/{a}{b}", "whole segment"),
        ("/{Id}", "lower-case"),
        ("/{1a}", "lower-case"),
        ("/{}", "lower-case"),
        ("/{a}/{a}", "twice"),
        ("/%7euser/{id}", "write `/~user/{id}`"),
        ("/caf%c3%a9/*", "write `/caf%C3%A9/*`"),
        ("/a//b", "write `/a/b`"),
        ("/a//*", "write `/a/*`"),
        ("//*", "write `/*`"),
        ("//", "write `/`"),
        ("/a/../b", "write `/b`"),
        ("/a|b", "write `/a%7Cb`"),
        ("/..", "above the root"),
        ("/a b", "raw space"),
        ("/a?b=1", "query"),
        ("/é", "percent-encoded"),
        (&"/a".repeat(257), "256 segments"),
    ] {
        let message = PathPattern::parse(text).unwrap_err();
        assert!(message.contains(part), "{text}: {message}");
    }
}

/// Text from the characters that matter, so that rules meet each other.
fn pathological() -> impl Strategy<Value = String> {
    let pieces = [
        "/", "/", "/", ".", "..", "%2e", "%2E", "%2f", "%5c", "\\", "a", "B", ";", "%3b", "%3B",
        "%61", "%", "%c3%a9", "%C3%A9", "%c0%af", "%25", "%20", "%00", "|", "{", "}", "{id}", "[",
        "~", "%7e", "é", " ", "#", "?", "*", "/*",
    ];
    proptest::collection::vec(proptest::sample::select(pieces.to_vec()), 0..12)
        .prop_map(|parts| format!("/{}", parts.concat()))
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
    #![proptest_config(cases(2000))]

    /// HI-52
    #[test]
    fn normalising_twice_changes_nothing_more(path in pathological()) {
        if let Ok(once) = normalize(&path) {
            let twice = normalize(&once).unwrap();
            prop_assert!(matches!(twice, Cow::Borrowed(_)), "{} is not borrowed", once);
            prop_assert_eq!(&*twice, &*once);
            prop_assert!(matches!(normalize(&path).unwrap(), Cow::Borrowed(_)) == (once == path));
        }
    }

    /// HI-52
    #[test]
    fn a_normal_form_holds_nothing_odd(path in pathological()) {
        if let Ok(form) = normalize(&path) {
            prop_assert!(form.starts_with('/') && form.is_ascii() && !form.contains("//") && !form.contains('\\'));
            prop_assert!(form.split('/').all(|segment| segment != "." && segment != ".."));
            // Nor for a server that takes parameters away first.
            let decoded = form.replace("%3B", ";");
            prop_assert!(decoded.split('/').all(|segment| !matches!(segment.split_once(';'), Some(("." | "..", _)))));
            prop_assert!(!form.to_ascii_lowercase().contains("%2f") && !form.to_ascii_lowercase().contains("%2e"));
        }
    }

    /// HI-52
    #[test]
    fn nothing_panics_whatever_is_sent(text in any::<String>(), path in pathological()) {
        for text in [&text, &path, &format!("/{text}")] {
            std::hint::black_box((normalize(text).is_ok(), check_query(text).is_ok()));
            if let Ok(pattern) = PathPattern::parse(text) {
                prop_assert_eq!(&pattern.to_string(), text);
            }
        }
    }
}
