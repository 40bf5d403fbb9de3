//! The return type of a handler, also behind an alias.

/// What an annotated function returns: a [`Result`], under whatever name.
#[diagnostic::on_unimplemented(
    message = "a handler must return `Result<T, E>`",
    label = "not a `Result`",
    note = "the toolkit commits on `Ok` and rolls back on `Err`"
)]
pub trait HandlerReturn {
    /// The type in `Ok`.
    type Ok;
    /// The type in `Err`.
    type Err;

    #[doc(hidden)]
    fn into_result(self) -> Result<Self::Ok, Self::Err>;
}

impl<T, E> HandlerReturn for Result<T, E> {
    type Ok = T;
    type Err = E;

    fn into_result(self) -> Self {
        self
    }
}
