//! A service's own REST, for use without a gateway (SHOP-105): each method with a `google.api.http` rule becomes a route
//! that answers JSON, by calling the gRPC side of the same process with the headers that came.
//!
//! Small on purpose: one message in, one out, variables of one path segment. Streams and everything else that HTTP rules
//! can say is a gateway's to do.

use std::collections::HashMap;

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, RawQuery},
    response::{IntoResponse, Response},
    routing::{MethodFilter, on},
};
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body_util::BodyExt;
use prost::Message;
use prost_reflect::{
    DescriptorPool, DeserializeOptions, DynamicMessage, Kind, MessageDescriptor, MethodDescriptor,
    SerializeOptions, Value,
};
use serde_json::{Map, Value as Plain, json};
use tonic::{Code, Status};
use tower::ServiceExt;

use super::{listen, observe, refusal::Refusal};
use crate::contracts::DESCRIPTORS;

/// The most of a body that is read (GW-810).
const LARGEST: usize = 1 << 20;

/// One method under one path.
#[derive(Clone)]
struct Binding {
    grpc: Router,
    method: MethodDescriptor,
    /// Whether the body is the message.
    body: bool,
}

/// Routes for all methods of a contract that have an HTTP rule. `grpc` is the gRPC side.
pub fn router(contract: &str, grpc: &Router) -> Router {
    let mut router = Router::new();
    let Ok(pool) = DescriptorPool::decode(DESCRIPTORS) else {
        return router;
    };
    let (Some(service), Some(http)) = (
        pool.get_service_by_name(contract),
        pool.get_extension_by_name("google.api.http"),
    ) else {
        return router;
    };
    for method in service
        .methods()
        .filter(|method| !method.is_server_streaming())
    {
        let options = method.options();
        if !options.has_extension(&http) {
            continue;
        }
        let mut rules = Vec::new();
        if let Some(rule) = options.get_extension(&http).as_message() {
            rules.push(rule.clone());
            let more = rule.get_field_by_name("additional_bindings");
            let more = more.as_deref().and_then(Value::as_list).unwrap_or_default();
            rules.extend(more.iter().filter_map(Value::as_message).cloned());
        }
        for rule in rules {
            let text = |name: &str| {
                rule.get_field_by_name(name)
                    .and_then(|value| value.as_str().map(str::to_string))
            };
            for (name, filter) in [
                ("get", MethodFilter::GET),
                ("post", MethodFilter::POST),
                ("put", MethodFilter::PUT),
                ("patch", MethodFilter::PATCH),
                ("delete", MethodFilter::DELETE),
            ] {
                if !rule.has_field_by_name(name) {
                    continue;
                }
                let binding = Binding {
                    grpc: grpc.clone(),
                    method: method.clone(),
                    body: text("body").as_deref() == Some("*"),
                };
                let path = text(name).unwrap_or_default();
                router = router.route(
                    &path,
                    on(
                        filter,
                        move |Path(path): Path<HashMap<String, String>>,
                              RawQuery(query),
                              headers: HeaderMap,
                              body: Body| {
                            answer(
                                binding.clone(),
                                path,
                                query.unwrap_or_default(),
                                headers,
                                body,
                            )
                        },
                    ),
                );
            }
        }
    }
    router
}

async fn answer(
    binding: Binding,
    path: HashMap<String, String>,
    query: String,
    headers: HeaderMap,
    body: Body,
) -> Response {
    match call(&binding, path, &query, &headers, body).await {
        Ok((message, told)) => success(&binding.method, &message, &told),
        Err(refusal) => listen::refuse(&refusal),
    }
}

async fn call(
    binding: &Binding,
    path: HashMap<String, String>,
    query: &str,
    headers: &HeaderMap,
    body: Body,
) -> Result<(DynamicMessage, HeaderMap), Refusal> {
    let input = binding.method.input();
    let mut object = match binding.body {
        true => object(body).await?,
        false => Map::new(),
    };
    for (name, value) in form_pairs(query) {
        insert(&input, &mut object, &name, value)?;
    }
    // The path beats the query, which beats the body (GW-203).
    for (name, value) in path {
        insert(&input, &mut object, &name, value)?;
    }
    let strict = DeserializeOptions::new().deny_unknown_fields(true);
    let message = DynamicMessage::deserialize_with_options(input, Plain::Object(object), &strict)
        .map_err(|error| bad("body", &error.to_string()))?;
    let answer = binding
        .grpc
        .clone()
        .oneshot(frame(binding, headers, &message)?);
    let answer = answer.await.unwrap_or_else(|never| match never {});
    let (head, body) = answer.into_parts();
    if let Some(status) =
        Status::from_header_map(&head.headers).filter(|status| status.code() != Code::Ok)
    {
        return Err(Refusal::from_status(&status));
    }
    let body = body.collect().await.map_err(|_| Refusal::internal())?;
    if let Some(status) = body.trailers().and_then(Status::from_header_map)
        && status.code() != Code::Ok
    {
        return Err(Refusal::from_status(&status));
    }
    let bytes = body.to_bytes();
    let message = bytes.get(5..).ok_or_else(Refusal::internal)?;
    let message = DynamicMessage::decode(binding.method.output(), message);
    Ok((message.map_err(|_| Refusal::internal())?, head.headers))
}

/// The body as a JSON object; none at all is an empty one.
async fn object(body: Body) -> Result<Map<String, Plain>, Refusal> {
    let bytes = http_body_util::Limited::new(body, LARGEST).collect().await;
    let bytes = bytes
        .map_err(|_| bad("body", "has more than 1 MiB, or did not arrive"))?
        .to_bytes();
    if bytes.is_empty() {
        return Ok(Map::new());
    }
    match serde_json::from_slice(&bytes) {
        Ok(Plain::Object(object)) => Ok(object),
        Ok(_) => Err(bad("body", "is no JSON object")),
        Err(error) => Err(bad("body", &format!("is no JSON: {error}"))),
    }
}

