//! All figures of a run and what follows from them: the best of the rounds, ratios between things measured in the same
//! run, one JSON object. Arithmetic only.

use serde_json::{Value, json};

use super::byte_count::StepBytes;
use super::codec::{HEADLINE_HOP, HOPS};
use super::growth::Growth;
use super::machine::Machine;
use super::plugin;
use super::spread::{best, ratio};
use super::steps;
use super::stolen::Stolen;
use super::stream;

/// What one round measured, in the order of the lengths, hops and peers of the report.
#[derive(Clone, Debug, Default)]
pub struct Round {
    /// Bytes per second that the probe read.
    pub bandwidth: f64,
    /// Seconds that a cache line took from core to core when the probe read fastest.
    pub handover: Option<f64>,
    /// Ours, by cache length.
    pub steps: Vec<steps::Measured>,
    /// Theirs: steps per second by peer, then by cache length.
    pub peers: Vec<Vec<f64>>,
    /// Real-time factor by hop.
    pub codec: Vec<f64>,
    /// The stream on the machine as it is.
    pub stream: stream::Measured,
    /// The stream beside busy threads.
    pub loaded: Option<stream::Measured>,
    /// What the machine did besides us.
    pub stolen: Stolen,
}

impl Round {
    /// What its steps read per second over what its own probe did: memory may change its pace from one round to the next.
    pub fn bandwidth_share(&self, length: usize, bytes: &StepBytes) -> Option<f64> {
        ratio(bytes.total() as f64 * self.steps.get(length)?.per_second, self.bandwidth)
    }
}

/// A whole run.
#[derive(Clone, Debug)]
pub struct Report {
    /// Where and when.
    pub machine: Machine,
    /// Shape or directory.
    pub model: String,
    /// Format of the packed weights.
    pub precision: &'static str,
    /// Threads asked for, which the probe and the peers use, and those that our step uses.
    pub threads: (usize, usize),
    /// The note directions are made up.
    pub made_up_directions: bool,
    /// What loading took, from the files that the system has read before or not, and from packed weights where there are any.
    pub load_seconds: f64,
    /// Positions of the play window.
    pub window: usize,
    /// Cache lengths, the headline's first, and what a step reads there.
    pub lengths: Vec<(usize, StepBytes)>,
    /// Name and detail of each peer.
    pub peers: Vec<(&'static str, String)>,
    /// Busy threads of the loaded stream.
    pub load: usize,
    /// Every round.
    pub rounds: Vec<Round>,
    /// The long run.
    pub growth: Option<Growth>,
    /// The plugin in a host.
    pub plugin: Option<plugin::Measured>,
}

impl Report {
    /// Best bandwidth, bytes per second.
    pub fn bandwidth(&self) -> f64 {
        best(self.rounds.iter().map(|round| round.bandwidth))
    }

    /// Best steps per second at the cache length of this index.
    pub fn steps(&self, length: usize) -> f64 {
        best(self.rounds.iter().filter_map(|round| Some(round.steps.get(length)?.per_second)))
    }

    /// What the best steps read per second over what the best probe did: both are the least disturbed, so the share is not
    /// flattered by a probe that was.
    pub fn bandwidth_share(&self, length: usize) -> Option<f64> {
        let (_, bytes) = self.lengths.get(length)?;
        ratio(bytes.total() as f64 * self.steps(length), self.bandwidth())
    }

    /// Best steps per second of a peer.
    pub fn peer(&self, peer: usize, length: usize) -> f64 {
        best(self.rounds.iter().filter_map(|round| round.peers.get(peer)?.get(length).copied()))
    }

    /// Best real-time factor of the codec at a hop's index.
    pub fn codec(&self, hop: usize) -> f64 {
        best(self.rounds.iter().filter_map(|round| round.codec.get(hop).copied()))
    }

    /// The round whose stream was the fastest: all stream figures are its.
    pub fn stream(&self) -> Option<&stream::Measured> {
        self.rounds.iter().map(|round| &round.stream).max_by(|a, b| a.rtf.total_cmp(&b.rtf))
    }

    /// As `stream`, beside the load.
    pub fn loaded(&self) -> Option<&stream::Measured> {
        self.rounds.iter().filter_map(|round| round.loaded.as_ref()).max_by(|a, b| a.rtf.total_cmp(&b.rtf))
    }

    /// Real-time factor beside the load over that without.
    pub fn loaded_ratio(&self) -> Option<f64> {
        ratio(self.loaded()?.rtf, self.stream()?.rtf)
    }

