//! Path templates of `google.api.http`: `/v1/{name=shelves/*}/books/{id}:publish`, read once when a document is loaded.

use std::fmt;

/// A template, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template {
    pub(super) segments: Vec<Segment>,
    pub(super) captures: Vec<Span>,
    /// What stands behind the last colon.
    pub(super) verb: Option<Box<str>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Segment {
    Literal(Box<str>),
    /// `*`
    One,
    /// `**`, always the last: all that is left, also nothing.
    Rest,
}

/// Which segments a variable stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Span {
    /// Such as `order.id`.
    pub(super) field: Box<str>,
    pub(super) from: usize,
    /// Behind the last; `None`: to the end.
    pub(super) to: Option<usize>,
}

impl Span {
    /// Whether what it stands for may hold a slash.
    pub(super) fn is_long(&self) -> bool {
        self.to != Some(self.from + 1)
    }
}

impl Template {
    pub(super) fn parse(text: &str) -> Result<Template, &'static str> {
        let mut template = Template {
            segments: Vec::new(),
            captures: Vec::new(),
            verb: None,
        };
        let mut rest = text
            .strip_prefix('/')
            .ok_or("it does not begin with a slash")?;
        loop {
            rest = template.segment(rest)?;
            match rest.as_bytes().first() {
                None => break,
                Some(b'/') => rest = &rest[1..],
                Some(b':') => {
                    let verb = &rest[1..];
                    if !is_literal(verb) {
                        return Err("the verb behind the colon is no word");
                    }
                    template.verb = Some(verb.into());
                    break;
                }
                Some(_) => return Err("a slash is missing between two segments"),
            }
        }
        let rests = template
            .segments
            .iter()
            .filter(|segment| **segment == Segment::Rest)
            .count();
        if rests > 1 || rests == 1 && template.segments.last() != Some(&Segment::Rest) {
            return Err("`**` is not its last segment");
        }
        Ok(template)
    }

    /// One segment or variable from the beginning of `text`; what stands behind it.
    fn segment<'t>(&mut self, text: &'t str) -> Result<&'t str, &'static str> {
        let Some(inner) = text.strip_prefix('{') else {
            return self.plain(text);
        };
        let (inner, behind) = inner.split_once('}').ok_or("a { has no }")?;
        let (field, segments) = inner.split_once('=').unwrap_or((inner, "*"));
        if field.is_empty() || !field.split('.').all(is_name) {
            return Err("a variable has no field's name");
        }
        let from = self.segments.len();
        let mut rest = segments;
        loop {
            if rest.starts_with('{') {
                return Err("a variable stands in another");
            }
            rest = self.plain(rest)?;
            match rest.strip_prefix('/') {
                Some(next) => rest = next,
                None if rest.is_empty() => break,
                None => return Err("a slash is missing between two segments"),
            }
        }
        let to = (self.segments.last() != Some(&Segment::Rest)).then_some(self.segments.len());
        if self.captures.iter().any(|span| *span.field == *field) {
            return Err("a field is captured twice");
        }
        self.captures.push(Span {
            field: field.into(),
            from,
            to,
        });
        Ok(behind)
    }

    fn plain<'t>(&mut self, text: &'t str) -> Result<&'t str, &'static str> {
        let end = text.find(['/', ':', '{', '}', '=']).unwrap_or(text.len());
        let (segment, behind) = text.split_at(end);
        self.segments.push(match segment {
            "*" => Segment::One,
            "**" => Segment::Rest,
            literal if is_literal(literal) => Segment::Literal(literal.into()),
            _ => return Err("a segment is empty, or has a character that does not stand in paths"),
        });
        Ok(behind)
    }
}

fn is_literal(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~!$&'()+,;@%".contains(&byte);
    !text.is_empty() && text.bytes().all(fits)
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

impl fmt::Display for Template {
    /// As OpenAPI writes it: every variable by its name, without its segments.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut at = 0;
        while at < self.segments.len() {
            if let Some(span) = self.captures.iter().find(|span| span.from == at) {
                write!(f, "/{{{}}}", span.field)?;
                at = span.to.unwrap_or(self.segments.len());
                continue;
            }
            match &self.segments[at] {
                Segment::Literal(text) => write!(f, "/{text}")?,
                Segment::One => write!(f, "/*")?,
                Segment::Rest => write!(f, "/**")?,
            }
            at += 1;
        }
        match &self.verb {
            Some(verb) => write!(f, ":{verb}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn templates_are_taken_apart() {
        let template =
            Template::parse("/v1/{name=shelves/*/books/*}/pages/{page.number}:turn").unwrap();
        assert_eq!(template.segments.len(), 7);
        assert_eq!(template.verb.as_deref(), Some("turn"));
        let spans: Vec<_> = template
            .captures
            .iter()
            .map(|span| (&*span.field, span.from, span.to))
            .collect();
        assert_eq!(spans, [("name", 1, Some(5)), ("page.number", 6, Some(7))]);
        assert_eq!(template.to_string(), "/v1/{name}/pages/{page.number}:turn");
        let rest = Template::parse("/files/{path=**}").unwrap();
        assert_eq!((rest.captures[0].from, rest.captures[0].to), (1, None));
    }

    #[test]
    fn what_is_no_template_is_refused_with_a_reason() {
        for bad in [
            "", "v1", "/", "/v1//a", "/v1/", "/v1/**/a", "/{a", "/{}", "/{a={b}}", "/{a}{b}",
            "/{a}b", "/a:", "/a:b:c", "/a:b/c", "/{a=}", "/{a}/{a}", "/a b", "/a?b", "/{a.}",
            "/***",
        ] {
            assert!(Template::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[/{}=*:.a\u{e4} ]{0,24}") {
            let _any = Template::parse(&text);
        }
    }
}
