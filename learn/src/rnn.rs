//! Recurrent layers, LSTM and GRU, over padded and over packed sequences.

use crate::init;
use crate::module::{Module, Role};
use rl_minibatch::Rng;
use tch::{Device, Kind, TchError, Tensor};

/// Which cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RnnKind {
    /// Long short-term memory (Hochreiter and Schmidhuber 1997) with a forget gate; gates in the order i, f, g, o.
    Lstm,
    /// Gated recurrent unit (Cho et al. 2014), as cuDNN has it; gates in the order r, z, n.
    Gru,
}

/// The shape of a recurrent network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RnnConfig {
    /// Which cell.
    pub kind: RnnKind,
    /// Columns of the input.
    pub inputs: i64,
    /// Columns of the hidden state.
    pub hidden: i64,
    /// Layers on top of each other.
    pub layers: i64,
    /// Whether each layer also runs from the end to the start; its output then has 2·hidden columns.
    pub bidirectional: bool,
}

/// The hidden state of every layer and direction.
#[derive(Debug)]
pub struct RnnState {
    /// `[layers · directions, B, hidden]`
    pub hidden: Tensor,
    /// The LSTM's cell state, of the same shape; none for a GRU.
    pub cell: Option<Tensor>,
}

/// What a recurrent network makes of sequences.
#[derive(Debug)]
pub struct RnnOutput {
    /// The last layer's hidden state at each step, with the directions side by side: `[T, B, directions · hidden]` for padded input, zero
    /// behind a sequence's end; `[ΣT, directions · hidden]` for packed.
    pub output: Tensor,
    /// The state after each sequence's last step.
    pub state: RnnState,
}

/// Sequences do not fit.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RnnError {
    /// The lengths are not those of the batch.
    #[error("{lengths} lengths came for a padded batch of {rows} sequences")]
    Count {
        /// How many lengths.
        lengths: usize,
        /// How many sequences.
        rows: i64,
    },
    /// A sequence has no step, or more than the padded batch.
    #[error("sequence {row} has {length} steps; a padded batch of {steps} steps takes 1 to {steps}")]
    Length {
        /// Which sequence.
        row: usize,
        /// Its length.
        length: i64,
        /// Steps of the batch.
        steps: i64,
    },
    /// libtorch refused the tensors.
    #[error("the recurrent network cannot take this input: {0}")]
    Torch(String),
}

impl From<TchError> for RnnError {
    fn from(error: TchError) -> Self {
        Self::Torch(crate::first_line(&error))
    }
}

/// LSTM or GRU as PyTorch's `LSTM` and `GRU`, with biases, and with their parameters' names (`weight_ih_l0`, …, `weight_ih_l0_reverse`).
///
/// There is no dropout between the layers: libtorch would draw it from a generator that no checkpoint holds.
#[derive(Debug)]
pub struct Rnn {
    config: RnnConfig,
    /// weight_ih, weight_hh, bias_ih, bias_hh of each layer and direction, as libtorch takes them.
    weights: Vec<Tensor>,
    names: Vec<String>,
}

impl Rnn {
    /// A network with PyTorch's initialisation: everything uniform in ±1/√hidden. The numbers come from `rng`.
    ///
    /// # Panics
    /// When a size is below 1.
    pub fn new(config: RnnConfig, rng: &mut Rng, kind: Kind, device: Device) -> Self {
        let RnnConfig { inputs, hidden, layers, .. } = config;
        assert!(
            inputs > 0 && hidden > 0 && layers > 0,
            "a recurrent network needs inputs, a state and a layer"
        );
        let gates = match config.kind {
            RnnKind::Lstm => 4,
            RnnKind::Gru => 3,
        };
        let bound = 1.0 / (hidden as f64).sqrt();
        let mut draw = |shape: &[i64]| init::uniform(shape, bound, rng, kind, device);
        let directions = if config.bidirectional { 2 } else { 1 };
        let (mut weights, mut names) = (Vec::new(), Vec::new());
        for layer in 0..layers {
            let columns = if layer == 0 { inputs } else { hidden * directions };
            for direction in 0..directions {
                let suffix = if direction == 1 { "_reverse" } else { "" };
                let rows = gates * hidden;
                weights.extend([draw(&[rows, columns]), draw(&[rows, hidden]), draw(&[rows]), draw(&[rows])]);
                let kinds = ["weight_ih", "weight_hh", "bias_ih", "bias_hh"];
                names.extend(kinds.map(|name| format!("{name}_l{layer}{suffix}")));
            }
        }
        Self { config, weights, names }
    }

    /// Columns of the output: the hidden state's, twice for both directions.
    pub fn outputs(&self) -> i64 {
        self.config.hidden * self.directions()
    }

    fn directions(&self) -> i64 {
        if self.config.bidirectional { 2 } else { 1 }
    }

    /// The state before the first step unless another is given: zeros for `rows` sequences.
    pub fn zero_state(&self, rows: i64) -> RnnState {
        let options = (self.weights[0].kind(), self.weights[0].device());
        let zeros =
            || Tensor::zeros([self.config.layers * self.directions(), rows, self.config.hidden], options);
        RnnState { hidden: zeros(), cell: (self.config.kind == RnnKind::Lstm).then(zeros) }
    }

    /// Sequences of one length, `x` `[T, B, inputs]`.
    ///
    /// # Errors
    /// [`RnnError::Torch`] for another shape, dtype or device, or another kind's state.
    pub fn forward(&self, x: &Tensor, state: Option<&RnnState>) -> Result<RnnOutput, RnnError> {
        let rows = x.size().get(1).copied().unwrap_or(0);
        self.run(state, rows, |rnn, hx| match rnn.kind {
            RnnKind::Lstm => {
                x.f_lstm(hx, &self.weights, true, rnn.layers, 0.0, false, rnn.bidirectional, false)
            }
            RnnKind::Gru => x
                .f_gru(&hx[0], &self.weights, true, rnn.layers, 0.0, false, rnn.bidirectional, false)
                .map(|(output, hidden)| (output, hidden, Tensor::new())),
        })
    }

