//! The manifests for Kubernetes, as far as they can be looked at without one: their shape, the words that they start us
//! with, and the file that they mount.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser as _;
use tollgate_config::Loader;
use tollgate_sidecar::Arguments;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docker/kubernetes/sidecar")
}

/// Every manifest with its name.
fn manifests() -> Vec<(String, String)> {
    let files = fs::read_dir(folder()).expect("the manifests").flatten();
    let files = files.filter(|file| file.path().extension().is_some_and(|e| e == "yaml"));
    let read = |file: fs::DirEntry| {
        let name = file.file_name().to_string_lossy().into_owned();
        (name, fs::read_to_string(file.path()).expect("text"))
    };
    files.map(read).collect()
}

#[test]
fn every_manifest_has_the_shape_of_one() {
    let all = manifests();
    assert!(all.len() >= 6, "{all:?}");
    for (name, text) in &all {
        for wanted in ["apiVersion: ", "kind: "] {
            assert!(
                text.lines().any(|line| line.starts_with(wanted)),
                "{name}: no {wanted}"
            );
        }
        let mut deepest = 0;
        for line in text
            .lines()
            .filter(|line| !line.trim_start().starts_with('#'))
        {
            let depth = line.len() - line.trim_start().len();
            assert!(!line.contains('\t') && depth % 2 == 0, "{name}: {line:?}");
            assert!(depth <= deepest + 4, "{name}: {line:?} is indented too far");
            deepest = depth;
            let words = line.trim_start().trim_start_matches("- ");
            let entry =
                words.contains(": ") || words.ends_with(':') || line.trim_start().starts_with("- ");
            assert!(entry, "{name}: {line:?} is no entry");
        }
    }
    let kustomization = fs::read_to_string(folder().join("kustomization.yaml")).expect("there");
    for (name, _) in all
        .iter()
        .filter(|(name, _)| name.starts_with("sidecar") || name.contains('-'))
    {
        let optional = ["capture-patch.yaml"].contains(&name.as_str());
        assert!(
            optional || kustomization.contains(name),
            "{name} is not used"
        );
    }
}

#[test]
fn a_sidecar_is_started_first_and_keeps_nothing_alive_mesh_107() {
    for name in ["sidecar-patch.yaml", "job.yaml"] {
        let text = fs::read_to_string(folder().join(name)).expect("there");
        let (_, init) = text
            .split_once("initContainers:\n")
            .expect("they come first");
        let own = init.split("\n      containers:").next().unwrap_or_default();
        assert!(
            own.contains("restartPolicy: Always\n"),
            "{name}: a native sidecar"
        );
        assert!(own.contains("startupProbe:"), "{name}: others wait for it");
    }
}

#[test]
fn the_words_of_the_manifests_are_words_of_the_program() {
    let mut seen = 0;
    for (name, text) in manifests() {
        for line in text.lines().map(str::trim) {
            let list = line.strip_prefix("args: ").or_else(|| {
                let command = line.strip_prefix("command: ")?;
                command.contains("tollgate-sidecar").then_some(command)
            });
            let Some(list) = list else { continue };
            let mut words: Vec<String> = serde_json::from_str(list).expect("a list of words");
            if line.starts_with("args") {
                words.insert(0, "tollgate-sidecar".to_owned());
            }
            let parsed = Arguments::try_parse_from(&words);
            assert!(parsed.is_ok(), "{name}: {words:?}: {parsed:?}");
            seen += 1;
        }
    }
    assert!(seen >= 5, "{seen}");
}

#[test]
fn the_file_that_is_mounted_is_a_good_one() {
    let environment = |name: &str| {
        let value = match name {
            "TOLLGATE_SERVICE" => "orders",
            "TOLLGATE_APP_PORT" => "9003",
            "POD_IP" => "10.0.0.7",
            "POD_NAME" => "orders-1",
            "POD_NAMESPACE" => "shop",
            _ => return None,
        };
        Some(value.to_owned())
    };
    let mut loader = Loader::with_environment(environment).short();
    let document = loader.load(&folder().join("sidecar.toml"));
    let document = document.unwrap_or_else(|problems| panic!("{problems}"));
    let names: Vec<&str> = document.listeners.iter().map(|l| l.name.as_str()).collect();
    assert_eq!(names, ["inbound", "outbound"]);
}
