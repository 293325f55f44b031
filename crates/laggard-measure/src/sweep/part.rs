//! What one rank measured, as it travels to rank 0, and the parts of all ranks as one. Knows no
//! time but that on the common clock.

use super::compute::ComputePoint;
use super::pairs::{self, Half};
use super::point::Point;
use super::{Done, QUIET_BELOW, Sweeper};
use crate::MeasureError;
use crate::clock_sync::Model;
use crate::manifest::datasheet_peak;
use laggard_record::{
    BenchRank, BenchSamples, CollectiveSamples, Communication, ComputeSamples, Peak, PeakKind,
};
use laggard_specs::Tables;
use laggard_types::{Caveat, CaveatCode, Rank};
use serde::{Deserialize, Serialize};

/// What one rank measured, as it is sent to rank 0.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Part {
    pub collectives: Vec<PointPart>,
    pub compute: Vec<Vec<f64>>,
    pub pairs: Vec<Half>,
    pub clock_bound_ns: i64,
    pub peak_flop_per_s: Option<f64>,
}

/// What one rank measured of one collective at one size.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct PointPart {
    pub calls: Vec<[i64; 2]>,
    pub back_to_back_ns: f64,
    pub wrong: u64,
}

impl Sweeper<'_> {
    /// All ranks' parts as one.
    pub(super) fn samples(
        &self,
        mut parts: Vec<Part>,
        done: Done,
        communication: &Communication,
    ) -> Result<BenchSamples, MeasureError> {
        let halves: Vec<Half> = parts.iter_mut().flat_map(|it| it.pairs.drain(..)).collect();
        let message = (
            self.settings.data_type,
            self.settings.pair_bytes.unwrap_or(0),
        );
        let caveats = self.caveats(&done);
        let ranks = self.bench_ranks(&parts)?;
        let mut collectives: Vec<CollectiveSamples> = done.points.iter().map(of_point).collect();
        let mut compute: Vec<ComputeSamples> = done.compute.into_iter().map(of_compute).collect();
        for part in parts {
            for (samples, own) in collectives.iter_mut().zip(part.collectives) {
                samples.calls.push(own.calls);
                samples.back_to_back_ns.push(own.back_to_back_ns);
                samples.wrong.push(own.wrong);
            }
            for (samples, own) in compute.iter_mut().zip(part.compute) {
                samples.seconds.push(own);
            }
        }
        Ok(BenchSamples {
            schema_version: BenchSamples::VERSION,
            communication: communication.clone(),
            ranks,
            collectives,
            compute,
            pairs: pairs::joined(&halves, message),
            caveats,
        })
    }

    fn bench_ranks(&self, parts: &[Part]) -> Result<Vec<BenchRank>, MeasureError> {
        let tables = Tables::builtin()?;
        let of = |(part, rank): (&Part, Rank)| {
            let report = &self.places.reports[rank as usize];
            let measured = part.peak_flop_per_s.map(|flop_per_s| Peak {
                flop_per_s,
                kind: PeakKind::Measured,
                source: "multiply-adds on registers of one core, f32".to_owned(),
            });
            BenchRank {
                host: report.host.clone(),
                device: report.device().to_owned(),
                peak: measured
                    .or_else(|| datasheet_peak(&tables, report.device(), self.computes_in())),
                clock_bound_ns: part.clock_bound_ns,
            }
        };
        Ok(parts.iter().zip(0..).map(of).collect())
    }

    fn caveats(&self, done: &Done) -> Vec<Caveat> {
        let mut caveats = Vec::new();
        let mut add = |code, message: &str| caveats.push(Caveat::new(code, message));
        if self.shares_processors() {
            add(
                CaveatCode::OutsideContention,
                "ranks share processors: calls include waiting for one",
            );
        }
        let loads = self.places.reports.iter().filter_map(|it| it.other_load);
        let load = loads.fold(0.0, f64::max);
        if self.is_on_processor() && load > QUIET_BELOW {
            let message = format!(
                "other work had up to {:.0} % of the ranks' processors just before: calls include \
                 waiting for it",
                100.0 * load
            );
            add(CaveatCode::OutsideContention, &message);
        }
        if done.stopped {
            add(
                CaveatCode::NotClosed,
                "a signal ended the benchmark early: what it had measured by then is all there is",
            );
        }
        if let Some(late) = self.settings.late {
            let by = late.by.as_micros();
            let message = format!("rank {} came late on purpose, by {by} us", late.rank);
            add(CaveatCode::SyntheticJob, &message);
        }
        caveats
    }
}

fn of_point(point: &Point) -> CollectiveSamples {
    CollectiveSamples {
        collective: point.collective,
        op: point.reduction(),
        placement: point.placement,
        data_type: point.data_type,
        bytes: point.bytes(),
        calls: Vec::new(),
        back_to_back_ns: Vec::new(),
        wrong: Vec::new(),
    }
}

fn of_compute(point: ComputePoint) -> ComputeSamples {
    ComputeSamples {
        name: point.name,
        work: point.work,
        data_type: point.data_type,
        seconds: Vec::new(),
    }
}

impl Part {
    /// Puts times on the common clock; the device's own are wrong by so much at most.
    pub(super) fn put_on(&mut self, model: &Model, device_error_ns: i64) {
        self.clock_bound_ns = model.worst_bound_ns.saturating_add(device_error_ns);
        let calls = self.collectives.iter_mut().flat_map(|it| &mut it.calls);
        let seen = self.pairs.iter_mut().flat_map(|half| &mut half.seen);
        for interval in calls.chain(seen) {
            *interval = interval.map(|raw_ns| {
                let elapsed = raw_ns.saturating_sub(model.from_ns) as f64;
                let gained = elapsed * model.drift_ppm * 1e-6;
                raw_ns.saturating_add(model.offset_ns) + gained.round() as i64
            });
        }
    }
}
