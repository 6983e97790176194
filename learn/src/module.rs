//! What every network and layer has in common: named parameters and buffers.

use crate::visit_tensor;
use rl_minibatch::{StateError, StateVisitor};
use tch::{TchError, Tensor};

/// What a tensor of a module is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Trained by an optimizer.
    Parameter,
    /// State that is not trained: running statistics, action scales.
    Buffer,
}

/// Something made of named tensors. The one walk serves optimizers, target networks and checkpoints alike.
pub trait Module {
    /// Shows every tensor once, always in the same order. Names are dotted paths as PyTorch's `state_dict` has them
    /// (`layers.0.weight`), without a prefix.
    fn walk(&self, show: &mut dyn FnMut(&str, &Tensor, Role));
}

/// Walks `module` with `prefix.` before each name.
pub fn walk_under(module: &dyn Module, prefix: &str, show: &mut dyn FnMut(&str, &Tensor, Role)) {
    module.walk(&mut |name, tensor, role| show(&format!("{prefix}.{name}"), tensor, role));
}

fn with_role(module: &dyn Module, wanted: Role) -> Vec<Tensor> {
    let mut out = Vec::new();
    module.walk(&mut |_, tensor, role| {
        if role == wanted {
            out.push(tensor.shallow_clone());
        }
    });
    out
}

/// Handles to the trained tensors of `module`, in walking order; they share its memory.
pub fn parameters(module: &dyn Module) -> Vec<Tensor> {
    with_role(module, Role::Parameter)
}

/// Handles to the untrained tensors of `module`, in walking order; they share its memory.
pub fn buffers(module: &dyn Module) -> Vec<Tensor> {
    with_role(module, Role::Buffer)
}

/// Shows every parameter and buffer of `module` to `visitor`.
///
/// # Errors
/// Those of the visitor.
pub fn visit_module(visitor: &mut dyn StateVisitor, module: &dyn Module) -> Result<(), StateError> {
    let mut result = Ok(());
    module.walk(&mut |name, tensor, _| {
        if result.is_ok() {
            result = visit_tensor(visitor, name, tensor);
        }
    });
    result
}

/// The gradients ∂loss/∂parameter, one a parameter, of a scalar `loss`. The graph is freed, and nothing accumulates in
/// the parameters.
///
/// # Panics
/// When `loss` is not a scalar, or does not depend on one of `parameters`: both are errors in an algorithm's own code.
pub fn gradients(loss: &Tensor, parameters: &[Tensor]) -> Vec<Tensor> {
    Tensor::run_backward(&[loss], parameters, false, false)
}

/// As [`gradients`], for losses whose backward pass can fail by no fault of the code: one that goes through a reducer.
///
/// # Errors
/// libtorch's, or what the failing function said.
pub fn try_gradients(loss: &Tensor, parameters: &[Tensor]) -> Result<Vec<Tensor>, TchError> {
    Tensor::f_run_backward(&[loss], parameters, false, false)
}
