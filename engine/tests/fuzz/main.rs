//! Everything of ours that reads bytes from a peer, fed with messages that are nearly right, and judged by a second
//! reading written here from the standards alone (`strict`, `chunks`): what we accept it must accept, and both must
//! mean the same.
//!
//! `TOLLGATE_FUZZ_CASES` says how many messages each target gets; `docs/testing.md` tells how to run it for longer.
//! Nothing here opens a socket.

mod bodies;
mod chunks;
mod generate;
mod heads;
mod paths;
mod requests;
mod strict;
mod words;
mod writing;

use proptest::prelude::ProptestConfig;

/// Messages for each target, unless the environment asks for more.
const CASES: u32 = 200;

fn config() -> ProptestConfig {
    let cases = std::env::var("TOLLGATE_FUZZ_CASES")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(CASES);
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(cases)
    }
}
