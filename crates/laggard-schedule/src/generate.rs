//! The step of any layout: pipelines of 1F1B passes over layers that tensor, context and expert
//! parallel ranks share, with gradients reduced in buckets, sharded where ZeRO asks for it.

mod axes;
mod emitter;
mod gradients;
mod layer;
mod segments;
mod step;

use crate::graph::{Program, Schedule, ScheduleOrigin};
use crate::{Layout, LayoutError, ModelWork, Part};
use axes::Axes;
use std::collections::BTreeMap;
use step::Step;

/// The step of a job of this layout.
///
/// # Errors
/// If the layout contradicts itself or does not fit the model.
pub fn generate(layout: &Layout, work: &ModelWork) -> Result<Schedule, LayoutError> {
    let ranks = u32::try_from(layout.world_size()).unwrap_or(u32::MAX);
    layout.check(ranks)?;
    let has_experts =
        |layer: &crate::LayerWork| layer.parts.iter().any(|p| p.part == Part::Experts);
    if layout.expert_parallel > 1 && !work.layers.iter().any(has_experts) {
        return Err(layout.contradiction(
            "the model has no experts to share".to_owned(),
            "use ep1, or a mixture of experts",
        ));
    }
    let axes = Axes::new(layout);
    let mut operations = Vec::new();
    let mut programs: Vec<Program> = Vec::new();
    let mut program_of: BTreeMap<(u32, u32), u32> = BTreeMap::new();
    let mut program_of_rank = Vec::with_capacity(ranks as usize);
    let mut stage_of_rank = Vec::with_capacity(ranks as usize);
    for rank in 0..ranks {
        let at = layout.coordinates(rank);
        let share = layout.micro_batches[at.data as usize];
        let key = (at.pipeline, share);
        let program = match program_of.get(&key) {
            Some(program) => *program,
            None => {
                let first = operations.len() as u32;
                operations.extend(Step::new(layout, work, &axes, key, first)?.operations());
                programs.push(Program {
                    operations: (first..operations.len() as u32).collect(),
                });
                let program = programs.len() as u32 - 1;
                program_of.insert(key, program);
                program
            }
        };
        program_of_rank.push(program);
        stage_of_rank.push(at.pipeline);
    }
    Ok(Schedule {
        origin: ScheduleOrigin::Generated(layout.clone()),
        operations,
        programs,
        program_of_rank,
        stage_of_rank,
        axes: axes.into_list(),
    })
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "sums of small whole numbers are exact")]
mod tests;
