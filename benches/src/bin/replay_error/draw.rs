//! Random layouts, drawn so that every option comes often.

use anyhow::{Context, Result};
use laggard_benches::models::{LAYER_ELEMENTS, OUTPUT_ELEMENTS, layered};
use laggard_schedule::{Layout, Recompute, Zero};
use laggard_specs::{Model, Tables};
use laggard_stats::Rng;

/// Layers of the dense model; its head is half as much work as one of them.
const LAYERS: u32 = 8;

/// One run to make.
pub(crate) struct Draw {
    pub layout: Layout,
    pub model: Model,
    pub seed: u64,
}

impl Draw {
    /// Draw `number` of at most so many ranks: the same for the same seed.
    pub(crate) fn new(
        number: u32,
        (seed, most_ranks): (u64, u32),
        tables: &Tables,
    ) -> Result<Self> {
        let mut rng = Rng::for_stream(seed, u64::from(number));
        let seed = rng.next_u64() >> 1;
        let with_experts = one_in(4, &mut rng);
        let model = match with_experts {
            true => tables.model("tiny-moe")?.clone(),
            false => layered(LAYERS, LAYER_ELEMENTS / 2 / OUTPUT_ELEMENTS)?,
        };
        // Most draws are too large, or contradict themselves.
        let layout = (0..10_000)
            .map(|_| layout(with_experts, model.layers as u32, &mut rng))
            .find(|layout| layout.world_size() <= most_ranks.into() && fits(layout, &model))
            .context("no layout that can be")?;
        Ok(Self {
            layout,
            model,
            seed,
        })
    }

    /// The layout with all that its text form leaves out.
    pub(crate) fn text(&self) -> String {
        let join = |numbers: &[u32]| {
            let texts: Vec<String> = numbers.iter().map(u32::to_string).collect();
            texts.join(",")
        };
        let layout = &self.layout;
        let mut text = format!("{layout} --micro-batches {}", join(&layout.micro_batches));
        if !layout.stage_layers.is_empty() {
            text += &format!(" --stage-layers {}", join(&layout.stage_layers));
        }
        text += &format!(" --bucket-bytes {}", layout.bucket_bytes);
        match layout.overlap {
            true => text,
            false => text + " --no-overlap",
        }
    }
}

fn fits(layout: &Layout, model: &Model) -> bool {
    let ranks = layout.world_size();
    ranks > 1
        && layout.check(ranks as u32).is_ok()
        && layout.layers_of_pieces(model.layers as u32).is_ok()
}

fn layout(with_experts: bool, layers: u32, rng: &mut Rng) -> Layout {
    let data = 1 + rng.below(8) as u32;
    let mut layout = Layout {
        tensor_parallel: one_of([1, 1, 2, 4], rng),
        pipeline_parallel: one_of([1, 1, 2, 4], rng),
        context_parallel: one_of([1, 1, 2, 4], rng),
        bucket_bytes: one_of([1 << 16, 1 << 18, 1 << 20], rng),
        overlap: !one_in(4, rng),
        zero: one_of(
            [
                Zero::None,
                Zero::Optimizer,
                Zero::Gradients,
                Zero::Parameters,
            ],
            rng,
        ),
        ..Layout::data_parallel(data, 1)
    };
    if with_experts {
        layout.expert_parallel = one_of([1, 2, 4], rng);
    }
    layout.sequence_parallel = layout.tensor_parallel > 1 && one_in(2, rng);
    if one_in(4, rng) {
        layout.recompute = Recompute::Layers;
    }
    let stages = layout.pipeline_parallel;
    if stages > 1 && one_in(2, rng) {
        layout.virtual_stages = 2;
    }
    let unit = if layout.virtual_stages > 1 { stages } else { 1 };
    let mut share = || unit * (1 + rng.below((2 * stages / unit) as usize) as u32);
    layout.micro_batches = vec![share(); data as usize];
    let may_differ = layout.zero < Zero::Gradients && layout.expert_parallel == 1;
    if may_differ && one_in(3, rng) {
        let mut share = || unit * (1 + rng.below((2 * stages / unit) as usize) as u32);
        layout.micro_batches.fill_with(&mut share);
    }
    if stages > 1 && one_in(4, rng) {
        layout.stage_layers = split(layers, layout.pieces(), rng);
    }
    layout
}

/// Layers in pieces of at least one, at random.
fn split(layers: u32, pieces: u32, rng: &mut Rng) -> Vec<u32> {
    let mut split = vec![1; pieces as usize];
    for _ in pieces..layers {
        split[rng.below(pieces as usize)] += 1;
    }
    split
}

fn one_in(many: usize, rng: &mut Rng) -> bool {
    rng.below(many) == 0
}

fn one_of<T: Copy, const N: usize>(choices: [T; N], rng: &mut Rng) -> T {
    choices[rng.below(N)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn draws_repeat_and_have_everything() {
        let tables = Tables::builtin().unwrap();
        let mut seen = BTreeSet::new();
        for number in 0..100 {
            let draw = Draw::new(number, (1, 16), &tables).unwrap();
            let again = Draw::new(number, (1, 16), &tables).unwrap();
            assert_eq!((draw.text(), draw.seed), (again.text(), again.seed));
            assert!(draw.layout.world_size() <= 16);
            let text = draw.text();
            let words = text.split([',', ' ']);
            seen.extend(words.map(|word| {
                word.trim_end_matches(|c: char| c.is_ascii_digit())
                    .to_owned()
            }));
        }
        let all = [
            "dp",
            "tp",
            "pp",
            "vp",
            "cp",
            "ep",
            "zero",
            "sp",
            "recompute",
        ];
        let missing = all.into_iter().find(|word| !seen.contains(*word));
        assert_eq!(missing, None);
        assert!(seen.contains("--stage-layers") && seen.contains("--no-overlap"));
    }
}
