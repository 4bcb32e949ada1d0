//! What nodes served, as they tell it: sums by node for now, by route for what was before, and, while a revision is rolled
//! out, by route for those who have it and those who do not. Pure: reports and `now`. Bounded: sums, never single reports.

use std::collections::BTreeMap;
use std::time::Duration;

use tollgate_config::feed::{Direction, Figures, MOST_FIGURES, Tally};

/// What is shown as "now" is of one to two of these.
const SHOWN: Duration = Duration::from_secs(30);
/// What was before is of one to two of these.
const BEFORE: Duration = Duration::from_secs(150);
/// Sums by route of all nodes together; beyond that a node's routes are not told apart.
const MOST_SUMS: usize = 500_000;

/// Names that are told apart in one sum: a report has half as many.
const MOST_NAMES: usize = 2 * MOST_FIGURES;
/// Upstreams of all nodes together.
const MOST_UPSTREAMS: usize = 10_000;
/// Edges of the service map.
const MOST_EDGES: usize = 10_000;
/// After so long without a call an edge is none any more.
const EDGE_LASTS: Duration = Duration::from_secs(3600);

/// Sums of what some nodes served in some time.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sums {
    pub total: Tally,
    pub routes: BTreeMap<String, Tally>,
    /// The nodes' own answers by code.
    pub refused: BTreeMap<String, u64>,
    pub span: Duration,
}

impl Sums {
    pub fn add(&mut self, other: &Sums) {
        self.total.add(&other.total);
        self.span = self.span.saturating_add(other.span);
        merge(&mut self.routes, &other.routes);
        refusals(&mut self.refused, &other.refused);
    }

    fn take(&mut self, figures: &Figures, by_route: bool) {
        self.total.add(&figures.total);
        self.span = self.span.saturating_add(figures.span);
        if self.refused.len() < MOST_NAMES {
            refusals(&mut self.refused, &figures.refused);
        }
        if by_route && self.routes.len() < MOST_NAMES {
            merge(&mut self.routes, &figures.routes);
        }
    }
}

fn merge(into: &mut BTreeMap<String, Tally>, from: &BTreeMap<String, Tally>) {
    for (name, tally) in from {
        match into.get_mut(name) {
            Some(known) => known.add(tally),
            None => drop(into.insert(name.clone(), tally.clone())),
        }
    }
}

fn refusals(into: &mut BTreeMap<String, u64>, from: &BTreeMap<String, u64>) {
    for (code, count) in from {
        let known = into.entry(code.clone()).or_default();
        *known = known.saturating_add(*count);
    }
}

/// Requests, errors and durations of the last half to whole minute.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Red {
    pub tally: Tally,
    /// Since the first of it.
    pub span: Duration,
}

/// A sum that forgets: the slot that is filled, and the one before it.
#[derive(Debug, Clone, Default)]
struct Turning<T> {
    began: Option<Duration>,
    now: T,
    before: Option<(Duration, T)>,
}

impl<T: Default> Turning<T> {
    fn turn(&mut self, length: Duration, now: Duration) {
        let began = *self.began.get_or_insert(now);
        if now >= began + length {
            let full = std::mem::take(&mut self.now);
            // After a silence what was before says nothing any more.
            self.before = (now < began + length * 2).then_some((began, full));
            self.began = Some(now);
        }
    }

    fn since(&self) -> Option<Duration> {
        { self.before.as_ref() }.map_or(self.began, |(began, _)| Some(*began))
    }
}

#[derive(Debug, Default)]
struct Sheet {
    instance: String,
    shown: Turning<Tally>,
    before: Turning<Sums>,
    /// Since the stage began, on the new revision and on the one before it.
    new: Sums,
    old: Sums,
}

/// What both ends of an edge say; sums over all instances of each.
#[derive(Debug, Default)]
struct Way {
    inbound: Turning<Tally>,
    outbound: Turning<Tally>,
    seen: Duration,
}

