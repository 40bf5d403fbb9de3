#[async_trait]
impl Orders for Service {
    #[idempotent(__done)]
    async fn place(
        &self,
        #[cfg(test)]
        log: Log,
        Cmd { cmd, .. }: Cmd,
    ) -> Result<Receipt, AppError> {
        let ledger: &::effectively::Ledger<
            <PgConnection as ::effectively::TxParam>::Db,
        > = &(self.ledger);
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
                retries: 3u8,
            }
        };
        let mut turns = ::effectively::__private::Turns::of(handler);
        loop {
            let key = {
                use ::effectively::__private::AnyPart as _;
                let parts = handler.__begin_key();
                let parts = (cmd.id).__add_to_key(parts);
                parts.finish()
            };
            let fingerprint = ::effectively::__private::fingerprint([]);
            let end = match ::effectively::__private::enter(
                    &ledger,
                    handler,
                    key,
                    fingerprint,
                )
                .await
            {
                ::core::result::Result::Ok(mut claim) => {
                    let returned = <Result<
                        Receipt,
                        AppError,
                    > as ::effectively::__private::HandlerReturn>::into_result({
                        #[cfg(test)]
                        let mut log = ::effectively::__private::Again::again(&log);
                        let mut cmd = ::effectively::__private::Again::again(&cmd);
                        let _ = &cmd;
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
            match ::effectively::__private::leave_or_again::<
                ::effectively::__private::Plain,
                ::effectively::__private::Release,
                ::effectively::__private::Transparent,
                _,
                _,
                _,
            >(end, &mut turns)
                .await
            {
                ::core::ops::ControlFlow::Break(returned) => break returned,
                ::core::ops::ControlFlow::Continue(()) => {}
            }
        }
    }
    async fn other(&self) {}
}
