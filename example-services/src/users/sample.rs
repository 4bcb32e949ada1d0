//! People to try things with (SHOP-810). Their password is known to everyone who reads this.

use super::grpc::Users;
use crate::{
    contracts::users::{Address, CreateUserRequest},
    kit::refusal::Refusal,
};

/// The password of all of them.
const PASSWORD: &str = "correct-horse-1";

/// Fills an empty database; leaves every other one alone.
pub(super) async fn fill(users: &Users) -> Result<(), Refusal> {
    if !users.store.is_empty().await? {
        return Ok(());
    }
    let people: [(&str, &str, &str, &[&str]); 3] = [
        ("ada@shop.example", "Ada", "Lovelace", &[]),
        ("grace@shop.example", "Grace", "Hopper", &[]),
        ("admin@shop.example", "Alan", "Turing", &["admin"]),
    ];
    for (email, first, last, roles) in people {
        let request = CreateUserRequest {
            email: email.into(),
            password: PASSWORD.into(),
            first_name: first.into(),
            last_name: last.into(),
            address: Some(Address {
                street: "1 Analytical Way".into(),
                city: "Springfield".into(),
                state: "CA".into(),
                zip_code: "90210".into(),
                country: "USA".into(),
            }),
            ..Default::default()
        };
        users.register(&request, roles, "sample").await?;
    }
    Ok(())
}
