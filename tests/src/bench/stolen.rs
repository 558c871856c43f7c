//! What the machine did besides us between two moments: time that its host kept (steal) and time of other processes, out of
//! /proc. Main thread; zeros where there is no /proc.

use std::fs;

/// Ticks since boot, of all cores together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Ticks {
    busy: u64,
    stolen: u64,
    total: u64,
}

/// A moment.
#[derive(Clone, Debug, Default)]
pub struct Moment {
    machine: Ticks,
    /// User and system ticks of our own processes.
    own: u64,
}

/// Shares of all cores' time between two moments, 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stolen {
    /// Kept by the hypervisor.
    pub steal: f64,
    /// Used by processes that are not ours.
    pub others: f64,
}

impl Moment {
    /// Now; `children` are processes that count as ours, as peers do.
    pub fn now(children: &[u32]) -> Self {
        let machine = fs::read_to_string("/proc/stat").ok().and_then(|text| machine_ticks(&text)).unwrap_or_default();
        let ticks = |process: String| {
            fs::read_to_string(format!("/proc/{process}/stat")).ok().and_then(|text| process_ticks(&text)).unwrap_or(0)
        };
        let own = ticks("self".to_owned()) + children.iter().map(|id| ticks(id.to_string())).sum::<u64>();
        Self { machine, own }
    }

    /// What happened since `earlier`.
    pub fn since(&self, earlier: &Self) -> Stolen {
        let total = self.machine.total.saturating_sub(earlier.machine.total);
        if total == 0 {
            return Stolen::default();
        }
        let share = |ticks: u64| ticks as f64 / total as f64;
        let busy = self.machine.busy.saturating_sub(earlier.machine.busy);
        Stolen {
            steal: share(self.machine.stolen.saturating_sub(earlier.machine.stolen)),
            others: share(busy.saturating_sub(self.own.saturating_sub(earlier.own))),
        }
    }
}

/// The first line of /proc/stat: user, nice, system, idle, iowait, irq, softirq, steal; guest time is in user's already.
fn machine_ticks(text: &str) -> Option<Ticks> {
    let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let columns: Vec<u64> = line.split_whitespace().map_while(|number| number.parse().ok()).collect();
    let [user, nice, system, idle, iowait, irq, softirq, steal] = *columns.first_chunk::<8>()?;
    let busy = user + nice + system + irq + softirq;
    Some(Ticks { busy, stolen: steal, total: busy + idle + iowait + steal })
}

/// User and system ticks out of /proc/PID/stat: fields 14 and 15; the name in brackets may hold spaces and brackets.
fn process_ticks(text: &str) -> Option<u64> {
    let (_, behind_name) = text.rsplit_once(')')?;
    let mut fields = behind_name.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    Some(ticks()? + ticks()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "cpu  1000 200 300 5000 40 5 15 440 7 0\ncpu0 500 100 150 2500 20 2 8 220 3 0\nctxt 99\n";

    #[test]
    fn steal_and_others_are_shares_of_all_time() {
        let ticks = machine_ticks(STAT).unwrap();
        assert_eq!(ticks, Ticks { busy: 1520, stolen: 440, total: 7000 });
        let earlier = Moment { machine: ticks, own: 100 };
        let later = machine_ticks("cpu  1060 240 300 5060 40 5 15 480\n").unwrap();
        let stolen = Moment { machine: later, own: 150 }.since(&earlier);
        // 200 ticks went by: 100 busy of which 50 ours, 40 stolen, 60 idle.
        assert_eq!(stolen, Stolen { steal: 0.2, others: 0.25 });
        assert_eq!(earlier.since(&earlier), Stolen::default());
    }

    #[test]
    fn damaged_text_is_nothing() {
        assert_eq!(machine_ticks("cpu  1 2 3\n"), None);
        assert_eq!(machine_ticks("intr 5\n"), None);
    }

    #[test]
    fn a_name_with_brackets_hides_no_field() {
        let text = "4242 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 700 35 0 0 20 0 3 0 99";
        assert_eq!(process_ticks(text), Some(735));
    }
}