    /// Packed sequences: `data` `[ΣT, inputs]` holds the steps of all sequences, first all first steps, then all second steps, …, the sequences
    /// in descending order of length; `batch_sizes`, i64 on the CPU, says how many sequences have each step. It is what PyTorch's
    /// `PackedSequence` holds. States are in the packed order.
    ///
    /// # Errors
    /// [`RnnError::Torch`] for another shape, dtype or device, or another kind's state.
    pub fn forward_packed(
        &self,
        data: &Tensor,
        batch_sizes: &Tensor,
        state: Option<&RnnState>,
    ) -> Result<RnnOutput, RnnError> {
        if batch_sizes.kind() != Kind::Int64
            || batch_sizes.device() != Device::Cpu
            || batch_sizes.numel() == 0
        {
            let why = "batch_sizes must be a list of i64 on the CPU, and not empty";
            return Err(RnnError::Torch(why.to_string()));
        }
        let rows = batch_sizes.int64_value(&[0]);
        self.run(state, rows, |rnn, hx| match rnn.kind {
            RnnKind::Lstm => {
                let (layers, both) = (rnn.layers, rnn.bidirectional);
                Tensor::f_lstm_data(data, batch_sizes, hx, &self.weights, true, layers, 0.0, false, both)
            }
            RnnKind::Gru => {
                let (layers, both) = (rnn.layers, rnn.bidirectional);
                Tensor::f_gru_data(data, batch_sizes, &hx[0], &self.weights, true, layers, 0.0, false, both)
                    .map(|(output, hidden)| (output, hidden, Tensor::new()))
            }
        })
    }

    /// Padded sequences of unequal lengths, `x` `[T, B, inputs]` with `lengths[b]` steps in column b, in any order. What stands behind a
    /// sequence's end is not looked at: the final state is that after its last step, and the way back begins there. Packs, runs and pads again.
    ///
    /// # Errors
    /// [`RnnError`].
    pub fn forward_padded(
        &self,
        x: &Tensor,
        lengths: &[i64],
        state: Option<&RnnState>,
    ) -> Result<RnnOutput, RnnError> {
        let size = x.size();
        if size.len() != 3 {
            return Err(RnnError::Torch(format!("padded sequences are [T, B, inputs], not {size:?}")));
        }
        let (steps, rows) = (size[0], size[1]);
        if lengths.len() as i64 != rows {
            return Err(RnnError::Count { lengths: lengths.len(), rows });
        }
        if let Some(row) = lengths.iter().position(|length| !(1..=steps).contains(length)) {
            return Err(RnnError::Length { row, length: lengths[row], steps });
        }
        // Longest first, and the way back. The lengths are the host's, so nothing is read from the device.
        let mut order: Vec<usize> = (0..lengths.len()).collect();
        order.sort_by_key(|&row| std::cmp::Reverse(lengths[row]));
        let mut place = vec![0i64; order.len()];
        order.iter().enumerate().for_each(|(at, &row)| place[row] = at as i64);
        let sorted: Vec<i64> = order.iter().map(|&row| lengths[row]).collect();
        let device = x.device();
        let order: Vec<i64> = order.iter().map(|&row| row as i64).collect();
        let (order, place) =
            (Tensor::from_slice(&order).to_device(device), Tensor::from_slice(&place).to_device(device));
        let arranged = |state: &RnnState, by: &Tensor| RnnState {
            hidden: state.hidden.index_select(1, by),
            cell: state.cell.as_ref().map(|cell| cell.index_select(1, by)),
        };
        let (data, batch_sizes) =
            x.index_select(1, &order).f_internal_pack_padded_sequence(&Tensor::from_slice(&sorted), false)?;
        let state = state.map(|state| arranged(state, &order));
        let packed = self.forward_packed(&data, &batch_sizes, state.as_ref())?;
        let (output, _) =
            Tensor::f_internal_pad_packed_sequence(&packed.output, &batch_sizes, false, 0.0, steps)?;
        Ok(RnnOutput { output: output.index_select(1, &place), state: arranged(&packed.state, &place) })
    }

    fn run(
        &self,
        state: Option<&RnnState>,
        rows: i64,
        call: impl FnOnce(&RnnConfig, &[Tensor]) -> Result<(Tensor, Tensor, Tensor), TchError>,
    ) -> Result<RnnOutput, RnnError> {
        let zeros;
        let state = match state {
            Some(state) => state,
            None => {
                zeros = self.zero_state(rows);
                &zeros
            }
        };
        let lstm = self.config.kind == RnnKind::Lstm;
        if state.cell.is_some() != lstm {
            let (has, wants) =
                if lstm { ("without", "an LSTM needs one") } else { ("with", "a GRU has none") };
            return Err(RnnError::Torch(format!("a state came {has} a cell state, and {wants}")));
        }
        let hx: Vec<Tensor> = [Some(&state.hidden), state.cell.as_ref()]
            .into_iter()
            .flatten()
            .map(Tensor::shallow_clone)
            .collect();
        let (output, hidden, cell) = call(&self.config, &hx)?;
        Ok(RnnOutput { output, state: RnnState { hidden, cell: lstm.then_some(cell) } })
    }
}

impl Module for Rnn {
    fn walk(&self, show: &mut dyn FnMut(&str, &Tensor, Role)) {
        for (name, weight) in self.names.iter().zip(&self.weights) {
            show(name, weight, Role::Parameter);
        }
    }
}
