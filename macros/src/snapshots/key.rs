/// Places an order.
#[instrument]
pub async fn place(
    tx: ::effectively::Ledger<<PgConnection as ::effectively::TxParam>::Db>,
    order: i64,
) -> ::effectively::__private::Answers<
    Result<Receipt, AppError>,
    ::effectively::__private::Plain,
> {
    let handler = const {
        &::effectively::__private::Handler {
            scope: "place",
            place: ::core::concat!(
                ::core::module_path!(), "::place (", ::core::file!(), ":",
                ::core::line!(), ")"
            ),
            retention: ::core::option::Option::None,
            wait: ::core::option::Option::None,
            isolation: ::effectively::__private::Isolation::ReadCommitted,
            on_error: ::effectively::__private::OnError::Release,
            retries: 0u8,
        }
    };
    let key = {
        use ::effectively::__private::AnyPart as _;
        let parts = handler.__begin_key();
        let parts = parts.literal("order:");
        let parts = (order).__add_to_key(parts);
        parts.finish()
    };
    let fingerprint = ::effectively::__private::fingerprint([]);
    let end = match ::effectively::__private::enter(&tx, handler, key, fingerprint).await
    {
        ::core::result::Result::Ok(mut claim) => {
            let returned = <Result<
                Receipt,
                AppError,
            > as ::effectively::__private::HandlerReturn>::into_result({
                let tx: &mut PgConnection = <PgConnection as ::effectively::TxParam>::lent(
                    ::effectively::__private::tx(&mut claim),
                );
                ::effectively::__private::inside(async move {
                        if false {
                            return ::effectively::__private::typed::<
                                Result<Receipt, AppError>,
                            >();
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
        ::effectively::__private::Plain,
        ::effectively::__private::Release,
        ::effectively::__private::Wrapped,
        _,
        _,
        _,
    >(end)
        .await
}
