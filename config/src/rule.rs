//! What a single text must be: an address, a host, a header name, a pattern. Each rule turns a text into its value or
//! says what is wrong with it and what to write instead. Rules see one text and nothing around it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use regex::{Regex, RegexBuilder};

use crate::document::{Cidr, FallbackOn, HostPattern, RetryOn};
use crate::path::{PathPattern, normalize};
use crate::problem::Fault;
use crate::unit::{self, short};

pub(crate) fn positive_duration(text: &str) -> Result<Duration, Fault> {
    let duration = unit::duration(text)?;
    if duration.is_zero() {
        return Err(Fault::new(
            format!("`{text}` is no time at all"),
            "write at least \"1ms\"",
        ));
    }
    Ok(duration)
}

/// Seconds are counted whole, and a minute of them is kept.
pub(crate) fn window(text: &str) -> Result<Duration, Fault> {
    let window = unit::duration(text)?;
    if !(1..=60).contains(&window.as_secs()) || window > Duration::from_secs(60) {
        return Err(Fault::new(
            format!("`{text}` is no window that can be counted"),
            "write something from \"1s\" to \"60s\"",
        ));
    }
    Ok(window)
}

/// A label of Prometheus that neither a histogram nor the server that scrapes gives itself.
pub(crate) fn label(text: &str) -> Result<(), Fault> {
    let letters = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let good = text.bytes().all(letters) && !text.starts_with(|first: char| first.is_ascii_digit());
    let taken = text.starts_with("__") || matches!(text, "" | "le" | "job" | "instance");
    if !good || taken || text.len() > 64 {
        return Err(Fault::new(
            format!("`{}` cannot be the name of a label", short(text)),
            "write letters, digits and `_`, such as \"proxy\"; `le`, `job`, `instance` and what begins with `__` are taken",
        ));
    }
    Ok(())
}

/// A whole request head has to fit, and every connection may hold one: neither tiny nor huge.
pub(crate) fn header_size(text: &str) -> Result<u64, Fault> {
    let bytes = unit::size(text)?;
    if !(1024..=16 << 20).contains(&bytes) {
        return Err(Fault::new(
            format!("`{text}` is no sensible size of a request head"),
            "write something from \"1KiB\" to \"16MiB\"",
        ));
    }
    Ok(bytes)
}

/// A rate that a limit can keep exactly: neither nothing at all nor more than its clock can tell apart.
pub(crate) fn limit_rate(text: &str) -> Result<unit::Rate, Fault> {
    let rate = unit::rate(text)?;
    if rate.count == 0 {
        return Err(Fault::new(
            format!("`{text}` lets nothing through, ever"),
            "write at least \"1/h\"; a route that shall refuse everything is `respond = { status = 403 }`",
        ));
    }
    if u128::from(rate.count) * 1000 > rate.per.as_nanos() {
        return Err(Fault::new(
            format!("`{}` is more than a million in a second", short(text)),
            "write at most \"1000000/s\", or take the limit out",
        ));
    }
    Ok(rate)
}

pub(crate) fn bind(text: &str) -> Result<SocketAddr, Fault> {
    text.parse().map_err(|_| {
        let port = text.rsplit_once(':').map_or("8000", |(_, port)| port);
        let port = if port.parse::<u16>().is_ok() { port } else { "8000" };
        Fault::new(
            format!("`{}` is not an address to listen on", short(text)),
            format!("write an IP address and a port: \"127.0.0.1:{port}\", or \"0.0.0.0:{port}\" for every interface"),
        )
    })
}

/// `host:port`, where the host is an IP address or a name.
pub(crate) fn endpoint(text: &str) -> Result<(), Fault> {
    let (host, port) = split_port(text)?;
    if port.is_none() {
        return Err(Fault::new(
            format!("`{}` has no port", short(text)),
            format!(
                "write \"{}:80\", with the port that it listens on",
                short(host)
            ),
        ));
    }
    Ok(())
}