/// A variable of the path or the query, in the field's own kind. One that is repeated makes a list.
fn insert(
    input: &MessageDescriptor,
    object: &mut Map<String, Plain>,
    name: &str,
    text: String,
) -> Result<(), Refusal> {
    let field = input
        .get_field_by_name(name)
        .or_else(|| input.get_field_by_json_name(name));
    let Some(field) = field else {
        return Err(bad(name, "is no parameter of this route"));
    };
    let value = match field.kind() {
        Kind::Bool => Plain::Bool(
            text.parse()
                .map_err(|_| bad(name, "must be true or false"))?,
        ),
        Kind::Message(_) => return Err(bad(name, "cannot be given here")),
        _ => Plain::String(text),
    };
    if field.is_list() {
        if let Plain::Array(list) = object.entry(field.name()).or_insert_with(|| json!([])) {
            list.push(value);
        }
    } else {
        object.remove(field.json_name());
        object.insert(field.name().into(), value);
    }
    Ok(())
}

fn frame(
    binding: &Binding,
    headers: &HeaderMap,
    message: &DynamicMessage,
) -> Result<Request<Body>, Refusal> {
    let mut bytes = BytesMut::with_capacity(5 + message.encoded_len());
    bytes.put_u8(0);
    bytes.put_u32(message.encoded_len() as u32);
    message
        .encode(&mut bytes)
        .map_err(|_| Refusal::internal())?;
    let path = format!(
        "/{}/{}",
        binding.method.parent_service().full_name(),
        binding.method.name()
    );
    let mut request = Request::post(path)
        .body(Body::from(Bytes::from(bytes)))
        .map_err(|_| Refusal::internal())?;
    let into = request.headers_mut();
    into.insert("content-type", HeaderValue::from_static("application/grpc"));
    into.insert("te", HeaderValue::from_static("trailers"));
    for (name, value) in headers {
        let kept = ["authorization", "idempotency-key", "prefer", "tracestate"];
        if kept.contains(&name.as_str()) || name.as_str().starts_with("x-") {
            into.append(name.clone(), value.clone());
        }
    }
    // The call is ours, made for the request that we answer.
    let trace = observe::current().map(|trace| trace.traceparent());
    if let Some(Ok(value)) = trace.map(|text| text.parse()) {
        into.insert("traceparent", value);
    }
    Ok(request)
}

/// The message in the usual envelope (GW-809), in snake case, with its pages beside it. The answer's metadata may say
/// `x-http-code`, and `location` for what is not finished (SHOP-403).
fn success(method: &MethodDescriptor, message: &DynamicMessage, told: &HeaderMap) -> Response {
    let names = SerializeOptions::new()
        .use_proto_field_name(true)
        .skip_default_fields(false);
    let data = message.serialize_with_options(serde_json::value::Serializer, &names);
    let Ok(Plain::Object(mut data)) = data else {
        return listen::refuse(&Refusal::internal());
    };
    let said = told.get("x-http-code").and_then(|code| code.to_str().ok());
    let status = match said.and_then(|code| code.parse().ok()) {
        Some(status) => status,
        None if method.name().starts_with("Create") => StatusCode::CREATED,
        None => StatusCode::OK,
    };
    let Some(pages) = data.remove("pagination") else {
        let body = Json(json!({ "success": true, "data": data }));
        let mut response = (status, body).into_response();
        if let Some(place) = told.get("location") {
            response.headers_mut().insert("location", place.clone());
        }
        return response;
    };
    let count = |name: &str| HeaderValue::from(pages[name].as_i64().unwrap_or_default());
    let headers = [
        ("x-total-count", count("total")),
        ("x-page-count", count("pages")),
    ];
    let list = data
        .into_iter()
        .next()
        .map_or(Plain::Null, |(_, list)| list);
    let body = json!({ "success": true, "data": list, "pagination": pages });
    (status, headers, Json(body)).into_response()
}

fn bad(field: &str, what: &str) -> Refusal {
    Refusal::fields(vec![(field.to_string(), what.to_string())])
}

/// Pairs of a query, with `+` and `%XX` read.
fn form_pairs(query: &str) -> Vec<(String, String)> {
    let plain = |text: &str| {
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.bytes();
        while let Some(byte) = rest.next() {
            let hex = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
            bytes.push(match byte {
                b'+' => b' ',
                b'%' => match (hex(rest.clone().next()), hex(rest.clone().nth(1))) {
                    (Some(high), Some(low)) => {
                        rest.nth(1);
                        (high * 16 + low) as u8
                    }
                    _ => b'%',
                },
                other => other,
            });
        }
        String::from_utf8_lossy(&bytes).into_owned()
    };
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (plain(name), plain(value)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_read_as_forms() {
        let pairs = form_pairs("a=1+2&b=%C3%A9%4&&c");
        let pairs: Vec<_> = pairs
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        assert_eq!(pairs, [("a", "1 2"), ("b", "é%4"), ("c", "")]);
    }

    /// Every route of SHOP-801 has a path in the contracts.
    #[test]
    fn all_contracts_make_routes() {
        for contract in [
            "users.v1.UsersService",
            "products.v1.ProductsService",
            "orders.v1.OrdersService",
            "payments.v1.PaymentsService",
        ] {
            assert!(
                format!("{:?}", router(contract, &Router::new())).len() > 100,
                "{contract}"
            );
        }
    }
}
