//! gRPC server reflection (`grpc.reflection.v1`, and `v1alpha`, whose messages are the same) as questions and answers: which
//! services there are, the file of each, and the files that those import, until nothing is missing. What comes out is a
//! descriptor set like one of `protoc`, in an order of its own, so that the same files make the same bytes.
//!
//! Nothing here sends, waits or knows time. What an upstream says is bounded and never trusted.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use super::wire::{self, Broken, Fields, Raw};

/// The methods, the newer one first.
pub(crate) const PATHS: [&str; 2] = [
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];
/// Bytes of a set.
pub(crate) const LARGEST: usize = 16 << 20;
/// Questions to one upstream, answered or not.
const MOST: usize = 4096;
/// Services and files in one name.
const LONGEST_NAME: usize = 1024;
/// `error_code` of what the upstream does not know.
const NOT_FOUND: u64 = 5;

/// What is asked next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Question {
    Services,
    /// The file that defines it.
    Symbol(String),
    File(String),
}

/// A set in the making.
pub(crate) struct Gathering {
    todo: Vec<Question>,
    asked: usize,
    /// Names of files that are here or on their way.
    known: HashSet<String>,
    files: BTreeMap<String, Vec<u8>>,
    size: usize,
}

/// Why there is none.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ungathered {
    Broken,
    /// The upstream's own words, cut.
    Refused(u64, String),
    TooLarge,
    NoServices,
}

impl fmt::Display for Ungathered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ungathered::Broken => write!(f, "an answer is no reflection"),
            Ungathered::Refused(code, words) => write!(f, "it refused with code {code}: {words}"),
            Ungathered::TooLarge => write!(
                f,
                "its descriptors are more than {MOST} files or {} MiB",
                LARGEST >> 20
            ),
            Ungathered::NoServices => write!(f, "it names no services"),
        }
    }
}

impl From<Broken> for Ungathered {
    fn from(_: Broken) -> Self {
        Ungathered::Broken
    }
}

impl Question {
    /// `ServerReflectionRequest`.
    pub(crate) fn message(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Question::File(name) => wire::bytes(&mut out, 3, name.as_bytes()),
            Question::Symbol(name) => wire::bytes(&mut out, 4, name.as_bytes()),
            Question::Services => wire::bytes(&mut out, 7, b"*"),
        }
        out
    }
}

impl Default for Gathering {
    fn default() -> Self {
        Gathering {
            todo: vec![Question::Services],
            asked: 0,
            known: HashSet::new(),
            files: BTreeMap::new(),
            size: 0,
        }
    }
}

impl Gathering {
    /// What to ask next; `None`: nothing is missing.
    pub(crate) fn next(&mut self) -> Option<Question> {
        self.todo.pop()
    }

    /// `ServerReflectionResponse`.
    pub(crate) fn take(&mut self, question: &Question, answer: &[u8]) -> Result<(), Ungathered> {
        self.asked += 1;
        let mut fields = Fields::new(answer);
        while let Some((number, value)) = fields.next()? {
            match (number, value) {
                (4, Raw::Bytes(files)) => self.files(files)?,
                (6, Raw::Bytes(services)) if *question == Question::Services => {
                    self.services(services)?;
                }
                (7, Raw::Bytes(error)) => refused(question, error)?,
                _ => {}
            }
        }
        if self.asked + self.todo.len() > MOST {
            return Err(Ungathered::TooLarge);
        }
        if *question == Question::Services && self.todo.is_empty() {
            return Err(Ungathered::NoServices);
        }
        Ok(())
    }

    /// Everything, as `FileDescriptorSet`.
    pub(crate) fn set(self) -> Vec<u8> {
        let mut set = Vec::with_capacity(self.size + self.files.len() * 8);
        for file in self.files.values() {
            wire::bytes(&mut set, 1, file);
        }
        set
    }

