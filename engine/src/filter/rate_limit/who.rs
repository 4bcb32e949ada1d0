//! Whom a request counts for: the client's address behind trusted proxies, and what tells clients apart, as keys of a
//! shelf. Addresses of IPv6 count by /64: whoever has one has all of it (HI-60). Client strings are hashed with a
//! secret, so that nobody can make keys meet, and are not kept.

use std::net::IpAddr;

use http::HeaderMap;
use tollgate_config::{Cidr, KeyHash, Sharing};

use super::shelf::Key;

/// The secret of a process's hashes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Seed(pub [u64; 2]);

impl std::fmt::Debug for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seed(…)")
    }
}

/// What kind of thing is hashed, so that an address and a header that looks like one are two keys.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    V4 = 1,
    V6,
    Client,
    Header,
    NoHeader,
    Route,
    Caller,
    NoCaller,
    Host,
}

impl Seed {
    pub fn random() -> Self {
        let mut noise = crate::exchange::noise::Noise::default();
        Seed([noise.draw(), noise.draw()])
    }

    /// The same in every process that knows the store's password, and hard to guess for who does not.
    pub(super) fn shared(sharing: Option<&Sharing>) -> Self {
        let password = sharing.and_then(|sharing| sharing.store.redis()?.password.as_deref());
        let KeyHash(hash) = KeyHash::of(
            format!("tollgate shared limits 1 {}", password.unwrap_or_default()).as_bytes(),
        );
        let part = |from: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&hash[from..from + 8]);
            u64::from_le_bytes(bytes)
        };
        Seed([part(0), part(8)])
    }

    pub(super) fn key(self, kind: Kind, bytes: &[u8]) -> Key {
        // SipHash keeps its secret whatever is hashed. The standard library's own is the only one here whose secret can
        // be given, which the counts on disk need.
        #[expect(deprecated, reason = "its successor takes no secret")]
        let mut hasher = std::hash::SipHasher::new_with_keys(self.0[0], self.0[1]);
        std::hash::Hasher::write(&mut hasher, &[kind as u8]);
        std::hash::Hasher::write(&mut hasher, bytes);
        Key::new(std::hash::Hasher::finish(&hasher), 0)
    }

    pub(super) fn address(self, address: IpAddr) -> Key {
        match address.to_canonical() {
            IpAddr::V4(address) => self.key(Kind::V4, &address.octets()),
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, g, h, ..] = address.octets();
                self.key(Kind::V6, &[a, b, c, d, e, f, g, h])
            }
        }
    }
}

/// The address that counts: the peer's own, or, when the peer is a trusted proxy, the nearest address before it in
/// `X-Forwarded-For` (or `Forwarded`) that is no trusted proxy. What stands further to the left is hearsay. Where an
/// entry is no address, the proxy that wrote it counts.
pub fn client(peer: IpAddr, headers: &HeaderMap, trusted: &[Cidr]) -> IpAddr {
    let believed = |address: IpAddr| trusted.iter().any(|block| block.contains(address));
    let mut client = peer;
    if !believed(client) {
        return client;
    }
    let chain = if headers.contains_key("x-forwarded-for") {
        "x-forwarded-for"
    } else {
        "forwarded"
    };
    let lines: smallvec::SmallVec<[&[u8]; 4]> = headers
        .get_all(chain)
        .iter()
        .map(http::HeaderValue::as_bytes)
        .collect();
    let entries = lines
        .iter()
        .rev()
        .flat_map(|line| line.rsplit(|byte| *byte == b','));
    for entry in entries {
        let Some(address) = address(entry) else {
            return client;
        };
        client = address;
        if !believed(client) {
            return client;
        }
    }
    client
}

/// An entry of `X-Forwarded-For`, or an element of `Forwarded` (RFC 7239): with or without port, brackets, quotes.
fn address(entry: &[u8]) -> Option<IpAddr> {
    let mut text = std::str::from_utf8(entry).ok()?.trim();
    if text.contains('=') {
        text = text.split(';').find_map(|pair| {
            let (name, value) = pair.split_once('=')?;
            name.trim()
                .eq_ignore_ascii_case("for")
                .then(|| value.trim())
        })?;
        text = text
            .strip_prefix('"')
            .and_then(|text| text.strip_suffix('"'))
            .unwrap_or(text);
    }
    if let Some(rest) = text.strip_prefix('[') {
        return rest.split_once(']')?.0.parse().ok();
    }
    text.parse()
        .or_else(|_| text.split_once(':').map_or(text, |(host, _)| host).parse())
        .ok()
}

const API_KEY: http::HeaderName = http::HeaderName::from_static("x-api-key");

/// The known keys: by hash, as they are stored.
#[derive(Debug, Default)]
pub(super) struct Keys(
    pub(super) std::collections::HashMap<u64, Known, foldhash::fast::RandomState>,
);

#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) hash: KeyHash,
    /// The client's, in the class of its tier.
    pub(super) key: Key,
    /// The same client's where all gateways must find the same.
    pub(super) shared: Key,
}

/// What a request's `X-API-Key` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::filter) enum Claim {
    #[default]
    Absent,
    Unknown,
    /// The client's key here, and over all gateways.
    Known(Key, Key),
}

