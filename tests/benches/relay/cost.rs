//! To be written.
pub async fn measure(_: &effectively_tests::TestDb<sqlx::Postgres>) {}
