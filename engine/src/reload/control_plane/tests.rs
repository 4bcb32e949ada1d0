//! What is known, against a model of a control plane: seeded histories of changes, breaks, lost memories, duplicates,
//! truncated batches and lies. After every step what is known is a state that the control plane really had, or what was
//! known before.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use fastrand::Rng;
use tollgate_config::feed::{
    Beat, Begin, End, Health, Hello, Instance, Kind, Line, Put, Refused, Remove, Service,
};

use super::known::{Fault, Known, News};

type State = BTreeMap<String, String>;

fn put(id: &str, text: &str) -> Line {
    Line::Put(Put {
        id: id.to_owned(),
        kind: Kind::Route,
        file: "f".to_owned(),
        line: 1,
        text: text.to_owned(),
        uses: Vec::new(),
    })
}

fn remove(id: &str) -> Line {
    Line::Remove(Remove { id: id.to_owned() })
}

fn hello(epoch: &str, revision: u64) -> Line {
    Line::Hello(Hello {
        server: "cp".to_owned(),
        epoch: epoch.to_owned(),
        revision,
        beat: Duration::from_secs(5),
        figures: None,
    })
}

fn service(name: &str, version: u64, ports: &[u16]) -> Line {
    let instances = ports.iter().map(|port| Instance {
        id: port.to_string(),
        address: format!("10.0.0.1:{port}"),
        health: Health::Healthy,
        weight: 1,
        zone: None,
        metadata: BTreeMap::new(),
    });
    Line::Service(Service {
        name: name.to_owned(),
        version,
        instances: instances.collect(),
    })
}

const FULL: Line = Line::Begin(Begin { full: true });
const PART: Line = Line::Begin(Begin { full: false });

fn end(revision: u64) -> Line {
    Line::End(End { revision })
}

fn beat(revision: u64) -> Line {
    Line::Beat(Beat { revision })
}

/// Takes all lines; the news of the last one.
fn say(known: &mut Known, lines: impl IntoIterator<Item = Line>) -> Result<News, Fault> {
    let now = Instant::now();
    let mut last = News::default();
    for line in lines {
        last = known.line(line, now)?;
    }
    Ok(last)
}

fn texts(known: &Known) -> State {
    let blocks = known.blocks();
    let pairs = blocks.iter();
    pairs
        .map(|block| (block.id.to_string(), block.text.to_string()))
        .collect()
}

fn ports(known: &Known, name: &str) -> Option<Vec<String>> {
    let list = known.instances(name)?;
    Some(list.iter().map(|one| one.id.clone()).collect())
}

/// Knows `a` and `b` and the service `s` of epoch `e`, revision 5.
fn knowing() -> Known {
    let mut known = Known::default();
    known.connected(Instant::now());
    let lines = [
        hello("e", 5),
        FULL,
        put("a", "1"),
        put("b", "1"),
        service("s", 1, &[1, 2]),
        end(5),
    ];
    let news = say(&mut known, lines).expect("in order");
    assert!(news.batch && !news.emptied);
    assert_eq!(news.services, ["s"]);
    known
}

#[test]
fn a_batch_is_whole_or_nothing() {
    let mut known = knowing();
    let begun = [PART, put("a", "2"), remove("b"), service("s", 2, &[3])];
    assert_eq!(say(&mut known, begun), Ok(News::default()));
    // The connection breaks here.
    known.connected(Instant::now());
    assert_eq!(
        texts(&known),
        [("a".into(), "1".into()), ("b".into(), "1".into())].into()
    );
    assert_eq!(ports(&known, "s").expect("known"), ["1", "2"]);
    assert_eq!(known.have().expect("kept").revision, 5);
    let again = [
        hello("e", 6),
        PART,
        put("a", "2"),
        remove("b"),
        service("s", 2, &[3]),
        end(6),
    ];
    say(&mut known, again).expect("in order");
    assert_eq!(texts(&known), [("a".into(), "2".into())].into());
    assert_eq!(ports(&known, "s").expect("known"), ["3"]);
}

