//! What is written is read; nothing that arrives panics, and what is too much is refused with words.

use proptest::prelude::*;

use super::*;

fn word() -> impl Strategy<Value = String> {
    "[a-z0-9/.#:-]{1,12}"
}

fn put() -> impl Strategy<Value = Put> {
    let used = (".{0,8}", ".{0,8}").prop_map(|(reference, value)| Use { reference, value });
    let kind = prop::sample::select(Kind::ALL.to_vec());
    let uses = prop::collection::vec(used, 0..3);
    (word(), kind, word(), 1u32.., "(?s).{0,40}", uses).prop_map(
        |(id, kind, file, line, text, uses)| Put {
            id,
            kind,
            file,
            line,
            text,
            uses,
        },
    )
}

fn instance() -> impl Strategy<Value = Instance> {
    let health = prop::sample::select(vec![
        Health::Healthy,
        Health::Degraded,
        Health::Unhealthy,
        Health::Unknown,
    ]);
    let metadata = prop::collection::btree_map(word(), ".{0,8}", 0..3);
    let zone = prop::option::of(word());
    (word(), any::<u16>(), health, any::<u32>(), zone, metadata).prop_map(
        |(id, port, health, weight, zone, metadata)| Instance {
            id,
            address: format!("10.0.0.1:{port}"),
            health,
            weight,
            zone,
            metadata,
        },
    )
}

