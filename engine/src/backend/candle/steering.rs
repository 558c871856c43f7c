//! What is added to the blocks' outputs, as tensors that cover all rows of a step: injected tables, and pushes that look at the
//! state first. Tables are put on the device when they are new. Runner thread.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

use candle_core::{D, Result, Tensor};

use super::device::CandleDevice;
use crate::backend::{MOST_ROWS, Step};
use crate::steering::push::Push;

/// Most tables of directions that are kept on the device: those of a step's rows and as many that may come back.
const MOST_HELD: usize = 32;

/// A table `[blocks * hidden]` as it was given, and on the device, `[blocks][1][hidden]`.
type Kept = (Vec<f32>, Tensor);

/// Tables on the device.
pub(super) struct Steering {
    device: CandleDevice,
    blocks: usize,
    hidden: usize,
    /// Nothing, for rows that have no table.
    nothing: Tensor,
    /// The step's tables as they were the last time that they were used, by their versions.
    injected: Vec<Option<(u64, Tensor)>>,
    /// Directions of pushes, the one used last at the end. They are told apart by what they hold: a place in memory may have
    /// come to hold another's.
    held: Vec<Kept>,
}

/// One push of each row, for every block.
pub(super) struct Pushed {
    /// `[blocks][rows][hidden]`.
    directions: Tensor,
    /// `[blocks][rows][1]`: projections that are wanted, the least and the most that is added.
    wanted: Tensor,
    least: Tensor,
    most: Tensor,
}

impl Steering {
    pub fn new(device: &CandleDevice, blocks: usize, hidden: usize) -> Result<Self> {
        let nothing = device.exact(vec![0.0; blocks * hidden], (blocks, 1, hidden))?;
        Ok(Self { device: device.clone(), blocks, hidden, nothing, injected: Vec::new(), held: Vec::new() })
    }

    fn put(&self, table: &[f32]) -> Result<Kept> {
        Ok((table.to_vec(), self.device.exact(table.to_vec(), (self.blocks, 1, self.hidden))?))
    }

    /// `[blocks][rows][hidden]` of what each row has.
    fn joined<'a>(&'a self, of: impl Fn(usize) -> Option<&'a Tensor>) -> Result<Tensor> {
        let rows: [&Tensor; MOST_ROWS] = std::array::from_fn(|row| of(row).unwrap_or(&self.nothing));
        Tensor::cat(&rows, 1)
    }

    /// What the step injects, `[blocks][rows][hidden]`; `None` when it injects nothing.
    pub fn injected(&mut self, step: &Step<'_>) -> Result<Option<Tensor>> {
        let slot_of = |row: usize| step.rows.get(row).and_then(|row| row.injection);
        if (0..step.rows.len()).all(|row| slot_of(row).is_none()) {
            return Ok(None);
        }
        self.injected.resize_with(self.injected.len().max(step.tables.len()), || None);
        for (slot, table) in step.tables.iter().enumerate() {
            let used = step.rows.iter().any(|row| row.injection == Some(slot));
            if used && self.injected[slot].as_ref().is_none_or(|(known, _)| *known != table.version) {
                self.injected[slot] = Some((table.version, self.put(&table.values)?.1));
            }
        }
        let kept = |row| Some(&self.injected.get(slot_of(row)?)?.as_ref()?.1);
        self.joined(kept).map(Some)
    }

    /// A push's directions on the device, where they are put if they are not there.
    fn hold(&mut self, directions: &[f32]) -> Result<Tensor> {
        let kept = match self.held.iter().position(|(known, _)| known == directions) {
            Some(place) => self.held.remove(place),
            None => self.put(directions)?,
        };
        if self.held.len() == MOST_HELD {
            self.held.remove(0);
        }
        let tensor = kept.1.clone();
        self.held.push(kept);
        Ok(tensor)
    }

    /// The first push of every row, the second of every row, and so on: each sees what those before it have made.
    pub fn pushes(&mut self, step: &Step<'_>) -> Result<Vec<Pushed>> {
        let count = step.rows.iter().map(|row| row.pushes.len()).max().unwrap_or(0);
        (0..count).map(|nth| self.pushed(|row| step.rows.get(row).and_then(|row| row.pushes.get(nth)))).collect()
    }

    fn pushed<'a>(&mut self, of: impl Fn(usize) -> Option<&'a Push<'a>>) -> Result<Pushed> {
        let mut directions: [Option<Tensor>; MOST_ROWS] = [const { None }; MOST_ROWS];
        for (row, directions) in directions.iter_mut().enumerate() {
            *directions = of(row).map(|push| self.hold(push.directions)).transpose()?;
        }
        let numbers = |number: &dyn Fn(&Push<'_>, usize) -> f32| {
            let values = (0..self.blocks)
                .flat_map(|block| (0..MOST_ROWS).map(move |row| (block, row)))
                .map(|(block, row)| of(row).map_or(0.0, |push| number(push, block)))
                .collect();
            self.device.exact(values, (self.blocks, MOST_ROWS, 1))
        };
        let limit = |push: &Push<'_>, block: usize| push.limits[block] * push.share;
        Ok(Pushed {
            directions: self.joined(|row| directions[row].as_ref())?,
            wanted: numbers(&|push, block| {
                let (without, with) = (push.levels[2 * block], push.levels[2 * block + 1]);
                without + push.reach * (with - without)
            })?,
            // A class's level lies above that of the rest, so the sign of the reach is that of the push.
            least: numbers(&|push, block| if push.reach > 0.0 { 0.0 } else { -limit(push, block) })?,
            most: numbers(&|push, block| if push.reach > 0.0 { limit(push, block) } else { 0.0 })?,
        })
    }
}

impl Pushed {
    /// Brings every row of a block's output up to its level, or down to it.
    pub fn apply(&self, block: usize, x: &Tensor) -> Result<Tensor> {
        let directions = self.directions.get(block)?;
        let found = (x * &directions)?.sum_keepdim(D::Minus1)?;
        let lacking = (self.wanted.get(block)? - found)?;
        let amount = lacking.minimum(&self.most.get(block)?)?.maximum(&self.least.get(block)?)?;
        x + directions.broadcast_mul(&amount)?
    }
}
