// One optimizer step of one group of parameters, all of one dtype on one device. Conventions: see shim.h.
//
// Every step takes a Group and the numbers of its rule. Nothing is read back to the host on a GPU. A gradient is never
// written to, unless its group says so.
#pragma once
#include <cstddef>

namespace at {
class Tensor;
}

extern "C" {
// A list of tensor handles that is made once and used in every step.
struct List;
char* rl_list_new(at::Tensor* const* tensors, size_t n, List** out);
void rl_list_free(List* list);

struct Group {
  const List* params;
  at::Tensor* const* grads;  // as many as params, new in every step
  const List* slots[3];      // state of a tensor a parameter, in the order said at each rule; null where there is none
  const List* steps;         // as many handles as params, all of one f32 scalar; null for rules that count nothing
  const at::Tensor* lr;      // f32 scalar
  const at::Tensor* found_inf;  // f32 scalar, or null; where it is not 0 the step does nothing, the count included
  double max_norm;  // for rl_adam alone: if above 0, gradients count scaled down to this joint 2-norm, and may be written to
};

// torch.optim.Adam, or AdamW when `decoupled`, with libtorch's fused kernel. Slots: exp_avg, exp_avg_sq.
struct AdamRule {
  double beta1, beta2, weight_decay, eps;
  bool decoupled;
};
char* rl_adam(const Group* group, const AdamRule* rule);

// torch.optim.SGD with libtorch's fused kernel. Slots: momentum (none when momentum is 0). `first` writes the momenta anew.
struct SgdRule {
  double momentum, dampening, weight_decay;
  bool nesterov, first;
};
char* rl_sgd(const Group* group, const SgdRule* rule);

// torch.optim.RMSprop: of f32 on a CPU and not centered with a fused kernel (rmsprop.h), else with libtorch's foreach kernels.
// Slots: square_avg, grad_avg (none when not centered), momentum (none when momentum is 0).
struct RmsPropRule {
  double alpha, eps, weight_decay, momentum;
};
char* rl_rmsprop(const Group* group, const RmsPropRule* rule);

// LARS (You et al. 2017). Slots: momentum (none when momentum is 0). `adapt` false is SGD. `clip` bounds lr·ratio by lr (LARC).
struct LarsRule {
  double momentum, weight_decay, trust_coefficient, eps;
  bool nesterov, adapt, clip;
};
char* rl_lars(const Group* group, const LarsRule* rule);

// LAMB (You et al. 2020). Slots: exp_avg, exp_avg_sq. `adapt` false leaves the trust ratio at 1; max_ratio is infinite for no bound.
struct LambRule {
  double beta1, beta2, weight_decay, eps, max_ratio;
  bool bias_correction, adapt;
};
char* rl_lamb(const Group* group, const LambRule* rule);

// Clamps every element of `grads` to ±bound in place.
char* rl_foreach_clip_value(at::Tensor* const* grads, size_t n, double bound);

// Exchanges the values of two lists of tensors, memory staying where it is.
char* rl_foreach_swap(at::Tensor* const* first, at::Tensor* const* second, size_t n);
}
