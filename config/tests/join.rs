//! A file and the blocks of a feed become one document: what is unchanged is shared, what clashes is refused with both
//! places, and nothing that a loader remembers decides anything.

use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use tollgate_config::feed::{Blocks, Kind, Put, Use};
use tollgate_config::{Document, EndpointSource, KeyHash, Loader, Problems};

const FILE: &str = "[[listener]]\nname = \"in\"\nbind = \"127.0.0.1:0\"\n\
    [control_plane]\nurls = [\"http://127.0.0.1:8080\"]\nnode = \"edge-1\"\n\
    [[upstream]]\nname = \"own\"\nendpoints = [\"127.0.0.1:1\"]\n\
    [[route]]\nname = \"own\"\nmatch = { path = \"/own\" }\nupstream = \"own\"\n";

fn put(id: &str, kind: Kind, line: u32, text: &str) -> Put {
    Put {
        id: id.to_owned(),
        kind,
        file: "routes/shop.toml".to_owned(),
        line,
        text: text.to_owned(),
        uses: Vec::new(),
    }
}

fn route(name: &str, path: &str) -> Put {
    let text = format!(
        "[[route]]\nname = \"{name}\"\nmatch = {{ path = \"{path}\" }}\nupstream = \"own\"\n"
    );
    put(&format!("route:{name}"), Kind::Route, 10, &text)
}

fn blocks(puts: impl IntoIterator<Item = Put>) -> Blocks {
    let mut blocks = Blocks::default();
    puts.into_iter().for_each(|put| blocks.put(put));
    blocks
}

fn loader() -> Loader {
    Loader::with_environment(|name| (name == "SECRET").then(|| "of the node".to_owned()))
}

fn joined(file: &str, puts: impl IntoIterator<Item = Put>) -> Result<Document, Problems> {
    let mut loader = loader();
    let file = loader.load_text("gateway.toml", file, Path::new("/"))?;
    loader.join(&file, &blocks(puts).list())
}

fn refusal(file: &str, puts: impl IntoIterator<Item = Put>) -> String {
    joined(file, puts).expect_err("refused").to_string()
}

#[test]
fn a_file_and_a_feed_are_one_document() {
    let service =
        "[[upstream]]\nname = \"orders\"\nservice = \"orders\"\nwith = { version = \"2\" }\n";
    let to_orders = "[[route]]\nmatch = { path = \"/orders/*\", listener = \"in\" }\nupstream = \"orders\"\nfilters = [{ rate_limit = \"slow\" }, { api_key = \"required\" }]\n";
    let hash = KeyHash::of(b"a long enough key");
    let key = format!(
        "[[api_key]]\nhash = \"{}\"\nclient = \"app\"\ntier = \"gold\"\n",
        hash.written()
    );
    let document = joined(
        FILE,
        [
            route("a", "/a"),
            put("u", Kind::Upstream, 1, service),
            put("r", Kind::Route, 20, to_orders),
            put(
                "l",
                Kind::Limit,
                30,
                "[[limit]]\nname = \"slow\"\nby = \"client_ip\"\nrate = \"1/s\"\n",
            ),
            put(
                "t",
                Kind::Tiers,
                40,
                "[tiers.gold]\nrate = \"9/s\"\nburst = 9\n",
            ),
            put("k", Kind::ApiKey, 50, &key),
            put(
                "m",
                Kind::Access,
                55,
                "[[access]]\nname = \"pay\"\nfrom = \"orders\"\nto = \"payments\"\n",
            ),
            put(
                "test",
                Kind::Test,
                60,
                "[[test]]\nrequest = { path = \"/a\" }\nexpect = { route = \"a\" }\n",
            ),
        ],
    )
    .unwrap_or_else(|problems| panic!("{problems}"));
    let names: Vec<&str> = document
        .routes
        .iter()
        .map(|route| route.name.as_str())
        .collect();
    assert_eq!(names, ["own", "a", "/orders/*"]);
    assert_eq!(
        document.routes[2].begins().to_string(),
        "routes/shop.toml:20:1"
    );
    assert!(matches!(&document.upstreams[1].endpoints,
        EndpointSource::Service { name, with, .. } if name == "orders" && with == &[("version".to_owned(), "2".to_owned())]));
    assert_eq!(document.api_keys[0].key, hash);
    assert_eq!((document.tiers.len(), document.tests.len()), (1, 1));
    let access = &document.accesses[0];
    assert_eq!(access.begins().to_string(), "routes/shop.toml:55:1");
    assert_eq!(access.to_string(), "orders may ask for everything");
    let control_plane = document.control_plane.expect("written");
    assert_eq!(control_plane.node.as_deref(), Some("edge-1"));
    assert_eq!(control_plane.urls[0].address, "127.0.0.1:8080");
}

