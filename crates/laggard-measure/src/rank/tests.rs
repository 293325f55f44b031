//! Ranks together: what they compute must be what one rank would.

use super::*;
use crate::Settings;
use crate::manifest::{Findings, manifest};
use crate::memory::Region;
use crate::portion::Portion;
use crate::run::by_threads;
use crate::shape::Weight;
use crate::testing;
use laggard_backend::Slice;
use laggard_backend::threads::{ThreadOptions, worlds};
use laggard_record::RecordWriter;
use laggard_schedule::Layout;

/// Runs all steps on ranks of this process, and looks at each rank then.
fn after_steps<T: Send>(settings: &Settings, look: impl Fn(&Network) -> T + Send + Sync) -> Vec<T> {
    let job = Job::new(settings).unwrap();
    let peak = FlopPerSecond(1e9);
    let dir = tempfile::tempdir().unwrap();
    let findings = Findings::of_process(job.settings.ranks(), peak, by_threads());
    let record = RecordWriter::create(dir.path(), &manifest(&job, &findings).unwrap()).unwrap();
    let worlds = worlds(settings.ranks(), &ThreadOptions::default()).unwrap();
    let shape = &job.shape;
    let embedding = Embedding::new(settings.seed, shape.vocabulary, shape.hidden);
    std::thread::scope(|scope| {
        let run = |(rank, world): (Rank, World)| {
            let mut recorder = record.recorder(rank).unwrap();
            let (job, embedding, look) = (&job, embedding.clone(), &look);
            scope.spawn(move || {
                let mut runner = RankRunner::start(job, rank, world, embedding, peak).unwrap();
                for step in 0..job.settings.steps {
                    runner.step(step, 0, &mut recorder).unwrap();
                }
                look(runner.network())
            })
        };
        let threads: Vec<_> = (0..).zip(worlds).map(run).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    })
}

fn region(network: &Network, region: Region) -> Vec<f32> {
    let buffer = network.memory().buffer(region, (0, 0)).unwrap();
    Slice::whole(buffer).read_f32().unwrap()
}

/// Reduced gradients as they lie in memory; of buckets that are sharded, the rank's shard only.
fn gradients(network: &Network) -> (Portion, Vec<Option<f32>>) {
    let portion = network.portion().clone();
    let full = region(network, Region::Gradients);
    let mut list: Vec<Option<f32>> = full.into_iter().map(Some).collect();
    for bucket in &portion.buckets {
        let Some(shard) = bucket.shard else { continue };
        list[bucket.range.clone()].fill(None);
        let own = region(network, Region::GradientShards);
        let own = &own[bucket.sharded.clone()];
        let start = bucket.range.start + shard.index * own.len();
        for (slot, value) in list[start..].iter_mut().zip(own) {
            *slot = Some(*value);
        }
    }
    (portion, list)
}

/// The weight of the whole model that a rank's is part of.
fn in_model(portion: &Portion, weight: Weight) -> Weight {
    let first = portion.experts_of(portion.expert.index).start;
    match weight {
        Weight::ExpertUp(own) => Weight::ExpertUp(first + own),
        Weight::ExpertGate(own) => Weight::ExpertGate(first + own),
        Weight::ExpertDown(own) => Weight::ExpertDown(first + own),
        other => other,
    }
}

/// Compares the gradients of all ranks with those of one rank that does all.
fn check(settings: &Settings) {
    let layout = &settings.layout;
    let alone = Settings {
        layout: Layout {
            micro_batches: vec![layout.micro_batches.iter().sum()],
            ..Layout::data_parallel(1, 1)
        },
        ..settings.clone()
    };
    let [(whole, expect)] = after_steps(&alone, gradients).try_into().unwrap();
    let size = expect
        .iter()
        .flatten()
        .fold(0.0f32, |most, g| most.max(g.abs()));
    let mut seen = vec![false; expect.len()];
    for (rank, (portion, found)) in after_steps(settings, gradients).into_iter().enumerate() {
        for (layer, weight, range) in portion.weights() {
            let of_model = whole.weight(layer, in_model(&portion, weight)).unwrap();
            let width = whole.own.size(in_model(&portion, weight)).1;
            let (rows, columns) = portion.place_in_model(weight);
            let places = rows.flat_map(|row| {
                let columns = columns.iter().cloned().flatten();
                columns.map(move |column| row * width + column)
            });
            for (place, found) in places.zip(&found[range]) {
                let Some(found) = found else { continue };
                seen[of_model.start + place] = true;
                let expect = expect[of_model.start + place].unwrap();
                assert!(
                    (found - expect).abs() <= 2e-5 * size,
                    "{layout}, rank {rank}, layer {layer}, {weight:?}: {found} instead of \
                     {expect} of {size}"
                );
            }
        }
    }
    let of_weights = whole
        .weights()
        .map(|(_, _, range)| range.len())
        .sum::<usize>();
    let found = seen.iter().filter(|seen| **seen).count();
    assert_eq!(found, of_weights, "{layout}: every gradient is somewhere");
}

