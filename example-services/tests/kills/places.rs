//! Where services die: every boundary that the programs mark.

use fastrand::Rng;

const STEPS: [&str; 5] = [
    "ValidateUser",
    "ReserveInventory",
    "CreateOrder",
    "ProcessPayment",
    "ConfirmOrder",
];

const STATES: [&str; 10] = [
    "initiated",
    "user_validated",
    "inventory_reserved",
    "order_created",
    "payment_processed",
    "completed",
    "compensate_payment",
    "compensate_order",
    "compensate_inventory",
    "failed",
];

const CALLS: [&str; 9] = [
    "ValidateUser",
    "ReserveInventory",
    "GetReservation",
    "CommitInventory",
    "ReleaseInventory",
    "RestockInventory",
    "ProcessPayment",
    "GetPayment",
    "RefundPayment",
];

fn pairs(words: [&str; 2], of: &[&str]) -> Vec<String> {
    of.iter()
        .flat_map(|name| words.map(|word| format!("{word} {name}")))
        .collect()
}

/// The first so many commits of a process, before and after.
fn commits(most: usize) -> Vec<String> {
    (1..=most)
        .flat_map(|count| ["committing", "committed"].map(|word| format!("{word}:{count}")))
        .collect()
}

fn of(name: &str) -> Vec<String> {
    match name {
        // It has one thing to do, and dies as often at it as others at one of theirs.
        "users" => pairs(["received", "answering"], &["ValidateUser"; 5]),
        "products" => {
            let methods = [1, 2, 3, 4, 5].map(|index| CALLS[index]);
            let mut places = pairs(["received", "answering"], &methods);
            places.extend(commits(4));
            places
        }
        "payments" => {
            let methods = ["ProcessPayment", "GetPayment", "RefundPayment"];
            let mut places = pairs(["received", "answering"], &methods);
            let moments = [
                "charging",
                "charged",
                "processed",
                "capturing",
                "captured",
                "voiding",
                "refunding",
                "refunded",
            ];
            places.extend(moments.map(String::from));
            places.extend(commits(9));
            places
        }
        _ => {
            let mut places = pairs(["before", "after"], &STEPS);
            places.extend(pairs(["calling", "called"], &CALLS));
            places.extend(pairs(["keeping", "kept"], &STATES));
            let undone = ["ReserveInventory", "CreateOrder", "ProcessPayment"];
            places.extend(pairs(["before-undoing", "after-undoing"], &undone));
            places.extend(pairs(
                ["received", "answering"],
                &["CreateOrder", "CancelOrder"],
            ));
            places.extend(commits(8));
            places
        }
    }
}

/// Plans for each service, in the order of `NAMES`: all its places in a random order, as often as needed for so many kills.
pub(crate) fn plans(kills: usize, seed: u64) -> Vec<Vec<String>> {
    let mut rng = Rng::with_seed(seed);
    let mut plans: Vec<Vec<String>> = vec![Vec::new(); 4];
    // Each plan comes with a kill at a random moment before it.
    while plans.iter().map(Vec::len).sum::<usize>() * 2 < kills || plans[3].is_empty() {
        for (plans, name) in plans.iter_mut().zip(crate::support::shop::NAMES) {
            let mut round = of(name);
            rng.shuffle(&mut round);
            plans.extend(round.into_iter().map(|place| match place.contains(':') {
                true => place,
                // Not always the first time, so that others are under way elsewhere.
                false => format!("{place}:{}", rng.u8(1..=3)),
            }));
        }
    }
    plans
}
