//! What the documentation says of the engine, held against the engine: a page that drifts away fails here.

use std::path::Path;
use std::sync::Arc;

use tollgate_config::Loader;
use tollgate_engine::exchange::error::Code;
use tollgate_engine::process::exit;
use tollgate_engine::snapshot;
use tollgate_engine::telemetry::metrics::Metrics;

fn page(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Headings of the second rank with what stands under them.
fn sections(page: &str) -> Vec<(&str, String)> {
    page.split("\n## ")
        .skip(1)
        .map(|section| {
            let (title, text) = section.split_once('\n').unwrap_or((section, ""));
            let words: Vec<&str> = text.split_whitespace().collect();
            (title.trim(), words.join(" "))
        })
        .collect()
}

fn grpc_word(number: u8) -> &'static str {
    match number {
        1 => "cancelled",
        3 => "invalid_argument",
        4 => "deadline_exceeded",
        7 => "permission_denied",
        8 => "resource_exhausted",
        12 => "unimplemented",
        13 => "internal",
        14 => "unavailable",
        16 => "unauthenticated",
        other => panic!("gRPC status {other} has no word here"),
    }
}

#[test]
fn every_error_code_has_its_section_in_the_order_of_the_list_and_no_section_has_no_code() {
    let page = page("docs/errors.md");
    let sections = sections(&page);
    let titles: Vec<_> = sections
        .iter()
        .map(|(title, _)| (*title).to_owned())
        .collect();
    let codes: Vec<_> = Code::ALL
        .iter()
        .map(|code| format!("`{}`", code.word()))
        .collect();
    assert_eq!(titles, codes);
}

#[test]
fn every_section_of_an_error_tells_its_statuses_its_phase_its_sentence_and_what_to_do() {
    let page = page("docs/errors.md");
    for (code, (title, text)) in Code::ALL.iter().zip(sections(&page)) {
        let facts = format!(
            "HTTP {} · gRPC {} {} · phase {} ",
            code.status().as_u16(),
            code.grpc(),
            grpc_word(code.grpc()),
            code.phase().word()
        );
        assert!(text.starts_with(&facts), "{title} should say: {facts}");
        let sentence = format!("{}.*", &code.sentence()[1..]);
        assert!(text.contains(&sentence), "{title} should say: {sentence}");
        assert!(text.contains("**What to do.** "), "{title}");
    }
}

#[test]
fn every_metric_is_listed_with_its_kind() {
    let page = page("docs/operations.md");
    let metrics = Arc::new(Metrics::new(1));
    let mut families = 0;
    for line in metrics.page().lines() {
        if let Some(family) = line.strip_prefix("# TYPE ") {
            let (name, kind) = family.split_once(' ').expect("a TYPE line has two words");
            let row = format!("| `{name}` | {kind} |");
            assert!(
                page.contains(&row),
                "docs/operations.md lacks the row {row}"
            );
            families += 1;
        }
    }
    assert!(families > 20, "only {families} families were found");
}

#[test]
fn every_exit_code_is_listed() {
    let page = page("docs/operations.md");
    for code in [
        exit::OK,
        exit::FAILURE,
        exit::BAD_DOCUMENT,
        exit::ADDRESS_IN_USE,
        exit::CUT,
    ] {
        assert!(page.contains(&format!("\n| {code} | ")), "exit code {code}");
    }
}

#[test]
fn the_document_of_the_readme_is_one_that_can_be_served() {
    let page = page("README.md");
    let text = page
        .split("```toml\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next())
        .expect("the README shows a document");
    let document = Loader::new()
        .load_text("README.md", text, Path::new(""))
        .expect("it is valid");
    assert!(snapshot::of(&document).is_ok());
    assert!(text.lines().count() <= 10, "ten lines are promised");
}

#[test]
fn no_page_leads_to_a_file_that_is_not_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut pages = vec![root.join("README.md"), root.join("CHANGELOG.md")];
    for entry in std::fs::read_dir(root.join("docs")).expect("there are docs") {
        pages.push(entry.expect("a folder can be listed").path());
    }
    for page in pages
        .iter()
        .filter(|page| page.extension().is_some_and(|kind| kind == "md"))
    {
        let text = std::fs::read_to_string(page).expect("a page can be read");
        for link in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            let file = link.split('#').next().unwrap_or_default();
            if file.is_empty() || file.contains("://") {
                continue;
            }
            let target = page.parent().expect("a file has a folder").join(file);
            assert!(target.exists(), "{} leads to {link}", page.display());
        }
    }
}

/// Every number of hostile input about protection has a test that bears it, in a file that `docs/testing.md` names.
#[test]
fn every_hostile_input_about_protection_has_a_test_that_names_it() {
    let page = page("docs/testing.md");
    for number in [26, 27, 28, 29, 30, 31, 32, 40, 48, 49, 50, 51, 59, 60] {
        let mut named = 0;
        for word in page.split('`').filter(|word| word.starts_with("engine/")) {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(word);
            for text in sources(&path) {
                let name = format!("hi_{number}_");
                let tests = text
                    .lines()
                    .filter(|line| line.trim_start().starts_with("fn "));
                named += tests.filter(|line| line.contains(&name)).count();
            }
        }
        assert!(named > 0, "HI-{number} has no test");
    }
}

/// The text of a file, or of every file in a folder.
fn sources(path: &Path) -> Vec<String> {
    let files = match std::fs::read_dir(path) {
        Ok(folder) => folder.flatten().map(|entry| entry.path()).collect(),
        Err(_) => vec![path.to_owned()],
    };
    let read = |file: &std::path::PathBuf| {
        std::fs::read_to_string(file)
            .unwrap_or_else(|error| panic!("docs/testing.md names {}: {error}", file.display()))
    };
    files
        .iter()
        .filter(|file| file.is_file())
        .map(read)
        .collect()
}
