//! Carries one client's bytes to its listener's upstream and back: connects, relays, and keeps the books. A connection
//! that is carried counts as in flight: a drain waits for it, and cuts it when its time is over.

use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::task::Poll;

use bytes::BytesMut;

use super::door::Guest;
use crate::alarm::Alarm;
use crate::clock;
use crate::net::relay::{End, Relay, reset};
use crate::net::stream::Stream;
use crate::proxy::{Answer, Connection, Proxy, tunnel};
use crate::telemetry::metrics::RelayEnd;

/// `early`: what was read already, to find out that it is no HTTP.
pub(super) async fn serve(
    proxy: Rc<Proxy>,
    connection: Rc<Connection>,
    guest: Guest,
    client: Stream,
    early: BytesMut,
) {
    let alarm = Rc::new(Alarm::default());
    let carried = Box::pin(proxy.carry(&connection, &alarm, guest.series())).await;
    match carried.and_then(|mut answer| Some((upstream(&mut answer)?, answer))) {
        Some((upstream, answer)) => {
            let relay = Relay::new(client, upstream.stream, early);
            run(relay, answer, &alarm).await;
            drop(upstream.open);
        }
        // A refusal that no protocol has words for.
        None => reset(&client),
    }
}

/// An endpoint's connection, and what it counts as while it is open.
struct Upstream {
    stream: Stream,
    open: Option<Box<dyn std::any::Any>>,
}

fn upstream(answer: &mut Answer) -> Option<Upstream> {
    let tunnel::End::Wire(wire) = answer.tunnel.take()? else {
        return None;
    };
    // Nobody else has it: it was made for this client.
    let wire = Rc::try_unwrap(wire).ok()?.into_inner();
    Some(Upstream {
        stream: wire.stream,
        open: wire.open,
    })
}

/// Until both directions have ended, one side breaks, or nothing has moved for too long.
fn run(mut relay: Relay, mut answer: Answer, alarm: &Alarm) -> impl Future<Output = ()> {
    let idle = answer.idle();
    async move {
        let mut moved = clock::now();
        let end = poll_fn(|cx| {
            let ended = relay.poll(cx);
            let (to_upstream, to_client) = relay.moved();
            if answer.carried(to_upstream, to_client) {
                moved = clock::now();
            }
            match (ended, idle) {
                (Poll::Ready(end), _) => Poll::Ready(match end {
                    End::Finished => RelayEnd::Finished,
                    End::ClientReset => RelayEnd::ClientReset,
                    End::UpstreamReset => RelayEnd::UpstreamReset,
                }),
                (Poll::Pending, Some(idle)) => {
                    alarm.poll_at(moved + idle, cx).map(|()| RelayEnd::Idle)
                }
                (Poll::Pending, None) => Poll::Pending,
            }
        })
        .await;
        answer.carried_to(end);
    }
}
