//! What a short file says about capture: which ports the kernel redirects to which, and whose connections it leaves
//! alone. The rules themselves are made elsewhere.

use std::path::Path;
use std::sync::Arc;

use super::lower::is_off;
use super::read::{self, Table};
use crate::document::Cidr;
use crate::problem::{Problem, Problems};
use crate::report::Report;
use crate::rule;

/// The doors' ports where nobody says otherwise (PROD-20).
const INBOUND_PORT: u16 = 15006;
const OUTBOUND_PORT: u16 = 15001;

/// What is to be redirected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capture {
    pub inbound_port: u16,
    pub outbound_port: u16,
    /// Whose connections are never redirected; `None`: those of whoever installs the rules.
    pub user: Option<User>,
    pub exclude_inbound: Vec<u16>,
    pub exclude_outbound: Vec<u16>,
    pub exclude_cidrs: Vec<Cidr>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum User {
    Number(u32),
    Name(String),
}

impl Default for Capture {
    fn default() -> Self {
        Capture {
            inbound_port: INBOUND_PORT,
            outbound_port: OUTBOUND_PORT,
            user: None,
            exclude_inbound: Vec::new(),
            exclude_outbound: Vec::new(),
            exclude_cidrs: Vec::new(),
        }
    }
}

/// Reads what a short file says. `None`: it says nothing of capture, or that it is off.
pub fn capture(name: &str, text: &str, folder: &Path) -> Result<Option<Capture>, Problems> {
    let mut report = Report::default();
    let name: Arc<str> = Arc::from(name);
    let environment = |name: &str| std::env::var(name).ok();
    let short = read::read(&name, text, folder, &environment, &mut report);
    let Some(short) = short.filter(|_| report.is_empty()) else {
        return Err(Problems(report.finish(&[name])));
    };
    let Some(capture) = short.capture.as_ref().filter(|capture| !is_off(capture)) else {
        return Ok(None);
    };
    let port = |table: &Table, usual: u16| {
        let bind = table.text("bind").and_then(|bind| rule::bind(bind).ok());
        bind.map_or(usual, |bind| bind.port())
    };
    let (inbound_port, outbound_port) = (
        port(&short.inbound, INBOUND_PORT),
        port(&short.outbound, OUTBOUND_PORT),
    );
    if inbound_port == 0 || outbound_port == 0 {
        return Err(Problems(vec![Problem {
            code: "contradiction",
            place: None,
            message: "the kernel can redirect to a port that is known only, and one of the doors takes any".to_owned(),
            text: None,
            hint: Some("write a port other than 0 into `inbound.bind` and `outbound.bind`".to_owned()),
        }]));
    }
    let user = capture.get("user").and_then(|written| {
        let number = written.node.count().and_then(|n| u32::try_from(n).ok());
        number
            .map(User::Number)
            .or_else(|| Some(User::Name(written.node.text()?.to_owned())))
    });
    Ok(Some(Capture {
        inbound_port,
        outbound_port,
        user,
        exclude_inbound: ports(capture, "exclude_inbound"),
        exclude_outbound: ports(capture, "exclude_outbound"),
        exclude_cidrs: { capture.get("exclude_cidrs").into_iter() }
            .flat_map(|written| written.node.list())
            .filter_map(|node| rule::cidr(node.text()?).ok())
            .collect(),
    }))
}

fn ports(capture: &Table, key: &str) -> Vec<u16> {
    { capture.get(key).into_iter() }
        .flat_map(|written| written.node.list())
        .filter_map(|node| u16::try_from(node.count()?).ok())
        .collect()
}
