//! A connection to one member of the cluster, with a bound on how long it may take for an answer. Which member, and
//! what to do when it does not answer, is decided elsewhere.
//!
//! One connection to one member at a time, and not the client's own balancing: a member that is stopped, cut off or
//! without a leader has to be left at once, whatever else is in flight.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tollgate_config::control_plane::{Etcd as Settings, StoreTls};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status, Streaming};

use super::wire::auth_client::AuthClient;
use super::wire::kv_client::KvClient;
use super::wire::lease_client::LeaseClient;
use super::wire::range_request::SortOrder;
use super::wire::watch_client::WatchClient;
use super::wire::watch_request::RequestUnion;
use super::wire::{
    AuthenticateRequest, KeyValue, LeaseGrantRequest, LeaseKeepAliveRequest,
    LeaseKeepAliveResponse, LeaseRevokeRequest, PutRequest, RangeRequest, RangeResponse,
    TxnRequest, TxnResponse, WatchCreateRequest, WatchRequest, WatchResponse, end_of, revision,
};

/// Bytes of one answer: everything below a short prefix, or five values of a log.
const MOST_ANSWER: usize = 64 << 20;

/// What a member is asked with, read once.
#[derive(Clone)]
pub(super) struct Credentials {
    user: Option<(String, String)>,
    tls: Option<ClientTlsConfig>,
}

/// Why a member is not asked any longer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// It does not answer, or says that it cannot; another may.
    Away(String),
    /// It answers that what we ask makes no sense to it. Nothing was done.
    Refused(String),
    /// What stands there is not what we wrote.
    Wrong(String),
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Fault::Away(why) | Fault::Refused(why) | Fault::Wrong(why)) = self;
        f.write_str(why)
    }
}

impl From<Status> for Fault {
    fn from(status: Status) -> Fault {
        match status.code() {
            // Said by a member that works.
            Code::InvalidArgument
            | Code::PermissionDenied
            | Code::ResourceExhausted
            | Code::FailedPrecondition => Fault::Refused(status.message().to_owned()),
            // A token ends by itself; the next connection asks for another one.
            _ => Fault::Away(causes(status.message(), &status)),
        }
    }
}

impl From<tonic::transport::Error> for Fault {
    fn from(error: tonic::transport::Error) -> Fault {
        Fault::Away(causes(&error.to_string(), &error))
    }
}

/// The cause of causes is the one that says something.
fn causes(first: &str, error: &dyn std::error::Error) -> String {
    let mut why = first.to_owned();
    let mut source = error.source();
    while let Some(deeper) = source {
        why = format!("{why}: {deeper}");
        source = deeper.source();
    }
    why
}

impl Credentials {
    pub(super) fn read(settings: &Settings) -> Result<Credentials, String> {
        let tls = settings.tls.as_ref().map(tls).transpose()?;
        let user = settings.user.as_ref();
        Ok(Credentials {
            user: user.map(|user| (user.name.clone(), user.password.clone())),
            tls,
        })
    }
}

impl Credentials {
    /// Connects; a member that takes users is told who we are.
    pub(super) async fn open(&self, url: &str, patience: Duration) -> Result<Connection, Fault> {
        let mut endpoint = Endpoint::from_shared(url.to_owned())?
            .connect_timeout(patience)
            .http2_keep_alive_interval(patience)
            .keep_alive_timeout(patience)
            .keep_alive_while_idle(true);
        if let Some(tls) = &self.tls {
            endpoint = endpoint.tls_config(tls.clone())?;
        }
        let channel = endpoint.connect().await?;
        let mut words = Words { token: None };
        if let Some((name, password)) = &self.user {
            let asked = AuthenticateRequest {
                name: name.clone(),
                password: password.clone(),
            };
            let answer = AuthClient::new(channel.clone()).authenticate(asked).await?;
            let token = MetadataValue::try_from(answer.into_inner().token);
            words.token = Some(token.map_err(|_| Fault::Wrong("the token is no text".to_owned()))?);
        }
        Ok(InterceptedService::new(channel, words))
    }
}

/// A connection that says with every call who calls.
pub(super) type Connection = InterceptedService<Channel, Words>;