/// Calls from one service to another (MESH-504).
#[derive(Debug)]
pub struct EdgeSeen<'b> {
    pub source: &'b str,
    pub destination: &'b str,
    /// Of which end the figures are: the callee's, where it tells any.
    pub by: Direction,
    /// `None`: nothing lately.
    pub red: Option<Red>,
    /// Since the last call.
    pub silent: Duration,
}

#[derive(Debug, Default)]
pub struct Book {
    sheets: BTreeMap<String, Sheet>,
    upstreams: BTreeMap<String, Turning<Tally>>,
    /// By source and destination.
    edges: BTreeMap<(String, String), Way>,
    /// The revision that is rolled out.
    watched: Option<u64>,
    /// By route, of all nodes; counted exactly at every tick.
    sums: usize,
    /// How many reports were taken.
    pub taken: u64,
}

impl Book {
    /// A node's report; figures of an honest node only (`Figures::check`).
    pub fn take(&mut self, node: &str, figures: &Figures, now: Duration) {
        self.taken += 1;
        let by_route = self.sums < MOST_SUMS;
        let sheet = self.sheets.entry(node.to_owned()).or_default();
        sheet.instance.clone_from(&figures.instance);
        sheet.shown.turn(SHOWN, now);
        sheet.shown.now.add(&figures.total);
        let new = { self.watched }.is_some_and(|watched| figures.revision >= watched);
        if !new {
            sheet.before.turn(BEFORE, now);
            let known = sheet.before.now.routes.len();
            sheet.before.now.take(figures, by_route);
            self.sums += sheet.before.now.routes.len() - known;
        }
        if self.watched.is_some() {
            let side = if new { &mut sheet.new } else { &mut sheet.old };
            side.take(figures, true);
        }
        for (name, tally) in &figures.upstreams {
            if self.upstreams.len() >= MOST_UPSTREAMS && !self.upstreams.contains_key(name) {
                continue;
            }
            let upstream = self.upstreams.entry(name.clone()).or_default();
            upstream.turn(SHOWN, now);
            upstream.now.add(tally);
        }
        for edge in &figures.edges {
            let name = (edge.source.clone(), edge.destination.clone());
            if self.edges.len() >= MOST_EDGES && !self.edges.contains_key(&name) {
                continue;
            }
            let way = self.edges.entry(name).or_default();
            let side = match edge.direction {
                Direction::Inbound => &mut way.inbound,
                Direction::Outbound => &mut way.outbound,
            };
            side.turn(SHOWN, now);
            side.now.add(&edge.tally);
            way.seen = now;
        }
    }

    /// From now on what is served with this revision is counted apart; a stage begins.
    pub fn watch(&mut self, revision: Option<u64>) {
        self.watched = revision;
        for sheet in self.sheets.values_mut() {
            (sheet.new, sheet.old) = (Sums::default(), Sums::default());
        }
    }

    /// Forgets nodes that are not `there`, and upstreams that nobody tells of.
    pub fn tick(&mut self, there: impl Fn(&str) -> bool, now: Duration) {
        self.sheets.retain(|name, _| there(name));
        let lengths = self
            .sheets
            .values()
            .map(|sheet| sheet.before.now.routes.len());
        self.sums = lengths.sum();
        self.upstreams
            .retain(|_, one| one.began.is_some_and(|began| now < began + BEFORE));
        self.edges.retain(|_, way| now < way.seen + EDGE_LASTS);
    }

    /// With the new revision since the stage began, of these nodes.
    pub fn with(&self, wanted: impl Fn(&str) -> bool) -> Sums {
        self.sum(wanted, |sheet, sums| sums.add(&sheet.new))
    }

    /// With the revision before it, since the stage began.
    pub fn without(&self, wanted: impl Fn(&str) -> bool) -> Sums {
        self.sum(wanted, |sheet, sums| sums.add(&sheet.old))
    }

