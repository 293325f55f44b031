//! The groups that ranks of a layout communicate in.

use crate::{Axis, Coordinates, Layout};
use laggard_types::Rank;
use std::collections::BTreeMap;

/// What the ranks of a group share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dimension {
    /// Dense parameters.
    Gradient,
    /// The same experts.
    ExpertGradient,
    /// The matrices of a layer.
    Tensor,
    /// The tokens of a sequence.
    Context,
    /// The experts of a layer.
    Expert,
    /// A pipeline, in the direction of forward.
    Forward,
    /// A pipeline, in the direction of backward.
    Backward,
    /// The step.
    World,
}

/// The axes of a layout: those of more than one rank.
pub(super) struct Axes {
    list: Vec<Axis>,
    index: [Option<u32>; 8],
}

impl Axes {
    pub(super) fn new(layout: &Layout) -> Self {
        let mut axes = Self {
            list: Vec::new(),
            index: [None; 8],
        };
        let ep = layout.expert_parallel;
        let place = |at: Coordinates| layout.gradient_position(at);
        let gradient = match layout.context_parallel {
            1 => "dp",
            _ => "dp x cp",
        };
        let mut add = |dimension, name, key: &dyn Fn(Coordinates) -> (u32, u32, u32)| {
            axes.add(layout, dimension, name, key);
        };
        add(Dimension::Gradient, gradient, &|at| {
            (at.tensor, at.pipeline, 0)
        });
        if ep > 1 {
            let experts = |at: Coordinates| (at.tensor, at.pipeline, place(at) % ep);
            add(Dimension::ExpertGradient, "expert dp", &experts);
            let exchange = |at: Coordinates| (at.tensor, at.pipeline, place(at) / ep);
            add(Dimension::Expert, "ep", &exchange);
        }
        add(Dimension::Tensor, "tp", &|at| {
            (at.context, at.data, at.pipeline)
        });
        add(Dimension::Context, "cp", &|at| {
            (at.tensor, at.data, at.pipeline)
        });
        let pipeline = |at: Coordinates| (at.tensor, at.context, at.data);
        add(Dimension::Forward, "pp forward", &pipeline);
        add(Dimension::Backward, "pp backward", &pipeline);
        add(Dimension::World, "world", &|_| (0, 0, 0));
        if ep == 1 {
            // Experts are reduced like all else.
            axes.index[Dimension::ExpertGradient as usize] = axes.of(Dimension::Gradient);
        }
        if let Some(backward) = axes.of(Dimension::Backward) {
            let groups = &mut axes.list[backward as usize].groups;
            groups.iter_mut().for_each(|group| group.reverse());
        }
        axes
    }

    /// The axis of a dimension, if its groups have more than one rank.
    pub(super) fn of(&self, dimension: Dimension) -> Option<u32> {
        self.index[dimension as usize]
    }

    pub(super) fn into_list(self) -> Vec<Axis> {
        self.list
    }

    /// Ranks of equal keys are a group, in order of rank.
    fn add(
        &mut self,
        layout: &Layout,
        dimension: Dimension,
        name: &str,
        key: &dyn Fn(Coordinates) -> (u32, u32, u32),
    ) {
        let mut groups: BTreeMap<_, Vec<Rank>> = BTreeMap::new();
        for rank in 0..layout.world_size() as u32 {
            let group = groups.entry(key(layout.coordinates(rank))).or_default();
            group.push(rank);
        }
        if groups.values().all(|group| group.len() == 1) {
            return;
        }
        let axis = Axis {
            name: name.to_owned(),
            groups: groups.into_values().collect(),
        };
        self.index[dimension as usize] = Some(self.list.len() as u32);
        self.list.push(axis);
    }
}
