//! A service's settings: each has a default, and comes from a TOML file, the environment or the command line; the later
//! one wins (PROD-9). A service lists its keys as data; help and refusals are made from the list.
//!
//! `http` of users is `http = "…"` in the file, `USERS_HTTP` in the environment and `--http` on the command line.

use std::{collections::BTreeMap, fmt::Write, str::FromStr, time::Duration};

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Lower case with `_`; `-` on the command line.
    pub name: &'static str,
    /// What holds when nothing is said.
    pub default: &'static str,
    /// For the help text, with the unit.
    pub about: &'static str,
}

/// A key; short, because each service has a table of them.
pub const fn key(name: &'static str, default: &'static str, about: &'static str) -> Key {
    Key {
        name,
        default,
        about,
    }
}

/// What every service can be told.
pub const COMMON: [Key; 10] = [
    key(
        "service_token",
        "",
        "the secret that callers show as `authorization: Bearer …` with `x-service-id`; empty: everyone who reaches the port is believed",
    ),
    key(
        "open",
        "false",
        "true: listen beyond loopback although service_token is empty",
    ),
    key("readers", "8", "database connections for reading"),
    key(
        "database_patience",
        "5s",
        "how long a request waits for a database connection, or for the one that writes",
    ),
    key(
        "drain",
        "30s",
        "how long requests in flight may take after SIGTERM",
    ),
    key("environment", "dev", "written into each log line"),
    key("log_level", "info", "debug, info, warn or error"),
    key("log_format", "json", "json or text"),
    key(
        "sample_data",
        "false",
        "true: fill an empty database with sample data",
    ),
    key(
        "migrate",
        "true",
        "false: do not bring the database up to date at start; `migrate up` does",
    ),
];

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Serve until told to stop.
    Run,
    /// Bring the database to the newest version, or one version back.
    Migrate {
        /// Forward.
        up: bool,
    },
    /// Write the descriptor set to this file.
    Descriptors(String),
    /// Show the settings.
    Help,
}

/// All settings of one service, each with a value.
#[derive(Clone, Debug)]
pub struct Settings {
    service: &'static str,
    values: BTreeMap<&'static str, String>,
}

impl Settings {
    /// From the command line without the program's name, and the environment. The error lists all that is wrong.
    pub fn read(
        service: &'static str,
        keys: &[&[Key]],
        arguments: impl IntoIterator<Item = String>,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<(Command, Self), String> {
        let keys = || keys.iter().copied().flatten();
        let known = |name: &str| keys().find(|key| key.name == name).map(|key| key.name);
        let mut problems = String::new();
        let mut command = Command::Run;
        let mut flags = BTreeMap::new();
        let mut file = environment(&variable(service, "config"));

        let mut arguments = arguments.into_iter().peekable();
        while let Some(argument) = arguments.next() {
            let Some(flag) = argument.strip_prefix("--") else {
                match (
                    argument.as_str(),
                    arguments.next_if(|next| !next.starts_with("--")),
                ) {
                    ("run", None) => command = Command::Run,
                    ("migrate", Some(way)) if way == "up" || way == "down" => {
                        command = Command::Migrate { up: way == "up" };
                    }
                    ("descriptors", Some(file)) => command = Command::Descriptors(file),
                    ("help", _) => command = Command::Help,
                    _ => {
                        problem(
                            &mut problems,
                            format_args!(
                                "`{argument}` is no command: run, migrate up, migrate down, descriptors FILE, help"
                            ),
                        );
                    }
                }
                continue;
            };
            let (name, value) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value.to_string())),
                None => (flag, arguments.next_if(|next| !next.starts_with("--"))),
            };
            let name = name.replace('-', "_");
            match (name.as_str(), value) {
                ("help", _) => command = Command::Help,
                ("config", Some(value)) => file = Some(value),
                ("descriptors", Some(value)) => command = Command::Descriptors(value),
                (name, value) => match (known(name), value) {
                    (Some(name), Some(value)) => {
                        flags.insert(name, value);
                    }
                    // A flag without a value switches something on.
                    (Some(name), None) => {
                        flags.insert(name, "true".into());
                    }
                    (None, _) => problem(
                        &mut problems,
                        format_args!("`--{flag}` is unknown; `help` lists all settings"),
                    ),
                },
            }
        }

        let mut values: BTreeMap<_, _> = keys()
            .map(|key| (key.name, key.default.to_string()))
            .collect();
        if let Some(path) = file {
            for (name, value) in read_file(&path)? {
                match known(&name) {
                    Some(name) => {
                        values.insert(name, value);
                    }
                    None => problem(
                        &mut problems,
                        format_args!("{path}: `{name}` is unknown; `help` lists all settings"),
                    ),
                }
            }
        }
        for key in keys() {
            if let Some(value) = environment(&variable(service, key.name)) {
                values.insert(key.name, value);
            }
        }
        values.extend(flags);
        if problems.is_empty() {
            Ok((command, Self { service, values }))
        } else {
            Err(problems)
        }
    }

    /// The service's name.
    pub fn service(&self) -> &'static str {
        self.service
    }

    /// A text. The name must be one of the service's keys.
    pub fn text(&self, name: &str) -> &str {
        self.values.get(name).map_or("", String::as_str)
    }

    /// A number, `true`/`false`, an address: whatever reads itself from text.
    pub fn value<T: FromStr>(&self, name: &str) -> Result<T, String> {
        let text = self.text(name);
        text.parse()
            .map_err(|_| format!("`{name}`: `{text}` cannot be read; `help` says what it means"))
    }

    /// A span such as `250ms`, `30s`, `15m`, `24h`, `7d`.
    pub fn span(&self, name: &str) -> Result<Duration, String> {
        let text = self.text(name);
        span(text).ok_or_else(|| {
            format!("`{name}`: `{text}` is no span of time such as 250ms, 30s, 15m, 24h or 7d")
        })
    }
}

