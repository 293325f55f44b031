//! The integer program of an allocation, in the solver's terms.
//!
//! Variables: domains of each member of each use (integer), the part of each piece of a use's curve
//! that is used, and whether a use with a fixed cost or a smallest size is there at all (0 or 1).
//! Rows are divided by their largest coefficient, and so is the objective.

use microlp::{ComparisonOp, OptimizationDirection, Problem, SolveOptions, Variable};

use super::rounding::round;
use super::worth::{free, reserve_watts};
use super::{Effort, PoolProblem, PoolsError, Use};

/// Fewest programs to solve to decide which uses are there at all, of a few.
const NODES_TO_OPEN: u64 = 64;

/// What is to be made large.
#[derive(Clone, Copy, PartialEq)]
enum Goal {
    /// The value.
    Value,
    /// The share of all least rates that is reached, if power were not limited.
    Share,
    /// As little power beyond the limits as can be, with all least rates reached.
    Power,
}

/// Whether domains may be split.
#[derive(Clone, Copy, PartialEq)]
enum Domains {
    Whole,
    Split,
}

/// A solution as counts.
pub(super) struct Solved {
    pub(super) domains: Vec<Vec<u64>>,
    pub(super) bound: f64,
    pub(super) nodes: u64,
}

/// Solves a checked problem.
pub(super) fn solve(problem: &PoolProblem, effort: Effort) -> Result<Solved, PoolsError> {
    let program = Program::new(problem, Goal::Value, Domains::Whole);
    match program.solve(effort)? {
        Outcome::Answer(answer) => Ok(Solved {
            domains: program.counts(&answer, |count| count.round() as u64),
            bound: answer.bound * program.scale,
            nodes: answer.nodes,
        }),
        Outcome::NoneFound => by_rounding(problem, effort),
        Outcome::Infeasible => Err(why_not(problem, effort)?),
    }
}

/// An allocation from the one that splits domains, for problems so large that the search ends
/// before it finds one.
fn by_rounding(problem: &PoolProblem, effort: Effort) -> Result<Solved, PoolsError> {
    let program = Program::new(problem, Goal::Value, Domains::Split);
    let effort = Effort {
        nodes: effort.nodes.max(NODES_TO_OPEN),
        ..effort
    };
    let Outcome::Answer(answer) = program.solve(effort)? else {
        return Err(none_found());
    };
    // What should be whole may be a rounding error below it.
    let whole = program.counts(&answer, |count| (count + 1e-6) as u64);
    let next = program.counts(&answer, |count| (count - 1e-6).ceil().max(0.0) as u64);
    Ok(Solved {
        domains: round(problem, whole, &next).ok_or_else(none_found)?,
        bound: answer.bound * program.scale,
        nodes: effort.nodes.saturating_add(answer.nodes),
    })
}

fn none_found() -> PoolsError {
    PoolsError::Solver {
        message: "no allocation among those looked at\nhint: allow more nodes".to_owned(),
    }
}

/// What keeps a problem from having any allocation.
fn why_not(problem: &PoolProblem, effort: Effort) -> Result<PoolsError, PoolsError> {
    let none = || PoolsError::Solver {
        message: "neither demands nor power explain that there is no allocation".to_owned(),
    };
    let program = Program::new(problem, Goal::Power, Domains::Whole);
    if let Outcome::Answer(answer) = program.solve(effort)? {
        let over = program.excess.iter().zip(&problem.sites).enumerate();
        for (site, (excess, limit)) in over {
            let watts = excess.map_or(0.0, |(variable, unit)| answer.value(variable) * unit);
            if let Some(limit) = limit.watts.filter(|limit| watts > limit * 1e-9) {
                let needed = limit + watts;
                return Ok(PoolsError::Power {
                    site,
                    needed,
                    limit,
                });
            }
        }
        return Ok(none());
    }
    let program = Program::new(problem, Goal::Share, Domains::Whole);
    let Outcome::Answer(answer) = program.solve(effort)? else {
        return Ok(none());
    };
    let asked = problem.uses.iter().filter(|it| it.least_rate > 0.0);
    Ok(PoolsError::Demands {
        uses: asked.map(|it| it.name.clone()).collect(),
        share: program.share.map_or(0.0, |share| answer.value(share)),
    })
}

