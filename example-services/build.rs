//! Turns the contracts in `proto/` into Rust and into a descriptor set, without an outside compiler.
//!
//! The descriptor set keeps comments and `google.api.http` options: gateways and reflection read it as it is.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

const CONTRACTS: [&str; 5] = [
    "users/v1/users.proto",
    "products/v1/products.proto",
    "orders/v1/orders.proto",
    "payments/v1/payments.proto",
    "google/rpc/error_details.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler
        .include_imports(true)
        .include_source_info(true)
        .open_files(CONTRACTS)?;
    // `encode_file_descriptor_set` keeps options that the typed set does not know, which are the HTTP rules.
    fs::write(
        out.join("descriptors.binpb"),
        compiler.encode_file_descriptor_set(),
    )?;
    let set =
        prost_types::FileDescriptorSet::decode(compiler.encode_file_descriptor_set().as_slice())?;
    tonic_prost_build::configure().compile_fds(set)?;
    Ok(())
}
