//! Every section and key that a control plane's document may hold. The gateway's are in `sections`.

use super::access::{TLS, TOKEN};
use super::rules::*;
use super::sections::{NOTHING, OFF, default, optional};
use super::{Kind, Section, Top};

pub(crate) static TOP: &[Top] = &[
    Top {
        name: "server",
        list: false,
        section: Some(&SERVER),
        doc: "",
    },
    Top {
        name: "store",
        list: false,
        section: Some(&super::store::STORE),
        doc: "",
    },
    Top {
        name: "registry",
        list: false,
        section: Some(&REGISTRY),
        doc: "",
    },
    Top {
        name: "probe",
        list: false,
        section: Some(&PROBE),
        doc: "",
    },
    Top {
        name: "audit",
        list: false,
        section: Some(&AUDIT),
        doc: "",
    },
    Top {
        name: "catalog",
        list: false,
        section: Some(&CATALOG),
        doc: "",
    },
    Top {
        name: "feed",
        list: false,
        section: Some(&FEED),
        doc: "",
    },
    Top {
        name: "rollout",
        list: false,
        section: Some(&ROLLOUT),
        doc: "",
    },
    Top {
        name: "identity",
        list: false,
        section: Some(&super::authority::IDENTITY),
        doc: "",
    },
    Top {
        name: "token",
        list: true,
        section: Some(&TOKEN),
        doc: "",
    },
];

pub(crate) static SERVER: Section = Section {
    title: "[server]",
    doc: "The process. Read at start; a change needs a restart.",
    keys: &[
        default(
            "bind",
            Kind::Rule(&BIND),
            "\"127.0.0.1:8080\"",
            "Where services, data planes and operators come in; port 0 takes a free one. Beyond loopback, `[[token]]` is needed.",
        ),
        optional(
            "tls",
            Kind::Table(&TLS),
            "Encrypts the address. Absent: clear text.",
        ),
        default(
            "state_dir",
            Kind::Either(&[Kind::Rule(&FILE), OFF]),
            "\"control-plane-state\"",
            "Folder of the store and of the audit log; \"off\" keeps nothing over a restart.",
        ),
        default(
            "drain",
            Kind::Rule(&LAG),
            "\"30s\"",
            "The longest wait for what is in flight at shutdown.",
        ),
        default(
            "max_connections",
            Kind::Count(1, 1_000_000),
            "20000",
            "More connections than this wait until others end.",
        ),
        default(
            "idle_timeout",
            Kind::Rule(&DURATION),
            "\"60s\"",
            "A connection on which no request comes for so long is closed.",
        ),
        default(
            "max_body",
            Kind::Rule(&SIZE),
            "\"64KiB\"",
            "The largest body of a request.",
        ),
    ],
    ..NOTHING
};

pub(crate) static REGISTRY: Section = Section {
    title: "[registry]",
    doc: "When an instance is believed to live, and when it leaves the lookups.",
    keys: &[
        default(
            "heartbeat",
            Kind::Rule(&DURATION),
            "\"15s\"",
            "How often an instance tells that it lives.",
        ),
        default(
            "suspect_after",
            Kind::Rule(&DURATION),
            "\"30s\"",
            "An instance that was silent for so long is suspected and probed; at least one `heartbeat`.",
        ),
        default(
            "service_timeout",
            Kind::Rule(&DURATION),
            "\"45s\"",
            "An instance that was silent for so long leaves the lookups; at least two `heartbeat`s.",
        ),
        default(
            "drain_after_silence",
            Kind::Rule(&LAG),
            "\"30s\"",
            "How long a silent instance is drained before it is removed.",
        ),
        default(
            "drain_after_probes",
            Kind::Rule(&LAG),
            "\"60s\"",
            "The same for one that left the lookups because probes failed.",
        ),
        default(
            "cleanup",
            Kind::Rule(&DURATION),
            "\"30s\"",
            "How often names of services without instances are dropped.",
        ),
        default(
            "loss_share",
            Kind::Share,
            "0.3",
            "The share of a service that may leave the lookups within `loss_interval` without a confirmation; one instance always may.",
        ),
        default(
            "loss_interval",
            Kind::Rule(&DURATION),
            "\"60s\"",
            "The span of time that `loss_share` is about.",
        ),
        default(
            "flap_count",
            Kind::Count(1, 1000),
            "3",
            "An instance that left the lookups so often within `flap_window` needs `probe.successes` good signs in a row to return.",
        ),
        default(
            "flap_window",
            Kind::Rule(&DURATION),
            "\"10m\"",
            "The span of time that `flap_count` is about.",
        ),
        default(
            "observation_nodes",
            Kind::Count(2, 1000),
            "2",
            "So many data planes, and more than half of those that use the service, must see an instance fail before they are believed.",
        ),
        default(
            "observation_age",
            Kind::Rule(&DURATION),
            "\"60s\"",
            "How long what a data plane saw counts.",
        ),
        default(
            "max_instances",
            Kind::Count(1, 10_000_000),
            "100000",
            "More registrations than this are refused.",
        ),
        default(
            "max_per_service",
            Kind::Count(1, 1_000_000),
            "10000",
            "The same for one service.",
        ),
    ],
    ..NOTHING
};

