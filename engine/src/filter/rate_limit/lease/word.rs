//! What a gateway holds of one client's bucket, in one word: tokens that were leased and may be used now, and how many
//! the lender had left when it was last asked. Pure arithmetic, as in `bucket`: `take` makes the next word of the one
//! before, and whoever owns the word puts it there by a compare-and-swap. It neither fills by time nor knows a clock:
//! tokens come from the lender alone.

/// Whole tokens, as many as a document's largest burst.
const TOKENS: u64 = (1 << 24) - 1;
const TOLD: u32 = 24;
/// The lender is being asked for more.
const ASKED: u64 = 1 << 48;
/// Somebody wanted a token since the last look.
const USED: u64 = 1 << 49;
/// Somebody was refused since tokens came.
const HUNGRY: u64 = 1 << 50;
/// The tokens are on credit: the lender does not know of them yet. `told` says how many there were.
const CREDIT: u64 = 1 << 51;
/// So that a word is never taken for a free place, nor for a vacant one.
const ALIVE: u64 = 1 << 62;

/// How a take ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Took {
    pub(crate) admitted: bool,
    /// Tokens left, here and as far as was told at the lender.
    pub(crate) left: u64,
    /// More must be asked for, and nobody does yet.
    pub(crate) ask: bool,
}

/// A word as whoever refills it sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) tokens: u64,
    /// Taken before the lender was asked; to be told it.
    pub(crate) credit: u64,
    pub(crate) hungry: bool,
    pub(crate) used: bool,
}

/// The word of a client that nobody knew: it may begin at once, with a few tokens on credit.
pub(crate) fn fresh(credit: u64) -> u64 {
    let credit = credit.min(TOKENS);
    ALIVE | CREDIT | credit << TOLD | credit
}

/// Takes a token. `low`: when no more than this is left, more is asked for. `None`: nothing changes.
pub(crate) fn take(was: u64, low: u64) -> (Option<u64>, Took) {
    let tokens = was & TOKENS;
    let told = if was & CREDIT == 0 {
        was >> TOLD & TOKENS
    } else {
        0
    };
    let admitted = tokens > 0;
    let left = tokens.saturating_sub(1);
    let mut next = was & !TOKENS | left | USED;
    if !admitted {
        next |= HUNGRY;
    }
    // A client on credit is always asked for: its lender must learn of it.
    let asks = (left <= low || was & CREDIT != 0) && was & ASKED == 0;
    if asks {
        next |= ASKED;
    }
    let took = Took {
        admitted,
        left: if admitted { left + told } else { 0 },
        ask: asks,
    };
    ((next != was).then_some(next), took)
}

pub(crate) fn seen(word: u64) -> Seen {
    Seen {
        tokens: word & TOKENS,
        credit: if word & CREDIT == 0 {
            0
        } else {
            word >> TOLD & TOKENS
        },
        hungry: word & HUNGRY != 0,
        used: word & USED != 0,
    }
}

/// The credit was noted, and will be told.
pub(crate) fn noted(word: u64) -> u64 {
    word & !(CREDIT | TOKENS << TOLD)
}

/// Tokens came; `told` is what the lender has left. `settled`: nobody asks for more until somebody takes.
pub(crate) fn filled(word: u64, tokens: u64, told: u64, settled: bool) -> u64 {
    let sum = (word & TOKENS).saturating_add(tokens).min(TOKENS);
    let flags = word & (USED | CREDIT | ALIVE | ASKED | HUNGRY);
    let told = if word & CREDIT == 0 {
        told.min(TOKENS) << TOLD
    } else {
        word & TOKENS << TOLD
    };
    let cleared = match (settled, tokens) {
        (true, _) => ASKED | HUNGRY,
        (false, 0) => 0,
        (false, _) => HUNGRY,
    };
    (flags & !cleared) | told | sum
}

/// Nobody asks: the wish could not be delivered.
pub(crate) fn unasked(word: u64) -> u64 {
    word & !ASKED
}

/// Looked at: from now on, who takes shows.
pub(crate) fn unused(word: u64) -> u64 {
    word & !USED
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::super::bucket::VACANT;
    use super::*;

    #[test]
    fn a_client_begins_on_credit_and_asks_once() {
        let word = fresh(3);
        assert_eq!(seen(word).credit, 3);
        let (next, took) = take(word, 1);
        assert_eq!((took.admitted, took.left, took.ask), (true, 2, true));
        let word = noted(next.expect("it changed"));
        assert_eq!((seen(word).tokens, seen(word).credit), (2, 0));
        let (next, took) = take(word, 1);
        assert_eq!((took.admitted, took.ask), (true, false), "asked already");
        let (next, took) = take(next.expect("it changed"), 1);
        assert_eq!((took.admitted, took.left), (true, 0));
        let (next, took) = take(next.expect("it changed"), 1);
        assert!(!took.admitted);
        let word = next.expect("it is hungry now");
        assert!(seen(word).hungry);
        assert_eq!(
            take(word, 1).0,
            None,
            "a refusal that tells nothing new writes nothing"
        );
        let word = filled(word, 5, 40, true);
        let (_, took) = take(word, 1);
        assert_eq!((took.admitted, took.left, took.ask), (true, 44, false));
    }

    proptest! {
        #[test]
        fn tokens_are_neither_made_nor_lost(credit in 0u64..100, steps in proptest::collection::vec((any::<u8>(), 0u64..50, any::<bool>()), 0..60)) {
            let (mut word, mut tokens) = (fresh(credit), credit);
            for (what, amount, flag) in steps {
                match what % 6 {
                    0..=2 => {
                        let (next, took) = take(word, amount);
                        prop_assert_eq!(took.admitted, tokens > 0);
                        tokens -= u64::from(took.admitted);
                        word = next.unwrap_or(word);
                    }
                    3 => {
                        word = filled(word, amount, amount * 7, flag);
                        tokens += amount;
                    }
                    4 => word = noted(word),
                    _ => word = if flag { unasked(word) } else { unused(word) },
                }
                prop_assert_eq!(seen(word).tokens, tokens);
                prop_assert!(word != 0 && word != VACANT);
                let known = seen(word).credit;
                prop_assert!(known == 0 || known == credit);
            }
        }
    }
}
