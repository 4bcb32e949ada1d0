//! Chunked bodies: the same however they are cut, and the same as the second reading has them (HI-9 to HI-12).

use bytes::BytesMut;
use http::HeaderMap;
use proptest::prelude::*;
use tollgate_engine::http1::chunked::{Chunked, Item, may_be_trailer};

use crate::{chunks, config, generate};

/// What became of a body.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Whole(Vec<u8>, Option<HeaderMap>, usize),
    Waiting(Vec<u8>),
    Malformed,
}

fn decode(text: &[u8], cuts: &[usize]) -> Fate {
    let mut chunked = Chunked::default();
    let (mut buffer, mut data, mut start) = (BytesMut::new(), Vec::new(), 0);
    for end in cuts {
        buffer.extend_from_slice(&text[start..*end]);
        start = *end;
        loop {
            match chunked.decode(&mut buffer) {
                Err(_) => return Fate::Malformed,
                Ok(Item::Wait) => break,
                Ok(Item::Data(piece)) => {
                    assert!(!piece.is_empty(), "an empty piece would end a body");
                    data.extend_from_slice(&piece);
                }
                Ok(Item::End(trailers)) => {
                    let behind = buffer.len() + text.len() - end;
                    return Fate::Whole(data, trailers, behind);
                }
            }
        }
    }
    Fate::Waiting(data)
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_chunked_body_is_the_same_however_it_is_cut((text, cuts) in generate::cut(generate::changed(generate::chunked()))) {
        prop_assert_eq!(decode(&text, &cuts), decode(&text, &[text.len()]));
        if text.len() < 400 {
            let every: Vec<_> = (0..=text.len()).collect();
            prop_assert_eq!(decode(&text, &every), decode(&text, &[text.len()]));
        }
    }

    #[test]
    fn a_chunked_body_is_what_a_second_reading_says(text in generate::changed(generate::chunked())) {
        match (decode(&text, &[text.len()]), chunks::read(&text)) {
            (Fate::Whole(data, trailers, behind), Some(body)) => {
                let kept = |(name, _): &(String, Vec<u8>)| may_be_trailer(name);
                let mut wanted: Vec<_> = body.trailers.iter().filter(|field| kept(field)).cloned().collect();
                let mut got: Vec<_> = trailers
                    .iter()
                    .flatten()
                    .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()))
                    .collect();
                // A map keeps the order within a name, which is the order that means something.
                wanted.sort_by(|a, b| a.0.cmp(&b.0));
                got.sort_by(|a, b| a.0.cmp(&b.0));
                prop_assert_eq!((data, behind), (body.data, body.behind));
                prop_assert_eq!(got, wanted);
            }
            (Fate::Malformed | Fate::Waiting(_), None) => {}
            (ours, theirs) => prop_assert!(false, "we: {ours:?}\nthe second reading: {theirs:?}"),
        }
    }
}