pub(crate) static PROBE: Section = Section {
    title: "[probe]",
    doc: "Asking an instance itself: `GET` of its `health_endpoint`, or a TCP connection where its metadata says that its `protocol` is not `http`.",
    keys: &[
        default(
            "enabled",
            Kind::Flag,
            "true",
            "Whether suspected and failing instances are probed.",
        ),
        default(
            "interval",
            Kind::Rule(&DURATION),
            "\"15s\"",
            "How often a suspected, failing or draining instance is probed.",
        ),
        default(
            "timeout",
            Kind::Rule(&DURATION),
            "\"5s\"",
            "When a probe has failed.",
        ),
        default(
            "healthy_interval",
            Kind::Either(&[Kind::Rule(&DURATION), OFF]),
            "\"off\"",
            "How often an instance is probed that beats; `\"30s\"` where the registry shall not rely on beats alone.",
        ),
        default(
            "failures",
            Kind::Count(2, 100),
            "3",
            "Failed probes in a row that take an instance down while it beats.",
        ),
        default(
            "successes",
            Kind::Count(1, 100),
            "2",
            "Good probes in a row that bring such an instance up.",
        ),
        default(
            "max_in_flight",
            Kind::Count(1, 10_000),
            "64",
            "More probes than this wait for others to end.",
        ),
    ],
    ..NOTHING
};

pub(crate) static AUDIT: Section = Section {
    title: "[audit]",
    doc: "The record of changes, registrations, removals and refused callers: one JSON object a line, one file a day, in `state_dir`.",
    keys: &[
        default(
            "retention",
            Kind::Rule(&DURATION),
            "\"2160h\"",
            "How long a day's file is kept.",
        ),
        default(
            "max_size",
            Kind::Rule(&SIZE),
            "\"256MiB\"",
            "The oldest files go when all of them together are larger.",
        ),
    ],
    ..NOTHING
};

pub(crate) static CATALOG: Section = Section {
    title: "[catalog]",
    doc: "What the fleet is told to do. Read at start; a change needs a restart.",
    keys: &[
        default(
            "folder",
            Kind::Either(&[Kind::Rule(&FILE), OFF]),
            "\"off\"",
            "Folder of documents, `*.toml` in it and below; a change there is noticed within 2 s. Others come over the API.",
        ),
        default(
            "revisions",
            Kind::Count(1, 1000),
            "50",
            "So many revisions are kept, to compare with and to return to.",
        ),
        default(
            "max_change",
            Kind::Rule(&SIZE),
            "\"16MiB\"",
            "The largest body of a change.",
        ),
    ],
    ..NOTHING
};

pub(crate) static FEED: Section = Section {
    title: "[feed]",
    doc: "How data planes are told. Read at start; a change needs a restart.",
    keys: &[
        default(
            "beat",
            Kind::Rule(&DURATION),
            "\"5s\"",
            "A feed that is silent for so long is dead; half of it after the last word, a beat is sent.",
        ),
        default(
            "write_timeout",
            Kind::Rule(&DURATION),
            "\"10s\"",
            "A listener that takes nothing for so long is let go; it comes back and gets the difference.",
        ),
        default(
            "max_feeds",
            Kind::Count(1, 1_000_000),
            "10000",
            "More feeds than this are refused.",
        ),
        default(
            "forget_nodes",
            Kind::Rule(&DURATION),
            "\"1h\"",
            "A node that has no feed for so long is not shown any more.",
        ),
        default(
            "figures",
            Kind::Either(&[Kind::Rule(&DURATION), OFF]),
            "\"5s\"",
            "How often nodes tell what they served; without figures a rollout cannot compare.",
        ),
        default(
            "answer_timeout",
            Kind::Rule(&DURATION),
            "\"2s\"",
            "How long a node, or a service's debug page, may take to answer when somebody asks for traces, breakers or sagas. Who does not is named.",
        ),
    ],
    ..NOTHING
};

pub(crate) static ROLLOUT: Section = Section {
    title: "[rollout]",
    doc: "How a change of the fleet's documents reaches its nodes, where the change itself does not say. Read at start; a change needs a restart.",
    keys: &[
        default(
            "stages",
            Kind::List(&Kind::Rule(&STAGE)),
            "[\"all\"]",
            "To how many nodes a change goes at first and then: a number, a share, all. With `all` alone it goes to all at once, and nothing is compared.",
        ),
        default(
            "hold",
            Kind::Rule(&DURATION),
            "\"30s\"",
            "How long a stage is watched once all its nodes run the change.",
        ),
        default(
            "wait",
            Kind::Rule(&DURATION),
            "\"10m\"",
            "How long a stage waits for its nodes, and beyond `hold` for requests, before it pauses.",
        ),
        default(
            "without_traffic",
            Kind::Word(&["pause", "continue"]),
            "\"pause\"",
            "What becomes of a stage that was served fewer than `min_requests`.",
        ),
        default(
            "min_requests",
            Kind::Count(1, 1_000_000_000),
            "100",
            "Fewer requests to a stage's nodes are no evidence that the change is good.",
        ),
        default(
            "error_rise",
            Kind::Share,
            "0.01",
            "The share of requests answered 500 and above may rise by less than this, or the change is taken back.",
        ),
        default(
            "refusal_rise",
            Kind::Share,
            "0.05",
            "The same for answers from 400 to 498.",
        ),
        default(
            "slow_rise",
            Kind::Share,
            "0.05",
            "The same for requests slower than 95 of 100 were.",
        ),
    ],
    ..NOTHING
};
