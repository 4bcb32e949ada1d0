//! Where a control plane is asked, and as whom: its URL, whose authority is trusted, which token is shown. A token is
//! read, sent and forgotten; it is never printed.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use tollgate_config::{At, UpstreamProtocol, UpstreamTls};
use tollgate_engine::net::tls::ClientTls;
use tollgate_engine::process::exit;

use crate::client::{Answer, Client};
use crate::control::Failed;
use crate::secure::Stream;

/// `http://host:port` or `https://host:port`; without a scheme http.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Control {
    pub(crate) tls: bool,
    /// `host:port`.
    pub(crate) authority: String,
}

impl FromStr for Control {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (tls, rest) = match text.split_once("://") {
            Some(("https", rest)) => (true, rest),
            Some(("http", rest)) => (false, rest),
            None => (false, text),
            Some(_) => return Err("write http://HOST:PORT or https://HOST:PORT".to_owned()),
        };
        let authority = rest.trim_end_matches('/');
        let port = authority.rsplit_once(':').map(|(_, port)| port);
        if port.is_none_or(|port| port.parse::<u16>().is_err()) || authority.contains('/') {
            return Err("write a host and a port, such as http://127.0.0.1:8080".to_owned());
        }
        Ok(Control {
            tls,
            authority: authority.to_owned(),
        })
    }
}

impl fmt::Display for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority)
    }
}

impl Control {
    fn is_loopback(&self) -> bool {
        let host = self.authority.rsplit_once(':').map_or("", |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let ip: Option<IpAddr> = host.parse().ok();
        ip.map_or(host == "localhost", |ip| ip.to_canonical().is_loopback())
    }
}

/// Not shown, also not by a failing assertion.
#[derive(Clone)]
pub(crate) struct Token(String);

impl Token {
    /// The line of a request's head that shows it.
    pub(crate) fn field(&self) -> String {
        format!("authorization: Bearer {}\r\n", self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl FromStr for Token {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        match !text.is_empty() && text.bytes().all(|byte| matches!(byte, 0x21..=0x7e)) {
            true => Ok(Token(text.to_owned())),
            // Not what it is: it is a secret.
            false => Err("a token is visible ASCII characters without blanks".to_owned()),
        }
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct Desk {
    /// The control plane; TOLLGATE_CONTROL, or else http://127.0.0.1:8080.
    #[arg(long, value_name = "URL", global = true)]
    control: Option<Control>,
    /// A token for it; others see what stands here, so rather --token-file, TOLLGATE_TOKEN or TOLLGATE_TOKEN_FILE.
    #[arg(
        long,
        value_name = "TOKEN",
        global = true,
        conflicts_with = "token_file"
    )]
    token: Option<String>,
    /// A file with a token for it.
    #[arg(long, value_name = "FILE", global = true)]
    token_file: Option<PathBuf>,
    /// Authorities that vouch for it, as PEM; TOLLGATE_CA, or else the system's.
    #[arg(long, value_name = "FILE", global = true)]
    ca: Option<PathBuf>,
    /// The certificate to show to it, as PEM; TOLLGATE_CERT.
    #[arg(long, value_name = "FILE", global = true)]
    cert: Option<PathBuf>,
    /// Its private key; TOLLGATE_KEY.
    #[arg(long, value_name = "FILE", global = true)]
    key: Option<PathBuf>,
}

fn misused(words: String) -> Failed {
    Failed(exit::BAD_DOCUMENT, words)
}

/// What stands in the environment; an empty variable is none.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn file_of(given: Option<&PathBuf>, name: &str) -> Option<PathBuf> {
    given.cloned().or_else(|| variable(name).map(PathBuf::from))
}

impl Desk {
    /// As it was given, for words; a bad one is told when it is asked.
    pub(crate) fn control(&self) -> String {
        self.named()
            .unwrap_or_else(|| "http://127.0.0.1:8080".to_owned())
    }

    /// As somebody named it.
    pub(crate) fn named(&self) -> Option<String> {
        let given = self.control.as_ref().map(Control::to_string);
        given.or_else(|| variable("TOLLGATE_CONTROL"))
    }