    fn services(&mut self, answer: &[u8]) -> Result<(), Ungathered> {
        let mut fields = Fields::new(answer);
        while let Some((number, value)) = fields.next()? {
            let (1, Raw::Bytes(service)) = (number, value) else {
                continue;
            };
            let mut fields = Fields::new(service);
            while let Some((number, value)) = fields.next()? {
                if let (1, Raw::Bytes(name)) = (number, value) {
                    let name = text(name)?;
                    // Nobody calls it over JSON, and some servers list it without its file.
                    if !name.starts_with("grpc.reflection.") {
                        self.todo.push(Question::Symbol(name));
                    }
                }
            }
            if self.todo.len() > MOST {
                return Err(Ungathered::TooLarge);
            }
        }
        Ok(())
    }

    fn files(&mut self, answer: &[u8]) -> Result<(), Ungathered> {
        let mut fields = Fields::new(answer);
        while let Some((number, value)) = fields.next()? {
            if let (1, Raw::Bytes(file)) = (number, value) {
                self.file(file)?;
            }
        }
        Ok(())
    }

    /// One file: kept, and what it imports is asked for. Servers send the imports with it, or do not.
    fn file(&mut self, bytes: &[u8]) -> Result<(), Ungathered> {
        let (mut name, mut imports) = (None, Vec::new());
        let mut fields = Fields::new(bytes);
        while let Some((number, value)) = fields.next()? {
            match (number, value) {
                (1, Raw::Bytes(value)) => name = Some(text(value)?),
                (3, Raw::Bytes(value)) => imports.push(text(value)?),
                _ => {}
            }
        }
        let name = name.ok_or(Ungathered::Broken)?;
        if self.files.contains_key(&name) {
            return Ok(());
        }
        self.size += bytes.len();
        if self.size > LARGEST || self.files.len() >= MOST {
            return Err(Ungathered::TooLarge);
        }
        self.todo
            .retain(|question| !matches!(question, Question::File(file) if *file == name));
        self.known.insert(name.clone());
        self.files.insert(name, bytes.to_vec());
        for import in imports {
            if self.known.len() > MOST {
                return Err(Ungathered::TooLarge);
            }
            if self.known.insert(import.clone()) {
                self.todo.push(Question::File(import));
            }
        }
        Ok(())
    }
}

fn text(bytes: &[u8]) -> Result<String, Ungathered> {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.len() <= LONGEST_NAME => Ok(text.to_owned()),
        _ => Err(Ungathered::Broken),
    }
}

