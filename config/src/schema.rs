//! The grammar as a JSON Schema, for editors. It cannot say everything that `check` does; what it refuses, `check`
//! refuses too.

use serde_json::{Map, Value, json};

use crate::grammar::{Key, Kind, Presence, Section, sections, sidecar};

/// The JSON Schema of a document.
pub fn schema() -> Value {
    let mut properties = Map::new();
    for key in sections::PREAMBLE.keys {
        properties.insert(key.name.to_owned(), of_key(key));
    }
    for top in sections::TOP {
        let Some(section) = top.section else { continue };
        let table = of_section(section);
        let value = if top.list {
            json!({ "type": "array", "items": table, "description": section.doc })
        } else {
            table
        };
        properties.insert(top.name.to_owned(), value);
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Tollgate document",
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
    })
}

/// The JSON Schema of a short file: its own sections, and any of a full document.
pub(crate) fn short() -> Value {
    let mut schema = schema();
    for top in sidecar::TOP {
        if let Some(section) = top.section {
            schema["properties"][top.name] = of_section(section);
        }
    }
    schema["title"] = json!("Tollgate sidecar");
    schema["required"] = json!(["service"]);
    schema
}

fn of_section(section: &Section) -> Value {
    let available: Vec<&Key> = section
        .keys
        .iter()
        .filter(|k| !matches!(k.kind, Kind::Later))
        .collect();
    let properties: Map<String, Value> = available
        .iter()
        .map(|k| (k.name.to_owned(), of_key(k)))
        .collect();
    let required: Vec<&str> = available
        .iter()
        .filter(|k| matches!(k.presence, Presence::Required))
        .map(|k| k.name)
        .collect();
    let mut schema = json!({
        "type": "object",
        "description": section.doc,
        "properties": properties,
        "additionalProperties": false,
    });
    if let Some((_, kind)) = section.named {
        schema["additionalProperties"] = of_kind(kind);
    }
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    let mut all = Vec::new();
    for group in section.one_of {
        let alternatives: Vec<Value> = group
            .iter()
            .filter(|name| available.iter().any(|k| k.name == **name))
            .map(|name| json!({ "required": [name] }))
            .collect();
        all.push(json!({ "oneOf": alternatives }));
    }
    for group in section.rivals {
        all.push(json!({ "not": { "required": group } }));
    }
    if !all.is_empty() {
        schema["allOf"] = Value::Array(all);
    }
    if !section.needs.is_empty() {
        let needs: Map<String, Value> = section
            .needs
            .iter()
            .map(|(name, other)| ((*name).to_owned(), json!([other])))
            .collect();
        schema["dependentRequired"] = Value::Object(needs);
    }
    schema
}

fn of_key(key: &Key) -> Value {
    let mut schema = of_kind(&key.kind);
    schema["description"] = match key.presence {
        Presence::Default(value) => json!(format!("{} Default: {value}", key.doc)),
        _ => json!(key.doc),
    };
    schema
}

fn of_kind(kind: &Kind) -> Value {
    match kind {
        Kind::Text => json!({ "type": "string" }),
        Kind::Rule(rule) => json!({ "type": "string", "examples": [rule.example] }),
        Kind::Word(words) => json!({ "type": "string", "enum": words }),
        Kind::Count(least, most) => json!({ "type": "integer", "minimum": least, "maximum": most }),
        Kind::Share => json!({ "type": "number", "minimum": 0, "maximum": 1 }),
        Kind::Percent => json!({ "type": "number", "minimum": 0, "maximum": 100 }),
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::Yes => json!({ "const": true }),
        Kind::List(kind) => json!({ "type": "array", "items": of_kind(kind) }),
        Kind::Map(_, kind) => json!({ "type": "object", "additionalProperties": of_kind(kind) }),
        Kind::Table(section) => of_section(section),
        Kind::Either(kinds) => json!({ "anyOf": kinds.iter().map(of_kind).collect::<Vec<_>>() }),
        Kind::Later => json!({ "const": "off" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_section_and_required_key_is_in_the_schema() {
        let schema = schema();
        for name in [
            "server",
            "listener",
            "route",
            "upstream",
            "telemetry",
            "test",
            "include",
        ] {
            assert!(schema["properties"][name].is_object(), "{name}");
        }
        let listener = &schema["properties"]["listener"]["items"];
        assert_eq!(listener["required"], json!(["bind"]));
        assert_eq!(listener["additionalProperties"], json!(false));
        let control_plane = &schema["properties"]["control_plane"];
        assert_eq!(control_plane["required"], json!(["urls"]));
        let register = &control_plane["properties"]["register"];
        assert_eq!(register["required"], json!(["name"]));
        let tier = &schema["properties"]["tiers"]["additionalProperties"];
        assert_eq!(tier["required"], json!(["rate"]));
    }
}
