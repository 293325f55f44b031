//! The worlds that runs are made in: layouts on emulated hosts, in groups that are counted
//! together.

use anyhow::{Context, Result};
use laggard_benches::models::{LAYER_ELEMENTS, OUTPUT_ELEMENTS, layered};
use laggard_schedule::Layout;
use laggard_specs::{Model, Tables};

/// A layout on emulated hosts. Times are of the wall clock where each rank has a processor of its
/// own, else of the virtual clock; the record says which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct World {
    /// The group of layouts that it is counted in.
    pub group: &'static str,
    layout: &'static str,
    pub hosts: u32,
    /// Micro-batches of each replica.
    micro_batches: u32,
    preset: Preset,
}

/// What is trained: a step takes some milliseconds for each rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Preset {
    /// Two layers and a head.
    Tiny,
    /// Four layers; the head is next to nothing, so that pipeline stages are equal.
    Even,
    /// Four layers, and a head of one and a half of them.
    Head,
    /// Four layers with experts.
    Experts,
}

const fn world(
    group: &'static str,
    (layout, micro_batches): (&'static str, u32),
    hosts: u32,
    preset: Preset,
) -> World {
    World {
        group,
        layout,
        hosts,
        micro_batches,
        preset,
    }
}

/// All worlds, those of a group beside each other.
pub(crate) const WORLDS: [World; 26] = {
    use Preset::{Even, Experts, Head, Tiny};
    [
        world(PLAIN, ("dp2", 1), 1, Tiny),
        world(PLAIN, ("dp4", 1), 2, Tiny),
        world(PLAIN, ("dp6", 1), 3, Tiny),
        world("pp", ("dp4,pp2", 4), 4, Even),
        world("pp", ("dp2,pp4", 8), 1, Even),
        world("pp", ("dp2,pp2", 4), 1, Head),
        world("interleaved", ("dp4,pp2,vp2", 4), 4, Even),
        world("interleaved", ("dp2,pp2,vp2", 4), 1, Even),
        world("tp", ("dp2,tp2", 2), 2, Even),
        world("tp", ("dp4,tp2", 1), 4, Even),
        world("tp", ("dp1,tp4", 2), 1, Even),
        world("tp+sp", ("dp2,tp2,sp", 2), 2, Even),
        world("tp+sp", ("dp2,tp4,sp", 1), 2, Even),
        world("cp", ("dp2,cp2", 2), 2, Even),
        world("cp", ("dp2,cp4", 1), 2, Even),
        world("ep", ("dp4,ep2", 1), 2, Experts),
        world("ep", ("dp8,ep2", 1), 4, Experts),
        world("zero1", ("dp4,zero1", 2), 2, Even),
        world("zero1", ("dp8,zero1", 1), 4, Even),
        world("zero2", ("dp4,zero2", 2), 2, Even),
        world("zero3", ("dp4,zero3", 2), 2, Even),
        world("zero3", ("dp8,zero3,recompute", 1), 4, Even),
        world("products", ("dp2,tp2,pp2,zero1,sp", 4), 4, Even),
        world("products", ("dp4,pp2,ep2", 2), 4, Experts),
        world("products", ("dp2,tp2,pp2,cp2", 4), 4, Even),
        world("products", ("dp4,tp2,zero3,sp,recompute", 1), 4, Even),
    ]
};

/// Steps of a run of plain data parallelism.
pub(crate) const STEPS: u32 = 160;

/// The group of plain data parallelism.
pub(crate) const PLAIN: &str = "dp";

/// The names of all groups, in the order of [`WORLDS`].
pub(crate) fn groups() -> Vec<&'static str> {
    let mut names: Vec<&str> = WORLDS.iter().map(|world| world.group).collect();
    names.dedup();
    names
}

impl World {
    /// The layout with its micro-batches.
    pub(crate) fn layout(&self) -> Result<Layout> {
        let layout = Layout::parse(self.layout).context("a layout of the table")?;
        Ok(Layout {
            micro_batches: vec![self.micro_batches; layout.data_parallel as usize],
            ..layout
        })
    }

    pub(crate) fn ranks(&self) -> Result<u32> {
        Ok(u32::try_from(self.layout()?.world_size())?)
    }

    pub(crate) fn stages(&self) -> Result<u32> {
        Ok(self.layout()?.pipeline_parallel)
    }

    /// Hosts by ranks on each, and the layout where it is not plain.
    pub(crate) fn name(&self) -> String {
        let ranks = self.ranks().unwrap_or_default() / self.hosts;
        match self.group {
            PLAIN => format!("{}x{ranks}", self.hosts),
            _ => format!("{}x{ranks} {}", self.hosts, self.layout),
        }
    }

    pub(crate) fn model(&self, tables: &Tables) -> Result<Model> {
        Ok(match self.preset {
            Preset::Tiny => tables.model("tiny")?.clone(),
            Preset::Even => layered(4, 16)?,
            Preset::Head => layered(4, 3 * LAYER_ELEMENTS / 2 / OUTPUT_ELEMENTS)?,
            Preset::Experts => tables.model("tiny-moe")?.clone(),
        })
    }

    /// Whether the last pipeline stage has more to do than the others.
    pub(crate) fn has_head(&self) -> bool {
        !matches!(self.preset, Preset::Even)
    }

    /// Sequences of a micro-batch: so many that a step takes some milliseconds, and that a slow
    /// rank is as slow as it should be. Parts of small matrices, of which slowness is made, take
    /// longer than their share.
    pub(crate) fn sequences(&self) -> u32 {
        match self.preset {
            Preset::Tiny => 3,
            Preset::Even | Preset::Head => 2,
            Preset::Experts => 4,
        }
    }

    /// Steps of a run.
    pub(crate) fn steps(&self) -> u32 {
        match self.group {
            PLAIN => STEPS,
            _ => 100,
        }
    }

    /// Whether the last stage has more work than the others.
    pub(crate) fn has_large_head(&self) -> bool {
        self.preset == Preset::Head
    }

    /// Whether ranks have peers on their own host, and each stage's hosts peers to compare with.
    pub(crate) fn compares_hosts(&self) -> bool {
        let hosts_of_stage = |stages| self.hosts / stages;
        self.stages()
            .is_ok_and(|stages| hosts_of_stage(stages) >= 2)
            && self.ranks().is_ok_and(|ranks| ranks / self.hosts >= 2)
    }

    /// Whether there are stages.
    pub(crate) fn is_pipeline(&self) -> bool {
        self.stages().is_ok_and(|stages| stages > 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worlds_can_be_run() {
        let tables = Tables::builtin().unwrap();
        for world in WORLDS {
            let layout = world.layout().unwrap();
            let ranks = world.ranks().unwrap();
            layout.check(ranks).unwrap();
            let model = world.model(&tables).unwrap();
            layout.layers_of_pieces(model.layers as u32).unwrap();
            assert!(
                ranks.is_multiple_of(world.hosts) && ranks <= 16,
                "{world:?}"
            );
            assert!(
                ranks.is_multiple_of(2),
                "half of the ranks are of each class"
            );
            assert!(
                ranks / world.stages().unwrap() >= 2,
                "a slow stage is no slow rank"
            );
        }
        let names = groups();
        let mut once = names.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), names.len(), "{names:?}");
    }
}
