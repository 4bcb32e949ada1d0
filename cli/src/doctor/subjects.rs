//! What there is to look at: the documents that were named or are in the usual places, and the addresses that they, or the
//! command line, name. Reads documents, and decides nothing about them.

use std::cmp::Ordering;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tollgate_config::{Document, Loader, Problems, UpstreamTls, control_plane};
use tollgate_engine::reload::control_plane::LastGood;

use super::parallel::{self, Job};
use super::wire::Target;
use crate::client::Admin;
use crate::desk::Token;

/// Where documents are that nobody names.
const USUAL: [&str; 6] = [
    "gateway.toml",
    "sidecar.toml",
    "control-plane.toml",
    "/etc/tollgate/gateway.toml",
    "/etc/tollgate/sidecar.toml",
    "/etc/tollgate/control-plane.toml",
];
const USUAL_CONTROL: &str = "127.0.0.1:8080";
const USUAL_ADMINS: [&str; 2] = ["127.0.0.1:9901", "127.0.0.1:15000"];

/// A document, and what became of reading it.
pub(super) struct Paper {
    pub(super) path: PathBuf,
    pub(super) content: Content,
}

pub(super) enum Content {
    /// Of a gateway or a sidecar.
    Plane(Box<Document>),
    Control(Box<control_plane::ControlPlane>),
    /// Neither reader takes it: the problems of the one that it is likelier for.
    Refused(Problems),
    /// It was not read in time.
    Hangs,
}

pub(super) struct Subjects {
    pub(super) papers: Vec<Paper>,
    pub(super) controls: Vec<Target>,
    pub(super) planes: Vec<Plane>,
    /// For control planes.
    pub(super) token: Option<Token>,
    /// How long one check may take.
    pub(super) limit: Duration,
}

/// A data plane that runs, or should.
pub(super) struct Plane {
    pub(super) target: Target,
    /// Its document's number among the papers.
    pub(super) paper: Option<usize>,
}

/// What the command line named.
pub(super) struct Named {
    pub(super) files: Vec<PathBuf>,
    pub(super) admins: Vec<Admin>,
    /// URL of a control plane, whom to trust there, and a token.
    pub(super) control: Option<(bool, String)>,
    pub(super) tls: UpstreamTls,
    pub(super) token: Option<Token>,
    pub(super) limit: Duration,
}

impl Paper {
    pub(super) fn name(&self) -> String {
        self.path.display().to_string()
    }

    pub(super) fn plane(&self) -> Option<&Document> {
        match &self.content {
            Content::Plane(document) => Some(document),
            _ => None,
        }
    }

    pub(super) fn control(&self) -> Option<&control_plane::ControlPlane> {
        match &self.content {
            Content::Control(document) => Some(document),
            _ => None,
        }
    }

    /// With what a control plane told last, as it is on disk: what serves, or would. `None`: nothing was told.
    pub(super) fn joined(&self) -> Option<Document> {
        let document = self.plane()?;
        document.control_plane.as_ref()?;
        let folder = document.server.state_dir.as_deref()?;
        let known = LastGood::new(folder).look().ok().flatten()?;
        let mut loader = Loader::new().short();
        let file = loader.load(&self.path).ok()?;
        loader.join(&file, &known.blocks()).ok()
    }

    /// The folder that the process that reads it keeps its state in.
    pub(super) fn state_dir(&self) -> Option<&Path> {
        match &self.content {
            Content::Plane(document) => document.server.state_dir.as_deref(),
            Content::Control(document) => document.server.state_dir.as_deref(),
            Content::Refused(_) | Content::Hangs => None,
        }
    }
}

/// Reads what there is. Bounded, also where a file system hangs.
pub(super) fn gather(named: Named) -> Arc<Subjects> {
    let mut files = named.files;
    if files.is_empty() {
        let usual = USUAL.iter().map(PathBuf::from);
        files = usual.filter(|path| path.is_file()).collect();
    }
    let jobs = files.iter().map(|path| {
        let path = path.clone();
        Box::new(move || read(&path)) as Job<Content>
    });
    let contents = parallel::all(jobs.collect(), named.limit);
    let papers: Vec<Paper> = { files.into_iter().zip(contents) }
        .map(|(path, content)| Paper {
            path,
            content: content.unwrap_or(Content::Hangs),
        })
        .collect();
    Arc::new(Subjects {
        controls: controls(&papers, named.control, &named.tls),
        planes: planes(&papers, &named.admins),
        papers,
        token: named.token,
        limit: named.limit,
    })
}

/// A document is of the kind whose reader takes it; where neither does, of the one that knows more of its sections.
fn read(path: &Path) -> Content {
    let plane = Loader::new().short().load(path);
    let control = control_plane::load(path);
    let called_so = is_called_control_plane(path);
    match (plane, control) {
        // Both may be right: a file with nothing but `[server]`.
        (Ok(_), Ok(control)) if called_so => Content::Control(Box::new(control)),
        (Ok(document), _) => Content::Plane(Box::new(document)),
        (Err(_), Ok(control)) => Content::Control(Box::new(control)),
        (Err(plane), Err(control)) => {
            let foreign = |problems: &Problems| {
                let all = problems.0.iter();
                all.filter(|one| one.code == "unknown-section").count()
            };
            let is_control = match foreign(&control).cmp(&foreign(&plane)) {
                Ordering::Less => true,
                Ordering::Equal => called_so,
                Ordering::Greater => false,
            };
            Content::Refused(if is_control { control } else { plane })
        }
    }
}