#[test]
fn the_same_name_from_both_is_a_problem_that_names_both_places() {
    let words = refusal(FILE, [route("own", "/other")]);
    assert!(
        words.contains(
            "routes/shop.toml:10:1: route `own` is defined here and at gateway.toml:10:1"
        ),
        "{words}"
    );
    let words = refusal(
        FILE,
        [put(
            "u",
            Kind::Upstream,
            3,
            "[[upstream]]\nname = \"own\"\nendpoints = [\"127.0.0.1:2\"]\n",
        )],
    );
    assert!(
        words.contains(
            "routes/shop.toml:3:1: upstream `own` is defined here and at gateway.toml:7:1"
        ),
        "{words}"
    );
    let tier = "[tiers.gold]\nrate = \"9/s\"\n";
    let words = refusal(&format!("{FILE}{tier}"), [put("t", Kind::Tiers, 3, tier)]);
    assert!(
        words.contains("tier `gold` is defined here and at gateway.toml"),
        "{words}"
    );
}

#[test]
fn a_problem_names_the_control_planes_line_and_shows_it() {
    let text = "[[route]]\nname = \"a\"\nmatch = { path = \"/a\" }\nupstreem = \"own\"\n";
    let words = refusal(FILE, [put("a", Kind::Route, 100, text)]);
    assert!(
        words.contains("routes/shop.toml:103:1: unknown key `upstreem` in [[route]]"),
        "{words}"
    );
    assert!(words.contains("| upstreem = \"own\""), "{words}");
    assert!(words.contains("did you mean `upstream`"), "{words}");
    let words = refusal(
        FILE,
        [put(
            "a",
            Kind::Route,
            100,
            "[[route]]\nname = \"a\nmatch = 1\n",
        )],
    );
    assert!(words.contains("routes/shop.toml:101:"), "{words}");
}

#[test]
fn what_a_feed_may_not_bring_is_refused() {
    let deep = format!("[[route]]\n{}a = 1\n", "a.".repeat(5000));
    let one = |kind, text: &str| refusal(FILE, [put("x", kind, 7, text)]);
    for (kind, text, word) in [
        (
            Kind::Route,
            "[server]\nworkers = 1\n",
            "belongs to the node's own file",
        ),
        (
            Kind::Route,
            "[[listener]]\nbind = \"127.0.0.1:0\"\n",
            "belongs to the node's own file",
        ),
        (
            Kind::Route,
            "[control_plane]\nurls = [\"http://a:1\"]\n",
            "belongs to the node's own file",
        ),
        (
            Kind::Route,
            "include = [\"/etc/*\"]\n",
            "is not one section",
        ),
        (Kind::Route, "", "is not one section"),
        (
            Kind::Route,
            "[[limit]]\nname = \"a\"\nby = \"route\"\nrate = \"1/s\"\n",
            "is of `limit`",
        ),
        (
            Kind::Limit,
            "[[limit]]\nname = \"a\"\nby = \"route\"\nrate = \"1/s\"\n[[limit]]\nname = \"b\"\nby = \"route\"\nrate = \"1/s\"\n",
            "is not one section",
        ),
        (
            Kind::ApiKey,
            "[[api_key]]\nkey = \"a-long-enough-key\"\nclient = \"c\"\n",
            "must not send a key",
        ),
        (
            Kind::Upstream,
            "[[upstream]]\nname = \"u\"\nendpoints = [\"127.0.0.1:1\"]\ntls = { ca = \"ca.pem\" }\n",
            "is not absolute",
        ),
        (
            Kind::Route,
            "[[route]]\nname = \"${env:SECRET}\"\nmatch = { path = \"/a\" }\nupstream = \"own\"\n",
            "sent no value for `${env:SECRET}`",
        ),
        (
            Kind::Route,
            "[[route]]\nname = \"${file:/etc/hostname}\"\nmatch = { path = \"/a\" }\nupstream = \"own\"\n",
            "sent no value",
        ),
        (Kind::Route, &deep, "too many dots"),
        (
            Kind::Route,
            "[[route]]\nname = \"a\"\nmatch = { path = \"/a\" }\nupstream = \"nowhere\"\n",
            "there is no upstream `nowhere`",
        ),
    ] {
        let words = one(kind, text);
        assert!(
            words.contains(word) && words.contains("routes/shop.toml:"),
            "{text}: {words}"
        );
    }
}

#[test]
fn a_reference_is_what_the_control_plane_says_it_is() {
    let mut one = put(
        "r",
        Kind::Route,
        1,
        "[[route]]\nname = \"${env:SECRET}\"\nmatch = { path = \"/a\" }\nupstream = \"own\"\n",
    );
    one.uses = vec![Use {
        reference: "env:SECRET".to_owned(),
        value: "theirs".to_owned(),
    }];
    let document = joined(FILE, [one]).expect("it was sent");
    assert_eq!(document.routes[1].name, "theirs");
}

