//! What a figure was measured on: processor, cores, instruction path, date. Main thread.

use serde_json::{Value, json};
use tiller_engine::models::machine;

/// The machine and the day.
#[derive(Clone, Debug)]
pub struct Machine {
    /// As /proc/cpuinfo names it.
    pub processor: String,
    /// Threads that the system lets this process use.
    pub cores: usize,
    /// What the engine's dispatch finds on it.
    pub path: String,
    /// Year, month, day, UTC.
    pub date: String,
}

impl Machine {
    /// This one, today.
    pub fn here() -> Self {
        Self {
            processor: machine::processor(),
            cores: machine::threads(),
            path: instruction_path(),
            date: machine::today(),
        }
    }

    /// As JSON.
    pub fn report(&self) -> Value {
        json!({ "processor": self.processor, "cores": self.cores, "path": self.path, "date": self.date })
    }

    /// One line for a person.
    pub fn line(&self) -> String {
        format!("{}, {} cores, {}, {}", self.processor, self.cores, self.path, self.date)
    }
}

/// The features that kernels choose by, the widest first.
fn instruction_path() -> String {
    #[cfg(target_arch = "x86_64")]
    {
        let features = [
            ("AVX-512", is_x86_feature_detected!("avx512f")),
            ("VNNI", is_x86_feature_detected!("avx512vnni")),
            ("BF16", is_x86_feature_detected!("avx512bf16")),
            ("AVX-VNNI", is_x86_feature_detected!("avxvnni")),
            ("AVX2", is_x86_feature_detected!("avx2") && !is_x86_feature_detected!("avx512f")),
        ];
        let found: Vec<&str> = features.into_iter().filter_map(|(name, has)| has.then_some(name)).collect();
        if !found.is_empty() {
            return found.join(" ");
        }
    }
    format!("portable {}", std::env::consts::ARCH)
}
