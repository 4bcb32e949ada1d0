//! Following a control plane: subscribes to one after the other, listens until there is a reason not to, sends reports
//! beside it. Two tasks of the control thread at most; what they hear goes to `Feed`, which decides nothing here.

use std::rc::Rc;
use std::time::Instant;

use tokio::task::AbortHandle;
use tokio::time::{sleep, sleep_until};
use tollgate_config::feed::{Report, Routed, Subscribe, Wanted};

use super::answering::Answering;
use super::known::Fault;
use super::link::Link;
use super::turns::Turns;
use super::{Asks, Feed};
use crate::telemetry::log;

/// Subscribes until aborted.
pub(super) async fn subscribe(feed: Rc<Feed>, asks: Asks) {
    let urls = &asks.settings.urls;
    let mut turns = Turns::new(urls.len());
    loop {
        let (turn, pause) = turns.take(fastrand::f64());
        sleep(pause).await;
        let Some(url) = urls.get(turn) else { return };
        let why = match open(&feed, &asks, turn).await {
            Ok(opened) => follow(&feed, &asks, turn, opened, &mut turns).await,
            Err(why) => why,
        };
        feed.disconnected(&url.text, &why);
    }
}

/// A feed that was opened, and with which question.
struct Opened {
    link: Link,
    also: Vec<String>,
    asked: u64,
}

async fn open(feed: &Rc<Feed>, asks: &Asks, turn: usize) -> Result<Opened, String> {
    let also = feed.also(asks);
    let asked = feed.known.borrow().asks();
    let register = asks.settings.register.as_ref();
    let subscribe = Subscribe {
        node: asks.node.clone(),
        kind: asks.settings.kind,
        instance: feed.instance.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        have: feed.known.borrow().have(),
        services: Wanted::Routed(Routed::Routed),
        also: also.clone(),
        listeners: asks.listeners.clone(),
        stands_for: register.map(|register| register.name.clone()),
        trust: asks.trust,
        callee: asks.callee.clone(),
        answers: true,
    };
    let url = asks.settings.urls.get(turn).ok_or("no such URL")?;
    let link = Link::open(url, &asks.settings, &subscribe).await?;
    Ok(Opened { link, also, asked })
}

/// Listens to a control plane until there is a reason not to: that is returned.
async fn follow(
    feed: &Rc<Feed>,
    asks: &Asks,
    mut turn: usize,
    opened: Opened,
    turns: &mut Turns,
) -> String {
    feed.known.borrow_mut().asked_for_trust(asks.trust);
    let mut link = opened.link;
    let mut wisher = feed.wisher(link.desk(), asks, opened.also);
    feed.known
        .borrow_mut()
        .answers(opened.asked, Instant::now());
    let mut reporting: Option<Reporting> = None;
    let mut answering = Answering::default();
    let mut looking = std::pin::pin!(look_back(feed, asks, turn));
    // What serves is told to everyone that is listened to.
    feed.told.notify_one();
    let mut teller = feed.teller(link.desk(), &asks.node);
    loop {
        let dead_at = feed.known.borrow().dead_at().unwrap_or_else(Instant::now);
        let heard = || feed.known.borrow_mut().heard(Instant::now());
        tokio::select! {
            biased;
            line = link.line(heard) => {
                let taken = match line {
                    Ok(line) => feed.line(&line, Instant::now()),
                    Err(why) => return why,
                };
                if let Some(ask) = feed.asked.take() {
                    answering.begin(feed, link.desk(), &asks.node, ask);
                }
                match taken {
                    Ok(good) => {
                        if good {
                            turns.good();
                            feed.connected(&asks.settings.urls[turn].text);
                        }
                    }
                    Err(fault) => {
                        turns.bad(turn);
                        return match fault {
                            Fault::Wrong(why) => format!("it cannot be believed: {why}"),
                            Fault::Behind(why) => why,
                            Fault::Refused(why) => format!("it refused the subscription: {why}"),
                        };
                    }
                }
                if !feed.arrived.borrow().is_empty() {
                    // The writer's turn, even if more lines wait.
                    tokio::task::yield_now().await;
                }
            }
            () = sleep_until(dead_at.into()) => {
                return "nothing was heard for longer than it promised".to_owned();
            }
            () = feed.told.notified() => {
                reporting = feed.report(asks, &link);
            }
            (better, found) = &mut looking => {
                log::info(
                    "a preferred control plane answers again",
                    &[("url", &asks.settings.urls[better].text)],
                );
                (turn, link) = (better, found.link);
                drop(std::mem::replace(&mut teller, feed.teller(link.desk(), &asks.node)));
                drop(std::mem::replace(&mut wisher, feed.wisher(link.desk(), asks, found.also)));
                looking.set(look_back(feed, asks, turn));
                feed.known.borrow_mut().answers(found.asked, Instant::now());
                feed.told.notify_one();
            }
        }
        drop(reporting.take_if(|reporting| reporting.0.is_finished()));
    }
}

