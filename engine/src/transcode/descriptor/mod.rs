//! A descriptor set (`protoc --include_imports --descriptor_set_out=…`) becomes a `Schema`. Reads the few fields of
//! `descriptor.proto` that matter by hand; no other description of a service is needed. Refuses what is no descriptor
//! set, and what names a type that is not in it. Runs when a document is loaded, never for a request.
//!
//! Fields in groups (proto2) are left out: they are passed over in answers, and unknown in requests.

mod parts;

use std::collections::HashMap;
use std::fmt;

use super::schema::{
    Enum, EnumId, Field, Kind, Message, MessageId, NOWHERE, SMALL, Schema, Service, Shape,
};
use super::wire::{Broken, Fields, Raw};
pub(super) use parts::camel;
use parts::{Syntax, field, flag, known, method};

/// Why it is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unusable {
    NoDescriptors,
    /// A message's field, a method or the like names a type that is not in the set.
    Missing {
        file: String,
        who: String,
        name: String,
    },
    /// Two types of one name.
    Twice(String),
    /// More fields in a message, or deeper nesting, than anybody means.
    TooLarge(String),
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unusable::NoDescriptors => write!(f, "it is no descriptor set"),
            Unusable::Missing { file, who, name } => {
                write!(
                    f,
                    "{who} in {file} uses {name}, which the set does not hold"
                )
            }
            Unusable::Twice(name) => write!(f, "{name} is defined twice"),
            Unusable::TooLarge(name) => write!(f, "{name} is too large or nested too deeply"),
        }
    }
}

impl Unusable {
    /// The next step.
    pub fn hint(&self) -> &'static str {
        match self {
            Unusable::NoDescriptors => {
                "write one with `protoc --include_imports --descriptor_set_out=FILE …` or `buf build -o FILE`"
            }
            Unusable::Missing { .. } => {
                "write the set with everything that is imported: `protoc --include_imports …`"
            }
            Unusable::Twice(_) => "leave one of the two files out of the set",
            Unusable::TooLarge(_) => "split the message",
        }
    }
}

impl From<Broken> for Unusable {
    fn from(_: Broken) -> Self {
        Unusable::NoDescriptors
    }
}

/// Messages in messages in a descriptor.
const DEPTH: u32 = 64;
const FIELDS: usize = 10_000;

/// A field before its type's name means anything.
struct Draft {
    field: Field,
    kind: u64,
    type_name: String,
}

/// The file, the service, and the types that each of its methods takes and gives.
type DraftService = (String, Service, Vec<(String, String)>);

#[derive(Default)]
struct Drafts {
    schema: Schema,
    enums: HashMap<String, EnumId>,
    /// By message: the file, and the fields in order.
    fields: Vec<(String, Vec<Draft>)>,
    services: Vec<DraftService>,
}

/// Reads a set.
pub fn read(set: &[u8]) -> Result<Schema, Unusable> {
    let mut drafts = Drafts::default();
    let mut fields = Fields::new(set);
    let mut files = 0;
    while let Some((number, value)) = fields.next()? {
        if let (1, Raw::Bytes(file)) = (number, value) {
            drafts.file(file)?;
            files += 1;
        }
    }
    if files == 0 {
        return Err(Unusable::NoDescriptors);
    }
    let syntax = Syntax {
        file: "google/rpc",
        implicit: true,
    };
    for (name, package, message) in super::details::files() {
        if drafts.schema.find(&name).is_none() {
            drafts.message(&message, package, &syntax, 0)?;
        }
    }
    drafts.resolve()
}

fn text(bytes: &[u8]) -> Result<String, Unusable> {
    let text = std::str::from_utf8(bytes).map_err(|_| Unusable::NoDescriptors)?;
    Ok(text.to_owned())
}

fn within(scope: &str, name: &str) -> String {
    if scope.is_empty() {
        name.to_owned()
    } else {
        format!("{scope}.{name}")
    }
}

