// What every processor of the target has, and the choice between the instruction sets.
#include <cstdlib>
#include <new>

#include "elementwise.inl"

namespace rl {

const Kernels& kernels_baseline() {
  static const Kernels table = {nullptr, column_sums, tanh_backward, sum_of_squares, adam, lerp};
  return table;
}

const Kernels& kernels() {
  static const Kernels& chosen = []() -> const Kernels& {
#ifdef RL_X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512bw")) {
      return kernels_avx512();
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return kernels_avx2();
#endif
    return kernels_baseline();
  }();
  return chosen;
}

float* pack_memory(size_t n) {
  struct Memory {
    float* at = nullptr;
    size_t size = 0;
    ~Memory() { std::free(at); }
  };
  thread_local Memory memory;
  if (memory.size < n) {
    std::free(memory.at);
    size_t bytes = (n * sizeof(float) + 4095) / 4096 * 4096;
    memory.at = static_cast<float*>(std::aligned_alloc(64, bytes));
    memory.size = memory.at == nullptr ? 0 : bytes / sizeof(float);
    if (memory.at == nullptr) throw std::bad_alloc();
  }
  return memory.at;
}

}  // namespace rl