/// What goes with every call.
#[derive(Clone)]
pub(super) struct Words {
    token: Option<MetadataValue<Ascii>>,
}

impl Interceptor for Words {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let words = request.metadata_mut();
        // A member that is cut off from the others says so instead of waiting.
        words.insert("hasleader", MetadataValue::from_static("true"));
        if let Some(token) = &self.token {
            words.insert("token", token.clone());
        }
        Ok(request)
    }
}

fn tls(settings: &StoreTls) -> Result<ClientTlsConfig, String> {
    let read = |path: &std::path::Path| {
        std::fs::read(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))
    };
    let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(&settings.ca)?));
    if let Some((certificate, key)) = &settings.identity {
        tls = tls.identity(Identity::from_pem(read(certificate)?, read(key)?));
    }
    if let Some(name) = &settings.name {
        tls = tls.domain_name(name);
    }
    Ok(tls)
}

pub(super) struct Link {
    keys: KvClient<Connection>,
    leases: LeaseClient<Connection>,
    watches: WatchClient<Connection>,
    patience: Duration,
    keeper: Option<Keeper>,
}

/// The stream that keeps one lease alive; its end ends the stream.
struct Keeper {
    lease: i64,
    asking: mpsc::UnboundedSender<LeaseKeepAliveRequest>,
    answers: Streaming<LeaseKeepAliveResponse>,
}

/// A key with what etcd knows of it.
#[derive(Debug, Clone)]
pub(super) struct Pair {
    pub(super) key: Vec<u8>,
    pub(super) value: Vec<u8>,
    pub(super) created: i64,
    pub(super) modified: i64,
    pub(super) lease: i64,
}

impl From<KeyValue> for Pair {
    fn from(pair: KeyValue) -> Pair {
        Pair {
            key: pair.key,
            value: pair.value,
            created: pair.create_revision,
            modified: pair.mod_revision,
            lease: pair.lease,
        }
    }
}

/// What was found, and etcd's revision at which that is so.
pub(super) struct Found {
    pub(super) pairs: Vec<Pair>,
    pub(super) at: i64,
}

impl From<RangeResponse> for Found {
    fn from(response: RangeResponse) -> Found {
        Found {
            at: revision(response.header.as_ref()),
            pairs: response.kvs.into_iter().map(Pair::from).collect(),
        }
    }
}

impl Link {
    pub(super) async fn open(
        url: &str,
        credentials: &Credentials,
        patience: Duration,
    ) -> Result<Link, Fault> {
        let connection = within(patience, credentials.open(url, patience)).await?;
        Ok(Link {
            keys: KvClient::new(connection.clone()).max_decoding_message_size(MOST_ANSWER),
            leases: LeaseClient::new(connection.clone()),
            watches: WatchClient::new(connection).max_decoding_message_size(MOST_ANSWER),
            patience,
            keeper: None,
        })
    }

    /// All keys that begin so, as the majority has them.
    pub(super) async fn below(&mut self, prefix: &str) -> Result<Found, Fault> {
        let range = RangeRequest {
            key: prefix.into(),
            range_end: end_of(prefix),
            ..RangeRequest::default()
        };
        Ok(self.range(range).await?.into())
    }

    pub(super) async fn one(&mut self, key: &str) -> Result<Found, Fault> {
        let range = RangeRequest {
            key: key.into(),
            ..RangeRequest::default()
        };
        Ok(self.range(range).await?.into())
    }

    /// The keys from one to another (without it), a few at a time: each may be large. All as they were at `at`.
    pub(super) async fn span(&mut self, from: &str, to: &str, at: i64) -> Result<Vec<Pair>, Fault> {
        let mut found: Vec<Pair> = Vec::new();
        let mut next = from.as_bytes().to_vec();
        loop {
            let range = RangeRequest {
                key: next,
                range_end: to.into(),
                limit: 5,
                revision: at,
                sort_order: SortOrder::Ascend.into(),
            };
            let response = self.range(range).await?;
            let more = response.more;
            found.extend(response.kvs.into_iter().map(Pair::from));
            match found.last() {
                Some(last) if more => {
                    next = last.key.clone();
                    next.push(0);
                }
                _ => return Ok(found),
            }
        }
    }

