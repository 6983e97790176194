#include "shim.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <c10/util/Exception.h>

#include <cstring>
#include <optional>
#include <vector>

#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <dlfcn.h>

namespace {

char* copy_message(const char* text) {
  return strdup(text);
}

// Runs `body`, turning whatever it throws into a message without libtorch's backtrace.
template <typename Body>
char* guarded(Body body) {
  try {
    at::NoGradGuard no_grad;
    body();
    return nullptr;
  } catch (const c10::Error& error) {
    return copy_message(error.what_without_backtrace());
  } catch (const std::exception& error) {
    return copy_message(error.what());
  } catch (...) {
    return copy_message("an unknown C++ exception");
  }
}

std::vector<at::Tensor> list(at::Tensor* const* tensors, size_t n) {
  std::vector<at::Tensor> out;
  if (tensors == nullptr) return out;
  out.reserve(n);
  for (size_t i = 0; i < n; ++i) out.push_back(*tensors[i]);
  return out;
}

std::optional<at::Tensor> optional(const at::Tensor* tensor) {
  return tensor == nullptr ? std::nullopt : std::optional<at::Tensor>(*tensor);
}

}  // namespace

extern "C" {

void rl_free(char* message) {
  free(message);
}

void rl_keep_freed_memory() {
#ifdef __GLIBC__
  // glibc maps every block over 128 KB afresh, and a new mapping costs a page fault for each 4 KB touched.
  mallopt(M_MMAP_THRESHOLD, 1 << 30);
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
  mallopt(M_TOP_PAD, 64 << 20);
#endif
}

char* rl_open_cuda() {
#ifdef __APPLE__
  return copy_message("there is no CUDA on macOS");
#else
  return dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL) == nullptr ? copy_message(dlerror()) : nullptr;
#endif
}

char* rl_fused_adam(at::Tensor* const* params, at::Tensor* const* grads, at::Tensor* const* exp_avgs,
                    at::Tensor* const* exp_avg_sqs, at::Tensor* const* steps, size_t n, const at::Tensor* lr,
                    double beta1, double beta2, double weight_decay, double eps, bool decoupled,
                    const at::Tensor* found_inf) {
  return guarded([&] {
    auto p = list(params, n), g = list(grads, n), m = list(exp_avgs, n), v = list(exp_avg_sqs, n), t = list(steps, n);
    auto found = optional(found_inf);
    if (found) {
      at::_foreach_add_(t, 1 - *found);
    } else {
      at::_foreach_add_(t, 1);
    }
    if (decoupled) {
      at::_fused_adamw_(p, g, m, v, {}, t, *lr, beta1, beta2, weight_decay, eps, /*amsgrad=*/false, /*maximize=*/false,
                          /*grad_scale=*/{}, found);
    } else {
      at::_fused_adam_(p, g, m, v, {}, t, *lr, beta1, beta2, weight_decay, eps, /*amsgrad=*/false, /*maximize=*/false,
                         /*grad_scale=*/{}, found);
    }
  });
}

char* rl_fused_sgd(at::Tensor* const* params, at::Tensor* const* grads, at::Tensor* const* momenta, size_t n,
                   const at::Tensor* lr, double momentum, double dampening, double weight_decay, bool nesterov,
                   bool first, const at::Tensor* found_inf) {
  return guarded([&] {
    auto p = list(params, n), g = list(grads, n), m = list(momenta, n);
    at::_fused_sgd_(p, g, m, weight_decay, momentum, *lr, dampening, nesterov, /*maximize=*/false, first, /*grad_scale=*/{},
                    optional(found_inf));
  });
}

char* rl_foreach_rmsprop(at::Tensor* const* params, at::Tensor* const* grads, at::Tensor* const* square_avgs,
                         at::Tensor* const* grad_avgs, at::Tensor* const* momenta, size_t n, const at::Tensor* lr,
                         double alpha, double eps, double weight_decay, double momentum) {
  return guarded([&] {
    auto p = list(params, n), g = list(grads, n), square_avg = list(square_avgs, n);
    if (weight_decay != 0) g = at::_foreach_add(g, p, weight_decay);
    at::_foreach_mul_(square_avg, alpha);
    at::_foreach_addcmul_(square_avg, g, g, 1 - alpha);
    std::vector<at::Tensor> denominator;
    if (grad_avgs != nullptr) {
      auto grad_avg = list(grad_avgs, n);
      at::_foreach_lerp_(grad_avg, g, 1 - alpha);
      denominator = at::_foreach_addcmul(square_avg, grad_avg, grad_avg, -1);
      at::_foreach_sqrt_(denominator);
    } else {
      denominator = at::_foreach_sqrt(square_avg);
    }
    at::_foreach_add_(denominator, eps);
    auto update = at::_foreach_div(g, denominator);
    if (momentum > 0) {
      auto buffer = list(momenta, n);
      at::_foreach_mul_(buffer, momentum);
      at::_foreach_add_(buffer, update);
      update = at::_foreach_mul(buffer, *lr);
    } else {
      at::_foreach_mul_(update, *lr);
    }
    at::_foreach_sub_(p, update);
  });
}

char* rl_foreach_lerp(at::Tensor* const* targets, at::Tensor* const* sources, size_t n, double weight) {
  return guarded([&] { at::_foreach_lerp_(list(targets, n), list(sources, n), weight); });
}

char* rl_foreach_copy(at::Tensor* const* targets, at::Tensor* const* sources, size_t n) {
  return guarded([&] { at::_foreach_copy_(list(targets, n), list(sources, n)); });
}

char* rl_foreach_clip_norm(at::Tensor* const* grads, size_t n, double max_norm, at::Tensor** norm) {
  return guarded([&] {
    auto g = list(grads, n);
    auto total = at::stack(at::_foreach_norm(g)).norm();
    // The comparison stays on the device: a factor of at most 1 is multiplied in whether or not it is needed.
    at::_foreach_mul_(g, (max_norm / (total + 1e-6)).clamp_max(1.0));
    *norm = new at::Tensor(total);
  });
}

}  // extern "C"
