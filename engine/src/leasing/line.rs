//! The way to one lender, and how it stands with it. The connection has a task of its own, so that a lender that hangs
//! delays nothing here.

use std::time::{Duration, Instant, SystemTime};

use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tollgate_config::SharedStore;

use crate::filter::rate_limit::lease::Through;
use crate::filter::rate_limit::lease::lender::{Ask, Lender, Lent, Slice, Told};
use crate::redis::Link;
use crate::reload::control_plane::RemoteLender;

/// Between two attempts to reach a lender that is away; doubled up to the second.
pub(super) const RETRY: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(2)];
/// A lender that was away again sooner is not trusted to be back at once.
pub(super) const STEADY: Duration = Duration::from_secs(10);

pub(super) struct Line {
    pub(super) through: Through,
    questions: mpsc::Sender<Question>,
    pub(super) answers: mpsc::Receiver<Answer>,
    /// Holds the connection; ends with us.
    task: AbortHandle,
    /// Limits in one question.
    pub(super) slices: usize,
    /// What was asked and not answered yet.
    pub(super) open: Option<Open>,
    pub(super) reached: bool,
    /// Whether operators know that it is away.
    pub(super) told: bool,
    pub(super) since: SystemTime,
    pub(super) reason: Option<String>,
    /// Which of several it is.
    pub(super) lender: Option<String>,
    pub(super) errors: u64,
    pub(super) greet_at: Instant,
    pub(super) retry: Duration,
    /// From when on being reached means that all is well.
    pub(super) steady_at: Instant,
}

pub(super) enum Open {
    Greeting,
    /// By meter.
    Lease(Vec<(u64, Vec<Ask>)>),
}

pub(super) enum Question {
    Greet,
    Lend(Vec<Slice>),
}

pub(super) enum Answer {
    Told(Told),
    Lent(Lent),
    Failed(String),
}

impl Drop for Line {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Asks one lender, one question after the other.
async fn carry<L: Lender>(
    mut lender: L,
    mut questions: mpsc::Receiver<Question>,
    answers: mpsc::Sender<Answer>,
) {
    while let Some(question) = questions.recv().await {
        let answer = match question {
            Question::Greet => lender.greet().await.map(Answer::Told),
            Question::Lend(slices) => lender.lend(&slices).await.map(Answer::Lent),
        };
        let answer = answer.unwrap_or_else(|failure| Answer::Failed(failure.to_string()));
        if answers.send(answer).await.is_err() {
            return;
        }
    }
}

impl Line {
    /// `None`: there is nobody to ask, which no document may say.
    pub(super) fn new(through: &Through, name: &str, now: Instant) -> Option<Self> {
        let (questions, asked) = mpsc::channel(1);
        let (answering, answers) = mpsc::channel(1);
        let (sharing, name) = (&through.sharing, name.to_owned());
        let (task, slices) = match (&sharing.store, &through.control_plane) {
            (SharedStore::Redis(url), _) => {
                let link = Link::new(url.clone(), sharing.clone(), name);
                let task = tokio::task::spawn_local(carry(link, asked, answering));
                (task, Link::SLICES)
            }
            (SharedStore::ControlPlane, Some(settings)) => {
                let lender = RemoteLender::new(settings.clone(), sharing.timeout, name);
                let task = tokio::task::spawn_local(carry(lender, asked, answering));
                (task, RemoteLender::SLICES)
            }
            (SharedStore::ControlPlane, None) => return None,
        };
        Some(Line {
            through: through.clone(),
            questions,
            answers,
            task: task.abort_handle(),
            slices,
            open: None,
            reached: false,
            told: false,
            since: SystemTime::now(),
            reason: None,
            lender: None,
            errors: 0,
            greet_at: now,
            retry: RETRY[0],
            steady_at: now + STEADY,
        })
    }

    /// To be called when nothing is open: the channel then has room.
    pub(super) fn ask(&mut self, question: Question, open: Open) {
        if self.questions.try_send(question).is_ok() {
            self.open = Some(open);
        }
    }

    /// Who lends, for operators.
    pub(super) fn name(&self) -> String {
        match &self.lender {
            Some(lender) => format!("{} {lender}", self.through.name()),
            None => self.through.name(),
        }
    }
}
