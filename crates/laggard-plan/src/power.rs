//! Whether the power of a site binds: everything on, at the power that is stated and at the share
//! of it that has been measured under load.

use serde::Serialize;

use crate::problem::{Class, Problem};

/// Watts of a megawatt.
const MEGAWATT: f64 = 1e6;

/// What a site would draw with everything on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SiteLoad {
    /// The site.
    pub site: String,
    /// What it can draw, megawatts.
    pub limit_mw: Option<f64>,
    /// What it would draw at the power of the cluster's file or of nameplates, with cooling;
    /// `None` where that of some devices is not known.
    pub stated_mw: Option<f64>,
    /// What it would draw if what is stated as nameplate were drawn by the share of it that has
    /// been measured.
    pub measured_mw: Option<f64>,
    /// That share.
    pub measured_share: Option<f64>,
}

impl SiteLoad {
    /// Whether the limit binds at a load.
    #[must_use]
    pub fn binds(&self, mw: Option<f64>) -> Option<bool> {
        Some(mw? > self.limit_mw?)
    }
}

/// What each site would draw with everything on.
#[must_use]
pub fn loads(problem: &Problem<'_>) -> Vec<SiteLoad> {
    let share = problem.measured_share_of_nameplate;
    let load = |at: usize, of_class: &dyn Fn(&Class) -> Option<f64>| -> Option<f64> {
        let here = problem.classes.iter().filter(|class| class.site == at);
        let of = |class: &Class| {
            let watts = problem.watts_at_meter(class)? * of_class(class)?;
            Some(class.of.count as f64 * watts / MEGAWATT)
        };
        here.map(of).sum()
    };
    let places = problem.places.iter().enumerate();
    let sites = places.map(|(at, place)| SiteLoad {
        site: place.id.clone(),
        limit_mw: place.limit_watts.map(|watts| watts / MEGAWATT),
        stated_mw: load(at, &|_| Some(1.0)),
        measured_mw: load(at, &|class| {
            if class.is_nameplate { share } else { Some(1.0) }
        }),
        measured_share: share,
    });
    sites.collect()
}
