//! `cargo xtask mistakes`: proves that the parity check can fail. Each deliberate mistake of tests/mistakes.json is made in a
//! copy of the engine, which is built and must then fail `parity` on at least one of the committed fixtures.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::Outcome;
use crate::cargo::Workspace;

/// What `mistakes` can be told.
#[derive(clap::Args)]
pub struct Options {
    /// Only the mistakes whose name contains this.
    filter: Option<String>,
}

/// One mistake: replacements of texts that occur exactly once when their turn comes.
#[derive(Debug)]
struct Mistake {
    name: String,
    edits: Vec<Edit>,
}

#[derive(Debug)]
struct Edit {
    file: String,
    old: String,
    new: String,
}

/// Tries every mistake. The error names those that parity did not see.
pub fn run(workspace: &Workspace, options: &Options) -> Outcome<Value> {
    let all = list(&workspace.root)?;
    let wanted = |mistake: &&Mistake| options.filter.as_ref().is_none_or(|part| mistake.name.contains(part.as_str()));
    let mistakes: Vec<&Mistake> = all.iter().filter(wanted).collect();
    let copy = workspace.target.join("mistakes");
    copy_sources(&workspace.root, &copy)?;
    let fixtures = fixtures(&workspace.root)?;
    let program = build(&copy)?;
    for (folder, reference) in &fixtures {
        if !holds(&program, folder, reference)? {
            return Err(format!("parity fails on {} without any mistake", folder.display()));
        }
    }
    let (mut report, mut unseen) = (Vec::new(), Vec::new());
    for (index, mistake) in mistakes.iter().enumerate() {
        let before = mistake.make(&copy)?;
        let built = build(&copy);
        let seen: Outcome<Vec<String>> = built.and_then(|program| {
            let mut seen = Vec::new();
            for (folder, reference) in &fixtures {
                if !holds(&program, folder, reference)? {
                    seen.push(folder.file_name().unwrap_or_default().to_string_lossy().into_owned());
                }
            }
            Ok(seen)
        });
        for (file, text) in before {
            write(&file, &text)?;
        }
        let seen = seen.map_err(|why| format!("{}: {why}", mistake.name))?;
        let verdict = if seen.is_empty() { "NOT SEEN".to_owned() } else { format!("fails on {}", seen.join(", ")) };
        eprintln!("{:2} of {}: {:45} {verdict}", index + 1, mistakes.len(), mistake.name);
        if seen.is_empty() {
            unseen.push(mistake.name.clone());
        }
        report.push(json!({ "mistake": mistake.name, "fails_on": seen }));
    }
    if !unseen.is_empty() {
        return Err(format!("parity does not see: {}", unseen.join("; ")));
    }
    eprintln!("each of {} mistakes makes parity fail", report.len());
    Ok(json!({ "ok": true, "mistakes": report }))
}

impl Mistake {
    /// Edits the copy; gives every touched file with its text before.
    fn make(&self, copy: &Path) -> Outcome<Vec<(PathBuf, String)>> {
        let mut before: Vec<(PathBuf, String)> = Vec::new();
        for edit in &self.edits {
            let file = copy.join(&edit.file);
            let text = read(&file)?;
            let changed = edit.apply(&text).map_err(|why| format!("{}: {why}", self.name))?;
            if !before.iter().any(|(other, _)| *other == file) {
                before.push((file.clone(), text));
            }
            write(&file, &changed)?;
        }
        Ok(before)
    }
}

impl Edit {
    fn apply(&self, text: &str) -> Outcome<String> {
        match text.matches(&self.old).count() {
            1 => Ok(text.replace(&self.old, &self.new)),
            count => Err(format!("`{}` occurs {count} times in {}, not once", self.old, self.file)),
        }
    }
}

/// The mistakes of tests/mistakes.json.
fn list(root: &Path) -> Outcome<Vec<Mistake>> {
    let file = root.join("tests/mistakes.json");
    let value: Value = serde_json::from_str(&read(&file)?).map_err(|e| format!("{}: {e}", file.display()))?;
    let text = |value: &Value, key: &str| value[key].as_str().map(str::to_owned).ok_or(format!("no {key} in {value}"));
    let edit =
        |value: &Value| Ok(Edit { file: text(value, "file")?, old: text(value, "old")?, new: text(value, "new")? });
    let mistake = |value: &Value| {
        let edits = value["edits"].as_array().ok_or(format!("no edits in {value}"))?;
        Ok(Mistake { name: text(value, "mistake")?, edits: edits.iter().map(edit).collect::<Outcome<_>>()? })
    };
    value.as_array().ok_or("tests/mistakes.json is no list")?.iter().map(mistake).collect()
}