fn line() -> impl Strategy<Value = Line> {
    let number = any::<u64>();
    let trouble = (word(), ".{0,20}").prop_map(|(code, message)| Trouble {
        code,
        place: None,
        message,
        text: None,
        hint: None,
    });
    prop_oneof![
        (word(), word(), number, 1u64..100_000).prop_map(|(server, epoch, revision, beat)| {
            Line::Hello(Hello {
                server,
                epoch,
                revision,
                beat: Duration::from_millis(beat),
                figures: None,
            })
        }),
        any::<bool>().prop_map(|full| Line::Begin(Begin { full })),
        put().prop_map(Line::Put),
        word().prop_map(|id| Line::Remove(Remove { id })),
        (
            "[a-z]{1,8}",
            number,
            prop::collection::vec(instance(), 0..4)
        )
            .prop_map(|(name, version, instances)| Line::Service(Service {
                name,
                version,
                instances
            })),
        number.prop_map(|revision| Line::End(End { revision })),
        number.prop_map(|revision| Line::Beat(Beat { revision })),
        prop::collection::vec(trouble, 0..3)
            .prop_map(|problems| Line::Refused(Refused { problems })),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read(line in line()) {
        let text = line.write();
        prop_assert_eq!(text.matches('\n').count(), 1);
        prop_assert_eq!(Line::read(text.as_bytes()), Ok(line));
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Err(fault) = Line::read(&bytes) {
            prop_assert!(!fault.message.contains('\n') && !fault.hint.is_empty());
        }
    }

    #[test]
    fn no_damaged_line_panics(line in line(), at: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
        let mut bytes = line.write().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        drop(Line::read(&bytes));
        drop(Line::read(&bytes[..cut.index(bytes.len())]));
    }

    #[test]
    fn blocks_are_what_was_put_last_in_the_order_of_their_places(
        changes in prop::collection::vec((0u8..8, 0u32..6, prop::option::of("[ab]{1,2}")), 0..40)
    ) {
        let mut blocks = Blocks::default();
        let mut model = std::collections::BTreeMap::new();
        for (id, line, text) in changes {
            let id = format!("id{id}");
            match text {
                Some(text) => {
                    let put = Put { id: id.clone(), kind: Kind::Route, file: format!("f{}", line % 2), line: line + 1, text, uses: vec![] };
                    blocks.put(put.clone());
                    model.insert(id, put);
                }
                None => prop_assert_eq!(blocks.remove(&id), model.remove(&id).is_some()),
            }
            let mut expected: Vec<_> = model.values().cloned().collect();
            expected.sort_by(|a, b| (&a.file, a.line, &a.id).cmp(&(&b.file, b.line, &b.id)));
            let list: Vec<_> = blocks.list().iter().map(|block| block.to_put()).collect();
            prop_assert_eq!(&list, &expected);
            prop_assert_eq!(blocks.weight(), blocks.list().iter().map(|block| block.weight()).sum::<usize>());
        }
    }
}

#[test]
fn a_line_is_as_the_contract_shows_it() {
    let text = r#"{"hello":{"server":"cp-1","epoch":"7f3a","revision":42,"beat":"5s"}}"#;
    let hello = Line::read(text.as_bytes()).expect("as written");
    assert_eq!(hello.write().trim_end(), text);
    let text = r#"{"service":{"name":"orders","version":17,"instances":[{"id":"a","address":"10.0.0.7:7000","zone":"b","new":1}]}}"#;
    let Line::Service(service) = Line::read(text.as_bytes()).expect("fields of later versions")
    else {
        panic!("a service")
    };
    let instance = &service.instances[0];
    assert_eq!((instance.weight, instance.health), (1, Health::Healthy));
    let ask = r#"{"node":"e","kind":"gateway","instance":"i","version":"0","have":null,"services":"routed","listeners":[]}"#;
    let ask: Subscribe = serde_json::from_str(ask).expect("a subscription");
    assert_eq!(ask.services, Wanted::Routed(Routed::Routed));
    let report = r#"{"instance":"i","revision":3,"applied":true,"hash":"h","micros":9}"#;
    let report: Report = serde_json::from_str(report).expect("a report");
    assert!(matches!(
        report,
        Report::Outcome(Outcome { applied: true, .. })
    ));
}

#[test]
fn what_is_too_much_or_senseless_is_refused_with_words() {
    let put = |id: &str, text: usize| {
        Line::Put(Put {
            id: id.to_owned(),
            kind: Kind::Route,
            file: "f".to_owned(),
            line: 1,
            text: "x".repeat(text),
            uses: Vec::new(),
        })
    };
    let service = |name: &str, address: &str| {
        format!(
            r#"{{"service":{{"name":"{name}","version":1,"instances":[{{"id":"a","address":"{address}"}}]}}}}"#
        )
    };
    for (line, word) in [
        (put("a", MOST_TEXT + 1).write(), "bytes of text"),
        (put("", 1).write(), "`id` is empty"),
        (put("a\nb", 1).write(), "control character"),
        (put("a", MOST_LINE).write(), "a line has more than"),
        (service("", "10.0.0.1:1"), "name of a service"),
        (service("a", "10.0.0.1"), "has no port"),
        (service("a", "http://x"), "URL"),
        ("{}".to_owned(), "cannot be read"),
        ("[]".to_owned(), "cannot be read"),
        (String::new(), "cannot be read"),
        (
            r#"{"beat":{"revision":1},"end":{"revision":1}}"#.to_owned(),
            "cannot be read",
        ),
        (r#"{"beat":{"revision":-1}}"#.to_owned(), "cannot be read"),
        (r#"{"nonsense":{}}"#.to_owned(), "cannot be read"),
        (
            r#"{"hello":{"server":"a","epoch":"b","revision":1,"beat":"0s"}}"#.to_owned(),
            "no time",
        ),
        (
            r#"{"hello":{"server":"a","epoch":"b","revision":1,"beat":"soon"}}"#.to_owned(),
            "cannot be read",
        ),
    ] {
        let fault = Line::read(line.as_bytes()).expect_err(word);
        assert!(fault.message.contains(word), "{word}: {}", fault.message);
    }
    // A nest of any depth costs no stack.
    let deep = format!("{}{}", "[".repeat(1 << 20), "]".repeat(1 << 20));
    assert!(Line::read(deep.as_bytes()).is_err());
}
