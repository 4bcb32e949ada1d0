//! The test that counts (SHOP-509, ACC-307, TEST-403): each of the four services dies at every boundary of every step, and
//! at random points, again and again, while orders of every kind come in; at the end every order is confirmed, charged
//! once and taken from stock, or cancelled with nothing held and nothing kept, and nothing is stuck.
//!
//! `SHOP_KILLS` is how many kills there are at least; every boundary is one of them. `SHOP_KILLS_SEED` repeats the choices
//! of a run (not its timing).

#[path = "../support/mod.rs"]
mod support;

mod load;
mod places;
mod reaper;

use std::{collections::BTreeMap, sync::Arc};

use support::{
    books::Keeper,
    shop::{NAMES, Shop},
};

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .map_or(default, |text| text.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_order_ends_all_or_nothing_whoever_dies_when() {
    let kills = number("SHOP_KILLS", 240) as usize;
    let seed = number("SHOP_KILLS_SEED", fastrand::u64(..));
    eprintln!("SHOP_KILLS_SEED={seed}");
    let mut shop = Shop::start(&[
        // Short enough that some sagas outlive what they hold.
        ("products", "--reservation-lifetime=4s"),
        ("products", "--expiry-every=200ms"),
    ]);
    let users = [shop.user().await, shop.user().await];
    let mut products = Vec::new();
    let mut stock = BTreeMap::new();
    for count in [1_000_000, 1_000_000, 40] {
        let product = shop.product(count).await;
        stock.insert(product.clone(), i64::from(count));
        products.push(product);
    }
    let keeper = Keeper::open(&shop).await;

    let load = Arc::new(load::Load::new(&shop, users, products));
    let workers = load::start(&load, 6, seed);
    let plans = places::plans(kills, seed);
    // Each thread has one service, and ends when its plans are done and the service runs undisturbed.
    let reapers: Vec<_> = NAMES
        .into_iter()
        .zip(plans)
        .map(|(name, plans)| {
            let service = shop.services.remove(name).unwrap();
            std::thread::spawn(move || reaper::reap(name, service, plans, seed))
        })
        .collect();
    let mut tallies = Vec::new();
    let mut services = Vec::new();
    for reaper in reapers {
        let (service, tally) = tokio::task::spawn_blocking(|| reaper.join().unwrap())
            .await
            .unwrap();
        services.push(service);
        tallies.push(tally);
    }
    // On a slow machine few got through between the kills; they have to prove something, too.
    crate::support::shop::until("some orders are confirmed", || async {
        let books = keeper.read().await;
        let confirmed = books.values().filter(|page| page.saga == "completed");
        confirmed.count() > 20
    })
    .await;
    load.stop();
    let mut told = Vec::new();
    for worker in workers {
        told.extend(worker.await.unwrap());
    }
    keeper.settle().await;
    let books = keeper.read().await;
    let count =
        |is: fn(&support::books::Page) -> bool| books.values().filter(|page| is(page)).count();
    eprintln!(
        "{} orders: {} confirmed, {} not; {} charged and given back; {} answers of clients compared",
        books.len(),
        count(|page| page.saga == "completed"),
        count(|page| page.saga == "failed"),
        count(|page| !page.refunds.is_empty()),
        told.len()
    );
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for page in books.values() {
        *reasons.entry(&page.why).or_default() += 1;
    }
    eprintln!("why not: {reasons:?}");
    for tally in &tallies {
        eprintln!("{tally}");
    }
    let mut faults = keeper.faults(&stock).await;
    faults.extend(load::lies(&told, &books));
    assert!(
        faults.is_empty(),
        "{} faults, such as {:#?}",
        faults.len(),
        &faults[..faults.len().min(5)]
    );
    assert!(tallies.iter().map(reaper::Tally::kills).sum::<usize>() >= kills);
}
