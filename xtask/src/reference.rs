//! `cargo xtask reference`: golden values from Hugging Face transformers, in a Python environment of its own
//! (tests/python/reference). Nothing else needs that environment: the tests read files that this command has made.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::Outcome;
use crate::cargo::{Workspace, succeeded};
use crate::setup;

/// Layout of the checkpoint's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Layout {
    /// As transformers writes it now.
    Today,
    /// As the published checkpoints have it.
    #[value(name = "2023")]
    Published,
}

/// Number format of the weights. The golden values are f32, from exactly the rounded weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Dtype {
    F32,
    F16,
    Bf16,
}

/// What `reference` can be told.
#[derive(clap::Args)]
pub struct Options {
    /// A config.json of MusicGen form (tests/shapes has some); a random checkpoint of this shape is made.
    #[arg(long, required_unless_present = "from")]
    config: Option<PathBuf>,
    /// Make no checkpoint: compute with the one in this folder.
    #[arg(long, conflicts_with_all = ["config", "layout", "dtype", "shard_size", "no_generation_config"])]
    from: Option<PathBuf>,
    /// Folder for the checkpoint and reference.safetensors.
    #[arg(long)]
    out: PathBuf,
    /// Seed of the weights and of the inputs.
    #[arg(long, default_value_t = 1)]
    seed: u32,
    /// Layout of the files; the numbers in them are the same.
    #[arg(long, value_enum, default_value_t = Layout::Today)]
    layout: Layout,
    /// Number format of the weights.
    #[arg(long, value_enum, default_value_t = Dtype::F32)]
    dtype: Dtype,
    /// Largest size of one weight file, as "300KB" or "5GB".
    #[arg(long)]
    shard_size: Option<String>,
    /// Leave generation_config.json out.
    #[arg(long)]
    no_generation_config: bool,
    /// Positions after BOS in the pass that gives logits and hidden states.
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(8..))]
    positions: u32,
    /// Frames decoded greedily with guidance.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..))]
    greedy_frames: u32,
    /// The prompt.
    #[arg(long, default_value = "slow warm strings pad")]
    prompt: String,
    /// Threads for torch; all cores when absent.
    #[arg(long)]
    threads: Option<u32>,
}

impl Options {
    /// The Python program's arguments. Paths are made absolute, since it may run anywhere.
    fn arguments(&self) -> Outcome<Vec<OsString>> {
        let absolute = |path: &Path| std::path::absolute(path).map_err(|e| format!("{}: {e}", path.display()));
        let mut line: Vec<OsString> = Vec::new();
        let mut add = |name: &str, value: OsString| line.extend([OsString::from(name), value]);
        match (&self.from, &self.config) {
            (Some(from), _) => add("--from", absolute(from)?.into()),
            (None, Some(config)) => {
                add("--config", absolute(config)?.into());
                add("--layout", if self.layout == Layout::Today { "today" } else { "2023" }.into());
                let dtype = match self.dtype {
                    Dtype::F32 => "f32",
                    Dtype::F16 => "f16",
                    Dtype::Bf16 => "bf16",
                };
                add("--dtype", dtype.into());
                if let Some(size) = &self.shard_size {
                    add("--shard-size", size.into());
                }
            }
            (None, None) => return Err("give --config FILE or --from DIR".to_owned()),
        }
        add("--out", absolute(&self.out)?.into());
        add("--seed", self.seed.to_string().into());
        add("--positions", self.positions.to_string().into());
        add("--greedy-frames", self.greedy_frames.to_string().into());
        add("--prompt", (&self.prompt).into());
        if let Some(threads) = self.threads {
            add("--threads", threads.to_string().into());
        }
        if self.no_generation_config {
            line.push("--no-generation-config".into());
        }
        Ok(line)
    }
}

/// Runs transformers. The report names the files and says how the checkpoint is conditioned.
pub fn run(workspace: &Workspace, options: &Options) -> Outcome<Value> {
    for file in [options.config.as_deref().map(Path::to_path_buf), options.from.as_ref().map(|f| f.join("config.json"))]
    {
        if let Some(file) = file.filter(|file| !file.is_file()) {
            return Err(format!("{} does not exist", file.display()));
        }
    }
    let arguments = options.arguments()?;
    let python = setup::model_environment(workspace)?;
    let program = workspace.root.join("tests/python/reference/main.py");
    let output = Command::new(&python)
        .arg(&program)
        .args(&arguments)
        // Spinning threads of a waiting torch would take the cores from everything else.
        .env("OMP_WAIT_POLICY", "passive")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("HF_HUB_OFFLINE", "1")
        .stderr(Stdio::inherit())
        .output();
    let (status, stdout) = match output {
        Ok(output) => (Ok(output.status), output.stdout),
        Err(e) => (Err(e), Vec::new()),
    };
    succeeded(status, &format!("{} {}", python.display(), program.display()))?;
    let report: Value = serde_json::from_slice(&stdout)
        .map_err(|e| format!("{} gave no JSON ({e}): {}", program.display(), String::from_utf8_lossy(&stdout)))?;
    eprintln!("reference: {}", report["reference"].as_str().unwrap_or_default());
    Ok(report)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn parse(line: &[&str]) -> Result<Vec<String>, String> {
        let line = Line::try_parse_from([&["reference"], line].concat()).map_err(|e| e.to_string())?;
        let arguments = line.options.arguments()?;
        Ok(arguments.into_iter().map(|a| a.to_string_lossy().into_owned()).collect())
    }

    #[test]
    fn options_reach_the_program() {
        let line = ["--config", "/a.json", "--out", "/b", "--seed", "7", "--layout", "2023", "--dtype", "bf16"];
        let found = parse(&[&line[..], &["--shard-size", "9KB", "--no-generation-config"]].concat()).unwrap();
        for pair in
            [["--config", "/a.json"], ["--out", "/b"], ["--seed", "7"], ["--layout", "2023"], ["--dtype", "bf16"]]
        {
            assert!(found.windows(2).any(|two| two == pair), "{pair:?} in {found:?}");
        }
        assert!(found.windows(2).any(|two| two == ["--shard-size", "9KB"]));
        assert!(found.contains(&"--no-generation-config".to_owned()));
    }

    #[test]
    fn an_existing_folder_takes_no_shape() {
        assert!(parse(&["--out", "/b"]).is_err());
        assert!(parse(&["--from", "/a", "--config", "/c.json", "--out", "/b"]).is_err());
        assert!(parse(&["--from", "/a", "--layout", "2023", "--out", "/b"]).is_err());
        let found = parse(&["--from", "/a", "--out", "/b"]).unwrap();
        assert!(found.contains(&"--from".to_owned()) && !found.contains(&"--layout".to_owned()), "{found:?}");
    }

    #[test]
    fn relative_paths_become_absolute() {
        let found = parse(&["--config", "a.json", "--out", "b"]).unwrap();
        let after = |name: &str| Path::new(&found[found.iter().position(|a| a == name).unwrap() + 1]).is_absolute();
        assert!(after("--config") && after("--out"));
    }
}
