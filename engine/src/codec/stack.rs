//! A SEANet half (encoder or decoder) as a chain of streaming stages, with buffers sized once. Runner thread.

use std::sync::Arc;

use super::conv::{Conv, ConvState};
use super::lstm::{Lstm, LstmState};
use super::residual::{Residual, ResidualState};
use super::upsample::{Upsample, UpsampleState};
use crate::pool::Pool;

/// One layer of the chain.
pub(super) enum Stage {
    Conv(Conv),
    Upsample(Upsample),
    Lstm(Lstm),
    Residual(Residual),
}

enum StageState {
    Conv(ConvState),
    Upsample(UpsampleState),
    Lstm(LstmState),
    Residual(ResidualState),
}

impl Stage {
    fn inputs(&self) -> usize {
        match self {
            Stage::Conv(s) => s.inputs(),
            Stage::Upsample(s) => s.inputs(),
            Stage::Lstm(s) => s.width(),
            Stage::Residual(s) => s.inputs(),
        }
    }

    fn outputs(&self) -> usize {
        match self {
            Stage::Conv(s) => s.outputs(),
            Stage::Upsample(s) => s.outputs(),
            Stage::Lstm(s) => s.width(),
            Stage::Residual(s) => s.outputs(),
        }
    }

    fn rows_ready(&self, seen: usize) -> usize {
        match self {
            Stage::Conv(s) => s.rows_ready(seen),
            Stage::Upsample(s) => s.rows_ready(seen),
            Stage::Lstm(_) => seen,
            Stage::Residual(s) => s.rows_ready(seen),
        }
    }

    fn most_rows_out(&self, rows: usize) -> usize {
        match self {
            Stage::Conv(s) => s.most_rows_out(rows),
            Stage::Upsample(s) => s.most_rows_out(rows),
            Stage::Lstm(_) => rows,
            Stage::Residual(s) => s.most_rows_out(rows),
        }
    }

    fn state(&self, rows: usize) -> StageState {
        match self {
            Stage::Conv(s) => StageState::Conv(s.state(rows)),
            Stage::Upsample(s) => StageState::Upsample(s.state(rows)),
            Stage::Lstm(s) => StageState::Lstm(s.state(rows)),
            Stage::Residual(s) => StageState::Residual(s.state(rows)),
        }
    }

    fn reset(&self, state: &mut StageState) {
        match (self, state) {
            (Stage::Conv(s), StageState::Conv(state)) => s.reset(state),
            (Stage::Upsample(s), StageState::Upsample(state)) => s.reset(state),
            (Stage::Lstm(s), StageState::Lstm(state)) => s.reset(state),
            (Stage::Residual(s), StageState::Residual(state)) => s.reset(state),
            _ => unreachable!("a state belongs to the stage that made it"),
        }
    }

    fn push(
        &self,
        state: &mut StageState,
        input: &[f32],
        rows: usize,
        last: bool,
        out: &mut [f32],
        pool: &Pool,
    ) -> usize {
        match (self, state) {
            (Stage::Conv(s), StageState::Conv(state)) => s.push(state, input, rows, last, out, pool),
            (Stage::Upsample(s), StageState::Upsample(state)) => s.push(state, input, rows, last, out, pool),
            (Stage::Lstm(s), StageState::Lstm(state)) => s.push(state, input, rows, out, pool),
            (Stage::Residual(s), StageState::Residual(state)) => s.push(state, input, rows, last, out, pool),
            _ => unreachable!("a state belongs to the stage that made it"),
        }
    }
}

/// The chain, immutable and shared by its streams.
pub(super) struct Stack {
    stages: Vec<Stage>,
}

/// One stream through a [`Stack`].
pub(super) struct StackStream {
    states: Vec<StageState>,
    /// Rows between stages, in turns.
    even: Vec<f32>,
    odd: Vec<f32>,
    pool: Arc<Pool>,
}

impl Stack {
    pub(super) fn new(stages: Vec<Stage>) -> Self {
        Self { stages }
    }

    /// Values per output row.
    pub(super) fn outputs(&self) -> usize {
        self.stages.last().map_or(0, Stage::outputs)
    }

    /// Output rows that `seen` input rows determine before the end of the stream is known.
    pub(super) fn rows_ready(&self, seen: usize) -> usize {
        self.stages.iter().fold(seen, |rows, stage| stage.rows_ready(rows))
    }

    /// Most output rows that one push of `rows` can give, the end of the stream included.
    pub(super) fn most_rows_out(&self, rows: usize) -> usize {
        self.stages.iter().fold(rows, |rows, stage| stage.most_rows_out(rows))
    }

    /// An empty stream for pushes of at most `rows` rows, computed by the threads of `pool`; nothing allocates after this.
    pub(super) fn stream(&self, rows: usize, pool: Arc<Pool>) -> StackStream {
        let (mut rows, mut most) = (rows, 0);
        let mut states = Vec::with_capacity(self.stages.len());
        for stage in &self.stages {
            most = most.max(rows * stage.inputs());
            states.push(stage.state(rows));
            rows = stage.most_rows_out(rows);
            most = most.max(rows * stage.outputs());
        }
        StackStream { states, even: vec![0.0; most], odd: vec![0.0; most], pool }
    }

    /// Back to the start of a stream.
    pub(super) fn reset(&self, stream: &mut StackStream) {
        for (stage, state) in self.stages.iter().zip(&mut stream.states) {
            stage.reset(state);
        }
    }

    /// Takes `rows` rows written by `fill` and gives the newly determined output rows, time-major.
    /// `last` says that the stream ends with them.
    ///
    /// # Realtime safety
    /// No allocation, no lock.
    pub(super) fn push<'s>(
        &self,
        stream: &'s mut StackStream,
        rows: usize,
        last: bool,
        fill: impl FnOnce(&mut [f32]),
    ) -> &'s [f32] {
        let StackStream { states, even, odd, pool } = stream;
        let (mut from, mut to) = (even, odd);
        let mut rows = rows;
        if let Some(first) = self.stages.first() {
            fill(&mut from[..rows * first.inputs()]);
        }
        for (stage, state) in self.stages.iter().zip(states) {
            rows = stage.push(state, from, rows, last, to, pool);
            std::mem::swap(&mut from, &mut to);
        }
        &from[..rows * self.outputs()]
    }
}
