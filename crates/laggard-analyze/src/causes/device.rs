//! What slow ranks' accelerators told of themselves. Nothing here names anybody: signs are put to
//! findings that stand without them, and only those that peers do not show alike.

use super::Evidence;
use super::placement::far_adapter;
use super::words::rank_list;
use crate::devices::{Devices, Steadiness, Window};
use crate::sign::{Sign, SignKind};
use crate::{Cause, Confidence, Culprit, Finding};
use laggard_stats::median;
use laggard_types::{Caveat, CaveatCode, ClockReason, Gauge};
use std::collections::BTreeMap;

/// A reason for slow clocks counts if more of the readings name it than do not.
const MOST: f64 = 0.5;
/// A reason counts beside that of peers if so much more of the readings name it.
const BEYOND_PEERS: f64 = 0.25;
/// Limits of power that differ by less are one: they are set in whole watts.
const SAME_LIMIT: f64 = 0.99;
/// A counter counts beside those of peers if it went up so many times as far.
const TIMES_PEERS: f64 = 2.0;
/// Of ranks that are slow together so many must show a sign.
const NEARLY_ALL: f64 = 0.75;

/// Puts signs to findings about slow ranks, and withholds those about accelerators that were not
/// steady. Gives the doubts that go with that.
pub(crate) fn explain(evidence: &Evidence<'_>, found: &mut [Finding]) -> Vec<Caveat> {
    let mut caveats = Vec::new();
    for finding in found {
        let is_network = finding.cause == Cause::SlowLink;
        let is_of_set_up = matches!(finding.cause, Cause::Binding | Cause::CpuQuota);
        let is_compute = finding.cause.is_slow_device();
        let ranks = evidence.ranks_of(&finding.culprit);
        let is_asked = is_compute || is_network || is_of_set_up;
        if !is_asked || ranks.is_empty() || !evidence.is_on_accelerators(&ranks) {
            continue;
        }
        let look = Look {
            evidence,
            devices: evidence.devices,
            window: window(evidence, finding.onset.map(|onset| onset.step)),
        };
        let signs = look.common_signs(&ranks);
        let named = |sign: &&Sign| match is_network {
            true => !sign.kind.slows_computing(),
            false => sign.kind.slows_computing(),
        };
        let words: Vec<&str> = signs
            .iter()
            .filter(named)
            .map(|it| it.words.as_str())
            .collect();
        if !words.is_empty() {
            let words = words.join(", ");
            finding.summary = format!("{}; GPU: {words}", finding.summary);
        }
        if let Some(first) = signs.iter().find(named) {
            finding.advice = format!("{}; then {}", first.kind.advice(), finding.advice);
        }
        let line = |sign: &Sign| format!("GPU of rank {}: {}", sign.rank, sign.words);
        finding.evidence.extend(signs.iter().map(line));
        let far = |rank: &usize| far_adapter(&evidence.manifest.ranks, *rank);
        finding.evidence.extend(ranks.iter().find_map(far));
        finding.signs = signs;
        caveats.extend(look.not_visible(&ranks));
        if is_compute {
            caveats.extend(look.withhold(finding, &ranks));
        }
    }
    caveats
}

/// Which of these ranks have accelerators that show, while the rank is slow, what slows computing.
pub(super) fn slowed(evidence: &Evidence<'_>, ranks: &[usize]) -> Vec<usize> {
    let is_slowed = |rank: &usize| {
        let look = Look {
            evidence,
            devices: evidence.devices,
            window: window(evidence, evidence.onset(*rank).map(|onset| onset.step)),
        };
        let signs = look.signs(*rank, ranks);
        signs.iter().any(|sign| sign.kind.slows_computing())
    };
    ranks.iter().copied().filter(is_slowed).collect()
}

/// The time from a step on, or all that was measured.
fn window(evidence: &Evidence<'_>, onset: Option<u32>) -> Window {
    let measured = evidence.inputs.measured;
    let first = onset.and_then(|step| measured.step_numbers.iter().position(|it| *it >= step));
    let begins = &measured.begin_ns;
    let begin = begins[first.unwrap_or(0)];
    let last = begins.len() - 1;
    let end = begins[last] + (measured.step_time[last] * 1e9) as i64;
    begin..=end
}

/// A look at accelerators in a window.
struct Look<'a> {
    evidence: &'a Evidence<'a>,
    devices: &'a Devices,
    window: Window,
}