impl Drafts {
    fn file(&mut self, bytes: &[u8]) -> Result<(), Unusable> {
        let (mut name, mut package, mut implicit) = (String::new(), String::new(), false);
        let mut fields = Fields::new(bytes);
        while let Some((number, value)) = fields.next()? {
            match (number, value) {
                (1, Raw::Bytes(value)) => name = text(value)?,
                (2, Raw::Bytes(value)) => package = text(value)?,
                // Editions of 2023 and later have presence unless a feature says otherwise; that feature is not read.
                (12, Raw::Bytes(value)) => implicit = value == b"proto3",
                _ => {}
            }
        }
        if name.is_empty() {
            return Err(Unusable::NoDescriptors);
        }
        let edition = Syntax {
            file: &name,
            implicit,
        };
        let mut fields = Fields::new(bytes);
        while let Some((number, value)) = fields.next()? {
            match (number, value) {
                (4, Raw::Bytes(value)) => self.message(value, &package, &edition, 0)?,
                (5, Raw::Bytes(value)) => self.enumeration(value, &package)?,
                (6, Raw::Bytes(value)) => self.service(value, &package, &name)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn message(
        &mut self,
        bytes: &[u8],
        scope: &str,
        syntax: &Syntax<'_>,
        depth: u32,
    ) -> Result<(), Unusable> {
        let mut name = String::new();
        let (mut drafts, mut is_entry) = (Vec::new(), false);
        let mut fields = Fields::new(bytes);
        while let Some((number, value)) = fields.next()? {
            match (number, value) {
                (1, Raw::Bytes(value)) => name = within(scope, &text(value)?),
                (2, Raw::Bytes(value)) => drafts.extend(field(value, syntax)?),
                (7, Raw::Bytes(options)) => is_entry = flag(options, 7)?.unwrap_or(false),
                _ => {}
            }
        }
        if depth > DEPTH || drafts.len() > FIELDS {
            return Err(Unusable::TooLarge(name));
        }
        drafts.sort_by_key(|draft: &Draft| draft.field.number);
        if drafts
            .windows(2)
            .any(|pair| pair[0].field.number == pair[1].field.number)
        {
            return Err(Unusable::NoDescriptors);
        }
        let id = MessageId(self.schema.messages.len() as u32);
        if self
            .schema
            .by_name
            .insert(name.as_str().into(), id)
            .is_some()
        {
            return Err(Unusable::Twice(name));
        }
        self.schema.messages.push(Message {
            known: known(&name),
            name: name.as_str().into(),
            fields: Vec::new(),
            by_key: HashMap::default(),
            by_number: Box::default(),
            is_entry,
        });
        self.fields.push((syntax.file.to_owned(), drafts));
        let mut fields = Fields::new(bytes);
        while let Some((number, value)) = fields.next()? {
            match (number, value) {
                (3, Raw::Bytes(value)) => self.message(value, &name, syntax, depth + 1)?,
                (4, Raw::Bytes(value)) => self.enumeration(value, &name)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn enumeration(&mut self, bytes: &[u8], scope: &str) -> Result<(), Unusable> {
        let mut name = String::new();
        let mut values: Vec<(Box<str>, i32)> = Vec::new();
        let mut fields = Fields::new(bytes);
        while let Some((number, value)) = fields.next()? {
            match (number, value) {
                (1, Raw::Bytes(value)) => name = within(scope, &text(value)?),
                (2, Raw::Bytes(value)) => {
                    let (mut name, mut number) = (String::new(), 0);
                    let mut fields = Fields::new(value);
                    while let Some((field, value)) = fields.next()? {
                        match (field, value) {
                            (1, Raw::Bytes(value)) => name = text(value)?,
                            (2, Raw::Varint(value)) => number = value as i32,
                            _ => {}
                        }
                    }
                    values.push((name.into(), number));
                }
                _ => {}
            }
        }
        let mut by_number: HashMap<i32, u32, _> = HashMap::default();
        for (place, (_, number)) in values.iter().enumerate() {
            by_number.entry(*number).or_insert(place as u32);
        }
        let id = EnumId(self.schema.enums.len() as u32);
        self.schema.enums.push(Enum {
            by_name: values.iter().cloned().collect(),
            by_number,
            is_null: name == "google.protobuf.NullValue",
            name: name.as_str().into(),
            values,
        });
        match self.enums.insert(name.clone(), id) {
            None => Ok(()),
            Some(_) => Err(Unusable::Twice(name)),
        }
    }

    fn service(&mut self, bytes: &[u8], scope: &str, file: &str) -> Result<(), Unusable> {
        let mut service = Service {
            name: Box::default(),
            methods: Vec::new(),
        };
        let mut types = Vec::new();
        let mut fields = Fields::new(bytes);
        while let Some((number, value)) = fields.next()? {
            match (number, value) {
                (1, Raw::Bytes(value)) => service.name = within(scope, &text(value)?).into(),
                (2, Raw::Bytes(value)) => {
                    let (method, input, output) = method(value)?;
                    service.methods.push(method);
                    types.push((input, output));
                }
                _ => {}
            }
        }
        self.services.push((file.to_owned(), service, types));
        Ok(())
    }

    /// Names become numbers.
    fn resolve(mut self) -> Result<Schema, Unusable> {
        for (place, (file, drafts)) in std::mem::take(&mut self.fields).into_iter().enumerate() {
            let who = self.schema.messages[place].name.clone();
            let mut fields = Vec::with_capacity(drafts.len());
            for draft in drafts {
                let Draft {
                    mut field,
                    kind,
                    type_name,
                } = draft;
                let missing = || Unusable::Missing {
                    file: file.clone(),
                    who: format!("{who}.{}", field.name),
                    name: type_name.trim_start_matches('.').to_owned(),
                };
                let name = type_name.trim_start_matches('.');
                field.kind = match kind {
                    10 => continue,
                    11 => Kind::Message(self.schema.find(name).ok_or_else(missing)?),
                    14 => Kind::Enum(*self.enums.get(name).ok_or_else(missing)?),
                    _ => field.kind,
                };
                if let (Kind::Message(id), Shape::List) = (field.kind, field.shape)
                    && self.schema.message(id).is_entry
                {
                    field.shape = Shape::Map;
                }
                field.packed &= field.kind.wire() != super::wire::BYTES;
                field.presence |=
                    matches!(field.kind, Kind::Message(_)) && field.shape == Shape::One;
                fields.push(field);
            }
            let message = &mut self.schema.messages[place];
            message.by_key = { fields.iter().enumerate() }
                .flat_map(|(place, field)| {
                    [
                        (field.name.clone(), place as u32),
                        (field.json_name.clone(), place as u32),
                    ]
                })
                .collect();
            let small = { fields.iter() }
                .map(|field| field.number)
                .filter(|number| *number < SMALL);
            let mut by_number = vec![NOWHERE; small.max().map_or(0, |most| most as usize + 1)];
            for (place, field) in fields.iter().enumerate() {
                if let Some(slot) = by_number.get_mut(field.number as usize) {
                    *slot = place as u16;
                }
            }
            message.by_number = by_number.into();
            message.fields = fields;
        }
        // Reading an entry relies on its two fields.
        let entries = self
            .schema
            .messages
            .iter()
            .filter(|message| message.is_entry);
        for entry in entries {
            let numbers: Vec<u32> = entry.fields.iter().map(|field| field.number).collect();
            if numbers != [1, 2] {
                return Err(Unusable::NoDescriptors);
            }
        }
        for (file, mut service, types) in std::mem::take(&mut self.services) {
            for (method, (input, output)) in service.methods.iter_mut().zip(types) {
                let find = |name: &str| {
                    let name = name.trim_start_matches('.');
                    self.schema.find(name).ok_or_else(|| Unusable::Missing {
                        file: file.clone(),
                        who: format!("{}.{}", service.name, method.name),
                        name: name.to_owned(),
                    })
                };
                (method.input, method.output) = (find(&input)?, find(&output)?);
            }
            self.schema.services.push(service);
        }
        Ok(self.schema)
    }
}
