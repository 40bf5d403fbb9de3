//! To be written.
pub async fn measure() {}
