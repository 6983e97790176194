//! What a checkpoint holds of a buffer on the device.

use super::DeviceReplay;
use super::choice::Choice;
use super::intake::runs;
use crate::state::visit_tensor;
use rl_minibatch::{StateError, StateVisitor, scalar, scope};
use std::ops::Range;
use tch::Tensor;

impl DeviceReplay {
    /// Shows everything that future draws depend on: the live rows, column by column, oldest first; priorities and their sums; the
    /// random numbers' count. The inlet, with rows not taken yet, is its owner's to show. A state goes with a buffer of the same
    /// capacity, schema and settings.
    ///
    /// # Errors
    /// Those of the visitor; [`StateError::Invalid`] for counters that make no sense.
    pub fn visit(&mut self, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        let (mut capacity, mut taken, mut from) = (self.capacity, self.taken, self.from);
        scalar(visitor, "capacity", &mut capacity)?;
        scalar(visitor, "taken", &mut taken)?;
        scalar(visitor, "from", &mut from)?;
        if visitor.loading() {
            let invalid = |path: &str, why: String| Err(StateError::Invalid { path: path.to_string(), why });
            if capacity != self.capacity {
                let why = format!(
                    "{capacity} rows were kept and now {}; a buffer on the device resumes with the same capacity",
                    self.capacity
                );
                return invalid("capacity", why);
            }
            if from > taken || taken > u64::MAX / 2 {
                return invalid("taken", format!("{taken} rows, drawn from row {from} on"));
            }
            (self.taken, self.from) = (taken, from);
        }
        let live = self.live();
        let slots: Vec<Range<i64>> = runs(live, self.capacity).collect();
        scope(visitor, "rows", |v| {
            for (i, field) in self.schema.fields().iter().enumerate() {
                let column = |slots: &Range<i64>| {
                    let rows = self.storage.narrow(0, slots.start, slots.end - slots.start);
                    self.words.column(&rows, i)
                };
                let parts: Vec<Tensor> = slots.iter().map(column).collect();
                if parts.is_empty() {
                    continue;
                }
                let whole = Tensor::cat(&parts, 0);
                visit_tensor(v, &field.name, &whole)?;
                if v.loading() {
                    let mut done = 0;
                    for mut part in parts {
                        let n = part.size()[0];
                        part.copy_(&whole.narrow(0, done, n));
                        done += n;
                    }
                }
            }
            Ok(())
        })?;
        if let Some(stacks) = &mut self.stacks {
            scope(visitor, "frames", |v| stacks.store.visit(v))?;
        }
        scope(visitor, "random", |v| self.random.visit(v))?;
        scope(visitor, "sampler", |v| match &mut self.choice {
            Choice::Uniform { .. } => Ok(()),
            Choice::Proportional(p) => {
                visit_tensor(v, "largest", &p.largest)?;
                p.sums.visit(v)
            }
        })
    }
}
