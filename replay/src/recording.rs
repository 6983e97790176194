//! A state noted down in memory, to be shown to a visitor later.

use rl_minibatch::{Dtype, StateError, StateVisitor};

/// What a saving `visit` showed, in its order. Small state is copied under a lock this way, and shown to a slow visitor
/// when the lock is free again.
#[derive(Default)]
pub(crate) struct Recording {
    events: Vec<Event>,
}

enum Event {
    Enter(String),
    Leave,
    Array { name: String, dtype: Dtype, shape: Vec<usize>, bytes: Vec<u8> },
    Bytes { name: String, value: Vec<u8> },
}

impl Recording {
    /// Shows everything once more, to a visitor that saves.
    pub(crate) fn show(self, visitor: &mut dyn StateVisitor) -> Result<(), StateError> {
        for event in self.events {
            match event {
                Event::Enter(name) => visitor.enter(&name),
                Event::Leave => visitor.leave(),
                Event::Array { name, dtype, shape, mut bytes } => {
                    visitor.array(&name, dtype, &shape, &mut bytes)?;
                }
                Event::Bytes { name, mut value } => visitor.bytes(&name, &mut value)?,
            }
        }
        Ok(())
    }
}

impl StateVisitor for Recording {
    fn loading(&self) -> bool {
        false
    }

    fn enter(&mut self, name: &str) {
        self.events.push(Event::Enter(name.to_string()));
    }

    fn leave(&mut self) {
        self.events.push(Event::Leave);
    }

    fn array(
        &mut self,
        name: &str,
        dtype: Dtype,
        shape: &[usize],
        bytes: &mut [u8],
    ) -> Result<(), StateError> {
        let (name, shape, bytes) = (name.to_string(), shape.to_vec(), bytes.to_vec());
        self.events.push(Event::Array { name, dtype, shape, bytes });
        Ok(())
    }

    fn bytes(&mut self, name: &str, value: &mut Vec<u8>) -> Result<(), StateError> {
        self.events.push(Event::Bytes { name: name.to_string(), value: value.clone() });
        Ok(())
    }
}
