//! What was typed, as what the library asks for.

use super::super::calibrate::{Basis, CalibratedOn, calibrate};
use super::super::usual;
use crate::args::{PlanArgs, ServeArgs};
use crate::failure::{BadInput, Usage};
use crate::input;
use anyhow::Result;
use laggard_plan::money::{Costs, Prices};
use laggard_plan::serving::{DailyDemand, Requests, ServingConstants};
use laggard_plan::{
    Alike, Known, PlanError, Problem, Reserve, Service, Terms, Training, WantedJob,
};
use laggard_simulate::{Constants, Framework, Frameworks};
use laggard_specs::{Cluster, Model, Pool, Tables};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Tokens for each parameter where no number is said. Source: Hoffmann et al., arXiv 2203.15556,
/// table 3: about 20.
const TOKENS_PER_PARAMETER: f64 = 20.0;

/// What plans of every cluster have in common.
pub(super) struct Setup {
    pub(super) tables: Tables,
    pub(super) prices: Prices,
    pub(super) constants: Constants,
    pub(super) serving: ServingConstants,
    pub(super) framework: Framework,
    /// Names of the classes of all clusters that are planned: what is said of one cluster's class
    /// is nothing to another cluster.
    pub(super) classes: BTreeSet<String>,
}

impl Setup {
    pub(super) fn of(args: &PlanArgs) -> Result<Self> {
        let frameworks = Frameworks::builtin()?;
        let framework = usual::framework(args.job.framework.as_deref(), &frameworks)?;
        Ok(Self {
            tables: input::tables(&args.tables)?,
            prices: Prices::builtin()?,
            constants: Constants::builtin()?,
            serving: ServingConstants::builtin()?,
            framework: framework.clone(),
            classes: BTreeSet::new(),
        })
    }

    /// The one job that was asked for.
    pub(super) fn one_job<'s>(&'s self, args: &PlanArgs) -> Result<WantedJob<'s>> {
        let name = args.model.as_deref().unwrap_or_default();
        Ok(WantedJob {
            model: self.tables.model(name)?,
            tokens: args.tokens,
            batch_tokens: args.batch_tokens,
            sequence_length: args.job.sequence_length,
            deadline_days: args.deadline,
            weight: 1.0,
            fewest_devices: 0,
        })
    }

    /// A job on a cluster.
    pub(super) fn problem<'s>(
        &'s self,
        args: &PlanArgs,
        cluster: &Cluster,
        job: &WantedJob<'s>,
    ) -> Result<(Problem<'s>, Vec<CalibratedOn>)> {
        let (model, usual_batch) = (job.model, usual::batch_tokens(cluster.devices()));
        let training = Training {
            model,
            tokens: job.tokens.unwrap_or_else(|| usual_tokens(model)),
            batch_tokens: job
                .batch_tokens
                .or(args.batch_tokens)
                .unwrap_or(usual_batch),
            sequence_length: usual::sequence_length(
                job.sequence_length.or(args.job.sequence_length),
                model,
            ),
            precision: usual::precision(args.job.precision),
            software: self.framework.software,
            around: usual::surroundings(&args.job)?,
        };
        let known = Known {
            tables: &self.tables,
            prices: &self.prices,
            constants: &self.constants,
        };
        let terms = self.terms(args, cluster)?;
        let mut problem = Problem::new(cluster, training, &terms, &known)?;
        let basis = Basis {
            tables: &self.tables,
            precision: problem.training.precision,
            software: self.framework.software,
            constants: &self.constants,
        };
        let each = problem.classes.iter_mut().map(|class| &mut class.of);
        let on = calibrate(&args.job.calibrate, &mut each.collect::<Vec<_>>(), &basis)?;
        Ok((problem, on))
    }

    /// What is said of the cluster.
    fn terms(&self, args: &PlanArgs, cluster: &Cluster) -> Result<Terms> {
        let mut lease = named("--lease", &args.lease, "h100=2.60", |text| {
            text.parse::<f64>().ok()
        })?;
        let example = "h100=1024` or `h100=5%` or, of every class, `5%";
        let of_all = |text: &str| {
            let pools = cluster.pools.iter();
            pools
                .map(|pool| format!("{}={text}", pool.id))
                .collect::<Vec<_>>()
        };
        let reserves = args.reserve.iter();
        let reserves: Vec<String> = reserves
            .flat_map(|text| match text.contains('=') {
                true => vec![text.clone()],
                false => of_all(text),
            })
            .collect();
        let names = class_names(cluster);
        let is_elsewhere = |name: &String| !names.contains(name) && self.classes.contains(name);
        lease.retain(|name, _| !is_elsewhere(name));
        let mut reserve = named("--reserve", &reserves, example, reserve)?;
        reserve.retain(|name, _| !is_elsewhere(name));
        Ok(Terms {
            power_limit_watts: args.power_limit_mw.map(|limit| limit * 1e6),
            lease_dollars_per_hour: lease,
            dollars_per_kwh: args.electricity,
            reserve,
        })
    }

    /// A cluster whose pools that are nearly alike are one where there are too many to be told
    /// apart, with what is to be kept in mind of that; pools that something is said of stay alone.
    pub(super) fn together(
        args: &PlanArgs,
        cluster: &Cluster,
    ) -> Result<(Cluster, Option<String>)> {
        let said = args.lease.iter().chain(&args.reserve);
        let said = said.chain(&args.job.calibrate);
        let mut names: Vec<&str> = said
            .filter_map(|text| text.split_once('='))
            .map(|(name, _)| name)
            .collect();
        let costs = costs(args)?;
        let bought = costs.iter().flat_map(|(_, it)| it.bought.keys());
        names.extend(bought.map(String::as_str));
        let is_named = |pool: &Pool| names.contains(&pool.id.as_str());
        let alike = Alike::of(cluster, &is_named);
        Ok((alike.together(cluster), alike.caveat()))
    }

    /// What is to be served: where nothing is said, the model that is trained.
    pub(super) fn service<'s>(
        &'s self,
        args: &ServeArgs,
        trained: &'s Model,
    ) -> Result<Service<'s>> {
        let peak_factor = match args.day[..] {
            [] => args.peak_factor,
            ref hours => DailyDemand::new(hours)
                .map_err(PlanError::from)?
                .peak_factor(),
        };
        Ok(Service {
            model: match &args.serve {
                Some(name) => self.tables.model(name)?,
                None => trained,
            },
            requests: Requests {
                input_tokens: args.prompt_tokens,
                output_tokens: args.answer_tokens,
                most_seconds_per_token: args.tpot,
                most_seconds_to_first_token: args.ttft,
            },
            peak_factor,
            tokens_per_s: args.serve_rate,
            sessions: args.serve_sessions,
            session_tokens_per_s: args.session_rate,
            dollars_per_million_tokens: args.token_price,
        })
    }
}

