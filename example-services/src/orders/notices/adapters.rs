//! Who carries a notice to a customer (SHOP-902): mail and SMS behind traits. What is here is simulated, and is the default; whoever
//! speaks to a real carrier implements the same traits. Nothing here knows orders or decides who is told what.

use std::{
    fmt::Debug, fs::OpenOptions, future::Future, io::Write as _, path::PathBuf, pin::Pin, sync::Arc,
};

use serde_json::{Value, json};

/// A carrier's answer, which takes its time.
pub type Carried<'a> = Pin<Box<dyn Future<Output = Result<(), Undelivered>> + Send + 'a>>;

/// Why it was not carried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undelivered {
    /// For the log.
    pub why: String,
    /// It may work later. It may also have been carried, which the key is for.
    pub temporary: bool,
}

/// One letter. The same key is the same letter: a carrier that knows it already need not carry it again.
#[derive(Clone, Copy, Debug)]
pub struct Letter<'a> {
    /// Stays the same over all tries.
    pub key: &'a str,
    /// An address of mail.
    pub to: &'a str,
    /// One line.
    pub subject: &'a str,
    /// Plain text.
    pub text: &'a str,
}

/// Carries mail.
pub trait Mail: Send + Sync + Debug {
    /// Takes a letter over, or says why not.
    fn send<'a>(&'a self, letter: Letter<'a>) -> Carried<'a>;
}

/// Carries short messages.
pub trait Sms: Send + Sync + Debug {
    /// Takes a message to this number over, or says why not. The key is that of a [`Letter`].
    fn send<'a>(&'a self, key: &'a str, to: &'a str, text: &'a str) -> Carried<'a>;
}

/// Carries nothing: adds a line to a file for each, or does not even that.
#[derive(Clone, Debug)]
pub struct Simulated(Option<Arc<PathBuf>>);

impl Simulated {
    /// From a setting: `simulated`, or `simulated:FILE`.
    pub fn read(setting: &str) -> Result<Self, String> {
        match setting.split_once(':') {
            None if setting == "simulated" => Ok(Self(None)),
            Some(("simulated", file)) if !file.is_empty() => Ok(Self(Some(Arc::new(file.into())))),
            _ => Err(format!(
                "`{setting}` is no carrier; use simulated, or simulated:FILE"
            )),
        }
    }

    async fn note(&self, line: Value) -> Result<(), Undelivered> {
        let Some(file) = self.0.clone() else {
            return Ok(());
        };
        let written = tokio::task::spawn_blocking(move || {
            let mut file = OpenOptions::new().create(true).append(true).open(&*file)?;
            // In one write, so that lines of several processes do not mix.
            file.write_all(format!("{line}\n").as_bytes())
        });
        let why = match written.await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        let temporary = true;
        Err(Undelivered { why, temporary })
    }
}

impl Mail for Simulated {
    fn send<'a>(&'a self, letter: Letter<'a>) -> Carried<'a> {
        let Letter {
            key,
            to,
            subject,
            text,
        } = letter;
        let line = json!({ "key": key, "to": to, "subject": subject, "text": text });
        Box::pin(self.note(line))
    }
}

impl Sms for Simulated {
    fn send<'a>(&'a self, key: &'a str, to: &'a str, text: &'a str) -> Carried<'a> {
        Box::pin(self.note(json!({ "key": key, "to": to, "text": text })))
    }
}
