//! What is wrong with a document, in words that tell the next step. One vocabulary for every part: a proxy and the
//! control plane refuse the same mistake with the same sentence.

use std::fmt;

use crate::document::Place;

/// Why a text is not what a key needs, and what to write instead; a `Problem` that does not know its place yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Lower case, no period.
    pub message: String,
    pub hint: String,
}

impl Fault {
    pub(crate) fn new(message: impl Into<String>, hint: impl Into<String>) -> Fault {
        Fault {
            message: message.into(),
            hint: hint.into(),
        }
    }
}

/// One thing wrong, where, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Stable, kebab-case, such as `unknown-key`.
    pub code: &'static str,
    /// Absent when the problem has no line, such as an unreadable file.
    pub place: Option<Place>,
    /// What is wrong; lower case, no period.
    pub message: String,
    /// The offending line of text, as it stands in the file.
    pub text: Option<String>,
    /// What to do next.
    pub hint: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        write!(f, "{}", self.message)?;
        if let Some(text) = &self.text {
            write!(f, "\n    | {}", text.trim_end())?;
            if let Some(place) = &self.place {
                let before: String = text
                    .chars()
                    .take(place.column.saturating_sub(1) as usize)
                    .map(|c| if c == '\t' { '\t' } else { ' ' })
                    .collect();
                write!(f, "\n    | {before}^")?;
            }
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n    = {hint}")?;
        }
        Ok(())
    }
}

/// Everything wrong with a document, in file order; never empty when returned as an error.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.0 {
            writeln!(f, "{problem}")?;
        }
        write!(
            f,
            "{} problem{}",
            self.0.len(),
            if self.0.len() == 1 { "" } else { "s" }
        )
    }
}

impl std::error::Error for Problems {}
