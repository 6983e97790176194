// What every function of the shim needs: exceptions turned into messages, arrays of pointers turned into lists.
#pragma once
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <c10/util/Exception.h>

#include <cstring>
#include <vector>

namespace rl {

inline char* copy_message(const char* text) {
  return strdup(text);
}

// Runs `body`, turning whatever it throws into a message without libtorch's backtrace.
template <typename Body>
char* guarded(Body body) {
  try {
    at::NoGradGuard no_grad;
    body();
    return nullptr;
  } catch (const c10::Error& error) {
    return copy_message(error.what_without_backtrace());
  } catch (const std::exception& error) {
    return copy_message(error.what());
  } catch (...) {
    return copy_message("an unknown C++ exception");
  }
}

inline std::vector<at::Tensor> list(at::Tensor* const* tensors, size_t n) {
  std::vector<at::Tensor> out;
  if (tensors == nullptr) return out;
  out.reserve(n);
  for (size_t i = 0; i < n; ++i) out.push_back(*tensors[i]);
  return out;
}

}  // namespace rl
