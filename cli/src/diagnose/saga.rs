//! What is wrong with a saga, for people (SHOP-512).

use std::fmt::Write as _;

use serde_json::Value;

use super::{advice, words};
use crate::status::{list, word};
use crate::table::{row, table};

pub(super) fn told(report: &Value) -> String {
    let mut text = summary(report);
    let mut rows = vec![row(&["STEP", "SERVICE", "STATUS", "TRIES", "ERROR"])];
    for step in list(&report["steps"]) {
        rows.push(row(&[
            &word(&step["name"]),
            &word(&step["service"]),
            &word(&step["status"]),
            &word(&step["retry_count"]),
            step["error"]["reason"].as_str().unwrap_or_default(),
        ]));
    }
    if rows.len() > 1 {
        text += &format!("\n{}", table("", &rows));
    }
    for one in list(&report["system_state"]) {
        let _infallible = writeln!(
            text,
            "{} {}: {} (expected: {})",
            match one["consistent"] == true {
                true => "agrees:",
                false => "DIFFERS:",
            },
            word(&one["service"]),
            word(&one["actual"]),
            word(&one["expected"])
        );
    }
    text + &advice("what can be done:", &report["recommendations"])
}

/// Without its steps, as a part of another report.
pub(super) fn summary(report: &Value) -> String {
    format!(
        "saga {} of order {}: {}\n\nstatus         {} ({})\nfailed step    {}\ncompleted      {}\ncompensation   {}\nconsistent     {}\nroot cause     {}\n",
        word(&report["saga_id"]),
        word(&report["order_id"]),
        match report["well"] == true {
            true => "well",
            false => "something is to be done",
        },
        word(&report["status"]),
        word(&report["outcome"]).replace('_', " "),
        report["failed_step"].as_str().unwrap_or("none"),
        words(&report["completed_steps"], "none"),
        compensation(&report["compensation"]),
        match (
            report["consistency"]["compared"] == true,
            report["consistency"]["overall"] == true
        ) {
            (false, _) => "not compared: it has not ended",
            (true, true) => "yes",
            (true, false) => "no",
        },
        word(&report["root_cause"]),
    )
}

fn compensation(one: &Value) -> String {
    if one["started_at"].is_null() {
        return "none".to_owned();
    }
    let names = |which: &str| {
        let steps = list(&one[which]).iter().map(|undo| word(&undo["step"]));
        let steps: Vec<String> = steps.collect();
        match steps.is_empty() {
            true => "none".to_owned(),
            false => steps.join(", "),
        }
    };
    format!(
        "done: {}; waiting: {}; failed: {}",
        names("succeeded"),
        names("pending"),
        names("failed")
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_saga_is_told_with_its_steps_and_what_can_be_done_shop_512() {
        let report = json!({
            "saga_id": "s-1", "order_id": "o-1", "well": false, "status": "failed", "outcome": "stuck",
            "failed_step": "ProcessPayment", "completed_steps": ["ValidateUser"],
            "compensation": { "started_at": "t", "failed": [{ "step": "ReserveInventory" }] },
            "consistency": { "compared": true, "overall": false },
            "root_cause": "step ProcessPayment failed",
            "steps": [{ "name": "ProcessPayment", "service": "payments", "status": "failed", "retry_count": 3,
                "error": { "reason": "UNAVAILABLE" } }],
            "system_state": [{ "service": "products", "expected": "nothing held", "actual": "held", "consistent": false }],
            "recommendations": [{ "text": "retry: try again (needs: products; risk low)" }],
        });
        let text = told(&report);
        for expected in [
            "saga s-1 of order o-1: something is to be done",
            "failed (stuck)",
            "failed: ReserveInventory",
            "consistent     no",
            "UNAVAILABLE",
            "DIFFERS: products: held (expected: nothing held)",
            "risk low",
        ] {
            assert!(text.contains(expected), "{expected}\n{text}");
        }
    }
}
