//! Texts that a schema flags, without what should not be in them (GW-810): white space at their ends, NUL, HTML. A body's other
//! bytes stay as they are, numbers and order among them: only the texts that changed are written anew.

use tollgate_config::{BodyNode, BodySchema, OtherProperties, Sanitize};

use super::json::Json;

/// Sanitizes the value, and the body that it was read from when that makes a difference.
pub(super) fn sanitize(schema: &BodySchema, value: &mut Json, body: &[u8]) -> Option<Vec<u8>> {
    let mut walk = Walk {
        schema,
        strings: 0,
        changed: Vec::new(),
    };
    walk.value(Some(schema.root()), value);
    (!walk.changed.is_empty()).then(|| spliced(body, &walk.changed))
}

struct Walk<'a> {
    schema: &'a BodySchema,
    /// How many strings of the body, keys among them, stand before the next value.
    strings: usize,
    /// Which string becomes which JSON, in order.
    changed: Vec<(usize, String)>,
}

impl Walk<'_> {
    /// Goes through all of a value, also where no schema says anything, because its strings count.
    fn value(&mut self, node: Option<&BodyNode>, value: &mut Json) {
        let schema = self.schema;
        match value {
            Json::Null | Json::Bool(_) | Json::Number(_) => {}
            Json::Text(text) => {
                let rules = node.map(|node| node.sanitize).unwrap_or_default();
                if let Some(clean) = sanitized(rules, text) {
                    let json = serde_json::Value::from(clean.as_str()).to_string();
                    self.changed.push((self.strings, json));
                    *text = clean;
                }
                self.strings += 1;
            }
            Json::List(items) => {
                let node = node.and_then(|node| node.items).map(|id| schema.node(id));
                for item in items {
                    self.value(node, item);
                }
            }
            Json::Object(members) => {
                for (key, value) in members {
                    self.strings += 1;
                    let own = node.and_then(|node| match (node.properties.get(key), node.others) {
                        (Some(id), _) => Some(*id),
                        (None, OtherProperties::Like(id)) => Some(id),
                        (None, OtherProperties::Any | OtherProperties::None) => None,
                    });
                    self.value(own.map(|id| schema.node(id)), value);
                }
            }
        }
    }
}

/// The text by these rules, if they change it.
fn sanitized(rules: Sanitize, text: &str) -> Option<String> {
    let mut clean = text.to_owned();
    if rules.nul {
        clean.retain(|letter| letter != '\0');
    }
    if rules.strip_html {
        clean = without_tags(&clean);
    }
    if rules.escape_html {
        clean = escaped(&clean);
    }
    if rules.trim {
        clean = clean.trim().to_owned();
    }
    (clean != text).then_some(clean)
}

/// A tag or a comment is `<` and a letter, `/`, `!` or `?`, up to the next `>` or the end. What is left has no such beginning:
/// where taking one out joins a `<` with such a letter, that is the beginning of the next.
fn without_tags(text: &str) -> String {
    let mut left = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        let begins = letter.is_ascii_alphabetic() || matches!(letter, '/' | '!' | '?');
        if begins && left.ends_with('<') {
            left.pop();
            letters.find(|letter| *letter == '>');
        } else {
            left.push(letter);
        }
    }
    left
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// The body with some of its strings replaced. It is good JSON, so a quote outside of a string begins one.
fn spliced(body: &[u8], changed: &[(usize, String)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len());
    let mut changed = changed.iter();
    let mut next = changed.next();
    let (mut at, mut number) = (0, 0);
    while let Some(byte) = body.get(at) {
        if *byte != b'"' {
            out.push(*byte);
            at += 1;
            continue;
        }
        let end = at + string_length(&body[at..]);
        match next {
            Some((which, json)) if *which == number => {
                out.extend_from_slice(json.as_bytes());
                next = changed.next();
            }
            _ => out.extend_from_slice(&body[at..end]),
        }
        (at, number) = (end, number + 1);
    }
    out
}

