//! Services that requests ask for by name: which are known, and who waits until one is. Workers ask, the control thread
//! tells; a request that finds its service known takes no lock.
//!
//! Names come from strangers, so everything here is bounded: names that are asked about, names that are known to be
//! unknown, and, by `upstream.learn.max_services`, those that are learned. Nothing here compiles, speaks to the control
//! plane or reads a clock: `now` is an argument.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

/// Different services that are asked about at once.
const MOST_ASKED: usize = 1000;
/// A service that nobody has registered is not asked about again for so long.
const UNKNOWN: Duration = Duration::from_secs(1);
/// How many of those are remembered; of more, some are asked about sooner.
const MOST_UNKNOWN: usize = 1000;

/// The services that a snapshot was made with. A service's position is that of its branch.
#[derive(Debug, Default)]
pub struct Names {
    all: Vec<Name>,
    positions: HashMap<Arc<str>, usize>,
}

/// A service, and whether a request named it since somebody looked. Outlives the snapshots that it is in.
#[derive(Debug, Clone)]
pub struct Name {
    text: Arc<str>,
    used: Arc<AtomicBool>,
}

impl Name {
    pub fn new(text: Arc<str>) -> Name {
        Name {
            text,
            used: Arc::default(),
        }
    }

    pub fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// Whether it was used since the last call.
    pub fn take_used(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed)
    }
}

impl Names {
    pub fn new(all: Vec<Name>) -> Names {
        let positions = all.iter().zip(0..);
        let positions = positions
            .map(|(name, at)| (name.text.clone(), at))
            .collect();
        Names { all, positions }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<str>> {
        self.all.iter().map(|name| &name.text)
    }

    pub fn position(&self, service: &str) -> Option<usize> {
        self.positions.get(service).copied()
    }

    /// As `position`, for a request: the service is in use.
    pub fn take(&self, service: &str) -> Option<usize> {
        let position = self.position(service)?;
        let name = self.all.get(position)?;
        // All workers read this line; it is written when somebody has looked.
        if !name.used.load(Ordering::Relaxed) {
            name.used.store(true, Ordering::Relaxed);
        }
        Some(position)
    }
}

/// Why a service is not learned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Nobody has registered it.
    Unknown,
    /// Whoever could tell is not reached; why.
    Away(Arc<str>),
    /// As many are known as may be.
    Full,
    /// Too many others are asked about at this moment.
    Busy,
}

/// What came of a question; `None` as long as nothing did.
pub type Heard = Option<Result<(), Refusal>>;

/// Between the workers and the control thread.
#[derive(Debug)]
pub struct Learning {
    state: Mutex<State>,
    /// The control thread waits for it.
    asked: Notify,
}

#[derive(Debug)]
struct State {
    /// Requests hold the other ends; a question that nobody waits for is dropped.
    asked: HashMap<Arc<str>, Asked>,
    unknown: HashMap<Arc<str>, Instant>,
    /// How many are known.
    known: usize,
    away: Option<(Instant, Arc<str>)>,
}

#[derive(Debug)]
struct Asked {
    most: usize,
    tell: watch::Sender<Heard>,
}

