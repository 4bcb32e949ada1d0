//! From annotations, names and the document's own bindings to what can be called, or all that is wrong with them.

use http::{HeaderValue, Method, StatusCode};
use tollgate_config::{At, Transcode};

use super::{Binding, Body, Capture, Trouble};
use crate::transcode::convention;
use crate::transcode::schema::{self, Field, HttpRule, Kind, Known, MessageId, Schema, Shape};
use crate::transcode::table::Table;
use crate::transcode::template::Template;

pub(super) struct Maker<'a> {
    pub(super) settings: &'a Transcode,
    pub(super) schema: &'a Schema,
    pub(super) at: At,
    pub(super) table: Table,
    pub(super) bindings: Vec<Binding>,
    pub(super) trouble: Vec<Trouble>,
}

impl Maker<'_> {
    fn trouble(&mut self, at: At, message: String, hint: &'static str) {
        self.trouble.push(Trouble { at, message, hint });
    }

    pub(super) fn all(&mut self) {
        let (schema, settings) = (self.schema, self.settings);
        for name in &settings.services {
            if !schema
                .services()
                .iter()
                .any(|service| *service.name == **name)
            {
                let near = schema
                    .services()
                    .first()
                    .map_or("none", |service| &*service.name);
                let message =
                    format!("the descriptors hold no service `{name}`; they hold {near}, for one");
                self.trouble(
                    self.at,
                    message,
                    "write the full name of a service: package and name",
                );
            }
        }
        let wanted = |service: &schema::Service| {
            settings.services.is_empty()
                || settings.services.iter().any(|name| **name == *service.name)
        };
        let mut used = vec![false; settings.bindings.len()];
        for service in schema.services().iter().filter(|service| wanted(service)) {
            for method in &service.methods {
                let full = format!("{}.{}", service.name, method.name);
                let mut written = false;
                for (place, binding) in settings.bindings.iter().enumerate() {
                    if binding.method == full {
                        let rule = HttpRule {
                            verb: binding.verb.as_str().into(),
                            path: binding.path.as_str().into(),
                            body: binding.body.as_str().into(),
                            response_body: binding.response_body.as_str().into(),
                        };
                        self.bind(service, method, &rule, binding.status, binding.at);
                        (used[place], written) = (true, true);
                    }
                }
                if written {
                    continue;
                }
                let named;
                let rules = if method.rules.is_empty() && settings.convention {
                    named = convention::rules(schema, service, method);
                    &named
                } else {
                    &method.rules
                };
                for rule in rules {
                    self.bind(service, method, rule, None, self.at);
                }
            }
        }
        for (binding, _) in settings
            .bindings
            .iter()
            .zip(&used)
            .filter(|(_, used)| !**used)
        {
            let message = format!(
                "the services called here have no method `{}`",
                binding.method
            );
            self.trouble(
                binding.at,
                message,
                "write the full name: package, service and method",
            );
        }
        if self.bindings.is_empty() && self.trouble.is_empty() && !settings.pass_unmatched {
            self.trouble(
                self.at,
                "no method can be called: the descriptors say nothing about HTTP".to_owned(),
                "annotate methods with `google.api.http`, or write `convention = true` or `bindings`",
            );
        }
    }

    fn bind(
        &mut self,
        service: &schema::Service,
        method: &schema::Method,
        rule: &HttpRule,
        status: Option<StatusCode>,
        at: At,
    ) {
        match self.binding(service, method, rule, status) {
            Ok(binding) => {
                let place = self.bindings.len();
                match self
                    .table
                    .insert(&binding.template, binding.verb.clone(), place)
                {
                    Ok(()) => self.bindings.push(binding),
                    Err(known) => {
                        let other = &self.bindings[known].path;
                        let message = format!(
                            "`{} {}` calls both {other} and {}",
                            rule.verb, rule.path, binding.path
                        );
                        self.trouble(
                            at,
                            message,
                            "give one of them another path, or name the `services` of this route",
                        );
                    }
                }
            }
            Err(why) => {
                let message = format!(
                    "`{} {}` of {}.{}: {why}",
                    rule.verb, rule.path, service.name, method.name
                );
                self.trouble(
                    at,
                    message,
                    "correct the annotation, or write a binding for the method",
                );
            }
        }
    }

    fn binding(
        &self,
        service: &schema::Service,
        method: &schema::Method,
        rule: &HttpRule,
        status: Option<StatusCode>,
    ) -> Result<Binding, String> {
        let verb = Method::from_bytes(rule.verb.as_bytes())
            .map_err(|_| "the method is none".to_owned())?;
        let template =
            Template::parse(&rule.path).map_err(|why| format!("the path is no template: {why}"))?;
        let (input, output) = (
            self.schema.message(method.input),
            self.schema.message(method.output),
        );
        let place = |message: &schema::Message, name: &str| {
            message
                .by_key(name)
                .ok_or_else(|| format!("{} has no field `{name}`", message.name))
        };
        let body = match &*rule.body {
            "" => Body::None,
            "*" => Body::Whole,
            name => Body::Field(place(input, name)?),
        };
        let response = match &*rule.response_body {
            "" | "*" => None,
            name => Some(place(output, name)?),
        };
        let is_raw = |id: MessageId| self.schema.message(id).known == Known::HttpBody;
        let is_raw_field = |field: &Field| {
            field.shape == Shape::One && matches!(field.kind, Kind::Message(id) if is_raw(id))
        };
        let created = verb == Method::POST && method.name.starts_with("Create");
        let captures = { template.captures.iter() }
            .map(|span| {
                Ok(Capture {
                    fields: self.captured(method.input, &span.field)?,
                    span: span.clone(),
                })
            })
            .collect::<Result<_, String>>()?;
        let path = format!("/{}/{}", service.name, method.name);
        HeaderValue::from_str(&path).map_err(|_| "its name does not stand in a path".to_owned())?;
        Ok(Binding {
            path: path.into(),
            input: method.input,
            output: method.output,
            client_streams: method.client_streams,
            server_streams: method.server_streams,
            raw_request: match body {
                Body::None => false,
                Body::Whole => is_raw(method.input),
                Body::Field(place) => is_raw_field(&input.fields[place]),
            },
            raw_response: match response {
                None => is_raw(method.output),
                Some(place) => is_raw_field(&output.fields[place]),
            },
            body,
            response,
            status: status.unwrap_or(if created {
                StatusCode::CREATED
            } else {
                StatusCode::OK
            }),
            captures,
            template,
            verb,
        })
    }

    /// The fields that a capture goes through. The last holds one value that a text can say.
    fn captured(&self, mut id: MessageId, path: &str) -> Result<Vec<(MessageId, usize)>, String> {
        let mut fields = Vec::new();
        let mut names = path.split('.').peekable();
        while let Some(name) = names.next() {
            let message = self.schema.message(id);
            let place = message
                .by_key(name)
                .ok_or_else(|| format!("{} has no field `{name}`", message.name))?;
            fields.push((id, place));
            let field = &message.fields[place];
            match (field.kind, names.peek()) {
                _ if field.shape != Shape::One => {
                    return Err(format!("`{path}` is a list or a map"));
                }
                (Kind::Message(next), Some(_)) => id = next,
                (_, Some(_)) => return Err(format!("`{name}` has no fields")),
                (Kind::Message(last), None) if self.schema.message(last).known == Known::No => {
                    return Err(format!("`{path}` is a message, which no path can say"));
                }
                (_, None) => {}
            }
        }
        Ok(fields)
    }
}
