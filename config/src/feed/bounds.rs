//! How long and how many things of a feed may be. Whoever sends more is broken or hostile, and is told so.

use super::{Instance, Line, Put, Service, asking};
use crate::rule;
use crate::unit::short;

/// Bytes of one line: all instances of a large service fit.
pub const MOST_LINE: usize = 8 << 20;
/// Bytes of one block's text.
pub const MOST_TEXT: usize = 1 << 20;
/// References in one block.
pub const MOST_USES: usize = 1000;
/// Blocks that a node keeps.
pub const MOST_BLOCKS: usize = 200_000;
/// Bytes of all blocks together, and of all instances together; as much as a document's files may have.
pub const MOST_BYTES: usize = 64 << 20;
/// Services that a node keeps.
pub const MOST_SERVICES: usize = 20_000;
/// Instances of one service.
pub const MOST_INSTANCES: usize = 20_000;
/// Bytes of a name, an id, a place, an address, a key or a value.
const MOST_WORD: usize = 1024;
/// Pairs of one instance's metadata.
const MOST_PAIRS: usize = 100;

pub(super) fn check(line: &Line) -> Result<(), String> {
    match line {
        Line::Hello(hello) => {
            word("server", &hello.server)?;
            word("epoch", &hello.epoch)?;
            if hello.beat.is_zero() {
                return Err("`beat` is no time at all".to_owned());
            }
            Ok(())
        }
        Line::Put(put) => block(put),
        Line::Remove(remove) => word("id", &remove.id),
        Line::Service(one) => service(one),
        Line::Trust(trust) => trust.check(),
        Line::Ask(ask) => asking::check(ask),
        Line::Begin(_) | Line::End(_) | Line::Beat(_) | Line::Refused(_) => Ok(()),
    }
}

fn block(put: &Put) -> Result<(), String> {
    word("id", &put.id)?;
    word("file", &put.file)?;
    let of = |what: &str| format!("block `{}` {what}", short(&put.id));
    if put.line == 0 {
        return Err(of("stands on line 0; lines are counted from 1"));
    }
    if put.text.len() > MOST_TEXT {
        return Err(of(&format!("has more than {MOST_TEXT} bytes of text")));
    }
    if put.uses.len() > MOST_USES {
        return Err(of(&format!("has more than {MOST_USES} references")));
    }
    Ok(())
}

fn service(service: &Service) -> Result<(), String> {
    rule::name(&service.name).map_err(|_| {
        format!(
            "`{}` cannot be the name of a service",
            short(&service.name).replace(char::is_control, " ")
        )
    })?;
    if service.instances.len() > MOST_INSTANCES {
        return Err(format!(
            "service `{}` has more than {MOST_INSTANCES} instances",
            service.name
        ));
    }
    let mut instances = service.instances.iter();
    instances.try_for_each(instance).map_err(|why| {
        format!(
            "service `{}` has an instance that cannot be used: {why}",
            service.name
        )
    })
}

fn instance(instance: &Instance) -> Result<(), String> {
    word("id", &instance.id)?;
    word("address", &instance.address)?;
    rule::endpoint(&instance.address).map_err(|fault| fault.message)?;
    if let Some(zone) = &instance.zone {
        word("zone", zone)?;
    }
    if instance.metadata.len() > MOST_PAIRS {
        return Err(format!("`metadata` has more than {MOST_PAIRS} pairs"));
    }
    for (key, value) in &instance.metadata {
        word("metadata", key)?;
        if value.len() > MOST_WORD {
            return Err(format!("`metadata.{}` is too long", short(key)));
        }
    }
    Ok(())
}

/// What stands in logs and places must be one short line.
pub(super) fn word(what: &str, text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err(format!("`{what}` is empty"));
    }
    if text.len() > MOST_WORD {
        return Err(format!("`{what}` has more than {MOST_WORD} bytes"));
    }
    if text.chars().any(char::is_control) {
        return Err(format!("`{what}` holds a control character"));
    }
    Ok(())
}
