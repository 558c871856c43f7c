//! The report for a person: one table, the best of the rounds first and every round beside it. Text only.

use std::fmt::Write;

use super::codec::HOPS;
use super::plugin;
use super::report::{Report, Round};
use super::spread::{Spread, ratio};
use super::stream;

/// Share of all cores' time that others may take before a round counts as disturbed.
const BUSY: f64 = 0.1;

/// Rows of name, best figure, remark.
struct Table {
    text: String,
}

impl Table {
    fn row(&mut self, name: &str, figure: &str, remark: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "{name:<34} {figure:>16}   {remark}");
    }
}

/// The whole table, the machine in its last line.
pub fn table(report: &Report) -> String {
    let mut table = Table { text: String::new() };
    let each = |figure: &dyn Fn(&Round) -> f64| {
        let figures: Vec<String> = report.rounds.iter().map(|round| format!("{:.1}", figure(round))).collect();
        format!("rounds: {}", figures.join(" "))
    };
    table.row("what", "best", "");
    table.row(
        "loading",
        &format!("{:.2} s", report.load_seconds),
        "the first time with few bits, they are rounded and measured too",
    );
    let bandwidth = format!("{:.1} GB/s", report.bandwidth() / 1e9);
    table.row("read bandwidth", &bandwidth, &each(&|round| round.bandwidth / 1e9));
    if report.rounds.iter().any(|round| round.handover.is_some()) {
        let nanoseconds = |round: &Round| round.handover.map_or(0.0, |seconds| seconds * 1e9);
        table.row("  a line from core to core", "", &format!("{}, in ns", each(&nanoseconds)));
    }
    for (index, (kv, bytes)) in report.lengths.iter().enumerate() {
        let rate = format!("{:.1} steps/s", report.steps(index));
        table.row(&format!("decoder, KV {kv}"), &rate, &each(&|round| round.steps[index].per_second));
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        let read = format!(
            "{}; {:.0} MB of weights, {:.0} MB of cache per step",
            each(&|round| 100.0 * round.bandwidth_share(index, bytes).unwrap_or(0.0)),
            megabytes(bytes.weights),
            megabytes(bytes.cache)
        );
        table.row("  of the bandwidth", &percent(report.bandwidth_share(index)), &read);
        for (peer, (name, detail)) in report.peers.iter().enumerate() {
            let rate = format!("{:.1} steps/s", report.peer(peer, index));
            let times = ratio(report.steps(index), report.peer(peer, index)).unwrap_or(0.0);
            let remark = format!("ours is {times:.2}x; {}; {detail}", each(&|round| round.peers[peer][index]));
            table.row(&format!("  {name}"), &rate, &remark);
        }
    }
    for (index, hop) in HOPS.iter().enumerate() {
        let figure = format!("{:.2}x real time", report.codec(index));
        table.row(&format!("codec alone, hop {hop}"), &figure, &each(&|round| round.codec[index]));
    }
    if let Some(stream) = report.stream() {
        rows_of_stream(&mut table, "stream", stream, &each(&|round| round.stream.rtf));
        let directions = if report.made_up_directions { "steered by made-up directions" } else { "steered" };
        let remark = format!(
            "{} frames, {directions}, {} roll-overs, RMS {:.4}",
            stream.spread.count, stream.rollovers, stream.rms
        );
        table.row("  allocations per step", &format!("{:.3}", stream.allocations_per_step), &remark);
        if let Some(resident) = stream.resident {
            table.row("  resident memory", &format!("{:.0} MB", resident as f64 / 1e6), "");
        }
    }
    if let Some(loaded) = report.loaded() {
        let name = format!("beside {} busy threads", report.load);
        let rounds = each(&|round| round.loaded.as_ref().map_or(0.0, |loaded| loaded.rtf));
        rows_of_stream(&mut table, &name, loaded, &rounds);
        table.row("  of the quiet stream", &percent(report.loaded_ratio()), "");
    }
    if let Some(growth) = &report.growth {
        let show = |ratio: Option<f64>| ratio.map_or("not known".to_owned(), |ratio| format!("{ratio:.3}"));
        let remark = format!("{} steps; all of them against second 10: {}", growth.steps, show(growth.ratio_of_all));
        table.row("last minute's steps/s over first windows'", &show(growth.ratio), &remark);
    }
    if let Some(plugin) = &report.plugin {
        rows_of_plugin(&mut table, plugin);
    }
    let stolen: Vec<String> = report
        .rounds
        .iter()
        .map(|round| format!("{:.0}+{:.0}", round.stolen.steal * 1e2, round.stolen.others * 1e2))
        .collect();
    table.row("stolen + other processes", "", &format!("rounds: {} % of all cores' time", stolen.join(" ")));
    let taken = |round: &Round| round.stolen.steal + round.stolen.others;
    if report.rounds.iter().all(|round| taken(round) > BUSY) {
        table.row("THE MACHINE WAS BUSY", "", "no round was undisturbed: these figures are not worth quoting");
    }
    let threads = format!("{} threads (engine {})", report.threads.0, report.threads.1);
    let _ = write!(table.text, "{}, {}, {threads}; {}", report.model, report.precision, report.machine.line());
    table.text
}

fn rows_of_stream(table: &mut Table, name: &str, stream: &stream::Measured, rounds: &str) {
    table.row(name, &format!("{:.2}x real time", stream.rtf), rounds);
    table.row("  frame p50, p95, p99, max", &format!("{:.2} ms", stream.spread.p50), &rest(&stream.spread));
    for (kv, rtf, spread) in stream.near.iter().filter(|(_, _, spread)| spread.count > 0) {
        let remark = format!("p50 {:.2}, {}, {} frames", spread.p50, rest(spread), spread.count);
        table.row(&format!("  near KV {kv}"), &format!("{rtf:.2}x real time"), &remark);
    }
}

fn rest(spread: &Spread) -> String {
    format!("p95 {:.2}, p99 {:.2}, max {:.2} ms", spread.p95, spread.p99, spread.max)
}

fn rows_of_plugin(table: &mut Table, plugin: &plugin::Measured) {
    let found = plugin.found.map_or("not found".to_owned(), |found| format!("{found} samples"));
    table.row(
        "plugin: delay measured",
        &found,
        &format!("reported {} at 32 kHz, tight, blocks of 64", plugin.reported),
    );
    if let Some(knob) = plugin.knob_to_sound {
        table.row("  knob to sound", &format!("{:.1} ms", knob as f64 / 32.0), "moved at a frame's first sample");
    }
    let remark = format!(
        "of a block of 64 at 48 kHz; p99 {:.3} ms of 1.333; {} gaps heard live",
        plugin.process.p99, plugin.gaps
    );
    table.row("  process()", &format!("{:.2} %", plugin.process_share() * 1e2), &remark);
}

fn percent(share: Option<f64>) -> String {
    share.map_or("not known".to_owned(), |share| format!("{:.1} %", share * 1e2))
}

#[cfg(test)]
mod tests {
    use crate::bench::report::tests::example;

    #[test]
    fn every_figure_has_its_unit_and_the_machine_comes_last() {
        let text = super::table(&example());
        for part in
            ["50.0 GB/s", "100.0 steps/s", "80.0 %", "ours is 4.00x", "2.00x real time", "50.0 %", "25+50", "BUSY"]
        {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        assert!(text.lines().last().is_some_and(|line| line.contains("a processor") && line.contains("today")));
    }
}