struct Program<'a> {
    problem: &'a PoolProblem,
    goal: Goal,
    whole: Domains,
    linear: Problem,
    /// What a unit of the objective is in units of value.
    scale: f64,
    /// For each use, the variable of each member.
    domains: Vec<Vec<Variable>>,
    /// Terms of each class.
    of_class: Vec<Vec<(Variable, f64)>>,
    /// Terms of each site's power.
    of_site: Vec<Vec<(Variable, f64)>>,
    /// Power beyond each site's limit, with its unit.
    excess: Vec<Option<(Variable, f64)>>,
    share: Option<Variable>,
}

/// How a search ended.
enum Outcome {
    Answer(Answer),
    /// There is no allocation.
    Infeasible,
    /// The search ended before it found one.
    NoneFound,
}

/// What the solver found.
struct Answer {
    solution: microlp::Solution,
    bound: f64,
    nodes: u64,
}

impl Answer {
    fn value(&self, variable: Variable) -> f64 {
        self.solution.var_value(variable)
    }
}

impl<'a> Program<'a> {
    fn new(problem: &'a PoolProblem, goal: Goal, whole: Domains) -> Self {
        let mut program = Self {
            problem,
            goal,
            whole,
            linear: Problem::new(OptimizationDirection::Maximize),
            scale: 1.0,
            domains: Vec::new(),
            of_class: vec![Vec::new(); problem.classes.len()],
            of_site: vec![Vec::new(); problem.sites.len()],
            excess: vec![None; problem.sites.len()],
            share: None,
        };
        program.scale = match goal {
            Goal::Value => program.largest_worth(),
            Goal::Share | Goal::Power => 1.0,
        };
        if goal == Goal::Share {
            program.share = Some(program.linear.add_var(1.0, (0.0, 1.0)));
        }
        for of_use in &problem.uses {
            program.add_use(of_use);
        }
        program.add_classes();
        program.add_sites();
        program
    }

    /// The largest worth or cost of one domain or of a use.
    fn largest_worth(&self) -> f64 {
        let of_use = |it: &Use| {
            let slope = it.curve.pieces().first().map_or(0.0, |piece| piece.slope);
            let of_domain = |member: &super::Member| {
                let worth = member.capacity * slope * it.value;
                worth.max(member.cost.abs())
            };
            it.members.iter().map(of_domain).fold(0.0, f64::max)
        };
        let largest = self.problem.uses.iter().map(of_use).fold(0.0, f64::max);
        if largest > 0.0 { largest } else { 1.0 }
    }

    fn worth(&self, of: f64) -> f64 {
        match self.goal {
            Goal::Value => of / self.scale,
            Goal::Share | Goal::Power => 0.0,
        }
    }

    fn add_use(&mut self, of_use: &Use) {
        let mut variables = Vec::with_capacity(of_use.members.len());
        for member in &of_use.members {
            let free = free(self.problem, member.class);
            let most = free.min(member.most.unwrap_or(free)) as i32;
            let cost = self.worth(-member.cost);
            let variable = match self.whole {
                Domains::Whole => self.linear.add_integer_var(cost, (0, most)),
                Domains::Split => self.linear.add_var(cost, (0.0, f64::from(most))),
            };
            self.of_class[member.class].push((variable, 1.0));
            let site = self.problem.classes[member.class].site;
            self.of_site[site].push((variable, member.watts));
            variables.push(variable);
        }
        self.add_rate(of_use, &variables);
        self.add_size(of_use, &variables);
        self.domains.push(variables);
    }

    /// The rate of a use: parts of its curve's pieces, no more in all than its capacity.
    fn add_rate(&mut self, of_use: &Use, variables: &[Variable]) {
        let members = of_use.members.iter();
        let unit = members.map(|it| it.capacity).fold(0.0, f64::max);
        if unit <= 0.0 {
            // No capacity, no rate: a least rate cannot be met.
            self.demand(of_use, Vec::new(), 1.0);
            return;
        }
        let members = of_use.members.iter().zip(variables);
        let mut capacity: Vec<(Variable, f64)> = members
            .map(|(member, &variable)| (variable, -member.capacity / unit))
            .collect();
        let mut rate = Vec::new();
        for piece in of_use.curve.pieces() {
            let worth = piece.slope * of_use.value * unit;
            let in_goal = self.worth(worth);
            let part = self.linear.add_var(in_goal, (0.0, piece.capacity / unit));
            capacity.push((part, 1.0));
            rate.push((part, piece.slope));
        }
        self.linear.add_constraint(&capacity, ComparisonOp::Le, 0.0);
        if let Some(most) = of_use.most_rate {
            self.linear
                .add_constraint(&rate, ComparisonOp::Le, most / unit);
        }
        self.demand(of_use, rate, unit);
    }

