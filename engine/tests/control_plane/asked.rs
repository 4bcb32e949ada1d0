//! What a node answers when its control plane asks over the feed (CP-301, CP-303).

use tollgate_config::feed::{Answer, Ask, Line, Told, What};
use tollgate_config::span::{Span, SpanKind};
use tollgate_engine::testing::control_plane::ControlPlane;
use tollgate_engine::testing::gateway::Gateway;
use tollgate_engine::testing::upstream::Upstream;

use super::{asking, connected, until};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// Asks, and returns the answer.
fn ask(control: &ControlPlane, id: &str, what: What) -> Answer {
    let id = id.to_owned();
    let ask = Ask {
        id: id.clone(),
        what,
    };
    control.say_lines(&[Line::Ask(ask)]);
    let journal = control.wait("an answer", |journal| {
        journal.answers.iter().any(|(of, _)| *of == id)
    });
    let found = journal.answers.into_iter().find(|(of, _)| *of == id);
    found.expect("waited for").1
}

/// The spans of a trace, once they are told: a worker hands them over a little after the answer.
fn spans(control: &ControlPlane, wanted: usize) -> Vec<Span> {
    let (mut asked, mut told) = (0, Vec::new());
    until("the spans", || {
        asked += 1;
        let answer = ask(
            control,
            &format!("trace-{asked}"),
            What::Trace(TRACE.to_owned()),
        );
        let Told::Spans(spans) = answer.told else {
            panic!("{answer:?}");
        };
        told = spans;
        told.len() == wanted
    });
    told
}

#[test]
fn cp_303_a_node_tells_the_spans_of_a_trace_and_the_states_of_its_breakers() {
    let control = ControlPlane::start();
    let upstream = Upstream::fixed("fine");
    let own = format!(
        "[[upstream]]\nname = \"app\"\nendpoints = [\"{}\"]\n\n[[upstream]]\nname = \"orders\"\nservice = \"orders\"\n\n\
         [[route]]\nname = \"all\"\nmatch = {{ path = \"/*\" }}\nupstream = \"app\"\n",
        upstream.address()
    );
    let gateway = Gateway::start(&(asking(&[control.url()], None) + &own));
    control.outcome(0);
    let subscription = control.journal().subscriptions[0].clone();
    assert!(subscription.answers);
    let traceparent = format!("traceparent: 00-{TRACE}-00f067aa0ba902b7-01");
    let answer = gateway.client().request("GET /a", &[&traceparent]);
    assert_eq!(answer.status, 200);
    let told = spans(&control, 2);
    assert!(told.iter().all(|span| span.check().is_ok()), "{told:#?}");
    let kinds = [SpanKind::Server, SpanKind::Client];
    assert!(
        kinds
            .iter()
            .all(|kind| told.iter().any(|span| span.kind == *kind))
    );

    let latest = ask(&control, "latest", What::Traces(1));
    assert_eq!(latest.instance, subscription.instance);
    assert!(
        matches!(&latest.told, Told::Spans(spans) if spans.len() == 1),
        "{latest:?}"
    );

    let answer = ask(&control, "breakers", What::Breakers);
    assert_eq!(answer.check(&What::Breakers), Ok(()));
    let Told::Breakers(breakers) = answer.told else {
        panic!("{answer:?}");
    };
    let told: Vec<_> = { breakers.iter() }
        .map(|one| {
            (
                one.upstream.as_str(),
                one.service.as_deref(),
                one.state.as_str(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("app", None, "closed"),
            ("orders", Some("orders"), "closed")
        ]
    );
    assert!(connected(&gateway), "a question is no reason to leave");
}

#[test]
fn a_question_that_is_none_ends_the_feed_and_nothing_else() {
    let control = ControlPlane::start();
    let gateway = Gateway::start(&asking(&[control.url()], None));
    control.outcome(0);
    control.say("{\"ask\":{\"id\":\"q\",\"what\":{\"trace\":\"no id\"}}}\n");
    control.wait("another subscription", |journal| {
        journal.subscriptions.len() > 1
    });
    until("it listens again", || connected(&gateway));
    assert_eq!(control.journal().answers.len(), 0);
}
