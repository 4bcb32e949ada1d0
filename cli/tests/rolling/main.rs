//! Every process of the shop is stopped and started again while people buy, and nobody notices (MESH-107, HI-64): two
//! instances of each service, each the child of its own sidecar, a control plane, and a gateway that is a member of the
//! mesh, all of them real programs.
//!
//! "Nobody notices" means that no request fails: none is refused, none breaks off, none is answered with an error, every
//! order is confirmed. Afterwards the services agree on all of them, and what is missing from the shelves is what was
//! bought.

mod people;
mod town;

use people::People;
use town::Town;

/// Requests that are answered between one stop and the next, at least.
const BETWEEN: usize = 20;

#[test]
fn mesh_107_hi_64_everything_is_restarted_in_turn_and_no_request_fails() {
    let mut town = Town::start();
    let people = People::arrive(town.edge);
    let more = || people.served(BETWEEN);
    more();
    town.restart_control_plane();
    more();
    for instance in 0..town::INSTANCES {
        // One of each service at a time, and of all services together: those that call and those that are called.
        town.restart(instance);
        more();
    }
    town.upgrade_gateway();
    more();
    let bought = people.leave();
    town.agrees(&bought);
}
