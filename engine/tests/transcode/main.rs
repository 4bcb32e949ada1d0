//! JSON to gRPC, end to end (GW-2xx): a service that answers as a test says behind a gateway that knows its descriptors.
//! Messages are made and read by `prost-reflect`, which shares nothing with the engine's own codec.

mod document;
mod envoy;
mod reflection;
mod refusals;
mod shop;
mod status;
mod streams;
mod unary;
mod web;
