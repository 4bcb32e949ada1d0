//! One listener: waits until there is something new and room to write it, and writes it.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame};
use tokio::sync::{Notify, mpsc, watch};
use tollgate_config::feed::{Beat, Hello, Line};

use super::Feed;
use super::told::{Told, line};
use crate::catalog::millis;
use crate::view::Wishes;

/// Ends the connection that a feed goes over, when who listens does not take anything.
#[derive(Debug, Clone, Default)]
pub struct HangUp(pub Arc<Notify>);

/// What is sent. Asked by the connection whenever it has room.
pub struct Lines(mpsc::Receiver<Bytes>);

impl Body for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0
            .poll_recv(cx)
            .map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}

pub(super) struct Listener {
    pub(super) feed: Arc<Feed>,
    pub(super) number: u64,
    pub(super) node: String,
    pub(super) wishes: Wishes,
    pub(super) stands_for: Option<String>,
    /// The services of the routes that it gets, besides those that it named.
    pub(super) routed: bool,
    pub(super) named: Vec<String>,
    /// More that it named, and may name anew. The other end is with the talks; it is gone when this listener is.
    pub(super) also: watch::Receiver<Vec<String>>,
    pub(super) told: Told,
    pub(super) epoch: String,
    pub(super) assumed: bool,
    pub(super) hang_up: HangUp,
    /// It had what is rolled out before it came.
    pub(super) ahead: bool,
    /// What it is asked; ends when it answers nothing, or with its talk.
    pub(super) questions: mpsc::Receiver<Bytes>,
    /// The number of the trust that it was told last; `None`: it does not want to know.
    pub(super) trust: Option<u64>,
}

type Trusts = watch::Receiver<Option<Arc<crate::authority::Told>>>;

/// Why a feed ends.
enum End {
    Gone,
    Stuck,
    Stop,
}

impl Listener {
    pub(super) fn start(self) -> Lines {
        // One piece at a time: the connection takes it, or nothing is added.
        let (to, lines) = mpsc::channel(1);
        tokio::spawn(async move {
            let mut listener = Running {
                wants: BTreeSet::new(),
                notify: Arc::default(),
                own: self,
            };
            match listener.talk(&to).await {
                End::Stuck => {
                    listener.own.feed.counts.let_go.fetch_add(1, Relaxed);
                    listener.own.hang_up.0.notify_one();
                }
                End::Gone | End::Stop => {}
            }
        });
        Lines(lines)
    }

    /// Which documents concern it now.
    fn wishes(&self) -> Wishes {
        let also = self.also.borrow();
        let services = self.named.iter().chain(&*also).map(String::as_str);
        self.wishes.with(services, self.stands_for.as_deref())
    }
}

struct Running {
    own: Listener,
    wants: BTreeSet<Arc<str>>,
    notify: Arc<Notify>,
}

impl Running {
    async fn talk(&mut self, to: &mpsc::Sender<Bytes>) -> End {
        let feed = self.own.feed.clone();
        let mut worlds = feed.catalog.changes();
        let mut stagings = feed.catalog.stagings();
        let mut trusts = feed.trust.clone();
        let mut stop = feed.stop.subscribe();
        let hello = line(&Line::Hello(Hello {
            server: feed.server.clone(),
            epoch: self.own.epoch.clone(),
            revision: worlds.borrow().revision,
            beat: feed.settings.beat,
            figures: feed.settings.figures,
        }));
        let mut pieces = vec![hello];
        let mut beat = Box::pin(tokio::time::sleep(Duration::ZERO));
        loop {
            // Only now, when the last piece was taken, is it decided what is new.
            if let Err(end) = self.room(to).await {
                return end;
            }
            worlds.mark_unchanged();
            stagings.mark_unchanged();
            pieces.extend(self.trust(&mut trusts));
            pieces.extend(self.catch_up());
            if pieces.is_empty() && beat.is_elapsed() {
                let revision = self.own.told.revision;
                pieces.push(line(&Line::Beat(Beat { revision })));
            }
            if !pieces.is_empty() {
                beat.as_mut()
                    .reset(tokio::time::Instant::now() + feed.settings.beat / 2);
            }
            for piece in pieces.drain(..) {
                if let Err(end) = self.room(to).await {
                    return end;
                }
                let size = piece.len() as u64;
                if to.try_send(piece).is_err() {
                    return End::Gone;
                }
                feed.counts.bytes.fetch_add(size, Relaxed);
            }
            tokio::select! {
                biased;
                () = to.closed() => return End::Gone,
                _ = stop.wait_for(|stop| *stop) => return End::Stop,
                changed = worlds.changed() => if changed.is_err() { return End::Stop },
                changed = stagings.changed() => if changed.is_err() { return End::Stop },
                // Its other end lives as long as the process.
                Ok(()) = trusts.changed(), if self.own.trust.is_some() => {}
                () = self.notify.notified() => {}
                Some(question) = self.own.questions.recv() => pieces.push(question),
                changed = self.own.also.changed() => match changed {
                    Ok(()) => self.own.wishes = self.own.wishes(),
                    Err(_) => return End::Stop,
                },
                () = beat.as_mut() => {}
            }
        }
    }

    /// Waits until the connection can take something.
    async fn room(&self, to: &mpsc::Sender<Bytes>) -> Result<(), End> {
        let longest = self.own.feed.settings.write_timeout;
        match tokio::time::timeout(longest, to.reserve()).await {
            Ok(Ok(_room)) => Ok(()),
            Ok(Err(_)) => Err(End::Gone),
            Err(_) => Err(End::Stuck),
        }
    }

    /// Whom members trust, if that is news.
    fn trust(&mut self, trusts: &mut Trusts) -> Option<Bytes> {
        let told = self.own.trust.as_mut()?;
        let now = trusts.borrow_and_update().clone()?;
        let news = *told != now.trust.version;
        *told = now.trust.version;
        news.then(|| now.line.clone())
    }

    fn catch_up(&mut self) -> Vec<Bytes> {
        let own = &mut self.own;
        let world = own.feed.catalog.world_of(&own.node, own.ahead);
        if own.assumed && world.revision != own.told.revision {
            own.assumed = false;
            own.told = Told::default();
        }
        let view = own.feed.view(&world, &own.wishes);
        let mut wants: BTreeSet<Arc<str>> = {
            let also = own.also.borrow();
            let names = own.named.iter().chain(&*also);
            names.map(|name| name.as_str().into()).collect()
        };
        if own.routed {
            wants.extend(view.services.iter().cloned());
        }
        let lists = own.feed.want(own.number, &self.wants, &wants, &self.notify);
        self.wants = wants;
        let feed = &own.feed;
        let pieces = own
            .told
            .catch_up(&view, world.revision, &lists, |from, to| {
                if from.is_none() {
                    feed.counts.full.fetch_add(1, Relaxed);
                }
                feed.body(from, to)
            });
        if !pieces.is_empty() {
            feed.nodes().told(&own.node, world.revision);
        }
        pieces
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let own = &self.own;
        let nothing = BTreeSet::new();
        own.feed
            .want(own.number, &self.wants, &nothing, &self.notify);
        own.feed.talks().end(&own.node, own.number);
        own.feed.listeners.fetch_sub(1, Relaxed);
        let tick = own.feed.started.elapsed();
        own.feed.nodes().gone(&own.node, tick, millis());
    }
}
