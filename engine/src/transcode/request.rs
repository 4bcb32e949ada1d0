//! A request over HTTP becomes one message: the body, behind it what the query says, behind that what the path captured.
//! The last of a field counts, so the path beats the query, and the query beats the body (GW-203).

use smallvec::SmallVec;

use super::bounds::Bound;
use super::encode::{self, Fault, Unfit, assign};
use super::frames;
use super::plan::{Body, Call, Transcoder};
use super::scalar::unescaped;
use super::schema::{Field, Kind, Known, MessageId, Shape};
use super::wire;

/// What a request says, apart from its head.
pub(crate) struct Said<'a> {
    pub(crate) path: &'a str,
    pub(crate) query: Option<&'a str>,
    pub(crate) content_type: &'a str,
    pub(crate) body: &'a [u8],
}

/// Names in a field path such as `a.b.c` at most; deeper is nested in nothing that a query should say.
const STEPS: usize = 16;

impl Call<'_> {
    /// Appends one message with its frame's head to `out`.
    pub(crate) fn message(
        &self,
        transcoder: &Transcoder,
        said: &Said<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Unfit> {
        let (schema, rules) = (&*transcoder.schema, &transcoder.rules);
        let begin = out.len();
        let begun = frames::begin(out);
        let mut faults = Vec::new();
        let input = self.binding.input;
        let is_form = said
            .content_type
            .starts_with("application/x-www-form-urlencoded");
        match self.binding.body {
            Body::None => {}
            Body::Whole if self.binding.raw_request => raw(said, out),
            Body::Field(place) if self.binding.raw_request => {
                wire::tag(out, schema.message(input).fields[place].number, wire::BYTES);
                let begin = wire::open(out);
                raw(said, out);
                wire::close(out, begin);
            }
            _ if said.body.iter().all(u8::is_ascii_whitespace) => {}
            body if is_form => {
                let text = std::str::from_utf8(said.body).unwrap_or("%");
                let around: &[&Field] = match body {
                    Body::Field(place) => &[&schema.message(input).fields[place]],
                    _ => &[],
                };
                pairs(transcoder, input, around, text, out, &mut faults)?;
            }
            Body::Whole => encode::message(schema, rules, input, said.body, out)?,
            Body::Field(place) => {
                encode::field(
                    schema,
                    rules,
                    &schema.message(input).fields[place],
                    said.body,
                    out,
                )?;
            }
        }
        if let Some(query) = said.query {
            pairs(transcoder, input, &[], query, out, &mut faults)?;
        }
        self.captures(transcoder, said.path, out, &mut faults);
        if !faults.is_empty() {
            return Err(Unfit::Faults(faults));
        }
        if out.len() - begun > rules.max_message {
            return Err(Unfit::Beyond(Bound::Message));
        }
        frames::finish(&mut out[begin..], begun - begin);
        Ok(())
    }

    fn captures(
        &self,
        transcoder: &Transcoder,
        path: &str,
        out: &mut Vec<u8>,
        faults: &mut Vec<Fault>,
    ) {
        let schema = &*transcoder.schema;
        for capture in &self.binding.captures {
            let (from, to) = (
                capture.span.from,
                capture.span.to.unwrap_or(self.segments.len()),
            );
            let begin = self
                .segments
                .get(from)
                .map_or(self.end, |(begin, _)| *begin as usize);
            let end = match to.checked_sub(1).and_then(|last| self.segments.get(last)) {
                Some((_, end)) if to > from => *end as usize,
                _ => begin,
            };
            let fields: SmallVec<[&Field; 4]> = capture
                .fields
                .iter()
                .map(|(id, place)| &schema.message(*id).fields[*place])
                .collect();
            let text = captured(
                path.get(begin..end).unwrap_or_default(),
                capture.span.is_long(),
            );
            let written = match &text {
                Some(text) => assign(schema, &fields, text, out),
                None => Err("text in UTF-8, percent-encoded".to_owned()),
            };
            if let Err(wanted) = written {
                faults.push(Fault {
                    field: capture.span.field.to_string(),
                    why: format!("in the path it should be {wanted}"),
                    at: None,
                });
            }
        }
    }
}