/// What `help` prints.
pub fn help(service: &str, keys: &[&[Key]]) -> String {
    let mut text = format!(
        "The {service} service of the example shop.\n\n  run (default)           serve\n  migrate up | down       change the database's version\n  \
         descriptors FILE        write the contracts as a descriptor set\n\nSettings, as --name VALUE, {} or in the TOML file of --config:\n",
        variable(service, "NAME")
    );
    for key in keys.iter().copied().flatten() {
        let default = if key.default.is_empty() {
            "\"\""
        } else {
            key.default
        };
        let name = key.name.replace('_', "-");
        // Writing into a `String` cannot fail.
        writeln!(text, "  --{name:<22} {} [{default}]", key.about).ok();
    }
    text
}

fn variable(service: &str, name: &str) -> String {
    format!("{service}_{name}").to_uppercase()
}

fn problem(problems: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing into a `String` cannot fail.
    writeln!(problems, "{text}").ok();
}

fn read_file(path: &str) -> Result<Vec<(String, String)>, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
    let table: toml::Table = text.parse().map_err(|error| format!("{path}: {error}"))?;
    table
        .into_iter()
        .map(|(name, value)| match value {
            toml::Value::String(text) => Ok((name, text)),
            toml::Value::Integer(number) => Ok((name, number.to_string())),
            toml::Value::Boolean(flag) => Ok((name, flag.to_string())),
            _ => Err(format!(
                "{path}: `{name}` must be a text, a whole number, true or false"
            )),
        })
        .collect()
}

fn span(text: &str) -> Option<Duration> {
    let split = text.find(|letter: char| !letter.is_ascii_digit())?;
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().ok()?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(millis).map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [Key; 2] = [key("http", "127.0.0.1:1", ""), key("drain", "30s", "")];

    fn read(arguments: &[&str], variables: &[(&str, &str)]) -> Result<(Command, Settings), String> {
        Settings::read(
            "users",
            &[&KEYS],
            arguments.iter().map(ToString::to_string),
            |name| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| value.to_string())
            },
        )
    }

    #[test]
    fn the_command_line_beats_the_environment_which_beats_the_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "http = \"file\"\ndrain = \"1s\"\n").unwrap();
        let path = file.path().to_str().unwrap();
        let http = |arguments: &[&str], variables: &[(&str, &str)]| {
            let (_, settings) = read(arguments, variables).unwrap();
            assert!(arguments.len() < 2 || settings.span("drain") == Ok(Duration::from_secs(1)));
            settings.text("http").to_string()
        };
        assert_eq!(http(&[], &[]), "127.0.0.1:1");
        assert_eq!(http(&["--config", path], &[]), "file");
        assert_eq!(http(&["--config", path], &[("USERS_HTTP", "env")]), "env");
        assert_eq!(
            http(&["--config", path, "--http=flag"], &[("USERS_HTTP", "env")]),
            "flag"
        );
    }

    #[test]
    fn every_unknown_word_is_named_at_once() {
        let problems = read(&["--htp", "x", "serve"], &[]).unwrap_err();
        assert!(
            problems.contains("--htp") && problems.contains("serve"),
            "{problems}"
        );
    }

    #[test]
    fn commands_are_told_from_settings() {
        assert_eq!(
            read(&["migrate", "down"], &[]).unwrap().0,
            Command::Migrate { up: false }
        );
        assert_eq!(
            read(&["--descriptors", "x.binpb"], &[]).unwrap().0,
            Command::Descriptors("x.binpb".into())
        );
    }

    #[test]
    fn spans_have_a_unit() {
        assert_eq!(span("15m"), Some(Duration::from_secs(900)));
        assert_eq!(span("7d"), Some(Duration::from_secs(604_800)));
        assert_eq!(
            (span("15"), span("m"), span("99999999999999999999d")),
            (None, None, None)
        );
    }
}
