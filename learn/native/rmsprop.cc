#include "rmsprop.h"

#include <cmath>

// One version for each width of vectors, of which the loader takes the widest that the processor has. Compilers make vectors of the loop below by
// themselves, since build.rs lets √ not set errno; and with no product fused into a sum all versions round alike.
#if defined(__x86_64__) && defined(__linux__) && defined(__has_attribute)
#if __has_attribute(target_clones)
#define RL_EVERY_WIDTH __attribute__((target_clones("avx512f", "avx2", "default")))
#endif
#endif
#ifndef RL_EVERY_WIDTH
#define RL_EVERY_WIDTH
#endif

namespace rl {
namespace {

// Inlined into each version, or it would be compiled for the narrowest alone.
template <bool centered, bool momentum, bool decay>
inline __attribute__((always_inline)) void pass(const RmsPropSpan& span, const RmsPropNumbers& numbers) {
  float* __restrict p = span.param;
  const float* __restrict grad = span.grad;
  float* __restrict v = span.square_avg;
  float* __restrict mean = span.grad_avg;
  float* __restrict buffer = span.momentum;
  // Copies, which nothing that the loop writes can change.
  const RmsPropNumbers k = numbers;
  const int64_t n = span.n;
  const bool slow = k.fresh < 0.5f;
  const float rest = 1 - k.fresh;
  for (int64_t i = 0; i < n; ++i) {
    float g = grad[i];
    if (decay) g += k.weight_decay * p[i];
    float square = v[i] = v[i] * k.alpha + k.fresh * g * g;
    if (centered) {
      // As at::lerp, from the nearer end.
      float away = g - mean[i];
      float m = mean[i] = slow ? mean[i] + k.fresh * away : g - away * rest;
      square -= m * m;
    }
    float update = g / (std::sqrt(square) + k.eps);
    if (momentum) update = buffer[i] = buffer[i] * k.momentum + update;
    p[i] -= k.lr * update;
  }
}

template <bool centered, bool momentum>
inline __attribute__((always_inline)) void pass(const RmsPropSpan& span, const RmsPropNumbers& numbers) {
  if (numbers.weight_decay != 0) {
    pass<centered, momentum, true>(span, numbers);
  } else {
    pass<centered, momentum, false>(span, numbers);
  }
}

}  // namespace

RL_EVERY_WIDTH void rmsprop(const RmsPropSpan& span, const RmsPropNumbers& numbers) {
  if (span.grad_avg != nullptr) {
    span.momentum != nullptr ? pass<true, true>(span, numbers) : pass<true, false>(span, numbers);
  } else {
    span.momentum != nullptr ? pass<false, true>(span, numbers) : pass<false, false>(span, numbers);
  }
}

}  // namespace rl
