#include "shim.h"

#include <ATen/Parallel.h>

#include "guarded.h"
#include "kernels/kernels.h"

#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <dlfcn.h>

#include <cstdlib>

using rl::copy_message;
using rl::guarded;
using rl::list;

namespace {

// Whether these are pairs of f32 on the CPU, without gaps and small enough for one thread: then a loop is all it takes, where
// libtorch's foreach operators call an operator a tensor.
bool plain(at::Tensor* const* targets, at::Tensor* const* sources, size_t n) {
  int64_t total = 0;
  for (size_t i = 0; i < n; ++i) {
    const at::Tensor &target = *targets[i], &source = *sources[i];
    auto f32 = [](const at::Tensor& t) { return t.is_cpu() && t.scalar_type() == at::kFloat && t.is_contiguous(); };
    if (!f32(target) || !f32(source) || target.sizes() != source.sizes()) return false;
    total += target.numel();
  }
  return at::get_num_threads() == 1 || total < at::internal::GRAIN_SIZE;
}

}  // namespace

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
  return guarded([&] {
    if (!plain(targets, sources, n)) return at::_foreach_lerp_(list(targets, n), list(sources, n), weight);
    for (size_t i = 0; i < n; ++i) {
      auto numel = targets[i]->numel();
      rl::kernels().lerp(targets[i]->data_ptr<float>(), sources[i]->data_ptr<float>(), numel, float(weight));
      targets[i]->unsafeGetTensorImpl()->bump_version();
    }
  });
}

char* rl_foreach_copy(at::Tensor* const* targets, at::Tensor* const* sources, size_t n) {
  return guarded([&] {
    if (!plain(targets, sources, n)) return at::_foreach_copy_(list(targets, n), list(sources, n));
    for (size_t i = 0; i < n; ++i) {
      std::memmove(targets[i]->data_ptr(), sources[i]->data_ptr(), targets[i]->nbytes());
      targets[i]->unsafeGetTensorImpl()->bump_version();
    }
  });
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
