//! How long a sidecar that has run before takes to its first answer from beyond the mesh: with what it has on disk, for a
//! caller who tries again every half millisecond.

use std::io;
use std::time::{Duration, Instant};

use super::Stage;
use super::ours::START;
use super::pair::{CALLED, Pair, Way, answered};
use super::report::Figures;

const LOOK: Duration = Duration::from_micros(500);

pub(super) async fn ready(stage: &Stage<'_>) -> io::Result<Figures> {
    let mut figures = Figures::default();
    let mut pairs = Vec::new();
    for peer in stage.peers() {
        let pair = Pair::start(stage, peer, Way::Requests, stage.upstream.http1, 0).await?;
        pair.answers(CALLED).await?;
        pairs.push(pair);
    }
    for _ in 0..stage.settings.rounds {
        for pair in &mut pairs {
            let began = Instant::now();
            pair.restart()?;
            while !answered(pair.entrance, CALLED) {
                if began.elapsed() > START {
                    return Err(io::Error::other("a sidecar does not come back"));
                }
                tokio::time::sleep(LOOK).await;
            }
            let took = began.elapsed().as_secs_f64() * 1e3;
            figures.add(
                ("start to first answer", "ms", Some(100.0)),
                pair.peer,
                took,
            );
        }
    }
    Ok(figures)
}
