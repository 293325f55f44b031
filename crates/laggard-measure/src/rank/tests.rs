//! Ranks together: what they compute must be what one rank would.

use super::*;
use crate::Settings;
use crate::manifest::{Findings, manifest};
use crate::memory::Region;
use crate::testing;
use laggard_backend::Slice;
use laggard_backend::threads::{ThreadOptions, worlds};
use laggard_record::RecordWriter;
use laggard_schedule::Layout;

/// The contents of a region of every rank after so many steps.
fn after_steps(settings: &Settings, region: Region) -> Vec<Vec<f32>> {
    let job = Job::new(settings).unwrap();
    let peak = FlopPerSecond(1e9);
    let dir = tempfile::tempdir().unwrap();
    let record = RecordWriter::create(
        dir.path(),
        &manifest(&job, &Findings::of_threads(job.settings.ranks(), peak)).unwrap(),
    )
    .unwrap();
    let worlds = worlds(settings.ranks(), &ThreadOptions::default()).unwrap();
    let shape = &job.shape;
    let embedding = Embedding::new(settings.seed, shape.vocabulary, shape.hidden);
    std::thread::scope(|scope| {
        let run = |(rank, world): (Rank, World)| {
            let mut recorder = record.recorder(rank).unwrap();
            let (job, embedding) = (&job, embedding.clone());
            scope.spawn(move || {
                let mut runner = RankRunner::start(job, rank, world, embedding, peak).unwrap();
                for step in 0..job.settings.steps {
                    runner.step(step, &mut recorder).unwrap();
                }
                let buffer = runner.network().memory().buffer(region, 0).unwrap();
                Slice::whole(buffer).read_f32().unwrap()
            })
        };
        let threads: Vec<_> = (0..).zip(worlds).map(run).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    })
}

/// Compares all ranks with one rank that has all micro-batches.
fn check(micro_batches: &[u32], overlap: bool) {
    let ranks = micro_batches.len() as u32;
    let split = |micro_batches: Vec<u32>| {
        let mut settings = testing::settings(micro_batches.len() as u32, 1);
        settings.layout = Layout {
            micro_batches,
            overlap,
            ..settings.layout
        };
        settings
    };
    let together = split(vec![micro_batches.iter().sum()]);
    let [expect] = after_steps(&together, Region::Gradients)
        .try_into()
        .unwrap();
    let size = expect.iter().fold(0.0f32, |most, g| most.max(g.abs()));
    let found = after_steps(&split(micro_batches.to_vec()), Region::Gradients);
    assert_eq!(found.len() as u32, ranks);
    for (rank, found) in found.iter().enumerate() {
        for (found, expect) in found.iter().zip(&expect) {
            let apart = (found - expect).abs();
            assert!(
                apart <= 1e-5 * size,
                "rank {rank}: {found} instead of {expect} of {size}"
            );
        }
    }
}

#[test]
fn reduced_gradients_are_those_of_the_union_batch() {
    check(&[1, 1], true);
    check(&[1, 3, 2], true);
    check(&[2, 1], false);
}

#[test]
fn all_ranks_keep_the_same_parameters() {
    let mut settings = testing::settings(3, 4);
    settings.layout.micro_batches = vec![1, 2, 1];
    settings.faults = vec!["ragged:0.4".parse().unwrap()];
    let parameters = after_steps(&settings, Region::Parameters);
    assert!(parameters.iter().all(|other| *other == parameters[0]));
    let before = after_steps(
        &Settings {
            steps: 1,
            ..settings
        },
        Region::Parameters,
    );
    assert_ne!(parameters[0], before[0], "parameters are trained");
}
