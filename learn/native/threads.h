// Work on libtorch's own threads.
#pragma once
#include <ATen/ATen.h>
#include <ATen/TensorIterator.h>
#include <ATen/core/grad_mode.h>

namespace rl {

// Calls `work(i)` for i in 0..n on libtorch's own threads, and nothing inside takes further threads. at::parallel_for would do, but it is a
// template around OpenMP pragmas: compiled here it would bring a second OpenMP runtime with threads of its own. Inside libtorch it is reached
// through an iterator over a tensor of numbers.
template <typename Work>
void on_threads(int64_t n, Work work) {
  at::Tensor numbers = at::arange(n, at::kLong);
  auto iterator = at::TensorIteratorConfig()
                      .set_check_mem_overlap(false)
                      .check_all_same_dtype(false)
                      .resize_outputs(false)
                      .add_output(numbers)
                      .build();
  auto loop = [&](char** data, const int64_t* strides, int64_t count) {
    at::NoGradGuard no_grad;  // is a thread's own
    for (int64_t i = 0; i < count; ++i) work(*reinterpret_cast<int64_t*>(data[0] + i * strides[0]));
  };
  iterator.for_each(loop, /*grain_size=*/1);
}

}  // namespace rl
