//! Reads the debug pages that services offer: an instance whose metadata say `debug = "PORT"` answers there, at the host
//! that it registered with. Many at once, each for a bounded time and with so many bytes; what is no JSON of the wanted
//! shape is told as such. Changes nothing.

use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::exchange;
use crate::registry::Record;

/// The metadata that names the port.
const KEY: &str = "debug";
/// At the same time.
const AT_ONCE: usize = 16;
/// Pages of one question.
const MOST: usize = 64;
/// Bytes of one page.
const MOST_BYTES: usize = 1 << 20;
/// Characters of one text.
const LONGEST: usize = 500;

/// Where a page is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub service: Arc<str>,
    pub instance: Arc<str>,
    address: String,
}

/// What was found at one place; `Ok(None)`: it has no such page, or nothing to tell.
pub type Found<T> = (Place, Result<Option<T>, String>);

impl Place {
    /// Where this instance offers its pages, if it does. Only the port is its own choice: nobody is sent elsewhere.
    pub fn of(record: &Record) -> Option<Place> {
        let port: u16 = record.metadata.get(KEY)?.parse().ok()?;
        let (host, _) = record.address.rsplit_once(':')?;
        Some(Place {
            service: record.name.clone(),
            instance: record.id.clone(),
            address: format!("{host}:{port}"),
        })
    }
}

/// Reads the same page everywhere. Ends its tasks when it is dropped.
pub async fn read<T>(places: Vec<Place>, path: &str, limit: Duration) -> Vec<Found<T>>
where
    T: DeserializeOwned + Send + 'static,
{
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let path: Arc<str> = path.into();
    let mut tasks = JoinSet::new();
    let mut found: Vec<Found<T>> = Vec::new();
    for (number, place) in places.into_iter().enumerate() {
        if number >= MOST {
            let why = format!("not asked: only {MOST} instances are");
            found.push((place, Err(why)));
            continue;
        }
        let (room, path) = (room.clone(), path.clone());
        tasks.spawn(async move {
            // Never closed.
            let _place = room.acquire().await;
            let read = tokio::time::timeout(limit, one(&place, &path)).await;
            let late = || Err(format!("no answer within `feed.answer_timeout`, {limit:?}"));
            (place, read.unwrap_or_else(|_| late()))
        });
    }
    while let Some(done) = tasks.join_next().await {
        found.extend(done);
    }
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    found
}

async fn one<T: DeserializeOwned>(place: &Place, path: &str) -> Result<Option<T>, String> {
    let stream = TcpStream::connect(&place.address)
        .await
        .map_err(|error| format!("{} cannot be connected to: {error}", place.address))?;
    let (status, body) = exchange::get(stream, &place.address, path, Some(MOST_BYTES)).await?;
    match status {
        200 => {
            let read = serde_json::from_slice::<Value>(&body).and_then(|mut page| {
                clean(&mut page);
                serde_json::from_value(page).map(Some)
            });
            read.map_err(|error| {
                let why = error.to_string().replace(char::is_control, " ");
                format!("its page {path} is not understood: {why:.200}")
            })
        }
        404 => Ok(None),
        401 | 403 => Err(format!(
            "it answers {status} to GET {path}: it tells only whom it believes, and the control plane is nobody there"
        )),
        status => Err(format!("it answers {status} to GET {path}")),
    }
}

/// What a service says ends on somebody's terminal: no text is long, or has control characters.
fn clean(value: &mut Value) {
    match value {
        Value::String(text) => {
            if text.len() > LONGEST || text.contains(char::is_control) {
                let cut: String = text.chars().take(LONGEST).collect();
                *text = cut.replace(char::is_control, " ");
            }
        }
        Value::Array(list) => list.iter_mut().for_each(clean),
        Value::Object(object) => {
            object.retain(|key, _| key.len() <= LONGEST && !key.contains(char::is_control));
            object.values_mut().for_each(clean);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_service_says_cannot_write_on_a_terminal() {
        let mut page = json!({ "a": ["\u{1b}[2J", "x".repeat(2 * LONGEST)], "\u{7}": 1, "n": 1 });
        clean(&mut page);
        assert_eq!(page["a"][0], " [2J");
        assert_eq!(page["a"][1].as_str().map(str::len), Some(LONGEST));
        assert_eq!(page.as_object().map(serde_json::Map::len), Some(2));
    }
}
