//! A connection to one member of the cluster, with a bound on how long it may take for an answer. Which member, and
//! what to do when it does not answer, is decided elsewhere.
//!
//! One connection to one member at a time, and not the client's own balancing: a member that is stopped, cut off or
//! without a leader has to be left at once, whatever else is in flight.

use std::time::Duration;

use etcd_client::{
    Certificate, Client, ConnectOptions, Error, GetOptions, GetResponse, Identity,
    LeaseKeepAliveStream, LeaseKeeper, PutOptions, SortOrder, SortTarget, TlsOptions, Txn,
    TxnResponse, WatchOptions, WatchStream,
};
use tollgate_config::control_plane::{Etcd as Settings, EtcdTls};

/// What a member is asked with, read once.
#[derive(Clone)]
pub(super) struct Credentials {
    user: Option<(String, String)>,
    tls: Option<TlsOptions>,
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

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        match &error {
            // InvalidArgument, PermissionDenied, ResourceExhausted, FailedPrecondition, Unauthenticated: said by a
            // member that works.
            Error::GRpcStatus(status) if [3, 7, 8, 9, 16].contains(&i32::from(status.code())) => {
                Fault::Refused(status.message().to_owned())
            }
            Error::GRpcStatus(status) => Fault::Away(causes(status.message(), status)),
            Error::TransportError(transport) => Fault::Away(causes(&error.to_string(), transport)),
            _ => Fault::Away(error.to_string()),
        }
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
    fn options(&self, patience: Duration) -> ConnectOptions {
        let mut options = ConnectOptions::new()
            .with_connect_timeout(patience)
            .with_keep_alive(patience, patience)
            .with_keep_alive_while_idle(true)
            // A member that is cut off from the others says so instead of waiting.
            .with_require_leader(true);
        if let Some((name, password)) = &self.user {
            options = options
                .with_user(name, password)
                .with_auto_token_refresh(true);
        }
        if let Some(tls) = &self.tls {
            options = options.with_tls(tls.clone());
        }
        options
    }

    #[cfg(test)]
    pub(super) async fn client(&self, url: &str) -> Result<Client, Error> {
        Client::connect([url], Some(self.options(Duration::from_secs(5)))).await
    }
}

fn tls(settings: &EtcdTls) -> Result<TlsOptions, String> {
    let read = |path: &std::path::Path| {
        std::fs::read(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))
    };
    let mut tls = TlsOptions::new().ca_certificate(Certificate::from_pem(read(&settings.ca)?));
    if let Some((certificate, key)) = &settings.identity {
        tls = tls.identity(Identity::from_pem(read(certificate)?, read(key)?));
    }
    if let Some(name) = &settings.name {
        tls = tls.domain_name(name);
    }
    Ok(tls)
}

pub(super) struct Link {
    client: Client,
    patience: Duration,
    keeper: Option<(i64, LeaseKeeper, LeaseKeepAliveStream)>,
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

impl From<&etcd_client::KeyValue> for Pair {
    fn from(pair: &etcd_client::KeyValue) -> Pair {
        Pair {
            key: pair.key().to_vec(),
            value: pair.value().to_vec(),
            created: pair.create_revision(),
            modified: pair.mod_revision(),
            lease: pair.lease(),
        }
    }
}

/// What was found, and etcd's revision at which that is so.
pub(super) struct Found {
    pub(super) pairs: Vec<Pair>,
    pub(super) at: i64,
}

impl From<GetResponse> for Found {
    fn from(response: GetResponse) -> Found {
        Found {
            pairs: response.kvs().iter().map(Pair::from).collect(),
            at: response.header().map_or(0, |header| header.revision()),
        }
    }
}

impl Link {
    pub(super) async fn open(
        url: &str,
        credentials: &Credentials,
        patience: Duration,
    ) -> Result<Link, Fault> {
        let opening = Client::connect([url], Some(credentials.options(patience)));
        Ok(Link {
            client: within(patience, opening).await?,
            patience,
            keeper: None,
        })
    }

