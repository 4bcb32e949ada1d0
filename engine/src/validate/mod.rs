//! Whether a body is what a schema of the document says (GW-810): all that is wrong with it is told at once, by field. A
//! body is read strictly, so that whoever reads it next cannot read something else. Texts that the schema flags are
//! sanitized before that, and nothing else of a body is ever written anew. Knows no sockets and no routes.

mod json;
mod sanitize;

use std::fmt::Write as _;

use serde_json::json as value;
use tollgate_config::{
    BodyFormat, BodyKind, BodyNode, BodySchema, Bounds, NodeId, OtherProperties,
};

use json::Json;

/// So many faults are told.
const MOST: usize = 16;

/// What is wrong with a body.
pub(crate) struct Faults {
    /// `[{"field": …, "message": …}, …]`
    pub(crate) told: String,
    /// For the log.
    pub(crate) first: String,
}

/// Checks a body. What it is after its texts were sanitized, when that changed one.
pub(crate) fn check(schema: &BodySchema, body: &[u8]) -> Result<Option<Vec<u8>>, Faults> {
    let mut walk = Walk {
        schema,
        field: String::new(),
        faults: Vec::new(),
    };
    let mut changed = None;
    match json::read(body) {
        Ok(mut value) => {
            if schema.sanitizes() {
                changed = sanitize::sanitize(schema, &mut value, body);
            }
            walk.value(schema.root(), &value);
        }
        Err(why) => walk.fault(&why),
    }
    let Some((field, why)) = walk.faults.first() else {
        return Ok(changed);
    };
    let first = format!("{field}: {why}");
    let told: Vec<_> = { walk.faults.iter() }
        .map(|(field, why)| value!({ "field": field, "message": why }))
        .collect();
    let told = serde_json::Value::from(told).to_string();
    Err(Faults { told, first })
}

struct Walk<'a> {
    schema: &'a BodySchema,
    /// Where we are, such as `items[2].quantity`.
    field: String,
    faults: Vec<(String, String)>,
}

impl Walk<'_> {
    fn fault(&mut self, why: &str) {
        if self.faults.len() < MOST {
            self.faults.push((self.field.clone(), why.to_owned()));
        }
    }

    /// Goes on within a property or an element.
    fn within(&mut self, part: &str, doing: impl FnOnce(&mut Self)) {
        let length = self.field.len();
        if length > 0 && !part.starts_with('[') {
            self.field.push('.');
        }
        self.field.push_str(part);
        doing(self);
        self.field.truncate(length);
    }

    fn node(&mut self, id: NodeId, value: &Json) {
        let schema = self.schema;
        self.value(schema.node(id), value);
    }

    fn value(&mut self, node: &BodyNode, value: &Json) {
        if self.faults.len() >= MOST {
            return;
        }
        if !node.kinds.is_empty() && !node.kinds.iter().any(|kind| is(value, *kind)) {
            let words: Vec<_> = node.kinds.iter().map(|kind| kind.words()).collect();
            return self.fault(&format!("must be {}", words.join(" or ")));
        }
        if let Some(values) = &node.values
            && !values.iter().any(|wanted| value.equals(wanted))
        {
            let words: Vec<_> = values.iter().map(ToString::to_string).collect();
            return self.fault(&format!("must be {}", words.join(" or ")));
        }
        match value {
            Json::Text(text) => self.text(node, text),
            Json::Number(number) => self.number(node, number),
            Json::List(items) => self.list(node, items),
            Json::Object(members) => self.object(node, members),
            Json::Null | Json::Bool(_) => {}
        }
    }

    fn text(&mut self, node: &BodyNode, text: &str) {
        if node.length.least.is_some() || node.length.most.is_some() {
            self.counted(node.length, text.chars().count(), "characters");
        }
        if let Some(pattern) = &node.pattern
            && !pattern.is_match(text)
        {
            self.fault(&format!("must match {}", pattern.as_str()));
        }
        match node.format {
            Some(BodyFormat::Uuid) if !is_uuid(text) => self.fault("must be a UUID"),
            Some(BodyFormat::Email) if !is_email(text) => self.fault("must be an e-mail address"),
            _ => {}
        }
    }

    fn number(&mut self, node: &BodyNode, number: &serde_json::Number) {
        let number = number.as_f64().unwrap_or(f64::NAN);
        let (range, beyond) = (node.range, node.exclusive);
        let checks = [
            (
                range.least,
                number.ge(&range.least.unwrap_or(number)),
                "at least",
            ),
            (
                range.most,
                number.le(&range.most.unwrap_or(number)),
                "at most",
            ),
            (
                beyond.least,
                beyond.least.is_none_or(|end| number > end),
                "more than",
            ),
            (
                beyond.most,
                beyond.most.is_none_or(|end| number < end),
                "less than",
            ),
        ];
        for (end, holds, words) in checks {
            if let (Some(end), false) = (end, holds) {
                self.fault(&format!("must be {words} {end}"));
            }
        }
    }

    fn list(&mut self, node: &BodyNode, items: &[Json]) {
        self.counted(node.item_count, items.len(), "elements");
        let Some(schema) = node.items else { return };
        for (place, item) in items.iter().enumerate() {
            if self.faults.len() >= MOST {
                return;
            }
            let mut part = String::new();
            let _a_string_takes_everything = write!(part, "[{place}]");
            self.within(&part, |walk| walk.node(schema, item));
        }
    }

    fn object(&mut self, node: &BodyNode, members: &[(String, Json)]) {
        for name in &node.required {
            if !members.iter().any(|(key, _)| key == name) {
                self.within(name, |walk| walk.fault("is missing"));
            }
        }
        for (key, value) in members {
            if self.faults.len() >= MOST {
                return;
            }
            let schema = match (node.properties.get(key), node.others) {
                (Some(id), _) => *id,
                (None, OtherProperties::Like(id)) => id,
                (None, OtherProperties::Any) => continue,
                (None, OtherProperties::None) => {
                    self.within(key, |walk| walk.fault("is not known"));
                    continue;
                }
            };
            self.within(key, |walk| walk.node(schema, value));
        }
    }

    fn counted(&mut self, bounds: Bounds<u64>, count: usize, what: &str) {
        let count = count as u64;
        if let Some(least) = bounds.least.filter(|least| count < *least) {
            self.fault(&format!("must have {least} {what} or more"));
        }
        if let Some(most) = bounds.most.filter(|most| count > *most) {
            self.fault(&format!("must have {most} {what} or fewer"));
        }
    }
}