#[test]
fn hi_66_who_contradicts_itself_is_not_believed_and_everything_is_asked_for_anew() {
    let lies: [&[Line]; 9] = [
        &[put("c", "1")],
        &[remove("a")],
        &[end(6)],
        &[PART, FULL],
        &[PART, remove("nothing"), end(6)],
        &[PART, end(4)],
        &[FULL, remove("a"), end(6)],
        &[beat(4)],
        &[hello("e", 5)],
    ];
    for lines in lies {
        let mut known = knowing();
        let fault = say(&mut known, lines.to_vec()).expect_err("a lie");
        assert!(matches!(fault, Fault::Wrong(_)), "{lines:?}: {fault:?}");
        assert_eq!(known.have(), None, "{lines:?}");
        assert_eq!(ports(&known, "s").expect("kept"), ["1", "2"], "{lines:?}");
        known.connected(Instant::now());
        say(&mut known, [hello("e", 7), FULL, put("z", "1"), end(7)]).expect("all of it");
        assert_eq!(
            texts(&known),
            [("z".into(), "1".into())].into(),
            "{lines:?}"
        );
    }
    for (lines, word) in [
        (vec![put("a", "1")], "first line"),
        (vec![hello("new", 9), PART], "do not have"),
    ] {
        let mut known = knowing();
        known.connected(Instant::now());
        let fault = say(&mut known, lines).expect_err(word);
        assert!(matches!(fault, Fault::Wrong(words) if words.contains(word)));
    }
}

#[test]
fn hi_66_who_is_behind_is_left_and_nothing_is_forgotten() {
    let mut known = knowing();
    known.connected(Instant::now());
    assert!(matches!(
        say(&mut known, [hello("e", 4)]),
        Err(Fault::Behind(_))
    ));
    assert_eq!(known.have().expect("kept").revision, 5);
    known.connected(Instant::now());
    let refused = Line::Refused(Refused {
        problems: Vec::new(),
    });
    assert!(matches!(say(&mut known, [refused]), Err(Fault::Refused(_))));
    assert_eq!(known.have().expect("kept").revision, 5);
}

#[test]
fn hi_66_a_lost_memory_takes_no_instances_away_until_it_names_the_service() {
    let mut known = knowing();
    known.connected(Instant::now());
    let lines = [
        hello("lost", 1),
        FULL,
        put("a", "1"),
        service("s", 0, &[]),
        end(1),
    ];
    say(&mut known, lines).expect("in order");
    assert_eq!(ports(&known, "s").expect("kept"), ["1", "2"]);
    // Nor does the next batch, nor a restart in between.
    say(&mut known, [FULL, put("a", "1"), end(1)]).expect("in order");
    assert_eq!(ports(&known, "s").expect("kept"), ["1", "2"]);
    assert_eq!(
        known.services().map(|(_, version, _)| version).max(),
        Some(0)
    );
    // Named again, with whatever version its new counting has.
    let news = say(&mut known, [service("s", 0, &[2])]).expect("in order");
    assert_eq!(news.services, ["s"]);
    assert_eq!(ports(&known, "s").expect("told"), ["2"]);
    // Within an epoch its word counts, also that there is none.
    say(&mut known, [service("s", 1, &[])]).expect("in order");
    assert_eq!(ports(&known, "s").expect("told"), Vec::<String>::new());
    // And what a full batch of the same epoch does not name is gone.
    say(&mut known, [FULL, put("a", "1"), end(1)]).expect("in order");
    assert_eq!(ports(&known, "s"), None);
}

#[test]
fn hi_66_an_emptied_batch_is_told_as_one() {
    let mut known = knowing();
    known.connected(Instant::now());
    let news = say(&mut known, [hello("lost", 1), FULL, end(1)]).expect("in order");
    assert!(news.batch && news.emptied);
    let mut known = Known::default();
    known.connected(Instant::now());
    let news = say(&mut known, [hello("new", 1), FULL, end(1)]).expect("in order");
    assert!(news.batch && !news.emptied, "there was nothing before");
    // One after the other is a person's word.
    let mut known = knowing();
    let news = say(&mut known, [PART, remove("a"), remove("b"), end(6)]).expect("in order");
    assert!(!news.emptied && texts(&known).is_empty());
}

