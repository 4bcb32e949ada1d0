//! One connection to a store, made when it is first needed and again after every failure. One question at a time; the
//! answer comes within the time-out, or the connection is given up: what it still says would answer another question.

use std::fmt;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tollgate_config::document::{UpstreamProtocol, UpstreamTls};
use tollgate_config::{At, Sharing, StoreUrl};

use super::resp::{self, Value};
use crate::filter::rate_limit::lease::lender::{Ask, Grant, Lender, Lent, Slice, Told};
use crate::net::stream::Stream;
use crate::net::tls::ClientTls;

const LEASE: &str = include_str!("lease.lua");
const GREET: &str = include_str!("greet.lua");
/// Who has not greeted for so long is not counted.
const HERE: Duration = Duration::from_secs(10);
/// What a store says of its failure is told up to here.
const TOLD: usize = 120;

pub(crate) struct Link {
    url: StoreUrl,
    sharing: Sharing,
    /// Who we are to the store.
    name: String,
    connection: Option<Connection>,
}

struct Connection {
    stream: Stream,
    read: Vec<u8>,
    /// The scripts' names there.
    lease: Vec<u8>,
    greet: Vec<u8>,
}

#[derive(Clone, Copy)]
enum Script {
    Lease,
    Greet,
}

/// Why a store cannot be used, for operators. Bears no secret: neither what we sent nor the URL is in it.
#[derive(Debug)]
pub(crate) enum Failure {
    Io(std::io::Error),
    Late(Duration),
    Tls(String),
    /// In its own words.
    Refused(String),
    Nonsense,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Io(error) => error.fmt(f),
            Failure::Late(after) => write!(f, "no answer within {} ms", after.as_millis()),
            Failure::Tls(error) => f.write_str(error),
            Failure::Refused(words) => {
                let told: String = words.chars().take(TOLD).collect();
                write!(f, "the store refuses: {told}")?;
                if words.starts_with("MOVED") || words.starts_with("ASK") {
                    f.write_str(" (a cluster; name a server that is not part of one)")?;
                }
                Ok(())
            }
            Failure::Nonsense => f.write_str("what answers is not a store that we understand"),
        }
    }
}

impl Failure {
    /// Some stores repeat the command that they do not like.
    fn without(self, secret: &str) -> Self {
        match self {
            Failure::Refused(words) if words.contains(secret) => {
                Failure::Refused(words.replace(secret, "…"))
            }
            other => other,
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Failure::Io(error)
    }
}

impl Link {
    /// `name`: differs from that of every other gateway.
    pub(crate) fn new(url: StoreUrl, sharing: Sharing, name: String) -> Self {
        Link {
            url,
            sharing,
            name,
            connection: None,
        }
    }

    /// Runs a script; connects first where there is no connection.
    async fn run(
        &mut self,
        script: Script,
        keys: &[Vec<u8>],
        arguments: &[String],
    ) -> Result<Value, Failure> {
        let within = self.sharing.timeout;
        let asked = async {
            let mut connection = match self.connection.take() {
                Some(connection) => connection,
                None => Connection::make(&self.url, &self.sharing).await?,
            };
            let count = keys.len().to_string();
            let name = match script {
                Script::Lease => connection.lease.clone(),
                Script::Greet => connection.greet.clone(),
            };
            let mut words: Vec<&[u8]> = vec![b"EVALSHA", &name, count.as_bytes()];
            words.extend(keys.iter().map(Vec::as_slice));
            words.extend(arguments.iter().map(String::as_bytes));
            let value = connection.ask(&words).await?;
            Ok((connection, value))
        };
        // Dropped when it is late: the connection goes with it.
        let (connection, value) = tokio::time::timeout(within, asked)
            .await
            .unwrap_or(Err(Failure::Late(within)))?;
        self.connection = Some(connection);
        Ok(value)
    }
}

impl Link {
    async fn slice(&mut self, slice: &Slice) -> Result<Vec<Grant>, Failure> {
        // The braces keep the keys of one limit together where keys are spread by what is between them.
        let key = |ask: &Ask| {
            format!(
                "tollgate:1:{{{}}}:{:014x}",
                slice.limit,
                ask.key.hash() >> 8
            )
            .into_bytes()
        };
        let keys: Vec<Vec<u8>> = slice.asks.iter().map(key).collect();
        let mut arguments = vec![
            slice.rate.count.to_string(),
            slice.rate.per.as_micros().to_string(),
            slice.burst.to_string(),
        ];
        for ask in &slice.asks {
            arguments.push(ask.want.to_string());
            arguments.push(ask.debit.to_string());
        }
        let value = self.run(Script::Lease, &keys, &arguments).await?;
        let grants = grants(&value, slice.asks.len());
        if grants.is_none() {
            self.connection = None;
        }
        grants.ok_or(Failure::Nonsense)
    }
}

impl Lender for Link {
    type Failure = Failure;

