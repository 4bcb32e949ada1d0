//! Why a step did not work, and what the client is told about it.

use serde::{Deserialize, Serialize};
use tonic::Code;

use crate::kit::refusal::Refusal;

/// Why something did not work.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// gRPC code.
    pub code: i32,
    /// Upper snake case.
    pub reason: String,
    /// For whoever asked.
    pub message: String,
    /// Details.
    pub details: Vec<(String, String)>,
    /// It may work later, and it may have had an effect.
    pub temporary: bool,
    /// It had an effect, which has to be taken back.
    #[serde(default)]
    pub effective: bool,
    /// The service itself said nothing: it is away, or too slow.
    #[serde(default)]
    pub silent: bool,
    /// Nobody was asked, because who should be is away (GW-501): no reason to try again at once, nor for doubt.
    #[serde(default)]
    pub not_asked: bool,
}

impl Failure {
    /// From what a service answered.
    pub fn of(refusal: &Refusal) -> Self {
        Self {
            code: refusal.code() as i32,
            reason: refusal.reason().into(),
            message: refusal.message().into(),
            details: refusal.metadata().to_vec(),
            temporary: refusal.is_temporary(),
            ..Self::default()
        }
    }

    /// One of our own, for good.
    pub fn new(code: Code, reason: &str, message: &str) -> Self {
        Self::of(&Refusal::new(code, reason, message))
    }

    /// What the client is told.
    pub fn refusal(&self) -> Refusal {
        let code = Code::from_i32(self.code);
        let ours = matches!(
            code,
            Code::NotFound | Code::FailedPrecondition | Code::ResourceExhausted
        );
        if self.temporary {
            return Refusal::unavailable(
                "the order could not be made now; send it again",
                std::time::Duration::from_secs(1),
            );
        }
        if !ours {
            return Refusal::internal();
        }
        let refusal = Refusal::new(code, &self.reason, self.message.clone());
        let mut details = self.details.iter();
        details
            .by_ref()
            .fold(refusal, |refusal, (key, value)| refusal.with(key, value))
    }
}
