// The arithmetic of small networks on a CPU: f32, row-major, plain pointers, one thread, no allocation, nothing of libtorch.
//
// Each file kernels/*.cc holds the same functions compiled for one instruction set; rl::kernels() picks at run time. libtorch's own
// products are MKL's, which on other makers' processors use AVX2 alone, and each call of an operator costs microseconds, which for a network of
// 64 units is as much as its product.
#pragma once
#include <cstddef>
#include <cstdint>

namespace rl {

// c = a·b, with m rows, n columns and k terms. a(i, p) = a[i·a_row + p·a_col], where a_row or a_col is 1; b likewise.
struct Product {
  int64_t m, n, k;
  const float* a;
  int64_t a_row, a_col;
  const float* b;
  int64_t b_row, b_col;
  float* c;
  int64_t c_row;
  const float* bias = nullptr;  // [n], added to each row
  bool relu = false;            // negative results become 0
  const float* where = nullptr;  // if there: results are 0 where this, of c's shape, is not above 0 (ReLU's backward pass)
  int64_t where_row = 0;
};

// One tensor of an Adam step.
struct AdamTensor {
  float *param, *exp_avg, *exp_avg_sq;
  const float* grad;
  int64_t n;
};

struct AdamNumbers {
  double beta1, beta2, weight_decay, eps, lr;
  double correction1, correction2;  // 1 − βᵗ
  float grad_scale;                 // gradients are multiplied by it first
  bool decoupled;
};

struct Kernels {
  // Null where libtorch's own product is as fast. NaN and infinity go through.
  void (*product)(const Product&);
  // out[j] = Σᵢ x[i·row + j]
  void (*column_sums)(const float* x, int64_t m, int64_t n, int64_t row, float* out);
  // d *= 1 − y²
  void (*tanh_backward)(float* d, int64_t d_row, const float* y, int64_t y_row, int64_t m, int64_t n);
  // Σ x²; in eight times as many lanes as a register has, whatever the instruction set
  double (*sum_of_squares)(const float* x, int64_t n);
  void (*adam)(const AdamTensor&, const AdamNumbers&);
  // target += weight · (source − target)
  void (*lerp)(float* target, const float* source, int64_t n, float weight);
};

// Those for this processor; always there.
const Kernels& kernels();

// Memory for packed operands, one a thread, which grows and is kept. At least `n` floats on a 64-byte boundary.
float* pack_memory(size_t n);

const Kernels& kernels_baseline();
#ifdef RL_X86
const Kernels& kernels_avx2();
const Kernels& kernels_avx512();
#endif

}  // namespace rl
