//! etcd's words, made of `proto/etcd.proto` at build time, and the few turns of phrase that the rooms beside use. What is
//! sent where is decided elsewhere.

#![allow(unreachable_pub, clippy::enum_variant_names)] // in what is generated

tonic::include_proto!("etcdserverpb");

use compare::{CompareTarget, TargetUnion};
use request_op::Request;

impl Compare {
    /// The key was made at this revision; 0: there is no such key.
    pub(super) fn created(key: String, revision: i64) -> Compare {
        Compare {
            result: compare::CompareResult::Equal.into(),
            target: CompareTarget::Create.into(),
            key: key.into(),
            target_union: Some(TargetUnion::CreateRevision(revision)),
        }
    }

    /// The key was changed last at this revision.
    pub(super) fn modified(key: String, revision: i64) -> Compare {
        Compare {
            result: compare::CompareResult::Equal.into(),
            target: CompareTarget::Mod.into(),
            key: key.into(),
            target_union: Some(TargetUnion::ModRevision(revision)),
        }
    }
}

impl RequestOp {
    pub(super) fn get(key: String) -> RequestOp {
        let range = RangeRequest {
            key: key.into(),
            ..RangeRequest::default()
        };
        Request::RequestRange(range).into()
    }

    /// `lease`: 0 for none.
    pub(super) fn put(key: String, value: impl Into<Vec<u8>>, lease: i64) -> RequestOp {
        let put = PutRequest {
            key: key.into(),
            value: value.into(),
            lease,
        };
        Request::RequestPut(put).into()
    }

    /// Deletes from a key to another, without it.
    pub(super) fn delete((from, to): (String, String)) -> RequestOp {
        let range = DeleteRangeRequest {
            key: from.into(),
            range_end: to.into(),
        };
        Request::RequestDeleteRange(range).into()
    }
}

impl From<Request> for RequestOp {
    fn from(request: Request) -> RequestOp {
        RequestOp {
            request: Some(request),
        }
    }
}

impl TxnRequest {
    /// If all of these hold, this is done, and nothing otherwise.
    pub(super) fn new<const C: usize, const D: usize>(
        when: [Compare; C],
        then: [RequestOp; D],
    ) -> TxnRequest {
        TxnRequest {
            compare: when.into(),
            success: then.into(),
            failure: Vec::new(),
        }
    }
}

impl TxnResponse {
    /// The revision of etcd after it.
    pub(super) fn revision(&self) -> i64 {
        revision(self.header.as_ref())
    }
}

pub(super) fn revision(header: Option<&ResponseHeader>) -> i64 {
    header.map_or(0, |header| header.revision)
}

/// The end of all keys that begin so: the next prefix. Prefixes here are text, whose last byte is never the highest.
pub(super) fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last = last.saturating_add(1);
    }
    end
}
