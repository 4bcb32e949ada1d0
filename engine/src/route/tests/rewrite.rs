//! Rewrites and redirects: what is sent is in normal form, and what is answered is a valid header.

use super::*;

fn rewrite(path: RewritePath) -> Rewrite {
    Rewrite {
        path,
        host: None,
        at: At(None),
    }
}

fn template(text: &str) -> Rewrite {
    rewrite(RewritePath::Template(PathPattern::parse(text).unwrap()))
}

#[test]
fn a_template_is_filled_with_captures_and_the_rest() {
    for (pattern, to, path, expected) in [
        ("/orders/{id}", "/api/{id}", "/orders/7%20a", "/api/7%20a"),
        ("/{a}/{b}/*", "/{b}/{a}/*", "/x/y/z/", "/y/x/z/"),
        ("/a/*", "/b/*", "/a", "/b"),
        ("/a/*", "/b/*", "/a/", "/b/"),
        ("/a/*", "/*", "/a", "/"),
        ("/a/*", "/*", "/a/b", "/b"),
        ("/a", "/b/", "/a", "/b/"),
        ("/a", "/", "/a", "/"),
        ("/a", "/b/*", "/a", "/b"),
    ] {
        let pattern = PathPattern::parse(pattern).unwrap();
        assert_eq!(
            rewritten(&template(to), Some(&pattern), path).as_deref(),
            Ok(expected),
            "{to} {path}"
        );
    }
    assert_eq!(
        rewritten(&template("/v1/*"), None, "/a/b").as_deref(),
        Ok("/v1/a/b")
    );
    let unknown = Err(RewriteError::UnknownCapture("x".to_owned()));
    assert_eq!(rewritten(&template("/{x}"), None, "/a"), unknown);
}

#[test]
fn a_prefix_is_stripped_by_whole_segments() {
    for (prefix, path, expected) in [
        ("/api", "/api", "/"),
        ("/api", "/api/", "/"),
        ("/api", "/api/a/", "/a/"),
        ("/api/", "/api/a", "/a"),
        ("/api", "/apis", "/apis"),
        ("/api", "/a", "/a"),
        ("/", "/a", "/a"),
    ] {
        let strip = rewrite(RewritePath::StripPrefix(prefix.to_owned()));
        assert_eq!(
            rewritten(&strip, None, path).as_deref(),
            Ok(expected),
            "{prefix} {path}"
        );
    }
    assert_eq!(
        rewritten(&rewrite(RewritePath::Keep), None, "/a").as_deref(),
        Ok("/a")
    );
}

/// HI-53
#[test]
fn a_rewrite_that_leaves_the_normal_form_is_refused() {
    let strip = rewrite(RewritePath::StripPrefix("/api".to_owned()));
    for path in [
        "/api/../admin",
        "/api//admin",
        "/api/a/./b",
        "/api/%2e%2e/x",
        "/api/a/../b",
    ] {
        let result = rewritten(&strip, None, path);
        assert!(
            matches!(
                result,
                Err(RewriteError::Refused(_) | RewriteError::NotNormal(_))
            ),
            "{path}: {result:?}"
        );
    }
    let pattern = PathPattern::parse("/a/{x}/*").unwrap();
    for path in ["/a/../b", "/a/b//c", "/a/%2F/b"] {
        assert!(
            rewritten(&template("/{x}/*"), Some(&pattern), path).is_err(),
            "{path}"
        );
    }
}

#[test]
fn a_redirect_is_filled_and_safe_as_a_header() {
    let pattern = PathPattern::parse("/old/{id}/*").unwrap();
    for (to, query, expected) in [
        (
            "https://h.test/new/{id}?from={path}",
            None,
            "https://h.test/new/7?from=/old/7/x",
        ),
        (
            "https://h.test{path}?{query}",
            Some("a=1"),
            "https://h.test/old/7/x?a=1",
        ),
        (
            "https://h.test{path}?{query}",
            None,
            "https://h.test/old/7/x",
        ),
        ("/{unknown}/{id}/{", None, "/{unknown}/7/{"),
        ("/a\r\nx: {query}", Some("b\nc d"), "/a%0D%0Ax:%20b%0Ac%20d"),
    ] {
        let target = redirect_target(to, Some(&pattern), "/old/7/x", query);
        assert_eq!(target, expected);
        assert!(HeaderValue::from_str(&target).is_ok());
    }
    assert_eq!(
        redirect_target("https://h.test{path}", None, "*", None),
        "https://h.test/"
    );
}
