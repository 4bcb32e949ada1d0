//! The grammar as a page to read: `docs/configuration.md` is this text, and a test compares the two.

use std::fmt::Write;

use crate::grammar::{Kind, Presence, Section, sections};

const INTRODUCTION: &str = r#"# Configuration

*This page is made from the grammar that the reader itself uses. To change it, change `config/src/grammar/` and run
`TOLLGATE_BLESS=1 cargo test -p tollgate-config`.*

A document is a TOML file. Every key has a default unless it is marked as required; unknown keys are refused, and all
problems are reported at once, each with its line and what to do.

## The smallest gateway

```toml
[[listener]]
bind = "127.0.0.1:8000"

[[route]]
match    = { path = "/*" }
upstream = "app"

[[upstream]]
name      = "app"
endpoints = ["127.0.0.1:9000"]
```

`config/gateway.toml` is a longer example.

## Values

| what | how |
|---|---|
| durations | a whole number and a unit: `"250ms"`, `"2s"`, `"1m"`, `"1h"` |
| rates | a whole number, a slash and a span of time: `"100/s"`, `"1000/m"`, `"5/15m"` |
| sizes | `"512B"`, `"64KiB"`, `"1MiB"`, `"1GiB"` |
| files | a relative path is relative to the file that it stands in |
| `${env:NAME}` | in any string: the environment variable; it must be set |
| `${env:NAME:-default}` | the same, with a default |
| `${file:PATH}` | the content of a file, without its last line end |
| `$${` | the two characters `${` |

References are replaced after the file was parsed, in values only, and never in what another reference put in. Where a
number or true/false is wanted, a string that holds a reference may stand for it.

"#;

/// The reference of all sections and keys, as Markdown.
pub fn reference() -> String {
    let tops = sections::TOP.iter().filter_map(|top| top.section);
    let mut page = of(
        INTRODUCTION,
        std::iter::once(&sections::PREAMBLE).chain(tops),
    );
    page.push_str(
        "## Not available in this build\n\nKnown by name, and refused rather than ignored:\n\n",
    );
    for top in sections::TOP.iter().filter(|top| top.section.is_none()) {
        let title = if top.list {
            format!("[[{}]]", top.name)
        } else {
            format!("[{}]", top.name)
        };
        line(&mut page, format_args!("- `{title}`: {}", top.doc));
    }
    line(
        &mut page,
        format_args!("- the keys marked \"not available in this build\" above"),
    );
    page
}

/// An introduction, then these sections with what is nested in them.
pub(crate) fn of(introduction: &str, sections: impl Iterator<Item = &'static Section>) -> String {
    let mut page = introduction.to_owned();
    page.push_str("## Sections\n\n");
    let mut seen: Vec<&str> = Vec::new();
    for section in sections {
        write_section(&mut page, section, &mut seen);
    }
    page
}

fn write_section(page: &mut String, section: &'static Section, seen: &mut Vec<&'static str>) {
    if seen.contains(&section.title) {
        return;
    }
    seen.push(section.title);
    let title = match section.title.starts_with("the ") {
        true => section.title.to_owned(),
        false => format!("`{}`", section.title),
    };
    line(page, format_args!("### {title}\n\n{}\n", section.doc));
    if section.named.is_none() {
        line(
            page,
            format_args!("| key | value | default | |\n|---|---|---|---|"),
        );
    }
    for key in section.keys {
        let default = match key.presence {
            Presence::Required => "**required**".to_owned(),
            Presence::Optional => String::new(),
            Presence::Default(value)
                if value.starts_with(|c: char| c.is_ascii_alphabetic()) && value != "false" =>
            {
                value.to_owned()
            }
            Presence::Default(value) => format!("`{value}`"),
        };
        line(
            page,
            format_args!(
                "| `{}` | {} | {default} | {} |",
                key.name,
                cell(&key.kind.words()),
                cell(key.doc)
            ),
        );
    }
    for group in section.one_of {
        line(page, format_args!("\nExactly one of {}.", quoted(group)));
    }
    for group in section.rivals {
        line(page, format_args!("\nAt most one of {}.", quoted(group)));
    }
    if section.named.is_none() {
        page.push('\n');
    }
    if let Some((_, kind)) = section.named {
        nested(page, kind, seen);
    }
    for key in section.keys {
        nested(page, &key.kind, seen);
    }
}

fn nested(page: &mut String, kind: &Kind, seen: &mut Vec<&'static str>) {
    match kind {
        Kind::Table(section) => write_section(page, section, seen),
        Kind::List(kind) | Kind::Map(_, kind) => nested(page, kind, seen),
        Kind::Either(kinds) => kinds.iter().for_each(|kind| nested(page, kind, seen)),
        _ => {}
    }
}

fn quoted(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn line(page: &mut String, arguments: std::fmt::Arguments<'_>) {
    writeln!(page, "{arguments}").expect("writing to a string cannot fail");
}
