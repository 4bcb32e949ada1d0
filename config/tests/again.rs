//! What a loader remembers decides nothing: after any change, and after any other, it reads what one reads that has
//! forgotten everything.

use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use tollgate_config::{Document, Loader, Problems};

fn few() -> impl Strategy<Value = u8> {
    0u8..6
}

/// Blocks and lines that documents are made of, good ones more often than bad ones.
fn piece() -> impl Strategy<Value = String> {
    let number = 0u8..40;
    // Two are always there.
    let named = prop::sample::select(vec![0, 0, 0, 0, 1, 1, 1, 1, 1, 2]);
    let route = (number.clone(), number.clone(), named).prop_map(|(name, path, upstream)| {
        format!("[[route]]\nname = \"r{name}\"\nmatch = {{ path = \"/{path}\" }}\nupstream = \"u{upstream}\"\n")
    });
    let nameless = (number.clone(), number.clone()).prop_map(|(path, host)| {
        format!("\n[[route]]\nmatch = {{ path = \"/n{path}\", host = \"h{host}\" }}\nrespond = {{ status = 200 }}\n")
    });
    let upstream = (2u8..9, 1u16..4).prop_map(|(name, port)| {
        format!("[[upstream]]\nname = \"u{name}\"\nendpoints = [\"127.0.0.1:{port}\"]\n# end\n")
    });
    let listener = number.clone().prop_map(|name| {
        format!("[[listener]]\nname = \"l{name}\"\nbind = \"127.0.0.1:80{name}\"\n")
    });
    let test = (number.clone(), number).prop_map(|(path, route)| {
        format!(
            "[[test]]\nrequest = {{ path = \"/{path}\" }}\nexpect = {{ route = \"r{route}\" }}\n"
        )
    });
    let limit = (few(), 1u8..9).prop_map(|(name, rate)| {
        format!("[[limit]]\nname = \"m{name}\"\nrate = \"{rate}/s\"\n[[route]]\nname = \"limited-{name}\"\nmatch = {{ path = \"/limited/{name}\" }}\nupstream = \"u0\"\nfilters = [{{ rate_limit = \"m{name}\" }}]\n")
    });
    let key = (few(), few()).prop_map(|(client, key)| {
        format!("[[api_key]]\nkey = \"sixteen-characters-{key}\"\nclient = \"c{client}\"\ntier = \"free\"\n")
    });
    let odd = prop::sample::select(vec![
        "[server]\n",
        "[server]\nworkers = 2\n",
        "[telemetry]\n",
        "[route.retry]\nattempts = 1\n",
        "[upstream.health]\n",
        "[[rout]]\n",
        "timeout = \"1s\"\n",
        "timeout = \"${env:A}\"\n",
        "max_body = \"${env:B:-1 MiB}\"\n",
        "route = []\n",
        "include = [\"missing.toml\"]\n",
        "\n\n",
        "x = \"\"\"\n",
        "\"\"\"\n",
        "x = [\n",
        "a.a.a.a.a.a.a.a.a.a.a.a = 1\n",
        "\u{feff}",
    ]);
    prop_oneof![
        12 => route,
        6 => nameless,
        3 => upstream,
        1 => listener,
        1 => test,
        2 => limit,
        2 => key,
        1 => odd.prop_map(str::to_owned),
    ]
}

