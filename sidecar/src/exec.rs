//! `exec`: the application is a child of its sidecar. It starts when it can reach others and be reached, ends last but
//! for the way out, and its exit code is ours. So nothing in the application has to know of a mesh: not how long to
//! wait at the start, not in which order to stop (MESH-107).

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::{sleep, timeout};
use tollgate_config::sidecar::OUTBOUND;
use tollgate_engine::telemetry::log;

use crate::Exec;
use crate::app::{App, Unstarted};
use crate::life::{Life, on_runtime, unheard};
use crate::signals::{Hurry, Signals, Wish};

/// How often somebody who waits for us is told why.
const PATIENCE: Duration = Duration::from_secs(10);
/// For an application that was killed to be gone.
const GONE: Duration = Duration::from_secs(5);
/// The exit code of a process that a signal ended is this and its number.
const BY_SIGNAL: u8 = 128;
/// What the sidecar proves itself with, and the application need not see.
const HIDDEN: &[&str] = &["TOLLGATE_JOIN_TOKEN", "TOLLGATE_CONTROL_TOKEN"];

pub(crate) fn exec(exec: &Exec) -> ExitCode {
    on_runtime(async {
        let mut signals = Signals::new().map_err(unheard)?;
        let life = Life::start(&exec.told.source())?;
        if let Some(signal) = until_ready(&life, &mut signals).await {
            life.stop(&signals.hurry()).await;
            let number = u8::try_from(signal.as_raw()).unwrap_or_default();
            return Ok(ExitCode::from(BY_SIGNAL.saturating_add(number)));
        }
        let variables = variables(&life, exec.no_http_proxy);
        let app = match App::start(&exec.words, &variables, HIDDEN) {
            Ok(app) => app,
            Err(Unstarted { why, code }) => {
                eprintln!("{why}");
                life.stop(&signals.hurry()).await;
                return Ok(ExitCode::from(code));
            }
        };
        Ok(ExitCode::from(
            together(&life, app, &mut signals, exec.kill_after).await,
        ))
    })
}

/// Waits until everything serves; returns a signal that came before.
async fn until_ready(life: &Life, signals: &mut Signals) -> Option<Signal> {
    let handle = life.handle.clone();
    let ready = handle.ready();
    let mut ready = std::pin::pin!(ready);
    loop {
        tokio::select! {
            // An engine that ended has said why; the application would be alone.
            is_ready = &mut ready => return (!is_ready).then_some(Signal::TERM),
            wish = signals.next() => if let Wish::Stop(signal) = wish {
                return Some(signal);
            },
            () = life.asked() => return Some(Signal::TERM),
            () = sleep(PATIENCE) => {
                let hint = life.admin.map_or_else(String::new, |admin| format!("http://{admin}/health/ready"));
                log::warn(
                    "the application waits until the sidecar is ready",
                    &[("why", &hint)],
                );
            }
        }
    }
}

/// From the application's start to its end, and ours; its exit code.
async fn together(life: &Life, mut app: App, signals: &mut Signals, kill_after: Duration) -> u8 {
    let group = app.group();
    let signal = loop {
        tokio::select! {
            code = app.ended() => {
                log::info("the application ended", &[("code", &code)]);
                let hurry = signals.hurry();
                let ending = async {
                    life.withdraw(&hurry).await;
                    life.stop(&hurry).await;
                    code
                };
                return heard(ending, signals, |_| {}).await;
            }
            wish = signals.next() => match wish {
                Wish::Stop(signal) => break signal,
                Wish::Other(signal) => group.tell(signal),
            },
            () = life.asked() => break Signal::TERM,
            _report = life.ended() => break Signal::TERM,
        }
    };
    let hurry = signals.hurry();
    let ending = async {
        // Whom it could still serve is gone with it.
        let ended = tokio::select! {
            () = life.leave(&hurry) => None,
            code = app.ended() => Some(code),
        };
        let code = match ended {
            Some(code) => code,
            None => end(&mut app, signal, kill_after, &hurry).await,
        };
        log::info("the application ended", &[("code", &code)]);
        life.stop(&hurry).await;
        code
    };
    heard(ending, signals, |signal| group.tell(signal)).await
}

/// Does this while signals are heard.
async fn heard<T>(
    ending: impl Future<Output = T>,
    signals: &mut Signals,
    other: impl Fn(Signal),
) -> T {
    tokio::select! {
        done = ending => done,
        never = signals.listen(other) => match never {},
    }
}

/// Tells the application to end, and kills it when it does not.
async fn end(app: &mut App, signal: Signal, kill_after: Duration, hurry: &Hurry) -> u8 {
    log::info("stopping: the application is told", &[]);
    let (hurry, group) = (hurry.afresh(), app.group());
    group.tell(signal);
    if let Some(Ok(code)) = hurry.or(timeout(kill_after, app.ended())).await {
        return code;
    }
    log::warn(
        "the application did not end in time and is killed",
        &[("seconds", &kill_after.as_secs())],
    );
    group.tell(Signal::KILL);
    let killed = timeout(GONE, app.ended()).await;
    killed.unwrap_or(BY_SIGNAL.saturating_add(9))
}

/// What the application is told of its sidecar.
fn variables(life: &Life, no_http_proxy: bool) -> Vec<(String, String)> {
    let mut variables = Vec::new();
    let mut tell = |name: String, value: String| {
        // Who says otherwise means it.
        if std::env::var_os(&name).is_none() {
            variables.push((name, value));
        }
    };
    if let Some(admin) = life.admin {
        tell(
            "TOLLGATE_ADMIN".to_owned(),
            format!("http://{}", near(admin)),
        );
    }
    for (name, address) in &life.listeners {
        if name == OUTBOUND {
            let url = format!("http://{}", near(*address));
            if !no_http_proxy {
                tell("http_proxy".to_owned(), url.clone());
                tell("no_proxy".to_owned(), "localhost,127.0.0.1,::1".to_owned());
            }
            tell("TOLLGATE_OUTBOUND".to_owned(), url);
        } else if let Some(service) = name
            .strip_prefix(OUTBOUND)
            .and_then(|n| n.strip_prefix('-'))
        {
            let name = service.to_ascii_uppercase().replace('-', "_");
            tell(
                format!("TOLLGATE_OUTBOUND_{name}"),
                near(*address).to_string(),
            );
        }
    }
    variables
}

/// An address that somebody on this machine can connect to.
fn near(address: SocketAddr) -> SocketAddr {
    let mut near = address;
    if address.ip().is_unspecified() {
        near.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    near
}
