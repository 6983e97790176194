//! Tensors as pieces of state.

use rl_minibatch::{Dtype, StateError, StateVisitor};
use tch::{Kind, Tensor, no_grad};

/// The element type under which a tensor's kind is stored; `None` for kinds that no state here has.
pub(crate) fn dtype_of(kind: Kind) -> Option<Dtype> {
    Some(match kind {
        Kind::Bool => Dtype::Bool,
        Kind::Uint8 => Dtype::U8,
        Kind::Int => Dtype::I32,
        Kind::Int64 => Dtype::I64,
        Kind::Half => Dtype::F16,
        Kind::BFloat16 => Dtype::Bf16,
        Kind::Float => Dtype::F32,
        Kind::Double => Dtype::F64,
        _ => return None,
    })
}

/// The tensor kind that holds a column's element type.
pub(crate) fn kind_of(dtype: Dtype) -> Kind {
    match dtype {
        Dtype::Bool => Kind::Bool,
        Dtype::U8 => Kind::Uint8,
        Dtype::I32 => Kind::Int,
        Dtype::I64 => Kind::Int64,
        Dtype::F16 => Kind::Half,
        Dtype::Bf16 => Kind::BFloat16,
        Dtype::F32 => Kind::Float,
        Dtype::F64 => Kind::Double,
    }
}

/// Shows `tensor` to `visitor` under `name`, whatever device it is on. Loading copies into the tensor in place, so that
/// everything that shares its memory (an optimizer, a captured graph) sees the new values.
///
/// # Errors
/// Those of [`StateVisitor::array`].
pub fn visit_tensor(visitor: &mut dyn StateVisitor, name: &str, tensor: &Tensor) -> Result<(), StateError> {
    let kind = tensor.kind();
    let dtype = dtype_of(kind).ok_or_else(|| StateError::Invalid {
        path: name.to_string(),
        why: format!("a tensor of kind {kind:?} cannot be stored"),
    })?;
    let size = tensor.size();
    let shape: Vec<usize> = size.iter().map(|&d| d as usize).collect();
    let elements = tensor.numel();
    let mut bytes = vec![0u8; elements * dtype.size_bytes()];
    if !visitor.loading() {
        tensor.detach().to_device(tch::Device::Cpu).contiguous().copy_data_u8(&mut bytes, elements);
    }
    visitor.array(name, dtype, &shape, &mut bytes)?;
    if visitor.loading() {
        let loaded = Tensor::from_data_size(&bytes, &size, kind);
        no_grad(|| tensor.shallow_clone().copy_(&loaded));
    }
    Ok(())
}
