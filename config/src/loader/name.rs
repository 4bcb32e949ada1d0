//! Final names of routes: where two have the same default name, the later adds its host, then a number. A name that a
//! person wrote never gives way.

use std::collections::HashSet;

use foldhash::fast::RandomState;

use super::reading::Reading;
use crate::document::{HostPattern, Route};

impl Reading<'_> {
    pub(super) fn name_routes(&mut self) {
        // Only a default name can give way.
        if self.unnamed.is_empty() {
            return;
        }
        let mut names: HashSet<&str, RandomState> = HashSet::default();
        names.reserve(self.routes.len());
        if self.routes.iter().all(|route| names.insert(&route.name)) {
            return;
        }
        let mut unnamed = self.unnamed.iter().copied().peekable();
        let named = |at: &usize| unnamed.next_if_eq(at).is_none();
        let mut taken: HashSet<String, RandomState> = (0..self.routes.len())
            .filter(named)
            .map(|at| self.routes[at].name.clone())
            .collect();
        for &at in &self.unnamed {
            let route = &self.routes[at].value;
            if !taken.insert(route.name.clone()) {
                let name = free_name(route, |name| !taken.contains(name));
                taken.insert(name.clone());
                self.routes[at].value = self.memory.rename(route, name);
            }
        }
    }
}

fn free_name(route: &Route, free: impl Fn(&str) -> bool) -> String {
    let host = route.matches.host.as_ref().map(|host| match host {
        HostPattern::Exact(name) => name.clone(),
        HostPattern::Wildcard(name) => format!("*.{name}"),
    });
    let base = match host {
        Some(host) => match route.name.split_once(" /") {
            Some((methods, path)) => format!("{methods} {host}/{path}"),
            None => format!("{host}{}", route.name),
        },
        None => route.name.clone(),
    };
    if free(&base) {
        return base;
    }
    let mut number = 2u32;
    loop {
        let name = format!("{base} #{number}");
        if free(&name) {
            return name;
        }
        number = number.saturating_add(1);
    }
}
