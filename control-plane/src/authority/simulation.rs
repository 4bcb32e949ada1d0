//! Random years of a mesh: members that join, renew, hear of news at once or only when they renew, and an authority that
//! changes its key by itself and when it is told to. What must hold at every moment: whoever has a certificate that has
//! not ended is trusted by everybody else, whoever signed it; and nobody is trusted for longer than needed (MESH-304).

use tollgate_config::identity::MOST_AUTHORITIES;

use super::certificate::Made;
use super::rotation::{Authorities, NotRotated, Phase, SKEW, Wanted, settle};

const LIFETIME: u64 = 86_400;
const OVERLAP: u64 = 86_400;
const AUTHORITY: u64 = 40 * 86_400;

struct Member {
    /// Who signed its certificate, and until when that is good.
    signed: String,
    until: u64,
    /// What it was told last.
    trusts: Vec<String>,
    version: u64,
    /// Hears of news at once.
    listens: bool,
}

fn wanted(trust_domain: &str, has_key: bool, has_members: bool) -> Wanted<'_> {
    Wanted {
        trust_domain,
        authority_lifetime: AUTHORITY,
        overlap: OVERLAP,
        rotates_before: OVERLAP + 2 * LIFETIME,
        own: None,
        has_key,
        has_members,
    }
}

fn made(number: u64, _from: u64, _until: u64) -> Result<Made, String> {
    Ok(Made {
        certificate: format!("certificate {number}"),
        key: format!("key {number}"),
    })
}

struct Mesh {
    now: u64,
    random: fastrand::Rng,
    /// As it is written: each step reads it anew, as after a restart.
    written: Option<String>,
    /// Private keys that are there.
    keys: Vec<u64>,
    /// Who signed a certificate, and when it ends.
    issued: Vec<(u64, u64)>,
    members: Vec<Member>,
    rotations: u64,
}

impl Mesh {
    fn authorities(&self) -> Authorities {
        serde_json::from_str(self.written.as_ref().expect("there")).expect("readable")
    }

    fn last(&self, number: u64) -> u64 {
        let of = self.issued.iter().filter(|(signed, _)| *signed == number);
        of.map(|(_, until)| *until).max().unwrap_or(0)
    }

    fn look_after(&mut self) {
        let known: Option<Authorities> =
            { self.written.as_ref() }.map(|text| serde_json::from_str(text).expect("readable"));
        let signs = known
            .as_ref()
            .and_then(|known| known.signs())
            .map(|one| one.number);
        let has_key = signs.is_some_and(|number| self.keys.contains(&number));
        let last = |number: u64| self.last(number);
        let wanted = wanted("shop.example", has_key, !self.members.is_empty());
        let change = settle(known.as_ref(), self.now, &wanted, &last, &mut made).expect("keys");
        let Some(change) = change else { return };
        if let Some(known) = &known {
            let (before, after) = (
                known.trust(Vec::new()),
                change.authorities.trust(Vec::new()),
            );
            let grew = after.version > before.version;
            assert_eq!(before.authorities != after.authorities, grew);
        }
        assert!(!change.words.is_empty());
        self.take(change);
        // What was done is done.
        let known = self.authorities();
        let has_key = known
            .signs()
            .is_some_and(|one| self.keys.contains(&one.number));
        assert!(has_key, "whoever signs has a key");
        let last = |number: u64| self.last(number);
        let again = wanted_again(has_key);
        let nothing = settle(Some(&known), self.now, &again, &last, &mut made).expect("keys");
        assert_eq!(nothing, None);
    }

    fn take(&mut self, change: super::rotation::Change) {
        self.keys.retain(|key| !change.forget.contains(key));
        self.keys
            .extend(change.key.iter().map(|(number, _)| *number));
        self.written = Some(serde_json::to_string(&change.authorities).expect("text"));
    }

    fn rotate(&mut self) {
        let known = self.authorities();
        let announced =
            { known.known.iter() }.any(|one| matches!(one.phase, Phase::Announced { .. }));
        let wanted = wanted("shop.example", true, true);
        match known.rotate(self.now, &wanted, &mut made).expect("keys") {
            Ok(change) => {
                assert!(!announced);
                self.rotations += 1;
                self.take(change);
            }
            Err(why) => {
                let room = known.trust(Vec::new()).authorities.len() < MOST_AUTHORITIES;
                assert!(announced || !room, "{why:?}");
                assert!(matches!(why, NotRotated::Active(_) | NotRotated::TooMany));
            }
        }
    }

    /// A certificate, and what the answer tells.
    fn issue(&mut self, listens: bool) -> Member {
        let known = self.authorities();
        let signs = known.signs().expect("somebody signs");
        let until = (self.now + LIFETIME).min(signs.not_after);
        assert_eq!(until, self.now + LIFETIME, "no life is cut short");
        let (signed, number) = (signs.certificate.clone(), signs.number);
        self.issued.push((number, until));
        let trust = known.trust(Vec::new());
        Member {
            signed,
            until,
            trusts: trust.authorities,
            version: trust.version,
            listens,
        }
    }

