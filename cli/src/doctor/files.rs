//! Documents, in the loader's own words; the keys that they name, and who may read them; what is kept for the next process
//! (`state`). Reads, and moves nothing out of its way.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tollgate_config::control_plane::{ControlPlane, Store};
use tollgate_config::{Document, IdentitySource, Loader, Problems};
use tollgate_engine::program;

use super::finding::{Finding, Verdict};
use super::subjects::{Content, Paper, Subjects};
use super::{Check, What, state};

pub(super) fn checks(subjects: &Arc<Subjects>) -> Vec<Check> {
    let mut checks = Vec::new();
    for (number, paper) in subjects.papers.iter().enumerate() {
        let all = subjects.clone();
        checks.push(Check::new(What::Files, paper.name(), move || {
            all.papers.get(number).map(document).unwrap_or_default()
        }));
        if paper.state_dir().is_some() {
            let all = subjects.clone();
            let subject = format!("the state of {}", paper.name());
            checks.push(Check::new(What::Files, subject, move || {
                all.papers.get(number).map(state::look).unwrap_or_default()
            }));
        }
    }
    checks
}

fn document(paper: &Paper) -> Vec<Finding> {
    let name = paper.name();
    let (mut found, keys) = match &paper.content {
        Content::Hangs => {
            let why = "it was not read in time: it is no ordinary file, or its file system hangs";
            return vec![Finding::problem(name, why, "name a file that can be read")];
        }
        Content::Refused(problems) => (refused(&name, problems), Vec::new()),
        Content::Plane(document) => (plane(&name, paper, document), keys_of(document)),
        Content::Control(document) => (control(&name, document), keys_of_control(document)),
    };
    let more: Vec<Finding> = keys.iter().filter_map(|key| secret(key, &name)).collect();
    found.extend(more);
    found
}

fn refused(name: &str, problems: &Problems) -> Vec<Finding> {
    let all = problems.0.iter();
    all.map(|problem| Finding::told(Verdict::Problem, name, problem))
        .collect()
}

fn plane(name: &str, paper: &Paper, document: &Document) -> Vec<Finding> {
    let loaded = Loader::new().short().load(&paper.path);
    let mut found = match program::compiled(loaded) {
        Err(problems) => refused(name, &problems),
        Ok((document, _)) => {
            let why = format!(
                "good: {} listeners, {} routes, {} upstreams, {} tests passed",
                document.listeners.len(),
                document.routes.len(),
                document.upstreams.len(),
                document.tests.len()
            );
            vec![Finding::ok(name, why)]
        }
    };
    let joined = paper.joined();
    let warnings = tollgate_config::warnings(joined.as_ref().unwrap_or(document));
    let warnings = warnings.iter();
    found.extend(warnings.map(|one| Finding::told(Verdict::Warning, name, one)));
    found
}

fn control(name: &str, document: &ControlPlane) -> Vec<Finding> {
    let mut found = match tollgate_control_plane::look_over(document) {
        Ok(()) => vec![Finding::ok(name, "good: a control plane's document")],
        Err(why) => vec![Finding::problem(name, why.to_string(), "")],
    };
    let warnings = tollgate_config::control_plane::warnings(document).into_iter();
    found.extend(warnings.map(|why| Finding::warning(name, why, "")));
    found
}

fn keys_of(document: &Document) -> Vec<PathBuf> {
    let listeners = document.listeners.iter().filter_map(|one| one.tls.as_ref());
    let served = listeners.flat_map(|tls| tls.certificates.iter().map(|one| one.key.clone()));
    let upstreams = document.upstreams.iter();
    let shown = upstreams.filter_map(|one| one.tls.as_ref()?.key.clone());
    let control = document.control_plane.as_ref();
    let control = control.and_then(|settings| settings.tls.as_ref()?.key.clone());
    let own = document
        .identity
        .as_ref()
        .and_then(|own| match &own.source {
            IdentitySource::Files { key, .. } => Some(key.clone()),
            IdentitySource::Authority { .. } => None,
        });
    served.chain(shown).chain(control).chain(own).collect()
}

fn keys_of_control(document: &ControlPlane) -> Vec<PathBuf> {
    let served = document.server.tls.as_ref().map(|tls| tls.key.clone());
    let own = document.identity.files.as_ref();
    let store = match &document.store {
        Store::Etcd(etcd) => etcd.tls.as_ref().and_then(|tls| tls.identity.clone()),
        Store::Embedded => None,
    };
    let own = own.map(|files| files.key.clone());
    let store = store.map(|(_, key)| key);
    served.into_iter().chain(own).chain(store).collect()
}

/// What is wrong with a file that nobody else should read; `None`: nothing.
pub(super) fn secret(path: &Path, who: &str) -> Option<Finding> {
    let what = path.display().to_string();
    let about = match std::fs::metadata(path) {
        Ok(about) => about,
        Err(error) => {
            let why = format!("this key cannot be read: {error}");
            let next = format!("put it there, or name another file in {who}");
            return Some(Finding::problem(what, why, next));
        }
    };
    let mode = about.permissions().mode() & 0o777;
    let (uid, shown) = (about.uid(), format!("{mode:04o}"));
    // Whoever is root reads all the same, but the service is seldom root.
    if mode & 0o400 == 0 {
        let why = format!(
            "this key cannot be read by its own owner (uid {uid}): its permissions are {shown}"
        );
        return Some(Finding::problem(
            what.clone(),
            why,
            format!("chmod 600 {what}"),
        ));
    }
    if mode & 0o077 != 0 {
        let why =
            format!("others than its owner (uid {uid}) may use it: its permissions are {shown}");
        return Some(Finding::warning(
            what.clone(),
            why,
            format!("chmod 600 {what}"),
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;

    use super::*;

    #[test]
    fn a_secret_is_for_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let gone = secret(&path, "a.toml").unwrap();
        assert_eq!(gone.verdict, Verdict::Problem);
        std::fs::write(&path, "x").unwrap();
        let judged = |mode: u32| {
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            secret(&path, "a.toml").map(|found| found.verdict)
        };
        assert_eq!(judged(0o600), None);
        assert_eq!(judged(0o400), None);
        assert_eq!(judged(0o640), Some(Verdict::Warning));
        assert_eq!(judged(0o000), Some(Verdict::Problem));
    }
}
