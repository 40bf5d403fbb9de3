#[outbox(__done)]
async fn place(
    tx: ::effectively::Ledger<<C as ::effectively::TxParam>::Db>,
    user: User,
    key: IdempotencyKey,
    Json(cmd): Json<PlaceOrder>,
) -> ::effectively::__private::Answers<Answer, ::effectively::__private::Emitting> {
    let handler = const {
        &::effectively::__private::Handler {
            scope: "orders.place",
            place: ::core::concat!(
                ::core::module_path!(), "::place (", ::core::file!(), ":",
                ::core::line!(), ")"
            ),
            retention: ::core::option::Option::Some(
                ::effectively::__private::Duration::new(604800u64, 0u32),
            ),
            wait: ::core::option::Option::Some(
                ::effectively::__private::Duration::new(0u64, 500000000u32),
            ),
            isolation: ::effectively::__private::Isolation::Serializable,
            on_error: ::effectively::__private::OnError::Record,
            retries: 0u8,
        }
    };
    let key = {
        use ::effectively::__private::AnyPart as _;
        let parts = handler.__begin_key();
        let parts = (user.id).__add_to_key(parts);
        let parts = parts.literal("/");
        let parts = (key).__add_to_key(parts);
        parts.finish()
    };
    let fingerprint = ::effectively::__private::fingerprint([
        ::effectively::__private::content(&(cmd)),
    ]);
    let end = match ::effectively::__private::enter(&tx, handler, key, fingerprint).await
    {
        ::core::result::Result::Ok(mut claim) => {
            let returned = <Answer as ::effectively::__private::HandlerReturn>::into_result({
                let tx: &mut C = <C as ::effectively::TxParam>::lent(
                    ::effectively::__private::tx(&mut claim),
                );
                ::effectively::__private::inside(async move {
                        if false {
                            return ::effectively::__private::typed::<Answer>();
                        }
                        { body }
                    })
                    .await
            });
            ::core::result::Result::Ok((claim, returned))
        }
        ::core::result::Result::Err(early) => ::core::result::Result::Err(early),
    };
    ::effectively::__private::leave::<
        ::effectively::__private::Emitting,
        ::effectively::__private::Record,
        ::effectively::__private::Wrapped,
        _,
        _,
        _,
    >(end)
        .await
}
