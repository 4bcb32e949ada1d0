//! Tells callers which contracts this process speaks (gRPC server reflection, v1 and v1alpha).
//!
//! Descriptor files are told byte for byte as the build made them. The ready-made service decodes and encodes them again
//! with types that do not know `google.api.http`, and so loses the very options that a gateway asks for.

use std::{collections::HashMap, sync::Arc};

use prost::Message;
use prost_types::{DescriptorProto, FileDescriptorProto};
use tonic::service::RoutesBuilder;

/// Files and what is in them.
#[derive(Debug, Default)]
struct Index {
    files: HashMap<String, Vec<u8>>,
    /// Symbol to file.
    symbols: HashMap<String, String>,
    services: Vec<String>,
}

/// A descriptor set with its files left as they are.
#[derive(Clone, PartialEq, Message)]
struct Files {
    #[prost(bytes = "vec", repeated, tag = "1")]
    file: Vec<Vec<u8>>,
}

/// Adds reflection of these descriptor sets, with `services` as the list of what is served here.
pub fn add(
    routes: &mut RoutesBuilder,
    sets: &[&[u8]],
    services: &[&str],
) -> Result<(), prost::DecodeError> {
    let mut index = Index {
        services: services.iter().map(ToString::to_string).collect(),
        ..Index::default()
    };
    for set in sets {
        for bytes in Files::decode(*set)?.file {
            index.add(bytes)?;
        }
    }
    let index = Arc::new(index);
    routes.add_service(
        tonic_reflection::pb::v1::server_reflection_server::ServerReflectionServer::new(
            v1::Service(index.clone()),
        ),
    );
    routes.add_service(
        tonic_reflection::pb::v1alpha::server_reflection_server::ServerReflectionServer::new(
            v1alpha::Service(index),
        ),
    );
    Ok(())
}

impl Index {
    fn add(&mut self, bytes: Vec<u8>) -> Result<(), prost::DecodeError> {
        let file = FileDescriptorProto::decode(bytes.as_slice())?;
        let name = file.name().to_string();
        let within = |scope: &str, name: &str| {
            if scope.is_empty() {
                name.to_string()
            } else {
                format!("{scope}.{name}")
            }
        };
        let mut symbols = Vec::new();
        for message in &file.message_type {
            messages(file.package(), message, &mut symbols);
        }
        for kind in &file.enum_type {
            symbols.push(within(file.package(), kind.name()));
        }
        for extension in &file.extension {
            symbols.push(within(file.package(), extension.name()));
        }
        for service in &file.service {
            let service_name = within(file.package(), service.name());
            symbols.extend(
                service
                    .method
                    .iter()
                    .map(|method| within(&service_name, method.name())),
            );
            symbols.push(service_name);
        }
        self.symbols
            .extend(symbols.into_iter().map(|symbol| (symbol, name.clone())));
        self.files.insert(name, bytes);
        Ok(())
    }

    fn file_with(&self, symbol: &str) -> Option<&Vec<u8>> {
        self.files
            .get(self.symbols.get(symbol.trim_start_matches('.'))?)
    }
}

fn messages(scope: &str, message: &DescriptorProto, symbols: &mut Vec<String>) {
    let name = format!("{scope}.{}", message.name());
    for inner in &message.nested_type {
        messages(&name, inner, symbols);
    }
    symbols.extend(
        message
            .enum_type
            .iter()
            .map(|kind| format!("{name}.{}", kind.name())),
    );
    symbols.push(name);
}

/// The two versions of the protocol differ in their package only.
macro_rules! version {
    ($version:ident) => {
        mod $version {
            use std::{pin::Pin, sync::Arc};

            use tokio_stream::{Stream, StreamExt};
            use tonic::{Code, Request, Response, Status, Streaming};
            use tonic_reflection::pb::$version::{
                ErrorResponse, FileDescriptorResponse, ListServiceResponse,
                ServerReflectionRequest, ServerReflectionResponse, ServiceResponse,
                server_reflection_request::MessageRequest,
                server_reflection_response::MessageResponse,
                server_reflection_server::ServerReflection,
            };

            use super::Index;

            #[derive(Debug)]
            pub(super) struct Service(pub(super) Arc<Index>);

            impl Service {
                fn answer(index: &Index, asked: &ServerReflectionRequest) -> MessageResponse {
                    let file = |found: Option<&Vec<u8>>| match found {
                        Some(bytes) => {
                            MessageResponse::FileDescriptorResponse(FileDescriptorResponse {
                                file_descriptor_proto: vec![bytes.clone()],
                            })
                        }
                        None => refusal(Code::NotFound, "not among the contracts of this process"),
                    };
                    match &asked.message_request {
                        Some(MessageRequest::FileByFilename(name)) => file(index.files.get(name)),
                        Some(MessageRequest::FileContainingSymbol(symbol)) => {
                            file(index.file_with(symbol))
                        }
                        Some(MessageRequest::ListServices(_)) => {
                            let service = index
                                .services
                                .iter()
                                .map(|name| ServiceResponse { name: name.clone() });
                            MessageResponse::ListServicesResponse(ListServiceResponse {
                                service: service.collect(),
                            })
                        }
                        _ => refusal(Code::Unimplemented, "ask for services, symbols or files"),
                    }
                }
            }

            fn refusal(code: Code, message: &str) -> MessageResponse {
                MessageResponse::ErrorResponse(ErrorResponse {
                    error_code: code as i32,
                    error_message: message.into(),
                })
            }

            #[tonic::async_trait]
            impl ServerReflection for Service {
                type ServerReflectionInfoStream =
                    Pin<Box<dyn Stream<Item = Result<ServerReflectionResponse, Status>> + Send>>;

                async fn server_reflection_info(
                    &self,
                    request: Request<Streaming<ServerReflectionRequest>>,
                ) -> Result<Response<Self::ServerReflectionInfoStream>, Status> {
                    let index = self.0.clone();
                    let answers = request.into_inner().map(move |asked| {
                        let asked = asked?;
                        Ok(ServerReflectionResponse {
                            valid_host: asked.host.clone(),
                            message_response: Some(Self::answer(&index, &asked)),
                            original_request: Some(asked),
                        })
                    });
                    Ok(Response::new(Box::pin(answers)))
                }
            }
        }
    };
}

version!(v1);
version!(v1alpha);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contracts::DESCRIPTORS;

    /// GW-201: what reflection tells is enough to translate with.
    #[test]
    fn files_are_told_with_their_http_rules() {
        let mut index = Index::default();
        for bytes in Files::decode(DESCRIPTORS).unwrap().file {
            index.add(bytes).unwrap();
        }
        let file = index.file_with("users.v1.UsersService.GetUser").unwrap();
        let rule = b"/users/{user_id}";
        assert!(file.windows(rule.len()).any(|bytes| bytes == rule));
        assert!(index.file_with("orders.v1.Order.Phase").is_some());
        assert!(index.files.contains_key("google/api/annotations.proto"));
    }
}
