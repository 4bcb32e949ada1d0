//! What a request's body must look like, as a document writes it: JSON Schema (2020-12), as far as a gateway can keep it
//! for every request: no references out of the text, and nothing that has to try several ways. A word that is not
//! understood is refused, never passed over. Knows no bodies; whoever checks one walks the nodes.

use std::collections::HashMap;

use regex::Regex;
use serde_json::{Map, Value};

use crate::problem::Fault;
use crate::unit::short;

/// A schema, ready to be walked from its first node.
#[derive(Debug, Clone)]
pub struct BodySchema {
    nodes: Vec<BodyNode>,
}

/// Which node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeId(usize);

/// What one value must be.
#[derive(Debug, Clone, Default)]
pub struct BodyNode {
    /// Empty: any.
    pub kinds: Vec<BodyKind>,
    pub properties: HashMap<String, NodeId>,
    pub required: Vec<String>,
    pub others: OtherProperties,
    pub items: Option<NodeId>,
    pub item_count: Bounds<u64>,
    /// In characters.
    pub length: Bounds<u64>,
    pub pattern: Option<Regex>,
    pub range: Bounds<f64>,
    /// The ends of the range do not belong to it.
    pub exclusive: Bounds<f64>,
    pub format: Option<BodyFormat>,
    /// One of these, as JSON.
    pub values: Option<Vec<Value>>,
    /// What is done to a text before it is checked and passed on.
    pub sanitize: Sanitize,
}

/// What is taken out of a text, or written otherwise, in this order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sanitize {
    /// U+0000 goes.
    pub nul: bool,
    /// Tags and comments go; what stands between them stays.
    pub strip_html: bool,
    /// `& < > " '` become references.
    pub escape_html: bool,
    /// White space goes at both ends.
    pub trim: bool,
}

/// From and to, both included.
#[derive(Debug, Clone, Copy)]
pub struct Bounds<T> {
    pub least: Option<T>,
    pub most: Option<T>,
}

impl<T> Default for Bounds<T> {
    fn default() -> Self {
        Bounds {
            least: None,
            most: None,
        }
    }
}

/// What becomes of properties that have no schema of their own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OtherProperties {
    #[default]
    Any,
    None,
    Like(NodeId),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyKind {
    Null,
    Boolean,
    Integer,
    Number,
    String,
    Array,
    Object,
}

impl BodyKind {
    const ALL: [(BodyKind, &str, &str); 7] = [
        (BodyKind::Null, "null", "null"),
        (BodyKind::Boolean, "boolean", "true or false"),
        (BodyKind::Integer, "integer", "a whole number"),
        (BodyKind::Number, "number", "a number"),
        (BodyKind::String, "string", "a text"),
        (BodyKind::Array, "array", "a list"),
        (BodyKind::Object, "object", "an object"),
    ];

    /// For clients.
    pub fn words(self) -> &'static str {
        let mut all = BodyKind::ALL.iter();
        all.find(|(kind, ..)| *kind == self)
            .map_or("something else", |(.., words)| words)
    }
}

/// Texts of a form that is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFormat {
    Uuid,
    /// Something, `@`, and a name with a dot: more is only known to who writes to it.
    Email,
}

impl BodySchema {
    /// Reads the text of a schema.
    pub fn parse(text: &str) -> Result<BodySchema, Fault> {
        let value: Value = serde_json::from_str(text).map_err(|error| {
            Fault::new(
                format!("it is no JSON: {error}"),
                "write a JSON Schema, such as '{ \"type\": \"object\" }', or `${file:order.schema.json}`",
            )
        })?;
        let mut reader = Reader {
            definitions: HashMap::new(),
            nodes: Vec::new(),
        };
        let Value::Object(root) = &value else {
            return Err(reader.not_understood("", "a schema is an object"));
        };
        // The root is the first node, so that whoever walks begins there.
        reader.nodes.push(BodyNode::default());
        let none = Map::new();
        let definitions = match root.get("$defs") {
            None => &none,
            Some(Value::Object(definitions)) => definitions,
            Some(_) => return Err(reader.not_understood("$defs", "it is an object of schemas")),
        };
        for name in definitions.keys() {
            let id = NodeId(reader.nodes.len());
            reader.nodes.push(BodyNode::default());
            reader.definitions.insert(name.clone(), id);
        }
        for (name, schema) in definitions {
            let id = reader.definitions[name];
            reader.nodes[id.0] = reader.node(schema, &format!("$defs.{name}"), 0)?;
        }
        reader.nodes[0] = reader.node(&value, "", 0)?;
        Ok(BodySchema {
            nodes: reader.nodes,
        })
    }