fn is(value: &Json, kind: BodyKind) -> bool {
    match (value, kind) {
        (Json::Null, BodyKind::Null)
        | (Json::Bool(_), BodyKind::Boolean)
        | (Json::Number(_), BodyKind::Number)
        | (Json::Text(_), BodyKind::String)
        | (Json::List(_), BodyKind::Array)
        | (Json::Object(_), BodyKind::Object) => true,
        // `1.0` is a whole number, as JSON Schema has it.
        (Json::Number(number), BodyKind::Integer) => {
            number.is_i64()
                || number.is_u64()
                || number.as_f64().is_some_and(|number| number.fract() == 0.0)
        }
        _ => false,
    }
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36 && { text.bytes().enumerate() }.all(|(place, byte)| match place {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    })
}

fn is_email(text: &str) -> bool {
    let good = |part: &str| !part.is_empty() && !part.contains([' ', '@', '\t', '\r', '\n']);
    let Some((user, host)) = text.rsplit_once('@') else {
        return false;
    };
    good(user) && good(host) && host.split('.').count() > 1 && host.split('.').all(good)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ORDER: &str = r##"{
        "type": "object", "additionalProperties": false, "required": ["items", "email"],
        "properties": {
            "id": {"type": "string", "format": "uuid"},
            "email": {"type": "string", "format": "email"},
            "note": {"type": ["string", "null"], "maxLength": 3},
            "way": {"enum": ["standard", "express", 1]},
            "zip": {"type": "string", "pattern": "^[0-9]{5}$"},
            "weight": {"type": "number", "exclusiveMinimum": 0, "maximum": 10},
            "labels": {"type": "object", "additionalProperties": {"type": "boolean"}},
            "items": {"type": "array", "minItems": 1, "maxItems": 2, "items": {"$ref": "#/$defs/item"}}
        },
        "$defs": {"item": {"type": "object", "required": ["quantity"], "properties": {
            "quantity": {"type": "integer", "minimum": 1, "maximum": 100}}}}
    }"##;

    fn told(body: &[u8]) -> Vec<(String, String)> {
        let schema = BodySchema::parse(ORDER).expect("it is understood");
        let Err(faults) = check(&schema, body) else {
            return Vec::new();
        };
        let told: Vec<serde_json::Value> = serde_json::from_str(&faults.told).expect("JSON");
        let text = |value: &serde_json::Value| value.as_str().expect("a text").to_owned();
        told.iter()
            .map(|fault| (text(&fault["field"]), text(&fault["message"])))
            .collect()
    }

    /// GW-810, GW-807: every rule has a case that breaks it, and names its field.
    #[test]
    fn gw_810_every_rule_refuses_and_names_its_field() {
        let good = r#"{"email": "a@b.c", "items": [{"quantity": 1.0, "more": []}], "note": null, "labels": {"a": true},
                       "way": 1.0, "id": "0189d0a8-7d2b-7a33-8a34-5b6a7c8d9e0f", "zip": "12345", "weight": 0.1}"#;
        assert_eq!(told(good.as_bytes()), []);
        let order =
            |key: &str| format!(r#"{{"email": "a@b.c", "items": [{{"quantity": 1}}], {key}}}"#);
        for (body, field, words) in [
            ("[]".to_owned(), "", "an object"),
            (
                r#"{"items": [{"quantity": 1}]}"#.into(),
                "email",
                "is missing",
            ),
            (
                r#"{"email": "a@b.c", "items": []}"#.into(),
                "items",
                "1 elements or more",
            ),
            (
                r#"{"email": "a@b.c", "items": [{"quantity": 0}]}"#.into(),
                "items[0].quantity",
                "at least 1",
            ),
            (
                r#"{"email": "a@b.c", "items": [{"quantity": 101}]}"#.into(),
                "items[0].quantity",
                "at most 100",
            ),
            (
                r#"{"email": "a@b.c", "items": [{"quantity": 1.5}]}"#.into(),
                "items[0].quantity",
                "a whole number",
            ),
            (
                r#"{"email": "a@b.c", "items": [{}]}"#.into(),
                "items[0].quantity",
                "is missing",
            ),
            (
                r#"{"email": "a@b", "items": [{"quantity": 1}]}"#.into(),
                "email",
                "e-mail",
            ),
            (order(r#""id": "7""#), "id", "UUID"),
            (order(r#""note": "äöüß""#), "note", "3 characters or fewer"),
            (order(r#""note": 7"#), "note", "a text or null"),
            (order(r#""way": "other""#), "way", "\"standard\" or"),
            (order(r#""zip": "1234""#), "zip", "must match"),
            (order(r#""weight": 0"#), "weight", "more than 0"),
            (order(r#""weight": 11"#), "weight", "at most 10"),
            (order(r#""labels": {"a": 1}"#), "labels.a", "true or false"),
            (order(r#""other": 1"#), "other", "is not known"),
        ] {
            let told = told(body.as_bytes());
            assert_eq!(told.len(), 1, "{body}: {told:?}");
            assert_eq!(told[0].0, field, "{body}");
            assert!(told[0].1.contains(words), "{body}: {told:?}");
        }
        let all = told(br#"{"items": [{"quantity": 0}, {"quantity": "1"}, {}], "id": 1}"#);
        let fields: Vec<_> = all.iter().map(|(field, _)| field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "email",
                "items",
                "items[0].quantity",
                "items[1].quantity",
                "items[2].quantity",
                "id"
            ]
        );
    }

    /// HI-51, HI-69: what two readers could read differently is refused, and nothing is read without end.
    #[test]
    fn bodies_that_mean_nothing_are_refused() {
        let deep = "[".repeat(100_000);
        for body in [
            &b""[..],
            b"{",
            b"{} {}",
            b"{\"email\": \"\xff\"}",
            b"{\"email\": \"\\ud800\"}",
            b"{\"email\": \"a@b.c\", \"email\": \"a@b.c\"}",
            b"{\"weight\": 1e999}",
            deep.as_bytes(),
        ] {
            let told = told(body);
            assert_eq!((told.len(), told[0].0.as_str()), (1, ""), "{told:?}");
        }
        let many = format!(
            r#"{{"labels": {{{}}}}}"#,
            { 0..1000 }
                .map(|key| format!(r#""{key}": 0"#))
                .collect::<Vec<_>>()
                .join(",")
        );
        assert_eq!(told(many.as_bytes()).len(), MOST);
    }

    proptest! {
        #[test]
        fn no_body_of_any_bytes_panics(body: Vec<u8>) {
            drop(told(&body));
        }
    }
}