/// Of the string that begins here, with both quotes.
fn string_length(from: &[u8]) -> usize {
    let mut at = 1;
    while let Some(byte) = from.get(at) {
        at += match byte {
            b'\\' => 2,
            b'"' => return at + 1,
            _ => 1,
        };
    }
    from.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{check, json};
    use super::*;

    fn after(schema: &str, body: &str) -> String {
        let schema = BodySchema::parse(schema).expect("it is understood");
        let changed = check(&schema, body.as_bytes());
        let changed = changed.unwrap_or_else(|faults| panic!("{}", faults.told));
        changed.map_or(body.to_owned(), |bytes| {
            String::from_utf8(bytes).expect("UTF-8")
        })
    }

    /// GW-810: only what is flagged changes, and not a byte besides.
    #[test]
    fn gw_810_only_flagged_texts_change() {
        let schema = r##"{"properties": {
            "note": {"sanitize": ["trim", "nul"], "maxLength": 3},
            "items": {"items": {"properties": {"name": {"$ref": "#/$defs/plain"}}}},
            "more": {"additionalProperties": {"$ref": "#/$defs/plain"}}},
            "$defs": {"plain": {"sanitize": ["strip_html", "trim"]}}}"##;
        let body = r#"{ "n": 1.0e3, "big": 123456789012345678901234567890, "other": " <b>x\u0000 ", "note":" a\u0000b ",
            "items" : [{"name": "ok"}, {"name": "<i>\"x\\\"</i>", "nam\u0065s": " y "}, 7], "more": {"\"": "a<br>b", "k": [" c "]}, "note2": " d"}"#;
        let wanted = r#"{ "n": 1.0e3, "big": 123456789012345678901234567890, "other": " <b>x\u0000 ", "note":"ab",
            "items" : [{"name": "ok"}, {"name": "\"x\\\"", "nam\u0065s": " y "}, 7], "more": {"\"": "ab", "k": [" c "]}, "note2": " d"}"#;
        assert_eq!(after(schema, body), wanted);
        assert_eq!(after(schema, wanted), wanted, "again it changes nothing");
        assert_eq!(after(r#"{"sanitize": ["trim"]}"#, "\" a \""), "\"a\"");
    }

    /// Rules hold for what is passed on: a text of blanks is an empty one.
    #[test]
    fn a_text_is_checked_after_it_was_sanitized() {
        let schema =
            r#"{"properties": {"name": {"sanitize": ["trim", "strip_html"], "minLength": 1}}}"#;
        let schema = BodySchema::parse(schema).unwrap();
        assert!(check(&schema, br#"{"name": " <p> "}"#).is_err());
        assert!(check(&schema, br#"{"name": " x "}"#).is_ok());
    }

    #[test]
    fn html_is_taken_out_or_escaped() {
        for (text, left) in [
            ("a < b > c", "a < b > c"),
            ("<b>bold</b>", "bold"),
            ("x<!-- y --> z", "x z"),
            ("1 <script src=x>f()</script> 2", "1 f() 2"),
            ("<<b>script>alert(1)", "alert(1)"),
            ("<<<i>b>i>x", "x"),
            ("open <a href=", "open "),
            ("<3 & \u{e9}<\u{e9}", "<3 & \u{e9}<\u{e9}"),
        ] {
            assert_eq!(without_tags(text), left, "{text}");
        }
        assert_eq!(
            escaped("<a href=\"x\">'&"),
            "&lt;a href=&quot;x&quot;&gt;&#39;&amp;"
        );
    }

    proptest! {
        #[test]
        fn what_is_left_has_no_tag(text in "[<>a/! ?]{0,40}") {
            let left = without_tags(&text);
            let starts = |at: &&str| at.starts_with(|next: char| next.is_ascii_alphabetic() || "/!?".contains(next));
            prop_assert!(!left.split('<').skip(1).any(|rest| starts(&rest)), "{left}");
            prop_assert_eq!(without_tags(&left), left);
        }

        #[test]
        fn strings_are_found_where_they_stand(texts: Vec<String>, which: usize) {
            let body = serde_json::to_string(&texts).unwrap();
            let which = which % texts.len().max(1);
            let mut wanted = texts;
            if let Some(text) = wanted.get_mut(which) {
                *text = "new".to_owned();
            }
            let changed = spliced(body.as_bytes(), &[(which, "\"new\"".to_owned())]);
            prop_assert!(json::read(&changed).is_ok());
            prop_assert_eq!(serde_json::from_slice::<Vec<String>>(&changed).unwrap(), wanted);
        }
    }
}