fn is_called_control_plane(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy());
    name.is_some_and(|name| name.contains("control-plane"))
}

/// Each once, the first who names it.
fn controls(papers: &[Paper], named: Option<(bool, String)>, tls: &UpstreamTls) -> Vec<Target> {
    let target = |encrypted: bool, authority: String, tls: &UpstreamTls| Target {
        url: url(encrypted, &authority),
        authority,
        tls: encrypted.then(|| tls.clone()),
        place: None,
        is_guess: false,
    };
    let mut all: Vec<Target> = Vec::new();
    let mut add = |one: Target| {
        if !all.iter().any(|known| known.url == one.url) {
            all.push(one);
        }
    };
    if let Some((encrypted, authority)) = named {
        add(target(encrypted, authority, tls));
    }
    for settings in papers
        .iter()
        .filter_map(|p| p.plane()?.control_plane.as_ref())
    {
        let trusts = settings.tls.as_ref().unwrap_or(tls);
        for one in &settings.urls {
            add(Target {
                place: Some(settings.place.to_string()),
                ..target(one.encrypted, one.address.clone(), trusts)
            });
        }
    }
    for paper in papers {
        let Some(server) = paper.control().map(|control| &control.server) else {
            continue;
        };
        if let Some(authority) = reachable(server.bind) {
            add(Target {
                place: Some(paper.name()),
                ..target(server.tls.is_some(), authority, tls)
            });
        }
    }
    if all.is_empty() {
        all.push(Target {
            is_guess: true,
            ..target(false, USUAL_CONTROL.to_owned(), tls)
        });
    }
    all
}

fn planes(papers: &[Paper], admins: &[Admin]) -> Vec<Plane> {
    let target = |url: String, is_guess| Target {
        authority: url.trim_start_matches("http://").to_owned(),
        url,
        tls: None,
        place: None,
        is_guess,
    };
    let mut all: Vec<Plane> = Vec::new();
    for admin in admins {
        all.push(Plane {
            target: target(admin.to_string(), false),
            paper: None,
        });
    }
    for (number, paper) in papers.iter().enumerate() {
        let admin = paper.plane().and_then(|document| document.server.admin);
        let Some(authority) = admin.and_then(reachable) else {
            continue;
        };
        let url = url(false, &authority);
        match all.iter_mut().find(|known| known.target.url == url) {
            Some(known) => known.paper = known.paper.or(Some(number)),
            None => all.push(Plane {
                target: Target {
                    place: Some(paper.name()),
                    ..target(url, false)
                },
                paper: Some(number),
            }),
        }
    }
    if all.is_empty() {
        let usual = USUAL_ADMINS.iter().map(|authority| Plane {
            target: target(url(false, authority), true),
            paper: None,
        });
        all.extend(usual);
    }
    all
}

fn url(encrypted: bool, authority: &str) -> String {
    let scheme = if encrypted { "https" } else { "http" };
    format!("{scheme}://{authority}")
}

/// Where an address that is listened on is reached from this machine; `None` for a port that is not known.
pub(super) fn reachable(bind: SocketAddr) -> Option<String> {
    let ip = match bind.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    (bind.port() != 0).then(|| SocketAddr::new(ip, bind.port()).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_of_the_kind_that_it_reads_as() {
        let folder = tempfile::tempdir().unwrap();
        let kind = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            match read(&path) {
                Content::Plane(_) => "plane".to_owned(),
                Content::Control(_) => "control".to_owned(),
                Content::Refused(problems) => problems.to_string(),
                Content::Hangs => "hangs".to_owned(),
            }
        };
        let sidecar = "[service]\nname = \"a\"\napp = \"127.0.0.1:1\"\n";
        let gateway = "[[listener]]\nname = \"a\"\nbind = \"127.0.0.1:0\"\n";
        let control = "[server]\nbind = \"127.0.0.1:0\"\n[feed]\nbeat = \"5s\"\n";
        assert_eq!(kind("a.toml", sidecar), "plane");
        assert_eq!(kind("b.toml", gateway), "plane");
        assert_eq!(kind("c.toml", control), "control");
        assert_eq!(
            kind("control-plane.toml", "[server]\ndrain = \"5s\"\n"),
            "control"
        );
        let mistaken = kind("e.toml", "[feed]\nbeet = \"5s\"\n");
        assert!(mistaken.contains("did you mean `beat`"), "{mistaken}");
        let mistaken = kind("f.toml", "[[listener]]\nnaem = \"a\"\n");
        assert!(mistaken.contains("did you mean `name`"), "{mistaken}");
    }

    #[test]
    fn an_address_for_everybody_is_reached_on_this_machine() {
        let reached = |bind: &str| reachable(bind.parse().unwrap());
        assert_eq!(reached("0.0.0.0:80").as_deref(), Some("127.0.0.1:80"));
        assert_eq!(reached("[::]:80").as_deref(), Some("[::1]:80"));
        assert_eq!(reached("127.0.0.1:0"), None);
    }
}
