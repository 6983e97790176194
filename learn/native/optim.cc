#include "optim.h"

#include "guarded.h"

struct List {
  std::vector<at::Tensor> tensors;
};

namespace {

using Tensors = std::vector<at::Tensor>;

at::TensorList view(const List* list) {
  return list == nullptr ? at::TensorList() : at::TensorList(list->tensors);
}

// The fused kernels walk over memory and look at neither shapes nor strides, so both are made to agree with the parameters' here.
Tensors gradients(const Group* group) {
  const Tensors& params = group->params->tensors;
  Tensors out = rl::list(group->grads, params.size());
  for (size_t i = 0; i < out.size(); ++i) {
    at::Tensor& grad = out[i];
    const at::Tensor& param = params[i];
    TORCH_CHECK(grad.defined() && grad.sizes() == param.sizes() && grad.scalar_type() == param.scalar_type() &&
                    grad.device() == param.device(),
                "gradient ", i, " of a group should be a ", param.toString(), " of shape ", param.sizes(), " on ",
                param.device(), " like its parameter; it is ",
                grad.defined() ? c10::str("a ", grad.toString(), " of shape ", grad.sizes(), " on ", grad.device())
                               : std::string("undefined"));
    if (grad.strides() != param.strides()) grad = at::empty_like(param).copy_(grad);
  }
  return out;
}

void count(const Group* group) {
  at::Tensor step = group->steps->tensors.front();
  step.add_(1);
}

// A scalar in the parameters' dtype, so that foreach kernels take it without promotion.
at::Tensor like(const at::Tensor& scalar, at::TensorList params) {
  return scalar.to(params.front().scalar_type());
}

// The 2-norm of each tensor as one vector, in f32 at least.
at::Tensor norms(at::TensorList tensors) {
  auto kind = tensors.front().scalar_type();
  bool half = kind == at::kHalf || kind == at::kBFloat16;
  return at::stack(at::_foreach_norm(tensors, 2, half ? std::optional(at::kFloat) : std::nullopt));
}

// `ratio` where both norms are positive, else 1: a tensor of zeros, or one without a gradient, is not scaled.
at::Tensor where_positive(const at::Tensor& first, const at::Tensor& second, const at::Tensor& ratio) {
  return at::where((first > 0).logical_and(second > 0), ratio, at::ones_like(ratio));
}

void descend(at::TensorList params, at::TensorList update, const at::Tensor& lr) {
  at::_foreach_sub_(params, at::_foreach_mul(update, like(lr, params)));
}

}  // namespace

