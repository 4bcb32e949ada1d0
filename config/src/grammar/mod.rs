//! The grammar of a document, as data: which sections there are, which keys they know, what a key may hold, its default
//! and one sentence about it. Refusals, the JSON Schema and the reference page are all made from these tables, so they
//! cannot disagree. A new key is a new line in `sections`. Nothing here reads a document.

mod access;
mod access_rules;
mod authority;
mod browsers;
mod callers;
pub(crate) mod control_plane;
mod faults;
mod identity;
mod limits;
pub(crate) mod rules;
pub(crate) mod sections;
pub(crate) mod sidecar;
mod store;
mod subscription;
mod telemetry;
mod transcode;
mod validate;

use crate::problem::Fault;

/// A table of keys: a `[section]`, or an inline table somewhere in one.
pub(crate) struct Section {
    /// How it is written, such as `[[route]]` or `match = { … }`.
    pub(crate) title: &'static str,
    pub(crate) doc: &'static str,
    pub(crate) keys: &'static [Key],
    /// Of each group exactly one key must be there.
    pub(crate) one_of: &'static [&'static [&'static str]],
    /// Of each group at most one key may be there.
    pub(crate) rivals: &'static [&'static [&'static str]],
    /// The first key makes no sense without the second.
    pub(crate) needs: &'static [(&'static str, &'static str)],
    /// Every other key is a name that the writer chose, and holds this.
    pub(crate) named: Option<(&'static Rule, &'static Kind)>,
}

pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) presence: Presence,
    pub(crate) doc: &'static str,
}

pub(crate) enum Presence {
    Required,
    /// Absent means that there is none.
    Optional,
    /// What an absent key means, as it would be written.
    Default(&'static str),
}

/// What a key may hold.
pub(crate) enum Kind {
    /// Any text.
    Text,
    /// A text that keeps a rule.
    Rule(&'static Rule),
    /// One of these words.
    Word(&'static [&'static str]),
    /// A whole number, both ends included.
    Count(u64, u64),
    /// A number from 0 to 1.
    Share,
    /// A number from 0 to 100, with fractions.
    Percent,
    Flag,
    /// Only `true`.
    Yes,
    List(&'static Kind),
    /// A table whose keys are the writer's.
    Map(&'static Rule, &'static Kind),
    Table(&'static Section),
    Either(&'static [Kind]),
    /// Known by name, but nothing that this build can do.
    Later,
}

pub(crate) struct Rule {
    /// The code of its problems.
    pub(crate) code: &'static str,
    /// What it is, such as `a duration`.
    pub(crate) words: &'static str,
    pub(crate) example: &'static str,
    pub(crate) check: fn(&str) -> Result<(), Fault>,
}

/// A section at the top of a document.
pub(crate) struct Top {
    pub(crate) name: &'static str,
    pub(crate) list: bool,
    /// `None`: known by name, but not available in this build.
    pub(crate) section: Option<&'static Section>,
    pub(crate) doc: &'static str,
}

impl Section {
    pub(crate) fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}

impl Kind {
    /// What the kind is, for a person.
    pub(crate) fn words(&self) -> String {
        match self {
            Kind::Text => "a string".to_owned(),
            Kind::Rule(rule) => rule.words.to_owned(),
            Kind::Word(words) => {
                let words: Vec<String> = words.iter().map(|w| format!("\"{w}\"")).collect();
                words.join(", ")
            }
            Kind::Count(0, u64::MAX) => "a whole number".to_owned(),
            Kind::Count(least, u64::MAX) => format!("a whole number from {least}"),
            Kind::Count(least, most) => format!("a whole number from {least} to {most}"),
            Kind::Share => "a number from 0.0 to 1.0".to_owned(),
            Kind::Percent => "a number from 0 to 100".to_owned(),
            Kind::Flag => "true or false".to_owned(),
            Kind::Yes => "true".to_owned(),
            Kind::List(kind) => match kind {
                Kind::Either(_) => format!("a list, each {}", kind.words()),
                _ => format!("a list of {}", plural(&kind.words())),
            },
            Kind::Map(rule, kind) => format!("a table of {} to {}", rule.words, kind.words()),
            Kind::Table(section) => format!("a table, {}", section.title),
            Kind::Either(kinds) => {
                let words: Vec<String> = kinds.iter().map(Kind::words).collect();
                words.join(", or ")
            }
            Kind::Later => "not available in this build".to_owned(),
        }
    }

    /// One value of the kind, as it would be written.
    pub(crate) fn example(&self) -> String {
        match self {
            Kind::Text => "\"text\"".to_owned(),
            Kind::Rule(rule) => format!("\"{}\"", rule.example),
            Kind::Word(words) => format!("\"{}\"", words[0]),
            Kind::Count(least, _) => least.max(&1).to_string(),
            Kind::Share => "0.5".to_owned(),
            Kind::Percent => "5".to_owned(),
            Kind::Flag | Kind::Yes => "true".to_owned(),
            Kind::List(kind) => format!("[{}]", kind.example()),
            Kind::Map(rule, kind) => format!("{{ {} = {} }}", rule.example, kind.example()),
            Kind::Table(section) => {
                let required: Vec<String> = section
                    .keys
                    .iter()
                    .filter(|key| {
                        matches!(key.presence, Presence::Required)
                            || section.one_of.iter().any(|group| group[0] == key.name)
                    })
                    .map(|key| format!("{} = {}", key.name, key.kind.example()))
                    .collect();
                if required.is_empty() {
                    "{}".to_owned()
                } else {
                    format!("{{ {} }}", required.join(", "))
                }
            }
            Kind::Either(kinds) => kinds[0].example(),
            Kind::Later => "\"off\"".to_owned(),
        }
    }
}

fn plural(words: &str) -> String {
    match words
        .strip_prefix("a ")
        .or_else(|| words.strip_prefix("an "))
    {
        Some(rest) => match rest.split_once(", ") {
            Some((noun, more)) => format!("{noun}s, {more}"),
            None => format!("{rest}s"),
        },
        None => words.to_owned(),
    }
}
