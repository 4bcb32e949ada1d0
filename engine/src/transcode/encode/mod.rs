//! JSON to protobuf, in one pass: tokens go in, bytes of the message come out, and nothing is built in between. What the
//! text says comes first on the wire, so that what is appended behind it (a query, then captures of the path) wins, as
//! the format has it: the last of a field counts, messages merge, lists go on.
//!
//! Whatever is wrong with single values is collected, so that a client is told of all of it at once; what makes the rest
//! unreadable ends the reading. Nothing that a client sends may panic, or take more than the bounds say.

mod known;
mod text;
mod values;

use std::borrow::Cow;
use std::fmt::Write as _;

use smallvec::SmallVec;

use super::bounds::{Bound, Rules};
use super::json::{Reader, Wrong};
use super::scalar;
use super::schema::{Field, Kind, Known, Message, MessageId, Schema, Shape};
use super::wire;

pub(super) use text::assign;

/// One thing that is wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// As the client spells it, such as `items[2].quantity`; empty: the whole.
    pub(crate) field: String,
    pub(crate) why: String,
    /// The byte of the text; `None`: it is not about the body.
    pub(crate) at: Option<usize>,
}

/// Why a text is no message of its type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unfit {
    Faults(Vec<Fault>),
    Beyond(Bound),
}

/// So many faults are told.
const MOST: usize = 16;
/// An `Any` in an `Any`: each is read twice, because its type may stand behind its fields.
const ANYS: u32 = 8;

/// Why reading cannot go on.
enum Stop {
    Wrong(Wrong),
    Beyond(Bound),
    /// A fault that was noted, and enough of them.
    Noted,
}

impl From<Wrong> for Stop {
    fn from(wrong: Wrong) -> Self {
        Stop::Wrong(wrong)
    }
}

type Go = Result<(), Stop>;

/// Where in the message the reader is.
#[derive(Clone)]
enum Step<'t> {
    Field(Cow<'t, str>),
    Index(usize),
}

struct Encoder<'s, 't> {
    schema: &'s Schema,
    rules: &'s Rules,
    reader: Reader<'t>,
    out: &'s mut Vec<u8>,
    path: SmallVec<[Step<'t>; 8]>,
    faults: Vec<Fault>,
    depth: u32,
    fields: u32,
    anys: u32,
}

/// Appends the message that the JSON text says to `out`.
pub(crate) fn message(
    schema: &Schema,
    rules: &Rules,
    id: MessageId,
    json: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), Unfit> {
    run(schema, rules, json, out, |encoder| encoder.message(id))
}

/// The same for one field of a message, as `body: "field"` means it.
pub(crate) fn field(
    schema: &Schema,
    rules: &Rules,
    field: &Field,
    json: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), Unfit> {
    run(schema, rules, json, out, |encoder| encoder.field(field))
}

fn run<'s, 't>(
    schema: &'s Schema,
    rules: &'s Rules,
    json: &'t [u8],
    out: &'s mut Vec<u8>,
    read: impl FnOnce(&mut Encoder<'s, 't>) -> Go,
) -> Result<(), Unfit> {
    if json.len() > rules.max_message {
        return Err(Unfit::Beyond(Bound::Message));
    }
    let reader =
        Reader::new(json).map_err(|wrong| Unfit::Faults(vec![told(String::new(), wrong)]))?;
    let mut encoder = Encoder {
        schema,
        rules,
        reader,
        out,
        path: SmallVec::new(),
        faults: Vec::new(),
        depth: 0,
        fields: 0,
        anys: 0,
    };
    let read = read(&mut encoder).and_then(|()| Ok(encoder.reader.end()?));
    match read {
        Err(Stop::Beyond(bound)) => return Err(Unfit::Beyond(bound)),
        Err(Stop::Wrong(wrong)) => {
            let field = encoder.here();
            encoder.faults.push(told(field, wrong));
        }
        Ok(()) | Err(Stop::Noted) => {}
    }
    if !encoder.faults.is_empty() {
        return Err(Unfit::Faults(encoder.faults));
    }
    if encoder.out.len() > rules.max_message {
        return Err(Unfit::Beyond(Bound::Message));
    }
    Ok(())
}

fn told(field: String, wrong: Wrong) -> Fault {
    Fault {
        field,
        why: wrong.why.to_owned(),
        at: Some(wrong.at),
    }
}

impl<'s, 't> Encoder<'s, 't> {
    /// One message from its braces, or from what its type writes instead. Its length, if it needs one, is the caller's.
    fn message(&mut self, id: MessageId) -> Go {
        let message = self.schema.message(id);
        match message.known {
            Known::No | Known::Empty | Known::HttpBody => self.object(message, None),
            _ => self.known(message),
        }
    }

    fn enter(&mut self) -> Go {
        self.depth += 1;
        if self.depth > self.rules.max_depth {
            return Err(Stop::Beyond(Bound::Depth));
        }
        Ok(())
    }

    fn count(&mut self) -> Go {
        self.fields += 1;
        if self.fields > self.rules.max_fields {
            return Err(Stop::Beyond(Bound::Fields));
        }
        Ok(())
    }

