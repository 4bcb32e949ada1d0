//! `openapi`: what routes with `transcode` answer, without serving them.

use std::path::Path;
use std::process::ExitCode;

use tollgate_config::Loader;
use tollgate_engine::process::exit;
use tollgate_engine::program;

/// Of the route with this name, or of the only one.
pub(crate) fn openapi(path: &Path, wanted: Option<&str>) -> ExitCode {
    let snapshot = match program::compiled(Loader::new().load(path)) {
        Ok((_, snapshot)) => snapshot,
        Err(problems) => return program::refused(&problems),
    };
    let speaking: Vec<_> = { snapshot.routes.iter() }
        .filter(|plan| wanted.is_none_or(|wanted| plan.item.name == wanted))
        .filter_map(|plan| Some((&plan.item.name, plan.compiled.chain.transcoder()?)))
        .collect();
    let [(name, transcoder)] = &*speaking else {
        let names: Vec<&str> = speaking.iter().map(|(name, _)| name.as_str()).collect();
        match (wanted, names.is_empty()) {
            (Some(wanted), _) => eprintln!("no route named `{wanted}` has the filter `transcode`"),
            (None, true) => eprintln!("no route has the filter `transcode`"),
            (None, false) => eprintln!("choose a route with --route: {}", names.join(", ")),
        }
        return ExitCode::from(exit::BAD_DOCUMENT);
    };
    if !transcoder.is_known() {
        eprintln!(
            "the descriptors of `{name}` are its upstream's to tell, and none that fit are kept in `server.state_dir`; start a gateway with \
             this document first, or name a file as `descriptors`"
        );
        return ExitCode::from(exit::FAILURE);
    }
    program::print_json(&transcoder.openapi(name));
    ExitCode::SUCCESS
}
