//! Reducing gradients, gathering parameters, and the update.

use super::axes::Dimension;
use super::step::Step;
use crate::Zero;
use crate::graph::{Operation, OperationKind, Phase, Stream};
use laggard_types::Collective;

impl Step<'_> {
    /// Reduces the buckets that a layer's backward has completed.
    pub(super) fn reduce_after(&mut self, layer: u32, micro_batch: u32) {
        let last = micro_batch + 1 == self.share;
        if !self.layout.overlap || !(last || self.layout.zero >= Zero::Gradients) {
            return;
        }
        for bucket in 0..self.buckets.len() {
            if self.buckets[bucket].layers.last() == Some(&layer) {
                self.reduce(bucket, micro_batch);
            }
        }
    }

    fn reduce(&mut self, bucket: usize, micro_batch: u32) {
        let Some(axis) = self.gradient_axis(bucket) else {
            return;
        };
        let collective = match self.layout.zero {
            Zero::None => Collective::AllReduce,
            _ => Collective::ReduceScatter,
        };
        let phase = Phase::GradientReduce;
        let computed = self.emit.last_on(Stream::Compute);
        let reduced = Operation {
            micro_batch: Some(micro_batch),
            ..self.bucket_collective(bucket, axis, collective, phase)
        };
        let reduced = self.emit.push(reduced, &[computed]);
        self.reduced[bucket] = Some(reduced);
        self.reductions.push(Some(reduced));
        if self.layout.zero >= Zero::Gradients && micro_batch > 0 {
            let name = format!("bucket {bucket} accumulate");
            let kind = OperationKind::Compute;
            let added = Operation {
                bucket: Some(bucket as u32),
                bytes: self.buckets[bucket].shard() * self.work.element_bytes,
                micro_batch: Some(micro_batch),
                ..Operation::new(name, kind, phase, Stream::Communication)
            };
            let added = self.emit.push(added, &[]);
            self.reductions.push(Some(added));
        }
    }

    /// Gathers the parameters that a pass of a layer needs, if they are sharded. At most two layers
    /// are gathered ahead of their use.
    pub(super) fn gather(&mut self, layer: u32, micro_batch: u32) -> Vec<Option<u32>> {
        if self.layout.zero < Zero::Parameters {
            return Vec::new();
        }
        let room = self.users.len().checked_sub(2).map(|at| self.users[at]);
        let mut gathered = Vec::new();
        for bucket in 0..self.buckets.len() {
            let axis = self.gradient_axis(bucket);
            let (true, Some(axis)) = (self.buckets[bucket].layers.contains(&layer), axis) else {
                continue;
            };
            let (gather, phase) = (Collective::AllGather, Phase::ParameterGather);
            let operation = Operation {
                layer: Some(layer),
                micro_batch: Some(micro_batch),
                ..self.bucket_collective(bucket, axis, gather, phase)
            };
            let last_use = self.last_use[bucket];
            gathered.push(Some(self.emit.push(operation, &[room, last_use])));
        }
        gathered
    }

    /// Notes the last operation of a pass of a layer.
    pub(super) fn used(&mut self, layer: u32, last: Option<u32>) {
        self.users.extend(last);
        for (bucket, last_use) in self.buckets.iter().zip(&mut self.last_use) {
            if bucket.layers.contains(&layer) {
                *last_use = last;
            }
        }
    }

    /// What the gradients of a layer's next pass may overwrite only when it is done.
    pub(super) fn gradients_free(&self, layer: u32) -> Vec<Option<u32>> {
        let of_layer = |(bucket, reduced): (&crate::Bucket, &Option<u32>)| {
            bucket.layers.contains(&layer).then_some(*reduced)
        };
        let all = self.buckets.iter().zip(&self.reduced);
        all.filter_map(of_layer).collect()
    }

    /// The end of the step: what is left to reduce, the norm of all gradients where no rank has all
    /// of them, the update, and the parameters back to all.
    pub(super) fn update(&mut self) {
        if !self.layout.overlap {
            for bucket in 0..self.buckets.len() {
                self.reduce(bucket, self.share - 1);
            }
        }
        let mut needs = std::mem::take(&mut self.reductions);
        let layout = self.layout;
        let split =
            layout.world_size() > u64::from(layout.data_parallel) || layout.expert_parallel > 1;
        let sharded = self.layout.zero != Zero::None;
        if let Some(axis) = self.axes.of(Dimension::World).filter(|_| split || sharded) {
            needs = vec![Some(self.norm(axis, &needs))];
        }
        let optimizer = self.own_share("optimizer", Phase::Optimizer);
        let updated = self.emit.push(optimizer, &needs);
        if !matches!(self.layout.zero, Zero::Optimizer | Zero::Gradients) {
            return;
        }
        for bucket in 0..self.buckets.len() {
            if let Some(axis) = self.gradient_axis(bucket) {
                let (gather, phase) = (Collective::AllGather, Phase::ParameterGather);
                let operation = self.bucket_collective(bucket, axis, gather, phase);
                self.emit.push(operation, &[Some(updated)]);
            }
        }
    }

    /// The norm that gradients are clipped by: a number of the whole world, which no rank can
    /// update without.
    fn norm(&mut self, axis: u32, needs: &[Option<u32>]) -> u32 {
        let phase = Phase::GradientNorm;
        let own = self.own_share(phase.name(), phase);
        // Nobody else needs the input gradient of the first layer; without it the step could not be
        // cut at the norm.
        let mut needs = needs.to_vec();
        needs.push(self.emit.last_on(Stream::ModelCommunication));
        let own = self.emit.push(own, &needs);
        let kind = OperationKind::Collective(Collective::AllReduce);
        let all = Operation {
            axis: Some(axis),
            sequence: Some(self.emit.next_sequence(axis)),
            bytes: self.work.element_bytes,
            ..Operation::new(
                format!("{} all_reduce", phase.name()),
                kind,
                phase,
                Stream::Communication,
            )
        };
        self.emit.push(all, &[Some(own)])
    }

    /// Work on the parameters that this rank updates.
    fn own_share(&self, name: &str, phase: Phase) -> Operation {
        let elements: u64 = self.buckets.iter().map(crate::Bucket::shard).sum();
        let (kind, stream) = (OperationKind::Compute, Stream::Compute);
        Operation {
            bytes: elements * self.work.element_bytes,
            ..Operation::new(name.to_owned(), kind, phase, stream)
        }
    }

    /// The group that a bucket is reduced over, if it has more than one rank.
    fn gradient_axis(&self, bucket: usize) -> Option<u32> {
        self.axes.of(match self.buckets[bucket].experts {
            true => Dimension::ExpertGradient,
            false => Dimension::Gradient,
        })
    }

    fn bucket_collective(
        &mut self,
        bucket: usize,
        axis: u32,
        collective: Collective,
        phase: Phase,
    ) -> Operation {
        let kind = OperationKind::Collective(collective);
        let stream = match phase {
            Phase::ParameterGather => Stream::Gather,
            _ => Stream::Communication,
        };
        Operation {
            bucket: Some(bucket as u32),
            axis: Some(axis),
            sequence: Some(self.emit.next_sequence(axis)),
            bytes: self.buckets[bucket].elements * self.work.element_bytes,
            ..Operation::new(
                format!("bucket {bucket} {}", collective.name()),
                kind,
                phase,
                stream,
            )
        }
    }
}
