//! The way to somebody over the network, one step after the other: a name, a connection, a handshake, a page. Each has a
//! word of its own when it fails, and all together a limit. A token goes to whoever has proven who it is, or is on this
//! machine, and to nobody else: `Site::get` alone writes one.

use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use serde_json::Value;
use tollgate_config::{UpstreamProtocol, UpstreamTls};
use tollgate_engine::net::tls::ClientTls;
use tollgate_engine::net::tls::look::{Looked, Unverified};

use super::finding::Finding;
use super::parallel;
use super::times;
use crate::client::{Answer, Client};
use crate::desk::Token;
use crate::secure::Stream;

/// When somebody gives up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience(Instant);

impl Patience {
    pub(super) fn of(time: Duration) -> Patience {
        Patience(Instant::now() + time)
    }

    /// One of so many equal parts of what is left, so that the first who does not answer takes no time from the others.
    pub(super) fn part(self, of: usize) -> Patience {
        let of = u32::try_from(of.max(1)).unwrap_or(u32::MAX);
        Patience::of(self.left() / of)
    }

    /// Each with its part of what is left when it is its turn.
    pub(super) fn among<T>(self, all: &[T]) -> impl Iterator<Item = (&T, Patience)> {
        let count = all.len();
        let all = all.iter().enumerate();
        all.map(move |(number, one)| (one, self.part(count - number)))
    }

    /// Never nothing: a socket takes no zero.
    pub(super) fn left(self) -> Duration {
        let left = self.0.saturating_duration_since(Instant::now());
        left.max(Duration::from_millis(1))
    }
}

/// Somebody who speaks HTTP.
#[derive(Debug, Clone)]
pub(super) struct Target {
    /// As it is written.
    pub(super) url: String,
    /// `host:port`.
    pub(super) authority: String,
    /// Whom to trust, for https.
    pub(super) tls: Option<UpstreamTls>,
    /// The line that names it.
    pub(super) place: Option<String>,
    /// Nobody named it: it is where such a one usually is.
    pub(super) is_guess: bool,
}

/// How it is spoken to.
enum Way {
    Clear,
    Verified(Box<ClientTls>),
    /// Its certificate is no good, and what is asked for all the same is for everybody.
    Unverified,
}

/// A target that was reached.
pub(super) struct Site {
    pub(super) target: Target,
    pub(super) address: SocketAddr,
    way: Way,
    token: Option<Token>,
    patience: Patience,
}

/// What a page answered.
pub(super) enum Page {
    Good(Value),
    /// 401 or 403, in its words.
    Denied(String),
    Bad(String),
}

/// The addresses of `host:port`.
pub(super) fn resolve(authority: &str, patience: Patience) -> Result<Vec<SocketAddr>, String> {
    let name = authority.to_owned();
    let asked = parallel::one(patience.left(), move || {
        name.to_socket_addrs().map(Iterator::collect::<Vec<_>>)
    });
    match asked {
        None => Err("nobody answered in time who knows the name".to_owned()),
        Some(Err(error)) => Err(error.to_string()),
        Some(Ok(addresses)) if addresses.is_empty() => Err("the name has no address".to_owned()),
        Some(Ok(addresses)) => Ok(addresses),
    }
}

/// The first that takes a connection.
pub(super) fn connect(
    addresses: &[SocketAddr],
    patience: Patience,
) -> Result<(TcpStream, SocketAddr), String> {
    let mut refusals = Vec::new();
    for (address, part) in patience.among(addresses) {
        match TcpStream::connect_timeout(address, part.left()) {
            Ok(socket) => {
                bound(&socket, patience).map_err(|error| error.to_string())?;
                return Ok((socket, *address));
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                refusals.push(format!(
                    "{address} refuses connections: nobody listens there"
                ));
            }
            Err(error) if error.kind() == io::ErrorKind::TimedOut => refusals.push(format!(
                "{address} does not answer: something on the way drops it, or the machine is gone"
            )),
            Err(error) => refusals.push(format!("{address}: {error}")),
        }
    }
    Err(refusals.join("; "))
}

fn bound(socket: &TcpStream, patience: Patience) -> io::Result<()> {
    socket.set_read_timeout(Some(patience.left()))?;
    socket.set_write_timeout(Some(patience.left()))?;
    socket.set_nodelay(true)
}

impl Target {
    /// Goes there. Whatever is wrong on the way is told; `None`: there is no way.
    pub(super) fn reach(
        &self,
        token: Option<&Token>,
        patience: Patience,
    ) -> (Option<Site>, Vec<Finding>) {
        let stop = |step: &str, why: String, next: &str| {
            let what = format!("{} ({step})", self.url);
            let found = Finding::problem(what, why, next).at(self.place.clone());
            (None, vec![found])
        };
        let addresses = match resolve(&self.authority, patience) {
            Ok(addresses) => addresses,
            Err(why) => {
                let next = "look whether the name is right, and whether this machine's resolver knows it (/etc/resolv.conf)";
                return stop("DNS", why, next);
            }
        };
        let (socket, address) = match connect(&addresses, patience) {
            Ok(connected) => connected,
            Err(why) => {
                let next = "start what should listen there, or name where it listens; else look for a firewall between";
                return stop("TCP", why, next);
            }
        };
        let mut site = Site {
            target: self.clone(),
            address,
            way: Way::Clear,
            token: token.cloned(),
            patience,
        };
        let Some(files) = &self.tls else {
            return (Some(site), Vec::new());
        };
        match self.verified(files, socket) {
            Ok(tls) => {
                site.way = Way::Verified(Box::new(tls));
                (Some(site), Vec::new())
            }
            Err(why) => {
                site.way = Way::Unverified;
                let (found, speaks) = site.unverified(&why);
                (speaks.then_some(site), vec![found.at(self.place.clone())])
            }
        }
    }

