//! What a route does to requests and answers besides passing them on: a list, run in the order written, and in reverse
//! on the way back. A filter may edit or refuse; it never waits, so the chain is a loop over an enum and nothing else.

mod set_headers;

use tollgate_config::{Filter as Settings, SetHeaders, Setting};

use crate::exchange::error::Error;
use crate::exchange::{Request, Response};

/// One filter, ready to run.
#[derive(Debug)]
enum Filter {
    SetHeaders(SetHeaders),
}

/// A route's filters.
#[derive(Debug, Default)]
pub struct Chain(Vec<Filter>);

impl Chain {
    pub fn compile(settings: &[Setting<Settings>]) -> Self {
        Chain(
            settings
                .iter()
                .map(|setting| match &setting.value {
                    Settings::SetHeaders(edit) => Filter::SetHeaders(edit.clone()),
                })
                .collect(),
        )
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first refusal ends the exchange.
    pub fn on_request(&self, request: &mut Request) -> Result<(), Error> {
        for filter in &self.0 {
            match filter {
                Filter::SetHeaders(edit) => {
                    set_headers::apply(&mut request.headers, &edit.remove, &edit.request)
                }
            }
        }
        Ok(())
    }

    /// Sees our own answers too.
    pub fn on_response(&self, response: &mut Response) {
        for filter in self.0.iter().rev() {
            match filter {
                Filter::SetHeaders(edit) => {
                    set_headers::apply(&mut response.headers, &edit.remove, &edit.response)
                }
            }
        }
    }
}
