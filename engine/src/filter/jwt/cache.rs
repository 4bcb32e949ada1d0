//! Tokens that a worker has verified, so that the next request with the same one costs a hash instead of a signature. One
//! worker's own. Neither tokens nor their plain hashes are kept: a token is known by an HMAC under a secret that the
//! worker made up, so what stands here is of no use elsewhere and nobody can make two tokens meet. Bounded: places in
//! groups of four, in which the one that was used longest ago makes room.
//!
//! What was verified holds only while the settings and the keys that verified it do: their numbers stand beside it.

use std::cell::RefCell;
use std::rc::Rc;

use aws_lc_rs::hmac;

use super::claims::Identity;
use super::key::number;

const GROUP: usize = 4;

/// A worker's memory, by issuer.
#[derive(Debug)]
pub struct Cache {
    secret: hmac::Key,
    shelves: RefCell<Vec<Shelf>>,
}

/// How a token is known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark([u8; 32]);

/// What verified something: the number of the settings, and of the set of keys.
pub(super) type Ground = (u64, u64);

#[derive(Debug, Default)]
struct Shelf {
    groups: Vec<[Option<Entry>; GROUP]>,
}

#[derive(Debug)]
struct Entry {
    mark: Mark,
    ground: Ground,
    identity: Rc<Identity>,
}

impl Default for Cache {
    fn default() -> Self {
        let mut secret = [0; 32];
        // Without good randomness the seed of this process's hashes and a number must do: nothing is believed that was
        // not verified, whatever this is.
        if aws_lc_rs::rand::fill(&mut secret).is_err() {
            let mut noise = crate::exchange::noise::Noise::default();
            for part in secret.chunks_mut(8) {
                part.copy_from_slice(&(noise.draw() ^ number()).to_le_bytes());
            }
        }
        Cache {
            secret: hmac::Key::new(hmac::HMAC_SHA256, &secret),
            shelves: RefCell::default(),
        }
    }
}

impl Cache {
    pub(super) fn mark(&self, token: &[u8]) -> Mark {
        let tag = hmac::sign(&self.secret, token);
        let mut mark = [0; 32];
        mark.copy_from_slice(tag.as_ref());
        Mark(mark)
    }

    /// Who this was, if it was verified on this ground and is still good.
    pub(super) fn find(
        &self,
        issuer: usize,
        mark: &Mark,
        grounds: impl Fn(Ground) -> bool,
        now: u64,
    ) -> Option<Rc<Identity>> {
        let mut shelves = self.shelves.borrow_mut();
        let group = shelves.get_mut(issuer)?.group(mark)?;
        let place = group
            .iter()
            .position(|entry| entry.as_ref().is_some_and(|entry| entry.mark == *mark))?;
        let entry = group[place].as_ref()?;
        let good =
            grounds(entry.ground) && (entry.identity.from..entry.identity.until).contains(&now);
        if !good {
            group[place] = None;
            return None;
        }
        let identity = entry.identity.clone();
        // The first of a group is the one that was used last.
        group[..=place].rotate_right(1);
        Some(identity)
    }

    /// `most`: how many tokens of this issuer may be remembered.
    pub(super) fn remember(
        &self,
        issuer: usize,
        most: usize,
        mark: Mark,
        ground: Ground,
        identity: &Rc<Identity>,
    ) {
        let mut shelves = self.shelves.borrow_mut();
        if shelves.len() <= issuer {
            shelves.resize_with(issuer + 1, Shelf::default);
        }
        let shelf = &mut shelves[issuer];
        let groups = most.div_ceil(GROUP);
        if shelf.groups.len() != groups {
            shelf.groups = std::iter::repeat_with(Default::default)
                .take(groups)
                .collect();
        }
        let Some(group) = shelf.group(&mark) else {
            return;
        };
        group.rotate_right(1);
        group[0] = Some(Entry {
            mark,
            ground,
            identity: identity.clone(),
        });
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        let shelves = self.shelves.borrow();
        let groups = shelves.iter().flat_map(|shelf| &shelf.groups);
        groups.flatten().flatten().count()
    }
}

impl Shelf {
    fn group(&mut self, mark: &Mark) -> Option<&mut [Option<Entry>; GROUP]> {
        let [a, b, c, d, e, f, g, h, ..] = mark.0;
        let place = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        let groups = self.groups.len() as u64;
        let place = place.checked_rem(groups)?;
        self.groups.get_mut(usize::try_from(place).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn someone(from: u64, until: u64) -> Rc<Identity> {
        Rc::new(Identity::for_tests(from, until))
    }

    #[test]
    fn a_token_is_known_until_it_expires_and_on_its_own_ground_only() {
        let cache = Cache::default();
        let mark = cache.mark(b"a.b.c");
        let remember = || cache.remember(0, 8, mark, (1, 1), &someone(10, 20));
        let find = |issuer, ground: Ground, now| {
            cache
                .find(issuer, &mark, |known| known == ground, now)
                .is_some()
        };
        for (issuer, ground, now, known) in [
            (0, (1, 1), 10, true),
            (0, (1, 1), 19, true),
            (0, (1, 1), 20, false),
            (0, (1, 1), 9, false),
            (0, (2, 1), 10, false),
            (0, (1, 2), 10, false),
            (1, (1, 1), 10, false),
        ] {
            remember();
            assert_eq!(
                find(issuer, ground, now),
                known,
                "{issuer} {ground:?} {now}"
            );
        }
        assert!(!find(0, (1, 1), 20));
        assert!(!find(0, (1, 1), 10), "what has expired once is gone");
        assert_ne!(Cache::default().mark(b"a.b.c"), mark, "a secret of its own");
    }

    #[test]
    fn it_never_holds_more_than_it_may_and_keeps_what_is_used() {
        let cache = Cache::default();
        let marks: Vec<Mark> = (0u32..1000).map(|n| cache.mark(&n.to_le_bytes())).collect();
        let all = |_| true;
        for mark in &marks {
            cache.remember(0, 16, *mark, (1, 1), &someone(0, 9));
            cache.remember(0, 16, marks[0], (1, 1), &someone(0, 9));
        }
        assert!(cache.len() <= 16);
        assert!(cache.find(0, &marks[0], all, 1).is_some());
        cache.remember(0, 0, marks[0], (1, 1), &someone(0, 9));
        assert_eq!(cache.len(), 0, "a smaller bound holds at once");
    }
}
