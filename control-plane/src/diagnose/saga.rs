//! What is wrong with a saga, and what to do about it (CP-304, SHOP-512): what the service tells that drives it, as a
//! report in plain words. Pure.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Advice;

/// Things of one list of a saga that are read.
const MOST: usize = 100;

/// A saga as its service tells it; what is not told is empty.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Saga {
    pub saga_id: String,
    pub order_id: String,
    pub user_id: String,
    pub status: String,
    pub settled: bool,
    pub created_at: String,
    pub updated_at: String,
    pub steps: Vec<Step>,
    pub failed_step: Option<String>,
    pub completed_steps: Vec<String>,
    pub error: Option<Failure>,
    pub compensation: Compensation,
    pub recovery_options: Vec<Recovery>,
    /// What each service holds, compared with what it should hold.
    pub system_state: Vec<Held>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Step {
    pub name: String,
    pub service: String,
    pub compensation: String,
    pub status: String,
    pub retry_count: u64,
    pub in_doubt: bool,
    pub started_at: Option<String>,
    pub completed_at: Option<String>,
    pub error: Option<Failure>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Failure {
    pub reason: String,
    pub message: String,
    pub temporary: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Compensation {
    pub started_at: Option<String>,
    pub attempts: u64,
    pub succeeded: Vec<Undone>,
    pub pending: Vec<Undone>,
    pub failed: Vec<Undone>,
    pub manual_intervention_required: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Undone {
    pub step: String,
    pub tries: u64,
    pub error: Option<Failure>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Recovery {
    /// `retry`, `compensate` or `manual`.
    #[serde(rename = "type")]
    pub kind: String,
    pub description: String,
    pub requirements: String,
    /// `low`, `medium` or `high`.
    pub risk: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Held {
    pub service: String,
    pub order_id: String,
    pub expected: String,
    pub actual: String,
    pub consistent: bool,
}

/// What came of it so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    UnderWay,
    Completed,
    /// It goes back.
    Compensating,
    /// Everything that was done is taken back.
    Compensated,
    /// Something could not be taken back.
    Stuck,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    pub time: String,
    /// Nothing is to be done.
    pub well: bool,
    pub outcome: Outcome,
    /// In plain words.
    pub root_cause: String,
    #[serde(flatten)]
    pub saga: Saga,
    pub consistency: Consistency,
    pub recommendations: Vec<Advice>,
    /// Which instance told it.
    pub told_by: String,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Consistency {
    pub overall: bool,
    /// Compared at all: the saga has ended.
    pub compared: bool,
    pub services: Vec<Agrees>,
    pub inconsistent: Vec<Held>,
    pub repair: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Agrees {
    pub service: String,
    pub consistent: bool,
}

impl Saga {
    /// No list is longer than a person reads.
    pub fn bounded(mut self) -> Saga {
        self.steps.truncate(MOST);
        self.completed_steps.truncate(MOST);
        self.recovery_options.truncate(MOST);
        self.system_state.truncate(MOST);
        for list in [
            &mut self.compensation.succeeded,
            &mut self.compensation.pending,
            &mut self.compensation.failed,
        ] {
            list.truncate(MOST);
        }
        self
    }

    pub fn outcome(&self) -> Outcome {
        match self.status.as_str() {
            "completed" => Outcome::Completed,
            "failed" if self.is_stuck() => Outcome::Stuck,
            "failed" => Outcome::Compensated,
            _ if self.is_stuck() => Outcome::Stuck,
            status if status.starts_with("compensate") => Outcome::Compensating,
            _ => Outcome::UnderWay,
        }
    }

    fn is_stuck(&self) -> bool {
        self.compensation.manual_intervention_required || !self.compensation.failed.is_empty()
    }

    /// The step that failed, if one did.
    pub fn failed(&self) -> Option<&Step> {
        let name = self.failed_step.as_deref()?;
        self.steps.iter().find(|step| step.name == name)
    }

    /// Why it is not where it should be, in plain words.
    pub fn cause(&self) -> String {
        let why = self.error.as_ref();
        let said = why.map_or_else(String::new, |why| match why.message.is_empty() {
            true => why.reason.clone(),
            false => format!("{}: {}", why.reason, why.message),
        });
        let at = match self.failed() {
            Some(step) => format!("step {} (of {}) failed", step.name, step.service),
            None if why.is_some() => "it was turned back".to_owned(),
            None => String::new(),
        };
        let began = match (at.is_empty(), said.is_empty()) {
            (true, _) => String::new(),
            (false, true) => at,
            (false, false) => format!("{at}: {said}"),
        };
        let tried = { self.steps.iter() }.find(|step| step.status == "in_progress");
        match self.outcome() {
            Outcome::Completed => "every step was made".to_owned(),
            Outcome::UnderWay => match tried {
                Some(step) => format!(
                    "it is under way: {} (of {}) was tried {} times without an outcome",
                    step.name, step.service, step.retry_count
                ),
                None => "it is under way".to_owned(),
            },
            Outcome::Compensating => format!("{began}; what was done is being taken back"),
            Outcome::Compensated => format!("{began}; what was done is taken back"),
            Outcome::Stuck => {
                let stuck: Vec<String> = { self.compensation.failed.iter() }
                    .map(|undo| {
                        let why = undo.error.as_ref().map_or("", |why| why.reason.as_str());
                        format!("{} ({} tries, {why})", undo.step, undo.tries)
                    })
                    .collect();
                format!("{began}; it could not take back {}", stuck.join(", "))
            }
        }
    }
}

pub fn report(saga: Saga, told_by: String, time: String) -> Report {
    let saga = saga.bounded();
    let outcome = saga.outcome();
    let consistency = consistency(&saga);
    Report {
        time,
        well: consistency.overall && matches!(outcome, Outcome::Completed | Outcome::Compensated),
        outcome,
        root_cause: saga.cause(),
        recommendations: advice(&saga, &consistency),
        consistency,
        saga,
        told_by,
    }
}

fn consistency(saga: &Saga) -> Consistency {
    let inconsistent: Vec<Held> = { saga.system_state.iter() }
        .filter(|held| !held.consistent)
        .cloned()
        .collect();
    let services = { saga.system_state.iter() }.map(|held| Agrees {
        service: held.service.clone(),
        consistent: held.consistent,
    });
    let repair = { inconsistent.iter() }.map(|held| {
        let act = match saga.status.as_str() {
            "completed" => "look at it by hand: a finished order lacks something",
            _ => "POST /sagas/{order_id}/retry of the orders service takes it back again",
        };
        format!(
            "{} should hold `{}` and holds `{}`: {act}",
            held.service, held.expected, held.actual
        )
    });
    Consistency {
        overall: inconsistent.is_empty(),
        compared: !saga.system_state.is_empty(),
        services: services.collect(),
        repair: repair.collect(),
        inconsistent,
    }
}

fn advice(saga: &Saga, consistency: &Consistency) -> Vec<Advice> {
    let plain = |text: String| Advice {
        text,
        setting: None,
        place: None,
    };
    let mut advice: Vec<Advice> = consistency.repair.iter().cloned().map(plain).collect();
    for option in &saga.recovery_options {
        advice.push(plain(format!(
            "{}: {} (needs: {}; risk {})",
            option.kind, option.description, option.requirements, option.risk
        )));
    }
    if let (Some(step), Some(true)) = (saga.failed(), saga.error.as_ref().map(|e| e.temporary)) {
        for service in step.service.split(", ") {
            let text =
                format!("look at the service that failed: tollgate diagnose service {service}");
            advice.push(plain(text));
        }
    }
    advice
}

/// The list of a service's page: what is read of each saga.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct List {
    pub sagas: Vec<Value>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(saga: Value) -> Report {
        let saga = serde_json::from_value(saga).expect("a saga");
        report(saga, "instance orders-1".to_owned(), "now".to_owned())
    }

    #[test]
    fn shop_512_a_finished_saga_on_which_all_agree_is_well() {
        let report = told(json!({ "status": "completed", "system_state": [
            { "service": "payments", "expected": "taken once", "actual": "taken", "consistent": true }] }));
        assert!(report.well && report.consistency.overall && report.consistency.compared);
        assert_eq!(report.outcome, Outcome::Completed);
        assert_eq!(report.recommendations, []);
    }

    #[test]
    fn shop_512_one_that_could_not_be_taken_back_says_what_and_how_risky_its_repair_is() {
        let report = told(json!({
            "status": "failed", "failed_step": "ConfirmOrder", "completed_steps": ["ReserveInventory"],
            "steps": [{ "name": "ConfirmOrder", "service": "products, orders", "status": "failed", "retry_count": 6 }],
            "error": { "reason": "UNAVAILABLE", "message": "products are away", "temporary": true },
            "compensation": { "started_at": "t", "manual_intervention_required": true,
                "failed": [{ "step": "ReserveInventory", "tries": 5, "error": { "reason": "UNAVAILABLE" } }] },
            "recovery_options": [{ "type": "retry", "description": "try again", "requirements": "products", "risk": "low" }],
            "system_state": [{ "service": "products", "expected": "nothing held", "actual": "held", "consistent": false }],
        }));
        assert_eq!((report.well, report.outcome), (false, Outcome::Stuck));
        let cause = "step ConfirmOrder (of products, orders) failed: UNAVAILABLE: products are away; it could not take \
                     back ReserveInventory (5 tries, UNAVAILABLE)";
        assert_eq!(report.root_cause, cause);
        assert_eq!(report.consistency.inconsistent.len(), 1);
        let advice: Vec<&str> = { report.recommendations.iter() }
            .map(|one| one.text.as_str())
            .collect();
        assert!(advice[0].starts_with("products should hold `nothing held` and holds `held`"));
        assert_eq!(advice[1], "retry: try again (needs: products; risk low)");
        assert_eq!(
            advice[2],
            "look at the service that failed: tollgate diagnose service products"
        );
    }

    #[test]
    fn shop_512_one_under_way_says_at_which_step_and_a_turned_one_that_it_is_taken_back() {
        let report = told(json!({ "status": "order_created", "steps": [
            { "name": "ProcessPayment", "service": "payments", "status": "in_progress", "retry_count": 2 }] }));
        assert_eq!(report.outcome, Outcome::UnderWay);
        assert!(
            report
                .root_cause
                .contains("ProcessPayment (of payments) was tried 2 times")
        );
        let report =
            told(json!({ "status": "compensate_order", "error": { "reason": "ORDER_CANCELLED" } }));
        assert_eq!(report.outcome, Outcome::Compensating);
        assert!(
            report
                .root_cause
                .starts_with("it was turned back: ORDER_CANCELLED")
        );
        let nothing = told(json!({ "more": "than is known" }));
        assert_eq!(nothing.outcome, Outcome::UnderWay);
    }
}
