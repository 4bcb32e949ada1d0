//! The same request twice has one effect (SHOP-6xx).
//!
//! A key names an operation of a client; the table keeps what was asked under it, as a hash, and what was answered.
//! An operation that is one transaction claims its key, does its work and keeps its answer in that transaction: then
//! `in_progress` is never seen by anybody, and a kill leaves all of it or nothing. One that lasts longer commits its
//! claim first, and must be able to find out after a crash how far it came.

use std::sync::LazyLock;
use std::time::Duration;

use aws_lc_rs::digest;
use prometheus::{IntCounterVec, Opts};
use prost::Message;
use serde_json::Value;

use super::{
    database::{Database, Transaction},
    refusal::Refusal,
    time,
};
use crate::{contracts::rpc, values};

/// How long an answer is kept: longer than anybody goes on trying (SHOP-605).
pub const KEPT: Duration = Duration::from_secs(24 * 3600);

const REUSED: &str = "IDEMPOTENCY_KEY_REUSED";

/// What became of claiming a key.
#[derive(Debug, PartialEq)]
pub enum Claim {
    /// Nobody did this yet: do it.
    Ours,
    /// It was done: this was the answer.
    Done(Vec<u8>),
    /// It was refused for good: this was the refusal.
    Refused(Refusal),
    /// Somebody is at it right now, or was when the process died.
    InProgress,
}

/// Of the whole process: a claim is made in the middle of transactions, which know no metrics.
static CLAIMS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let about = "Idempotency keys that requests came with, by what was known of them.";
    IntCounterVec::new(Opts::new("idempotency_claims_total", about), &["result"])
        .expect("a fixed name and a fixed label are valid")
});

/// Claims by result: `new`, and of those that were known `done`, `refused`, `in_progress` or `reused` (SHOP-605).
pub fn claims() -> IntCounterVec {
    CLAIMS.clone()
}

/// SHA-256 over the canonical JSON of a request, and its length (SHOP-604).
pub fn hash(request: &Value) -> String {
    let mut canonical = String::new();
    write_sorted(request, &mut canonical);
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(canonical.as_bytes());
    context.update(&(canonical.len() as u64).to_be_bytes());
    let digest = context.finish();
    digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Objects with sorted keys, whatever order their map keeps.
fn write_sorted(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<_> = map.keys().collect();
            keys.sort_unstable();
            out.push('{');
            for (index, key) in keys.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push(':');
                write_sorted(&map[key], out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_sorted(item, out);
            }
            out.push(']');
        }
        plain => out.push_str(&plain.to_string()),
    }
}

/// A client's own key, within who the client is and what it does: two clients never meet. A key that is long, or holds
/// what a database would not take, is known by its hash.
pub fn client_key(client: &str, operation: &str, key: &str) -> String {
    if key.len() <= 200
        && key
            .bytes()
            .all(|byte| byte.is_ascii_graphic() || byte == b' ')
    {
        return format!("client:{client}:{operation}:{key}");
    }
    format!(
        "client:{client}:{operation}:hash:{}",
        hash(&Value::from(key))
    )
}

/// Takes the key for a request with this hash. Of many at once, exactly one gets [`Claim::Ours`]. The key with another
/// hash is refused: `IDEMPOTENCY_KEY_REUSED` (DEC-22).
pub async fn claim(
    write: &mut Transaction,
    key: &str,
    hash: &str,
    now: i64,
) -> Result<Claim, Refusal> {
    let claim = look(write, key, hash, now).await;
    let result = match &claim {
        Ok(Claim::Ours) => "new",
        Ok(Claim::Done(_)) => "done",
        Ok(Claim::Refused(_)) => "refused",
        Ok(Claim::InProgress) => "in_progress",
        Err(refusal) if refusal.reason() == REUSED => "reused",
        Err(_) => return claim,
    };
    CLAIMS.with_label_values(&[result]).inc();
    claim
}

