//! Calls to another service: a connection that is made when it is needed, a deadline on every call (SHOP-104), and what a
//! call carries besides its message.

use std::time::Duration;

use tonic::{
    Request,
    metadata::{MetadataMap, MetadataValue},
    transport::{Channel, Endpoint},
};

use super::observe;

/// A connection to `http://host:port`, made at the first call and again after it broke.
pub fn to(address: &str) -> Result<Channel, String> {
    let endpoint = Endpoint::from_shared(address.to_string())
        .map_err(|error| format!("`{address}`: {error}"))?;
    Ok(endpoint
        .connect_timeout(Duration::from_secs(2))
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(5))
        .keep_alive_while_idle(true)
        .connect_lazy())
}

/// Who we are to the services that we call.
#[derive(Clone, Debug)]
pub struct Identity {
    service: &'static str,
    authorization: Option<MetadataValue<tonic::metadata::Ascii>>,
}

impl Identity {
    /// With the secret of the setting `service_token`, if there is one.
    pub fn new(service: &'static str, secret: &str) -> Result<Self, String> {
        let authorization =
            match secret {
                "" => None,
                secret => {
                    let value = format!("Bearer {secret}").parse();
                    Some(value.map_err(|_| {
                        "`service_token`: only visible ASCII can be sent".to_string()
                    })?)
                }
            };
        Ok(Self {
            service,
            authorization,
        })
    }

    /// A request with a deadline, our credentials, the trace that we are in, and an idempotency key if there is one.
    pub fn request<T>(&self, message: T, within: Duration, key: Option<&str>) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(within);
        let metadata = request.metadata_mut();
        metadata.insert("x-service-id", MetadataValue::from_static(self.service));
        if let Some(authorization) = &self.authorization {
            metadata.insert("authorization", authorization.clone());
        }
        let mut put = |name: &'static str, value: &str| {
            if let Ok(value) = value.parse() {
                metadata.insert(name, value);
            }
        };
        if let Some(trace) = observe::current() {
            put("traceparent", &trace.traceparent());
            put("x-correlation-id", trace.correlation_id());
        }
        if let Some(key) = key {
            put("idempotency-key", key);
        }
        request
    }
}

/// The idempotency key of a call: the message's own, or else the metadata's (SHOP-601).
pub fn idempotency_key(own: &str, metadata: &MetadataMap) -> Option<String> {
    if !own.is_empty() {
        return Some(own.to_string());
    }
    let key = metadata.get("idempotency-key")?.to_str().ok()?;
    (!key.is_empty()).then(|| key.to_string())
}

/// What is left of the caller's own deadline, from the `grpc-timeout` that it sent: at most `most`, less a margin in
/// which we can still answer (GW-606).
pub fn remaining(metadata: &MetadataMap, most: Duration) -> Duration {
    let told = metadata
        .get("grpc-timeout")
        .and_then(|value| value.to_str().ok())
        .and_then(|text| {
            let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
            let number: u64 = number.parse().ok().filter(|_| number.len() <= 8)?;
            Some(match unit {
                "H" => Duration::from_secs(number * 3600),
                "M" => Duration::from_secs(number * 60),
                "S" => Duration::from_secs(number),
                "m" => Duration::from_millis(number),
                "u" => Duration::from_micros(number),
                "n" => Duration::from_nanos(number),
                _ => return None,
            })
        });
    told.map_or(most, |told| {
        told.saturating_sub(Duration::from_millis(50)).min(most)
    })
}