/// Every committed fixture with its golden values.
fn fixtures(root: &Path) -> Outcome<Vec<(PathBuf, PathBuf)>> {
    let folder = root.join("tests/fixtures");
    let entries = fs::read_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut found: Vec<(PathBuf, PathBuf)> = entries
        .filter_map(|entry| entry.ok().map(|e| e.path()))
        .map(|path| (path.clone(), path.join("reference.safetensors")))
        .filter(|(path, reference)| reference.exists() && path.to_string_lossy().contains("parity-"))
        .collect();
    found.sort();
    if found.is_empty() { Err(format!("no parity-* fixtures in {}", folder.display())) } else { Ok(found) }
}

/// The engine alone as a workspace of its own: its sources, what it embeds, the lock file.
fn copy_sources(root: &Path, copy: &Path) -> Outcome<()> {
    for folder in ["engine", "assets"] {
        let target = copy.join(folder);
        if target.exists() {
            fs::remove_dir_all(&target).map_err(|e| format!("{}: {e}", target.display()))?;
        }
        copy_folder(&root.join(folder), &target)?;
    }
    let manifest = read(&root.join("Cargo.toml"))?;
    write(&copy.join("Cargo.toml"), &engine_alone(&manifest)?)?;
    write(&copy.join("Cargo.lock"), &read(&root.join("Cargo.lock"))?)
}

/// The workspace's manifest with one member, and without the patches of what it does not need.
fn engine_alone(manifest: &str) -> Outcome<String> {
    let (mut kept, mut table, mut members) = (String::new(), "", 0);
    for line in manifest.lines() {
        if line.starts_with('[') {
            table = line;
        }
        let line = if table == "[workspace]" && line.starts_with("members = ") {
            members += 1;
            r#"members = ["engine"]"#
        } else {
            line
        };
        if table != "[patch.crates-io]" {
            kept.extend([line, "\n"]);
        }
    }
    if members == 1 { Ok(kept) } else { Err("Cargo.toml no longer has one line of members".to_owned()) }
}

fn copy_folder(from: &Path, to: &Path) -> Outcome<()> {
    let error = |e: std::io::Error| format!("copying {} to {}: {e}", from.display(), to.display());
    fs::create_dir_all(to).map_err(error)?;
    for entry in fs::read_dir(from).map_err(error)? {
        let entry = entry.map_err(error)?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            copy_folder(&source, &target)?
        } else {
            fs::copy(&source, &target).map(drop).map_err(error)?
        }
    }
    Ok(())
}

/// Builds the copy, little optimised: its fixtures are tiny and the build is what takes time.
fn build(copy: &Path) -> Outcome<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let target = copy.join("target");
    let output = Command::new(cargo)
        .current_dir(copy)
        .args(["build", "--quiet", "--offline", "-p", "tiller-engine", "--bin", "tiller-parity"])
        .args(["--config", "profile.dev.opt-level=1", "--config", r#"profile.dev.package."*".opt-level=1"#])
        .arg("--target-dir")
        .arg(&target)
        .env("RUSTFLAGS", "-Awarnings")
        .output()
        .map_err(|e| format!("cargo could not be started: {e}"))?;
    match output.status.success() {
        true => Ok(target.join("debug").join(format!("tiller-parity{}", std::env::consts::EXE_SUFFIX))),
        false => Err(format!("the copy does not build:\n{}", String::from_utf8_lossy(&output.stderr))),
    }
}

/// Whether parity holds. A run that ends without a comparison counts as not holding: the mistake broke it.
fn holds(program: &Path, checkpoint: &Path, reference: &Path) -> Outcome<bool> {
    let status = Command::new(program)
        .arg("--checkpoint")
        .arg(checkpoint)
        .arg("--reference")
        .arg(reference)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .map_err(|e| format!("{}: {e}", program.display()))?;
    Ok(status.success())
}

fn read(file: &Path) -> Outcome<String> {
    fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))
}

fn write(file: &Path, text: &str) -> Outcome<()> {
    fs::write(file, text).map_err(|e| format!("{}: {e}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn every_mistake_can_still_be_made() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let mistakes = list(root).unwrap();
        assert!(mistakes.len() >= 30, "{}", mistakes.len());
        for mistake in mistakes {
            let mut texts: HashMap<String, String> = HashMap::new();
            for edit in &mistake.edits {
                let text = texts.entry(edit.file.clone()).or_insert_with(|| read(&root.join(&edit.file)).unwrap());
                let changed = edit.apply(text).unwrap_or_else(|why| panic!("{}: {why}", mistake.name));
                assert_ne!(changed, *text, "{}", mistake.name);
                *text = changed;
            }
        }
    }
}
