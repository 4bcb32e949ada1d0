//! Text to nodes: the only file that knows the library which reads TOML. A node is a value with its spot; strings are
//! already interpolated. What cannot be parsed becomes problems with their spots, never a panic: nesting is bounded
//! here and, for dotted keys, by whoever cut the text.

use std::cell::Cell;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::interpolate::Interpolator;
use crate::report::{ItemReport, Spot};
use crate::unit::short;

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) spot: Spot,
}

#[derive(Debug, Clone)]
pub(crate) enum Value {
    /// Whether a reference was replaced in it.
    Text(String, bool),
    Integer(i64),
    Float(f64),
    Flag(bool),
    /// No key of ours holds a date.
    Date,
    List(Vec<Node>),
    Table(Vec<Entry>),
    /// Already refused; whoever meets it says nothing more.
    Refused,
}

#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) spot: Spot,
    pub(crate) node: Node,
}

impl Node {
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.entries()
            .iter()
            .find(|entry| entry.key == key)
            .map(|entry| &entry.node)
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Table(entries) => entries,
            _ => &[],
        }
    }

    pub(crate) fn list(&self) -> &[Node] {
        match &self.value {
            Value::List(nodes) => nodes,
            _ => &[],
        }
    }

    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text, _) => Some(text),
            _ => None,
        }
    }

    /// A whole number, also one that an interpolated string holds.
    pub(crate) fn count(&self) -> Option<u64> {
        match &self.value {
            Value::Integer(number) => u64::try_from(*number).ok(),
            Value::Text(text, true) => text.parse().ok(),
            _ => None,
        }
    }

    /// The same, where four thousand million are enough.
    pub(crate) fn small_count(&self) -> Option<u32> {
        u32::try_from(self.count()?).ok()
    }

    pub(crate) fn number(&self) -> Option<f64> {
        match &self.value {
            Value::Float(number) => Some(*number),
            // Only 0 and 1 are of use, and both are exact.
            Value::Integer(number) => Some(*number as f64),
            Value::Text(text, true) => text.parse().ok(),
            _ => None,
        }
    }

    pub(crate) fn flag(&self) -> Option<bool> {
        match &self.value {
            Value::Flag(flag) => Some(*flag),
            Value::Text(text, true) => text.parse().ok(),
            _ => None,
        }
    }

    /// What it is, for a message.
    pub(crate) fn found(&self) -> String {
        match &self.value {
            Value::Text(_, true) => "an interpolated string".to_owned(),
            Value::Text(text, false) => format!("the string \"{}\"", short(text)),
            Value::Integer(number) => format!("the number {number}"),
            Value::Float(number) => format!("the number {number:?}"),
            Value::Flag(flag) => format!("{flag}"),
            Value::Date => "a date".to_owned(),
            Value::List(_) => "a list".to_owned(),
            Value::Table(_) => "a table".to_owned(),
            Value::Refused => "nothing".to_owned(),
        }
    }
}

/// A parsed text; borrowed nodes are made from it on demand.
pub(crate) struct Parsed<'t> {
    lines: Lines<'t>,
    root: Spanned<DeTable<'t>>,
}

/// A value as it stands in the text; what is below headers of its own as the inline table that it could be.
#[derive(Debug, Clone, Default)]
pub(crate) struct Raw {
    pub(crate) text: String,
    /// Of a table.
    pub(crate) entries: Vec<(String, Raw)>,
    /// Of a list.
    pub(crate) items: Vec<Raw>,
}

impl Raw {
    pub(crate) fn get(&self, key: &str) -> Option<&Raw> {
        let mut entries = self.entries.iter();
        entries.find(|(known, _)| known == key).map(|(_, raw)| raw)
    }
}

/// A mistake of syntax: its line (0 is the text's first) and column, and what is wrong.
pub(crate) type SyntaxError = (Spot, String);

pub(crate) fn parse(text: &str) -> Result<Parsed<'_>, Vec<SyntaxError>> {
    parse_written(text, None)
}

/// Where the lines of a text were written that was made from another: for each its line there, counted from 0, and its
/// column, or `None` where the line stands there as it is. Spots are then those of the other text.
pub(crate) type Origins = [(u32, Option<u32>)];

