// What tch does not bind: foreach kernels, the allocator's settings, and opening libtorch's CUDA half.
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

// targets += weight * (sources - targets)
char* rl_foreach_lerp(at::Tensor* const* targets, at::Tensor* const* sources, size_t n, double weight);

// targets = sources
char* rl_foreach_copy(at::Tensor* const* targets, at::Tensor* const* sources, size_t n);

// targets += alpha * sources
char* rl_foreach_add(at::Tensor* const* targets, at::Tensor* const* sources, size_t n, double alpha);

// Scales `grads` so that their joint 2-norm is at most `max_norm`. *norm receives the norm before, as a new tensor.
char* rl_foreach_clip_norm(at::Tensor* const* grads, size_t n, double max_norm, at::Tensor** norm);
}
