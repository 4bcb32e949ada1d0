//! Goes and looks: connects to every instance and asks what a probe would ask, many at once, each for at most five
//! seconds. Changes nothing: what is found here is no evidence for the registry.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::exchange;
use crate::registry::Record;

/// For all of one instance (CP-302).
pub const LIMIT: Duration = Duration::from_secs(5);
/// At the same time.
const AT_ONCE: usize = 32;
/// Instances of one service that are looked at.
pub const MOST: usize = 200;

/// What was found at one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Test {
    /// How long a connection took, or why there is none.
    pub connected: Result<Duration, Why>,
    /// What the probe was answered, and after how long; `None`: nobody was asked.
    pub probed: Option<Result<(u16, Duration), Why>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// Its machine says that nobody listens there.
    Refused,
    TimedOut,
    Other(String),
}

impl Why {
    fn of(error: &io::Error) -> Why {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Why::Refused,
            io::ErrorKind::TimedOut => Why::TimedOut,
            _ => Why::Other(error.to_string()),
        }
    }

    pub fn words(&self) -> String {
        match self {
            Why::Refused => "connection refused".to_owned(),
            Why::TimedOut => format!("no answer within {} s", LIMIT.as_secs()),
            Why::Other(words) => words.clone(),
        }
    }
}

/// Looks at these instances, the first `MOST` of them, by id. Ends its tasks when it is dropped.
pub async fn look(records: Vec<Arc<Record>>) -> BTreeMap<Arc<str>, Test> {
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut tasks = JoinSet::new();
    for record in records.into_iter().take(MOST) {
        let room = room.clone();
        tasks.spawn(async move {
            // Never closed.
            let place = room.acquire().await;
            let test = test(&record).await;
            drop(place);
            (record.id.clone(), test)
        });
    }
    let mut found = BTreeMap::new();
    while let Some(done) = tasks.join_next().await {
        if let Ok((id, test)) = done {
            found.insert(id, test);
        }
    }
    found
}

async fn test(record: &Record) -> Test {
    let began = Instant::now();
    let connected = tokio::time::timeout(LIMIT, TcpStream::connect(&*record.address)).await;
    let stream = match connected {
        Ok(Ok(stream)) => stream,
        failed => {
            let why = failed.map_or(Why::TimedOut, |result| match result {
                Ok(_) => Why::TimedOut,
                Err(error) => Why::of(&error),
            });
            return Test {
                connected: Err(why),
                probed: None,
            };
        }
    };
    let connected = Ok(began.elapsed());
    let protocol = record.metadata.get("protocol").map(String::as_str);
    if !matches!(protocol, None | Some("http")) {
        return Test {
            connected,
            probed: None,
        };
    }
    let asked = Instant::now();
    let left = LIMIT.saturating_sub(began.elapsed());
    let answer = {
        let asking = exchange::get(stream, &record.address, &record.health_endpoint, None);
        tokio::time::timeout(left, asking).await
    };
    let probed = match answer {
        Ok(Ok((status, _))) => Ok((status, asked.elapsed())),
        Ok(Err(words)) => Err(Why::Other(words)),
        Err(_) => Err(Why::TimedOut),
    };
    Test {
        connected,
        probed: Some(probed),
    }
}
