//! Nodes that listen to another control plane than the one that is asked (CP-301, CP-303).

use serde_json::{Value, json};

use crate::etcd::missing;
use crate::fleet::Fleet;
use crate::support::wait;

#[test]
fn any_of_them_asks_all_nodes_wherever_they_listen() {
    if missing() {
        return;
    }
    // However long the machine stands still.
    let fleet = Fleet::start(2, 1, "[feed]\nanswer_timeout = \"60s\"\n");
    let _gateways = [fleet.gateway(0, "edge-0"), fleet.gateway(1, "edge-1")];
    for number in 0..2 {
        let told = wait(
            "both nodes to answer",
            || {
                fleet
                    .caller(number)
                    .json("GET /debug/answers?breakers=true", "", 200)
            },
            |told| told["answers"].as_array().map(Vec::len) == Some(2),
        );
        let answers = told["answers"].as_array().expect("a list");
        let mut nodes: Vec<&Value> = answers.iter().map(|one| &one["node"]).collect();
        nodes.sort_by_key(|node| node.as_str());
        assert_eq!(nodes, [&json!("edge-0"), &json!("edge-1")]);
        assert_eq!(told["silent"], json!([]));
        let own = "GET /debug/answers?breakers=true&own=true";
        let own = fleet.caller(number).json(own, "", 200);
        assert_eq!(own["answers"][0]["node"], format!("edge-{number}"));
    }
}
