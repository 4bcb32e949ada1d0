//! What a change would make of the catalog, or everything that is wrong with it. Changes nothing but what the loader
//! remembers, which decides nothing.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use tollgate_config::feed::{Block, Blocks, MOST_BLOCKS, MOST_BYTES};
use tollgate_config::fleet::{self, Looks};
use tollgate_config::{Document, Loader, Problem, Problems, Upstream};

use super::history::{History, Origin, compare, follow};
use super::{Applied, Inner, Refused, Request, Wish, World};

/// `there` are the blocks that the store has.
pub(super) fn plan(
    inner: &mut Inner,
    request: &Request,
    now: &Arc<World>,
    there: &[Arc<Block>],
    history: &History,
    folder: Option<&Path>,
) -> Result<(Blocks, Applied), Refused> {
    let mut blocks = inner.blocks.clone();
    match &request.wish {
        Wish::Documents(documents) => {
            for name in documents.keys() {
                name_of(name, request.origin, &inner.files)?;
            }
            let folder = folder.filter(|_| request.origin == Origin::Files);
            replace(&mut blocks, documents, there, folder)?;
        }
        Wish::Rollback(to) => {
            let changes = history.difference(history.newest().max(now.revision), *to);
            follow(
                &mut blocks,
                &changes.ok_or(Refused::NotKept(history.oldest()))?,
            );
        }
    }
    let changes = compare(&inner.blocks, &blocks);
    if changes.is_empty() {
        // Done already, whoever did it: the second time is as good as the first.
        let applied = Applied {
            revision: now.revision,
            changes,
            world: now.clone(),
        };
        return Ok((blocks, applied));
    }
    // Not that of `now`, where this version refuses what is newer.
    let newest = history.newest().max(now.revision);
    if request.if_revision.is_some_and(|wanted| wanted != newest) {
        return Err(Refused::Conflict(newest));
    }
    if blocks.len() > MOST_BLOCKS || blocks.weight() > MOST_BYTES {
        return Err(Refused::Problems(Problems(vec![Problem {
            code: "too-large",
            place: None,
            message: format!(
                "the catalog would have {} blocks with {} bytes",
                blocks.len(),
                blocks.weight()
            ),
            text: None,
            hint: Some(format!(
                "a node keeps {MOST_BLOCKS} blocks with {MOST_BYTES} bytes; take some out"
            )),
        }])));
    }
    let list = blocks.list();
    let document = inner.loader.blocks(&list).map_err(Refused::Problems)?;
    prove(&document).map_err(Refused::Problems)?;
    let revision = newest + 1;
    let world = Arc::new(World {
        revision,
        blocks: list,
        document,
    });
    let applied = Applied {
        revision,
        changes,
        world,
    };
    Ok((blocks, applied))
}

/// A relative path of a TOML file, such as `shop/orders.toml`.
fn name_of(name: &str, origin: Origin, files: &BTreeMap<String, String>) -> Result<(), Refused> {
    let refused = |why| Err(Refused::Name(name.chars().take(80).collect(), why));
    let parts = name.split('/');
    let good = name.len() <= 200
        && !name.contains(|letter: char| letter.is_control() || "#~\\".contains(letter))
        && { parts }.all(|part| !part.is_empty() && !part.starts_with('.'));
    if !good || !name.ends_with(".toml") {
        return refused(
            "cannot be a document's name; write a relative path such as `shop/orders.toml`",
        );
    }
    if origin == Origin::Api && files.contains_key(name) {
        return refused(
            "stands in the control plane's folder; change the file there, or use another name",
        );
    }
    Ok(())
}

/// Cuts the documents, and puts their blocks in the place of those that they had.
fn replace(
    blocks: &mut Blocks,
    documents: &BTreeMap<String, Option<String>>,
    there: &[Arc<Block>],
    folder: Option<&Path>,
) -> Result<(), Refused> {
    let environment = |name: &str| std::env::var(name).ok();
    let mut problems = Vec::new();
    for (name, text) in documents {
        let own = there.iter().filter(|block| *block.file == **name);
        let former: HashMap<&str, Arc<Block>> = { own.clone() }
            .map(|block| (&*block.text, block.clone()))
            .collect();
        let below = folder.map(|folder| {
            let path = folder.join(name);
            path.parent().unwrap_or(folder).to_owned()
        });
        let looks = Looks {
            environment: &environment,
            folder: below.as_deref(),
        };
        let puts = match text {
            None => Vec::new(),
            Some(text) => match fleet::cut(name, text, &looks, &former) {
                Ok(puts) => puts,
                Err(found) => {
                    problems.extend(found.0);
                    continue;
                }
            },
        };
        let ids: HashSet<&str> = puts.iter().map(|put| put.id.as_str()).collect();
        let gone: Vec<Arc<str>> = { own }
            .filter(|block| !ids.contains(&*block.id))
            .map(|block| block.id.clone())
            .collect();
        drop(ids);
        for id in gone {
            blocks.remove(&id);
        }
        for put in puts {
            blocks.put(put);
        }
    }
    match problems.is_empty() {
        true => Ok(()),
        false => Err(Refused::Problems(Problems(problems))),
    }
}

/// Runs the documents' tests as a gateway would that has every listener.
fn prove(document: &Document) -> Result<(), Problems> {
    if document.tests.is_empty() {
        return Ok(());
    }
    let routes = document.routes.iter();
    let named = routes.flat_map(|route| &route.matches.listeners);
    let named = named.chain(
        document
            .tests
            .iter()
            .filter_map(|test| test.listener.as_ref()),
    );
    let mut names: Vec<&str> = named.map(String::as_str).collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        names.push("any");
    }
    let text: String = { names.iter() }
        .map(|name| format!("[[listener]]\nname = {name:?}\nbind = \"127.0.0.1:0\"\n"))
        .collect();
    let base = Loader::with_environment(|_| None).load_text("listeners", &text, Path::new("/"))?;
    let mut whole = document.clone();
    whole.listeners = base.listeners;
    // Certificates are the nodes' own.
    for upstream in whole.upstreams.iter_mut().filter(|one| one.tls.is_some()) {
        let mut bare = Upstream::clone(upstream);
        bare.tls = None;
        upstream.value = Arc::new(bare);
    }
    tollgate_engine::snapshot::of(&whole).map(drop)
}