impl Keys {
    /// The first bytes of a hash find it: nobody can choose them without breaking the hash, and the rest is compared in
    /// constant time.
    pub(super) fn place(hash: &KeyHash) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = hash.0;
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }

    pub(super) fn ask(&self, headers: &HeaderMap) -> Claim {
        let mut lines = headers.get_all(&API_KEY).iter();
        let (key, more) = (lines.next(), lines.next());
        let Some(key) = key else {
            return Claim::Absent;
        };
        // Of two keys, neither is believed.
        if more.is_some() || self.0.is_empty() {
            return Claim::Unknown;
        }
        let hash = KeyHash::of(key.as_bytes());
        self.0
            .get(&Self::place(&hash))
            .filter(|known| {
                aws_lc_rs::constant_time::verify_slices_are_equal(&known.hash.0, &hash.0).is_ok()
            })
            .map_or(Claim::Unknown, |known| {
                Claim::Known(known.key, known.shared)
            })
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn the_client_is_the_nearest_address_that_is_no_trusted_proxy() {
        let trusted = [
            Cidr {
                address: [10, 0, 0, 0].into(),
                prefix: 8,
            },
            Cidr {
                address: "fd00::".parse().expect("an address"),
                prefix: 8,
            },
        ];
        type Headers = &'static [(&'static str, &'static str)];
        let cases: &[(&str, Headers, &str)] = &[
            ("9.9.9.9", &[("x-forwarded-for", "1.1.1.1")], "9.9.9.9"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &[("x-forwarded-for", "1.1.1.1")], "1.1.1.1"),
            (
                "::ffff:10.0.0.1",
                &[("x-forwarded-for", "1.1.1.1")],
                "1.1.1.1",
            ),
            (
                "10.0.0.1",
                &[("x-forwarded-for", "6.6.6.6, 1.1.1.1, 10.0.0.2")],
                "1.1.1.1",
            ),
            (
                "10.0.0.1",
                &[
                    ("x-forwarded-for", "6.6.6.6"),
                    ("x-forwarded-for", "1.1.1.1"),
                ],
                "1.1.1.1",
            ),
            (
                "10.0.0.1",
                &[("x-forwarded-for", "10.0.0.3, 10.0.0.2")],
                "10.0.0.3",
            ),
            (
                "10.0.0.1",
                &[("x-forwarded-for", "1.1.1.1, nonsense, 10.0.0.2")],
                "10.0.0.2",
            ),
            ("10.0.0.1", &[("x-forwarded-for", "")], "10.0.0.1"),
            (
                "10.0.0.1",
                &[("x-forwarded-for", "1.1.1.1:4711")],
                "1.1.1.1",
            ),
            (
                "fd00::1",
                &[("x-forwarded-for", "[2001:db8::7]:80")],
                "2001:db8::7",
            ),
            (
                "fd00::1",
                &[("x-forwarded-for", "2001:db8::7")],
                "2001:db8::7",
            ),
            (
                "10.0.0.1",
                &[(
                    "forwarded",
                    "for=6.6.6.6, for=\"[2001:db8::7]:80\";proto=https",
                )],
                "2001:db8::7",
            ),
            ("10.0.0.1", &[("forwarded", "for=unknown")], "10.0.0.1"),
            (
                "10.0.0.1",
                &[("x-forwarded-for", "1.1.1.1"), ("forwarded", "for=6.6.6.6")],
                "1.1.1.1",
            ),
        ];
        for (peer, lines, expected) in cases {
            let found = client(
                peer.parse().expect("an address"),
                &headers_of(lines),
                &trusted,
            );
            assert_eq!(found.to_string(), *expected, "{peer} {lines:?}");
        }
    }

    fn headers_of(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let name: http::HeaderName = name.parse().expect("a name");
            headers.append(name, HeaderValue::from_str(value).expect("a value"));
        }
        headers
    }

    #[test]
    fn addresses_of_one_slash_64_are_one_client_and_forms_of_one_address_too() {
        let seed = Seed([1, 2]);
        let key = |text: &str| seed.address(text.parse().expect("an address"));
        assert_eq!(key("2001:db8::1"), key("2001:db8::ffff:1"));
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
        assert_eq!(key("::ffff:1.2.3.4"), key("1.2.3.4"));
        assert_ne!(key("1.2.3.4"), key("1.2.3.5"));
        assert_ne!(
            Seed([1, 3]).address([1, 2, 3, 4].into()),
            key("1.2.3.4"),
            "another process hashes otherwise"
        );
    }

    #[test]
    fn of_two_keys_neither_is_believed() {
        let hash = KeyHash::of(b"0123456789");
        let key = Seed([1, 2]).key(Kind::Client, b"a");
        let mut keys = Keys::default();
        keys.0.insert(
            Keys::place(&hash),
            Known {
                hash,
                key,
                shared: key,
            },
        );
        let one = ("x-api-key", "0123456789");
        assert_eq!(keys.ask(&headers(&[one])), Claim::Known(key, key));
        assert_eq!(keys.ask(&headers(&[one, one])), Claim::Unknown);
        assert_eq!(
            keys.ask(&headers(&[("x-api-key", "012345678")])),
            Claim::Unknown
        );
        assert_eq!(keys.ask(&headers(&[])), Claim::Absent);
    }
}