#[test]
fn what_names_a_service_needs_somebody_to_ask() {
    let file =
        "[[listener]]\nbind = \"127.0.0.1:0\"\n[[upstream]]\nname = \"a\"\nservice = \"a\"\n";
    let words = loader()
        .load_text("g.toml", file, Path::new("/"))
        .expect_err("refused")
        .to_string();
    assert!(
        words.contains("g.toml:5:") && words.contains("`[control_plane]`"),
        "{words}"
    );
    for (urls, word) in [
        ("[]", "at least one"),
        ("[\"ftp://a\"]", "http"),
        ("[\"http://a/b\"]", "has a path"),
    ] {
        let file =
            format!("[[listener]]\nbind = \"127.0.0.1:0\"\n[control_plane]\nurls = {urls}\n");
        let words = loader()
            .load_text("g.toml", &file, Path::new("/"))
            .expect_err(urls)
            .to_string();
        assert!(words.contains(word), "{urls}: {words}");
    }
}

#[test]
fn a_changed_block_is_read_and_the_others_stay_the_same() {
    let mut loader = loader();
    let file = loader
        .load_text("gateway.toml", FILE, Path::new("/"))
        .expect("valid");
    let mut blocks = blocks((0..100).map(|n| route(&format!("r{n:02}"), &format!("/{n}"))));
    let first = loader.join(&file, &blocks.list()).expect("valid");
    blocks.put(route("r50", "/changed"));
    // A block whose place moved is still the same item.
    let mut moved = route("r60", "/60");
    moved.line = 2;
    blocks.put(moved);
    blocks.remove("route:r70");
    let second = loader.join(&file, &blocks.list()).expect("valid");
    let same = |name: &str| {
        let of = |document: &Document| {
            document
                .routes
                .iter()
                .find(|route| route.name == name)
                .map(|route| Arc::as_ptr(&route.value))
        };
        of(&first) == of(&second)
    };
    assert!((0..100).all(|n| same(&format!("r{n:02}")) != [50, 70].contains(&n)));
    assert_ne!(first.hash, second.hash);
    let again = loader.join(&file, &blocks.list()).expect("valid");
    assert_eq!(again.hash, second.hash);
}

fn piece() -> impl Strategy<Value = Option<(Kind, String)>> {
    let name = 0u8..4;
    let route = (name.clone(), name.clone(), name.clone()).prop_map(|(name, path, upstream)| {
        (Kind::Route, format!("[[route]]\nname = \"r{name}\"\nmatch = {{ path = \"/{path}\" }}\nupstream = \"u{upstream}\"\n"))
    });
    let nameless = (name.clone(), name.clone()).prop_map(|(path, host)| {
        (Kind::Route, format!("[[route]]\nmatch = {{ path = \"/n{path}\", host = \"h{host}\" }}\nrespond = {{ status = 200 }}\n"))
    });
    let upstream = (0u8..8, 1u16..3).prop_map(|(name, port)| {
        (
            Kind::Upstream,
            format!("[[upstream]]\nname = \"u{name}\"\nendpoints = [\"127.0.0.1:{port}\"]\n"),
        )
    });
    let tiers = name.prop_map(|name| (Kind::Tiers, format!("[tiers.t{name}]\nrate = \"1/s\"\n")));
    let odd = prop::sample::select(vec![
        (Kind::Route, "[[rout]]\n".to_owned()),
        (Kind::Limit, "[[route]]\n".to_owned()),
        (
            Kind::Test,
            "[[test]]\nrequest = { path = \"/1\" }\nexpect = { route = \"r1\" }\n".to_owned(),
        ),
        (Kind::Route, "x = [".to_owned()),
    ]);
    prop_oneof![
        3 => Just(None),
        8 => route.prop_map(Some),
        3 => nameless.prop_map(Some),
        6 => upstream.prop_map(Some),
        1 => tiers.prop_map(Some),
        1 => odd.prop_map(Some),
    ]
}

fn said(result: &Result<Document, Problems>) -> String {
    match result {
        Ok(document) => {
            let mut document = document.clone();
            document.keys = 0;
            format!("{document:#?}")
        }
        Err(problems) => problems.to_string(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever was joined before, a loader says what one says that has forgotten everything.
    #[test]
    fn what_is_remembered_decides_nothing(
        steps in prop::collection::vec((0u8..3, prop::collection::vec((0u8..10, 1u32..4, piece()), 1..6)), 1..8)
    ) {
        let mut known = loader();
        let mut blocks = Blocks::default();
        for (file, changes) in steps {
            for (id, line, change) in changes {
                match change {
                    Some((kind, text)) => blocks.put(put(&format!("b{id}"), kind, line, &text)),
                    None => drop(blocks.remove(&format!("b{id}"))),
                }
            }
            let file = match file {
                0 => FILE.to_owned(),
                1 => format!("{FILE}[[upstream]]\nname = \"u0\"\nendpoints = [\"127.0.0.1:9\"]\n"),
                _ => format!("{FILE}[[route]]\nmatch = {{ path = \"/n1\", host = \"h9\" }}\nupstream = \"own\"\n"),
            };
            let join = |loader: &mut Loader| {
                let file = loader.load_text("gateway.toml", &file, Path::new("/")).expect("valid");
                loader.join(&file, &blocks.list())
            };
            prop_assert_eq!(said(&join(&mut known)), said(&join(&mut loader())));
        }
    }
}