    /// The least rate of a use.
    fn demand(&mut self, of_use: &Use, mut rate: Vec<(Variable, f64)>, unit: f64) {
        if of_use.least_rate <= 0.0 {
            return;
        }
        let mut least = of_use.least_rate / unit;
        if let Some(share) = self.share {
            rate.push((share, -least));
            least = 0.0;
        }
        self.linear.add_constraint(&rate, ComparisonOp::Ge, least);
    }

    /// Fewest and most domains of a use, and its fixed cost.
    fn add_size(&mut self, of_use: &Use, variables: &[Variable]) {
        let free = of_use
            .members
            .iter()
            .map(|member| free(self.problem, member.class));
        let all: u64 = free.sum();
        let most = of_use.most.unwrap_or(all).min(all) as f64;
        let mut sum: Vec<(Variable, f64)> = variables.iter().map(|&it| (it, 1.0)).collect();
        if of_use.least <= 1 && of_use.fixed_cost <= 0.0 {
            if of_use.most.is_some() {
                self.linear.add_constraint(&sum, ComparisonOp::Le, most);
            }
            return;
        }
        let cost = self.worth(-of_use.fixed_cost);
        let open = self.linear.add_binary_var(cost);
        sum.push((open, -most));
        self.linear.add_constraint(&sum, ComparisonOp::Le, 0.0);
        if of_use.least > 1 {
            sum.pop();
            sum.push((open, -(of_use.least as f64)));
            self.linear.add_constraint(&sum, ComparisonOp::Ge, 0.0);
        }
    }

    fn add_classes(&mut self) {
        for (class, terms) in std::mem::take(&mut self.of_class).iter().enumerate() {
            if terms.len() > 1 {
                let free = free(self.problem, class) as f64;
                self.linear.add_constraint(terms, ComparisonOp::Le, free);
            }
        }
    }

    fn add_sites(&mut self) {
        let reserve = reserve_watts(self.problem);
        let of_site = std::mem::take(&mut self.of_site);
        for (site, mut terms) in of_site.into_iter().enumerate() {
            let largest = terms.iter().map(|term| term.1).fold(0.0, f64::max);
            let limit = self.problem.sites[site].watts;
            let Some(limit) = limit.filter(|_| largest > 0.0 && self.goal != Goal::Share) else {
                continue;
            };
            terms.iter_mut().for_each(|term| term.1 /= largest);
            if self.goal == Goal::Power {
                let excess = self.linear.add_var(-1.0, (0.0, f64::INFINITY));
                terms.push((excess, -1.0));
                self.excess[site] = Some((excess, largest));
            }
            let left = (limit - reserve[site]) / largest;
            self.linear.add_constraint(&terms, ComparisonOp::Le, left);
        }
    }

    fn solve(&self, effort: Effort) -> Result<Outcome, PoolsError> {
        let mut options = SolveOptions::default();
        options.node_limit = Some(effort.nodes);
        options.mip_gap = effort.gap;
        let outcome = match self.linear.solve_with(options) {
            Ok(outcome) => outcome,
            Err(microlp::Error::Infeasible) => return Ok(Outcome::Infeasible),
            Err(error) => {
                let message = error.to_string();
                return Err(PoolsError::Solver { message });
            }
        };
        let stats = outcome.stats();
        Ok(match outcome.into_solution() {
            Ok(solution) => Outcome::Answer(Answer {
                bound: stats.best_bound.unwrap_or(solution.objective()),
                nodes: stats.nodes_solved,
                solution,
            }),
            Err(_) => Outcome::NoneFound,
        })
    }

    fn counts(&self, answer: &Answer, whole: impl Fn(f64) -> u64) -> Vec<Vec<u64>> {
        let count = |&variable: &Variable| whole(answer.value(variable).max(0.0));
        let of_use = |variables: &Vec<Variable>| variables.iter().map(count).collect();
        self.domains.iter().map(of_use).collect()
    }
}