/// Looks now and then whether one that is preferred to `turn` answers; returns with a link to it.
async fn look_back(feed: &Rc<Feed>, asks: &Asks, turn: usize) -> (usize, Opened) {
    loop {
        match Turns::look_back(turn, fastrand::f64()) {
            Some(pause) => sleep(pause).await,
            None => std::future::pending().await,
        }
        for better in 0..turn {
            let have = feed.known.borrow().have();
            if let Ok(opened) = open(feed, asks, better).await
                // What it will tell continues what we had when we asked, and nothing else.
                && feed.known.borrow().have() == have
                && feed.known.borrow().asks() == opened.asked
            {
                return (better, opened);
            }
        }
    }
}

/// A report on its way; a newer one takes its place.
struct Reporting(AbortHandle);

impl Drop for Reporting {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Feed {
    fn report(self: &Rc<Self>, asks: &Asks, link: &Link) -> Option<Reporting> {
        let outcome = self.outcome.borrow().clone()?;
        let report = serde_json::to_vec(&Report::Outcome(outcome)).ok()?;
        let (desk, node) = (link.desk(), asks.node.clone());
        let task = tokio::task::spawn_local(async move {
            if let Err(error) = desk.report(&node, report).await {
                static UNTOLD: log::Repeated = log::Repeated::new();
                UNTOLD.warn(
                    "the control plane did not take a report",
                    &[("error", &error)],
                );
            }
        });
        Some(Reporting(task.abort_handle()))
    }

    /// Says so once.
    fn connected(&self, url: &str) {
        if self.status.borrow_mut().connected(url) {
            self.metrics.control_plane().connected(true);
            self.learning.away(None, Instant::now());
            let known = self.known.borrow();
            log::info(
                "the control plane is followed",
                &[
                    ("url", &url),
                    ("server", &known.server().unwrap_or_default()),
                    ("revision", &known.revision()),
                ],
            );
        }
    }

    /// Says so once.
    pub(super) fn registered(&self, url: &str, id: &str) {
        self.metrics.control_plane().registered(true);
        if self.status.borrow_mut().is_registered(url, id) {
            log::info("registered", &[("id", &id), ("url", &url)]);
        }
    }

    pub(super) fn unregistered(&self, url: &str, why: &str) {
        self.metrics.control_plane().registered(false);
        if self.status.borrow_mut().is_unregistered(url, why) {
            log::warn(
                "not registered with the control plane; it is tried again",
                &[("url", &url), ("why", &why)],
            );
        }
    }

    /// The word is taken back, for this reason, until that is over.
    pub(super) fn withdrawn(&self, why: &str) {
        self.metrics.control_plane().registered(false);
        self.status.borrow_mut().is_withdrawn(why);
        log::warn(
            "the application does not answer its probes; it is announced again when it does",
            &[("why", &why)],
        );
    }

    fn disconnected(&self, url: &str, why: &str) {
        self.metrics.control_plane().connected(false);
        self.learning
            .away(Some(&format!("{url}: {why}")), Instant::now());
        if self.status.borrow_mut().disconnected(url, why) {
            log::warn(
                "the control plane is not followed; what serves goes on",
                &[("url", &url), ("why", &why)],
            );
        }
    }
}
