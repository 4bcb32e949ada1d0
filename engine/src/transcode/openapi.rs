//! What a `transcode` filter answers, as an OpenAPI 3.1 document: one operation for each binding, one schema for each type
//! that they reach. Written on demand, for people and generators; no request needs it.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::plan::{Binding, Body, Transcoder};
use super::schema::{EnumId, Field, Kind, Known, MessageId, Shape};

impl Transcoder {
    /// The document. `title`: of the API.
    pub fn openapi(&self, title: &str) -> Value {
        let mut writer = Writer {
            transcoder: self,
            messages: BTreeSet::new(),
            enums: BTreeSet::new(),
            todo: Vec::new(),
        };
        let mut paths: Map<String, Value> = Map::new();
        let mut others: Vec<Value> = Vec::new();
        for (place, binding) in self.bindings().iter().enumerate() {
            let operation = writer.operation(binding, place);
            let verb = binding.verb.as_str().to_ascii_lowercase();
            let known = [
                "get", "put", "post", "delete", "patch", "head", "options", "trace",
            ];
            if !known.contains(&&*verb) {
                // OpenAPI 3.1 has no place for other methods.
                others.push(json!({ "method": binding.verb.as_str(), "path": binding.shown_path(), "operation": operation }));
                continue;
            }
            let item = paths
                .entry(binding.shown_path())
                .or_insert_with(|| json!({}));
            item[verb] = operation;
        }
        let schemas = writer.schemas();
        let mut document = json!({
            "openapi": "3.1.0",
            "info": { "title": title, "version": "1" },
            "paths": paths,
            "components": {
                "schemas": schemas,
                "responses": {
                    "Problem": {
                        "description": "It did not end well.",
                        "content": { "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } },
                    },
                },
            },
        });
        if !others.is_empty() {
            document["x-other-methods"] = others.into();
        }
        document
    }
}

struct Writer<'a> {
    transcoder: &'a Transcoder,
    messages: BTreeSet<u32>,
    enums: BTreeSet<u32>,
    todo: Vec<MessageId>,
}