#[test]
fn a_list_that_is_old_or_the_same_changes_nothing() {
    let mut known = knowing();
    for (version, list) in [(1, &[7u16][..]), (0, &[7])] {
        assert_eq!(
            say(&mut known, [service("s", version, list)]),
            Ok(News::default())
        );
    }
    assert_eq!(
        say(&mut known, [service("s", 2, &[1, 2])]),
        Ok(News::default())
    );
    assert_eq!(ports(&known, "s").expect("known"), ["1", "2"]);
}

#[test]
fn a_beat_tells_a_revision_and_a_sign_of_life() {
    let mut known = knowing();
    let now = Instant::now();
    known.line(beat(9), now).expect("later");
    assert_eq!(known.have().expect("kept").revision, 9);
    assert_eq!(known.dead_at(), Some(now + Duration::from_secs(5)));
    let later = now + Duration::from_secs(3);
    known.heard(later);
    assert_eq!(known.dead_at(), Some(later + Duration::from_secs(5)));
}

/// A control plane that keeps all it ever was.
struct Server {
    epoch: u32,
    /// By revision, from 0.
    states: Vec<State>,
    lists: BTreeMap<String, (u64, Vec<u16>)>,
}

impl Server {
    fn new(epoch: u32) -> Server {
        Server {
            epoch,
            states: vec![State::new()],
            lists: BTreeMap::new(),
        }
    }

    fn now(&self) -> u64 {
        self.states.len() as u64 - 1
    }

    fn change(&mut self, random: &mut Rng) {
        let mut state = self.states.last().cloned().unwrap_or_default();
        for _ in 0..random.usize(1..4) {
            let id = format!("b{}", random.u8(0..12));
            match random.u8(0..3) {
                0 => drop(state.remove(&id)),
                _ => drop(state.insert(id, random.u32(0..5).to_string())),
            }
        }
        self.states.push(state);
    }

    fn list(&mut self, random: &mut Rng) -> Line {
        let name = format!("s{}", random.u8(0..4));
        let (version, list) = self.lists.entry(name.clone()).or_default();
        *version += 1;
        *list = (0..random.u16(1..4)).map(|_| random.u16(1..9)).collect();
        service(&name, *version, list)
    }

    /// The batch from a state that is had, or a full one.
    fn batch(&self, have: Option<u64>) -> Vec<Line> {
        let now = self.states.last().cloned().unwrap_or_default();
        let had = have.map(|revision| self.states[revision as usize].clone());
        let mut lines = vec![if had.is_some() { PART } else { FULL }];
        let had = had.unwrap_or_default();
        let new = now.iter().filter(|(id, text)| had.get(*id) != Some(*text));
        lines.extend(new.map(|(id, text)| put(id, text)));
        let gone = had.keys().filter(|id| !now.contains_key(*id));
        lines.extend(gone.map(|id| remove(id)));
        let lists = self.lists.iter();
        lines.extend(lists.map(|(name, (version, list))| service(name, *version, list)));
        lines.push(end(self.now()));
        lines
    }

    fn greet(&self) -> Line {
        hello(&self.epoch.to_string(), self.now())
    }
}

