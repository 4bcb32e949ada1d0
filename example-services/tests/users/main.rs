//! The users service: the program, over gRPC and HTTP, on both databases.

#[path = "../support/mod.rs"]
mod support;

mod accounts;
mod hostile;
mod program;
mod sessions;

use tollgate_example_services::contracts::users::{
    self as wire, users_service_client::UsersServiceClient,
};
use tonic::{Request, transport::Channel};

use support::{Store, service::Program};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_shop-users");

pub(crate) const PASSWORD: &str = "correct-horse-1";

/// The program on this store, with hashing that is quick.
pub(crate) fn start(store: &Store, settings: &[&str]) -> Program {
    let mut all = vec![
        "--database",
        &store.address,
        "--password-memory",
        "8",
        "--password-rounds",
        "1",
    ];
    all.extend(settings);
    Program::start(PROGRAM, &all)
}

pub(crate) async fn client(program: &Program) -> UsersServiceClient<Channel> {
    UsersServiceClient::connect(program.grpc.clone())
        .await
        .unwrap()
}

pub(crate) fn person(email: &str) -> wire::CreateUserRequest {
    wire::CreateUserRequest {
        email: email.into(),
        password: PASSWORD.into(),
        first_name: "Ada".into(),
        last_name: "Lovelace".into(),
        ..Default::default()
    }
}

pub(crate) fn login(email: &str, password: &str) -> wire::AuthenticateUserRequest {
    wire::AuthenticateUserRequest {
        email: email.into(),
        password: password.into(),
    }
}

/// A call as this user, the way a gateway makes it.
pub(crate) fn by<T>(user: &str, roles: &'static str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request
        .metadata_mut()
        .insert("x-service-id", "gateway".parse().unwrap());
    request
        .metadata_mut()
        .insert("x-user-id", user.parse().unwrap());
    request
        .metadata_mut()
        .insert("x-user-roles", roles.parse().unwrap());
    request
}
