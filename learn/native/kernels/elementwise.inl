// Loops that the compiler makes vectors of. Included into each instruction set's file; everything here is local to it.
//
// A sum keeps LANES partial sums, so that its order is the same for every instruction set and no flag has to allow another one.
#include "kernels.h"

namespace {

using rl::AdamNumbers;
using rl::AdamTensor;

constexpr int64_t LANES = 32;

void column_sums(const float* x, int64_t m, int64_t n, int64_t row, float* out) {
  int64_t j = 0;
  for (; j + LANES <= n; j += LANES) {
    float sums[LANES] = {};
    for (int64_t i = 0; i < m; ++i) {
      const float* at = x + i * row + j;
      for (int64_t l = 0; l < LANES; ++l) sums[l] += at[l];
    }
    for (int64_t l = 0; l < LANES; ++l) out[j + l] = sums[l];
  }
  if (j == n) return;
  for (int64_t l = j; l < n; ++l) out[l] = 0;
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t l = j; l < n; ++l) out[l] += x[i * row + l];
  }
}

void tanh_backward(float* d, int64_t d_row, const float* y, int64_t y_row, int64_t m, int64_t n) {
  for (int64_t i = 0; i < m; ++i) {
    float* __restrict to = d + i * d_row;
    const float* __restrict of = y + i * y_row;
    for (int64_t j = 0; j < n; ++j) to[j] *= 1 - of[j] * of[j];
  }
}

double sum_of_squares(const float* x, int64_t n) {
  float sums[LANES] = {};
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) {
    for (int64_t l = 0; l < LANES; ++l) sums[l] += x[i + l] * x[i + l];
  }
  double total = 0;
  for (float sum : sums) total += sum;
  for (; i < n; ++i) total += x[i] * x[i];
  return total;
}

// Kingma and Ba 2015, algorithm 1, in the form of torch.optim.Adam; decoupled: Loshchilov and Hutter 2019, algorithm 2.
void adam(const AdamTensor& of, const AdamNumbers& by) {
  float* __restrict param = of.param;
  float* __restrict exp_avg = of.exp_avg;
  float* __restrict exp_avg_sq = of.exp_avg_sq;
  const float* __restrict grad = of.grad;
  const float one_minus_beta1 = float(1 - by.beta1), beta2 = float(by.beta2), one_minus_beta2 = float(1 - by.beta2);
  const float step = float(by.lr / by.correction1), root = float(1 / __builtin_sqrt(by.correction2)), eps = float(by.eps);
  const float decay = by.decoupled ? 0 : float(by.weight_decay);
  const float kept = by.decoupled ? float(1 - by.lr * by.weight_decay) : 1;
  const float scale = by.grad_scale;
  for (int64_t i = 0; i < of.n; ++i) {
    const float p = param[i] * kept;
    const float g = grad[i] * scale + decay * p;
    const float m = exp_avg[i] + one_minus_beta1 * (g - exp_avg[i]);
    const float v = beta2 * exp_avg_sq[i] + one_minus_beta2 * g * g;
    exp_avg[i] = m;
    exp_avg_sq[i] = v;
    param[i] = p - step * m / (__builtin_sqrtf(v) * root + eps);
  }
}

void lerp(float* __restrict target, const float* __restrict source, int64_t n, float weight) {
  for (int64_t i = 0; i < n; ++i) target[i] += weight * (source[i] - target[i]);
}

}  // namespace