/// Splits `name:port`; `None` where the port is absent. An IPv6 address stands in brackets and keeps them.
pub(crate) fn split_port(text: &str) -> Result<(&str, Option<u16>), Fault> {
    if let Some((_, rest)) = text.split_once("://") {
        return Err(Fault::new(
            format!("`{}` is a URL, not an address", short(text)),
            format!(
                "write \"{}\"; `tls` says whether it is encrypted",
                short(rest.split('/').next().unwrap_or(rest))
            ),
        ));
    }
    let fault = |what: &str| {
        Fault::new(
            format!("`{}` {what}", short(text)),
            "write a host and a port: \"10.0.0.7:7000\", \"[fd00::7]:7000\" or \"orders.internal:7000\"",
        )
    };
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (address, rest) = rest.split_once(']').ok_or_else(|| fault("has no `]`"))?;
        if address.parse::<std::net::Ipv6Addr>().is_err() {
            return Err(fault("holds no IPv6 address between its brackets"));
        }
        match rest {
            "" => (text, None),
            _ => (
                &text[..address.len() + 2],
                Some(
                    rest.strip_prefix(':')
                        .ok_or_else(|| fault("has more than a port behind `]`"))?,
                ),
            ),
        }
    } else {
        match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    if !host.starts_with('[') && !is_name(host) {
        return Err(fault("has no valid host"));
    }
    let port = match port {
        None => None,
        Some(port) => Some(
            port.parse::<u16>()
                .ok()
                .filter(|p| *p > 0 && !port.starts_with('+'))
                .ok_or_else(|| fault("has no valid port"))?,
        ),
    };
    Ok((host, port))
}

/// `name:port`, or a bare name (allowed with `srv = true`).
pub(crate) fn dns(text: &str) -> Result<(), Fault> {
    split_port(text).map(drop)
}

fn is_name(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    !host.is_empty()
        && host.len() <= 253
        && host.split('.').all(|label| {
            !label.is_empty()
                && label.len() <= 63
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        })
}

pub(crate) fn host(text: &str) -> Result<HostPattern, Fault> {
    let lower = text.to_ascii_lowercase();
    let name = lower.strip_suffix('.').unwrap_or(&lower);
    if name == "*" {
        return Err(Fault::new(
            "`*` is not a host",
            "leave `host` out to match every host, or write \"*.example.com\"",
        ));
    }
    let bracketed = name
        .strip_prefix('[')
        .and_then(|n| n.strip_suffix(']'))
        .is_some_and(|n| n.parse::<std::net::Ipv6Addr>().is_ok());
    if bracketed || is_name(name) {
        return Ok(HostPattern::Exact(name.to_owned()));
    }
    if let Some(rest) = name.strip_prefix("*.")
        && is_name(rest)
    {
        return Ok(HostPattern::Wildcard(rest.to_owned()));
    }
    let hint = match name.rsplit_once(':') {
        Some((stem, port)) if is_name(stem) && port.parse::<u16>().is_ok() => {
            format!("write \"{stem}\"; a host is compared without its port")
        }
        _ if !name.is_ascii() => "write the name as it travels, in its `xn--` form".to_owned(),
        _ => {
            "write a name such as \"api.example.com\", or \"*.example.com\" for everything below it"
                .to_owned()
        }
    };
    Err(Fault::new(format!("`{}` is not a host", short(text)), hint))
}

/// A name on a certificate: exact, or `*.example.com`.
pub(crate) fn server_name(text: &str) -> Result<String, Fault> {
    Ok(match host(text)? {
        HostPattern::Exact(name) => name,
        HostPattern::Wildcard(name) => format!("*.{name}"),
    })
}

/// The name that an upstream's certificate must bear.
pub(crate) fn peer_name(text: &str) -> Result<(), Fault> {
    if text.parse::<IpAddr>().is_ok() || is_name(text) {
        return Ok(());
    }
    Err(Fault::new(
        format!("`{}` is not a name on a certificate", short(text)),
        "write a name such as \"orders.internal\", without a port",
    ))
}

pub(crate) fn header_name(text: &str) -> Result<HeaderName, Fault> {
    HeaderName::from_bytes(text.as_bytes()).map_err(|_| {
        Fault::new(
            format!("`{}` is not a header name", short(text)),
            "use letters, digits and `-`, as in \"x-user-id\"",
        )
    })
}

/// A header that a document may set or remove: not one that frames the message or belongs to the connection.
pub(crate) fn own_header(text: &str) -> Result<HeaderName, Fault> {
    let name = header_name(text)?;
    let hint = match name.as_str() {
        "host" => "use `rewrite = { host = \"…\" }`",
        "connection" | "keep-alive" | "proxy-connection" | "transfer-encoding" | "te"
        | "trailer" | "upgrade" | "content-length" => {
            "leave it out; the proxy writes it as each connection needs it"
        }
        _ => return Ok(name),
    };
    Err(Fault::new(
        format!("header `{name}` cannot be set or removed here"),
        hint,
    ))
}