impl Writer<'_> {
    fn operation(&mut self, binding: &Binding, place: usize) -> Value {
        let schema = &*self.transcoder.schema;
        let (service, method) = binding.path[1..].split_once('/').unwrap_or_default();
        let earlier = self.transcoder.bindings()[..place].iter();
        let count = earlier.filter(|other| other.path == binding.path).count();
        let mut id = format!(
            "{}_{method}",
            service.rsplit('.').next().unwrap_or_default()
        );
        if count > 0 {
            id = format!("{id}_{}", count + 1);
        }
        let mut parameters = Vec::new();
        let mut captured: Vec<String> = Vec::new();
        for capture in &binding.captures {
            let name = capture.span.field.to_string();
            let kind = capture
                .fields
                .last()
                .map(|(id, place)| schema.message(*id).fields[*place].kind);
            parameters.push(json!({
                "name": name, "in": "path", "required": true,
                "schema": kind.map_or(json!({ "type": "string" }), |kind| self.kind(kind)),
            }));
            captured.push(name);
        }
        if binding.body != Body::Whole {
            let body = match binding.body {
                Body::Field(place) => Some(place),
                _ => None,
            };
            self.query(binding.input, body, "", &captured, &mut parameters, 0);
        }
        let mut operation = json!({
            "operationId": id, "tags": [service],
            "responses": { binding.status.as_str(): self.answer(binding), "default": { "$ref": "#/components/responses/Problem" } },
        });
        if !parameters.is_empty() {
            operation["parameters"] = parameters.into();
        }
        let body = match binding.body {
            Body::None => None,
            Body::Whole => Some(self.message(binding.input)),
            Body::Field(place) => Some(self.field(&schema.message(binding.input).fields[place])),
        };
        if let Some(body) = body {
            let kind = match (binding.raw_request, binding.client_streams) {
                (true, _) => "*/*",
                (false, true) => "application/x-ndjson",
                (false, false) => "application/json",
            };
            let body = if binding.raw_request { json!({}) } else { body };
            operation["requestBody"] = json!({ "content": { kind: { "schema": body } } });
        }
        operation
    }

    fn answer(&mut self, binding: &Binding) -> Value {
        if binding.raw_response {
            return json!({ "description": "Bytes of the type that the answer says.", "content": { "*/*": {} } });
        }
        let schema = &*self.transcoder.schema;
        let body = match binding.response {
            None => self.message(binding.output),
            Some(place) => self.field(&schema.message(binding.output).fields[place]),
        };
        if binding.server_streams {
            return json!({
                "description": "One message a line, or an event each.",
                "content": { "application/x-ndjson": { "schema": body }, "text/event-stream": { "schema": body } },
            });
        }
        json!({ "description": "It ended well.", "content": { "application/json": { "schema": body } } })
    }

    /// Fields that a query can say: single values and lists of them, also of messages in the message, two levels down.
    fn query(
        &mut self,
        id: MessageId,
        body: Option<usize>,
        before: &str,
        captured: &[String],
        parameters: &mut Vec<Value>,
        depth: u32,
    ) {
        let schema = &*self.transcoder.schema;
        for (place, field) in schema.message(id).fields.iter().enumerate() {
            let own = format!("{before}{}", field.name);
            if body == Some(place) || captured.contains(&own) || field.shape == Shape::Map {
                continue;
            }
            let name = format!("{before}{}", self.key(field));
            match field.kind {
                Kind::Message(inner) if schema.message(inner).known == Known::No => {
                    if field.shape == Shape::One && depth < 2 {
                        self.query(
                            inner,
                            None,
                            &format!("{own}."),
                            captured,
                            parameters,
                            depth + 1,
                        );
                    }
                }
                Kind::Message(inner)
                    if matches!(
                        schema.message(inner).known,
                        Known::Struct | Known::List | Known::Any | Known::Empty | Known::HttpBody
                    ) => {}
                _ => {
                    let schema = self.field(field);
                    parameters.push(json!({ "name": name, "in": "query", "schema": schema }));
                }
            }
        }
    }

    fn key(&self, field: &Field) -> String {
        let name = if self.transcoder.rules.proto_names {
            &field.name
        } else {
            &field.json_name
        };
        name.to_string()
    }

    fn field(&mut self, field: &Field) -> Value {
        let schema = &*self.transcoder.schema;
        match (field.shape, field.kind) {
            (Shape::One, kind) => self.kind(kind),
            (Shape::List, kind) => json!({ "type": "array", "items": self.kind(kind) }),
            (Shape::Map, Kind::Message(entry)) => {
                let value = schema.message(entry).fields.get(1).map(|value| value.kind);
                json!({ "type": "object", "additionalProperties": value.map_or(json!({}), |kind| self.kind(kind)) })
            }
            (Shape::Map, _) => json!({ "type": "object" }),
        }
    }

    fn kind(&mut self, kind: Kind) -> Value {
        match kind {
            Kind::Double => number("double"),
            Kind::Float => number("float"),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
                json!({ "type": "integer", "format": "int32" })
            }
            Kind::Uint32 | Kind::Fixed32 => {
                json!({ "type": "integer", "format": "uint32", "minimum": 0 })
            }
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
                json!({ "type": "string", "format": "int64" })
            }
            Kind::Uint64 | Kind::Fixed64 => json!({ "type": "string", "format": "uint64" }),
            Kind::Bool => json!({ "type": "boolean" }),
            Kind::String => json!({ "type": "string" }),
            Kind::Bytes => json!({ "type": "string", "contentEncoding": "base64" }),
            Kind::Enum(id) => {
                self.enums.insert(id.0);
                json!({ "$ref": format!("#/components/schemas/{}", self.transcoder.schema.enumeration(id).name) })
            }
            Kind::Message(id) => self.message(id),
        }
    }

    fn message(&mut self, id: MessageId) -> Value {
        let message = self.transcoder.schema.message(id);
        match message.known {
            Known::Timestamp => json!({ "type": "string", "format": "date-time" }),
            Known::Duration => {
                json!({ "type": "string", "pattern": "^-?[0-9]+(\\.[0-9]{1,9})?s$" })
            }
            Known::FieldMask => json!({ "type": "string" }),
            Known::Struct => json!({ "type": "object" }),
            Known::Value => json!({}),
            Known::List => json!({ "type": "array", "items": {} }),
            Known::Any => {
                json!({ "type": "object", "properties": { "@type": { "type": "string" } }, "additionalProperties": true })
            }
            Known::Wrapper => message
                .fields
                .first()
                .map_or(json!({}), |field| self.kind(field.kind)),
            Known::No | Known::Empty | Known::HttpBody => {
                if self.messages.insert(id.0) {
                    self.todo.push(id);
                }
                json!({ "$ref": format!("#/components/schemas/{}", message.name) })
            }
        }
    }

    fn schemas(&mut self) -> Value {
        let schema = &*self.transcoder.schema;
        let mut schemas = Map::new();
        while let Some(id) = self.todo.pop() {
            let message = schema.message(id);
            let mut properties = Map::new();
            for field in &message.fields {
                properties.insert(self.key(field), self.field(field));
            }
            let closed = !self.transcoder.rules.ignores_unknown;
            let mut object = json!({ "type": "object", "properties": properties });
            if closed {
                object["additionalProperties"] = false.into();
            }
            schemas.insert(message.name.to_string(), object);
        }
        for id in &self.enums {
            let enumeration = schema.enumeration(EnumId(*id));
            let numbers = self.transcoder.rules.enum_numbers;
            let told = if numbers {
                json!({ "type": "integer", "enum": enumeration.values.iter().map(|(_, number)| *number).collect::<Vec<_>>() })
            } else {
                json!({ "type": "string", "enum": enumeration.values.iter().map(|(name, _)| &**name).collect::<Vec<_>>() })
            };
            schemas.insert(enumeration.name.to_string(), told);
        }
        schemas.insert("Problem".to_owned(), problem());
        schemas.into()
    }
}