    /// The one JSON object. What was not measured is null.
    pub fn json(&self) -> Value {
        let stream = self.stream();
        json!({
            "ok": true,
            "model": self.model, "precision": self.precision,
            "threads": self.threads.0, "engine_threads": self.threads.1, "load": self.load,
            "load_s": self.load_seconds, "window": self.window, "made_up_directions": self.made_up_directions,
            "machine": self.machine.report(),
            "bandwidth_bytes_per_s": self.bandwidth(),
            "decoder_steps_per_s": self.steps(0),
            "bandwidth_share": self.bandwidth_share(0),
            "decoder": (0..self.lengths.len()).map(|length| self.decoder_json(length)).collect::<Value>(),
            "codec_rtf": HOPS.iter().position(|hop| *hop == HEADLINE_HOP).map(|hop| self.codec(hop)),
            "codec": HOPS.iter().enumerate().map(|(at, hop)| json!({ "hop": hop, "rtf": self.codec(at) })).collect::<Value>(),
            "stream_rtf": stream.map(|stream| stream.rtf),
            "frame_p99_ms": stream.map(|stream| stream.spread.p99),
            "allocations_per_step": stream.map(|stream| stream.allocations_per_step),
            "stream": stream.map(stream::Measured::report),
            "loaded_ratio": self.loaded_ratio(),
            "loaded_stream": self.loaded().map(stream::Measured::report),
            "peers": (0..self.peers.len()).map(|peer| self.peer_json(peer)).collect::<Value>(),
            "growth_ratio": self.growth.as_ref().and_then(|growth| growth.ratio),
            "growth": self.growth.as_ref().map(Growth::report),
            "latency_reported_samples": self.plugin.map(|plugin| plugin.reported),
            "latency_measured_samples": self.plugin.and_then(|plugin| plugin.found),
            "process_share": self.plugin.map(|plugin| plugin.process_share()),
            "plugin": self.plugin.map(|plugin| plugin.report()),
            "rounds": self.rounds.iter().map(|round| self.round_json(round)).collect::<Value>(),
        })
    }

    fn decoder_json(&self, length: usize) -> Value {
        let (kv, bytes) = self.lengths[length];
        let measured = self.rounds.iter().filter_map(|round| round.steps.get(length));
        let fastest = measured.max_by(|a, b| a.per_second.total_cmp(&b.per_second));
        json!({
            "kv": kv, "steps_per_s": self.steps(length),
            "step": fastest.map(|steps| steps.spread.report()),
            "weight_bytes": bytes.weights, "cache_bytes": bytes.cache,
            "bandwidth_share": self.bandwidth_share(length),
        })
    }

    fn peer_json(&self, peer: usize) -> Value {
        let (name, detail) = &self.peers[peer];
        let at = |length: usize| {
            let theirs = self.peer(peer, length);
            json!({ "kv": self.lengths[length].0, "steps_per_s": theirs, "ratio": ratio(self.steps(length), theirs) })
        };
        json!({
            "name": name, "detail": detail,
            "steps_per_s": self.peer(peer, 0), "ratio": ratio(self.steps(0), self.peer(peer, 0)),
            "by_kv": (0..self.lengths.len()).map(at).collect::<Value>(),
        })
    }

    fn round_json(&self, round: &Round) -> Value {
        let peers = self.peers.iter().zip(&round.peers);
        json!({
            "bandwidth_bytes_per_s": round.bandwidth,
            "handover_seconds": round.handover,
            "steps_per_s": round.steps.iter().map(|steps| steps.per_second).collect::<Value>(),
            "peers": peers.map(|((name, _), rates)| json!({ "name": name, "steps_per_s": rates })).collect::<Value>(),
            "codec_rtf": round.codec,
            "stream": round.stream.report(),
            "loaded_stream": round.loaded.as_ref().map(stream::Measured::report),
            "steal_share": round.stolen.steal, "others_share": round.stolen.others,
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Two rounds with round figures; the second is the better one but for the probe.
    pub(crate) fn example() -> Report {
        let round = |bandwidth: f64, speed: f64| Round {
            bandwidth,
            handover: Some(2e-7),
            steps: vec![steps::Measured { per_second: speed, ..Default::default() }],
            peers: vec![vec![speed / 4.0]],
            codec: vec![speed / 10.0; HOPS.len()],
            stream: stream::Measured { rtf: speed / 50.0, ..Default::default() },
            loaded: Some(stream::Measured { rtf: speed / 100.0, ..Default::default() }),
            stolen: Stolen { steal: 0.25, others: 0.5 },
        };
        let machine = Machine {
            processor: "a processor".to_owned(),
            cores: 2,
            path: "AVX2".to_owned(),
            date: "today".to_owned(),
        };
        Report {
            machine,
            model: "small".to_owned(),
            precision: "f32",
            threads: (2, 1),
            made_up_directions: true,
            load_seconds: 1.5,
            window: 1500,
            lengths: vec![(500, StepBytes { weights: 300_000_000, cache: 100_000_000 })],
            peers: vec![("torch", "torch 2".to_owned())],
            load: 1,
            rounds: vec![round(50e9, 80.0), round(40e9, 100.0)],
            growth: None,
            plugin: None,
        }
    }

    #[test]
    fn the_best_of_the_rounds_is_reported_and_all_are_listed() {
        let report = example().json();
        assert_eq!(report["decoder_steps_per_s"], 100.0);
        // 400 MB x 100 over the better probe.
        assert_eq!(report["bandwidth_share"], 0.8);
        assert_eq!(report["peers"][0]["ratio"], 4.0);
        assert_eq!((&report["stream_rtf"], &report["loaded_ratio"]), (&json!(2.0), &json!(0.5)));
        assert_eq!(report["rounds"][0]["steps_per_s"][0], 80.0);
        assert!(report["growth_ratio"].is_null() && report["process_share"].is_null());
    }

    #[test]
    fn the_keys_of_the_contract_are_there() {
        let report = example().json();
        for key in [
            "decoder_steps_per_s",
            "stream_rtf",
            "codec_rtf",
            "frame_p99_ms",
            "bandwidth_share",
            "peers",
            "growth_ratio",
            "allocations_per_step",
            "latency_reported_samples",
            "latency_measured_samples",
            "process_share",
            "loaded_ratio",
        ] {
            assert!(report.get(key).is_some(), "{key}");
        }
    }
}
