#include "rmsprop.h"

#include <cmath>

// One version for each width of vectors, of which the loader takes the widest that the processor has. Compilers make vectors of the loop below by
// themselves, since build.rs lets √ not set errno. Products are fused into sums where libtorch's kernels do so and nowhere else, to round as they
// do. Without the instruction std::fma is slow and rounds the same.
#if defined(__x86_64__) && defined(__linux__) && defined(__has_attribute)
#if __has_attribute(target_clones)
#define RL_EVERY_WIDTH __attribute__((target_clones("avx512f", "arch=haswell", "default")))
#endif
#endif
#ifndef RL_EVERY_WIDTH
#define RL_EVERY_WIDTH
#endif

namespace rl {
namespace {

// Inlined into each version, or it would be compiled for the narrowest alone.
template <bool momentum, bool decay>
inline __attribute__((always_inline)) void pass(const RmsPropSpan& span, const RmsPropNumbers& numbers) {
  float* __restrict p = span.param;
  const float* __restrict grad = span.grad;
  float* __restrict v = span.square_avg;
  float* __restrict buffer = span.momentum;
  // Copies, which nothing that the loop writes can change.
  const RmsPropNumbers k = numbers;
  const int64_t n = span.n;
  for (int64_t i = 0; i < n; ++i) {
    float g = grad[i];
    if (decay) g = std::fma(p[i], k.weight_decay, g);
    v[i] = std::fma(k.fresh * g, g, v[i] * k.alpha);
    float root = std::sqrt(v[i]) + k.eps;
    if (momentum) {
      float step = buffer[i] = buffer[i] * k.momentum + g / root;
      p[i] = std::fma(-k.lr, step, p[i]);
    } else {
      p[i] += -k.lr * g / root;
    }
  }
}

template <bool momentum>
inline __attribute__((always_inline)) void pass(const RmsPropSpan& span, const RmsPropNumbers& numbers) {
  numbers.weight_decay != 0 ? pass<momentum, true>(span, numbers) : pass<momentum, false>(span, numbers);
}

}  // namespace

RL_EVERY_WIDTH void rmsprop(const RmsPropSpan& span, const RmsPropNumbers& numbers) {
  span.momentum != nullptr ? pass<true>(span, numbers) : pass<false>(span, numbers);
}

}  // namespace rl
