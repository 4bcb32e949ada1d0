//! Paths in normal form, found a second time the long way: merge slashes, decode, judge, resolve, write (HI-49 to HI-53).

use proptest::prelude::*;
use tollgate_config::path::normalize;

use crate::{config, generate};

/// The normal form of a path, or `None` where it is refused.
pub(crate) fn form(path: &str) -> Option<String> {
    if path == "*" {
        return Some(path.to_owned());
    }
    let mut segments: Vec<String> = Vec::new();
    let mut ends_in_slash = false;
    for segment in path.strip_prefix('/')?.split('/') {
        let segment = rewritten(segment)?;
        // Dots with parameters, whose `;` may be escaped.
        let plain = segment.replace("%3B", ";");
        if let Some(("." | "..", _)) = plain.split_once(';') {
            return None;
        }
        ends_in_slash = matches!(segment.as_str(), "" | "." | "..");
        match segment.as_str() {
            "" | "." => {}
            ".." => drop(segments.pop()?),
            _ => segments.push(segment),
        }
    }
    let slash = ends_in_slash && !segments.is_empty();
    Some(format!(
        "/{}{}",
        segments.join("/"),
        if slash { "/" } else { "" }
    ))
}

/// One segment, decoded to characters and written again.
fn rewritten(segment: &str) -> Option<String> {
    const RAW: &str = "!$&'()*+,;=:@-._~";
    const BROWSERS: &str = "|^{}[]";
    let (mut bytes, mut escaped) = (Vec::new(), Vec::new());
    let mut rest = segment.as_bytes();
    while let Some((byte, behind)) = rest.split_first() {
        rest = behind;
        if *byte == b'%' {
            let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
            let hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
            bytes.push(hex.then(|| u8::from_str_radix(digits, 16).ok())??);
            rest = &rest[2..];
            escaped.push(true);
        } else {
            let c = char::from(*byte);
            (c.is_ascii_alphanumeric() || RAW.contains(c) || BROWSERS.contains(c)).then_some(())?;
            bytes.push(*byte);
            escaped.push(BROWSERS.contains(c));
        }
    }
    // Raw bytes are ASCII here, so this judges the escapes.
    let text = std::str::from_utf8(&bytes).ok()?;
    let mut out = String::new();
    for (at, c) in text.char_indices() {
        let unreserved = c.is_ascii_alphanumeric() || "-._~".contains(c);
        if c.is_control() || escaped[at] && (c == '/' || c == '\\') {
            return None;
        } else if unreserved || !escaped[at] {
            out.push(c);
        } else {
            let mut buffer = [0; 4];
            for byte in c.encode_utf8(&mut buffer).bytes() {
                out += &format!("%{byte:02X}");
            }
        }
    }
    Some(out)
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_path_has_the_normal_form_that_is_found_the_long_way(text in generate::changed(generate::target().prop_map(String::into_bytes))) {
        let text = String::from_utf8_lossy(&text);
        let path = text.split('?').next().expect("split gives at least one");
        let ours = normalize(path).ok().map(|path| path.into_owned());
        prop_assert_eq!(&ours, &form(path));
        if let Some(once) = ours {
            let twice = normalize(&once).ok().map(|path| path.into_owned());
            prop_assert_eq!(twice, Some(once));
        }
    }
}