impl Look<'_> {
    /// The signs of one rank; of several those of the kinds that nearly all show, each as the first
    /// rank with it shows it.
    fn common_signs(&self, ranks: &[usize]) -> Vec<Sign> {
        let of_ranks: Vec<Vec<Sign>> = ranks.iter().map(|rank| self.signs(*rank, ranks)).collect();
        let mut with: BTreeMap<SignKind, Vec<&[Sign]>> = BTreeMap::new();
        for signs in &of_ranks {
            for of_kind in signs.chunk_by(|a, b| a.kind == b.kind) {
                with.entry(of_kind[0].kind).or_default().push(of_kind);
            }
        }
        let is_common =
            |of_kind: &Vec<&[Sign]>| of_kind.len() as f64 >= NEARLY_ALL * ranks.len() as f64;
        let common = with.into_values().filter(is_common);
        common.flat_map(|of_kind| of_kind[0].to_vec()).collect()
    }

    fn signs(&self, rank: usize, slow: &[usize]) -> Vec<Sign> {
        let subject = Subject::new(self, rank, slow);
        let held_back = subject.held_back();
        let clock = subject.low_clock(!held_back.is_empty());
        let all = held_back
            .into_iter()
            .map(|words| (SignKind::ClocksHeldBack, words))
            .chain(clock.map(|words| (SignKind::LowClock, words)))
            .chain(subject.pcie().map(|words| (SignKind::Pcie, words)))
            .chain(
                subject
                    .replays()
                    .map(|words| (SignKind::PcieReplays, words)),
            )
            .chain(subject.rows().map(|words| (SignKind::RowRemap, words)))
            .chain(
                subject
                    .errors()
                    .map(|words| (SignKind::MemoryErrors, words)),
            )
            .chain(subject.xid().map(|words| (SignKind::Xid, words)))
            .chain(subject.nvlinks().map(|words| (SignKind::Nvlink, words)))
            .chain(subject.ports().map(|words| (SignKind::Ports, words)));
        let sign = |(kind, words)| Sign {
            rank: rank as u32,
            kind,
            words,
        };
        all.map(sign).collect()
    }

    /// What of these ranks' accelerators could not be seen.
    fn not_visible(&self, ranks: &[usize]) -> Option<Caveat> {
        let is_dark = |rank: &usize| !self.devices.is_visible(*rank);
        let dark: Vec<usize> = ranks.iter().copied().filter(is_dark).collect();
        let message = if !dark.is_empty() {
            let known = &self.evidence.manifest.ranks[dark[0]].accelerator;
            let why = known.as_ref().and_then(|it| it.not_visible.first());
            let why = why.map_or(String::new(), |why| format!(": {why}"));
            format!(
                "the state of the GPUs of {} was not visible{why}; whether heat, power or errors \
                 slow them is not known",
                rank_list(&dark)
            )
        } else {
            let rank = *ranks.first()?;
            let hidden = [
                (Gauge::ClockReasons, "what slows its clocks"),
                (Gauge::SmClock, "its clock"),
                (Gauge::Temperature, "its temperature"),
                (Gauge::PowerLimit, "its power limit"),
                (Gauge::EccUncorrected, "errors of its memory"),
                (Gauge::PcieWidth, "its PCIe link"),
            ];
            let is_hidden = |(gauge, _): &&(Gauge, &str)| !self.devices.shows(rank, *gauge);
            let hidden: Vec<&str> = hidden.iter().filter(is_hidden).map(|(_, it)| *it).collect();
            if hidden.is_empty() {
                return None;
            }
            let hidden = hidden.join(", ");
            format!("not visible of the GPU of rank {rank}: {hidden}; that says nothing of it")
        };
        Some(Caveat::new(CaveatCode::NotVisible, message))
    }

    /// Takes a verdict back where accelerators were not steady.
    fn withhold(&self, finding: &mut Finding, ranks: &[usize]) -> Option<Caveat> {
        // A third of the smallest excess that is named: so much of it may be the clock's.
        let clock = self.evidence.thresholds.excess / 3.0;
        let mut few = None;
        for rank in ranks {
            match self.devices.steadiness(*rank, &self.window, clock) {
                Steadiness::NotSteady(what) => return Some(take_back(finding, *rank, &what)),
                Steadiness::TooFew(what) => few = few.or(Some((rank, what))),
                Steadiness::Steady | Steadiness::NotVisible => {}
            }
        }
        let (rank, what) = few?;
        let message = format!(
            "the GPU of rank {rank} may not have been steady: {what} while steps were measured, \
             too few to tell; run more --steps"
        );
        Some(Caveat::new(CaveatCode::NotVisible, message))
    }
}