    /// A script is about the keys of one limit.
    const SLICES: usize = 1;

    async fn lend(&mut self, slices: &[Slice]) -> Result<Lent, Failure> {
        let mut grants = Vec::with_capacity(slices.len());
        for slice in slices {
            grants.push(self.slice(slice).await?);
        }
        Ok(Lent { told: None, grants })
    }

    async fn greet(&mut self) -> Result<Told, Failure> {
        let keys = [b"tollgate:1:gateways".to_vec()];
        let arguments = [self.name.clone(), HERE.as_millis().to_string()];
        match self.run(Script::Greet, &keys, &arguments).await? {
            Value::Number(count) if (1..=1_000_000).contains(&count) => Ok(Told {
                gateways: u32::try_from(count).unwrap_or(1),
                // Nobody looks after what a gateway holds.
                lapsed: false,
                lender: None,
            }),
            _ => {
                self.connection = None;
                Err(Failure::Nonsense)
            }
        }
    }
}

/// Two numbers for each ask.
fn grants(value: &Value, asks: usize) -> Option<Vec<Grant>> {
    let Value::List(values) = value else {
        return None;
    };
    if values.len() != 2 * asks {
        return None;
    }
    let grant = |pair: &[Value]| match pair {
        [Value::Number(tokens), Value::Number(left)] => Some(Grant {
            tokens: u64::try_from(*tokens).ok()?,
            left: *left,
        }),
        _ => None,
    };
    values.chunks(2).map(grant).collect()
}

impl Connection {
    /// Connects, says who we are, and brings the scripts.
    async fn make(url: &StoreUrl, sharing: &Sharing) -> Result<Self, Failure> {
        let socket = TcpStream::connect((url.host.as_str(), url.port)).await?;
        socket.set_nodelay(true)?;
        let stream = if url.tls {
            let tls = UpstreamTls {
                ca: sharing.ca.clone(),
                name: None,
                cert: None,
                key: None,
                at: At(None),
            };
            let failed = |error: &dyn fmt::Display| Failure::Tls(error.to_string());
            let tls =
                ClientTls::load(&tls, UpstreamProtocol::Http1).map_err(|error| failed(&error))?;
            let name = tls.server_name(&url.host).map_err(|error| failed(&error))?;
            let mut config = rustls::ClientConfig::clone(tls.config());
            config.alpn_protocols.clear();
            let connector = TlsConnector::from(std::sync::Arc::new(config));
            Stream::Client(Box::new(connector.connect(name, socket).await?))
        } else {
            Stream::Plain(socket)
        };
        let mut connection = Connection {
            stream,
            read: Vec::new(),
            lease: Vec::new(),
            greet: Vec::new(),
        };
        match (&url.user, &url.password) {
            (Some(user), Some(password)) => {
                let words = [b"AUTH", user.as_bytes(), password.as_bytes()];
                let asked = connection.ask(&words).await;
                asked.map_err(|failure| failure.without(password))?;
            }
            (_, Some(password)) => {
                let asked = connection.ask(&[b"AUTH", password.as_bytes()]).await;
                asked.map_err(|failure| failure.without(password))?;
            }
            _ => {}
        }
        if url.database != 0 {
            let database = url.database.to_string();
            connection.ask(&[b"SELECT", database.as_bytes()]).await?;
        }
        connection.lease = connection.load(LEASE).await?;
        connection.greet = connection.load(GREET).await?;
        Ok(connection)
    }

    async fn load(&mut self, script: &str) -> Result<Vec<u8>, Failure> {
        match self.ask(&[b"SCRIPT", b"LOAD", script.as_bytes()]).await? {
            Value::Text(name) => Ok(name),
            _ => Err(Failure::Nonsense),
        }
    }

    async fn ask(&mut self, words: &[&[u8]]) -> Result<Value, Failure> {
        let mut bytes = Vec::with_capacity(1024);
        resp::command(&mut bytes, words);
        self.stream.write_all(&bytes).await?;
        self.stream.flush().await?;
        loop {
            match resp::answer(&self.read) {
                Err(resp::Nonsense) => return Err(Failure::Nonsense),
                Ok(Some((value, length))) => {
                    // An answer to nothing would be taken for the answer to what comes next.
                    if length != self.read.len() {
                        return Err(Failure::Nonsense);
                    }
                    self.read.clear();
                    return match value {
                        Value::Error(words) => Err(Failure::Refused(words)),
                        value => Ok(value),
                    };
                }
                Ok(None) => {
                    let mut buffer = [0; 4096];
                    let count = self.stream.read(&mut buffer).await?;
                    if count == 0 {
                        return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
                    }
                    self.read.extend_from_slice(&buffer[..count]);
                }
            }
        }
    }
}