    /// `skip`: a key that is not the message's (`@type`).
    fn object(&mut self, message: &'s Message, skip: Option<&str>) -> Go {
        self.enter()?;
        if self.reader.peek() != Some(b'{') {
            self.fault("an object")?;
            self.depth -= 1;
            return Ok(());
        }
        self.reader.takes(b'{');
        let mut seen = Seen::default();
        let mut oneofs: SmallVec<[u16; 4]> = SmallVec::new();
        let (mut first, mut guess) = (true, 0);
        while let Some(key) = self.reader.key(std::mem::take(&mut first))? {
            self.count()?;
            if skip.is_some_and(|skip| *key == *skip) {
                self.reader.skip()?;
                continue;
            }
            // Most clients write fields in their order.
            let place = match message.fields.get(guess) {
                Some(field) if *field.name == *key || *field.json_name == *key => Some(guess),
                _ => message.by_key(&key),
            };
            self.path.push(Step::Field(key));
            match place {
                Some(place) => {
                    guess = place + 1;
                    let field = &message.fields[place];
                    if !seen.first(place) {
                        self.note("it is there twice")?;
                    }
                    // A null of a oneof chooses nothing.
                    if let Some(oneof) = field.oneof
                        && (self.reader.peek() != Some(b'n') || self.takes_null(field))
                    {
                        if oneofs.contains(&oneof) {
                            self.note("another field of the same oneof is there already")?;
                        }
                        oneofs.push(oneof);
                    }
                    self.field(field)?;
                }
                None if self.rules.ignores_unknown => self.reader.skip()?,
                None => {
                    self.note("there is no such field")?;
                    self.reader.skip()?;
                }
            }
            self.path.pop();
        }
        self.depth -= 1;
        Ok(())
    }

    /// Whether `null` is a value of the field, and not its absence.
    fn takes_null(&self, field: &Field) -> bool {
        field.shape == Shape::One
            && match field.kind {
                Kind::Message(id) => self.schema.message(id).known == Known::Value,
                Kind::Enum(id) => self.schema.enumeration(id).is_null,
                _ => false,
            }
    }

    /// A field's whole value, with its tag or tags.
    fn field(&mut self, field: &'s Field) -> Go {
        if self.reader.peek() == Some(b'n') && !self.takes_null(field) && self.reader.word("null") {
            return Ok(());
        }
        match field.shape {
            Shape::One => self.one(field.number, field.kind),
            Shape::List => self.list(field),
            Shape::Map => self.map(field),
        }
    }

    /// One value with its tag.
    fn one(&mut self, number: u32, kind: Kind) -> Go {
        wire::tag(self.out, number, kind.wire());
        match kind {
            Kind::Message(id) => {
                let begin = wire::open(self.out);
                self.message(id)?;
                wire::close(self.out, begin);
                Ok(())
            }
            Kind::String => match self.reader.peek() {
                Some(b'"') => {
                    let text = self.reader.string()?;
                    wire::varint(self.out, text.len() as u64);
                    self.out.extend_from_slice(text.as_bytes());
                    Ok(())
                }
                _ => self.fault("a string"),
            },
            Kind::Bytes => {
                if self.reader.peek() != Some(b'"') {
                    return self.fault("bytes in base64");
                }
                let at = self.reader.at();
                let text = self.reader.string()?;
                let begin = wire::open(self.out);
                if scalar::base64(self.out, &text).is_none() {
                    return self.note_at("it is no base64", at);
                }
                wire::close(self.out, begin);
                Ok(())
            }
            kind => self.bare(kind),
        }
    }

    /// The value that comes next is of another kind: it is noted and passed over.
    fn fault(&mut self, wanted: &str) -> Go {
        self.reader.peek();
        let at = self.reader.at();
        self.reader.skip()?;
        self.note_at(format!("it should be {wanted}"), at)
    }

    fn note(&mut self, why: impl Into<String>) -> Go {
        let at = self.reader.at();
        self.note_at(why, at)
    }

    #[cold]
    fn note_at(&mut self, why: impl Into<String>, at: usize) -> Go {
        let field = self.here();
        self.faults.push(Fault {
            field,
            why: why.into(),
            at: Some(at),
        });
        if self.faults.len() < MOST {
            Ok(())
        } else {
            Err(Stop::Noted)
        }
    }

    /// The place in the message as a client would write it.
    fn here(&self) -> String {
        let mut text = String::new();
        for step in &self.path {
            let _infallible = match step {
                Step::Field(name) if text.is_empty() => write!(text, "{}", shortened(name)),
                Step::Field(name) => write!(text, ".{}", shortened(name)),
                Step::Index(index) => write!(text, "[{index}]"),
            };
        }
        text
    }
}

/// What a client chose is told back only so far.
fn shortened(name: &str) -> &str {
    let end = name
        .char_indices()
        .map(|(place, _)| place)
        .find(|place| *place >= 64);
    end.map_or(name, |end| &name[..end])
}

/// Which fields of a message were there.
#[derive(Default)]
struct Seen {
    low: u64,
    more: Vec<usize>,
}

impl Seen {
    fn first(&mut self, place: usize) -> bool {
        if place < 64 {
            let bit = 1 << place;
            let first = self.low & bit == 0;
            self.low |= bit;
            return first;
        }
        match self.more.binary_search(&place) {
            Ok(_) => false,
            Err(at) => {
                self.more.insert(at, place);
                true
            }
        }
    }
}
