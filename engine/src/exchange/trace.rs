//! W3C trace context of one exchange, by the letter of the standard (OBS-101, OBS-102, HI-58).
//!
//! A valid `traceparent` goes on with a span id of ours; anything else, two of them included, starts a new trace and
//! never fails a request. `tracestate` goes on only beside a valid `traceparent`, only when all of it is valid, and as
//! one line. No span is recorded here (`proxy::spans` does); identifiers come from the caller's generator.

mod state;

use http::{HeaderMap, HeaderName, HeaderValue};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The flags that exist; the others must be sent as zero.
const SAMPLED: u8 = 1;
const RANDOM: u8 = 2;

/// `00-` 32 digits `-` 16 digits `-` 2 digits.
pub const LENGTH: usize = 55;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    pub trace_id: [u8; 16],
    /// The caller's span; `None` when the trace began here.
    pub parent: Option<[u8; 8]>,
    /// Ours, new for each exchange.
    pub span_id: [u8; 8],
    pub flags: u8,
    /// Valid, and short enough to pass on.
    pub state: Option<HeaderValue>,
}

impl TraceContext {
    /// The caller's trace, or a new one. `random` must be uniform over all 64 bits.
    pub fn from_headers(headers: &HeaderMap, mut random: impl FnMut() -> u64) -> Self {
        let mut lines = headers.get_all(&TRACEPARENT).iter();
        let caller = match (lines.next(), lines.next()) {
            (Some(line), None) => parse(line.as_bytes().trim_ascii()),
            _ => None,
        };
        match caller {
            Some(Caller {
                trace_id,
                parent,
                flags,
            }) => TraceContext {
                trace_id,
                parent: Some(parent),
                span_id: span_id(&mut random),
                flags,
                state: state::from_lines(headers.get_all(&TRACESTATE).iter()),
            },
            None => Self::begin(random),
        }
    }

    /// A new trace: nobody before us is part of one.
    pub fn begin(mut random: impl FnMut() -> u64) -> Self {
        let span_id = span_id(&mut random);
        let id = (u128::from(nonzero(&mut random)) << 64) | u128::from(random());
        TraceContext {
            trace_id: id.to_be_bytes(),
            parent: None,
            span_id,
            flags: RANDOM,
            state: None,
        }
    }

    /// Whether who began this trace wants it recorded.
    pub fn sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// Everybody who comes next records this trace.
    pub fn sample(&mut self) {
        self.flags |= SAMPLED;
    }

    /// Makes `headers` name our span as the parent, and carry exactly the `tracestate` that may go on.
    pub fn write_into(&self, headers: &mut HeaderMap) {
        let value = HeaderValue::from_bytes(&self.traceparent())
            .expect("digits and dashes are a valid value");
        headers.insert(TRACEPARENT, value);
        match &self.state {
            Some(state) => {
                headers.insert(TRACESTATE, state.clone());
            }
            None => {
                headers.remove(&TRACESTATE);
            }
        }
    }

    /// The header's value, our span being the parent of whatever receives it.
    pub fn traceparent(&self) -> [u8; LENGTH] {
        self.traceparent_of(&self.span_id)
    }

    /// The same with another span of ours as the parent.
    pub fn traceparent_of(&self, span_id: &[u8; 8]) -> [u8; LENGTH] {
        let mut text = [b'-'; LENGTH];
        let (version, rest) = text.split_at_mut(3);
        version.copy_from_slice(b"00-");
        let (trace_id, rest) = rest.split_at_mut(33);
        write_hex(&self.trace_id, trace_id);
        let (parent, flags) = rest.split_at_mut(17);
        write_hex(span_id, parent);
        write_hex(&[self.flags], flags);
        text
    }
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Two digits for every byte value.
const HEX: [[u8; 2]; 256] = {
    let mut table = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = [DIGITS[byte >> 4], DIGITS[byte & 15]];
        byte += 1;
    }
    table
};

/// The value of every lower-case digit; 255 for all else.
const VALUE: [u8; 256] = {
    let mut table = [255; 256];
    let mut value = 0;
    while value < 16 {
        table[DIGITS[value] as usize] = value as u8;
        value += 1;
    }
    table
};

/// Writes two digits per byte into the front of `text`.
pub(crate) fn write_hex(bytes: &[u8], text: &mut [u8]) {
    for (byte, digits) in bytes.iter().zip(text.as_chunks_mut().0) {
        *digits = HEX[usize::from(*byte)];
    }
}

fn read_hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let (pairs, odd) = text.as_chunks::<2>();
    if pairs.len() != N || !odd.is_empty() {
        return None;
    }
    let mut bytes = [0; N];
    // Digits are at most 15, so a bad one shows in the high bits of all of them taken together.
    let mut seen = 0;
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        let (high, low) = (VALUE[usize::from(*high)], VALUE[usize::from(*low)]);
        seen |= high | low;
        *byte = (high << 4) | (low & 15);
    }
    (seen < 16).then_some(bytes)
}

struct Caller {
    trace_id: [u8; 16],
    parent: [u8; 8],
    flags: u8,
}

fn parse(value: &[u8]) -> Option<Caller> {
    let (known, more) = value.split_at_checked(LENGTH)?;
    let [b'-', b'-', b'-'] = [*known.get(2)?, *known.get(35)?, *known.get(52)?] else {
        return None;
    };
    let [version] = read_hex::<1>(known.get(..2)?)?;
    match (version, more.first()) {
        (0xff, _) | (0, Some(_)) => return None,
        (_, None | Some(b'-')) => {}
        _ => return None,
    }
    let trace_id: [u8; 16] = read_hex(known.get(3..35)?)?;
    let parent: [u8; 8] = read_hex(known.get(36..52)?)?;
    let [flags] = read_hex::<1>(known.get(53..)?)?;
    if trace_id == [0; 16] || parent == [0; 8] {
        return None;
    }
    Some(Caller {
        trace_id,
        parent,
        flags: flags & (SAMPLED | RANDOM),
    })
}

/// The name of a new span.
pub fn span_id(mut random: impl FnMut() -> u64) -> [u8; 8] {
    nonzero(&mut random).to_be_bytes()
}

/// All zeroes are drawn again (OBS-103); a generator that has nothing else to give gets a one.
fn nonzero(random: &mut impl FnMut() -> u64) -> u64 {
    for _ in 0..4 {
        let value = random();
        if value != 0 {
            return value;
        }
    }
    1
}

#[cfg(test)]
mod tests;