    /// All keys that begin so, as the majority has them.
    pub(super) async fn below(&mut self, prefix: &str) -> Result<Found, Fault> {
        let options = GetOptions::new().with_prefix();
        let getting = self.client.get(prefix, Some(options));
        Ok(within(self.patience, getting).await?.into())
    }

    pub(super) async fn one(&mut self, key: &str) -> Result<Found, Fault> {
        let getting = self.client.get(key, None);
        Ok(within(self.patience, getting).await?.into())
    }

    /// The keys from one to another (without it), a few at a time: each may be large. All as they were at `at`.
    pub(super) async fn span(&mut self, from: &str, to: &str, at: i64) -> Result<Vec<Pair>, Fault> {
        let mut found = Vec::new();
        let mut next = from.as_bytes().to_vec();
        loop {
            let options = GetOptions::new()
                .with_range(to)
                .with_sort(SortTarget::Key, SortOrder::Ascend)
                .with_limit(5)
                .with_revision(at);
            let getting = self.client.get(next, Some(options));
            let response = within(self.patience, getting).await?;
            found.extend(response.kvs().iter().map(Pair::from));
            match response.kvs().last() {
                Some(last) if response.more() => {
                    next = last.key().to_vec();
                    next.push(0);
                }
                _ => return Ok(found),
            }
        }
    }

    pub(super) async fn transaction(&mut self, transaction: Txn) -> Result<TxnResponse, Fault> {
        let sending = self.client.txn(transaction);
        within(self.patience, sending).await
    }

    pub(super) async fn put(
        &mut self,
        key: String,
        value: Vec<u8>,
        lease: i64,
    ) -> Result<(), Fault> {
        let options = PutOptions::new().with_lease(lease);
        let putting = self.client.put(key, value, Some(options));
        within(self.patience, putting).await.map(drop)
    }

    pub(super) async fn grant(&mut self, time: Duration) -> Result<i64, Fault> {
        let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        let granting = self.client.lease_grant(seconds, None);
        Ok(within(self.patience, granting).await?.id())
    }

    /// Whether the lease still lives, and then it does for its whole time.
    pub(super) async fn keep_alive(&mut self, lease: i64) -> Result<bool, Fault> {
        if self.keeper.as_ref().is_none_or(|(id, ..)| *id != lease) {
            let opening = self.client.lease_keep_alive(lease);
            let (keeper, answers) = match within(self.patience, opening).await {
                Ok(opened) => opened,
                // The client looks at the first answer by itself, and calls a lease that is over an error of its own.
                Err(Fault::Away(why)) if why.contains("lease not found") => return Ok(false),
                Err(error) => return Err(error),
            };
            self.keeper = Some((lease, keeper, answers));
        }
        let Some((_, keeper, answers)) = &mut self.keeper else {
            return Ok(false);
        };
        let asking = async {
            keeper.keep_alive().await?;
            answers.message().await
        };
        match within(self.patience, asking).await? {
            Some(answer) => Ok(answer.ttl() > 0),
            None => Err(Fault::Away("the lease's stream ended".to_owned())),
        }
    }

    pub(super) async fn revoke(&mut self, lease: i64) -> Result<(), Fault> {
        let revoking = self.client.lease_revoke(lease);
        within(self.patience, revoking).await.map(drop)
    }

    /// Changes below the prefix from this revision on.
    pub(super) async fn watch(&mut self, prefix: &str, from: i64) -> Result<WatchStream, Fault> {
        let options = WatchOptions::new().with_prefix().with_start_revision(from);
        let watching = self.client.watch(prefix, Some(options));
        within(self.patience, watching).await
    }
}

async fn within<T>(
    patience: Duration,
    asking: impl Future<Output = Result<T, Error>>,
) -> Result<T, Fault> {
    match tokio::time::timeout(patience, asking).await {
        Ok(answer) => answer.map_err(Fault::from),
        Err(_) => Err(Fault::Away(format!(
            "it did not answer within {} ms",
            patience.as_millis()
        ))),
    }
}
