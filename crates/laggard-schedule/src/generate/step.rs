//! One pipeline stage's step.

use super::axes::{Axes, Dimension};
use super::emitter::Emitter;
use crate::graph::{Operation, OperationKind, Phase, Stream};
use crate::{Bucket, Layout, LayoutError, ModelWork, Pass, buckets, chunks, passes, slots};
use std::ops::Range;

/// The step of the ranks of one stage with so many micro-batches, being written down.
pub(super) struct Step<'a> {
    pub(super) layout: &'a Layout,
    pub(super) work: &'a ModelWork,
    pub(super) axes: &'a Axes,
    stage: u32,
    /// Micro-batches of the replica.
    pub(super) share: u32,
    chunks: Vec<Range<u32>>,
    pub(super) buckets: Vec<Bucket>,
    /// The passes in their order.
    order: Vec<Pass>,
    /// Micro-batches that there is memory for, by chunk.
    slots: Vec<u32>,
    pub(super) emit: Emitter,
    /// Last operation of each backward pass, by `[chunk][micro-batch]`.
    backward: Vec<Vec<Option<u32>>>,
    /// The sends of each pass to the next and to the previous piece.
    sent: [Vec<Vec<Option<u32>>>; 2],
    /// Last operation of each pass of a layer so far.
    pub(super) users: Vec<u32>,
    /// Last pass that used a bucket's parameters.
    pub(super) last_use: Vec<Option<u32>>,
    /// Last reduction of each bucket.
    pub(super) reduced: Vec<Option<u32>>,
    /// All reductions.
    pub(super) reductions: Vec<Option<u32>>,
}

/// The end of a pass that is sent on.
#[derive(Debug, Clone, Copy)]
enum Towards {
    Next = 0,
    Previous = 1,
}

impl<'a> Step<'a> {
    pub(super) fn new(
        layout: &'a Layout,
        work: &'a ModelWork,
        axes: &'a Axes,
        (stage, share): (u32, u32),
        first: u32,
    ) -> Result<Self, LayoutError> {
        let buckets = buckets(layout, work, stage)?;
        let count = layout.virtual_stages as usize;
        let table = vec![vec![None; share as usize]; count];
        let order = passes(layout, stage, share);
        Ok(Self {
            layout,
            work,
            axes,
            stage,
            share,
            chunks: chunks(layout, work, stage)?,
            slots: slots(&order, layout.virtual_stages, share),
            order,
            emit: Emitter::new(first),
            backward: table.clone(),
            sent: [table.clone(), table],
            users: Vec::new(),
            last_use: vec![None; buckets.len()],
            reduced: vec![None; buckets.len()],
            reductions: Vec::new(),
            buckets,
        })
    }

    pub(super) fn operations(mut self) -> Vec<Operation> {
        let input = "input".to_owned();
        let input = Operation::new(input, OperationKind::Host, Phase::Input, Stream::Host);
        self.emit.push(input, &[]);
        for pass in std::mem::take(&mut self.order) {
            match pass.phase {
                Phase::Backward => self.backward(pass),
                _ => self.forward(pass),
            }
        }
        self.update();
        self.emit.into_operations()
    }

    fn forward(&mut self, pass: Pass) {
        let (chunk, piece) = (pass.chunk as usize, self.piece(pass));
        let free = self.before(&self.backward, pass);
        let sent = self.before(&self.sent[Towards::Next as usize], pass);
        let arrived = (piece > 0).then(|| self.receive(pass, Stream::ReceiveForward, &[free]));
        let mut ready = vec![arrived, sent];
        for layer in self.chunks[chunk].clone() {
            let gathered = self.gather(layer, pass.micro_batch);
            ready.extend(gathered);
            let last = self.layer((Phase::Forward, layer, pass.micro_batch), &ready);
            self.used(layer, last);
            ready = vec![last];
        }
        if piece + 1 < self.layout.pieces() {
            self.send(pass, Stream::SendForward, &ready);
        }
    }