pub(crate) fn header_value(text: &str) -> Result<HeaderValue, Fault> {
    HeaderValue::from_str(text)
        .ok()
        .filter(|_| text.trim() == text)
        .ok_or_else(|| {
            Fault::new(
                "a header value holds visible ASCII characters and inner spaces only",
                "take out line ends, other characters, and spaces at its ends",
            )
        })
}

/// The `host` that a rewrite sends.
pub(crate) fn authority(text: &str) -> Result<HeaderValue, Fault> {
    split_port(text)?;
    header_value(text)
}

pub(crate) fn method(text: &str) -> Result<Method, Fault> {
    Method::from_bytes(text.as_bytes()).map_err(|_| {
        Fault::new(
            format!("`{}` is not a method", short(text)),
            "write one word, as in \"GET\"",
        )
    })
}

pub(crate) fn cookie_name(text: &str) -> Result<(), Fault> {
    method(text).map(drop).map_err(|_| {
        Fault::new(
            format!("`{}` is not a cookie's name", short(text)),
            "use letters, digits, `-` and `_`, as in \"sid\"",
        )
    })
}

pub(crate) fn cidr(text: &str) -> Result<Cidr, Fault> {
    let fault = || {
        Fault::new(
            format!("`{}` is not a block of addresses", short(text)),
            "write \"10.0.0.0/8\", \"fd00::/8\" or one address",
        )
    };
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().map_err(|_| fault())?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix {
        None => most,
        Some(prefix) => prefix
            .parse::<u8>()
            .ok()
            .filter(|p| *p <= most && !prefix.starts_with('+'))
            .ok_or_else(fault)?,
    };
    Ok(Cidr { address, prefix })
}

pub(crate) fn path_pattern(text: &str) -> Result<PathPattern, Fault> {
    PathPattern::parse(text).map_err(|message| {
        // The reader of patterns says what to write behind its semicolon.
        match message.split_once("; ") {
            Some((message, hint)) => Fault::new(message, hint),
            None => Fault::new(
                message,
                "write a path such as \"/orders/{id}\", or \"/orders/*\" for everything below",
            ),
        }
    })
}

pub(crate) fn path_prefix(text: &str) -> Result<(), Fault> {
    let hint = "write a path such as \"/api\", without a slash at its end";
    let fault = |why: String| {
        Fault::new(
            format!("`{}` is not a prefix of a path: {why}", short(text)),
            hint,
        )
    };
    if text == "/" || text.ends_with('/') || !text.starts_with('/') {
        return Err(fault("it must begin with `/` and end without".to_owned()));
    }
    match normalize(text) {
        Ok(normal) if normal == text => Ok(()),
        Ok(normal) => Err(fault(format!("its normal form is `{normal}`"))),
        Err(error) => Err(fault(error.to_string())),
    }
}

/// A path as a client would send it. Whether it is a good one is for a test to find out.
pub(crate) fn sent_path(text: &str) -> Result<(), Fault> {
    if text.starts_with('/') || text == "*" {
        return Ok(());
    }
    Err(Fault::new(
        format!("`{}` is not a path", short(text)),
        "begin it with `/`, as in \"/orders/42?v=2\"",
    ))
}

/// Anchored at both ends. The size is bounded because documents may come from elsewhere.
pub(crate) fn anchored(text: &str) -> Result<Regex, Fault> {
    let build = |pattern: &str| {
        RegexBuilder::new(pattern)
            .size_limit(2 << 20)
            .nest_limit(100)
            .build()
    };
    build(text)
        .and_then(|_| build(&format!(r"\A(?:{text})\z")))
        .map_err(|error| {
            let why = error.to_string();
            let why = why.lines().last().unwrap_or_default().trim();
            let why = why.strip_prefix("error: ").unwrap_or(why);
            Fault::new(
                format!("`{}` is not a regular expression: {why}", short(text)),
                "see docs.rs/regex for the syntax; it must match the whole text",
            )
        })
}

pub(crate) fn redirect_target(text: &str) -> Result<(), Fault> {
    let target =
        text.starts_with('/') || text.starts_with("https://") || text.starts_with("http://");
    if target && text.bytes().all(|b| matches!(b, 0x21..=0x7e)) {
        return Ok(());
    }
    Err(Fault::new(
        format!("`{}` is no target of a redirect", short(text)),
        "write a URL (\"https://example.com{path}\") or a path (\"/new/{id}\"), percent-encoded where needed",
    ))
}