/// What an owner pays, with the file that says so.
pub(super) fn costs(args: &PlanArgs) -> Result<Option<(&Path, Costs)>> {
    let Some(path) = &args.owned else {
        return Ok(None);
    };
    let mut costs = Costs::from_toml_str(&input::text(path)?)
        .map_err(|error| BadInput(format!("{}: {error}", path.display())))?;
    costs.electricity_dollars_per_kwh = args.electricity.or(costs.electricity_dollars_per_kwh);
    Ok(Some((path, costs)))
}

pub(super) fn usual_tokens(model: &Model) -> f64 {
    TOKENS_PER_PARAMETER * model.parameters() as f64
}

/// Names that can be said of a cluster's classes: their own, and their accelerators'.
pub(super) fn class_names(cluster: &Cluster) -> BTreeSet<String> {
    let names = |pool: &Pool| [pool.id.clone(), pool.accelerator.clone()];
    cluster.pools.iter().flat_map(names).collect()
}

fn reserve(text: &str) -> Option<Reserve> {
    match text.strip_suffix('%') {
        Some(percent) => Some(Reserve::Share(percent.parse::<f64>().ok()? / 100.0)),
        None => text.parse().ok().map(Reserve::Devices),
    }
}

/// `CLASS=VALUE`, each class once.
fn named<T: PartialEq>(
    flag: &str,
    texts: &[String],
    example: &str,
    value: impl Fn(&str) -> Option<T>,
) -> Result<BTreeMap<String, T>> {
    let mut all = BTreeMap::new();
    for text in texts {
        let parsed = text.split_once('=');
        let parsed = parsed.and_then(|(class, text)| Some((class, value(text)?)));
        let Some((class, value)) = parsed else {
            let hint = format!("hint: for example `{flag} {example}`");
            return Err(Usage(format!("cannot read {flag} `{text}`\n{hint}")).into());
        };
        if all.get(class).is_some_and(|old| *old != value) {
            let hint = "hint: give each class one value";
            let text = format!("two values of {flag} for {class} contradict\n{hint}");
            return Err(Usage(text).into());
        }
        all.insert(class.to_owned(), value);
    }
    Ok(all)
}
