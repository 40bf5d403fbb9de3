async fn touch(
    tx: ::effectively::Ledger<<PgConnection as ::effectively::TxParam>::Db>,
    _: u8,
) -> ::effectively::__private::Commits<
    Result<Vec<Touched>, sqlx::Error>,
    ::effectively::__private::Emitting,
> {
    let handler = const {
        &::effectively::__private::Handler {
            scope: "touch",
            place: ::core::concat!(
                ::core::module_path!(), "::touch (", ::core::file!(), ":",
                ::core::line!(), ")"
            ),
            retention: ::core::option::Option::None,
            wait: ::core::option::Option::None,
            isolation: ::effectively::__private::Isolation::ReadCommitted,
            on_error: ::effectively::__private::OnError::Release,
            retries: 0u8,
        }
    };
    let end = match ::effectively::__private::enter_unkeyed(&tx, handler).await {
        ::core::result::Result::Ok(mut claim) => {
            let returned = <Result<
                Vec<Touched>,
                sqlx::Error,
            > as ::effectively::__private::HandlerReturn>::into_result({
                let tx: &mut PgConnection = <PgConnection as ::effectively::TxParam>::lent(
                    ::effectively::__private::tx(&mut claim),
                );
                ::effectively::__private::inside(async move {
                        if false {
                            return ::effectively::__private::typed::<
                                Result<Vec<Touched>, sqlx::Error>,
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
    ::effectively::__private::commit::<
        ::effectively::__private::Emitting,
        ::effectively::__private::Wrapped,
        _,
        _,
    >(end)
        .await
}
