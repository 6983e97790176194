// What tch does not bind: fused and foreach kernels, the allocator's settings, and opening libtorch's CUDA half.
//
// Conventions: a tensor pointer is tch's own `at::Tensor*`, a list is an array of them with its length. Every function
// returns nullptr, or a message that the caller frees with rl_free. Nothing throws across this boundary.
#pragma once
#include <cstddef>
#include <cstdint>

namespace at {
class Tensor;
}

extern "C" {
void rl_free(char* message);

// Keeps freed blocks in the process instead of handing them back to the kernel and faulting them in again.
void rl_keep_freed_memory();

// Opens libtorch_cuda.so, without which libtorch does not know of CUDA at all.
char* rl_open_cuda();

// torch.optim.Adam / AdamW in one kernel call. `steps` are f32 scalars, counted up here; `lr` is a scalar tensor. A `found_inf` (f32
// scalar, may be null) that is 1 makes the step do nothing, the counts included.
char* rl_fused_adam(at::Tensor* const* params, at::Tensor* const* grads, at::Tensor* const* exp_avgs,
                    at::Tensor* const* exp_avg_sqs, at::Tensor* const* steps, size_t n, const at::Tensor* lr,
                    double beta1, double beta2, double weight_decay, double eps, bool decoupled,
                    const at::Tensor* found_inf);

// torch.optim.SGD in one kernel call; `momenta` may be null when momentum is 0. `first` writes the momenta anew. `found_inf`: as above.
char* rl_fused_sgd(at::Tensor* const* params, at::Tensor* const* grads, at::Tensor* const* momenta, size_t n,
                   const at::Tensor* lr, double momentum, double dampening, double weight_decay, bool nesterov,
                   bool first, const at::Tensor* found_inf);

// torch.optim.RMSprop in foreach calls; `grad_avgs` is null when not centered, `momenta` when momentum is 0.
char* rl_foreach_rmsprop(at::Tensor* const* params, at::Tensor* const* grads, at::Tensor* const* square_avgs,
                         at::Tensor* const* grad_avgs, at::Tensor* const* momenta, size_t n, const at::Tensor* lr,
                         double alpha, double eps, double weight_decay, double momentum);

// targets += weight * (sources - targets)
char* rl_foreach_lerp(at::Tensor* const* targets, at::Tensor* const* sources, size_t n, double weight);

// targets = sources
char* rl_foreach_copy(at::Tensor* const* targets, at::Tensor* const* sources, size_t n);

// Scales `grads` so that their joint 2-norm is at most `max_norm`. *norm receives the norm before, as a new tensor.
char* rl_foreach_clip_norm(at::Tensor* const* grads, size_t n, double max_norm, at::Tensor** norm);
}
