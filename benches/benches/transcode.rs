//! What it costs to turn 1 KiB of JSON into a message and a message into JSON: in one pass, and beside it by way of a
//! dynamic message as `prost-reflect` has it.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use prost_reflect::prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage};
use tollgate_benches::upstream::order;
use tollgate_engine::testing::codec::Codec;

fn set() -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../engine/tests/protos");
    let mut compiler = protox::Compiler::new([folder]).expect("a folder");
    compiler
        .include_imports(true)
        .open_file("shop.proto")
        .expect("it compiles");
    compiler.encode_file_descriptor_set()
}

fn one_message(criterion: &mut Criterion) {
    let set = set();
    let codec = Codec::new(&set, "shop.v1.Order");
    let kind = DescriptorPool::decode(&*set)
        .expect("a set")
        .get_message_by_name("shop.v1.Order")
        .expect("it is there");
    let bytes = order().slice(5..);
    let json = codec.decode(&bytes);
    let mut group = criterion.benchmark_group("transcode");
    group.throughput(Throughput::Bytes(json.len() as u64));
    group.bench_function("to_json", |bencher| {
        bencher.iter(|| codec.decode(black_box(&bytes)))
    });
    group.bench_function("to_protobuf", |bencher| {
        bencher.iter(|| codec.encode(black_box(&json)))
    });
    group.bench_function("to_json/dynamic", |bencher| {
        bencher.iter(|| {
            let message =
                DynamicMessage::decode(kind.clone(), black_box(&*bytes)).expect("a message");
            serde_json::to_vec(&message).expect("it has JSON")
        });
    });
    group.bench_function("to_protobuf/dynamic", |bencher| {
        bencher.iter(|| {
            let mut reader = serde_json::Deserializer::from_slice(black_box(&json));
            DynamicMessage::deserialize(kind.clone(), &mut reader)
                .expect("it fits")
                .encode_to_vec()
        });
    });
    group.finish();
}

criterion_group!(benches, one_message);
criterion_main!(benches);
