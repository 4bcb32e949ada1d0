//! Rules about who may call whom.

use http::Method;

use super::{at, parsed, text, texts};
use crate::document::{Access, DEFAULT_NAMESPACE, Member, Members, Wanted};
use crate::parse::Node;
use crate::path::PathPattern;
use crate::problem::Fault;
use crate::report::ItemReport;
use crate::rule;
use crate::unit::short;

pub(crate) fn access(node: &Node, report: &mut ItemReport<'_>) -> Option<Access> {
    let name = text(node, "name")?.to_owned();
    let from = node.get("from")?;
    for key in ["from", "methods", "path", "grpc", "roles", "permissions"] {
        if let Some(list) = node.get(key)
            && list.text().is_none()
            && list.list().is_empty()
        {
            report.add(
                "missing-key",
                list.spot,
                format!("`{key}` is empty, which nobody or everybody would fit"),
                format!("name at least one, or take `{key}` out"),
            );
        }
    }
    let patterns = |key: &str, read: fn(&str) -> Result<PathPattern, Fault>| {
        let texts = texts(node.get(key)).into_iter();
        texts.filter_map(move |text| read(text).ok())
    };
    let methods = texts(node.get("methods")).into_iter();
    let claims = node.get("claims").map_or(&[][..], Node::entries).iter();
    Some(Access {
        name,
        from: { texts(Some(from)).into_iter() }
            .filter_map(|text| members(text).ok())
            .collect(),
        to: parsed(node, "to", members).filter(|to| !is_everybody(to)),
        methods: match node.get("grpc") {
            Some(_) => vec![Method::POST],
            None => methods.filter_map(|text| rule::method(text).ok()).collect(),
        },
        paths: { patterns("grpc", grpc_method) }
            .chain(patterns("path", rule::path_pattern))
            .collect(),
        roles: words(node, "roles"),
        permissions: words(node, "permissions"),
        claims: { claims }
            .map(|entry| {
                let values = texts(Some(&entry.node)).into_iter().map(str::to_owned);
                (entry.key.clone(), values.collect())
            })
            .collect(),
        at: at(node),
    })
}

fn is_everybody(members: &Members) -> bool {
    members.namespace == Some(Wanted::Any) && members.service == Wanted::Any
}

fn words(node: &Node, key: &str) -> Vec<String> {
    let words = texts(node.get(key)).into_iter();
    words.map(str::to_owned).collect()
}

/// `*`, `orders`, `shop/orders` or `shop/*`.
pub(crate) fn members(text: &str) -> Result<Members, Fault> {
    if text == "*" {
        return Ok(Members {
            namespace: Some(Wanted::Any),
            service: Wanted::Any,
        });
    }
    let one = |name: &str| match name {
        "*" => Ok(Wanted::Any),
        _ => member_name(name, text).map(Wanted::Only),
    };
    match text.split_once('/') {
        None => Ok(Members {
            namespace: None,
            service: Wanted::Only(member_name(text, text)?),
        }),
        Some((namespace, service)) => Ok(Members {
            namespace: Some(Wanted::Only(member_name(namespace, text)?)),
            service: one(service)?,
        }),
    }
}

/// `orders`, of the namespace `default`, or `shop/orders`.
pub(crate) fn member(text: &str) -> Result<Member, Fault> {
    let (namespace, service) = text.split_once('/').unwrap_or((DEFAULT_NAMESPACE, text));
    Ok(Member {
        namespace: member_name(namespace, text)?,
        service: member_name(service, text)?,
    })
}

/// What an identity may have as its namespace or service.
fn member_name(name: &str, whole: &str) -> Result<String, Fault> {
    let fits = crate::identity::SpiffeId::new("any", name, name).is_ok();
    fits.then(|| name.to_owned()).ok_or_else(|| {
        Fault::new(
            format!("`{}` is not the name of a service", short(whole)),
            "write \"orders\", or \"shop/orders\" with its namespace",
        )
    })
}

/// `package.Service/Method` or `package.Service/*`, as the path that calls it.
pub(crate) fn grpc_method(text: &str) -> Result<PathPattern, Fault> {
    let fault = || {
        Fault::new(
            format!("`{}` is not a gRPC method", short(text)),
            "write \"payments.v1.PaymentsService/ProcessPayment\", or \"payments.v1.PaymentsService/*\" for all of a service",
        )
    };
    let (service, method) = text.split_once('/').ok_or_else(fault)?;
    crate::binding::full_name(service).map_err(|_| fault())?;
    if method != "*" && crate::binding::full_name(method).is_err() || method.contains('.') {
        return Err(fault());
    }
    rule::path_pattern(&format!("/{text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_named_alone_with_a_namespace_or_all_at_once() {
        let fits = |text: &str, namespace: &str, service: &str| {
            members(text)
                .expect("good")
                .fits(namespace, service, "shop")
        };
        assert!(fits("orders", "shop", "orders"));
        assert!(!fits("orders", "attic", "orders"), "of the callee's own");
        assert!(!fits("orders", "shop", "order"));
        assert!(fits("attic/orders", "attic", "orders"));
        assert!(!fits("attic/orders", "shop", "orders"));
        assert!(fits("attic/*", "attic", "web") && !fits("attic/*", "shop", "web"));
        assert!(fits("*", "attic", "web"));
        for bad in ["", "/", "a/", "/a", "*/a", "a/b/c", "a b", "a*", ".."] {
            assert!(members(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_grpc_method_is_its_path() {
        let path = |text: &str| grpc_method(text).map(|pattern| pattern.to_string());
        assert_eq!(path("a.v1.B/Get"), Ok("/a.v1.B/Get".to_owned()));
        assert_eq!(path("a.v1.B/*"), Ok("/a.v1.B/*".to_owned()));
        for bad in [
            "a.v1.B",
            "/a.v1.B/Get",
            "a.v1.B/",
            "a.v1.B/Get/x",
            "a b/Get",
            "a.B/G.t",
            "a.B/{id}",
            "{x}/*",
        ] {
            assert!(grpc_method(bad).is_err(), "{bad}");
        }
    }
}
