//! The steps of a sketch: what wall time is made of, with intervals.

use super::SECONDS;
use crate::interval::{estimate, noise_block};
use crate::levels::REPLICATES;
use crate::{AnalyzeError, Estimate, Level, WaterfallTerm};
use laggard_record::{SketchBaseline, SketchStep};
use laggard_stats::{BlockBootstrap, Resampling, effective_sample_size};
use rayon::prelude::*;

/// From the top down: what is taken away first comes first.
const LEVELS: [Level; 5] = [
    Level::HostPauses,
    Level::Transient,
    Level::Rank,
    Level::Generation,
    Level::EvenStep,
];

/// Steps and what is known of them without anything random.
pub(super) struct Steps {
    rows: Vec<SketchStep>,
    all: Sums,
    /// The same of resampled steps.
    draws: Vec<Sums>,
    bootstrap: Option<BlockBootstrap>,
    /// How many steps that know nothing of each other would say as much.
    pub(super) independent: f64,
    /// Whether the record's step of equal ranks is no longer than that of the classes as they are,
    /// but for rounding. Where it is, that of the classes stands for it.
    pub(super) knows_even_step: bool,
}

/// Sums over steps, nanoseconds: whole numbers, so that differences are exact.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sums {
    steps: f64,
    wall: f64,
    unpaused: f64,
    even: f64,
    class: f64,
    lasting: f64,
}

impl Sums {
    /// Share of wall time of one of [`LEVELS`]; together they are 1.
    pub(super) fn share(&self, level: Level) -> f64 {
        let time = match level {
            Level::HostPauses => self.wall - self.unpaused,
            Level::Transient => self.unpaused - self.lasting,
            Level::Rank => self.lasting - self.class,
            Level::Generation => self.class - self.even,
            Level::EvenStep => self.even,
            _ => 0.0,
        };
        time / self.wall
    }

    /// Mean length of a step, seconds.
    pub(super) fn mean_s(&self) -> f64 {
        self.wall * SECONDS / self.steps
    }
}

impl Steps {
    /// `rows` is not empty.
    ///
    /// # Errors
    /// If a step takes no time.
    pub(super) fn new(
        rows: Vec<SketchStep>,
        baseline: &SketchBaseline,
        seed: u64,
    ) -> Result<Self, AnalyzeError> {
        let steps = rows.len() as f64;
        let sum = |time: fn(&SketchStep) -> i64| rows.iter().map(|row| time(row) as f64).sum();
        let all = Sums {
            steps,
            wall: sum(|row| row.wall_ns),
            unpaused: sum(|row| row.unpaused_ns),
            even: steps * baseline.even_step_ns.min(baseline.class_step_ns) as f64,
            class: steps * baseline.class_step_ns as f64,
            lasting: steps * baseline.lasting_step_ns as f64,
        };
        let shortest = [all.wall, all.even, all.class, all.lasting];
        if shortest.into_iter().fold(f64::INFINITY, f64::min) <= 0.0 {
            return Err(AnalyzeError::TimelessSketch);
        }
        let lengths: Vec<f64> = rows.iter().map(|row| row.wall_ns as f64).collect();
        let block = noise_block(&lengths).clamp(1, rows.len());
        let resampling = Resampling {
            block_length: block,
            replicates: REPLICATES,
            seed,
        };
        let mut this = Self {
            bootstrap: BlockBootstrap::new(rows.len(), resampling).ok(),
            rows,
            all,
            draws: Vec::new(),
            independent: effective_sample_size(&lengths).unwrap_or(1.0).max(1.0),
            knows_even_step: baseline.even_step_ns <= baseline.class_step_ns.saturating_add(1),
        };
        let walls = this.resampled(|row| row.wall_ns as f64);
        let unpaused = this.resampled(|row| row.unpaused_ns as f64);
        let draw = |(wall, unpaused)| Sums {
            wall,
            unpaused,
            ..all
        };
        this.draws = walls.into_iter().zip(unpaused).map(draw).collect();
        Ok(this)
    }

    pub(super) fn count(&self) -> usize {
        self.rows.len()
    }

    /// Length of every step, seconds.
    pub(super) fn lengths(&self) -> Vec<f64> {
        let seconds = |row: &SketchStep| row.wall_ns as f64 * SECONDS;
        self.rows.iter().map(seconds).collect()
    }

    /// Length of all steps together, seconds.
    pub(super) fn wall_s(&self) -> f64 {
        self.all.wall * SECONDS
    }

    pub(super) fn mean_s(&self) -> f64 {
        self.all.mean_s()
    }

    /// Share of wall time of a level.
    pub(super) fn share(&self, level: Level) -> Estimate {
        self.estimate(|sums| sums.share(level))
    }

    /// What all steps take beyond what the classes make of them, seconds.
    pub(super) fn beyond_classes_s(&self) -> f64 {
        (self.all.wall - self.all.class).max(0.0) * SECONDS
    }

    pub(super) fn estimate(&self, figure: impl Fn(&Sums) -> f64) -> Estimate {
        let draws: Vec<f64> = self.draws.iter().map(&figure).collect();
        estimate(figure(&self.all), &draws)
    }

    pub(super) fn waterfall(&self) -> Vec<WaterfallTerm> {
        let term = |level| WaterfallTerm {
            level,
            share: self.share(level),
        };
        LEVELS.into_iter().map(term).collect()
    }

    /// What a share of wall time varies by when steps are drawn again, where it is in proportion to
    /// this time of each step.
    pub(super) fn scaled_draws(
        &self,
        share: f64,
        time: impl Fn(&SketchStep) -> f64 + Sync,
    ) -> Vec<f64> {
        let whole: f64 = self.rows.iter().map(&time).sum();
        if whole <= 0.0 {
            return Vec::new();
        }
        let draws = self.resampled(time);
        let scaled =
            |(drawn, sums): (f64, &Sums)| share * drawn / whole * self.all.wall / sums.wall;
        draws.into_iter().zip(&self.draws).map(scaled).collect()
    }

    /// Sums over resampled steps; none where nothing can be drawn.
    fn resampled(&self, time: impl Fn(&SketchStep) -> f64 + Sync) -> Vec<f64> {
        let Some(bootstrap) = &self.bootstrap else {
            return Vec::new();
        };
        let times: Vec<f64> = self.rows.iter().map(time).collect();
        let sum = |counts: &mut Vec<u32>, replicate| {
            bootstrap.fill_counts(replicate, counts);
            let drawn = times.iter().zip(counts.iter());
            drawn.map(|(time, count)| time * f64::from(*count)).sum()
        };
        let replicates = (0..bootstrap.replicates()).into_par_iter();
        replicates.map_init(Vec::new, sum).collect()
    }
}
