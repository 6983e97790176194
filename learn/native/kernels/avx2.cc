// Compiled for AVX2 and FMA. MKL's products are near this instruction set's limit, so there is none of our own.
#include "elementwise.inl"

namespace rl {

const Kernels& kernels_avx2() {
  static const Kernels table = {nullptr, column_sums, tanh_backward, sum_of_squares, adam, lerp};
  return table;
}

}  // namespace rl