/// NaN and the infinities are strings in JSON.
fn number(format: &str) -> Value {
    json!({ "anyOf": [{ "type": "number", "format": format }, { "enum": ["NaN", "Infinity", "-Infinity"] }] })
}

fn problem() -> Value {
    json!({
        "type": "object",
        "description": "RFC 9457, of the gateway and of the services behind it.",
        "properties": {
            "type": { "type": "string" },
            "title": { "type": "string" },
            "status": { "type": "integer" },
            "code": { "type": "string" },
            "detail": { "type": "string" },
            "details": { "type": "array", "items": { "type": "object" } },
            "errors": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "field": { "type": "string" }, "message": { "type": "string" },
                        "line": { "type": "integer" }, "column": { "type": "integer" },
                    },
                },
            },
            "request_id": { "type": "string" },
        },
        "required": ["title", "status", "code"],
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::transcode::{descriptor, oracle};

    fn shop(keys: &str) -> Transcoder {
        let text = format!(
            "[[listener]]\nbind = \"127.0.0.1:0\"\n[[route]]\nupstream = \"a\"\nfilters = [{{ transcode = {{ descriptors = \"/dev/null\", {keys} }} }}]\n\
             [[upstream]]\nname = \"a\"\nendpoints = [\"127.0.0.1:1\"]\nprotocol = \"http2\"\n"
        );
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = text.replace("/dev/null", file.path().to_str().unwrap());
        let mut loader = tollgate_config::Loader::with_environment(|_| None);
        let document = loader
            .load_text("t.toml", &text, Path::new("/"))
            .expect("valid");
        let tollgate_config::Filter::Transcode(settings) = &document.routes[0].filters[0].value
        else {
            panic!()
        };
        let schema = descriptor::read(&oracle::set("shop.proto")).unwrap();
        Transcoder::compile(settings, Arc::new(schema), document.routes[0].filters[0].at)
            .expect("it compiles")
    }

    /// Every `$ref` of the document, wherever it stands.
    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(entries) => {
                found.extend(
                    entries
                        .get("$ref")
                        .and_then(Value::as_str)
                        .map(str::to_owned),
                );
                entries.values().for_each(|value| references(value, found));
            }
            Value::Array(values) => values.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }

    #[test]
    fn every_binding_has_an_operation_and_every_reference_leads_somewhere() {
        let shop = shop("convention = true");
        let document = shop.openapi("shop");
        let paths = document["paths"].as_object().expect("paths");
        let operations: usize = paths
            .values()
            .map(|item| item.as_object().map_or(0, Map::len))
            .sum();
        let others = document["x-other-methods"].as_array().map_or(0, Vec::len);
        assert_eq!((operations + others, others), (shop.bindings().len(), 1));
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 20, "{found:?}");
        for reference in found {
            let pointer = reference.strip_prefix('#').expect("all are here");
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
        let mut ids: Vec<&str> = { paths.values() }
            .flat_map(|item| item.as_object().into_iter().flat_map(Map::values))
            .filter_map(|operation| operation["operationId"].as_str())
            .collect();
        ids.sort_unstable();
        let count = ids.len();
        ids.dedup();
        assert_eq!(ids.len(), count, "an id names one operation");
        // Each variable of a path is a parameter of each of its operations.
        for (path, item) in paths {
            for name in path
                .split('{')
                .skip(1)
                .filter_map(|rest| rest.split_once('}'))
                .map(|(name, _)| name)
            {
                for operation in item.as_object().into_iter().flat_map(Map::values) {
                    let parameters = operation["parameters"].as_array().expect("parameters");
                    assert!(
                        parameters
                            .iter()
                            .any(|one| one["in"] == "path" && one["name"] == name),
                        "{path} {name}"
                    );
                }
            }
        }
    }

    #[test]
    fn an_operation_says_what_the_binding_takes_and_gives() {
        let document = shop("names = \"proto\"").openapi("shop");
        let list = &document["paths"]["/v1/orders"]["get"];
        let names: Vec<&str> = { list["parameters"].as_array().unwrap().iter() }
            .filter_map(|one| one["name"].as_str())
            .collect();
        assert_eq!(
            names,
            [
                "page_size",
                "page_token",
                "states",
                "customer.id",
                "customer.name",
                "since",
                "fields",
                "least_total",
                "ids"
            ]
        );
        assert_eq!(
            document["paths"]["/v1/orders"]["post"]["responses"]["201"]["description"],
            "It ended well."
        );
        let order = &document["components"]["schemas"]["shop.v1.Order"]["properties"];
        assert_eq!(
            order["created_at"],
            json!({ "type": "string", "format": "date-time" })
        );
        assert_eq!(
            order["total"],
            json!({ "type": "string", "format": "int64" })
        );
        assert_eq!(
            order["labels"]["additionalProperties"],
            json!({ "type": "string" })
        );
    }
}