/// Names nobody for what a GPU that was not steady may have done.
fn take_back(finding: &mut Finding, rank: usize, what: &str) -> Caveat {
    finding.confidence = Confidence::Inconclusive;
    finding.culprit = Culprit::Nobody;
    finding.summary = format!("{}; but its GPU was not steady: {what}", finding.summary);
    finding.advice = format!(
        "run again with --soak, so that it is warm before steps count; then {}",
        finding.advice
    );
    let message = format!(
        "the GPU of rank {rank} was not steady: {what}; nobody is named for being slow for good"
    );
    Caveat::new(CaveatCode::NotSteady, message)
}

/// A rank's accelerator and those of its class that are not slow with it.
struct Subject<'a> {
    look: &'a Look<'a>,
    rank: usize,
    peers: Vec<usize>,
}

impl<'a> Subject<'a> {
    fn new(look: &'a Look<'a>, rank: usize, slow: &[usize]) -> Self {
        let places = &look.evidence.manifest.ranks;
        let is_peer = |other: &usize| {
            places[*other].class == places[rank].class
                && !slow.contains(other)
                && look.devices.is_visible(*other)
        };
        let peers = (0..places.len()).filter(is_peer).collect();
        Self { look, rank, peers }
    }

    /// What is usual among peers; `None` where none of them shows it.
    fn usual(&self, of: impl Fn(usize) -> Option<f64>) -> Option<f64> {
        let values: Vec<f64> = self.peers.iter().filter_map(|peer| of(*peer)).collect();
        median(&values).ok()
    }

    fn median_of(&self, gauge: Gauge) -> (Option<f64>, Option<f64>) {
        let (devices, window) = (self.look.devices, &self.look.window);
        let of = |rank| devices.median(rank, gauge, window);
        (of(self.rank), self.usual(of))
    }

    fn most_of(&self, gauge: Gauge) -> (Option<f64>, Option<f64>) {
        let of = |rank| self.look.devices.most(rank, gauge, &self.look.window);
        (of(self.rank), self.usual(of))
    }

    fn least_of(&self, rank: usize, gauge: Gauge) -> Option<f64> {
        let window = &self.look.window;
        self.look.devices.least(rank, gauge, window)
    }

    /// How far counters went up, all together, if that is much more than among peers.
    fn grew(&self, gauges: &[Gauge]) -> Option<f64> {
        let of = |rank| {
            let growths = gauges.iter();
            let (devices, window) = (self.look.devices, &self.look.window);
            let growths = growths.filter_map(|gauge| devices.growth(rank, *gauge, window));
            growths.reduce(|a, b| a + b)
        };
        let usual = self.usual(of).unwrap_or(0.0);
        of(self.rank).filter(|own| *own > 0.0 && *own > TIMES_PEERS * usual)
    }

    /// Reasons for slow clocks, in words.
    fn held_back(&self) -> Vec<String> {
        let (devices, window) = (self.look.devices, &self.look.window);
        let reasons = devices.reasons(self.rank);
        let counts = |reason: &ClockReason| {
            let of = |rank| devices.share_with(rank, *reason, window);
            let own = of(self.rank).unwrap_or(0.0);
            let usual = self.usual(of);
            let is_own = usual.is_none_or(|usual| own - usual >= BEYOND_PEERS);
            let lower = *reason == ClockReason::PowerCap && self.has_lower_limit();
            reason.slows() && own > MOST && (is_own || lower)
        };
        let counting: Vec<ClockReason> = reasons.into_iter().filter(counts).collect();
        // The general bit is set with each of the others.
        let is_special = |reason: &ClockReason| {
            matches!(
                reason,
                ClockReason::HardwareThermal | ClockReason::PowerBrake
            )
        };
        let has_special = counting.iter().any(is_special);
        let told = counting
            .into_iter()
            .filter(|it| !(has_special && *it == ClockReason::HardwareSlowdown));
        told.map(|reason| self.in_words(reason)).collect()
    }

    fn has_lower_limit(&self) -> bool {
        let (own, usual) = self.median_of(Gauge::PowerLimit);
        own.zip(usual)
            .is_some_and(|(own, usual)| own < SAME_LIMIT * usual)
    }

    fn in_words(&self, reason: ClockReason) -> String {
        let (own, usual) = self.median_of(Gauge::PowerLimit);
        let watts = |milliwatts: f64| format!("{:.0} W", milliwatts / 1000.0);
        match (reason, own, usual) {
            (ClockReason::PowerCap, Some(own), Some(usual)) if self.has_lower_limit() => {
                format!("{reason} at {} (its peers at {})", watts(own), watts(usual))
            }
            (ClockReason::PowerCap, Some(own), _) => format!("{reason} at {}", watts(own)),
            _ => reason.to_string(),
        }
    }

