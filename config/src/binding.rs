//! How a gRPC method is called over HTTP, as a document writes it: `POST /v1/orders/{id}:cancel`. What the template means
//! is judged together with the descriptors.

use http::Method;

use crate::problem::Fault;
use crate::rule;
use crate::unit::short;

/// Method and path template.
pub(crate) fn parse(text: &str) -> Result<(Method, String), Fault> {
    let fault = || {
        Fault::new(
            format!("`{}` is not a method and a path template", short(text)),
            "write both with a space between, as in \"GET /v1/orders/{id}\"",
        )
    };
    let (verb, path) = text.split_once(' ').ok_or_else(fault)?;
    if !path.starts_with('/') || path.contains(' ') {
        return Err(fault());
    }
    Ok((rule::method(verb)?, path.to_owned()))
}

/// Dotted words: the name of a package, service or method.
pub(crate) fn full_name(text: &str) -> Result<(), Fault> {
    let word = |word: &str| {
        let letters = word
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        letters && !word.is_empty() && !word.as_bytes()[0].is_ascii_digit()
    };
    if text.split('.').all(word) {
        return Ok(());
    }
    Err(Fault::new(
        format!(
            "`{}` is not the full name of a service or method",
            short(text)
        ),
        "write package and name with dots between, as in \"shop.v1.Orders\"",
    ))
}

/// One message, from 1 KiB: less than that is a mistake of units.
pub(crate) fn message_size(text: &str) -> Result<u64, Fault> {
    let size = crate::unit::size(text)?;
    if (1 << 10..=1 << 30).contains(&size) {
        return Ok(size);
    }
    Err(Fault::new(
        format!("`{}` is not from 1KiB to 1GiB", short(text)),
        "write a size in that range, such as \"4MiB\"",
    ))
}