async fn look(write: &mut Transaction, key: &str, hash: &str, now: i64) -> Result<Claim, Refusal> {
    write
        .execute(
            "DELETE FROM idempotency WHERE key = $1 AND expires_at <= $2 AND state <> 'in_progress'",
            values![key, now],
        )
        .await?;
    let mine = write
        .execute(
            "INSERT INTO idempotency (key, hash, state, created_at, expires_at) \
             VALUES ($1, $2, 'in_progress', $3, $4) ON CONFLICT (key) DO NOTHING",
            values![key, hash, now, time::after(now, KEPT)],
        )
        .await?;
    if mine == 1 {
        return Ok(Claim::Ours);
    }
    let sql = "SELECT hash, state, answer FROM idempotency WHERE key = $1";
    let Some(row) = write.first(sql, values![key]).await? else {
        return Ok(Claim::InProgress);
    };
    if row.text(0)? != hash {
        return Err(Refusal::new(
            tonic::Code::AlreadyExists,
            REUSED,
            "this idempotency key was used for another request; send a new key",
        ));
    }
    let answer = row.optional_bytes(2)?.unwrap_or_default();
    Ok(match row.text(1)?.as_str() {
        "completed" => Claim::Done(answer),
        "failed" => match rpc::Status::decode(answer.as_slice()) {
            Ok(status) => Claim::Refused(Refusal::from_rpc(&status)),
            Err(_) => return Err(Refusal::internal()),
        },
        _ => Claim::InProgress,
    })
}

/// Keeps the answer of a claimed key.
pub async fn complete(
    write: &mut Transaction,
    key: &str,
    answer: &[u8],
    now: i64,
) -> Result<(), sqlx::Error> {
    keep(write, key, "completed", answer, now).await
}

/// Keeps a refusal that would be the same next time; gives the key back for one that need not be.
pub async fn refuse(
    write: &mut Transaction,
    key: &str,
    refusal: &Refusal,
    now: i64,
) -> Result<(), sqlx::Error> {
    if refusal.is_temporary() {
        return give_back(write, key).await;
    }
    keep(write, key, "failed", &refusal.to_rpc().encode_to_vec(), now).await
}

/// Forgets a claim without an answer.
pub async fn give_back(write: &mut Transaction, key: &str) -> Result<(), sqlx::Error> {
    let sql = "DELETE FROM idempotency WHERE key = $1 AND state = 'in_progress'";
    write.execute(sql, values![key]).await.map(drop)
}

/// Forgets a key and its answer: what was done under it came to nothing, and may be tried again.
pub async fn forget(write: &mut Transaction, key: &str) -> Result<(), sqlx::Error> {
    let sql = "DELETE FROM idempotency WHERE key = $1";
    write.execute(sql, values![key]).await.map(drop)
}

/// Keeps the answer of a claimed key for another time than [`KEPT`].
pub async fn complete_until(
    write: &mut Transaction,
    key: &str,
    answer: &[u8],
    now: i64,
    until: i64,
) -> Result<(), sqlx::Error> {
    complete(write, key, answer, now).await?;
    let sql = "UPDATE idempotency SET expires_at = $2 WHERE key = $1";
    write.execute(sql, values![key, until]).await.map(drop)
}

async fn keep(
    write: &mut Transaction,
    key: &str,
    state: &str,
    answer: &[u8],
    now: i64,
) -> Result<(), sqlx::Error> {
    write
        .execute(
            "UPDATE idempotency SET state = $2, answer = $3, completed_at = $4, expires_at = $5 WHERE key = $1",
            values![key, state, answer, now, time::after(now, KEPT)],
        )
        .await
        .map(drop)
}

/// What a caller is told when the same request is still running after a short wait (SHOP-603).
pub fn in_progress() -> Refusal {
    Refusal::new(
        tonic::Code::Aborted,
        "OPERATION_IN_PROGRESS",
        "the same request is still running; ask again for its result",
    )
    .retry_after(Duration::from_secs(1))
}

/// Removes what is kept long enough, and tells how many. Claims without an answer are left: whoever made them must
/// find out what became of them first.
pub async fn sweep(database: &Database, now: i64) -> Result<u64, sqlx::Error> {
    let mut write = database.write().await?;
    let sql = "DELETE FROM idempotency WHERE expires_at <= $1 AND state <> 'in_progress'";
    let gone = write.execute(sql, values![now]).await?;
    write.commit().await?;
    Ok(gone)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_order_of_keys_does_not_matter_and_everything_else_does() {
        let one = hash(&json!({"a": [1, {"x": 1, "y": 2}], "b": "t"}));
        let text = r#"{"b": "t", "a": [1, {"y": 2, "x": 1}]}"#;
        assert_eq!(one, hash(&serde_json::from_str(text).unwrap()));
        assert_ne!(one, hash(&json!({"a": [{"x": 1, "y": 2}, 1], "b": "t"})));
        assert_ne!(hash(&json!("1")), hash(&json!(1)));
    }
}