/// One history; returns how often a lie was caught.
fn history(seed: u64) -> usize {
    let mut random = Rng::with_seed(seed);
    let mut server = Server::new(0);
    let mut known = Known::default();
    let (mut now, mut caught) = (Instant::now(), 0);
    // What the listener was told: a revision of this epoch.
    let mut told: Option<u64> = None;
    let mut connected = false;
    for _ in 0..200 {
        now += Duration::from_millis(random.u64(0..2000));
        let before = (texts(&known), known.have());
        let choice = random.u8(0..12);
        if !connected || choice == 0 {
            known.connected(now);
            let have = known.have();
            told = have
                .filter(|have| have.epoch == server.epoch.to_string())
                .map(|have| have.revision);
            known.line(server.greet(), now).expect("never behind");
            connected = true;
            let mut batch = server.batch(told);
            if random.u8(0..4) == 0 {
                batch.truncate(random.usize(0..batch.len()));
                connected = false;
            }
            let whole = connected;
            for line in batch {
                known.line(line, now).expect("honest");
            }
            if whole {
                told = Some(server.now());
            } else {
                assert_eq!(texts(&known), before.0, "seed {seed}: a truncated batch");
                continue;
            }
        } else {
            match choice {
                1..=4 => {
                    server.change(&mut random);
                    for line in server.batch(told) {
                        known.line(line, now).expect("honest");
                    }
                    told = Some(server.now());
                }
                5 | 6 => {
                    let line = server.list(&mut random);
                    known.line(line.clone(), now).expect("honest");
                    let again = known.line(line, now).expect("a duplicate");
                    assert_eq!(again, News::default(), "seed {seed}");
                }
                7 => drop(known.line(beat(server.now()), now).expect("honest")),
                8 => {
                    // The memory is lost, and some of it written again.
                    server = Server::new(server.epoch + 1);
                    for _ in 0..random.u8(0..4) {
                        server.change(&mut random);
                    }
                    connected = false;
                    continue;
                }
                9 => {
                    let lie = match random.u8(0..5) {
                        0 => vec![end(server.now())],
                        1 => vec![PART, remove("none"), end(server.now())],
                        2 => vec![put("x", "lie")],
                        3 if server.now() > 0 => vec![PART, end(server.now() - 1)],
                        _ => vec![server.greet()],
                    };
                    let result = lie
                        .into_iter()
                        .try_for_each(|line| known.line(line, now).map(drop));
                    assert!(matches!(result, Err(Fault::Wrong(_))), "seed {seed}");
                    assert_eq!(texts(&known), before.0, "seed {seed}: a lie");
                    assert_eq!(known.have(), None);
                    caught += 1;
                    connected = false;
                    continue;
                }
                _ => connected = false,
            }
        }
        let state = &server.states[told.unwrap_or_default() as usize];
        if connected {
            assert_eq!(&texts(&known), state, "seed {seed}");
            assert_eq!(
                known.have().expect("told").revision,
                server.now(),
                "seed {seed}"
            );
            for (name, (_, list)) in &server.lists {
                let list: Vec<String> = list.iter().map(u16::to_string).collect();
                assert_eq!(ports(&known, name), Some(list), "seed {seed}");
            }
        } else {
            assert_eq!((texts(&known), known.have()), before, "seed {seed}");
        }
    }
    caught
}

#[test]
fn hi_66_what_is_known_is_always_a_state_that_was() {
    let caught: usize = (0..400).map(history).sum();
    assert!(caught > 1000, "the histories lie: {caught}");
}

#[test]
fn whom_to_trust_is_passed_on_if_it_was_asked_for_and_can_be_mesh_304() {
    let trust = |authorities: &[&str]| {
        Line::Trust(tollgate_config::identity::Trust {
            trust_domain: "a".to_owned(),
            version: 1,
            authorities: authorities.iter().map(|pem| (*pem).to_owned()).collect(),
            revoked: Vec::new(),
        })
    };
    let now = Instant::now();
    let hello = || {
        Line::Hello(tollgate_config::feed::Hello {
            server: "s".to_owned(),
            epoch: "e".to_owned(),
            revision: 0,
            beat: Duration::from_secs(1),
            figures: None,
        })
    };
    let mut known = Known::default();
    known.connected(now);
    known.line(hello(), now).expect("a greeting");
    let unasked = known.line(trust(&["pem"]), now);
    assert!(matches!(unasked, Err(Fault::Wrong(_))), "{unasked:?}");
    known.asked_for_trust(true);
    known.connected(now);
    known.line(hello(), now).expect("a greeting");
    let told = known.line(trust(&["pem"]), now).expect("asked for");
    assert_eq!(told.trust.expect("told").authorities, ["pem"]);
    let hollow = known.line(trust(&[]), now);
    assert!(matches!(hollow, Err(Fault::Wrong(_))), "{hollow:?}");
}