    async fn range(&mut self, range: RangeRequest) -> Result<RangeResponse, Fault> {
        Ok(within(self.patience, self.keys.range(range))
            .await?
            .into_inner())
    }

    pub(super) async fn transaction(&mut self, txn: TxnRequest) -> Result<TxnResponse, Fault> {
        Ok(within(self.patience, self.keys.txn(txn))
            .await?
            .into_inner())
    }

    pub(super) async fn put(
        &mut self,
        key: String,
        value: Vec<u8>,
        lease: i64,
    ) -> Result<(), Fault> {
        let put = PutRequest {
            key: key.into(),
            value,
            lease,
        };
        within(self.patience, self.keys.put(put)).await.map(drop)
    }

    pub(super) async fn grant(&mut self, time: Duration) -> Result<i64, Fault> {
        let ttl = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        let granting = self.leases.lease_grant(LeaseGrantRequest { ttl });
        let granted = within(self.patience, granting).await?.into_inner();
        match granted.error.is_empty() {
            true => Ok(granted.id),
            false => Err(Fault::Refused(granted.error)),
        }
    }

    /// Whether the lease still lives, and then it does for its whole time.
    pub(super) async fn keep_alive(&mut self, lease: i64) -> Result<bool, Fault> {
        let patience = self.patience;
        within(patience, async {
            let mut keeper = match self.keeper.take() {
                Some(keeper) if keeper.lease == lease => {
                    let gone = || Fault::Away("the lease's stream ended".to_owned());
                    let asked = keeper.asking.send(LeaseKeepAliveRequest { id: lease });
                    asked.map_err(|_| gone())?;
                    keeper
                }
                _ => self.keeper_of(lease).await?,
            };
            let Some(answer) = keeper.answers.message().await? else {
                return Err(Fault::Away("the lease's stream ended".to_owned()));
            };
            // One that was not waited for to its end is not asked again: its answers would be those of before.
            self.keeper = Some(keeper);
            Ok(answer.ttl > 0)
        })
        .await
    }

    /// Opens the stream, and asks the first time: a member begins to answer when it has heard something.
    async fn keeper_of(&mut self, lease: i64) -> Result<Keeper, Fault> {
        let (asking, asked) = mpsc::unbounded_channel();
        let first = tokio_stream::once(LeaseKeepAliveRequest { id: lease });
        let stream = first.chain(UnboundedReceiverStream::new(asked));
        let answers = self.leases.lease_keep_alive(stream).await?.into_inner();
        Ok(Keeper {
            lease,
            asking,
            answers,
        })
    }

    pub(super) async fn revoke(&mut self, lease: i64) -> Result<(), Fault> {
        let revoking = self.leases.lease_revoke(LeaseRevokeRequest { id: lease });
        within(self.patience, revoking).await.map(drop)
    }

    /// Changes below the prefix from this revision on, until it is dropped.
    pub(super) async fn watch(
        &mut self,
        prefix: &str,
        from: i64,
    ) -> Result<Streaming<WatchResponse>, Fault> {
        let create = WatchCreateRequest {
            key: prefix.into(),
            range_end: end_of(prefix),
            start_revision: from,
        };
        let request = WatchRequest {
            request_union: Some(RequestUnion::CreateRequest(create)),
        };
        // The request stays open for as long as answers are wanted.
        let stream = tokio_stream::once(request).chain(tokio_stream::pending());
        within(self.patience, async {
            let mut answers = self.watches.watch(stream).await?.into_inner();
            // The first answer says that it watches.
            match answers.message().await? {
                Some(first) if first.created && !first.canceled => Ok(answers),
                Some(first) => Err(Fault::Away(format!(
                    "the watch was refused: {}",
                    first.cancel_reason
                ))),
                None => Err(Fault::Away("the watch ended".to_owned())),
            }
        })
        .await
    }
}

async fn within<T, E: Into<Fault>>(
    patience: Duration,
    asking: impl Future<Output = Result<T, E>>,
) -> Result<T, Fault> {
    match tokio::time::timeout(patience, asking).await {
        Ok(answer) => answer.map_err(Into::into),
        Err(_) => Err(Fault::Away(format!(
            "it did not answer within {} ms",
            patience.as_millis()
        ))),
    }
}
