//! Asks nodes something over their feeds, and waits for a bounded time until they have come with their answers. What is
//! kept is bounded: so many questions at once, and only as long as somebody waits; of each node one answer, judged before
//! it is kept. What the answers mean is for others.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tollgate_config::feed::{Answer, Ask, Line, Told, What};
use tollgate_config::span::MOST_SPANS;

use super::Feed;
use super::told::line;

/// Questions that somebody waits for.
const MOST_QUESTIONS: usize = 32;
/// Questions on their way to one listener.
pub(super) const MOST_WAITING: usize = 8;

/// What came of a question.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    pub answers: Vec<Answered>,
    pub silent: Vec<Silent>,
    /// There were more spans than are kept of one question.
    pub cut: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answered {
    pub node: String,
    #[serde(flatten)]
    pub told: Told,
}

/// Who was asked and has said nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Silent {
    /// Such as `node edge-1`.
    pub who: String,
    pub why: String,
}

/// Why an answer is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotTaken {
    /// There is no such question, or nobody waits for it any more.
    Over,
    /// This process was not asked.
    NotAsked,
    Twice,
    Wrong(String),
}

/// So many wait for answers already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy(pub usize);

#[derive(Default)]
pub(super) struct Questions(HashMap<String, Question>);

struct Question {
    what: What,
    /// By node and process.
    asked: BTreeMap<(String, String), Option<Told>>,
    missing: usize,
    /// Spans that there is room for.
    room: usize,
    cut: bool,
    /// Told when nobody is missing any more.
    done: Arc<Notify>,
}

/// A question that is asked; forgotten when whoever waits goes away.
struct Waiting<'f> {
    feed: &'f Feed,
    id: String,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.feed.questions().0.remove(&self.id);
    }
}

impl Question {
    fn take(&mut self, node: &str, answer: Answer) -> Result<(), NotTaken> {
        let who = (node.to_owned(), answer.instance.clone());
        match self.asked.get(&who) {
            None => return Err(NotTaken::NotAsked),
            Some(Some(_)) => return Err(NotTaken::Twice),
            Some(None) => {}
        }
        answer.check(&self.what).map_err(NotTaken::Wrong)?;
        let mut told = answer.told;
        if let Told::Spans(spans) = &mut told {
            self.cut |= spans.len() > self.room;
            spans.truncate(self.room);
            self.room -= spans.len();
        }
        self.asked.insert(who, Some(told));
        self.missing -= 1;
        if self.missing == 0 {
            self.done.notify_one();
        }
        Ok(())
    }
}

impl Feed {
    /// Asks every node that listens here, and waits for `feed.answer_timeout` at most.
    pub async fn ask(&self, what: What) -> Result<Asked, Busy> {
        let id = format!("{:016x}", fastrand::u64(..));
        let done = Arc::new(Notify::new());
        let mut told = Asked::default();
        let waiting = {
            let listening = self.talks().listening();
            let mut questions = self.questions();
            if questions.0.len() >= MOST_QUESTIONS {
                return Err(Busy(MOST_QUESTIONS));
            }
            let question = line(&Line::Ask(Ask {
                id: id.clone(),
                what: what.clone(),
            }));
            let mut asked = BTreeMap::new();
            for one in listening {
                let sent = one
                    .questions
                    .map(|to| to.try_send(question.clone()).is_ok());
                let why = match sent {
                    Some(true) => {
                        asked.insert((one.node, one.instance), None);
                        continue;
                    }
                    Some(false) => "it has not taken the questions before this one",
                    None => "it is of a version that answers no questions",
                };
                told.silent.push(silent(&one.node, why.to_owned()));
            }
            let missing = asked.len();
            if missing == 0 {
                done.notify_one();
            }
            let question = Question {
                what,
                asked,
                missing,
                room: MOST_SPANS,
                cut: false,
                done: done.clone(),
            };
            questions.0.insert(id.clone(), question);
            Waiting { feed: self, id }
        };
        let limit = self.settings.answer_timeout;
        // Who has not answered by then is named.
        let _late = tokio::time::timeout(limit, done.notified()).await;
        let Some(question) = self.questions().0.remove(&waiting.id) else {
            return Ok(told);
        };
        told.cut = question.cut;
        for ((node, _), answer) in question.asked {
            match answer {
                Some(answer) => told.answers.push(Answered { node, told: answer }),
                None => {
                    let why = format!("no answer within `feed.answer_timeout`, {limit:?}");
                    told.silent.push(silent(&node, why));
                }
            }
        }
        Ok(told)
    }

    /// Takes the answer of a node.
    pub fn answer(&self, node: &str, id: &str, answer: Answer) -> Result<(), NotTaken> {
        let mut questions = self.questions();
        let question = questions.0.get_mut(id).ok_or(NotTaken::Over)?;
        question.take(node, answer)
    }

    /// How long whoever is asked may take.
    pub fn answer_timeout(&self) -> std::time::Duration {
        self.settings.answer_timeout
    }

    fn questions(&self) -> MutexGuard<'_, Questions> {
        self.questions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn silent(node: &str, why: String) -> Silent {
    Silent {
        who: format!("node {node}"),
        why,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(what: What, asked: &[(&str, &str)]) -> Question {
        let asked = { asked.iter() }.map(|(node, of)| ((node.to_string(), of.to_string()), None));
        let asked: BTreeMap<_, _> = asked.collect();
        Question {
            what,
            missing: asked.len(),
            asked,
            room: MOST_SPANS,
            cut: false,
            done: Arc::default(),
        }
    }

    fn answer(instance: &str) -> Answer {
        Answer {
            instance: instance.to_owned(),
            told: Told::Breakers(Vec::new()),
        }
    }

    #[test]
    fn each_process_that_was_asked_answers_once_and_about_that() {
        let mut question = question(What::Breakers, &[("edge", "a"), ("edge", "b")]);
        assert_eq!(question.take("edge", answer("c")), Err(NotTaken::NotAsked));
        assert_eq!(question.take("other", answer("a")), Err(NotTaken::NotAsked));
        let spans = Answer {
            told: Told::Spans(Vec::new()),
            ..answer("a")
        };
        let lying = question.take("edge", spans);
        assert!(matches!(lying, Err(NotTaken::Wrong(_))), "{lying:?}");
        assert_eq!(question.take("edge", answer("a")), Ok(()));
        assert_eq!(question.take("edge", answer("a")), Err(NotTaken::Twice));
        assert_eq!(question.missing, 1);
        assert_eq!(question.take("edge", answer("b")), Ok(()));
        assert_eq!(question.missing, 0);
    }
}