    fn verified(&self, files: &UpstreamTls, socket: TcpStream) -> Result<ClientTls, String> {
        let tls = ClientTls::load(files, UpstreamProtocol::Http1).map_err(|why| why.to_string())?;
        Stream::secured(&tls, &self.authority, socket).map_err(|error| error.to_string())?;
        Ok(tls)
    }
}

pub(super) fn host(authority: &str) -> &str {
    authority
        .rsplit_once(':')
        .map_or(authority, |(host, _)| host)
}

impl Site {
    /// What is shown by somebody who could not be verified; whether it speaks TLS at all.
    fn unverified(&self, why: &str) -> (Finding, bool) {
        let what = format!("{} (TLS)", self.target.url);
        let shown = connect(&[self.address], self.patience).and_then(|(socket, _)| {
            Unverified::connect(socket, host(&self.target.authority), &[b"http/1.1"])
                .map_err(|error| error.to_string())
        });
        let chain = match shown {
            Ok(met) => met.chain,
            Err(other) => {
                let next = "write http:// where it speaks clear text, or look at its log";
                return (
                    Finding::problem(what, format!("{why}; {other}"), next),
                    false,
                );
            }
        };
        let looked = chain.first().map(Looked::at);
        let Some(Ok(looked)) = looked else {
            return (Finding::problem(what, why, "give it a certificate"), true);
        };
        let now = times::now();
        let (cause, next) = if looked.not_after < now {
            let since = times::span_words(now - looked.not_after);
            (
                format!("its certificate expired {since} ago"),
                "renew it: the control plane takes a new file by itself; then look at both clocks",
            )
        } else if looked.not_before > now {
            let until = times::span_words(looked.not_before - now);
            (
                format!("its certificate is valid only in {until}"),
                "look at both clocks",
            )
        } else {
            (
                format!("it was signed by `{}`", looked.issuer),
                "name the authority that signed it: --ca, or `[control_plane] tls = { ca = \"…\" }`; and ask for it by a name that it is for",
            )
        };
        let why = format!(
            "{why}: {cause} (it is for {}); what follows was asked without knowing who answers, and without a token",
            looked.names.join(", ")
        );
        (Finding::problem(what, why, next), true)
    }

    /// Whether it is known who is there.
    pub(super) fn is_verified(&self) -> bool {
        matches!(self.way, Way::Verified(_))
    }

    /// How it is spoken to, in words.
    pub(super) fn way(&self) -> &'static str {
        match self.way {
            Way::Clear => "clear text",
            Way::Verified(_) => "TLS",
            Way::Unverified => "TLS, not verified",
        }
    }

    /// Whoever listens on the way could keep a token, or whoever answers.
    fn may_have_token(&self) -> bool {
        self.is_verified()
            || (matches!(self.way, Way::Clear) && self.address.ip().to_canonical().is_loopback())
    }

    /// Whether there is a token, and it is not shown.
    pub(super) fn keeps_token(&self) -> bool {
        self.token.is_some() && !self.may_have_token()
    }

    fn stream(&self) -> Result<Stream, String> {
        let (socket, _) = connect(&[self.address], self.patience)?;
        let authority = &self.target.authority;
        let stream = match &self.way {
            Way::Clear => Ok(Stream::Plain(socket)),
            Way::Verified(tls) => Stream::secured(tls, authority, socket),
            Way::Unverified => Unverified::connect(socket, host(authority), &[b"http/1.1"])
                .map(|met| Stream::Unverified(Box::new(met))),
        };
        stream.map_err(|error| error.to_string())
    }

    /// One page, whatever its status. The only place that shows a token.
    pub(super) fn get(&self, path: &str) -> Result<Answer, String> {
        self.send("GET", path, "")
    }

    pub(super) fn send(&self, method: &str, path: &str, body: &str) -> Result<Answer, String> {
        let token = self.token.as_ref().filter(|_| self.may_have_token());
        let fields = token.map(Token::field).unwrap_or_default();
        let mut client = Client::over(&self.target.authority, self.stream()?);
        client
            .send_with(&fields, method, path, body)
            .map_err(|error| error.to_string())
    }

    pub(super) fn page(&self, path: &str) -> Page {
        self.answered("GET", path, "")
    }

    pub(super) fn answered(&self, method: &str, path: &str, body: &str) -> Page {
        let answer = match self.send(method, path, body) {
            Ok(answer) => answer,
            Err(why) => return Page::Bad(format!("{path} was not answered: {why}")),
        };
        let value: Option<Value> = serde_json::from_slice(&answer.body).ok();
        let title = { value.as_ref() }.and_then(|value| value["title"].as_str());
        let title = title.map(str::to_owned);
        match (answer.status, value) {
            (200..300, Some(value)) => Page::Good(value),
            (401 | 403, _) => Page::Denied(title.unwrap_or_default()),
            (status, _) => {
                let title = title.map(|title| format!(": {title}")).unwrap_or_default();
                Page::Bad(format!("{path} was answered {status}{title}"))
            }
        }
    }
}
