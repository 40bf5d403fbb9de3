//! The shape of the output. What it does is tested in `tests`, and what a mistake says in `tests/tests/ui`.
//!
//! After a change run `EFFECTIVELY_BLESS=1 cargo test -p effectively-macros` and read the difference.

use std::{env, fs, path::Path};

use proc_macro2::TokenStream;
use quote::quote;

use crate::{
    event,
    handler::{self, Attr},
    handlers, key_part,
};

fn check(name: &str, expanded: TokenStream) {
    let file: syn::File = syn::parse2(expanded).expect("the output parses");
    let printed = prettyplease::unparse(&file);
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/snapshots")
        .join(name);
    if env::var_os("EFFECTIVELY_BLESS").is_some() {
        return fs::write(path, printed).expect("the snapshot is written");
    }
    let expected = fs::read_to_string(path).expect("the snapshot is there");
    assert!(
        expected == printed,
        "{name} has changed; it is now:\n{printed}"
    );
}

#[test]
fn a_key_alone() {
    let args = quote!(key = "order:{order}");
    let item = quote! {
        /// Places an order.
        #[instrument]
        pub async fn place(tx: &mut PgConnection, order: i64) -> Result<Receipt, AppError> {
            body
        }
    };
    check("key.rs", handler::expand(Attr::Idempotent, args, item));
}

#[test]
fn both_attributes() {
    let args = quote!(
        key = "{user.id}/{key}",
        scope = "orders.place",
        fingerprint(cmd),
        retention = "7d",
        wait = "500ms",
        on_error = "record"
    );
    let item = quote! {
        #[outbox(isolation = "serializable")]
        async fn place(tx: &mut C, user: User, key: IdempotencyKey, Json(cmd): Json<PlaceOrder>) -> Answer {
            body
        }
    };
    check("both.rs", handler::expand(Attr::Idempotent, args, item));
}

#[test]
fn events_alone() {
    let item = quote! {
        async fn touch(tx: &mut PgConnection, _: u8) -> Result<Vec<Touched>, sqlx::Error> {
            body
        }
    };
    check(
        "events.rs",
        handler::expand(Attr::Outbox, TokenStream::new(), item),
    );
}

#[test]
fn a_method_that_runs_again() {
    let args = quote!(from = self.ledger);
    let item = quote! {
        #[async_trait]
        impl Orders for Service {
            #[idempotent(key = "{cmd.id}", retries = 3, transparent)]
            async fn place(&self, tx: &mut PgConnection, #[cfg(test)] mut log: Log, Cmd { mut cmd, .. }: Cmd) -> Result<Receipt, AppError> {
                body
            }

            async fn other(&self) {}
        }
    };
    check("method.rs", handlers::expand(args, item));
}

#[test]
fn a_detached_call() {
    let args = quote!(key = "{id}", detach, shared_by_all, crate = crate::toolkit);
    let item = quote! {
        async fn import(tx: &mut PgConnection, id: IdempotencyKey) -> Result<(), AppError> {
            body
        }
    };
    check("detached.rs", handler::expand(Attr::Idempotent, args, item));
}

#[test]
fn derives() {
    let event = event::expand(quote! {
        #[event(topic = "orders", name = "order.placed.v1", key = "{tenant}/{order_id()}")]
        struct OrderPlaced<T> {
            tenant: T,
        }
    });
    let part = key_part::expand(quote! {
        struct Id<T>(T);
    });
    check("derives.rs", quote!(#event #part));
}
