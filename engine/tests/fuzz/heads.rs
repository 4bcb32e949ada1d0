//! Heads of requests and answers: accepted exactly when the second reading accepts them, and then with the same method,
//! target, fields and framing (HI-1 to HI-8, HI-14, HI-43); and the same however they are cut.

use bytes::Bytes;
use http::{HeaderMap, Method};
use proptest::prelude::*;
use tollgate_engine::http1::head::{early_fault, end_of_head};
use tollgate_engine::http1::{Framing, parse_request, parse_response};

use crate::strict::{self, Ends, Head};
use crate::{config, generate};

impl From<Framing> for Ends {
    fn from(framing: Framing) -> Self {
        match framing {
            Framing::None => Ends::Nowhere,
            Framing::Length(length) => Ends::After(length),
            Framing::Chunked => Ends::Chunked,
            Framing::Close => Ends::WithConnection,
        }
    }
}

/// Every field that stands in one stands in the other, in the same order within a name.
pub(crate) fn same_fields(head: &Head, headers: &HeaderMap) -> bool {
    let of_name = |name: &str| {
        let values = headers.get_all(name).iter().map(|value| value.as_bytes());
        values.eq(head.all(name))
    };
    head.fields.len() == headers.len() && head.fields.iter().all(|(name, _)| of_name(name))
}

/// What a connection's loop comes to: a head, a refusal, or neither yet.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Head(usize),
    Refused,
    Waiting,
}

fn feed(text: &[u8], cuts: &[usize]) -> Fate {
    let mut searched = 0;
    for end in cuts {
        let seen = &text[..*end];
        if let Some(end) = end_of_head(seen, searched) {
            return Fate::Head(end);
        }
        if early_fault(seen, searched).is_some() {
            return Fate::Refused;
        }
        searched = *end;
    }
    Fate::Waiting
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_request_is_read_as_the_second_reading_reads_it(text in generate::changed(generate::request())) {
        match (parse_request(&Bytes::copy_from_slice(&text)), strict::request(&text)) {
            (Ok(ours), Some((head, ends))) => {
                prop_assert_eq!(ours.method.as_str().as_bytes(), &head.line[0][..]);
                prop_assert_eq!(&ours.target[..], &head.line[1][..]);
                prop_assert_eq!(ours.is_1_0, head.line[2] == b"HTTP/1.0");
                prop_assert_eq!(Ends::from(ours.framing), ends);
                prop_assert!(same_fields(&head, &ours.fields.headers));
                let connection = head.connection().expect("accepted");
                let named = |name: &str| connection.iter().any(|member| member == name);
                prop_assert_eq!(ours.fields.close, named("close"));
                prop_assert_eq!(ours.fields.keep_alive, named("keep-alive"));
                prop_assert_eq!(ours.fields.upgrade, named("upgrade"));
            }
            (Err(_), None) => {}
            (ours, theirs) => prop_assert!(false, "we: {ours:?}\nthe second reading: {theirs:?}"),
        }
    }

    #[test]
    fn an_answer_is_read_as_the_second_reading_reads_it(
        text in generate::changed(generate::response()),
        is_head in any::<bool>(),
    ) {
        let method = if is_head { Method::HEAD } else { Method::GET };
        let theirs = strict::response(&text, method.as_str());
        match (parse_response(&Bytes::copy_from_slice(&text), &method), theirs) {
            (Ok(ours), Some((head, ends))) => {
                prop_assert_eq!(ours.status.as_str().as_bytes(), &head.line[1][..]);
                prop_assert_eq!(ours.is_1_0, head.line[0] == b"HTTP/1.0");
                prop_assert_eq!(Ends::from(ours.framing), ends);
                prop_assert!(same_fields(&head, &ours.fields.headers));
            }
            (Err(_), None) => {}
            (ours, theirs) => prop_assert!(false, "we: {ours:?}\nthe second reading: {theirs:?}"),
        }
    }

    /// A refusal may come earlier when a head comes in pieces, but never for a head that is accepted in one.
    #[test]
    fn a_head_is_the_same_however_it_is_cut((text, cuts) in generate::cut(generate::changed(generate::request()))) {
        let whole = feed(&text, &[text.len()]);
        let every: Vec<_> = (0..=text.len()).collect();
        for cuts in [&cuts, &every] {
            match (feed(&text, cuts), &whole) {
                (Fate::Refused, Fate::Head(end)) => {
                    // One empty line may stand before a request; who takes it away is the connection's loop.
                    let head = text[..*end].strip_prefix(b"\r\n").unwrap_or(&text[..*end]);
                    prop_assert!(parse_request(&Bytes::copy_from_slice(head)).is_err());
                }
                (pieces, whole) => prop_assert_eq!(&pieces, whole),
            }
        }
    }

    #[test]
    fn garbage_is_no_head(text in proptest::collection::vec(any::<u8>(), 0..300)) {
        let head = Bytes::copy_from_slice(&text);
        prop_assert_eq!(parse_request(&head).is_ok(), strict::request(&text).is_some());
        prop_assert_eq!(parse_response(&head, &Method::GET).is_ok(), strict::response(&text, "GET").is_some());
        for from in [0, 1, text.len() / 2, text.len(), text.len() + 9] {
            std::hint::black_box((end_of_head(&text, from), early_fault(&text, from)));
        }
    }
}
