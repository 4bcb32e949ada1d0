//! Clusters that prove who they are, and ask who we are.

use tollgate_config::control_plane::{Secret, StoreTls};
use tollgate_engine::testing::certificates::Authority;

use super::super::Etcd;
use super::super::link::Credentials;
use super::super::wire::auth_client::AuthClient;
use super::super::wire::{AuthEnableRequest, AuthUserAddRequest, AuthUserGrantRoleRequest};
use super::{PATIENCE, Servers, leads, missing, open, put, read, run, settings, until};

#[test]
fn a_cluster_with_tls_and_users_is_asked_with_both_and_says_no_to_others() {
    if missing() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::new();
    let ca = authority.write(folder.path(), "ca").expect("written");
    let names = ["127.0.0.1", "localhost", "etcd"];
    let server = authority
        .issue(&names)
        .write(folder.path(), "server")
        .expect("written");
    let own = authority
        .issue(&["cp"])
        .write(folder.path(), "own")
        .expect("written");
    let more = [
        format!("--cert-file={}", server.cert.display()),
        format!("--key-file={}", server.key.display()),
        format!("--trusted-ca-file={}", ca.display()),
        "--client-cert-auth".to_owned(),
    ];
    let servers = Servers::with(1, "https", &more);
    let mut settings = settings(&servers);
    settings.tls = Some(StoreTls {
        ca,
        identity: Some((own.cert, own.key)),
        name: Some("etcd".to_owned()),
    });
    let open_one = open(&settings, "one");
    until("one to lead", || leads(&open_one));
    put(&open_one, "k", "v").expect("written");
    drop(open_one);
    run(async {
        let credentials = Credentials::read(&settings).expect("read");
        let connection = credentials
            .open(&servers.urls()[0], PATIENCE)
            .await
            .expect("connected");
        let mut client = AuthClient::new(connection);
        let root = AuthUserAddRequest {
            name: "root".to_owned(),
            password: "secret".to_owned(),
        };
        client.user_add(root).await.expect("added");
        let role = AuthUserGrantRoleRequest {
            user: "root".to_owned(),
            role: "root".to_owned(),
        };
        client.user_grant_role(role).await.expect("granted");
        client
            .auth_enable(AuthEnableRequest {})
            .await
            .expect("enabled");
    });
    let refused = Etcd::open(&settings, "two", "http://two")
        .err()
        .expect("refused");
    assert!(
        refused.to_string().contains("permission denied"),
        "{refused}"
    );
    let user = |password: &str| {
        Some(Secret {
            name: "root".to_owned(),
            password: password.to_owned(),
        })
    };
    settings.user = user("wrong");
    let refused = Etcd::open(&settings, "two", "http://two")
        .err()
        .expect("refused");
    assert!(
        refused.to_string().contains("authentication failed"),
        "{refused}"
    );
    settings.user = user("secret");
    let two = open(&settings, "two");
    until("two to lead", || leads(&two));
    assert_eq!(read(&two, "k").as_deref(), Some("v"));
    put(&two, "k", "w").expect("written");
}