    /// Where to begin.
    pub fn root(&self) -> &BodyNode {
        &self.nodes[0]
    }

    pub fn node(&self, id: NodeId) -> &BodyNode {
        &self.nodes[id.0]
    }

    /// Whether any text may be changed.
    pub fn sanitizes(&self) -> bool {
        let plain = Sanitize::default();
        self.nodes.iter().any(|node| node.sanitize != plain)
    }
}

/// Schemas in schemas.
const DEEPEST: usize = 64;

struct Reader {
    definitions: HashMap<String, NodeId>,
    nodes: Vec<BodyNode>,
}

impl Reader {
    fn not_understood(&self, at: &str, why: &str) -> Fault {
        let place = if at.is_empty() { "the schema" } else { at };
        Fault::new(
            format!("`{}`: {why}", short(place)),
            "what is understood: type, properties, required, additionalProperties, items, minItems, maxItems, minLength, maxLength, \
             pattern, minimum, maximum, exclusiveMinimum, exclusiveMaximum, enum, const, format (uuid, email), sanitize (trim, nul, strip_html, escape_html), $defs and $ref to them",
        )
    }

    /// One that stands within another.
    fn add(&mut self, value: &Value, at: &str, depth: usize) -> Result<NodeId, Fault> {
        if let Some(reference) = value.get("$ref") {
            let name = { reference.as_str() }.and_then(|text| text.strip_prefix("#/$defs/"));
            let known = name.and_then(|name| self.definitions.get(name));
            let alone = value.as_object().is_some_and(|keys| keys.len() == 1);
            return match known {
                Some(id) if alone => Ok(*id),
                Some(_) => Err(self.not_understood(at, "`$ref` stands alone")),
                None => Err(self.not_understood(at, "`$ref` leads to no `#/$defs/NAME`")),
            };
        }
        let node = self.node(value, at, depth)?;
        self.nodes.push(node);
        Ok(NodeId(self.nodes.len() - 1))
    }

    fn node(&mut self, value: &Value, at: &str, depth: usize) -> Result<BodyNode, Fault> {
        let Value::Object(keys) = value else {
            return Err(self.not_understood(at, "a schema is an object"));
        };
        if depth > DEEPEST {
            return Err(self.not_understood(at, "schemas stand too deep in one another"));
        }
        let mut node = BodyNode::default();
        for (key, value) in keys {
            let here = match at {
                "" => key.clone(),
                at => format!("{at}.{key}"),
            };
            self.key(&mut node, key, value, &here, depth)?;
        }
        Ok(node)
    }

    fn key(
        &mut self,
        node: &mut BodyNode,
        key: &str,
        value: &Value,
        at: &str,
        depth: usize,
    ) -> Result<(), Fault> {
        let count = |value: &Value| value.as_u64();
        let wrong = |reader: &Reader| reader.not_understood(at, "it holds something else here");
        match key {
            "type" => node.kinds = kinds(value).ok_or_else(|| wrong(self))?,
            "properties" => {
                for (name, schema) in value.as_object().ok_or_else(|| wrong(self))? {
                    let id = self.add(schema, &format!("{at}.{name}"), depth + 1)?;
                    node.properties.insert(name.clone(), id);
                }
            }
            "required" => node.required = words(value).ok_or_else(|| wrong(self))?,
            "additionalProperties" => {
                node.others = match value {
                    Value::Bool(true) => OtherProperties::Any,
                    Value::Bool(false) => OtherProperties::None,
                    schema => OtherProperties::Like(self.add(schema, at, depth + 1)?),
                };
            }
            "items" => node.items = Some(self.add(value, at, depth + 1)?),
            "minItems" => node.item_count.least = Some(count(value).ok_or_else(|| wrong(self))?),
            "maxItems" => node.item_count.most = Some(count(value).ok_or_else(|| wrong(self))?),
            "minLength" => node.length.least = Some(count(value).ok_or_else(|| wrong(self))?),
            "maxLength" => node.length.most = Some(count(value).ok_or_else(|| wrong(self))?),
            "minimum" => node.range.least = Some(value.as_f64().ok_or_else(|| wrong(self))?),
            "maximum" => node.range.most = Some(value.as_f64().ok_or_else(|| wrong(self))?),
            "exclusiveMinimum" => {
                node.exclusive.least = Some(value.as_f64().ok_or_else(|| wrong(self))?);
            }
            "exclusiveMaximum" => {
                node.exclusive.most = Some(value.as_f64().ok_or_else(|| wrong(self))?);
            }
            "pattern" => {
                let pattern = value.as_str().and_then(|text| Regex::new(text).ok());
                let pattern = pattern
                    .ok_or_else(|| self.not_understood(at, "it is no regular expression"))?;
                node.pattern = Some(pattern);
            }
            "format" => {
                node.format = Some(match value.as_str() {
                    Some("uuid") => BodyFormat::Uuid,
                    Some("email") => BodyFormat::Email,
                    _ => return Err(self.not_understood(at, "this format is not checked")),
                });
            }
            "enum" => {
                let values = value.as_array().filter(|values| !values.is_empty());
                node.values = Some(values.ok_or_else(|| wrong(self))?.clone());
            }
            "const" => node.values = Some(vec![value.clone()]),
            // Ours: a vocabulary of its own, as the standard has it for words that check nothing.
            "sanitize" => {
                let sanitize = sanitize(value);
                node.sanitize = sanitize.ok_or_else(|| {
                    self.not_understood(at, "it lists trim, nul, strip_html, escape_html")
                })?;
            }
            // Said to people. The definitions were read before.
            "$schema" | "$id" | "$comment" | "title" | "description" | "default" | "examples"
            | "deprecated" | "readOnly" | "writeOnly" => {}
            "$defs" if at == "$defs" => {}
            "$ref" => return Err(self.not_understood(at, "`$ref` stands in a property or an item")),
            _ => return Err(self.not_understood(at, "it is not understood here")),
        }
        Ok(())
    }
}

