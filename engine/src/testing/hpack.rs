//! Just enough HPACK to lie with and to read answers by: an encoder that writes every field as a literal without
//! indexing, whatever its bytes, and a decoder for what an honest server sends to a peer that allows no dynamic table.
//!
//! Never used for anything but tests; the gateway's own HPACK is the `h2` crate's.

/// Fields as literals without indexing and without Huffman; any byte is allowed anywhere.
pub fn encode(fields: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        text(&mut block, name);
        text(&mut block, value);
    }
    block
}

/// One field that the decoder shall keep: literal with incremental indexing. The newest entry has index 62.
pub fn remembered(name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut block = vec![0x40];
    text(&mut block, name);
    text(&mut block, value);
    block
}

/// A field by its index.
pub fn indexed(index: u8) -> Vec<u8> {
    assert!(index < 127, "one byte is enough for tests");
    vec![0x80 | index]
}

fn text(block: &mut Vec<u8>, text: &[u8]) {
    integer(block, 0, 7, text.len());
    block.extend_from_slice(text);
}

fn integer(block: &mut Vec<u8>, flags: u8, bits: u32, value: usize) {
    let limit = (1usize << bits) - 1;
    if value < limit {
        block.push(flags | value as u8);
        return;
    }
    block.push(flags | limit as u8);
    let mut rest = value - limit;
    while rest >= 128 {
        block.push((rest % 128) as u8 | 0x80);
        rest /= 128;
    }
    block.push(rest as u8);
}

/// The fields of a block that uses no dynamic table; fails the test on anything else.
pub fn decode(mut block: &[u8]) -> Vec<(String, String)> {
    let mut fields = Vec::new();
    while let Some(first) = block.first().copied() {
        if first & 0x80 != 0 {
            let index = read_integer(&mut block, 7);
            let (name, value) = static_entry(index);
            fields.push((name.to_owned(), value.to_owned()));
        } else if first & 0xe0 == 0x20 {
            read_integer(&mut block, 5);
        } else {
            let bits = if first & 0x40 != 0 { 6 } else { 4 };
            let index = read_integer(&mut block, bits);
            let name = if index == 0 {
                read_text(&mut block)
            } else {
                static_entry(index).0.to_owned()
            };
            let value = read_text(&mut block);
            fields.push((name, value));
        }
    }
    fields
}

fn read_integer(block: &mut &[u8], bits: u32) -> usize {
    let limit = (1usize << bits) - 1;
    let mut value = usize::from(take(block)) & limit;
    if value == limit {
        let mut shift = 0;
        loop {
            let byte = take(block);
            value += usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
    }
    value
}

fn read_text(block: &mut &[u8]) -> String {
    let huffman = block.first().is_some_and(|byte| byte & 0x80 != 0);
    let length = read_integer(block, 7);
    let (bytes, rest) = block.split_at(length);
    *block = rest;
    if huffman {
        unhuffman(bytes)
    } else {
        String::from_utf8_lossy(bytes).into_owned()
    }
}

fn take(block: &mut &[u8]) -> u8 {
    let (first, rest) = block
        .split_first()
        .expect("a header block does not end in the middle of a field");
    *block = rest;
    *first
}

/// RFC 7541's code is canonical: code words of one length are consecutive, in the order of their symbols. Only what is
/// printable is known here; longer code words fail the test.
fn unhuffman(bytes: &[u8]) -> String {
    const BY_LENGTH: [(u32, &str); 10] = [
        (5, "012aceiost"),
        (6, " %-./3456789=A_bdfghlmnpru"),
        (7, ":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz"),
        (8, "&*,;XZ"),
        (10, "!\"()?"),
        (11, "'+|"),
        (12, "#>"),
        (13, "\0$@[]~"),
        (14, "^}"),
        (15, "<`{"),
    ];
    let mut decoded = String::new();
    let (mut code, mut length) = (0u32, 0u32);
    for bit in bytes
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |bit| u32::from(byte >> bit & 1)))
    {
        code = code << 1 | bit;
        length += 1;
        let (mut first, mut previous) = (0, 0);
        for (bits, symbols) in BY_LENGTH {
            first <<= bits - previous;
            previous = bits;
            if bits == length && code >= first && code - first < symbols.len() as u32 {
                decoded.push(char::from(symbols.as_bytes()[(code - first) as usize]));
                (code, length) = (0, 0);
                break;
            }
            first += symbols.len() as u32;
        }
        assert!(
            length < 16 || code == (1 << length) - 1,
            "a code word that tests do not know"
        );
    }
    decoded
}

fn static_entry(index: usize) -> (&'static str, &'static str) {
    const STATIC: [(&str, &str); 61] = [
        (":authority", ""),
        (":method", "GET"),
        (":method", "POST"),
        (":path", "/"),
        (":path", "/index.html"),
        (":scheme", "http"),
        (":scheme", "https"),
        (":status", "200"),
        (":status", "204"),
        (":status", "206"),
        (":status", "304"),
        (":status", "400"),
        (":status", "404"),
        (":status", "500"),
        ("accept-charset", ""),
        ("accept-encoding", "gzip, deflate"),
        ("accept-language", ""),
        ("accept-ranges", ""),
        ("accept", ""),
        ("access-control-allow-origin", ""),
        ("age", ""),
        ("allow", ""),
        ("authorization", ""),
        ("cache-control", ""),
        ("content-disposition", ""),
        ("content-encoding", ""),
        ("content-language", ""),
        ("content-length", ""),
        ("content-location", ""),
        ("content-range", ""),
        ("content-type", ""),
        ("cookie", ""),
        ("date", ""),
        ("etag", ""),
        ("expect", ""),
        ("expires", ""),
        ("from", ""),
        ("host", ""),
        ("if-match", ""),
        ("if-modified-since", ""),
        ("if-none-match", ""),
        ("if-range", ""),
        ("if-unmodified-since", ""),
        ("last-modified", ""),
        ("link", ""),
        ("location", ""),
        ("max-forwards", ""),
        ("proxy-authenticate", ""),
        ("proxy-authorization", ""),
        ("range", ""),
        ("referer", ""),
        ("refresh", ""),
        ("retry-after", ""),
        ("server", ""),
        ("set-cookie", ""),
        ("strict-transport-security", ""),
        ("transfer-encoding", ""),
        ("user-agent", ""),
        ("vary", ""),
        ("via", ""),
        ("www-authenticate", ""),
    ];
    let entry = index.checked_sub(1).and_then(|index| STATIC.get(index));
    *entry.unwrap_or_else(|| panic!("index {index} needs a dynamic table, and we allowed none"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_can_be_decoded() {
        let long = "x".repeat(300);
        let block = encode(&[(b":status", b"431"), (b"x-long", long.as_bytes())]);
        assert_eq!(
            decode(&block),
            [(":status".into(), "431".into()), ("x-long".into(), long)]
        );
    }

    #[test]
    fn the_rfcs_huffman_example_is_read() {
        // RFC 7541, C.4.1: www.example.com
        let coded = [
            0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff,
        ];
        assert_eq!(unhuffman(&coded), "www.example.com");
        // C.6.1: Mon, 21 Oct 2013 20:13:21 GMT
        let coded = [
            0xd0, 0x7a, 0xbe, 0x94, 0x10, 0x54, 0xd4, 0x44, 0xa8, 0x20, 0x05, 0x95, 0x04, 0x0b,
            0x81, 0x66, 0xe0, 0x82, 0xa6, 0x2d, 0x1b, 0xff,
        ];
        assert_eq!(unhuffman(&coded), "Mon, 21 Oct 2013 20:13:21 GMT");
    }
}