    fn step(&mut self) {
        // Some steps are long: the control plane was away, members were not.
        self.now += match self.random.u8(..40) {
            0 => self.random.u64(..LIFETIME / 4),
            _ => self.random.u64(..900),
        };
        self.look_after();
        if self.random.u16(..2000) == 0 {
            self.rotate();
        }
        if self.members.len() < 12 && self.random.u8(..30) == 0 {
            let listens = self.random.bool();
            let member = self.issue(listens);
            self.members.push(member);
        }
        let trust = self.authorities().trust(Vec::new());
        for at in 0..self.members.len() {
            let member = &self.members[at];
            if member.until.saturating_sub(self.now) < LIFETIME * 2 / 5 {
                let listens = member.listens;
                self.members[at] = self.issue(listens);
            } else if member.listens {
                let member = &mut self.members[at];
                assert!(trust.version >= member.version);
                member.trusts.clone_from(&trust.authorities);
                member.version = trust.version;
            }
        }
        if self.random.u16(..500) == 0 && !self.members.is_empty() {
            let gone = self.random.usize(..self.members.len());
            self.members.swap_remove(gone);
        }
        self.check();
    }

    fn check(&self) {
        for caller in &self.members {
            assert!(caller.until > self.now);
            for callee in &self.members {
                assert!(
                    callee.trusts.contains(&caller.signed),
                    "{} is not trusted by {:?}",
                    caller.signed,
                    callee.trusts
                );
            }
        }
        let known = self.authorities();
        let signs = { known.known.iter() }.filter(|one| matches!(one.phase, Phase::Signs { .. }));
        assert_eq!(signs.count(), 1);
        for one in &known.known {
            let Phase::Leaving { until, .. } = one.phase else {
                assert!(self.keys.contains(&one.number));
                continue;
            };
            assert!(!self.keys.contains(&one.number), "its key is forgotten");
            assert!(until >= self.last(one.number), "it outlives what it signed");
            let longest = self.last(one.number).max(self.now) + SKEW;
            assert!(until <= longest, "and not for longer than needed");
        }
        assert!(self.keys.len() <= 2, "{:?}", self.keys);
    }
}

fn wanted_again(has_key: bool) -> Wanted<'static> {
    wanted("shop.example", has_key, true)
}

#[test]
fn whoever_has_a_good_certificate_is_trusted_by_everybody_through_every_change_of_keys_mesh_304() {
    let mut rotations = 0;
    for seed in 0..10 {
        let mut mesh = Mesh {
            now: 1_800_000_000,
            random: fastrand::Rng::with_seed(seed),
            written: None,
            keys: Vec::new(),
            issued: Vec::new(),
            members: Vec::new(),
            rotations: 0,
        };
        mesh.look_after();
        for _ in 0..6000 {
            mesh.step();
            let now = mesh.now;
            mesh.issued.retain(|(_, until)| *until + LIFETIME > now);
        }
        let newest = mesh.authorities().last_number;
        assert!(newest > 1, "it changes its key by itself");
        rotations += mesh.rotations;
    }
    assert!(rotations > 3, "{rotations}");
}

#[test]
fn a_lost_key_is_replaced_at_once_and_a_key_in_files_signs_as_long_as_it_is_there() {
    use super::rotation::Own;
    let never = |_: u64| 0;
    let begin = settle(None, 1000, &wanted("a", false, false), &never, &mut made);
    let begin = begin.expect("keys").expect("the first key");
    assert_eq!(begin.key, Some((1, "key 1".to_owned())));
    let first = begin.authorities;
    assert_eq!((first.version, first.trust_domain.as_str()), (1000, "a"));
    // A store that lost the key alone.
    let lost = settle(
        Some(&first),
        2000,
        &wanted("a", false, true),
        &|_| 5000,
        &mut made,
    );
    let lost = lost.expect("keys").expect("another key");
    assert_eq!(lost.key, Some((2, "key 2".to_owned())));
    let trust = lost.authorities.trust(Vec::new());
    assert_eq!(trust.authorities, ["certificate 1", "certificate 2"]);
    assert!(trust.version > first.version);
    // Files come, change their roots, and go.
    let mut own = Own {
        certificate: "mine".to_owned(),
        chain: "mine".to_owned(),
        trusted: vec!["root".to_owned()],
        not_after: 1_000_000,
    };
    let mut files = wanted("a", true, true);
    files.own = Some(&own);
    let taken = settle(Some(&lost.authorities), 3000, &files, &|_| 5000, &mut made);
    let taken = taken.expect("no key is made").expect("it signs");
    assert_eq!((taken.key, taken.forget), (None, vec![2]));
    assert!(taken.authorities.signs().is_some_and(|one| one.own));
    let mut known = taken.authorities;
    assert_eq!(known.trust(Vec::new()).authorities.len(), 3);
    assert_eq!(
        known.rotate(3000, &files, &mut made).expect("keys"),
        Err(NotRotated::Own)
    );
    own.trusted.push("next root".to_owned());
    let mut files = wanted("a", true, true);
    files.own = Some(&own);
    let roots = settle(Some(&known), 6000, &files, &|_| 5000, &mut made);
    known = roots.expect("no key").expect("roots").authorities;
    let trust = known.trust(Vec::new());
    assert_eq!(trust.authorities, ["root", "next root"], "the others ended");
    let gone = settle(
        Some(&known),
        7000,
        &wanted("a", false, true),
        &|_| 8000,
        &mut made,
    );
    let gone = gone.expect("keys").expect("a key of its own");
    assert_eq!(gone.key, Some((4, "key 4".to_owned())));
    // Another trust domain waits for the last member.
    let same = settle(
        Some(&gone.authorities),
        7000,
        &wanted("b", true, true),
        &|_| 8000,
        &mut made,
    );
    assert_eq!(same, Ok(None));
    let other = settle(
        Some(&gone.authorities),
        7000,
        &wanted("b", true, false),
        &never,
        &mut made,
    );
    let other = other.expect("keys").expect("another mesh");
    assert_eq!(other.authorities.trust_domain, "b");
    assert_eq!(other.authorities.known.len(), 1);
    assert!(other.authorities.version > gone.authorities.version);
}