#[derive(Debug, Clone)]
enum Change {
    /// Pieces out, pieces in.
    Pieces(prop::sample::Index, usize, Vec<String>),
    /// The same for characters; what comes is undone with the next change.
    Characters(prop::sample::Index, usize, &'static str),
    Environment(&'static str),
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<prop::sample::Index>;
    let characters = prop::sample::select(vec!["", "\n", "[", "\"", "x", "#", "1", "\u{e9}"]);
    prop_oneof![
        4 => (at(), 0usize..2, prop::collection::vec(piece(), 0..4))
            .prop_map(|(at, out, pieces)| Change::Pieces(at, out, pieces)),
        2 => (at(), 0usize..4, characters).prop_map(|(at, out, put)| Change::Characters(at, out, put)),
        1 => prop::sample::select(vec!["1s", "2s", "?"]).prop_map(Change::Environment),
    ]
}

/// As many cases as `TOLLGATE_FUZZ_CASES` says, and `least` without it.
fn cases(least: u32) -> ProptestConfig {
    let more = std::env::var("TOLLGATE_FUZZ_CASES").ok();
    let cases = more.and_then(|text| text.parse().ok()).unwrap_or(least);
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(cases.max(least))
    }
}

const FRAME: &str = "[[listener]]\nbind = \"127.0.0.1:1\"\n[[upstream]]\nname = \"u0\"\nendpoints = [\"127.0.0.1:1\"]\n\
                     [[upstream]]\nname = \"u1\"\nendpoints = [\"127.0.0.1:2\"]\n";

/// Everything that a document says, with its lines.
fn told(result: &Result<Document, Problems>) -> String {
    format!("{result:#?}")
}

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn a_loader_that_remembers_reads_what_a_fresh_one_reads(
        mut pieces in prop::collection::vec(piece(), 0..4),
        changes in prop::collection::vec((change(), prop::bool::weighted(0.7)), 1..20),
    ) {
        let environment = Arc::new(std::sync::Mutex::new("1s"));
        let loader = || {
            let environment = environment.clone();
            Loader::with_environment(move |name| {
                (name == "A").then(|| (*environment.lock().unwrap()).to_owned())
            })
        };
        let mut old = loader();
        pieces.insert(0, FRAME.to_owned());
        for (change, corrected) in changes {
            let before = pieces.clone();
            let mut text = pieces.concat();
            match change {
                Change::Pieces(at, out, new) => {
                    let at = at.index(pieces.len() + 1);
                    let end = (at + out).min(pieces.len());
                    pieces.splice(at..end, new);
                    text = pieces.concat();
                }
                Change::Characters(at, out, put) => {
                    let mut characters: Vec<char> = text.chars().collect();
                    let at = at.index(characters.len() + 1);
                    let end = (at + out).min(characters.len());
                    characters.splice(at..end, put.chars());
                    text = characters.into_iter().collect();
                }
                Change::Environment(value) => *environment.lock().unwrap() = value,
            }
            let folder = Path::new("/nowhere");
            let again = old.load_text("test.toml", &text, folder);
            let fresh = loader().load_text("test.toml", &text, folder);
            prop_assert_eq!(told(&again), told(&fresh), "{}", text);
            if fresh.is_err() && corrected {
                pieces = before;
            }
        }
    }
}

/// Items that were not touched are the same `Arc`s, wherever they went within their file.
#[test]
fn what_moved_within_its_file_is_the_same() {
    let route = |n: usize| {
        format!("[[route]]\nname = \"r{n}\"\nmatch = {{ path = \"/{n}\" }}\nupstream = \"u0\"\n\n")
    };
    let text =
        |order: &[usize]| FRAME.to_owned() + &order.iter().map(|n| route(*n)).collect::<String>();
    let mut loader = Loader::with_environment(|_| None);
    let mut load = |order: &[usize]| {
        loader
            .load_text("test.toml", &text(order), Path::new("/"))
            .expect("valid")
    };
    let before = load(&[0, 1, 2, 3, 4]);
    let after = load(&[3, 0, 5, 2, 4]);
    for (new, old) in [(0, 3), (1, 0), (3, 2), (4, 4)] {
        assert!(Arc::ptr_eq(
            &after.routes[new].value,
            &before.routes[old].value
        ));
    }
}

/// Several files, of which some come, change and go.
#[test]
fn included_files_may_come_change_and_go() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("main.toml");
    let write =
        |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("written");
    let route = |name: &str, path: &str| {
        format!(
            "[[route]]\nname = \"{name}\"\nmatch = {{ path = \"/{path}\" }}\nupstream = \"u0\"\n"
        )
    };
    write(
        "main.toml",
        &format!("include = [\"part-*.toml\"]\n{FRAME}"),
    );
    write("part-a.toml", &route("a", "a"));
    let mut old = Loader::with_environment(|_| None);
    let mut same = |good: bool| {
        let again = old.load(&path);
        let fresh = Loader::with_environment(|_| None).load(&path);
        assert_eq!(told(&again), told(&fresh));
        assert_eq!(again.is_ok(), good);
    };
    same(true);
    write("part-b.toml", &route("b", "b"));
    same(true);
    write("part-b.toml", &route("a", "b"));
    same(false);
    same(false);
    write("part-b.toml", &route("b", "a"));
    same(false);
    std::fs::remove_file(folder.path().join("part-a.toml")).expect("removed");
    same(true);
    write("part-c.toml", &route("c", "a"));
    same(false);
    write("part-b.toml", "\"");
    same(false);
    write("part-b.toml", &route("b", "b").replace("u0", "u7"));
    same(false);
    write("part-b.toml", &route("b", "b"));
    same(true);
}
