//! What changes the world of a running proxy: a file, a control plane, descriptors that an upstream told. Each is applied by
//! the one writer, and everybody who has to follow is told.

use std::sync::atomic::{AtomicBool, Ordering};

use tollgate_config::Problems;

use super::conductor::Conductor;
use crate::reload::file::Watch;
use crate::telemetry::log;
use crate::upkeep::Upkeep;

impl Conductor {
    /// Reads the document again and applies it.
    pub(super) fn reload(
        &mut self,
        upkeep: &mut Upkeep,
        watch: &mut Watch,
    ) -> Result<u64, Problems> {
        // A door that closes must not be kept open by a copy. They are made again before anybody can ask for them.
        self.handed.borrow_mut().clear();
        let result = self.reloader.reload();
        if result.is_ok() {
            upkeep.follow(&self.common.store.current(), &self.reloader.memory);
            self.feed.follow(&self.reloader.inputs.served().file);
            self.identity.follow(&self.reloader.inputs.served().file);
            if self.options.watch {
                watch.follow(&self.reloader.document.sources);
            }
        }
        result
    }

    /// An upstream told other descriptors than before; or it may have, before anybody could hear of it.
    pub(super) fn reflected(&mut self, upkeep: &mut Upkeep) {
        if self.reloader.reflected() {
            upkeep.follow(&self.common.store.current(), &self.reloader.memory);
        }
    }

    /// The control plane told something.
    pub(super) fn fed(&mut self, upkeep: &mut Upkeep, watch: &mut Watch) {
        let arrived = self.feed.take();
        self.learned.borrow_mut().told(&arrived.services);
        // First: what is compiled next knows of them.
        self.take_asked();
        if let Some(batch) = &arrived.blocks {
            self.handed.borrow_mut().clear();
            let result = self.reloader.feed(batch);
            let served = self.reloader.inputs.served();
            let hash = &self.reloader.document.hash;
            match &result {
                Ok(_) => {
                    self.feed.outcome(batch, Ok((served, hash)));
                    upkeep.follow(&self.common.store.current(), &self.reloader.memory);
                    if self.options.watch {
                        watch.follow(&self.reloader.document.sources);
                    }
                }
                Err(problems) => self.feed.outcome(batch, Err(problems)),
            }
        }
        if let Some(trust) = arrived.trust {
            self.identity.told(trust);
        }
        if !arrived.services.is_empty() {
            upkeep.services_changed(&arrived.services, &self.reloader.memory);
        }
        self.learn(upkeep);
    }

    /// Whether a complete snapshot serves; the first time it is told to whoever waits for it.
    pub(super) fn becomes_ready(&mut self, ready: &AtomicBool) -> bool {
        let complete = self.reloader.inputs.served().is_complete();
        self.complete.set(complete);
        let member = (self.identity).is_enough_for(&self.common.store.current());
        if self.withdrawn || !complete || !member {
            return ready.load(Ordering::Acquire);
        }
        self.becoming.send_replace(true);
        ready.store(true, Ordering::Release);
        self.feed.ready();
        if let Some(taken) = self.options.taken.take()
            && let Err(error) = taken.confirm.serving()
        {
            log::warn(
                "the predecessor could not be told that we serve",
                &[("error", &error.to_string())],
            );
        }
        true
    }
}
