async fn import(
    tx: crate::toolkit::Ledger<<PgConnection as crate::toolkit::TxParam>::Db>,
    id: IdempotencyKey,
) -> crate::toolkit::__private::Answers<
    Result<(), AppError>,
    crate::toolkit::__private::Plain,
> {
    crate::toolkit::__private::detach(async move {
            let handler = const {
                &crate::toolkit::__private::Handler {
                    scope: "import",
                    place: ::core::concat!(
                        ::core::module_path!(), "::import (", ::core::file!(), ":",
                        ::core::line!(), ")"
                    ),
                    retention: ::core::option::Option::None,
                    wait: ::core::option::Option::None,
                    isolation: crate::toolkit::__private::Isolation::ReadCommitted,
                    on_error: crate::toolkit::__private::OnError::Release,
                    retries: 0u8,
                }
            };
            let key = {
                use crate::toolkit::__private::AnyPart as _;
                let parts = handler.__begin_key();
                let parts = (id).__add_to_key(parts);
                parts.finish_shared()
            };
            let fingerprint = crate::toolkit::__private::fingerprint([]);
            let end = match crate::toolkit::__private::enter(
                    &tx,
                    handler,
                    key,
                    fingerprint,
                )
                .await
            {
                ::core::result::Result::Ok(mut claim) => {
                    let returned = <Result<
                        (),
                        AppError,
                    > as crate::toolkit::__private::HandlerReturn>::into_result({
                        let tx: &mut PgConnection = <PgConnection as crate::toolkit::TxParam>::lent(
                            crate::toolkit::__private::tx(&mut claim),
                        );
                        crate::toolkit::__private::inside(async move {
                                if false {
                                    return crate::toolkit::__private::typed::<
                                        Result<(), AppError>,
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
            crate::toolkit::__private::leave::<
                crate::toolkit::__private::Plain,
                crate::toolkit::__private::Release,
                crate::toolkit::__private::Wrapped,
                _,
                _,
                _,
            >(end)
                .await
        })
        .await
}
