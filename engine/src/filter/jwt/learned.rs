//! Keys that an issuer publishes, as they were fetched last. An observation: it outlives documents, and keys are kept as
//! long as no newer ones come. Written by the control thread alone; a request reads one pointer and may leave a wish.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwapOption;
use tokio::sync::Notify;
use tollgate_config::WebUrl;

use super::jwk;
use super::key::{Key, KeySet};

/// A token with an unknown `kid` is worth a fetch when the last one was longer ago than this (GW-901).
pub(crate) const FRESH: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub struct Learned {
    url: WebUrl,
    /// `None` before the first.
    keys: ArcSwapOption<KeySet>,
    /// When they were fetched, in milliseconds after `began`, plus one; 0: never.
    fetched: AtomicU64,
    began: Instant,
    wanted: AtomicBool,
    wish: Notify,
    standing: Mutex<Standing>,
}

/// For operators.
#[derive(Debug, Clone, Default)]
pub(crate) struct Standing {
    pub since: Option<SystemTime>,
    pub error: Option<String>,
    pub fetches: u64,
    pub failures: u64,
}

impl Learned {
    pub(super) fn new(url: WebUrl, now: Instant) -> Self {
        Learned {
            url,
            keys: ArcSwapOption::empty(),
            fetched: AtomicU64::new(0),
            began: now,
            wanted: AtomicBool::new(false),
            wish: Notify::new(),
            standing: Mutex::default(),
        }
    }

    pub(crate) fn url(&self) -> &WebUrl {
        &self.url
    }

    pub(super) fn keys(&self) -> arc_swap::Guard<Option<Arc<KeySet>>> {
        self.keys.load()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.keys.load().is_none()
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.keys.load().as_ref().map_or(0, |set| set.keys.len())
    }

    /// Whether a key that is not among them can have been published since.
    pub(super) fn may_be_old(&self, now: Instant) -> bool {
        let Some(at) = self.fetched.load(Ordering::Acquire).checked_sub(1) else {
            return true;
        };
        now.saturating_duration_since(self.began + Duration::from_millis(at)) >= FRESH
    }

    /// A request would like newer keys. One wish is as good as many.
    pub(super) fn wish(&self) {
        if !self.wanted.swap(true, Ordering::AcqRel) {
            self.wish.notify_one();
        }
    }

    /// Until somebody wishes for newer keys.
    pub(crate) async fn wished(&self) {
        while !self.wanted.swap(false, Ordering::AcqRel) {
            self.wish.notified().await;
        }
    }

    /// What a fetch brought. The same keys stay the same set, so that what they verified is still believed.
    pub(crate) fn learn(
        &self,
        body: Result<Vec<u8>, String>,
        now: Instant,
        wall: SystemTime,
    ) -> Result<(), String> {
        let read = body.and_then(|body| Ok((jwk::of_set(&body)?, body)));
        let mut standing = self.standing();
        standing.fetches += 1;
        match read {
            Ok((keys, body)) => {
                self.take(keys, &body);
                let at = now.saturating_duration_since(self.began).as_millis();
                let at = u64::try_from(at).unwrap_or(u64::MAX - 1);
                self.fetched.store(at.saturating_add(1), Ordering::Release);
                standing.since = Some(wall);
                standing.error = None;
                Ok(())
            }
            Err(why) => {
                standing.failures += 1;
                standing.error = Some(why.clone());
                Err(why)
            }
        }
    }

    fn take(&self, keys: Vec<Key>, body: &[u8]) {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, body);
        let mut source = [0; 32];
        source.copy_from_slice(digest.as_ref());
        let same = self
            .keys
            .load()
            .as_ref()
            .is_some_and(|known| known.source == source);
        if !same {
            self.keys.store(Some(Arc::new(KeySet::new(keys, source))));
        }
    }

    pub(crate) fn standing(&self) -> MutexGuard<'_, Standing> {
        // Every change leaves it whole.
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
