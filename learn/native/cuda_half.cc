#include "cuda_half.h"

#include <ATen/Context.h>
#include <dlfcn.h>

#include <string>

#include "guarded.h"

#ifdef __linux__
#include <sys/mman.h>
#include <unistd.h>
#endif

using rl::guarded;

extern "C" {

char* rl_open_cuda_half(const unsigned char* bytes, size_t n, const RlCudaFunctions** out) {
  return guarded([&] {
#ifdef __linux__
    // A file in memory, so that the program stays one file and no folder need be writable.
    int file = memfd_create("librl_learn_cuda.so", MFD_CLOEXEC);
    TORCH_CHECK(file >= 0, "memfd_create failed: ", strerror(errno));
    for (size_t written = 0; written < n;) {
      ssize_t more = write(file, bytes + written, n - written);
      TORCH_CHECK(more > 0, "the library could not be written: ", strerror(errno));
      written += static_cast<size_t>(more);
    }
    std::string path = "/proc/self/fd/" + std::to_string(file);
    void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    std::string why = library == nullptr ? dlerror() : "";
    close(file);  // a library that is open stays mapped
    TORCH_CHECK(library != nullptr, why);
    auto functions = reinterpret_cast<const RlCudaFunctions* (*)()>(dlsym(library, "rl_cuda_functions"));
    TORCH_CHECK(functions != nullptr, "rl_cuda_functions is not in it");
    *out = functions();
#else
    (void)bytes, (void)n, (void)out;
    TORCH_CHECK(false, "there is no CUDA on this system");
#endif
  });
}

char* rl_copy_async(const at::Tensor* target, const at::Tensor* source) {
  return guarded([&] { target->copy_(*source, /*non_blocking=*/true); });
}

char* rl_allow_tf32(bool allow) {
  return guarded([&] {
    at::globalContext().setAllowTF32CuBLAS(allow);
    at::globalContext().setAllowTF32CuDNN(allow);
  });
}

}  // extern "C"
