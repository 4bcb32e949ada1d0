//! Upstreams with `service = "*"`, and what is made of them: for each service that requests asked for, an upstream of its
//! own with the settings of the template. Where the document has an upstream that is called like the service and has its
//! instances, that one stands in for it (MESH-201). One more service makes one more upstream, and only routes that go to a
//! template are compiled anew.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use foldhash::fast::RandomState;
use tollgate_config::{self as config, Document, EndpointSource, Item, Problem};

use super::compile::{ByName, expected, tls_problem};
use super::{Branch, Learned, RoutePlan, ServiceBranches, UpstreamPlan};
use crate::net::tls::TlsError;
use crate::upstream::learning::Names;

/// Every upstream that a name can mean.
pub(super) struct Upstreams<'d> {
    by_name: ByName<'d>,
    names: Arc<Names>,
    /// By template: the upstream of each service.
    services: BTreeMap<&'d str, Vec<Arc<UpstreamPlan>>>,
}

impl<'d> Upstreams<'d> {
    /// `make` makes an upstream that there was not.
    pub(super) fn expand(
        document: &'d Document,
        by_name: ByName<'d>,
        formerly: &HashMap<&str, &Arc<UpstreamPlan>, RandomState>,
        names: &Arc<Names>,
        make: impl Fn(
            &Item<config::Upstream>,
            Option<&Arc<UpstreamPlan>>,
        ) -> Result<UpstreamPlan, TlsError>,
        problems: &mut Vec<Problem>,
    ) -> Upstreams<'d> {
        let mut services = BTreeMap::new();
        for template in &document.upstreams {
            let EndpointSource::Asked { with, .. } = &template.endpoints else {
                continue;
            };
            let mut all = Vec::new();
            for service in names.iter() {
                let own = by_name
                    .get(&**service)
                    .filter(|one| stands_in(one, service, with));
                if let Some(own) = own {
                    all.push(own.clone());
                    continue;
                }
                let name = format!("{}:{service}", template.name);
                let before = formerly.get(name.as_str()).copied();
                let is_same = |before: &&Arc<UpstreamPlan>| {
                    is_of(before, template)
                        && before.expected() == expected(&before.item, document).as_ref()
                };
                match before.filter(is_same) {
                    Some(before) => all.push(before.clone()),
                    None => match make(&for_service(template, name, service), before) {
                        Ok(plan) => all.push(Arc::new(UpstreamPlan {
                            learned: Some(Learned {
                                template: template.clone(),
                                service: service.clone(),
                            }),
                            ..plan
                        })),
                        Err(error) => {
                            let what = format!("upstream {}", template.name);
                            problems.push(tls_problem(template.begins(), &what, &error));
                            break;
                        }
                    },
                }
            }
            services.insert(template.name.as_str(), all);
        }
        Upstreams {
            by_name,
            names: names.clone(),
            services,
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&Arc<UpstreamPlan>> {
        self.by_name.get(name)
    }

    /// What was made of templates.
    pub(super) fn learned(&self) -> impl Iterator<Item = &Arc<UpstreamPlan>> {
        let all = self.services.values().flatten();
        all.filter(|plan| plan.learned.is_some())
    }

    /// Whether this upstream is still what its name means.
    pub(super) fn has(&self, upstream: &Arc<UpstreamPlan>) -> bool {
        let now = match &upstream.learned {
            None => self.by_name.get(upstream.item.name.as_str()),
            Some(learned) => {
                let all = self.services.get(learned.template.name.as_str());
                let position = self.names.position(&learned.service);
                all.zip(position).and_then(|(all, at)| all.get(at))
            }
        };
        now.is_some_and(|now| Arc::ptr_eq(now, upstream))
    }

    /// Whether a route knows the services that there are now.
    pub(super) fn has_services(&self, route: &RoutePlan) -> bool {
        let known = route.compiled.services.as_ref();
        known.is_none_or(|known| Arc::ptr_eq(&known.names, &self.names))
    }

    /// Adds a branch for each service of each branch that is a template.
    pub(super) fn branches(
        &self,
        branches: &mut Vec<Branch>,
        of: impl Fn(&Arc<UpstreamPlan>) -> Branch,
    ) -> Option<ServiceBranches> {
        let mut first = Vec::with_capacity(branches.len());
        let mut more = Vec::new();
        for branch in &*branches {
            let all = self.services.get(branch.upstream.item.name.as_str());
            first.push(all.map(|_| branches.len() + more.len()));
            more.extend(all.into_iter().flatten().map(&of));
        }
        branches.extend(more);
        let any = first.iter().any(Option::is_some);
        any.then(|| ServiceBranches {
            names: self.names.clone(),
            first,
        })
    }
}

/// Whether a written upstream is what is said of this service, of the same instances.
fn stands_in(upstream: &UpstreamPlan, service: &str, with: &[(String, String)]) -> bool {
    matches!(
        &upstream.item.endpoints,
        EndpointSource::Service { name, with: own, .. } if name == service && own == with
    )
}

/// Whether it was made of this template, as it is now. Certificates may change without a word of the document.
fn is_of(plan: &UpstreamPlan, template: &Item<config::Upstream>) -> bool {
    template.tls.is_none()
        && plan.learned.as_ref().is_some_and(|learned| {
            Arc::ptr_eq(&learned.template.value, &template.value)
                && learned.template.line == template.line
        })
}

fn for_service(
    template: &Item<config::Upstream>,
    name: String,
    service: &str,
) -> Item<config::Upstream> {
    let mut value = config::Upstream::clone(template);
    if let EndpointSource::Asked { with, at, .. } = &template.endpoints {
        value.endpoints = EndpointSource::Service {
            name: service.to_owned(),
            with: with.clone(),
            at: *at,
        };
    }
    value.name = name;
    Item {
        value: Arc::new(value),
        file: template.file.clone(),
        line: template.line,
    }
}