fn settings(text: &str, micro_batches: &[u32]) -> Settings {
    let layout = Layout::parse(text).unwrap();
    let mut settings = testing::settings(1, 1);
    let shares = match micro_batches {
        [all] => vec![*all; layout.data_parallel as usize],
        each => each.to_vec(),
    };
    settings.model.layers = 4;
    settings.layout = Layout {
        micro_batches: shares,
        bucket_bytes: settings.layout.bucket_bytes,
        ..layout
    };
    settings
}

#[test]
fn reduced_gradients_are_those_of_the_union_batch() {
    check(&settings("dp2", &[1]));
    check(&settings("dp3", &[1, 3, 2]));
    let mut late = settings("dp2", &[2, 1]);
    late.layout.overlap = false;
    check(&late);
}

#[test]
fn sharded_gradients_are_the_same() {
    for text in ["dp3,zero1", "dp3,zero2", "dp3,zero3", "dp2,zero3,recompute"] {
        check(&settings(text, &[2]));
    }
    check(&settings("dp2,zero1", &[2, 1]));
}

#[test]
fn ranks_that_share_layers_compute_the_same() {
    for text in [
        "dp1,tp2",
        "dp2,tp2",
        "dp1,tp2,sp",
        "dp1,tp2,sp,recompute",
        "dp1,tp2,recompute",
        "dp1,tp2,recompute1",
        "dp1,tp2,sp,recompute3",
    ] {
        check(&settings(text, &[2]));
    }
}

#[test]
fn pipelines_compute_the_same() {
    for text in [
        "dp1,pp2",
        "dp1,pp4",
        "dp2,pp2",
        "dp1,pp2,vp2",
        "dp1,pp3,recompute",
        "dp1,pp2,recompute1",
        "dp1,pp2,vp2,recompute1",
    ] {
        check(&settings(text, &[4]));
    }
    check(&settings("dp2,pp2", &[3, 1]));
    let mut uneven = settings("dp1,pp2", &[3]);
    uneven.layout.stage_layers = vec![3, 1];
    check(&uneven);
    uneven.layout.stage_layers = vec![4, 0];
    check(&uneven);
}

#[test]
fn ranks_that_share_sequences_compute_the_same() {
    for text in ["dp1,cp2", "dp2,cp3", "dp1,cp2,tp2,sp", "dp1,cp2,zero3"] {
        check(&settings(text, &[2]));
    }
}

#[test]
fn ranks_that_share_experts_compute_the_same() {
    for text in [
        "dp1",
        "dp2",
        "dp2,ep2",
        "dp4,ep2",
        "dp2,cp2,ep2",
        "dp2,tp2,ep2",
        "dp2,tp2,sp,ep2",
        "dp4,ep2,zero1",
        "dp4,ep2,zero3",
        "dp2,pp2,ep2,recompute",
        "dp1,cp2,ep2",
    ] {
        let mut settings = settings(text, &[2]);
        settings.model = laggard_specs::Model {
            layers: 4,
            ..testing::tiny_mixture()
        };
        check(&settings);
    }
}

#[test]
fn products_compute_the_same() {
    for text in [
        "dp2,tp2,pp2",
        "dp2,tp2,pp2,vp2,sp,zero1",
        "dp2,pp2,zero2",
        "dp2,pp2,zero3",
        "dp1,tp2,pp2,cp2,sp,recompute",
        "dp1,tp2,pp2,cp2,sp,recompute1",
    ] {
        check(&settings(text, &[4]));
    }
}

#[test]
fn ragged_sequences_compute_the_same() {
    // One replica each: lengths are drawn replica by replica.
    for text in ["dp1,pp2", "dp1,tp2,sp", "dp1,cp3", "dp1,cp2,zero3"] {
        let mut settings = settings(text, &[3]);
        settings.faults = vec!["ragged:0.4".parse().unwrap()];
        check(&settings);
    }
    let mut settings = settings("dp2,ep2", &[2]);
    settings.model = testing::tiny_mixture();
    settings.faults = vec!["ragged:0.4".parse().unwrap()];
    settings.steps = 3;
    after_steps(&settings, gradients);
}

#[test]
fn all_ranks_keep_the_same_parameters() {
    for text in ["dp3", "dp3,zero1", "dp2,zero2"] {
        let mut settings = settings(text, &[1]);
        settings.steps = 4;
        settings.faults = vec!["ragged:0.4".parse().unwrap()];
        if text == "dp3" {
            settings.layout.micro_batches = vec![1, 2, 1];
        }
        let parameters = |network: &Network| region(network, Region::Parameters);
        let last = after_steps(&settings, parameters);
        assert!(last.iter().all(|other| *other == last[0]), "{text}");
        settings.steps = 1;
        let before = after_steps(&settings, parameters);
        assert_ne!(last[0], before[0], "{text}: parameters are trained");
    }
}
