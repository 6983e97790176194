// Opens the CUDA half of the shim, and what of asynchronous copies and number formats needs no CUDA header.
#pragma once
#include <ATen/ATen.h>

#include "cuda/functions.h"

extern "C" {

// Opens the library whose file has these bytes, and gives its functions. libtorch's CUDA half must be open.
char* rl_open_cuda_half(const unsigned char* bytes, size_t n, const RlCudaFunctions** out);

// target = source without waiting for the copy, where one of them is pinned memory and the other a GPU's.
char* rl_copy_async(const at::Tensor* target, const at::Tensor* source);

// Whether matrix products and convolutions of f32 on CUDA may round their inputs to TF32. For the whole process.
char* rl_allow_tf32(bool allow);
}
