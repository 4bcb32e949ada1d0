//! What a crowd met, as tables, and whether it is what was promised.

use std::fmt;

use super::Size;
use crate::summary::Summary;

/// Of requests, which may go without a good answer.
const MOST_ERRORS: f64 = 0.001;
const MEBIBYTE: f64 = (1 << 20) as f64;

/// A finished run.
#[derive(Debug)]
pub struct Report {
    pub size: Size,
    pub browse: Summary,
    pub order: Summary,
    /// Resident bytes at the end, by part.
    pub memory: Vec<(String, u64)>,
}

impl Report {
    /// Every goal that was missed, in words.
    pub fn missed(&self) -> Vec<String> {
        let mut missed = Vec::new();
        for (what, percentile, micros, goal) in [
            ("browse", "p95", self.browse.latency_micros.p95, 100.0),
            ("order", "p95", self.order.latency_micros.p95, 500.0),
            ("order", "p99", self.order.latency_micros.p99, 1000.0),
        ] {
            if micros / 1000.0 >= goal {
                let got = micros / 1000.0;
                missed.push(format!(
                    "{what} {percentile} is {got:.1} ms, not below {goal} ms"
                ));
            }
        }
        for (what, summary) in [("browse", &self.browse), ("order", &self.order)] {
            if share(summary) >= MOST_ERRORS {
                let (bad, all) = (summary.bad(), asked(summary));
                missed.push(format!(
                    "{what}: {bad} of {all} failed: {:?} {:?}",
                    summary.status, summary.failures
                ));
            }
        }
        missed
    }
}

fn asked(summary: &Summary) -> u64 {
    summary.requests + summary.failed
}

fn share(summary: &Summary) -> f64 {
    summary.bad() as f64 / asked(summary).max(1) as f64
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            out,
            "| {} customers | requests/s | p50 ms | p95 ms | p99 ms | failed | goal |",
            self.size.customers
        )?;
        writeln!(out, "|---|--:|--:|--:|--:|--:|---|")?;
        for (what, summary, goal) in [
            ("browse", &self.browse, "p95 < 100 ms"),
            ("order", &self.order, "p95 < 500 ms, p99 < 1 s"),
        ] {
            let at = &summary.latency_micros;
            let [p50, p95, p99] = [at.p50, at.p95, at.p99].map(|micros| micros / 1000.0);
            let (rate, failed) = (summary.requests_per_second, share(summary) * 100.0);
            writeln!(
                out,
                "| {what} | {rate:.0} | {p50:.1} | {p95:.1} | {p99:.1} | {failed:.2} % | {goal}, failed < 0.1 % |"
            )?;
        }
        writeln!(out, "\n| part | resident MiB |\n|---|--:|")?;
        for (part, bytes) in &self.memory {
            writeln!(out, "| {part} | {:.1} |", *bytes as f64 / MEBIBYTE)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::summary::Recorder;

    fn report(browse: u64, order: u64, status: u16) -> Report {
        let of = |millis, status| {
            let mut recorder = Recorder::default();
            for _ in 0..999 {
                recorder.answered(200, Duration::from_millis(millis));
            }
            recorder.answered(status, Duration::from_millis(millis));
            recorder.summary(Duration::from_secs(1))
        };
        Report {
            size: Size {
                customers: 200,
                rate: 1.0,
                orders: 0.5,
                warm_up: Duration::ZERO,
                span: Duration::from_secs(1),
            },
            browse: of(browse, 200),
            order: of(order, status),
            memory: vec![("gateway".into(), 1 << 20)],
        }
    }

    #[test]
    fn each_goal_can_be_missed() {
        assert_eq!(report(90, 450, 201).missed(), [""; 0]);
        for (report, words) in [
            (report(110, 450, 201), "browse p95"),
            (report(90, 550, 201), "order p95"),
            (report(90, 1100, 201), "order p99"),
            (report(90, 450, 503), "order: 1 of 1000 failed"),
        ] {
            let missed = report.missed();
            assert!(missed.iter().any(|one| one.contains(words)), "{missed:?}");
        }
    }

    #[test]
    fn tables_have_a_row_for_each_kind_and_each_part() {
        let text = report(90, 450, 201).to_string();
        for row in [
            "| browse | 1000 | 90",
            "| order | 1000 |",
            "| gateway | 1.0 |",
        ] {
            assert!(text.contains(row), "{text}");
        }
    }
}