fn kinds(value: &Value) -> Option<Vec<BodyKind>> {
    let kind = |text: &str| {
        let mut all = BodyKind::ALL.iter();
        all.find(|(_, word, _)| *word == text)
            .map(|(kind, ..)| *kind)
    };
    match value {
        Value::String(text) => Some(vec![kind(text)?]),
        Value::Array(_) => words(value)?.iter().map(|text| kind(text)).collect(),
        _ => None,
    }
}

fn sanitize(value: &Value) -> Option<Sanitize> {
    let mut sanitize = Sanitize::default();
    for word in words(value)? {
        *match word.as_str() {
            "trim" => &mut sanitize.trim,
            "nul" => &mut sanitize.nul,
            "strip_html" => &mut sanitize.strip_html,
            "escape_html" => &mut sanitize.escape_html,
            _ => return None,
        } = true;
    }
    Some(sanitize)
}

fn words(value: &Value) -> Option<Vec<String>> {
    { value.as_array()?.iter() }
        .map(|value| value.as_str().map(str::to_owned))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_understood_is_refused_by_name() {
        for (text, word) in [
            ("", "no JSON"),
            ("true", "an object"),
            (r#"{"oneOf": []}"#, "`oneOf`"),
            (
                r#"{"properties": {"a": {"typ": "string"}}}"#,
                "`properties.a.typ`",
            ),
            (r#"{"type": "text"}"#, "`type`"),
            (r#"{"minLength": -1}"#, "`minLength`"),
            (r#"{"pattern": "("}"#, "regular expression"),
            (r#"{"format": "iri"}"#, "`format`"),
            (r#"{"enum": []}"#, "`enum`"),
            (r#"{"sanitize": ["html"]}"#, "`sanitize`"),
            (r#"{"sanitize": "trim"}"#, "strip_html"),
            (r##"{"items": {"$ref": "#/$defs/a"}}"##, "`$ref`"),
            (
                r##"{"items": {"$ref": "#/$defs/a", "type": "null"}, "$defs": {"a": {}}}"##,
                "stands alone",
            ),
            (
                r##"{"$ref": "#/$defs/a", "$defs": {"a": {}}}"##,
                "property or an item",
            ),
        ] {
            let fault = BodySchema::parse(text).expect_err(text);
            assert!(fault.message.contains(word), "{text}: {}", fault.message);
        }
        let deep = format!("{}{{}}{}", r#"{"items":"#.repeat(100), "}".repeat(100));
        assert!(BodySchema::parse(&deep).is_err());
    }

    #[test]
    fn a_schema_may_name_itself() {
        let text = r##"{"properties": {"tree": {"$ref": "#/$defs/tree"}},
                       "$defs": {"tree": {"type": "object", "additionalProperties": {"$ref": "#/$defs/tree"}}}}"##;
        let schema = BodySchema::parse(text).expect("it is understood");
        let tree = schema.root().properties["tree"];
        assert_eq!(schema.node(tree).others, OtherProperties::Like(tree));
    }
}
