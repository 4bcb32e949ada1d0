//! Keys in files: the authority's, where it is somebody's own, and those of a Kubernetes cluster, looked at again and
//! again because clusters change theirs.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tollgate_config::control_plane::AuthorityFiles;
use tollgate_engine::telemetry::log::{self, Repeated};

use super::Authority;
use super::certificate::{Signer, chain};
use super::kubernetes::{self, Key};
use super::rotation::Own;

/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(2);
/// Bytes of a file.
const LARGEST: u64 = 1 << 20;

pub(super) struct OwnKey {
    pub(super) own: Own,
    pub(super) signer: Arc<Signer>,
}

/// A file that cannot be used, and why.
#[derive(Debug)]
pub struct Unusable(PathBuf, String);

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.display(), self.1)
    }
}

fn text(file: &Path) -> Result<String, Unusable> {
    use std::io::Read as _;
    let unusable = |why: String| Unusable(file.to_owned(), why);
    let open = std::fs::File::open(file).map_err(|error| unusable(error.to_string()))?;
    let mut text = String::new();
    let read = open.take(LARGEST).read_to_string(&mut text);
    read.map_err(|error| unusable(error.to_string()))?;
    Ok(text)
}

/// Reads the files; blocks, for the start alone.
pub(super) fn load(files: &AuthorityFiles) -> Result<OwnKey, Unusable> {
    let certificates = |file: &PathBuf| {
        let text = text(file)?;
        chain(&text).map_err(|why| Unusable(file.clone(), why))
    };
    let (all, not_after) = certificates(&files.cert)?;
    let trusted = match &files.roots {
        Some(roots) => certificates(roots)?.0,
        None => all.last().cloned().into_iter().collect(),
    };
    let certificate = all.first().cloned().unwrap_or_default();
    let signer = Signer::new(&certificate, &text(&files.key)?);
    let signer = signer.map_err(|why| Unusable(files.key.clone(), why))?;
    let sent: Vec<String> = { all.into_iter() }
        .filter(|one| !trusted.contains(one))
        .collect();
    Ok(OwnKey {
        own: Own {
            certificate,
            chain: sent.concat(),
            trusted,
            not_after,
        },
        signer: Arc::new(signer),
    })
}

impl Authority {
    pub(super) fn cluster_keys(&self) -> Arc<Result<Vec<Key>, String>> {
        { self.cluster_keys.read() }
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Looks at the cluster's keys; what cannot be used changes nothing once there are some.
    pub(super) async fn read_cluster_keys(&self) {
        static NOT_READ: Repeated = Repeated::new();
        let Some(settings) = &self.settings.kubernetes else {
            return;
        };
        let file = settings.keys.clone();
        let read = tokio::task::spawn_blocking(move || {
            let text = text(&file).map_err(|why| why.to_string())?;
            kubernetes::keys(&text).map_err(|why| Unusable(file, why).to_string())
        });
        let Ok(read) = read.await else { return };
        if let Err(why) = &read {
            NOT_READ.error(
                "the keys of the Kubernetes cluster cannot be used; those that were known stay",
                &[("reason", why)],
            );
        }
        let known = self.cluster_keys();
        let some = matches!(&*known, Ok(keys) if !keys.is_empty());
        if read.is_ok() || !some {
            *{ self.cluster_keys.write() }.unwrap_or_else(PoisonError::into_inner) = Arc::new(read);
        }
    }

    pub(super) async fn follow_cluster_keys(self: Arc<Self>) {
        if self.settings.kubernetes.is_none() {
            return;
        }
        loop {
            tokio::time::sleep(LOOK).await;
            let before = matches!(&*self.cluster_keys(), Ok(keys) if !keys.is_empty());
            self.read_cluster_keys().await;
            if !before && self.cluster_keys().is_ok() {
                log::info("the keys of the Kubernetes cluster are there", &[]);
            }
        }
    }
}