extern "C" {

char* rl_list_new(at::Tensor* const* tensors, size_t n, List** out) {
  return rl::guarded([&] {
    auto list = rl::list(tensors, n);
    for (const auto& tensor : list) {
      TORCH_CHECK(tensor.is_non_overlapping_and_dense(), "a tensor of shape ", tensor.sizes(), " with strides ",
                  tensor.strides(), " does not fill its memory; train a contiguous one");
    }
    *out = new List{std::move(list)};
  });
}

void rl_list_free(List* list) {
  delete list;
}

char* rl_adam(const Group* group, const AdamRule* rule) {
  return rl::guarded([&] {
    auto p = view(group->params), m = view(group->slots[0]), v = view(group->slots[1]), t = view(group->steps);
    auto g = gradients(group);
    count(group);
    if (rule->decoupled) {
      at::_fused_adamw_(p, g, m, v, {}, t, *group->lr, rule->beta1, rule->beta2, rule->weight_decay, rule->eps,
                        /*amsgrad=*/false, /*maximize=*/false);
    } else {
      at::_fused_adam_(p, g, m, v, {}, t, *group->lr, rule->beta1, rule->beta2, rule->weight_decay, rule->eps,
                       /*amsgrad=*/false, /*maximize=*/false);
    }
  });
}

char* rl_sgd(const Group* group, const SgdRule* rule) {
  return rl::guarded([&] {
    TORCH_CHECK(rule->momentum == 0 || group->slots[0] != nullptr, "momentum needs its state");
    at::_fused_sgd_(view(group->params), gradients(group), view(group->slots[0]), rule->weight_decay, rule->momentum,
                    *group->lr, rule->dampening, rule->nesterov, /*maximize=*/false, rule->first);
  });
}

char* rl_rmsprop(const Group* group, const RmsPropRule* rule) {
  return rl::guarded([&] {
    auto p = view(group->params), square_avg = view(group->slots[0]);
    auto g = gradients(group);
    if (rule->weight_decay != 0) g = at::_foreach_add(g, p, rule->weight_decay);
    at::_foreach_mul_(square_avg, rule->alpha);
    at::_foreach_addcmul_(square_avg, g, g, 1 - rule->alpha);
    Tensors denominator;
    if (group->slots[1] != nullptr) {
      auto grad_avg = view(group->slots[1]);
      at::_foreach_lerp_(grad_avg, g, 1 - rule->alpha);
      denominator = at::_foreach_addcmul(square_avg, grad_avg, grad_avg, -1);
      at::_foreach_sqrt_(denominator);
    } else {
      denominator = at::_foreach_sqrt(square_avg);
    }
    at::_foreach_add_(denominator, rule->eps);
    auto update = at::_foreach_div(g, denominator);
    if (group->slots[2] != nullptr) {
      auto buffer = view(group->slots[2]);
      at::_foreach_mul_(buffer, rule->momentum);
      at::_foreach_add_(buffer, update);
      update = at::_foreach_mul(buffer, *group->lr);
    } else {
      at::_foreach_mul_(update, *group->lr);
    }
    at::_foreach_sub_(p, update);
  });
}

char* rl_lars(const Group* group, const LarsRule* rule) {
  return rl::guarded([&] {
    auto p = view(group->params);
    auto g = gradients(group);
    at::Tensor ratio;
    if (rule->adapt) {
      auto weight = norms(p), gradient = norms(g);
      ratio = rule->trust_coefficient * weight / (gradient + rule->weight_decay * weight + rule->eps);
      if (rule->clip) ratio = (ratio / *group->lr).clamp_max(1);
      ratio = where_positive(weight, gradient, ratio);
    }
    if (rule->weight_decay != 0) g = at::_foreach_add(g, p, rule->weight_decay);
    if (ratio.defined()) g = at::_foreach_mul(g, ratio.unbind());
    if (group->slots[0] == nullptr) return descend(p, g, *group->lr);
    auto momentum = view(group->slots[0]);
    at::_foreach_mul_(momentum, rule->momentum);
    at::_foreach_add_(momentum, g);
    if (rule->nesterov) {
      descend(p, at::_foreach_add(g, momentum, rule->momentum), *group->lr);
    } else {
      descend(p, momentum, *group->lr);
    }
  });
}

char* rl_lamb(const Group* group, const LambRule* rule) {
  return rl::guarded([&] {
    auto p = view(group->params), m = view(group->slots[0]), v = view(group->slots[1]);
    auto g = gradients(group);
    count(group);
    at::_foreach_lerp_(m, g, 1 - rule->beta1);
    at::_foreach_mul_(v, rule->beta2);
    at::_foreach_addcmul_(v, g, g, 1 - rule->beta2);
    auto denominator = at::_foreach_sqrt(v);
    // In f64: 1 − β₂ᵗ of the first steps would keep four digits in f32.
    auto t = group->steps->tensors.front().to(at::kDouble);
    if (rule->bias_correction) {
      at::_foreach_mul_(denominator, like((1 - at::pow(rule->beta2, t)).rsqrt(), p));
    }
    at::_foreach_add_(denominator, rule->eps);
    auto update = at::_foreach_div(m, denominator);
    if (rule->bias_correction) {
      at::_foreach_mul_(update, like((1 - at::pow(rule->beta1, t)).reciprocal(), p));
    }
    if (rule->weight_decay != 0) at::_foreach_add_(update, p, rule->weight_decay);
    if (rule->adapt) {
      auto weight = norms(p), step = norms(update);
      auto ratio = where_positive(weight, step, (weight / step).clamp_max(rule->max_ratio));
      at::_foreach_mul_(update, ratio.unbind());
    }
    at::_foreach_mul_(update, like(*group->lr, p));
    at::_foreach_sub_(p, update);
  });
}

char* rl_foreach_clip_value(at::Tensor* const* grads, size_t n, double bound) {
  return rl::guarded([&] {
    auto g = rl::list(grads, n);
    at::_foreach_clamp_min_(g, -bound);
    at::_foreach_clamp_max_(g, bound);
  });
}

char* rl_foreach_swap(at::Tensor* const* first, at::Tensor* const* second, size_t n) {
  return rl::guarded([&] {
    auto a = rl::list(first, n), b = rl::list(second, n);
    Tensors kept;
    kept.reserve(n);
    for (const auto& tensor : a) kept.push_back(tensor.clone());
    at::_foreach_copy_(a, b);
    at::_foreach_copy_(b, kept);
  });
}

}  // extern "C"
