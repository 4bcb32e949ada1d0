//! One `transcode` filter, compiled: which requests call which method, and what becomes of their bodies. Made when a
//! document is loaded; what cannot be is told with the line and what to write instead.

mod make;

use std::sync::Arc;

use http::{Method, StatusCode};
use tollgate_config::{At, Transcode};

use super::bounds::{Bound, Rules};
use super::schema::{MessageId, Schema};
use super::table::{Found, Segments, Table};
use super::template::{Span, Template};
use make::Maker;

/// A `transcode` filter, ready to run.
#[derive(Debug)]
pub struct Transcoder {
    /// Its descriptors are the upstream's to tell, and none that fit the document are known.
    pub(crate) waits: bool,
    pub(crate) schema: Arc<Schema>,
    pub(crate) rules: Rules,
    pub(crate) statuses: Vec<(String, StatusCode)>,
    pub(crate) passes_unmatched: bool,
    /// Answers of one message are wrapped.
    pub(crate) envelope: bool,
    pub(crate) status_header: Option<http::HeaderName>,
    /// Where the bounds stand in the document: message, depth, fields.
    bounds: [At; 3],
    pub(super) table: Table,
    pub(super) bindings: Vec<Binding>,
}

/// One way to call one method.
#[derive(Debug)]
pub(crate) struct Binding {
    pub(crate) verb: Method,
    pub(super) template: Template,
    /// `/package.Service/Method`.
    pub(crate) path: Box<str>,
    pub(crate) input: MessageId,
    pub(crate) output: MessageId,
    pub(crate) client_streams: bool,
    pub(crate) server_streams: bool,
    pub(crate) body: Body,
    /// The field of the answer that is the body; `None`: all of it.
    pub(crate) response: Option<usize>,
    /// The body is `google.api.HttpBody`: any bytes of any type.
    pub(crate) raw_request: bool,
    pub(crate) raw_response: bool,
    /// Of an answer that is no error.
    pub(crate) status: StatusCode,
    pub(super) captures: Vec<Capture>,
}

/// What the request's body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Body {
    None,
    Whole,
    /// A field of the message.
    Field(usize),
}

#[derive(Debug)]
pub(super) struct Capture {
    pub(super) span: Span,
    /// Through which messages to which field: each its message and its place in it.
    pub(super) fields: Vec<(MessageId, usize)>,
}

/// What a path and method call.
pub(crate) struct Call<'t> {
    pub(crate) binding: &'t Binding,
    pub(super) segments: Segments,
    /// The path's length without its verb.
    pub(super) end: usize,
}

/// Why a filter cannot be.
#[derive(Debug)]
pub struct Trouble {
    pub at: At,
    pub message: String,
    pub hint: &'static str,
}

pub(crate) enum Called<'t> {
    Method(Call<'t>),
    /// The path is there with these methods.
    Other(Vec<Method>),
    Nothing,
    /// Nobody can tell.
    Unknown,
}

impl Transcoder {
    /// `at`: where the filter stands.
    pub fn compile(
        settings: &Transcode,
        schema: Arc<Schema>,
        at: At,
    ) -> Result<Transcoder, Vec<Trouble>> {
        let mut maker = Maker {
            settings,
            schema: &schema,
            at,
            table: Table::default(),
            bindings: Vec::new(),
            trouble: Vec::new(),
        };
        maker.all();
        let Maker {
            table,
            bindings,
            trouble,
            ..
        } = maker;
        if !trouble.is_empty() {
            return Err(trouble);
        }
        Ok(Transcoder {
            table,
            bindings,
            schema,
            ..Transcoder::of(settings)
        })
    }

    /// What the document says of it, with nothing to call.
    fn of(settings: &Transcode) -> Transcoder {
        Transcoder {
            waits: false,
            schema: Arc::default(),
            table: Table::default(),
            bindings: Vec::new(),
            rules: Rules {
                max_message: usize::try_from(settings.max_message.value).unwrap_or(usize::MAX),
                max_depth: u32::try_from(settings.max_depth.value).unwrap_or(u32::MAX),
                max_fields: u32::try_from(settings.max_fields.value).unwrap_or(u32::MAX),
                ignores_unknown: settings.ignore_unknown,
                proto_names: settings.proto_names,
                defaults: settings.defaults,
                enum_numbers: settings.enum_numbers,
            },
            bounds: [
                settings.max_message.at,
                settings.max_depth.at,
                settings.max_fields.at,
            ],
            statuses: settings.statuses.clone(),
            passes_unmatched: settings.pass_unmatched,
            envelope: settings.envelope,
            status_header: settings.status_header.clone(),
        }
    }

    /// As long as nobody has told what there is to call.
    pub fn waiting(settings: &Transcode) -> Transcoder {
        Transcoder {
            waits: true,
            ..Transcoder::of(settings)
        }
    }

    /// What a request calls.
    pub(crate) fn find(&self, method: &Method, path: &str) -> Called<'_> {
        if self.waits {
            return Called::Unknown;
        }
        match self.table.find(method, path) {
            Found::Binding(binding, segments, end) => Called::Method(Call {
                binding: &self.bindings[binding],
                segments,
                end,
            }),
            Found::Other(methods) => Called::Other(methods),
            Found::Nothing => Called::Nothing,
        }
    }

    /// Whether it is known what can be called.
    pub fn is_known(&self) -> bool {
        !self.waits
    }

    /// Where a bound was written.
    pub(crate) fn bound_at(&self, bound: Bound) -> At {
        self.bounds[match bound {
            Bound::Message => 0,
            Bound::Depth => 1,
            Bound::Fields => 2,
        }]
    }

    /// Which of the bindings this is.
    pub(crate) fn place(&self, binding: &Binding) -> usize {
        self.bindings
            .iter()
            .position(|one| std::ptr::eq(one, binding))
            .unwrap_or(0)
    }

    /// Every way to call something, in the order of the descriptors.
    pub(crate) fn bindings(&self) -> &[Binding] {
        &self.bindings
    }
}

impl Binding {
    /// As templates and OpenAPI write it: `/v1/orders/{id}`.
    pub(crate) fn shown_path(&self) -> String {
        self.template.to_string()
    }

    /// The path, ready for HTTP/2.
    pub(crate) fn streams(&self) -> bool {
        self.client_streams || self.server_streams
    }
}
