//! Prometheus' text format 0.0.4: one `HELP` and one `TYPE` line per family, then its samples, labels escaped.
//!
//! Knows no series; the rooms beside it, and those of other programs, say what there is.

use std::fmt::{Display, Write as _};

/// What `GET /metrics` answers as its content type.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Names and values; names are ours, values are escaped.
pub type Labels<'a> = &'a [(&'a str, &'a str)];

/// What a family is.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// The page in the making.
#[derive(Debug, Default)]
pub struct Text {
    page: String,
    /// Of the family whose samples come next.
    name: &'static str,
    /// Of every sample that has no label of that name itself.
    common: Vec<(String, String)>,
}

impl Text {
    /// A page whose samples have these labels, too.
    pub fn with_labels(common: Vec<(String, String)>) -> Text {
        Text {
            common,
            ..Text::default()
        }
    }

    /// Opens a family. Every family is opened once.
    pub fn family(&mut self, name: &'static str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        self.name = name;
        self.write(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    pub fn sample(&mut self, labels: Labels<'_>, value: impl Display) {
        self.part("", labels, value);
    }

    /// A sample of a histogram: `_sum` or `_count`.
    pub fn part(&mut self, suffix: &str, labels: Labels<'_>, value: impl Display) {
        self.name(suffix);
        self.labels(labels, None);
        self.write(format_args!(" {value}\n"));
    }

    pub fn bucket(&mut self, labels: Labels<'_>, bound: &str, count: u64) {
        self.name("_bucket");
        self.labels(labels, Some(bound));
        self.write(format_args!(" {count}\n"));
    }

    pub fn finish(self) -> String {
        self.page
    }

    fn name(&mut self, suffix: &str) {
        self.page.push_str(self.name);
        self.page.push_str(suffix);
    }

    fn labels(&mut self, labels: Labels<'_>, bound: Option<&str>) {
        let mut before = '{';
        let own = |name: &str| labels.iter().any(|(known, _)| *known == name);
        let common = { self.common.iter() }
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .filter(|(name, _)| !own(name));
        for (name, value) in labels
            .iter()
            .copied()
            .chain(common)
            .chain(bound.map(|bound| ("le", bound)))
        {
            self.page.push(before);
            self.page.push_str(name);
            self.page.push_str("=\"");
            for letter in value.chars() {
                match letter {
                    '\\' => self.page.push_str("\\\\"),
                    '"' => self.page.push_str("\\\""),
                    '\n' => self.page.push_str("\\n"),
                    other => self.page.push(other),
                }
            }
            self.page.push('"');
            before = ',';
        }
        if before == ',' {
            self.page.push('}');
        }
    }

    fn write(&mut self, arguments: std::fmt::Arguments<'_>) {
        self.page
            .write_fmt(arguments)
            .expect("a String takes every write");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_labels_stand_on_every_sample_and_give_way_to_its_own_mesh_501() {
        let mut text = Text::with_labels(vec![("proxy".into(), "side\"car".into())]);
        text.family("things", Kind::Histogram, "Things.");
        text.sample(&[], 1);
        text.sample(&[("proxy", "own")], 2);
        text.bucket(&[("a", "b")], "5", 3);
        let page = text.finish();
        let samples: Vec<&str> = page.lines().skip(2).collect();
        assert_eq!(
            samples,
            [
                "things{proxy=\"side\\\"car\"} 1",
                "things{proxy=\"own\"} 2",
                "things_bucket{a=\"b\",proxy=\"side\\\"car\",le=\"5\"} 3",
            ]
        );
    }

    #[test]
    fn a_family_is_announced_once_and_its_labels_are_escaped() {
        let mut text = Text::default();
        text.family("things_total", Kind::Counter, "Things.");
        text.sample(&[("name", "a\"b\\c\nd")], 3);
        text.sample(&[], 4);
        assert_eq!(
            text.finish(),
            "# HELP things_total Things.\n# TYPE things_total counter\n\
             things_total{name=\"a\\\"b\\\\c\\nd\"} 3\nthings_total 4\n"
        );
    }
}
