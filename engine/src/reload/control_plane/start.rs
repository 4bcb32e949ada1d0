//! What a process begins with: its file, and what it was told last, if that still fits. Nobody is asked and nothing
//! is waited for.

use std::sync::Arc;

use tollgate_config::{Document, Loader, Problems};

use super::{Known, LastGood};
use crate::reload::inputs::Pair;
use crate::snapshot::Snapshot;
use crate::telemetry::log;
use crate::upstream::discovery::Services;

pub struct Beginning {
    pub pair: Pair,
    pub document: Document,
    pub snapshot: Snapshot,
    pub restored: Restored,
}

/// What the last process left of the feed.
pub struct Restored {
    pub known: Known,
    /// The first snapshot was made with it.
    pub serves: bool,
    pub last_good: Option<LastGood>,
}

/// Compiles the file with what was served last, or alone.
pub fn begin(
    file: Document,
    loader: &mut Loader,
    services: &Services,
    mut compile: impl FnMut(&Document) -> Result<Snapshot, Problems>,
) -> Result<Beginning, Problems> {
    let last_good = file.server.state_dir.as_deref().map(LastGood::new);
    let kept = last_good
        .as_ref()
        .filter(|_| file.control_plane.is_some())
        .and_then(LastGood::read);
    let file = Arc::new(file);
    if let Some(known) = kept {
        for (name, _, instances) in known.services() {
            services.set(name, instances.clone());
        }
        let pair = Pair {
            file: file.clone(),
            blocks: Some(known.blocks()),
        };
        let document = pair.document(loader);
        let made = document.and_then(|document| Ok((compile(&document)?, document)));
        match made {
            Ok((snapshot, document)) => {
                let restored = Restored {
                    known,
                    serves: true,
                    last_good,
                };
                return Ok(Beginning {
                    pair,
                    document,
                    snapshot,
                    restored,
                });
            }
            Err(problems) => log::error(
                "the last good configuration does not fit the file; the control plane's is waited for",
                &[("problems", &problems)],
            ),
        }
    }
    let snapshot = compile(&file)?;
    Ok(Beginning {
        document: Document::clone(&file),
        pair: Pair { file, blocks: None },
        snapshot,
        restored: Restored {
            known: Known::default(),
            serves: false,
            last_good,
        },
    })
}
