//! Where a sidecar's document comes from: a file, short or full, or the words of the command line, which become the
//! short text that a file with them would be.

use std::path::{Path, PathBuf};

use clap::Args;
use tollgate_config::{Document, Loader, Problem, Problems, sidecar};
use tollgate_engine::engine::{Engine, Options, Running, StartError};

/// What a short file says, for whoever has none.
#[derive(Debug, Args)]
#[group(id = "Quick", multiple = true)]
pub struct Quick {
    /// The service that the application is an instance of; no file is needed then.
    #[arg(long, value_name = "NAME", requires = "app")]
    service: Option<String>,
    /// Where the application listens.
    #[arg(long, value_name = "HOST:PORT", requires = "service")]
    app: Option<String>,
    /// What it speaks: http1, http2 (gRPC), tcp or detect.
    #[arg(long, requires = "service")]
    protocol: Option<String>,
    /// The path that tells whether it is ready; without it a connection is enough.
    #[arg(long, value_name = "PATH", requires = "service")]
    ready: Option<String>,
    /// A control plane; may be repeated.
    #[arg(long, value_name = "URL", requires = "service")]
    control_plane: Vec<String>,
    /// A file with a join token: makes this a member of the mesh.
    #[arg(long, value_name = "FILE", requires = "service")]
    token_file: Option<String>,
    /// Where others come in.
    #[arg(long, value_name = "IP:PORT", requires = "service")]
    inbound: Option<String>,
    /// Where the application goes out.
    #[arg(long, value_name = "IP:PORT", requires = "service")]
    outbound: Option<String>,
    /// A service that is followed from the start; may be repeated.
    #[arg(long = "follow", value_name = "SERVICE", requires = "service")]
    services: Vec<String>,
    /// Health, metrics, status and drain.
    #[arg(long, value_name = "IP:PORT", requires = "service")]
    admin: Option<String>,
    /// A folder for what outlives the process.
    #[arg(long, value_name = "FOLDER", requires = "service")]
    state_dir: Option<String>,
}

/// Where the document comes from.
pub enum Source {
    File(PathBuf),
    /// A short text.
    Words(String),
}

/// What problems of the command line point at.
const WORDS: &str = "command line";

impl Source {
    pub fn name(&self) -> String {
        match self {
            Source::File(path) => path.display().to_string(),
            Source::Words(_) => WORDS.to_owned(),
        }
    }

    pub fn load(&self) -> Result<Document, Problems> {
        let mut loader = Loader::new().short();
        match self {
            Source::File(path) => loader.load(path),
            Source::Words(text) => loader.load_text(WORDS, text, Path::new("")),
        }
    }

    /// The full document as text.
    pub fn written_out(&self) -> Result<String, Problems> {
        let (text, folder) = match self {
            Source::Words(text) => (text.clone(), PathBuf::new()),
            Source::File(path) => {
                let text =
                    std::fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
                (text, path.parent().unwrap_or(Path::new("")).to_owned())
            }
        };
        let full = sidecar::written_out(&self.name(), &text, &folder)?;
        Ok(full.unwrap_or(text))
    }

    /// Starts the engine on it.
    pub(crate) fn start(&self, options: Options) -> Result<Running, StartError> {
        match self {
            Source::File(path) => Engine::start(
                path,
                Options {
                    loader: Loader::new().short(),
                    watch: true,
                    ..options
                },
            ),
            Source::Words(_) => {
                let document = self.load().map_err(StartError::Problems)?;
                Engine::start_document(document, options)
            }
        }
    }
}

pub(crate) fn unreadable(path: &Path, error: &std::io::Error) -> Problems {
    Problems(vec![Problem {
        code: "missing-file",
        place: None,
        message: format!("{} cannot be read: {error}", path.display()),
        text: None,
        hint: Some("name a file that exists and that this user may read".to_owned()),
    }])
}

impl Quick {
    /// As a file would say it.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        let mut section = |name: &str, keys: &[(&str, Option<String>)]| {
            let keys: Vec<_> = keys
                .iter()
                .filter_map(|(key, value)| Some((key, value.as_ref()?)))
                .collect();
            if keys.is_empty() {
                return;
            }
            text.push_str(&format!("[{name}]\n"));
            for (key, value) in keys {
                text.push_str(&format!("{key} = {value}\n"));
            }
        };
        let one = |word: &Option<String>| word.as_deref().map(quoted);
        let many = |words: &[String]| {
            let quoted: Vec<String> = words.iter().map(|word| quoted(word)).collect();
            (!quoted.is_empty()).then(|| format!("[{}]", quoted.join(", ")))
        };
        let service = [
            ("name", one(&self.service)),
            ("app", one(&self.app)),
            ("protocol", one(&self.protocol)),
            ("ready", one(&self.ready)),
        ];
        section("service", &service);
        section("control_plane", &[("urls", many(&self.control_plane))]);
        let token = { self.token_file.as_ref() }.map(|path| quoted(&format!("${{file:{path}}}")));
        section("identity", &[("token", token)]);
        section("inbound", &[("bind", one(&self.inbound))]);
        let outbound = [
            ("bind", one(&self.outbound)),
            ("services", many(&self.services)),
        ];
        section("outbound", &outbound);
        let server = [
            ("admin", one(&self.admin)),
            ("state_dir", one(&self.state_dir)),
        ];
        section("server", &server);
        text
    }
}

/// A TOML string: what JSON escapes, TOML reads.
fn quoted(word: &str) -> String {
    serde_json::Value::from(word).to_string()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::{Arguments, Command};

    fn text(words: &[&str]) -> String {
        let whole = ["tollgate-sidecar", "run"].iter().chain(words);
        match Arguments::try_parse_from(whole)
            .expect("good words")
            .command
        {
            Command::Run { told } => told.quick.text(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_command_line_says_what_a_file_would() {
        let words = [
            "--service",
            "orders",
            "--app",
            "127.0.0.1:9003",
            "--control-plane",
            "http://a:1",
            "--control-plane",
            "http://b:1",
            "--token-file",
            "join \"it\"",
        ];
        assert_eq!(
            text(&words),
            "[service]\nname = \"orders\"\napp = \"127.0.0.1:9003\"\n\
             [control_plane]\nurls = [\"http://a:1\", \"http://b:1\"]\n\
             [identity]\ntoken = \"${file:join \\\"it\\\"}\"\n"
        );
    }

    #[test]
    fn a_file_and_words_are_not_mixed() {
        for bad in [
            &["a.toml", "--service", "a", "--app", "b:1"][..],
            &["--service", "a"],
            &["--app", "a:1"],
            &["a.toml", "--control-plane", "http://a:1"],
            &[],
        ] {
            let whole = ["tollgate-sidecar", "run"].iter().chain(bad);
            assert!(Arguments::try_parse_from(whole).is_err(), "{bad:?}");
        }
    }
}
