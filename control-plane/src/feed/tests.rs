//! Whatever is changed, folded, lost or begun anew: the lines that a node is told make the newest view of what it has.
//! Seeded histories with a node that is as strict as a real one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fastrand::Rng;
use tollgate_config::feed::{Blocks, Line, Service};
use tollgate_config::fleet::{self, Looks};
use tollgate_config::{Loader, member};

use super::told::{List, Told, body, line};
use crate::catalog::World;
use crate::catalog::history::{Change, History, Origin, Revision, compare, follow};
use crate::view::{Kinds, View, Wishes, difference, view};

const SERVICES: [&str; 3] = ["orders", "users", "carts"];

/// A random document of a few names, so that histories meet each other.
fn text(rng: &mut Rng) -> String {
    let mut text = String::new();
    let mut named = BTreeSet::new();
    for name in 0..4 {
        if rng.u8(..4) == 0 {
            text += &"\n".repeat(rng.usize(..3));
        }
        if rng.bool() {
            let service = rng.choice(SERVICES).expect("one");
            text += &format!("[[upstream]]\nname = \"u{name}\"\nservice = \"{service}\"\n");
            named.insert(name);
        }
    }
    if rng.bool() {
        text += "[[limit]]\nname = \"l\"\nby = \"client_ip\"\nrate = \"5/s\"\n";
    }
    for name in 0..4 {
        if rng.bool() {
            let to = ["", "to = \"payments\"\n", "to = \"shop/users\"\n"];
            let to = to[rng.usize(..to.len())];
            text += &format!("[[access]]\nname = \"a{name}\"\nfrom = \"orders\"\n{to}");
        }
    }
    for name in 0..6 {
        if rng.bool() {
            continue;
        }
        let listener = match rng.u8(..3) {
            0 => ", listener = \"public\"",
            1 => ", listener = \"private\"",
            _ => "",
        };
        text +=
            &format!("[[route]]\nname = \"r{name}\"\nmatch = {{ path = \"/{name}\"{listener} }}\n");
        match named.iter().nth(rng.usize(..4)) {
            Some(upstream) => text += &format!("upstream = \"u{upstream}\"\n"),
            None => text += &format!("respond = {{ status = {} }}\n", 200 + rng.u8(..3)),
        }
        match rng.u8(..3) {
            0 if text.contains("[[limit]]") => text += "filters = [{ rate_limit = \"l\" }]\n",
            1 => text += "filters = [{ access = \"enforce\" }]\n",
            _ => {}
        }
    }
    text
}

/// A catalog without a disk.
struct Fleet {
    loader: Loader,
    blocks: Blocks,
    worlds: Vec<Arc<World>>,
    history: History,
    lists: BTreeMap<Arc<str>, u64>,
}

impl Fleet {
    fn new() -> Fleet {
        let mut loader = Loader::fleet();
        let document = loader.blocks(&[]).expect("nothing is good");
        let world = World {
            revision: 0,
            blocks: Arc::from([]),
            document,
        };
        Fleet {
            loader,
            blocks: Blocks::default(),
            worlds: vec![Arc::new(world)],
            history: History::default(),
            lists: BTreeMap::new(),
        }
    }

    fn now(&self) -> &Arc<World> {
        self.worlds.last().expect("the first")
    }

    fn change(&mut self, text: &str) {
        let looks = Looks {
            environment: &|_| None,
            folder: None,
        };
        let now = self.now().clone();
        let former = now
            .blocks
            .iter()
            .map(|block| (&*block.text, block.clone()))
            .collect();
        let puts = fleet::cut("a.toml", text, &looks, &former).expect("good");
        let before = self.blocks.clone();
        let ids: BTreeSet<&str> = puts.iter().map(|put| put.id.as_str()).collect();
        self.blocks.retain(|id| ids.contains(id));
        puts.iter().cloned().for_each(|put| self.blocks.put(put));
        let changes = compare(&before, &self.blocks);
        let mut again = before;
        follow(&mut again, &changes);
        assert_eq!(
            again.list(),
            self.blocks.list(),
            "changes say what is different"
        );
        if changes.is_empty() {
            return;
        }
        let document = self
            .loader
            .blocks(&self.blocks.list())
            .unwrap_or_else(|problems| panic!("{problems}\n{text}"));
        let revision = now.revision + 1;
        let kept = Revision {
            number: revision,
            time: 0,
            by: String::new(),
            note: String::new(),
            origin: Origin::Api,
            changes,
        };
        assert_eq!(
            Revision::read(&kept.write()).as_ref(),
            Ok(&kept),
            "what is kept is read"
        );
        self.history.push(Arc::new(kept), 5);
        self.worlds.push(Arc::new(World {
            revision,
            blocks: self.blocks.list(),
            document,
        }));
    }