/// One segment means what it stands for; of several, a `%2F` stays, since it is no slash between two.
fn captured(text: &str, is_long: bool) -> Option<String> {
    if !is_long || !text.contains('%') {
        return unescaped(text, false);
    }
    let mut whole = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest
        .find("%2")
        .filter(|at| matches!(rest.as_bytes().get(at + 2), Some(b'F' | b'f')))
    {
        whole.push_str(&unescaped(&rest[..at], false)?);
        whole.push_str(&rest[at..at + 3]);
        rest = &rest[at + 3..];
    }
    whole.push_str(&unescaped(rest, false)?);
    Some(whole)
}

/// `google.api.HttpBody`.
fn raw(said: &Said<'_>, out: &mut Vec<u8>) {
    wire::bytes(out, 1, said.content_type.as_bytes());
    wire::bytes(out, 2, said.body);
}

/// `a.b=1&c=2`, of a query or a form.
fn pairs<'s>(
    transcoder: &'s Transcoder,
    id: MessageId,
    around: &[&'s Field],
    text: &str,
    out: &mut Vec<u8>,
    faults: &mut Vec<Fault>,
) -> Result<(), Unfit> {
    let schema = &*transcoder.schema;
    let mut once: SmallVec<[SmallVec<[u32; 4]>; 4]> = SmallVec::new();
    for (count, pair) in text.split('&').filter(|pair| !pair.is_empty()).enumerate() {
        if count >= transcoder.rules.max_fields as usize {
            return Err(Unfit::Beyond(Bound::Fields));
        }
        if faults.len() >= 16 {
            break;
        }
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let fault = |why: &str| Fault {
            field: key.chars().take(64).collect(),
            why: why.to_owned(),
            at: None,
        };
        let (Some(key), Some(value)) = (unescaped(key, true), unescaped(value, true)) else {
            faults.push(fault("it is not percent-encoded UTF-8"));
            continue;
        };
        let mut fields: SmallVec<[&Field; 4]> = around.iter().copied().collect();
        let from = match around.last().map(|field| field.kind) {
            None => Some(id),
            Some(Kind::Message(id)) => Some(id),
            Some(_) => None,
        };
        if !through(transcoder, from, &key, &mut fields) {
            if !transcoder.rules.ignores_unknown {
                faults.push(fault("there is no such field"));
            }
            continue;
        }
        let is_one = fields.last().is_some_and(|field| field.shape == Shape::One);
        if is_one {
            let numbers: SmallVec<[u32; 4]> = fields.iter().map(|field| field.number).collect();
            if once.contains(&numbers) {
                faults.push(fault("it is there twice"));
                continue;
            }
            once.push(numbers);
        }
        if let Err(wanted) = assign(schema, &fields, &value, out) {
            faults.push(fault(&format!("it should be {wanted}")));
        }
        if out.len() > transcoder.rules.max_message.saturating_add(frames::HEAD) {
            return Err(Unfit::Beyond(Bound::Message));
        }
    }
    Ok(())
}

/// Follows `a.b.c`; false when there is no such field, or none that one text could say.
fn through<'s>(
    transcoder: &'s Transcoder,
    mut at: Option<MessageId>,
    key: &str,
    fields: &mut SmallVec<[&'s Field; 4]>,
) -> bool {
    let schema = &*transcoder.schema;
    let before = fields.len();
    for name in key.split('.') {
        let Some(id) = at.filter(|_| fields.len() < before + STEPS) else {
            return false;
        };
        let message = schema.message(id);
        let Some(place) = message.by_key(name) else {
            return false;
        };
        let field = &message.fields[place];
        // In lists and maps there is no single field that could be meant.
        if fields.len() > before && fields.last().is_some_and(|last| last.shape != Shape::One) {
            return false;
        }
        at = match field.kind {
            Kind::Message(id) if field.shape != Shape::Map => Some(id),
            _ => None,
        };
        fields.push(field);
    }
    match at {
        Some(id) => schema.message(id).known != Known::No,
        None => true,
    }
}