pub(crate) fn parse_written<'t>(
    text: &'t str,
    origins: Option<&'t Origins>,
) -> Result<Parsed<'t>, Vec<SyntaxError>> {
    let lines = Lines {
        origins,
        ..Lines::of(text)
    };
    let (root, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Ok(Parsed { lines, root });
    }
    let mut found: Vec<SyntaxError> = errors
        .iter()
        .map(|error| {
            let spot = lines.spot(error.span().map_or(0, |span| span.start));
            (spot, error.message().replace('\n', "; "))
        })
        .collect();
    // One slip of the hand often makes a parser stumble several times on the same line.
    found.sort();
    found.dedup_by_key(|(spot, _)| spot.0);
    found.truncate(20);
    Err(found)
}

/// One key at the top of a parsed text.
pub(crate) struct TopValue<'p, 't> {
    pub(crate) key: &'p str,
    pub(crate) spot: Spot,
    parsed: &'p Parsed<'t>,
    span: Range<usize>,
    key_span: Range<usize>,
    value: &'p Spanned<DeValue<'t>>,
}

impl<'t> Parsed<'t> {
    pub(crate) fn top(&self) -> impl Iterator<Item = TopValue<'_, 't>> {
        self.root.get_ref().iter().map(|(key, value)| TopValue {
            key: key.get_ref(),
            spot: self.lines.spot(key.span().start),
            parsed: self,
            span: value.span(),
            key_span: key.span(),
            value,
        })
    }
}

impl<'p, 't> TopValue<'p, 't> {
    /// The elements of a list of tables, or the one table: each with the line (0 is the text's first) it begins on.
    pub(crate) fn items(&self) -> Option<Vec<TopValue<'p, 't>>> {
        let DeValue::Array(array) = self.value.get_ref() else {
            return None;
        };
        let items = array.iter().map(|value| TopValue {
            key: self.key,
            spot: self.parsed.lines.spot(value.span().start),
            parsed: self.parsed,
            span: value.span(),
            key_span: value.span(),
            value,
        });
        Some(items.collect())
    }

    pub(crate) fn is_table(&self) -> bool {
        matches!(self.value.get_ref(), DeValue::Table(_))
    }

    /// Whether it is a table with this key.
    pub(crate) fn has(&self, key: &str) -> bool {
        match self.value.get_ref() {
            DeValue::Table(table) => table.iter().any(|(known, _)| known.get_ref() == key),
            _ => false,
        }
    }

    /// The value as its writer put it, its references not looked up.
    pub(crate) fn raw(&self) -> Raw {
        self.parsed.lines.raw(self.value, 0)
    }

    /// The value as nodes with spots relative to `line` of the text.
    pub(crate) fn node(
        &self,
        line: u32,
        interpolator: &mut Interpolator<'_>,
        report: &mut ItemReport<'_>,
    ) -> Node {
        let mut reader = Reader {
            lines: &self.parsed.lines,
            line,
            interpolator,
            report,
        };
        reader.node(
            self.value,
            self.key_span.clone().min_by_start(self.span.clone()),
            0,
        )
    }
}

trait Earlier {
    fn min_by_start(self, other: Self) -> Self;
}

impl Earlier for Range<usize> {
    fn min_by_start(self, other: Self) -> Self {
        if other.start < self.start {
            other
        } else {
            self
        }
    }
}

/// Levels of tables and lists. The grammar has six.
const DEEPEST: u32 = 40;

struct Reader<'r, 't, 'i, 'e> {
    lines: &'r Lines<'t>,
    line: u32,
    interpolator: &'r mut Interpolator<'i>,
    report: &'r mut ItemReport<'e>,
}

impl Reader<'_, '_, '_, '_> {
    fn spot(&self, offset: usize) -> Spot {
        let (line, column) = self.lines.spot(offset);
        (line.saturating_sub(self.line), column)
    }

    /// `key` is where the value's key stands: a table that a header or a dotted key makes has no better place.
    fn node(&mut self, value: &Spanned<DeValue<'_>>, key: Range<usize>, depth: u32) -> Node {
        let span = value.span();
        let begins = self.lines.text.as_bytes().get(span.start);
        let by_header = match value.get_ref() {
            DeValue::Table(_) => begins != Some(&b'{'),
            DeValue::Array(_) => false,
            _ => false,
        };
        let spot = self.spot(if by_header { key.start } else { span.start });
        let value = if depth > DEEPEST {
            self.report.add(
                "too-deep",
                spot,
                "tables and lists are nested too deeply",
                "no section nests deeper than six levels",
            );
            Value::Refused
        } else {
            self.value(value.get_ref(), spot, depth)
        };
        Node { value, spot }
    }

