//! Install, dump, restore, upgrade: what a person who runs the database does.

mod common;

use common::{Db, Server};

#[test]
fn a_killed_server_recovers() {
    let server = Server::spawn("install");
    let db = server.fresh("install_killed");
    db.connect()
        .batch_execute(
            "SELECT billing.customer_upsert('{\"key\":\"acme\",\"name\":\"Acme\",\"currency\":\"USD\"}')",
        )
        .expect("customer");
    server.kill9();
    assert_eq!(server.pid(), None);
    server.start();
    let keys: Vec<String> = db
        .connect()
        .query("SELECT key FROM billing.customer", &[])
        .expect("keys")
        .iter()
        .map(|r| r.get(0))
        .collect();
    assert_eq!(keys, ["acme"]);
    assert_eq!(db.verify(), Vec::<String>::new());
}

#[test]
fn a_fresh_database_is_installed_and_clean() {
    let db = Db::fresh("install_fresh");
    assert_eq!(db.verify(), Vec::<String>::new());
    let who: String =
        db.connect_as("billing_app").query_one("SELECT current_user::text", &[]).expect("who").get(0);
    assert_eq!(who, "billing_app");
}
