//! Who is signed in: sessions, each with a refresh token that changes with every use (SHOP-207), and who failed to sign
//! in (SHOP-204, GW-910).
//!
//! Only hashes of tokens are kept. A token that was used before is somebody's copy of it: its session ends.

use std::time::Duration;

use tonic::Code;
use uuid::Uuid;

use super::tokens;
use crate::{
    kit::{
        database::{Database, Dialect, Transaction},
        log,
        refusal::Refusal,
        time,
    },
    values,
};

/// How long failed sign-ins and used tokens are remembered.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);

/// Sessions. Clones share the database.
#[derive(Clone, Debug)]
pub struct Sessions {
    database: Database,
    lifetime: Duration,
}

/// A session that goes on.
#[derive(Debug, PartialEq, Eq)]
pub struct Renewed {
    /// Which one.
    pub session: Uuid,
    /// Whose.
    pub user: Uuid,
    /// The token for the next time.
    pub refresh: String,
}

impl Sessions {
    /// In this database; a session that is not used for `lifetime` ends.
    pub fn new(database: Database, lifetime: Duration) -> Self {
        Self { database, lifetime }
    }

    /// Somebody signed in.
    pub async fn begin(&self, user: Uuid, now: i64) -> Result<Renewed, Refusal> {
        let session = Uuid::now_v7();
        let mut write = self.database.write().await?;
        write
            .execute(
                "INSERT INTO sessions (id, user_id, created_at) VALUES ($1, $2, $3)",
                values![session, user, now],
            )
            .await?;
        let refresh = self.issue(&mut write, session, now).await?;
        write.commit().await?;
        Ok(Renewed {
            session,
            user,
            refresh,
        })
    }

    /// Takes a refresh token and gives the next one. Of two that show the same at once, one gets it.
    pub async fn renew(&self, refresh: &str, now: i64) -> Result<Renewed, Refusal> {
        let hash = tokens::hashed(refresh);
        let mut write = self.database.write().await?;
        let sql = "SELECT t.session_id, t.expires_at, t.used_at, s.user_id, s.revoked_at \
                   FROM refresh_tokens t JOIN sessions s ON s.id = t.session_id WHERE t.hash = $1";
        let locked = "SELECT t.session_id, t.expires_at, t.used_at, s.user_id, s.revoked_at \
                      FROM refresh_tokens t JOIN sessions s ON s.id = t.session_id WHERE t.hash = $1 FOR UPDATE";
        let sql = if write.dialect() == Dialect::Postgres {
            locked
        } else {
            sql
        };
        let Some(row) = write.first(sql, values![&hash]).await? else {
            return Err(invalid());
        };
        let (session, expires, used, user) =
            (row.id(0)?, row.int(1)?, row.optional_int(2)?, row.id(3)?);
        if row.optional_int(4)?.is_some() || expires <= now {
            return Err(invalid());
        }
        if used.is_some() {
            revoke(&mut write, session, now).await?;
            write.commit().await?;
            log::warn(
                "a refresh token was shown twice; its session was ended",
                &[("user_id", &user)],
            );
            return Err(invalid());
        }
        write
            .execute(
                "UPDATE refresh_tokens SET used_at = $2 WHERE hash = $1",
                values![&hash, now],
            )
            .await?;
        let refresh = self.issue(&mut write, session, now).await?;
        write.commit().await?;
        Ok(Renewed {
            session,
            user,
            refresh,
        })
    }

    /// Signs out: the session of this token, or all of its user's. An unknown token is nobody's session.
    pub async fn end(&self, refresh: &str, all: bool, now: i64) -> Result<(), Refusal> {
        let mut write = self.database.write().await?;
        let sql = "SELECT s.id, s.user_id FROM refresh_tokens t JOIN sessions s ON s.id = t.session_id WHERE t.hash = $1";
        if let Some(row) = write.first(sql, values![&tokens::hashed(refresh)]).await? {
            if all {
                let sql =
                    "UPDATE sessions SET revoked_at = $2 WHERE user_id = $1 AND revoked_at IS NULL";
                write.execute(sql, values![row.id(1)?, now]).await?;
            } else {
                revoke(&mut write, row.id(0)?, now).await?;
            }
        }
        Ok(write.commit().await?)
    }

    /// Somebody did not get in.
    pub async fn failed(&self, email: &str, reason: &'static str, now: i64) -> Result<(), Refusal> {
        let mut write = self.database.write().await?;
        let sql = "INSERT INTO failed_logins (id, email_hash, reason, at) VALUES ($1, $2, $3, $4)";
        write
            .execute(
                sql,
                values![Uuid::now_v7(), &tokens::hashed(email), reason, now],
            )
            .await?;
        Ok(write.commit().await?)
    }

    /// Forgets what is over.
    pub async fn sweep(&self, now: i64) -> Result<(), Refusal> {
        let mut write = self.database.write().await?;
        write
            .execute(
                "DELETE FROM refresh_tokens WHERE expires_at <= $1",
                values![now],
            )
            .await?;
        let before = now - REMEMBERED.as_millis() as i64;
        let idle = "DELETE FROM sessions WHERE created_at < $1 \
                    AND NOT EXISTS (SELECT 1 FROM refresh_tokens t WHERE t.session_id = sessions.id)";
        write.execute(idle, values![before]).await?;
        write
            .execute("DELETE FROM failed_logins WHERE at < $1", values![before])
            .await?;
        Ok(write.commit().await?)
    }

    async fn issue(
        &self,
        write: &mut Transaction,
        session: Uuid,
        now: i64,
    ) -> Result<String, Refusal> {
        let refresh = tokens::refresh().ok_or_else(Refusal::internal)?;
        let sql = "INSERT INTO refresh_tokens (hash, session_id, created_at, expires_at) VALUES ($1, $2, $3, $4)";
        let expires = time::after(now, self.lifetime);
        write
            .execute(
                sql,
                values![&tokens::hashed(&refresh), session, now, expires],
            )
            .await?;
        Ok(refresh)
    }
}

async fn revoke(write: &mut Transaction, session: Uuid, now: i64) -> Result<(), sqlx::Error> {
    let sql = "UPDATE sessions SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL";
    write.execute(sql, values![session, now]).await.map(drop)
}

fn invalid() -> Refusal {
    Refusal::new(
        Code::Unauthenticated,
        "INVALID_TOKEN",
        "this refresh token is not good; sign in again",
    )
}
