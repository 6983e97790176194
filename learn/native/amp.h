// Mixed precision: autocast, and the arithmetic of a gradient scaler. Conventions: see shim.h.
#pragma once
#include <cstddef>

namespace at {
class Tensor;
}

extern "C" {
// What autocast does on one kind of device, in this thread. `dtype` is libtorch's number of a type (tch's Kind has the same).
struct Autocast {
  bool enabled;
  bool cached;
  int dtype;
};

// Puts `now` in force on the CPU, or on CUDA, and gives what was before. Neither throws.
Autocast rl_autocast(bool cuda, Autocast now);
Autocast rl_autocast_now(bool cuda);

// Multiplies `grads` by 1/scale in place; *found_inf receives a new f32 scalar, 1 where an element was not finite, else 0.
char* rl_unscale(at::Tensor* const* grads, size_t n, const at::Tensor* scale, at::Tensor** found_inf);

// scale *= backoff after an overflow, *= growth after `interval` updates without one (torch.amp.GradScaler.update).
char* rl_update_scale(const at::Tensor* scale, const at::Tensor* growth_tracker, const at::Tensor* found_inf, double growth,
                      double backoff, long long interval);

// sums += terms
char* rl_accumulate(at::Tensor* const* sums, at::Tensor* const* terms, size_t n);

// *norm2 receives the joint squared 2-norm as a new scalar, f32 at least.
char* rl_squared_norm(at::Tensor* const* tensors, size_t n, at::Tensor** norm2);
}
