//! What of the membership goes to the disk, and when. A slow disk holds nothing up.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::sleep;

use super::Identity;
use super::disk::Kept;
use crate::telemetry::log;

/// Writing is tried again after so long.
const REST: Duration = Duration::from_secs(5);

impl Identity {
    pub(super) fn save(&self) {
        if self.disk.is_some() && self.kept.borrow().is_some() {
            self.dirty.set(true);
            self.unsaved.notify_one();
        }
    }

    /// Writes what changed, for as long as the process serves.
    pub async fn write(self: Rc<Self>) {
        loop {
            self.unsaved.notified().await;
            let content = self.kept.borrow().as_ref().map(Kept::written);
            let (Some(disk), Some(content)) = (self.disk.clone(), content) else {
                continue;
            };
            self.dirty.set(false);
            // A slow disk must not hold up what comes next.
            let writing = tokio::task::spawn_blocking(move || disk.write(&content));
            let written = writing.await.unwrap_or_else(|error| Err(error.into()));
            if let Err(error) = written {
                self.unwritten(&error);
                sleep(REST).await;
                self.save();
            }
        }
    }

    pub(super) fn unwritten(&self, error: &io::Error) {
        static UNWRITTEN: log::Repeated = log::Repeated::new();
        UNWRITTEN.error(
            "the certificate of the mesh cannot be kept; a restart would need another join token",
            &[("error", error)],
        );
    }

    /// Asks no more; what is not on disk yet is written, unless a successor does.
    pub fn end(&self, write: bool) {
        self.following.take();
        if !write {
            return;
        }
        let content = self.kept.borrow().as_ref().map(Kept::written);
        if self.dirty.replace(false)
            && let (Some(disk), Some(content)) = (&self.disk, content)
            && let Err(error) = disk.write(&content)
        {
            self.unwritten(&error);
        }
    }
}