/// What is not known is left out: a service without descriptors, an import that only held options. Whether something
/// that is needed is missing, the reader of the set will tell. Everything else ends it.
fn refused(question: &Question, error: &[u8]) -> Result<(), Ungathered> {
    let (mut code, mut words) = (0, String::new());
    let mut fields = Fields::new(error);
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            (1, Raw::Varint(value)) => code = value,
            (2, Raw::Bytes(value)) => {
                words = String::from_utf8_lossy(value).chars().take(200).collect();
            }
            _ => {}
        }
    }
    if code == NOT_FOUND && *question != Question::Services {
        return Ok(());
    }
    Err(Ungathered::Refused(code, words))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nested(number: u32, parts: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        for part in parts {
            wire::bytes(&mut out, number, part);
        }
        out
    }

    fn services(names: &[&str]) -> Vec<u8> {
        let names: Vec<_> = names
            .iter()
            .map(|name| nested(1, &[name.as_bytes()]))
            .collect();
        let names: Vec<_> = names.iter().map(Vec::as_slice).collect();
        nested(6, &[&nested(1, &names)])
    }

    fn file(name: &str, imports: &[&str]) -> Vec<u8> {
        let mut file = nested(1, &[name.as_bytes()]);
        for import in imports {
            wire::bytes(&mut file, 3, import.as_bytes());
        }
        file
    }

    fn files(files: &[Vec<u8>]) -> Vec<u8> {
        let files: Vec<_> = files.iter().map(Vec::as_slice).collect();
        nested(4, &[&nested(1, &files)])
    }

    fn error(code: u64) -> Vec<u8> {
        let mut error = Vec::new();
        wire::tag(&mut error, 1, wire::VARINT);
        wire::varint(&mut error, code);
        wire::bytes(&mut error, 2, b"no");
        nested(7, &[&error])
    }

    /// Asks until nothing is missing; the questions, and the set.
    fn gather(
        answer: impl Fn(&Question) -> Vec<u8>,
    ) -> Result<(Vec<Question>, Vec<u8>), Ungathered> {
        let (mut gathering, mut asked) = (Gathering::default(), Vec::new());
        while let Some(question) = gathering.next() {
            gathering.take(&question, &answer(&question))?;
            asked.push(question);
        }
        Ok((asked, gathering.set()))
    }

    /// GW-201: some servers send a file alone, some with all that it imports. The set is the same.
    #[test]
    fn imports_are_asked_for_unless_they_came_along() {
        let [a, b, c] = [file("a", &["b", "c"]), file("b", &["c"]), file("c", &[])];
        let list = services(&["s.A", "grpc.reflection.v1.ServerReflection"]);
        let alone = gather(|question| match question {
            Question::Services => list.clone(),
            Question::Symbol(_) => files(std::slice::from_ref(&a)),
            Question::File(name) if name == "b" => files(std::slice::from_ref(&b)),
            Question::File(_) => files(std::slice::from_ref(&c)),
        });
        let together = gather(|question| match question {
            Question::Services => list.clone(),
            _ => files(&[c.clone(), a.clone(), b.clone()]),
        });
        let ((alone, set), (together, same)) = (alone.unwrap(), together.unwrap());
        assert_eq!((alone.len(), together.len()), (4, 2));
        assert_eq!(set, same);
        assert_eq!(set, nested(1, &[&a, &b, &c]));
        assert_eq!(together[1], Question::Symbol("s.A".into()));
    }

    #[test]
    fn what_is_not_known_is_left_out_and_other_refusals_end_it() {
        let answer = |code| {
            gather(move |question| match question {
                Question::Services => services(&["s.A", "s.B"]),
                Question::Symbol(name) if name == "s.A" => files(&[file("a", &["options"])]),
                _ => error(code),
            })
        };
        let (_, set) = answer(5).unwrap();
        assert_eq!(set, nested(1, &[&file("a", &["options"])]));
        assert_eq!(
            answer(14).unwrap_err(),
            Ungathered::Refused(14, "no".into())
        );
        let nothing = gather(|_| error(5));
        assert_eq!(nothing.unwrap_err(), Ungathered::Refused(5, "no".into()));
        let empty = gather(|_| services(&[]));
        assert_eq!(empty.unwrap_err(), Ungathered::NoServices);
    }

    /// An upstream that goes on inventing files and services, or sends huge ones, is not listened to for ever.
    #[test]
    fn there_is_an_end_to_what_is_taken() {
        let endless = gather(|question| match question {
            Question::Services => services(&["s.A"]),
            Question::Symbol(_) => files(&[file("0", &["1"])]),
            Question::File(name) => {
                let next = name.parse::<u64>().unwrap() + 1;
                files(&[file(name, &[&next.to_string()])])
            }
        });
        assert_eq!(endless.unwrap_err(), Ungathered::TooLarge);
        let names: Vec<String> = (0..MOST + 2).map(|number| format!("s.S{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let many = gather(|_| services(&names));
        assert_eq!(many.unwrap_err(), Ungathered::TooLarge);
        let huge = gather(|question| match question {
            Question::Services => services(&["s.A"]),
            _ => {
                let mut huge = file("a", &[]);
                wire::bytes(&mut huge, 1000, &vec![0; LARGEST]);
                files(&[huge])
            }
        });
        assert_eq!(huge.unwrap_err(), Ungathered::TooLarge);
    }

    proptest! {
        #[test]
        fn no_answer_of_any_bytes_panics(answers in prop::collection::vec(any::<Vec<u8>>(), 1..4)) {
            let mut gathering = Gathering::default();
            for answer in answers {
                let Some(question) = gathering.next() else { break };
                if gathering.take(&question, &answer).is_err() { break }
            }
        }
    }
}