    fn lists(&self, wants: &BTreeSet<Arc<str>>) -> BTreeMap<Arc<str>, List> {
        let known = self.lists.iter().filter(|(name, _)| wants.contains(*name));
        known
            .map(|(name, version)| {
                let service = Service {
                    name: name.to_string(),
                    version: *version,
                    instances: Vec::new(),
                };
                (name.clone(), (*version, line(&Line::Service(service))))
            })
            .collect()
    }
}

/// What a node knows, as strict as a node is.
#[derive(Default)]
struct Node {
    told: Told,
    blocks: Blocks,
    services: BTreeMap<String, u64>,
    revision: u64,
}

impl Node {
    fn hear(&mut self, fleet: &Fleet, wishes: &Wishes) -> usize {
        self.hear_of(fleet, fleet.now(), wishes)
    }

    fn hear_of(&mut self, fleet: &Fleet, world: &World, wishes: &Wishes) -> usize {
        let view = Arc::new(view(world, wishes));
        // A feed hands out the same view as long as nothing in it is different.
        let view = match self.told.view() {
            Some(told) if *told == *view => told,
            _ => view,
        };
        let lists = fleet.lists(&view.services);
        let pieces = self
            .told
            .catch_up(&view, world.revision, &lists, |from, to| {
                body(from.map(|view| &**view), to)
            });
        let count = pieces.len();
        let mut batch = None;
        for piece in pieces {
            for text in String::from_utf8(piece.to_vec()).expect("text").lines() {
                match Line::read(text.as_bytes()).expect("a line") {
                    Line::Begin(begin) => {
                        assert!(batch.replace(begin.full).is_none());
                        if begin.full {
                            self.blocks = Blocks::default();
                            self.services.clear();
                        }
                    }
                    Line::Put(put) => {
                        assert!(batch.is_some());
                        self.blocks.put(put);
                    }
                    Line::Remove(remove) => {
                        assert!(self.blocks.remove(&remove.id), "{}", remove.id)
                    }
                    Line::Service(service) => {
                        let before = self.services.insert(service.name, service.version);
                        assert!(before.is_none_or(|before| before <= service.version));
                    }
                    Line::End(end) => {
                        assert!(batch.take().is_some() && end.revision >= self.revision);
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        assert!(batch.is_none(), "a batch ends");
        self.revision = self.told.revision;
        let mine = self.blocks.list();
        assert_eq!(mine.len(), view.blocks.len());
        for (mine, theirs) in mine.iter().zip(&view.blocks) {
            assert_eq!(**mine, **theirs);
        }
        for (name, (version, _)) in &lists {
            assert_eq!(self.services.get(&**name), Some(version));
        }
        count
    }
}

fn wishes(listeners: &[&str]) -> Wishes {
    let listeners: Vec<String> = listeners.iter().map(|&name| name.to_owned()).collect();
    Wishes::new(Kinds::Gateway, &listeners, [], None)
}

/// What the data plane of a service wishes.
fn of(service: &str) -> Wishes {
    Wishes {
        callee: Some(member(service).expect("a service")),
        ..wishes(&[])
    }
}

#[test]
fn a_member_has_the_rules_about_its_own_service_and_others_none_mesh_402() {
    let mut fleet = Fleet::new();
    let rule =
        |name: &str, to: &str| format!("[[access]]\nname = \"{name}\"\nfrom = \"orders\"\n{to}");
    let rules = [
        rule("pay", "to = \"payments\"\n"),
        rule("attic", "to = \"attic/payments\"\n"),
        rule("all", ""),
        rule("users", "to = \"users\"\n"),
    ];
    fleet.change(&rules.concat());
    let names = |wishes: &Wishes| -> Vec<String> {
        let view = view(fleet.now(), wishes);
        let ids = view.blocks.iter();
        ids.map(|block| block.id.rsplit(':').next().unwrap_or_default().to_owned())
            .collect()
    };
    assert_eq!(names(&of("payments")), ["pay", "all"]);
    assert_eq!(names(&of("attic/payments")), ["pay", "attic", "all"]);
    assert_eq!(names(&of("users")), ["all", "users"]);
    assert_eq!(names(&of("web")), ["all"]);
    assert_eq!(names(&wishes(&[])), [""; 0], "nobody in the mesh");
}

#[test]
fn what_is_told_makes_the_newest_view_whatever_was_folded_or_lost() {
    let all = [
        wishes(&[]),
        wishes(&["public"]),
        wishes(&["public", "private"]),
        of("payments"),
        of("shop/users"),
    ];
    for seed in 0..120 {
        let mut rng = Rng::with_seed(seed);
        let mut fleet = Fleet::new();
        let mut nodes: Vec<(usize, Node)> =
            (0..4).map(|at| (at % all.len(), Node::default())).collect();
        for _ in 0..40 {
            match rng.u8(..8) {
                0..3 => fleet.change(&text(&mut rng)),
                3 => {
                    let name = *rng.choice(SERVICES.iter()).expect("one");
                    *fleet.lists.entry(name.into()).or_insert(7) += 1;
                }
                4 => {
                    // The connection broke: it has what it has, and we may know what that is.
                    let (at, node) = rng.choice(nodes.iter_mut()).expect("one");
                    let known = fleet
                        .worlds
                        .iter()
                        .find(|world| world.revision == node.revision);
                    let known = known.filter(|world| rng.bool() && world.revision > 0);
                    node.told = match known {
                        Some(world) => Told::has(Arc::new(view(world, &all[*at])), world.revision),
                        None => Told::default(),
                    };
                }
                _ => {
                    let (at, node) = rng.choice(nodes.iter_mut()).expect("one");
                    node.hear(&fleet, &all[*at]);
                    let again = node.hear(&fleet, &all[*at]);
                    assert_eq!(again, 0, "seed {seed}: what is known is not said again");
                }
            }
        }
    }
}

/// Some nodes have a revision, the others the one before it; it stays or is taken back, as a new revision.
#[test]
fn cp_109_nodes_on_two_revisions_are_told_what_leads_to_theirs_and_numbers_never_go_back() {
    let all = [wishes(&[]), wishes(&["public"])];
    for seed in 0..60 {
        let mut rng = Rng::with_seed(seed);
        let mut fleet = Fleet::new();
        let mut texts = vec![String::new()];
        let change = |fleet: &mut Fleet, texts: &mut Vec<String>, text: String| {
            fleet.change(&text);
            if fleet.worlds.len() > texts.len() {
                texts.push(text);
            }
        };
        let mut nodes: Vec<(usize, bool, Node)> = { 0..5 }
            .map(|at| (at % all.len(), false, Node::default()))
            .collect();
        for _ in 0..12 {
            let base = fleet.now().clone();
            change(&mut fleet, &mut texts, text(&mut rng));
            let staged = fleet.now().clone();
            for (_, chosen, _) in &mut nodes {
                *chosen = rng.bool();
            }
            for _ in 0..12 {
                let (at, chosen, node) = rng.choice(nodes.iter_mut()).expect("one");
                if rng.u8(..5) == 0 {
                    // It comes back, with what it had; we may know what that is.
                    let mut worlds = fleet.worlds.iter();
                    let known = worlds.find(|world| world.revision == node.revision);
                    let known = known.filter(|world| rng.bool() && world.revision > 0);
                    node.told = known.map_or_else(Told::default, |world| {
                        Told::has(Arc::new(view(world, &all[*at])), world.revision)
                    });
                }
                let target = if *chosen { &staged } else { &base };
                node.hear_of(&fleet, target, &all[*at]);
                assert_eq!(node.revision, target.revision, "seed {seed}");
                assert_eq!(node.hear_of(&fleet, target, &all[*at]), 0, "seed {seed}");
            }
            if rng.bool() && staged.revision > base.revision {
                let former = texts[base.revision as usize].clone();
                change(&mut fleet, &mut texts, former);
                assert!(fleet.now().revision > staged.revision);
                for (at, chosen, node) in &mut nodes {
                    let (had, node_knows) = (node.revision, node.told.view().is_some());
                    let lines = node.hear(&fleet, &all[*at]);
                    let same = node_knows && had == base.revision && !*chosen;
                    assert!(
                        !same || lines == 0,
                        "seed {seed}: who had it all along hears nothing"
                    );
                }
            }
        }
    }
}

#[test]
fn any_two_kept_revisions_differ_by_what_leads_from_one_to_the_other() {
    for seed in 0..60 {
        let mut rng = Rng::with_seed(seed);
        let mut fleet = Fleet::new();
        for _ in 0..12 {
            fleet.change(&text(&mut rng));
        }
        let (oldest, newest) = (fleet.history.oldest(), fleet.history.newest());
        assert_eq!(newest, fleet.now().revision);
        let blocks = |number: u64| {
            let mut blocks = Blocks::default();
            let world = fleet.worlds.iter().find(|world| world.revision == number);
            world
                .expect("it was")
                .blocks
                .iter()
                .for_each(|block| blocks.put(block.to_put()));
            blocks
        };
        for from in oldest..=newest {
            for to in oldest..=newest {
                let changes: Vec<Change> = fleet.history.difference(from, to).expect("kept");
                let mut made = blocks(from);
                follow(&mut made, &changes);
                assert_eq!(
                    made.list(),
                    blocks(to).list(),
                    "seed {seed}: {from} to {to}"
                );
            }
        }
        assert_eq!(fleet.history.difference(newest, newest + 1), None);
        if oldest > 0 {
            assert_eq!(fleet.history.difference(oldest - 1, newest), None);
        }
    }
}

#[test]
fn a_view_holds_what_its_routes_need_and_nothing_else() {
    let mut fleet = Fleet::new();
    fleet.change(
        "[[upstream]]\nname = \"a\"\nservice = \"orders\"\n[[upstream]]\nname = \"b\"\nservice = \"users\"\n\
         [[limit]]\nname = \"l\"\nby = \"client_ip\"\nrate = \"5/s\"\n\
         [[route]]\nname = \"in\"\nmatch = { path = \"/in\", listener = \"public\" }\nupstream = \"a\"\n\
         [[route]]\nname = \"out\"\nmatch = { path = \"/out\", listener = \"private\" }\nupstream = \"b\"\nfilters = [{ rate_limit = \"l\" }]\n",
    );
    let ids = |listeners: &[&str]| {
        let View { blocks, services } = view(fleet.now(), &wishes(listeners));
        let ids: Vec<String> = blocks
            .iter()
            .map(|block| block.id.replace("a.toml#", ""))
            .collect();
        (
            ids.join(" "),
            services
                .into_iter()
                .map(|name| name.to_string())
                .collect::<Vec<_>>()
                .join(" "),
        )
    };
    assert_eq!(
        ids(&["public"]),
        ("upstream:a route:in".to_owned(), "orders".to_owned())
    );
    assert_eq!(
        ids(&["private"]),
        (
            "upstream:b limit:l route:out".to_owned(),
            "users".to_owned()
        )
    );
    assert_eq!(ids(&["other"]).0, "");
    assert_eq!(
        ids(&[]).0,
        "upstream:a upstream:b limit:l route:in route:out"
    );
    let nothing = difference(&View::default(), &View::default());
    assert!(nothing.is_empty());
}