    /// What they served before they had the new revision: of two and a half to five minutes.
    pub fn before(&self, wanted: impl Fn(&str) -> bool) -> Sums {
        self.sum(wanted, |sheet, sums| {
            sums.add(&sheet.before.now);
            if let Some((_, before)) = &sheet.before.before {
                sums.add(before);
            }
        })
    }

    fn sum(&self, wanted: impl Fn(&str) -> bool, add: impl Fn(&Sheet, &mut Sums)) -> Sums {
        let mut sums = Sums::default();
        for (name, sheet) in &self.sheets {
            if wanted(name) {
                add(sheet, &mut sums);
            }
        }
        sums
    }

    /// What a node serves now.
    pub fn node(&self, name: &str, now: Duration) -> Option<Red> {
        red(&self.sheets.get(name)?.shown, now)
    }

    /// Which service calls which, in order.
    pub fn edges(&self, now: Duration) -> impl Iterator<Item = EdgeSeen<'_>> {
        self.edges.iter().map(move |((source, destination), way)| {
            let (by, red) = match (red(&way.inbound, now), red(&way.outbound, now)) {
                (None, Some(outbound)) => (Direction::Outbound, Some(outbound)),
                (None, None) if way.inbound.began.is_none() => (Direction::Outbound, None),
                (inbound, _) => (Direction::Inbound, inbound),
            };
            EdgeSeen {
                source,
                destination,
                by,
                red,
                silent: now.saturating_sub(way.seen),
            }
        })
    }

    /// What all nodes together send to each upstream now.
    pub fn upstreams(&self, now: Duration) -> impl Iterator<Item = (&str, Red)> {
        let all = self.upstreams.iter();
        all.filter_map(move |(name, one)| Some((name.as_str(), red(one, now)?)))
    }
}

fn red(shown: &Turning<Tally>, now: Duration) -> Option<Red> {
    let since = shown.since()?;
    // Nobody tells anything when there is nothing to tell.
    let fresh = shown.began.is_some_and(|began| now < began + SHOWN * 2);
    let mut tally = shown.now.clone();
    if let Some((_, before)) = &shown.before {
        tally.add(before);
    }
    fresh.then(|| Red {
        tally,
        span: now.saturating_sub(since).max(Duration::from_secs(1)),
    })
}

#[cfg(test)]
mod tests {
    use tollgate_config::feed::Edge;

    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn report(revision: u64, requests: u64, errors: u64) -> Figures {
        let tally = Tally {
            requests,
            errors,
            ..Tally::default()
        };
        Figures {
            instance: "a".to_owned(),
            revision,
            span: s(5),
            total: tally.clone(),
            routes: BTreeMap::from([("r".to_owned(), tally.clone())]),
            upstreams: BTreeMap::from([("u".to_owned(), tally)]),
            refused: BTreeMap::from([("no_route".to_owned(), errors)]),
            edges: Vec::new(),
        }
    }

    #[test]
    fn while_a_revision_is_watched_what_was_before_stays_as_it_was() {
        let mut book = Book::default();
        for second in 0..20 {
            book.take("a", &report(1, 10, 0), s(second * 5));
            book.take("b", &report(1, 10, 0), s(second * 5));
        }
        book.watch(Some(2));
        for second in 20..200 {
            book.take("a", &report(2, 10, 5), s(second * 5));
            book.take("b", &report(1, 10, 1), s(second * 5));
        }
        let a = |name: &str| name == "a";
        let b = |name: &str| name == "b";
        assert_eq!(book.before(a).total.requests, 200);
        assert_eq!(book.before(a).routes["r"].errors, 0);
        let new = book.with(a);
        assert_eq!((new.total.requests, new.routes["r"].errors), (1800, 900));
        assert_eq!(new.refused["no_route"], 900);
        assert_eq!(book.without(b).total.errors, 180);
        assert_eq!(book.with(b), Sums::default());
        book.watch(Some(2));
        assert_eq!(book.with(a), Sums::default(), "the next stage begins anew");
        assert_eq!(book.before(a).total.requests, 200);
    }

