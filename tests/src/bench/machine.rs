//! What a figure was measured on: processor, cores, instruction path, date. Main thread.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

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
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let name = info.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split_once(':'));
        let days = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() / 86_400);
        let (year, month, day) = date(days as i64);
        Self {
            processor: name.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            path: instruction_path(),
            date: format!("{year:04}-{month:02}-{day:02}"),
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

/// Year, month and day of a day since 1970-01-01, after Howard Hinnant's `civil_from_days`.
fn date(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + 400 * era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_dates() {
        assert_eq!(date(0), (1970, 1, 1));
        assert_eq!(date(11_016), (2000, 2, 29));
        assert_eq!(date(20_782), (2026, 11, 25));
    }
}