    fn backward(&mut self, pass: Pass) {
        let (chunk, piece) = (pass.chunk as usize, self.piece(pass));
        let free = self.before(&self.backward, pass);
        let sent = self.before(&self.sent[Towards::Previous as usize], pass);
        let computed = self.emit.last_on(Stream::Compute);
        let has_next = piece + 1 < self.layout.pieces();
        let arrived = has_next.then(|| {
            let needs = [free, sent, computed];
            self.receive(pass, Stream::ReceiveBackward, &needs)
        });
        let mut ready = vec![arrived, sent];
        let piece_start = self.chunks[chunk].start;
        for layer in self.chunks[chunk].clone().rev() {
            ready.extend(self.gather(layer, pass.micro_batch));
            let head = layer == self.work.transformer_layers();
            if self.layout.computes_again(layer - piece_start) && !head {
                // It writes again what was sent on.
                ready.push(self.sent[Towards::Next as usize][chunk][pass.micro_batch as usize]);
                let last = self.layer((Phase::Recompute, layer, pass.micro_batch), &ready);
                ready = vec![arrived, sent, last];
            }
            ready.extend(self.gradients_free(layer));
            let last = self.layer((Phase::Backward, layer, pass.micro_batch), &ready);
            self.used(layer, last);
            self.reduce_after(layer, pass.micro_batch);
            ready = vec![last];
        }
        self.backward[chunk][pass.micro_batch as usize] = ready[0];
        if piece > 0 {
            self.send(pass, Stream::SendBackward, &ready);
        }
    }

    /// What an earlier micro-batch of the same slot left in a table.
    fn before(&self, table: &[Vec<Option<u32>>], pass: Pass) -> Option<u32> {
        let chunk = pass.chunk as usize;
        let earlier = pass.micro_batch.checked_sub(self.slots[chunk])?;
        table[chunk][earlier as usize]
    }

    /// Position of a pass's piece in the model.
    fn piece(&self, pass: Pass) -> u32 {
        pass.chunk * self.layout.pipeline_parallel + self.stage
    }

    fn receive(&mut self, pass: Pass, stream: Stream, needs: &[Option<u32>]) -> u32 {
        let sender = match stream {
            Stream::ReceiveForward => self.piece(pass) - 1,
            _ => self.piece(pass) + 1,
        };
        let operation = self.transfer(pass, OperationKind::Receive, stream, sender);
        self.emit.push(operation, needs)
    }

    fn send(&mut self, pass: Pass, stream: Stream, needs: &[Option<u32>]) {
        let towards = match stream {
            Stream::SendForward => Towards::Next,
            _ => Towards::Previous,
        };
        let operation = self.transfer(pass, OperationKind::Send, stream, self.piece(pass));
        let sent = self.emit.push(operation, needs);
        self.sent[towards as usize][pass.chunk as usize][pass.micro_batch as usize] = Some(sent);
    }

    /// A transfer of activations or of their gradients from the piece `sender`.
    fn transfer(&self, pass: Pass, kind: OperationKind, stream: Stream, sender: u32) -> Operation {
        let (dimension, what) = match stream {
            Stream::SendForward | Stream::ReceiveForward => (Dimension::Forward, "activations"),
            _ => (Dimension::Backward, "gradients"),
        };
        let verb = match kind {
            OperationKind::Send => "send",
            _ => "receive",
        };
        let ranks = match self.layout.sequence_parallel {
            true => self.layout.context_parallel * self.layout.tensor_parallel,
            false => self.layout.context_parallel,
        };
        let chunk = &self.chunks[pass.chunk as usize];
        let layer = match stream {
            Stream::ReceiveForward | Stream::SendBackward => chunk.start,
            _ => chunk.end - 1,
        };
        let elements = self.work.stream_elements / u64::from(ranks);
        let name = format!("{verb} {what} of micro-batch {}", pass.micro_batch);
        Operation {
            layer: Some(layer),
            micro_batch: Some(pass.micro_batch),
            axis: self.axes.of(dimension),
            sequence: Some(sender * self.share + pass.micro_batch),
            bytes: elements * self.work.element_bytes,
            ..Operation::new(name, kind, Phase::PipelineTransfer, stream)
        }
    }
}