impl Learning {
    /// Nobody is listened to yet.
    pub fn new(now: Instant) -> Learning {
        Learning {
            state: Mutex::new(State {
                asked: HashMap::new(),
                unknown: HashMap::new(),
                known: 0,
                away: Some((now, "it was not reached yet".into())),
            }),
            asked: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks about a service that is not known here; all who do so while one waits ask one question. `most` may be known;
    /// whoever can tell may be away for as long as `patience` before requests are refused at once.
    pub fn ask(
        &self,
        service: &str,
        most: usize,
        patience: Duration,
        now: Instant,
    ) -> Result<watch::Receiver<Heard>, Refusal> {
        let mut state = self.state();
        let asked = state.asked.get(service);
        if let Some(asked) = asked.filter(|asked| asked.tell.receiver_count() > 0) {
            return Ok(asked.tell.subscribe());
        }
        let recently = |since: &Instant| now.saturating_duration_since(*since) < UNKNOWN;
        if state.unknown.get(service).is_some_and(recently) {
            return Err(Refusal::Unknown);
        }
        if state.known >= most {
            return Err(Refusal::Full);
        }
        if let Some((since, why)) = &state.away
            && now.saturating_duration_since(*since) > patience
        {
            return Err(Refusal::Away(why.clone()));
        }
        if state.asked.len() >= MOST_ASKED {
            state.drop_abandoned();
        }
        if state.asked.len() >= MOST_ASKED {
            return Err(Refusal::Busy);
        }
        let (tell, heard) = watch::channel(None);
        state.asked.insert(service.into(), Asked { most, tell });
        self.asked.notify_one();
        Ok(heard)
    }

    /// Returns when somebody asked about a service that nobody asked about before.
    pub async fn asked(&self) {
        self.asked.notified().await;
    }

    /// What requests wait for at this moment, and how many may be known with it.
    pub fn waiting(&self) -> Vec<(Arc<str>, usize)> {
        let mut state = self.state();
        state.drop_abandoned();
        let asked = state.asked.iter();
        asked
            .map(|(name, asked)| (name.clone(), asked.most))
            .collect()
    }

    /// Whether any request waits.
    pub fn is_awaited(&self) -> bool {
        !self.waiting().is_empty()
    }

    /// Tells whoever waits for this service.
    pub fn tell(&self, service: &str, heard: Result<(), Refusal>, now: Instant) {
        let mut state = self.state();
        if heard == Err(Refusal::Unknown) {
            state.note_unknown(service, now);
        } else {
            state.unknown.remove(service);
        }
        if let Some(asked) = state.asked.remove(service) {
            asked.tell.send_replace(Some(heard));
        }
    }

    /// So many are known from now on.
    pub fn knows(&self, count: usize) {
        self.state().known = count;
    }

    /// Whoever can tell is there, or why not.
    pub fn away(&self, why: Option<&str>, now: Instant) {
        let mut state = self.state();
        state.away = why.map(|why| {
            let since = state.away.as_ref().map_or(now, |(since, _)| *since);
            (since, why.into())
        });
    }

    /// Why nobody can tell.
    pub fn why_away(&self) -> Option<Arc<str>> {
        self.state().away.as_ref().map(|(_, why)| why.clone())
    }
}

impl State {
    fn drop_abandoned(&mut self) {
        self.asked
            .retain(|_, asked| asked.tell.receiver_count() > 0);
    }

    fn note_unknown(&mut self, service: &str, now: Instant) {
        if self.unknown.len() >= MOST_UNKNOWN {
            self.unknown
                .retain(|_, since| now.saturating_duration_since(*since) < UNKNOWN);
        }
        if self.unknown.len() < MOST_UNKNOWN {
            self.unknown.insert(service.into(), now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(2);

    fn learning() -> (Learning, Instant) {
        let now = Instant::now();
        let learning = Learning::new(now);
        learning.away(None, now);
        (learning, now)
    }

    #[test]
    fn many_who_ask_ask_one_question_and_all_hear_the_answer() {
        let (learning, now) = learning();
        let ask = || learning.ask("orders", 10, PATIENCE, now).expect("it waits");
        let all = [ask(), ask(), ask()];
        assert_eq!(learning.waiting(), [("orders".into(), 10)]);
        learning.tell("orders", Ok(()), now);
        for heard in all {
            assert_eq!(*heard.borrow(), Some(Ok(())));
        }
        assert!(!learning.is_awaited());
    }

    #[test]
    fn what_is_unknown_is_not_asked_about_again_for_a_while() {
        let (learning, now) = learning();
        let heard = learning.ask("nobody", 10, PATIENCE, now).expect("it waits");
        learning.tell("nobody", Err(Refusal::Unknown), now);
        assert_eq!(*heard.borrow(), Some(Err(Refusal::Unknown)));
        let again = |at| learning.ask("nobody", 10, PATIENCE, at).map(drop);
        assert_eq!(again(now + UNKNOWN / 2), Err(Refusal::Unknown));
        assert_eq!(again(now + UNKNOWN), Ok(()));
    }

    #[test]
    fn names_that_strangers_make_up_are_bounded() {
        let (learning, now) = learning();
        let ask = |name: &str| learning.ask(name, 10, PATIENCE, now);
        let mut held = Vec::new();
        for number in 0..MOST_ASKED {
            held.push(ask(&format!("s{number}")).expect("it waits"));
        }
        assert_eq!(ask("more").map(drop), Err(Refusal::Busy));
        drop(held.pop());
        assert!(ask("more").is_ok(), "one has left");
        drop(held);
        for number in 0..3 * MOST_UNKNOWN {
            learning.tell(&format!("u{number}"), Err(Refusal::Unknown), now);
        }
        assert!(learning.state().unknown.len() <= MOST_UNKNOWN);
        assert!(learning.waiting().is_empty());
        learning.knows(10);
        assert_eq!(ask("more").map(drop), Err(Refusal::Full));
    }

    #[test]
    fn who_waits_is_refused_at_once_when_nobody_could_tell_for_longer_than_one_would_wait() {
        let (learning, now) = learning();
        learning.away(Some("refused"), now);
        learning.away(Some("refused again"), now + PATIENCE);
        let ask = |at| learning.ask("orders", 10, PATIENCE, at).map(drop);
        assert_eq!(ask(now + PATIENCE), Ok(()));
        let later = now + PATIENCE + Duration::from_millis(1);
        assert_eq!(ask(later), Err(Refusal::Away("refused again".into())));
        learning.away(None, later);
        assert_eq!(ask(later), Ok(()));
    }

    #[test]
    fn a_name_is_known_to_be_used_once_for_each_look() {
        let orders = Name::new("orders".into());
        let names = Names::new(vec![Name::new("users".into()), orders.clone()]);
        assert!(!orders.take_used());
        assert_eq!(
            (names.take("orders"), names.take("nobody")),
            (Some(1), None)
        );
        assert!(orders.take_used() && !orders.take_used());
        assert_eq!(names.position("users"), Some(0));
    }
}