    #[test]
    fn what_is_shown_is_the_last_minute_and_nothing_after_a_silence() {
        let mut book = Book::default();
        for second in 0..40 {
            book.take("a", &report(1, 50, 1), s(second * 5));
        }
        let now = s(200);
        let red = book.node("a", now).expect("shown");
        let rate = red.tally.requests as f64 / red.span.as_secs_f64();
        assert!((9.0..11.0).contains(&rate), "{red:?}");
        assert!(red.span >= s(30) && red.span <= s(60), "{red:?}");
        assert_eq!(book.upstreams(now).count(), 1);
        assert_eq!(book.node("a", s(400)), None);
        assert_eq!(book.node("b", now), None);
        book.tick(|name| name != "a", s(1000));
        assert_eq!(book.node("a", now), None);
        assert_eq!(book.upstreams(now).count(), 0);
    }

    #[test]
    fn both_ends_tell_of_an_edge_and_the_callee_is_believed_mesh_504() {
        let mut book = Book::default();
        let edge = |direction, requests| Edge {
            source: "default/orders".to_owned(),
            destination: "default/payments".to_owned(),
            direction,
            tally: Tally {
                requests,
                ..Tally::default()
            },
        };
        let mut caller = report(1, 1, 0);
        caller.edges = vec![edge(Direction::Outbound, 7)];
        book.take("orders-1", &caller, s(0));
        let one = book.edges(s(10)).next().expect("an edge");
        let requests = one.red.as_ref().map(|red| red.tally.requests);
        assert_eq!((one.by, requests), (Direction::Outbound, Some(7)));
        let mut callee = report(1, 1, 0);
        callee.edges = vec![edge(Direction::Inbound, 3)];
        book.take("payments-1", &callee, s(5));
        book.take("payments-2", &callee, s(5));
        let one = book.edges(s(15)).next().expect("an edge");
        let requests = one.red.as_ref().map(|red| red.tally.requests);
        assert_eq!((one.by, requests), (Direction::Inbound, Some(6)));
        assert_eq!((one.silent, book.edges.len()), (s(10), 1));
        let one = book.edges(s(500)).next().expect("an edge");
        assert_eq!((one.red, one.silent), (None, s(495)));
        book.tick(|_| true, s(4000));
        assert_eq!(book.edges(s(4000)).count(), 0);
    }

    #[test]
    fn a_node_that_invents_names_fills_no_memory() {
        let mut book = Book::default();
        book.watch(Some(2));
        for number in 0..5000 {
            let mut figures = report(number % 2 + 1, 1, 0);
            let name = |kind: &str| format!("{kind}-{number}");
            figures.routes = BTreeMap::from([(name("r"), Tally::default())]);
            figures.upstreams = (0..5)
                .map(|more| (format!("{}-{more}", name("u")), Tally::default()))
                .collect();
            figures.refused = BTreeMap::from([(name("c"), 1)]);
            figures.edges = (0..5)
                .map(|more| Edge {
                    source: format!("{}-{more}", name("s")),
                    destination: "d".to_owned(),
                    direction: Direction::Inbound,
                    tally: Tally::default(),
                })
                .collect();
            book.take("a", &figures, s(0));
        }
        let all = |_: &str| true;
        for sums in [book.with(all), book.without(all), book.before(all)] {
            assert!(sums.routes.len() <= MOST_NAMES && sums.refused.len() <= MOST_NAMES);
        }
        assert!(book.upstreams.len() <= MOST_UPSTREAMS);
        assert!(book.edges.len() <= MOST_EDGES);
    }

    #[test]
    fn sums_are_kept_and_not_reports() {
        let mut book = Book::default();
        for second in 0..10_000 {
            book.take("a", &report(1, 1, 0), s(second));
        }
        let before = book.before(|_| true);
        assert_eq!(before.routes.len(), 1);
        assert!((150..=300).contains(&before.total.requests), "{before:?}");
    }
}