    fn value(&mut self, value: &DeValue<'_>, spot: Spot, depth: u32) -> Value {
        match value {
            DeValue::String(text) if text.contains("${") => match self.interpolator.expand(text) {
                Ok((text, replaced)) => Value::Text(text, replaced),
                Err((code, fault)) => {
                    self.report.fault(code, spot, fault);
                    Value::Refused
                }
            },
            DeValue::String(text) => Value::Text(text.to_string(), false),
            DeValue::Integer(number) => {
                match i64::from_str_radix(number.as_str(), number.radix()) {
                    Ok(number) => Value::Integer(number),
                    Err(_) => {
                        self.report.add(
                            "wrong-type",
                            spot,
                            format!("`{}` is too large a number", short(number.as_str())),
                            "no number of a document is larger than 9223372036854775807",
                        );
                        Value::Refused
                    }
                }
            }
            DeValue::Float(number) => Value::Float(number.as_str().parse().unwrap_or(f64::NAN)),
            DeValue::Boolean(flag) => Value::Flag(*flag),
            DeValue::Datetime(_) => Value::Date,
            DeValue::Array(array) => {
                let nodes = array
                    .iter()
                    .map(|value| self.node(value, value.span(), depth + 1));
                Value::List(nodes.collect())
            }
            DeValue::Table(table) => {
                let entries = table.iter().map(|(key, value)| Entry {
                    key: key.get_ref().to_string(),
                    spot: self.spot(key.span().start),
                    node: self.node(value, key.span(), depth + 1),
                });
                Value::Table(entries.collect())
            }
        }
    }
}

/// Turns offsets into lines and columns. Remembers the last answer: offsets come in nearly ascending order, and a line
/// may be a megabyte long.
struct Lines<'t> {
    text: &'t str,
    starts: Vec<usize>,
    origins: Option<&'t Origins>,
    last: Cell<(usize, usize, u32)>,
}

impl<'t> Lines<'t> {
    fn of(text: &'t str) -> Lines<'t> {
        let ends = memchr::memchr_iter(b'\n', text.as_bytes()).map(|end| end + 1);
        Lines {
            text,
            starts: std::iter::once(0).chain(ends).collect(),
            origins: None,
            last: Cell::new((usize::MAX, 0, 0)),
        }
    }

    fn raw(&self, value: &Spanned<DeValue<'_>>, depth: u32) -> Raw {
        let span = value.span();
        let mut raw = Raw::default();
        if depth > DEEPEST {
            return raw;
        }
        let inline = |open| self.text.as_bytes().get(span.start) == Some(&open);
        match value.get_ref() {
            DeValue::Table(table) => {
                let entries = table.iter().map(|(key, value)| {
                    let name = self.text.get(key.span()).unwrap_or_default();
                    (name.to_owned(), self.raw(value, depth + 1))
                });
                raw.entries = entries.collect();
                if !inline(b'{') {
                    let words =
                        { raw.entries.iter() }.map(|(key, raw)| format!("{key} = {}", raw.text));
                    let words: Vec<String> = words.collect();
                    raw.text = format!("{{ {} }}", words.join(", "));
                    return raw;
                }
            }
            DeValue::Array(array) => {
                raw.items = array
                    .iter()
                    .map(|value| self.raw(value, depth + 1))
                    .collect();
            }
            _ => {}
        }
        self.text
            .get(span)
            .unwrap_or_default()
            .clone_into(&mut raw.text);
        raw
    }

    /// The line, counted from 0, and the column, counted from 1 in characters.
    fn spot(&self, offset: usize) -> Spot {
        let offset = offset.min(self.text.len());
        let line = self
            .starts
            .partition_point(|start| *start <= offset)
            .saturating_sub(1);
        let start = self.starts[line];
        let (last_line, last_offset, last_column) = self.last.get();
        let (from, before) = if last_line == line && last_offset <= offset {
            (last_offset, last_column)
        } else {
            (start, 1)
        };
        // Characters begin with every byte that does not continue one.
        let characters = self.text.as_bytes()[from..offset]
            .iter()
            .filter(|byte| **byte & 0xc0 != 0x80)
            .count();
        let column = before.saturating_add(u32::try_from(characters).unwrap_or(u32::MAX));
        self.last.set((line, offset, column));
        match self.origins.and_then(|origins| origins.get(line)) {
            Some((written, at)) => (*written, at.unwrap_or(column)),
            None => (u32::try_from(line).unwrap_or(u32::MAX), column),
        }
    }
}
