// A chain of linear layers as one place in the autograd graph. Conventions: see shim.h.
#pragma once
#include <cstddef>

namespace at {
class Tensor;
}

extern "C" {
// The function after a layer.
enum RlActivation { RL_NONE = 0, RL_RELU = 1, RL_TANH = 2 };

// *out receives f_n(… f_1(x·W_1ᵀ + b_1) …·W_nᵀ + b_n), a new tensor [B, outputs]: f is `hidden` after each layer but the last and `last` after that one.
// With `joined` (else null) its columns follow those of the first layer's result as the second layer's input. f32 or f64, on one device.
//
// It is one node of the graph, whose backward pass gives the gradients that are asked for and no others, and cannot be differentiated
// again. On a CPU whose kernels have a product (kernels/kernels.h), f32 goes through them; else, and on a GPU, it is libtorch's operators
// without autograd.
char* rl_perceptron(const at::Tensor* x, const at::Tensor* joined, at::Tensor* const* weights, at::Tensor* const* biases,
                    size_t layers, int hidden, int last, at::Tensor** out);
}
