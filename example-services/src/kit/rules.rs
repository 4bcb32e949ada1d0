//! Rules for fields, and all that break one at once (SHOP-805). A rule says what is wrong in words that follow the field's
//! name: "street: is missing".

use uuid::Uuid;

use super::{refusal::Refusal, time};

/// Collects what is wrong with a request.
#[derive(Debug, Default)]
pub struct Fields(Vec<(String, String)>);

impl Fields {
    /// This field is wrong.
    pub fn wrong(&mut self, field: &str, what: impl Into<String>) {
        self.0.push((field.into(), what.into()));
    }

    /// Keeps the value of a rule, or what it says against it.
    pub fn take<T>(&mut self, field: &str, value: Result<T, impl Into<String>>) -> Option<T> {
        value.map_err(|what| self.wrong(field, what)).ok()
    }

    /// A text of so many characters, without control characters (line breaks and tabs may be), trimmed.
    pub fn text(&mut self, field: &str, value: &str, least: usize, most: usize) -> String {
        let value = value.trim();
        let count = value.chars().count();
        if count < least {
            self.wrong(
                field,
                if count == 0 {
                    "is missing".into()
                } else {
                    format!("needs at least {least} characters")
                },
            );
        } else if count > most {
            self.wrong(field, format!("has more than {most} characters"));
        } else if value
            .chars()
            .any(|letter| letter.is_control() && !matches!(letter, '\n' | '\r' | '\t'))
        {
            self.wrong(field, "has control characters");
        }
        value.to_string()
    }

    /// A UUID.
    pub fn id(&mut self, field: &str, value: &str) -> Uuid {
        match Uuid::try_parse(value) {
            // Other spellings than with hyphens would make two names of one thing.
            Ok(id) if value.len() == 36 => id,
            _ => {
                self.wrong(
                    field,
                    if value.is_empty() {
                        "is missing"
                    } else {
                        "is not a UUID"
                    },
                );
                Uuid::nil()
            }
        }
    }

    /// A number within bounds.
    pub fn number(&mut self, field: &str, value: i32, least: i32, most: i32) -> i64 {
        if !(least..=most).contains(&value) {
            self.wrong(field, format!("must be {least} to {most}"));
        }
        value.into()
    }

    /// Three capitals, ISO 3166-1 alpha-3 (DEC-41), or ISO 4217.
    pub fn three_letters(&mut self, field: &str, value: &str) {
        if value.len() != 3 || !value.bytes().all(|byte| byte.is_ascii_uppercase()) {
            self.wrong(
                field,
                if value.is_empty() {
                    "is missing"
                } else {
                    "must be three capital letters"
                },
            );
        }
    }

    /// An address's state and zip code, by the rules of its country (SHOP-805).
    pub fn region(&mut self, prefix: &str, state: &str, zip: &str, country: &str) {
        let state_field = format!("{prefix}state");
        let zip_field = format!("{prefix}zip_code");
        if country == "USA" {
            if state.len() != 2 || !state.bytes().all(|byte| byte.is_ascii_alphabetic()) {
                self.wrong(&state_field, "must be two letters");
            }
            let digits = |part: &str, count| {
                part.len() == count && part.bytes().all(|byte| byte.is_ascii_digit())
            };
            let good = match zip.split_once('-') {
                Some((five, four)) => digits(five, 5) && digits(four, 4),
                None => digits(zip, 5),
            };
            if !good {
                self.wrong(&zip_field, "must be NNNNN or NNNNN-NNNN");
            }
        } else {
            self.text(&state_field, state, 1, 20);
            self.text(&zip_field, zip, 1, 20);
        }
    }

    /// `YYYY-MM-DD`, a day that exists.
    pub fn date(&mut self, field: &str, value: &str) {
        let number = |from: usize, to: usize| {
            value
                .get(from..to)
                .and_then(|part| part.parse::<i64>().ok())
        };
        let shape = value.len() == 10
            && value.bytes().enumerate().all(|(at, byte)| {
                if at == 4 || at == 7 {
                    byte == b'-'
                } else {
                    byte.is_ascii_digit()
                }
            });
        let good = shape
            && match (number(0, 4), number(5, 7), number(8, 10)) {
                (Some(year), Some(month @ 1..=12), Some(day)) => {
                    (1..=time::days_in_month(year, month)).contains(&day)
                }
                _ => false,
            };
        if !good {
            self.wrong(field, "is no day such as 1990-12-31");
        }
    }

    /// An address of the web.
    pub fn web_address(&mut self, field: &str, value: &str) {
        let scheme = value.starts_with("https://") || value.starts_with("http://");
        if value.len() > 2000 || !scheme || !value.bytes().all(|byte| byte.is_ascii_graphic()) {
            self.wrong(field, "is no http address of at most 2000 bytes");
        }
    }

    /// Nothing is wrong, or all of it.
    pub fn check(self) -> Result<(), Refusal> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(Refusal::fields(self.0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(rule: impl FnOnce(&mut Fields)) -> bool {
        let mut fields = Fields::default();
        rule(&mut fields);
        fields.check().is_err()
    }

    #[test]
    fn zip_codes_of_the_usa_are_checked_and_others_are_not() {
        for (zip, bad) in [
            ("12345", false),
            ("12345-6789", false),
            ("1234", true),
            ("12345-", true),
            ("١٢٣٤٥", true),
        ] {
            assert_eq!(
                wrong(|fields| fields.region("", "CA", zip, "USA")),
                bad,
                "{zip}"
            );
        }
        assert!(!wrong(|fields| fields.region(
            "",
            "Île-de-France",
            "75001",
            "FRA"
        )));
        assert!(wrong(|fields| fields.region("", "", "75001", "FRA")));
    }

    #[test]
    fn days_exist() {
        for (day, bad) in [
            ("2000-02-29", false),
            ("1900-02-29", true),
            ("2026-13-01", true),
            ("2026-1-01", true),
            ("+026-01-01", true),
        ] {
            assert_eq!(wrong(|fields| fields.date("day", day)), bad, "{day}");
        }
    }

    #[test]
    fn ids_have_one_spelling() {
        assert!(!wrong(|fields| {
            fields.id("id", "0190a1b2-0000-7000-8000-000000000000");
        }));
        assert!(wrong(|fields| {
            fields.id("id", "0190a1b2000070008000000000000000");
        }));
        assert!(wrong(|fields| {
            fields.id("id", "{0190a1b2-0000-7000-8000-000000000000}");
        }));
    }

    #[test]
    fn texts_are_measured_in_characters() {
        assert!(!wrong(|fields| {
            fields.text("name", "äöü", 1, 3);
        }));
        assert!(wrong(|fields| {
            fields.text("name", "   ", 1, 3);
        }));
        assert!(wrong(|fields| {
            fields.text("name", "a\0b", 1, 3);
        }));
    }
}
