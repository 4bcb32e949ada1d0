//! What tests and benches need and no production code may use.

pub mod certificates;
