//! Maps: entries in the order in which they came, and of a key that came twice the last value.

use smallvec::SmallVec;

use super::{Came, Decoder, Go, Unreadable};
use crate::transcode::bounds::Bound;
use crate::transcode::schema::{Field, Kind};
use crate::transcode::wire::{Fields, Raw};

impl Decoder<'_, '_> {
    /// Of a key that came twice the last value counts.
    pub(super) fn map(&mut self, field: &Field, came: &[Came<'_>]) -> Go {
        let Kind::Message(id) = field.kind else {
            return Err(Unreadable::Broken);
        };
        let [key_field, value_field] = &*self.schema.message(id).fields else {
            return Err(Unreadable::Broken);
        };
        let begin = self.out.len();
        self.out.push(b'{');
        // Where each key and its value were written; most maps have every key once.
        let mut written: Vec<(usize, usize, usize)> = Vec::with_capacity(came.len());
        for (_, raw) in came {
            let Raw::Bytes(entry) = raw else {
                return Err(Unreadable::Broken);
            };
            let (mut key, mut value) = (None, SmallVec::<[Came<'_>; 1]>::new());
            let mut fields = Fields::new(entry);
            while let Some((number, raw)) = fields.next()? {
                match number {
                    1 => key = Some(raw),
                    2 => value.push((0, raw)),
                    _ => {}
                }
            }
            let from = self.out.len();
            if key_field.kind == Kind::String {
                match key {
                    Some(key) => self.value(Kind::String, key)?,
                    None => self.out.extend_from_slice(b"\"\""),
                }
            } else {
                self.map_key(key_field.kind, key)?;
            }
            let middle = self.out.len();
            self.out.push(b':');
            if value.is_empty() {
                match value_field.kind {
                    Kind::Message(id) => self.message(id, b"")?,
                    kind => self.default_of(kind),
                }
            } else {
                self.field(value_field, &value)?;
            }
            written.push((from, middle, self.out.len()));
            self.out.push(b',');
            if self.out.len() > self.most {
                return Err(Unreadable::Beyond(Bound::Message));
            }
        }
        self.without_doubles(begin, &written);
        if self.out.last() == Some(&b',') {
            self.out.pop();
        }
        self.out.push(b'}');
        Ok(())
    }

    fn map_key(&mut self, kind: Kind, raw: Option<Raw<'_>>) -> Go {
        let quoted = matches!(
            kind,
            Kind::Int64 | Kind::Uint64 | Kind::Fixed64 | Kind::Sfixed64 | Kind::Sint64
        );
        if !quoted {
            self.out.push(b'"');
        }
        match raw {
            Some(raw) => self.value(kind, raw)?,
            None => self.default_of(kind),
        }
        if !quoted {
            self.out.push(b'"');
        }
        Ok(())
    }

    pub(super) fn without_doubles(&mut self, begin: usize, written: &[(usize, usize, usize)]) {
        let key = |place: usize| &self.out[written[place].0..written[place].1];
        let mut order: Vec<usize> = (0..written.len()).collect();
        order.sort_by(|one, other| key(*one).cmp(key(*other)).then(one.cmp(other)));
        let mut beaten: Vec<usize> = order
            .windows(2)
            .filter(|pair| key(pair[0]) == key(pair[1]))
            .map(|pair| pair[0])
            .collect();
        if beaten.is_empty() {
            return;
        }
        beaten.sort_unstable();
        let mut kept = vec![b'{'];
        for (place, (from, _, to)) in written.iter().enumerate() {
            if beaten.binary_search(&place).is_err() {
                kept.extend_from_slice(&self.out[*from..*to]);
                kept.push(b',');
            }
        }
        self.out.truncate(begin);
        self.out.append(&mut kept);
    }
}
