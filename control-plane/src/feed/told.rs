//! What one listener was told, and what it must be told to know what is true now. Pure: whatever was folded, whenever
//! it is asked, the lines make the newest view of whatever the listener has.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tollgate_config::feed::{Begin, End, Line, Remove};

use crate::view::{Difference, View, difference};

/// Memory of one listener: a view, which listeners share, and a number for each of its services.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// `None`: it has nothing that we know, and gets everything.
    view: Option<Arc<View>>,
    pub(super) revision: u64,
    services: BTreeMap<Arc<str>, u64>,
}

/// A list of a service: its version and its line.
pub(super) type List = (u64, Bytes);

impl Told {
    /// A listener that has this view already.
    pub(super) fn has(view: Arc<View>, revision: u64) -> Told {
        Told {
            view: Some(view),
            revision,
            services: BTreeMap::new(),
        }
    }

    #[cfg(test)]
    pub(super) fn view(&self) -> Option<Arc<View>> {
        self.view.clone()
    }

    /// The lines that a listener lacks. `lists` are those of all services that it wants and that exist. `body` makes the
    /// lines between `begin` and `end`, and may remember them for the next listener.
    pub(super) fn catch_up(
        &mut self,
        view: &Arc<View>,
        revision: u64,
        lists: &BTreeMap<Arc<str>, List>,
        body: impl FnOnce(Option<&Arc<View>>, &Arc<View>) -> Option<Bytes>,
    ) -> Vec<Bytes> {
        let mut pieces = Vec::new();
        let full = self.view.is_none();
        let changed = self
            .view
            .as_ref()
            .is_none_or(|told| !Arc::ptr_eq(told, view));
        let body = changed.then(|| body(self.view.as_ref(), view)).flatten();
        // In a full batch what is not said is gone, so every list is said.
        let news: Vec<&List> = { lists.iter() }
            .filter(|(name, list)| full || self.services.get(*name) != Some(&list.0))
            .map(|(_, list)| list)
            .collect();
        let batch = full || body.is_some();
        if batch {
            pieces.push(line(&Line::Begin(Begin { full })));
        }
        pieces.extend(body);
        pieces.extend(news.into_iter().map(|(_, line)| line.clone()));
        if batch {
            pieces.push(line(&Line::End(End { revision })));
        }
        self.services = { lists.iter() }
            .map(|(name, (version, _))| (name.clone(), *version))
            .collect();
        self.view = Some(view.clone());
        self.revision = revision;
        pieces
    }
}

/// The lines of a difference; `None` when there is none.
pub(super) fn body(from: Option<&View>, to: &View) -> Option<Bytes> {
    let nothing = View::default();
    let Difference { puts, removes } = difference(from.unwrap_or(&nothing), to);
    if puts.is_empty() && removes.is_empty() {
        return None;
    }
    let mut text = String::new();
    for id in removes {
        let id = id.to_string();
        text.push_str(&Line::Remove(Remove { id }).write());
    }
    for block in puts {
        text.push_str(&Line::Put(block.to_put()).write());
    }
    Some(text.into())
}

pub(super) fn line(line: &Line) -> Bytes {
    line.write().into()
}
