//! A JSON object from the wire as fields that are asked for one by one. Every field that is wrong is noted with its
//! name, and reading goes on, so that a caller learns of all mistakes at once (REG-104). A field that stands twice is a
//! mistake, not a matter of luck; fields that nobody asks for are another version's, and no mistake.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::problem::{Code, Field, Problem};

/// JSON as it came: fields keep their order, and their doubles.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Json {
    Null,
    Flag(bool),
    Number(String),
    Text(String),
    List,
    Object(Vec<(String, Json)>),
}

/// The fields of an object, and what was wrong so far.
pub(crate) struct Fields {
    fields: Vec<(String, Json)>,
    wrong: Vec<Field>,
}

impl Fields {
    pub(crate) fn read(body: &[u8]) -> Result<Fields, Problem> {
        let bad = |reason: String| {
            Problem::new(
                Code::BadRequest,
                format!("the body {reason}; send one JSON object"),
            )
        };
        if body.is_empty() {
            return Err(bad("is empty".to_owned()));
        }
        match serde_json::from_slice::<Json>(body) {
            Ok(Json::Object(fields)) => Ok(Fields {
                fields,
                wrong: Vec::new(),
            }),
            Ok(_) => Err(bad("is not a JSON object".to_owned())),
            Err(error) => Err(bad(format!("is not JSON: {error}"))),
        }
    }

    /// The value of the field with one of these names; `null` is as good as absent.
    pub(crate) fn take(&mut self, names: &[&str]) -> Option<Json> {
        let is_one = |field: &(String, Json)| names.contains(&field.0.as_str());
        let mut found = self.fields.iter().filter(|field| is_one(field));
        let first = found.next().map(|field| field.1.clone());
        if found.next().is_some() {
            self.wrong(names[0], "stands there twice", "send it once");
        }
        first.filter(|value| *value != Json::Null)
    }

    /// The same, if it is a text.
    pub(crate) fn text(&mut self, names: &[&str]) -> Option<String> {
        match self.take(names)? {
            Json::Text(text) => Some(text),
            other => {
                let reason = format!("must be a string, not {}", other.word());
                self.wrong(names[0], reason, format!("send \"{}\": \"…\"", names[0]));
                None
            }
        }
    }

    /// The same, if it is a flag; absent, it is false.
    pub(crate) fn flag(&mut self, name: &'static str) -> bool {
        match self.take(&[name]) {
            None => false,
            Some(Json::Flag(flag)) => flag,
            Some(other) => {
                let reason = format!("must be true or false, not {}", other.word());
                self.wrong(name, reason, format!("send \"{name}\": true"));
                false
            }
        }
    }

    /// Texts by name; numbers and flags are taken as they would be written.
    pub(crate) fn texts(&mut self, name: &'static str) -> Option<Vec<(String, String)>> {
        let fields = match self.take(&[name])? {
            Json::Object(fields) => fields,
            other => {
                let reason = format!("must be an object of strings, not {}", other.word());
                self.wrong(
                    name,
                    reason,
                    format!("send \"{name}\": {{\"version\": \"1.2.3\"}}"),
                );
                return None;
            }
        };
        let mut texts: Vec<(String, String)> = Vec::with_capacity(fields.len().min(100));
        for (key, value) in fields {
            let place = format!("{name}.{key}");
            let text = match value {
                Json::Text(text) => text,
                Json::Number(number) => number,
                Json::Flag(flag) => flag.to_string(),
                other => {
                    let reason = format!("must be a string, not {}", other.word());
                    self.wrong(&place, reason, "send a string");
                    continue;
                }
            };
            if texts.iter().any(|(known, _)| *known == key) {
                self.wrong(&place, "stands there twice", "send it once");
            }
            texts.push((key, text));
            // Whoever sends more is told so once.
            if texts.len() > crate::registry::MOST_METADATA {
                self.wrong(
                    name,
                    format!("has more than {} names", crate::registry::MOST_METADATA),
                    "send fewer",
                );
                return None;
            }
        }
        Some(texts)
    }

    pub(crate) fn wrong(
        &mut self,
        field: &str,
        reason: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.wrong.push(Field {
            field: short(field),
            reason: reason.into(),
            hint: hint.into(),
        });
    }

    /// How many are wrong so far.
    pub(crate) fn count(&self) -> usize {
        self.wrong.len()
    }

    /// All that is wrong, if anything is.
    pub(crate) fn finish(self) -> Result<(), Problem> {
        match self.wrong.is_empty() {
            true => Ok(()),
            false => Err(Problem::fields(self.wrong)),
        }
    }
}

/// At most 80 characters of something that a caller sent, without what could confuse a terminal.
pub(crate) fn short(text: &str) -> String {
    let letters = text.chars().filter(|letter| !letter.is_control());
    letters.take(80).collect()
}

impl Json {
    fn word(&self) -> &'static str {
        match self {
            Json::Null => "null",
            Json::Flag(_) => "true or false",
            Json::Number(_) => "a number",
            Json::Text(_) => "a string",
            Json::List => "a list",
            Json::Object(_) => "an object",
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Json, E> {
        Ok(Json::Flag(flag))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Json, E> {
        Ok(Json::Number(number.to_string()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Json, E> {
        Ok(Json::Number(number.to_string()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Json, E> {
        Ok(Json::Number(number.to_string()))
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Json, E> {
        Ok(Json::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Json, A::Error> {
        // No field of ours is a list.
        while list.next_element::<Json>()?.is_some() {}
        Ok(Json::List)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        Ok(Json::Object(fields))
    }
}
