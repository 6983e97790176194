// Places in the autograd graph whose backward pass is a caller's function, and backward passes from given gradients.
//
// The conventions are shim.h's.
#pragma once
#include <cstddef>

namespace at {
class Tensor;
}

extern "C" {
// A copy of a message, for functions that answer as this shim does and are not written in C.
char* rl_message(const char* text);

// A backward pass: the gradient of the output and the saved tensors, all for the callee to keep, in; into `grad_inputs` a new
// tensor for each input, or null where it has none. Returns nullptr or a message made by rl_message.
typedef char* (*rl_backward_fn)(void* context, at::Tensor* grad_output, at::Tensor** saved, size_t n_saved,
                                at::Tensor** grad_inputs, size_t n_inputs);

// *result receives `output` as the value of a function of `inputs` whose backward pass is `call`. `saved` are handed to it, after
// the check that nobody wrote into them in the meantime; they must not include the output. The context belongs to the
// graph from here on, also when this fails: `drop` ends it. Without gradients wanted, *result is `output` outside the graph.
char* rl_with_backward(const at::Tensor* output, at::Tensor* const* inputs, size_t n_inputs, at::Tensor* const* saved,
                       size_t n_saved, void* context, rl_backward_fn call, void (*drop)(void*), at::Tensor** result);

// Vector-Jacobian products: results[i] receives the sum over k of grads[k] * d outputs[k] / d inputs[i] as a new tensor, or null
// where no output depends on the input. The graph is freed, and nothing accumulates in the inputs.
char* rl_backward(at::Tensor* const* outputs, at::Tensor* const* grads, size_t n_outputs, at::Tensor* const* inputs,
                  size_t n_inputs, at::Tensor** results);
}
