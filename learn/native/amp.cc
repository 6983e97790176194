#include "amp.h"

#include <ATen/autocast_mode.h>

#include "guarded.h"

// The numbers that src/amp.rs gives.
static_assert(static_cast<int>(at::kHalf) == 5 && static_cast<int>(at::kFloat) == 6 &&
              static_cast<int>(at::kBFloat16) == 15);

namespace {

at::DeviceType kind(bool cuda) {
  return cuda ? at::kCUDA : at::kCPU;
}

}  // namespace

extern "C" {

Autocast rl_autocast_now(bool cuda) {
  return {at::autocast::is_autocast_enabled(kind(cuda)), at::autocast::is_autocast_cache_enabled(),
          static_cast<int>(at::autocast::get_autocast_dtype(kind(cuda)))};
}

Autocast rl_autocast(bool cuda, Autocast now) {
  auto before = rl_autocast_now(cuda);
  at::autocast::set_autocast_enabled(kind(cuda), now.enabled);
  at::autocast::set_autocast_cache_enabled(now.cached);
  at::autocast::set_autocast_dtype(kind(cuda), static_cast<at::ScalarType>(now.dtype));
  return before;
}

char* rl_unscale(at::Tensor* const* grads, size_t n, const at::Tensor* scale, at::Tensor** found_inf) {
  return rl::guarded([&] {
    auto g = rl::list(grads, n);
    auto found = at::zeros({}, scale->options());
    // Through f64, as PyTorch has it: the reciprocal of a scale is then the nearest f32.
    auto inverse = scale->to(at::kDouble).reciprocal().to(at::kFloat);
    if (n > 0) at::_amp_foreach_non_finite_check_and_unscale_(g, found, inverse);
    *found_inf = new at::Tensor(found);
  });
}

char* rl_update_scale(const at::Tensor* scale, const at::Tensor* growth_tracker, const at::Tensor* found_inf, double growth,
                      double backoff, long long interval) {
  return rl::guarded([&] {
    at::Tensor s = *scale, tracker = *growth_tracker;
    at::_amp_update_scale_(s, tracker, *found_inf, growth, backoff, interval);
  });
}

char* rl_accumulate(at::Tensor* const* sums, at::Tensor* const* terms, size_t n) {
  return rl::guarded([&] { at::_foreach_add_(rl::list(sums, n), rl::list(terms, n)); });
}

char* rl_squared_norm(at::Tensor* const* tensors, size_t n, at::Tensor** norm2) {
  return rl::guarded([&] {
    auto norms = at::_foreach_norm(rl::list(tensors, n));
    for (auto& norm : norms) norm = norm.to(norm.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
    *norm2 = new at::Tensor(at::stack(norms).square().sum());
  });
}

}  // extern "C"
