//! The shop's edge policy, `config/shop`: that it is good, that each route is what its `[[test]]` says (SHOP-801), and that
//! the routes under `/api` and `/api/v1` are those of `routes.toml` (DEC-35).

use std::path::{Path, PathBuf};
use std::process::Command;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/shop")
}

/// The same routes under a prefix, with names of their own.
fn under(prefix: &str, tag: &str, routes: &str) -> String {
    let mut text = format!(
        "# Made from routes.toml: the same under {prefix}. `TOLLGATE_BLESS=1 cargo test -p tollgate --test shop` writes it again.\n\n"
    );
    let begins = routes.find("[[route]]").expect("there are routes");
    for line in routes[begins..].lines() {
        let named = |key: &str| {
            line.strip_prefix(key)
                .and_then(|rest| rest.strip_prefix('"'))
        };
        if let Some(rest) = named("name     = ") {
            let name = rest.trim_end_matches('"');
            text += &format!("name     = \"{name}{tag}\"");
        } else if let Some(rest) = named("match    = { path = ") {
            text += &format!("match    = {{ path = \"{prefix}{rest}");
        } else if line.starts_with("upstream = ") {
            text += &format!("rewrite  = {{ strip_prefix = \"{prefix}\" }}\n{line}");
        } else if line.starts_with("request = ") {
            text += &line.replace("path = \"", &format!("path = \"{prefix}"));
        } else if line.starts_with("expect  = ") {
            text += &line.replacen("\", upstream", &format!("{tag}\", upstream"), 1);
        } else {
            text += line;
        }
        text.push('\n');
    }
    text
}

#[test]
fn dec_35_the_routes_under_api_are_the_bare_ones() {
    let routes = std::fs::read_to_string(folder().join("routes.toml")).unwrap();
    for (file, prefix, tag) in [
        ("api.toml", "/api", "-api"),
        ("api-v1.toml", "/api/v1", "-api-v1"),
    ] {
        let (path, wanted) = (folder().join(file), under(prefix, tag, &routes));
        if std::env::var_os("TOLLGATE_BLESS").is_some() {
            std::fs::write(&path, &wanted).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap();
        assert!(
            found == wanted,
            "config/shop/{file} is stale: set TOLLGATE_BLESS=1"
        );
    }
}

#[test]
fn shop_801_the_shop_s_edge_is_good_and_every_request_takes_its_route() {
    let place = tempfile::tempdir().unwrap();
    let descriptors = place.path().join("shop.binpb");
    std::fs::write(
        &descriptors,
        tollgate_example_services::contracts::DESCRIPTORS,
    )
    .unwrap();
    let checked = Command::new(env!("CARGO_BIN_EXE_tollgate"))
        .args(["gateway", "check"])
        .arg(folder().join("gateway.toml"))
        .env("SHOP_DESCRIPTORS", &descriptors)
        .output()
        .unwrap();
    let told = [checked.stdout.as_slice(), &checked.stderr].concat();
    let told = String::from_utf8_lossy(&told);
    assert!(checked.status.success(), "{told}");
    assert!(told.contains("85 tests"), "{told}");
}
