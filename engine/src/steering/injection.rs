//! What a slot of a step injects, worked out anew only when the doses have moved: lanes move seldom, compared with frames. Runner
//! thread.

use super::doses::Doses;
use super::table::Steering;
use crate::backend::Table;

/// The table of one slot, and what it was made of.
pub struct Injection {
    table: Table,
    /// The doses that it was made of, and whether they add anything.
    made_of: Option<(Doses, bool)>,
}

impl Injection {
    /// Of `width` numbers: blocks times the hidden width.
    pub fn new(width: usize) -> Self {
        Self { table: Table { values: vec![0.0; width], version: 0 }, made_of: None }
    }

    /// As [`Steering::write`].
    ///
    /// # Realtime safety
    /// Neither allocates nor waits.
    pub fn write(&mut self, steering: &Steering, doses: &Doses, step: u32) -> bool {
        if let Some((known, adds)) = &self.made_of
            && known == doses
        {
            return *adds;
        }
        let adds = steering.write(doses, step, &mut self.table.values);
        self.table.version += u64::from(adds);
        self.made_of = steering.is_steady(doses).then_some((*doses, adds));
        adds
    }

    /// The same doses may mean something else from here on.
    pub fn forget(&mut self) {
        self.made_of = None;
    }

    pub fn table(&self) -> &Table {
        &self.table
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steering::directions::tests::example;
    use crate::steering::doses::{Dose, Lane};
    use crate::steering::table::LaneTable;

    #[test]
    fn it_is_made_anew_when_doses_or_their_meaning_change() {
        let mut steering = Steering::new(2, 4);
        let mut directions = example();
        steering.set(Lane::Note, LaneTable::new(&directions, "example", Lane::Note).expect("12 notes"));
        let doses = |amount: f32| {
            let mut doses = Doses::NONE;
            doses.push(Dose { lane: Lane::Note, class: 0, amount });
            doses
        };
        let mut injection = Injection::new(8);
        assert!(!injection.write(&steering, &Doses::NONE, 0));
        assert_eq!(injection.table().version, 0);
        assert!(injection.write(&steering, &doses(0.5), 1));
        let (version, values) = (injection.table().version, injection.table().values.clone());
        assert!(injection.write(&steering, &doses(0.5), 2));
        assert_eq!((injection.table().version, &injection.table().values), (version, &values));
        assert!(injection.write(&steering, &doses(1.0), 3));
        assert!(injection.table().version > version && injection.table().values[0] == 2.0 * values[0]);
        // Twice the directions: the same doses are twice as much.
        directions.full_dose *= 2.0;
        steering.set(Lane::Note, LaneTable::new(&directions, "example", Lane::Note).expect("12 notes"));
        injection.forget();
        assert!(injection.write(&steering, &doses(1.0), 4));
        assert_eq!(injection.table().values[0], 4.0 * values[0]);
        // A coin for each block and step: what one step gets, the next may not.
        directions.gate = 0.5;
        steering.set(Lane::Note, LaneTable::new(&directions, "example", Lane::Note).expect("12 notes"));
        injection.forget();
        let mut sums = Vec::new();
        for step in 0..32 {
            injection.write(&steering, &doses(1.0), step);
            sums.push(injection.table().values.iter().map(|x| x.abs()).sum::<f32>());
        }
        assert!(sums.contains(&0.0) && sums.iter().any(|sum| *sum > 0.0), "{sums:?}");
    }
}