    /// The nearest that was given: an argument before the environment, a token before a file.
    pub(crate) fn token(&self) -> Result<Option<Token>, Failed> {
        let of_file = |file: &PathBuf| {
            let text = std::fs::read_to_string(file).map_err(|why| {
                misused(format!(
                    "the token in {} cannot be read: {why}",
                    file.display()
                ))
            })?;
            let bad = |why| misused(format!("{}: {why}", file.display()));
            text.parse::<Token>().map(Some).map_err(bad)
        };
        let of_text = |text: &str, what: &str| {
            let bad = |why| misused(format!("{what}: {why}"));
            text.parse::<Token>().map(Some).map_err(bad)
        };
        match (&self.token, &self.token_file) {
            (Some(token), _) => return of_text(token, "--token"),
            (None, Some(file)) => return of_file(file),
            (None, None) => {}
        }
        match (variable("TOLLGATE_TOKEN"), variable("TOLLGATE_TOKEN_FILE")) {
            (Some(token), _) => of_text(&token, "TOLLGATE_TOKEN"),
            (None, Some(file)) => of_file(&file.into()),
            (None, None) => Ok(None),
        }
    }

    /// Whose authority is trusted, and what is shown.
    pub(crate) fn files(&self) -> UpstreamTls {
        UpstreamTls {
            ca: file_of(self.ca.as_ref(), "TOLLGATE_CA"),
            name: None,
            cert: file_of(self.cert.as_ref(), "TOLLGATE_CERT"),
            key: file_of(self.key.as_ref(), "TOLLGATE_KEY"),
            at: At(None),
        }
    }

    fn tls(&self) -> Result<ClientTls, Failed> {
        ClientTls::load(&self.files(), UpstreamProtocol::Http1)
            .map_err(|error| misused(format!("{error} (--ca, --cert, --key)")))
    }

    /// One request, whatever its answer.
    pub(crate) fn send(&self, method: &str, path: &str, body: &str) -> Result<Answer, Failed> {
        let url = self.control();
        let control: Control = url
            .parse()
            .map_err(|why| misused(format!("{url} is no control plane: {why}")))?;
        let token = self.token()?;
        let fields = token.as_ref().map(Token::field).unwrap_or_default();
        if token.is_some() && !control.tls && !control.is_loopback() {
            eprintln!("note: the token crosses the network readable; {control} is not https");
        }
        let client = match control.tls {
            false => Client::connect(&control.authority),
            true => {
                let tls = self.tls()?;
                let secure = |socket| Stream::secured(&tls, &control.authority, socket);
                Client::dial(&control.authority, secure)
            }
        };
        client
            .and_then(|mut client| client.send_with(&fields, method, path, body))
            .map_err(|error| Failed(exit::FAILURE, unanswered(&control, &error)))
    }
}

/// What happened, and what to try next.
fn unanswered(control: &Control, error: &io::Error) -> String {
    let words = error.to_string();
    let next = if words.contains("certificate") {
        "name the authority that signed its certificate with --ca"
    } else if control.tls && words.contains("corrupt message") {
        "it does not speak TLS; write http://"
    } else if !control.tls && matches!(error.kind(), io::ErrorKind::InvalidData) {
        "does it want https://?"
    } else {
        "is the control plane running? (--control or TOLLGATE_CONTROL names another)"
    };
    format!("{control} does not answer: {words}; {next}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_plane_is_a_url_with_a_port() {
        let written = |text: &str| text.parse::<Control>().map(|control| control.to_string());
        assert_eq!(written("127.0.0.1:1").unwrap(), "http://127.0.0.1:1");
        assert_eq!(
            written("https://cp.example:8080/").unwrap(),
            "https://cp.example:8080"
        );
        assert!(written("ftp://a:1").unwrap_err().contains("https"));
        assert!(written("https://a").unwrap_err().contains("port"));
        let loopback = |text: &str| text.parse::<Control>().unwrap().is_loopback();
        assert!(loopback("localhost:1") && loopback("[::1]:1") && loopback("127.0.0.9:1"));
        assert!(!loopback("10.0.0.1:1") && !loopback("cp:1"));
    }

    #[test]
    fn a_token_is_one_word_and_is_not_shown() {
        let token: Token = " abc\n".parse().unwrap();
        assert_eq!(token.0, "abc");
        assert!(!format!("{token:?}").contains("abc"));
        assert!("a b".parse::<Token>().is_err() && "".parse::<Token>().is_err());
        assert!("a\r\nhost: b".parse::<Token>().is_err());
    }
}
