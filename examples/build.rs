//! Makes the types and the service of `tonic_orders/orders.proto`, without `protoc`.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=tonic_orders/orders.proto");
    let orders = protox::compile(["orders.proto"], ["tonic_orders"])?;
    tonic_prost_build::configure()
        // For `fingerprint(request.get_ref())`.
        .message_attribute("PlaceOrderRequest", "#[derive(serde::Serialize)]")
        .compile_fds(orders)?;
    Ok(())
}
