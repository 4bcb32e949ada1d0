//! The services' contracts, as Rust and as descriptors. Made from `proto/` by the build script; nothing is written by
//! hand here.

/// Everything a gateway needs to translate for these services: an encoded `google.protobuf.FileDescriptorSet` with
/// imports, comments and `google.api.http` rules. Requirement GW-201.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.binpb"));

#[allow(missing_docs, clippy::all)]
mod generated {
    pub mod users {
        tonic::include_proto!("users.v1");
    }
    pub mod products {
        tonic::include_proto!("products.v1");
    }
    pub mod orders {
        tonic::include_proto!("orders.v1");
    }
    pub mod payments {
        tonic::include_proto!("payments.v1");
    }
    pub mod rpc {
        tonic::include_proto!("google.rpc");
    }
}

pub use generated::{orders, payments, products, rpc, users};
