// The arithmetic of an RMSprop step over f32 in memory, in one pass; it knows nothing of tensors.
#pragma once
#include <cstdint>

namespace rl {

// Some of a parameter's elements with their state; momentum is null where there is none.
struct RmsPropSpan {
  float* param;
  const float* grad;
  float* square_avg;
  float* momentum;
  int64_t n;
};

struct RmsPropNumbers {
  float alpha;
  float fresh;  // 1 − alpha, subtracted in f64
  float eps, weight_decay, momentum, lr;
};

// v ← α·v + (1 − α)·g², θ ← θ − lr·g/(√v + ε), with torch.optim.RMSprop's order of operations. Every element's result is the same bits wherever
// it stands and on whichever of a family's processors.
void rmsprop(const RmsPropSpan& span, const RmsPropNumbers& numbers);

}  // namespace rl