    /// The clock, if it is lower than that of peers, or something holds it back and none shows.
    fn low_clock(&self, is_held_back: bool) -> Option<String> {
        let (own, usual) = self.median_of(Gauge::SmClock);
        let own = own?;
        // Half of the smallest excess that is named: what is computed takes so much longer.
        let low = 1.0 - self.look.evidence.thresholds.excess / 2.0;
        let is_low = usual.map_or(is_held_back, |usual| own <= low * usual);
        let place = &self.look.evidence.manifest.ranks[self.rank];
        let most = place
            .accelerator
            .as_ref()
            .and_then(|it| it.most_sm_clock_mhz);
        let most = most.map_or(String::new(), |most| format!(" of {most}"));
        let usual = usual.map_or(String::new(), |it| format!(" (its peers' {it:.0} MHz)"));
        is_low.then(|| format!("SM clock {own:.0}{most} MHz{usual}"))
    }

    /// The PCIe link at its best, if it is worse than that of peers, or than it could be.
    fn pcie(&self) -> Option<String> {
        let place = &self.look.evidence.manifest.ranks[self.rank];
        let identity = place.accelerator.as_ref();
        let most_width = identity.and_then(|it| it.most_pcie_width).map(f64::from);
        let most_generation = identity.and_then(|it| it.most_pcie_generation);
        let most_generation = most_generation.map(f64::from);
        let (width, usual_width) = self.most_of(Gauge::PcieWidth);
        let (generation, usual_generation) = self.most_of(Gauge::PcieGeneration);
        let narrow = width.zip(usual_width.or(most_width));
        if let Some((own, expect)) = narrow.filter(|(own, expect)| own < expect) {
            return Some(format!("PCIe x{own:.0} of x{expect:.0}"));
        }
        let slow = generation.zip(usual_generation.or(most_generation));
        let (own, expect) = slow.filter(|(own, expect)| own < expect)?;
        Some(format!("PCIe generation {own:.0} of {expect:.0}"))
    }

    fn replays(&self) -> Option<String> {
        let count = self.grew(&[Gauge::PcieReplays])?;
        Some(format!("{count:.0} PCIe packets sent again"))
    }

    fn rows(&self) -> Option<String> {
        let is_alone = |gauge| {
            let (own, usual) = self.most_of(gauge);
            own == Some(1.0) && usual.unwrap_or(0.0) < 1.0
        };
        let pending = is_alone(Gauge::RemapPending).then_some("row remap pending");
        let failed = is_alone(Gauge::RemapFailed).then_some("row remap failed");
        failed.or(pending).map(str::to_owned)
    }

    fn errors(&self) -> Option<String> {
        let count = self.grew(&[Gauge::EccUncorrected])?;
        Some(format!("{count:.0} uncorrected errors of memory"))
    }

    fn xid(&self) -> Option<String> {
        let (own, usual) = self.most_of(Gauge::XidEvents);
        let is_alone = own? > 0.0 && usual.unwrap_or(0.0) < 1.0;
        let last = self
            .look
            .devices
            .last(self.rank, Gauge::Xid, *self.look.window.end())?;
        is_alone.then(|| format!("Xid {last}"))
    }

    fn nvlinks(&self) -> Option<String> {
        let of = |rank| self.least_of(rank, Gauge::NvlinksUp);
        let own = of(self.rank);
        let (all, _) = self.most_of(Gauge::Nvlinks);
        let down = own.zip(self.usual(of).or(all));
        if let Some((own, expect)) = down.filter(|(own, expect)| own < expect) {
            return Some(format!("{own:.0} of {expect:.0} NVLinks up"));
        }
        let errors = [
            Gauge::NvlinkReplays,
            Gauge::NvlinkRecoveries,
            Gauge::NvlinkCrcErrors,
        ];
        let count = self.grew(&errors)?;
        Some(format!("{count:.0} NVLink errors"))
    }

    fn ports(&self) -> Option<String> {
        let of = |rank| self.least_of(rank, Gauge::PortsActive);
        let own = of(self.rank);
        let down = own.zip(self.usual(of));
        if let Some((own, expect)) = down.filter(|(own, expect)| own < expect) {
            return Some(format!("{own:.0} of {expect:.0} network ports active"));
        }
        let (own, usual) = self.most_of(Gauge::PortsRate);
        if let Some((own, usual)) = own.zip(usual).filter(|(own, usual)| own < usual) {
            let gigabits = |rate: f64| rate * 8e-9;
            let (own, usual) = (gigabits(own), gigabits(usual));
            return Some(format!(
                "network ports at {own:.0} Gb/s (its peers' at {usual:.0})"
            ));
        }
        let count = self.grew(&[Gauge::PortsErrors])?;
        Some(format!("{count:.0} errors on its network ports"))
    }
}
