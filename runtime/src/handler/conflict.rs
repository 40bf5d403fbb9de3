//! Errors that mean "run it again": `retries`.

/// An error type that says whether it wraps an error of the database, for `retries`.
///
/// ```
/// use effectively::Conflict;
///
/// enum AppError {
///     SoldOut,
///     Database(sqlx::Error),
/// }
///
/// impl Conflict for AppError {
///     fn database_error(&self) -> Option<&sqlx::Error> {
///         match self {
///             Self::Database(error) => Some(error),
///             Self::SoldOut => None,
///         }
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`retries` needs to know when `{Self}` wraps an error of the database",
    label = "`effectively::Conflict` is missing here",
    note = "implement `effectively::Conflict` for the handler's error type: only serialization failures and deadlocks run again"
)]
pub trait Conflict {
    /// The error of the database inside, if there is one. The toolkit decides whether running again can help.
    fn database_error(&self) -> Option<&sqlx::Error>;
}

impl Conflict for sqlx::Error {
    fn database_error(&self) -> Option<&sqlx::Error> {
        Some(self)
    }
}

impl Conflict for Box<dyn std::error::Error + Send + Sync> {
    fn database_error(&self) -> Option<&sqlx::Error> {
        self.downcast_ref()
    }
}
