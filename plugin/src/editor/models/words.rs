//! Sizes, speeds, times and how a work goes, in words for a musician. Pure text.

use std::time::Duration;

use tiller_engine::background::{Report, Standing, Unit};
use tiller_engine::precision::Precision;

/// "31 MB", "2.36 GB": decimal, as file managers and hubs count.
pub fn bytes(count: u64) -> String {
    const UNITS: [(f64, &str); 3] = [(1e9, "GB"), (1e6, "MB"), (1e3, "kB")];
    let count = count as f64;
    match UNITS.into_iter().find(|(one, _)| count >= *one) {
        Some((one, name)) if count / one < 10.0 && name == "GB" => format!("{:.2} {name}", count / one),
        Some((one, name)) if count / one < 10.0 => format!("{:.1} {name}", count / one),
        Some((one, name)) => format!("{:.0} {name}", count / one),
        None => format!("{count:.0} bytes"),
    }
}

/// "12 s", "4 min", "1 h 20 min": no more exact than an estimate is.
pub fn time(left: Duration) -> String {
    let seconds = left.as_secs_f64().ceil() as u64;
    match seconds {
        0..=99 => format!("{seconds} s"),
        100..=5_999 => format!("{} min", seconds.div_ceil(60)),
        _ => {
            let minutes = seconds.div_ceil(60);
            format!("{} h {} min", minutes / 60, minutes % 60)
        }
    }
}

/// What is under way and how far it is.
pub fn progress(report: &Report) -> String {
    let mut parts = vec![if report.stage.is_empty() { "beginning".to_owned() } else { report.stage.clone() }];
    if report.all > 0 {
        parts.push(match report.unit {
            Unit::Bytes => format!("{} of {}", bytes(report.done), bytes(report.all)),
            Unit::Items => format!("{} of {}", report.done, report.all),
        });
    }
    match report.standing {
        Standing::Paused => parts.push("paused".to_owned()),
        Standing::Running => {
            if report.unit == Unit::Bytes && report.per_second > 0.0 {
                parts.push(format!("{}/s", bytes(report.per_second as u64)));
            }
            if let Some(left) = report.left.filter(|left| !left.is_zero()) {
                parts.push(format!("{} left", time(left)));
            }
        }
        _ => {}
    }
    parts.join(", ")
}

/// How far a work is, 0 to 1.
pub fn part(report: &Report) -> f32 {
    if report.all == 0 { 0.0 } else { (report.done as f64 / report.all as f64).clamp(0.0, 1.0) as f32 }
}

/// A precision as musicians read it.
pub fn bits(precision: Option<Precision>) -> &'static str {
    match precision {
        None => "auto",
        Some(Precision::F32) => "exact",
        Some(Precision::Bf16) => "16 bit",
        Some(Precision::Int8) => "8 bit",
        Some(Precision::Int4) => "4 bit",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tiller_engine::background::Kind;

    #[test]
    fn sizes_and_times_are_short() {
        let sizes = [0, 999, 1_500, 31_000_000, 2_364_000_000, 13_700_000_000].map(bytes);
        assert_eq!(sizes, ["0 bytes", "999 bytes", "1.5 kB", "31 MB", "2.36 GB", "14 GB"]);
        let times = [0.2, 99.0, 100.0, 3_600.0, 6_001.0].map(|seconds| time(Duration::from_secs_f64(seconds)));
        assert_eq!(times, ["1 s", "99 s", "2 min", "60 min", "1 h 41 min"]);
    }

    #[test]
    fn a_work_says_how_far_it_is() {
        let mut report = Report {
            kind: Kind::Download,
            subject: "small".into(),
            stage: "downloading".into(),
            done: 500_000_000,
            all: 2_000_000_000,
            unit: Unit::Bytes,
            per_second: 1.2e7,
            left: Some(Duration::from_secs(125)),
            standing: Standing::Running,
        };
        assert_eq!(progress(&report), "downloading, 500 MB of 2.00 GB, 12 MB/s, 3 min left");
        assert_eq!(part(&report), 0.25);
        report.standing = Standing::Paused;
        assert_eq!(progress(&report), "downloading, 500 MB of 2.00 GB, paused");
        (report.all, report.unit, report.standing) = (0, Unit::Items, Standing::Running);
        (report.stage, report.left) = (String::new(), None);
        assert_eq!(progress(&report), "beginning");
    }
}
