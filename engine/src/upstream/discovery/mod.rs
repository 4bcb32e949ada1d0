//! stub
use super::Resolved;
pub struct Source;
impl Source { pub fn of(_: &tollgate_config::EndpointSource) -> Option<Self> { None } }
pub async fn watch(_: Source, _: impl FnMut(Vec<Resolved>)) { std::future::pending().await }
