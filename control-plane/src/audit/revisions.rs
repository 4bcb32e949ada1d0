//! Every revision of the catalog is a line of the audit log, wherever it came from: the API, the folder, a rollback. What
//! a crash kept out of the log is in the catalog's history, and is taken down at the next start.

use std::sync::Arc;

use serde_json::json;

use super::{Audit, Filter, moment};
use crate::catalog::Catalog;
use crate::catalog::history::Revision;

/// Follows the catalog until aborted.
pub async fn follow(audit: Arc<Audit>, catalog: Arc<Catalog>) {
    let last = Filter {
        fields: vec![("what", "revision".to_owned())],
        most: 1,
        ..Filter::default()
    };
    let mut changes = catalog.changes();
    let found = audit.search(last).await.unwrap_or_default();
    let last = found.lines.first();
    // Revisions of another store are others.
    let last = last.filter(|line| line["epoch"].as_str() == Some(catalog.epoch()));
    let mut told = last.map_or(0, |line| line["revision"].as_u64().unwrap_or(0));
    loop {
        let now = changes.borrow_and_update().revision;
        let history = catalog.history();
        let mut new: Vec<&Arc<Revision>> = history.all().filter(|one| one.number > told).collect();
        new.sort_by_key(|one| one.number);
        for revision in new {
            audit.revision(revision, catalog.epoch());
            told = revision.number;
        }
        told = told.max(now);
        if changes.changed().await.is_err() {
            return;
        }
    }
}

impl Audit {
    fn revision(&self, revision: &Revision, epoch: &str) {
        let line = self.told(json!({
            "time": moment(revision.time),
            "what": "revision",
            "revision": revision.number,
            "before": revision.number.saturating_sub(1),
            "by": revision.by,
            "note": revision.note,
            "origin": revision.origin,
            "changed": revision.changes.len(),
            "epoch": epoch,
        }));
        self.send(line, None);
    }
}
