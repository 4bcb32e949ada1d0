//! Passwords become hashes (argon2id), and are compared with them: slow on purpose, and so on a bounded number of threads
//! with a bounded queue. A flood of sign-ins costs that much memory and time, and no request of another kind waits for it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use tokio::sync::Semaphore;

use crate::kit::{log, refusal::Refusal};

/// Hashes and compares. Clones share the threads and the queue.
#[derive(Clone)]
pub struct Passwords {
    argon2: Argon2<'static>,
    permits: Arc<Semaphore>,
    /// Running and waiting.
    entered: Arc<AtomicUsize>,
    most: usize,
    /// Of no password: compared with when there is no such user, so that the time does not tell (SHOP-204).
    dummy: Arc<str>,
}

impl Passwords {
    /// With argon2id's memory in KiB and its rounds, so many at once and so many waiting.
    pub fn new(memory: u32, rounds: u32, threads: usize, queue: usize) -> Result<Self, String> {
        let params = Params::new(memory, rounds, 1, None)
            .map_err(|error| format!("`password_memory`: {error}"))?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let dummy = hash(&argon2, &uuid::Uuid::new_v4().to_string())?;
        Ok(Self {
            argon2,
            permits: Arc::new(Semaphore::new(threads.max(1))),
            entered: Arc::new(AtomicUsize::new(0)),
            most: threads.max(1) + queue,
            dummy: dummy.into(),
        })
    }

    /// The hash of a new password, with a salt of its own.
    pub async fn hash(&self, password: &str) -> Result<String, Refusal> {
        let password = password.to_string();
        self.run(move |argon2| {
            hash(argon2, &password).map_err(|error| {
                log::error("a password was not hashed", &[("error", &error)]);
                Refusal::internal()
            })
        })
        .await?
    }

    /// Whether it is the password of this hash. Without a hash it takes as long, and is not.
    pub async fn matches(&self, password: &str, hash: Option<&str>) -> Result<bool, Refusal> {
        let known = hash.is_some();
        let (password, hash) = (
            password.to_string(),
            hash.unwrap_or(&self.dummy).to_string(),
        );
        let same = self
            .run(move |argon2| {
                PasswordHash::new(&hash)
                    .is_ok_and(|hash| argon2.verify_password(password.as_bytes(), &hash).is_ok())
            })
            .await?;
        Ok(known && same)
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Argon2<'static>) -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let busy = || Refusal::unavailable("too many sign-ins at once", Duration::from_secs(1));
        let place = Place(self.entered.clone());
        if self.entered.fetch_add(1, Ordering::Relaxed) >= self.most {
            return Err(busy());
        }
        let permit = self
            .permits
            .clone()
            .acquire_owned()
            .await
            .map_err(|_| busy())?;
        let argon2 = self.argon2.clone();
        // Permit and place go with the thread: a caller who leaves does not make room for another one too early.
        let done = tokio::task::spawn_blocking(move || {
            let result = work(&argon2);
            drop((permit, place));
            result
        });
        done.await.map_err(|_| Refusal::internal())
    }
}

/// Counted among those who entered, until it is dropped.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn hash(argon2: &Argon2<'_>, password: &str) -> Result<String, String> {
    let hash = argon2.hash_password(password.as_bytes());
    hash.map(|hash| hash.to_string())
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_matches_its_own_hash_only() {
        let passwords = Passwords::new(8, 1, 2, 8).unwrap();
        let hash = passwords.hash("correct horse 1").await.unwrap();
        assert!(hash.starts_with("$argon2id$"), "{hash}");
        assert!(
            passwords
                .matches("correct horse 1", Some(&hash))
                .await
                .unwrap()
        );
        assert!(
            !passwords
                .matches("correct horse 2", Some(&hash))
                .await
                .unwrap()
        );
        assert!(!passwords.matches("correct horse 1", None).await.unwrap());
        assert_ne!(
            hash,
            passwords.hash("correct horse 1").await.unwrap(),
            "each has its own salt"
        );
    }

    #[tokio::test]
    async fn whom_the_queue_does_not_hold_is_turned_away_and_nobody_else() {
        let passwords = Passwords::new(8, 1, 1, 1).unwrap();
        let held = passwords.permits.clone().acquire_owned().await.unwrap();
        let (one, other) = (passwords.clone(), passwords.clone());
        let mut running = tokio::spawn(async move { one.hash("a").await });
        let mut waiting = tokio::spawn(async move { other.hash("a").await });
        while passwords.entered.load(Ordering::Relaxed) < 2 {
            tokio::task::yield_now().await;
        }
        assert_eq!(
            passwords.hash("a").await.unwrap_err().reason(),
            "SERVICE_UNAVAILABLE"
        );
        drop(held);
        assert!((&mut running).await.unwrap().is_ok() && (&mut waiting).await.unwrap().is_ok());
        assert_eq!(passwords.entered.load(Ordering::Relaxed), 0);
    }
}
