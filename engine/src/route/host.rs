//! A host as routes compare it: lower case, without port, brackets or one trailing dot. IPv6 addresses are compared in
//! their shortest form. Nothing is refused here; what is no host matches no pattern.

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::net::Ipv6Addr;

/// No name in DNS is longer; nothing longer matches a pattern, so nobody can make us hash kilobytes per label.
pub(super) const LONGEST: usize = 255;

/// The host of an authority or a `host` header; borrowed when it already is in its normal form.
pub fn normal_host(raw: &str) -> Cow<'_, str> {
    if let Some(inside) = raw.strip_prefix('[')
        && let Some((address, _port)) = inside.split_once(']')
    {
        return normal_address(address);
    }
    let host = match raw.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => raw,
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.bytes().any(|b| b.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    }
}

/// A host as it stands in a document: no port, but perhaps an IPv6 address with or without brackets.
pub(super) fn configured_host(text: &str) -> Cow<'_, str> {
    if text.parse::<Ipv6Addr>().is_ok() {
        normal_address(text)
    } else {
        normal_host(text)
    }
}

fn normal_address(text: &str) -> Cow<'_, str> {
    let Ok(address) = text.parse::<Ipv6Addr>() else {
        return Cow::Borrowed(text);
    };
    let mut rest = Remaining(text);
    if write!(rest, "{address}").is_ok() && rest.0.is_empty() {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(address.to_string())
    }
}

/// Compares what is written with a text, without writing it anywhere.
struct Remaining<'a>(&'a str);

impl Write for Remaining<'_> {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        self.0 = self.0.strip_prefix(part).ok_or(fmt::Error)?;
        Ok(())
    }
}

/// What follows each dot, longest first: the wildcards that could match this host.
pub(super) fn parents(host: &str) -> impl Iterator<Item = &str> {
    memchr::memchr_iter(b'.', host.as_bytes())
        .filter(|dot| *dot > 0)
        .map(|dot| &host[dot + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// HI-54
    #[test]
    fn spellings_of_a_host_are_one_host() {
        for (raw, expected) in [
            ("example.com", "example.com"),
            ("EXAMPLE.com", "example.com"),
            ("example.com.", "example.com"),
            ("example.com:8080", "example.com"),
            ("Example.COM.:443", "example.com"),
            ("example.com:", "example.com"),
            ("XN--BCHER-KVA.example", "xn--bcher-kva.example"),
            ("127.0.0.1:80", "127.0.0.1"),
            ("[::1]", "::1"),
            ("[::1]:8080", "::1"),
            ("[0:0::0:1]:8080", "::1"),
            ("[2001:DB8::A]", "2001:db8::a"),
            ("[v1.x]", "v1.x"),
            ("example.com..", "example.com."),
            ("", ""),
            ("[", "["),
        ] {
            assert_eq!(normal_host(raw), expected, "{raw}");
        }
        assert_eq!(configured_host("::1"), "::1");
        assert_eq!(configured_host("[::1]"), "::1");
        assert_eq!(configured_host("2001:0db8::000a"), "2001:db8::a");
    }

    /// HI-54
    #[test]
    fn a_normal_host_is_borrowed() {
        for raw in [
            "example.com",
            "example.com:80",
            "example.com.",
            "[2001:db8::a]:443",
        ] {
            assert!(matches!(normal_host(raw), Cow::Borrowed(_)), "{raw}");
        }
    }

    #[test]
    fn parents_are_longest_first() {
        assert_eq!(
            parents("a.b.example.com").collect::<Vec<_>>(),
            ["b.example.com", "example.com", "com"]
        );
        assert_eq!(parents(".com").count(), 0);
    }
}