pub(crate) fn retry_on(text: &str) -> Result<RetryOn, Fault> {
    match text {
        "connect" => return Ok(RetryOn::Connect),
        "reset" => return Ok(RetryOn::Reset),
        "unavailable" => return Ok(RetryOn::Unavailable),
        _ => {}
    }
    text.parse()
        .ok()
        .filter(|status| (500..=599).contains(status))
        .map(RetryOn::Status)
        .ok_or_else(|| {
            Fault::new(
                format!("`{}` is no reason to try again", short(text)),
                "the reasons are \"connect\", \"reset\", \"unavailable\" and statuses from \"500\" to \"599\"",
            )
        })
}

pub(crate) fn fallback_on(text: &str) -> Result<FallbackOn, Fault> {
    match text {
        "connect" => return Ok(FallbackOn::Connect),
        "reset" => return Ok(FallbackOn::Reset),
        "timeout" => return Ok(FallbackOn::Timeout),
        "overloaded" => return Ok(FallbackOn::Overloaded),
        _ => {}
    }
    text.parse()
        .ok()
        .filter(|status| (500..=599).contains(status))
        .map(FallbackOn::Status)
        .ok_or_else(|| {
            Fault::new(
                format!("`{}` is no reason to fall back", short(text)),
                "the reasons are \"connect\", \"reset\", \"timeout\", \"overloaded\" and statuses from \"500\" to \"599\"",
            )
        })
}

/// A name that can stand in metrics, logs and other documents.
pub(crate) fn name(text: &str) -> Result<(), Fault> {
    let fine = !text.is_empty()
        && text.len() <= 200
        && !text.chars().any(char::is_control)
        && text.trim() == text;
    if fine {
        return Ok(());
    }
    Err(Fault::new(
        "a name is 1 to 200 characters without line ends, and without spaces at its ends",
        "write a short name such as \"orders\"",
    ))
}

pub(crate) fn file_path(text: &str) -> Result<(), Fault> {
    if text.is_empty() || text.contains('\0') {
        return Err(Fault::new(
            "the path of a file is empty or holds a null byte",
            "write the path of a file, relative to this one",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_a_host_and_a_port() {
        for good in [
            "10.0.0.7:7000",
            "[::1]:80",
            "orders:7000",
            "a_b.example.com.:1",
        ] {
            assert!(endpoint(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            ":80",
            "a",
            "a:0",
            "a:70000",
            "a:+1",
            "[::1]",
            "[x]:1",
            "[::1]x",
            "::1:80",
            "a b:1",
            "http://a:1",
        ] {
            assert!(endpoint(bad).is_err(), "{bad}");
        }
        let fault = endpoint("http://10.0.0.7:7000/x").unwrap_err();
        assert!(fault.hint.contains("\"10.0.0.7:7000\""), "{fault:?}");
    }

    #[test]
    fn a_host_is_compared_in_lower_case_without_port_and_dot() {
        assert_eq!(
            host("API.Example.com."),
            Ok(HostPattern::Exact("api.example.com".into()))
        );
        assert_eq!(
            host("*.Example.com"),
            Ok(HostPattern::Wildcard("example.com".into()))
        );
        assert!(
            host("a.example.com:80")
                .unwrap_err()
                .hint
                .contains("\"a.example.com\"")
        );
        for bad in ["*", "", "a..b", "*.*.b", "a.*", "bücher.example"] {
            assert!(host(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn blocks_of_addresses_know_their_width() {
        assert_eq!(cidr("10.0.0.0/8").map(|c| c.prefix), Ok(8));
        assert_eq!(cidr("::1").map(|c| c.prefix), Ok(128));
        for bad in ["10.0.0.0/33", "10.0.0/8", "::/129", "x", "1.1.1.1/"] {
            assert!(cidr(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_regular_expression_matches_the_whole_text() {
        let regex = anchored("a|b").expect("valid");
        assert!(regex.is_match("a") && !regex.is_match("ab"));
        assert!(anchored("(").is_err() && anchored(r"(\w{1000}){1000}").is_err());
        assert!(anchored(")(").is_err());
    }

    #[test]
    fn headers_that_frame_a_message_cannot_be_set() {
        assert!(own_header("X-User").is_ok());
        assert!(own_header("Content-Length").is_err());
        assert!(own_header("host").unwrap_err().hint.contains("rewrite"));
        assert!(header_value("a\nb").is_err() && header_value(" a").is_err());
    }
}
