#include "shim.h"

#include "guarded.h"

#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <dlfcn.h>

#include <cstdlib>

using rl::copy_message;
using rl::guarded;
using rl::list;

extern "C" {

// libtorch's matrix products are MKL's, which takes its widest instructions only on processors that it takes for Intel's; it asks this function, and a
// program's own definition comes before the library's. MKL still looks at what the processor can do. On an AMD EPYC with AVX-512 it doubles the rate.
// RL_MKL_AS_IS=1 leaves MKL as it is, whose answer is then that of a processor that is not Intel's.
__attribute__((used, visibility("default"))) int mkl_serv_intel_cpu_true() {
  static const bool as_is = std::getenv("RL_MKL_AS_IS") != nullptr;
  return as_is ? 0 : 1;
}

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

char* rl_foreach_lerp(at::Tensor* const* targets, at::Tensor* const* sources, size_t n, double weight) {
  return guarded([&] { at::_foreach_lerp_(list(targets, n), list(sources, n), weight); });
}

char* rl_foreach_copy(at::Tensor* const* targets, at::Tensor* const* sources, size_t n) {
  return guarded([&] { at::_foreach_copy_(list(targets, n), list(sources, n)); });
}

char* rl_foreach_add(at::Tensor* const* targets, at::Tensor* const* sources, size_t n, double alpha) {
  return guarded([&] { at::_foreach_add_(list(targets, n), list(sources, n), alpha); });
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
