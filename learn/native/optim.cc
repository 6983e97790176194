#include "optim.h"

#include <ATen/Parallel.h>

#include "guarded.h"
#include "kernels/kernels.h"
#include "rmsprop.h"
#include "threads.h"

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
  if (group->found_inf == nullptr) {
    step.add_(1);
  } else {
    step.add_(*group->found_inf == 0);
  }
}

// Some of a group's tensors, next to each other.
struct Part {
  at::TensorList params, grads, slots[3], steps;
  const at::Tensor& lr;
  std::optional<at::Tensor> found_inf;

  Part slice(size_t begin, size_t end) const {
    auto cut = [&](at::TensorList list) { return list.empty() ? list : list.slice(begin, end - begin); };
    return {cut(params), cut(grads), {cut(slots[0]), cut(slots[1]), cut(slots[2])}, cut(steps), lr, found_inf};
  }
};

// Where to cut the tensors into one range a thread, the longest at most a quarter above the mean; empty when there is no such cut.
std::vector<size_t> ranges(at::TensorList tensors, int64_t threads) {
  int64_t total = 0;
  for (const auto& tensor : tensors) total += tensor.numel();
  std::vector<size_t> cuts(threads + 1, tensors.size());
  cuts[0] = 0;
  // Below the size from which libtorch shares out a single operation, sharing costs more than it gains: one thread takes all.
  if (total < at::internal::GRAIN_SIZE) return cuts;
  int64_t before = 0, longest = 0, length = 0, range = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    int64_t numel = tensors[i].numel();
    // The range in which the tensor's middle lies.
    for (int64_t own = std::min(threads - 1, (2 * before + numel) * threads / (2 * total)); range < own; length = 0) {
      cuts[++range] = i;
    }
    longest = std::max(longest, length += numel);
    before += numel;
  }
  return 4 * longest * threads <= 5 * total ? cuts : std::vector<size_t>();
}

// Makes `step(part)` see every tensor of the group once. On a GPU that is one call. On a CPU with several threads each takes its share of the
// tensors, which is one parallel region a step and not one a tensor or operation; and no part has more than `most` elements (or it is a single
// tensor), so that the operations of a rule that has several find the part in the cache.
template <typename Step>
void each_part(const Group* group, int64_t most, Step step) {
  const Tensors grads = gradients(group);
  const Part whole{view(group->params), grads, {view(group->slots[0]), view(group->slots[1]), view(group->slots[2])},
                   view(group->steps), *group->lr,
                   group->found_inf == nullptr ? std::nullopt : std::optional(*group->found_inf)};
  if (!whole.params.front().is_cpu()) return step(whole);
  auto go = [&](size_t begin, size_t end) {
    while (begin < end) {
      size_t stop = begin;
      for (int64_t elements = 0; stop < end; ++stop) {
        elements += whole.params[stop].numel();
        if (elements > most && stop > begin) break;
      }
      step(whole.slice(begin, stop));
      begin = stop;
    }
  };
  int64_t threads = at::get_num_threads();
  std::vector<size_t> cuts;
  if (threads > 1 && whole.params.size() > 1 && !at::in_parallel_region()) cuts = ranges(whole.params, threads);
  if (cuts.empty()) return go(0, whole.params.size());
  rl::on_threads(threads, [&](int64_t i) { go(cuts[i], cuts[i + 1]); });
}

// Takes a step of a rule that knows nothing of gradients that are not finite, and takes it back where there were such: on the device, so
// with a copy of what the step changes.
template <typename Step>
void unless_found(const Part& part, Step step) {
  if (!part.found_inf) return step(part);
  Tensors changed = part.params.vec();
  for (const auto& slot : part.slots) changed.insert(changed.end(), slot.begin(), slot.end());
  Tensors before;
  before.reserve(changed.size());
  for (const auto& tensor : changed) before.push_back(tensor.clone());
  step(part);
  at::Tensor found = *part.found_inf != 0;
  for (size_t i = 0; i < changed.size(); ++i) changed[i].copy_(at::where(found, before[i], changed[i]));
}

// Calls `work(tensor, from, n)` for elements `from` to `from + n` of each tensor, on one thread or, where there is enough to do, with all elements
// shared out over threads as if the tensors were one, wherever they begin and end.
template <typename Work>
void share_elements(const std::vector<int64_t>& sizes, Work work) {
  int64_t total = 0;
  for (int64_t size : sizes) total += size;
  auto go = [&](int64_t begin, int64_t end) {
    for (size_t i = 0; i < sizes.size(); ++i) {
      int64_t from = std::max<int64_t>(begin, 0), to = std::min(end, sizes[i]);
      if (from < to) work(i, from, to - from);
      begin -= sizes[i];
      end -= sizes[i];
    }
  };
  int64_t threads = at::get_num_threads();
  if (threads == 1 || total < at::internal::GRAIN_SIZE || at::in_parallel_region()) return go(0, total);
  // Whole cache lines of the tensors that fill some, so that two threads seldom write to one.
  auto cut = [&](int64_t i) { return i == threads ? total : i * total / threads / 16 * 16; };
  rl::on_threads(threads, [&](int64_t i) { go(cut(i), cut(i + 1)); });
}

// One pass over f32 parameters in a CPU's memory, not centered, by a kernel of our own: libtorch has none.
void fused_rmsprop(const Group* group, const RmsPropRule* rule) {
  const Tensors grads = gradients(group);
  if (group->found_inf != nullptr && *group->found_inf->const_data_ptr<float>() != 0) return;
  const rl::RmsPropNumbers numbers{
      static_cast<float>(rule->alpha),        static_cast<float>(1 - rule->alpha), static_cast<float>(rule->eps),
      static_cast<float>(rule->weight_decay), static_cast<float>(rule->momentum),  *group->lr->const_data_ptr<float>()};
  const auto &params = group->params->tensors, &squares = group->slots[0]->tensors;
  std::vector<int64_t> sizes;
  for (const auto& param : params) sizes.push_back(param.numel());
  share_elements(sizes, [&](size_t i, int64_t from, int64_t n) {
    float* momentum = group->slots[2] == nullptr ? nullptr : group->slots[2]->tensors[i].data_ptr<float>() + from;
    rl::rmsprop({params[i].data_ptr<float>() + from, grads[i].const_data_ptr<float>() + from,
                 squares[i].data_ptr<float>() + from, momentum, n},
                numbers);
  });
  for (const auto& param : params) param.unsafeGetTensorImpl()->bump_version();
}

constexpr int64_t ALL = std::numeric_limits<int64_t>::max();
// 128 KB of f32 a list: a handful of lists stay in a second-level cache.
constexpr int64_t CACHED = 32 * 1024;

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

// Whether all that an Adam step touches is f32 in the CPU's memory.
bool own_kernels(const Group* group) {
  for (const auto& param : group->params->tensors) {
    if (!param.is_cpu() || param.scalar_type() != at::kFloat) return false;
  }
  const at::Tensor& lr = *group->lr;
  const at::Tensor& step = group->steps->tensors.front();
  auto number = [](const at::Tensor& t) { return t.is_cpu() && t.scalar_type() == at::kFloat && t.numel() == 1; };
  return number(lr) && number(step) && (group->found_inf == nullptr || number(*group->found_inf));
}

void own_adam(const Group* group, const Tensors& grads, const AdamRule* rule) {
  if (group->found_inf != nullptr && *group->found_inf->data_ptr<float>() != 0) return;
  const auto& kernels = rl::kernels();
  rl::AdamNumbers by{};
  by.grad_scale = 1;
  if (group->max_norm > 0) {
    double squares = 0;
    for (const auto& grad : grads) squares += kernels.sum_of_squares(grad.data_ptr<float>(), grad.numel());
    // As torch's clip_grad_norm_: min(1, max_norm / (norm + 1e-6)), where NaN stays NaN.
    float factor = float(group->max_norm) / (float(std::sqrt(squares)) + 1e-6f);
    by.grad_scale = factor > 1 ? 1 : factor;
  }
  float& step = *group->steps->tensors.front().data_ptr<float>();
  step += 1;
  by.beta1 = rule->beta1, by.beta2 = rule->beta2, by.weight_decay = rule->weight_decay, by.eps = rule->eps;
  by.lr = *group->lr->data_ptr<float>();
  by.correction1 = 1 - std::pow(rule->beta1, double(step));
  by.correction2 = 1 - std::pow(rule->beta2, double(step));
  by.decoupled = rule->decoupled;
  const auto &params = group->params->tensors, &first = group->slots[0]->tensors, &second = group->slots[1]->tensors;
  std::vector<int64_t> sizes;
  for (const auto& param : params) sizes.push_back(param.numel());
  share_elements(sizes, [&](size_t i, int64_t from, int64_t n) {
    kernels.adam({params[i].data_ptr<float>() + from, first[i].data_ptr<float>() + from,
                  second[i].data_ptr<float>() + from, grads[i].data_ptr<float>() + from, n},
                 by);
  });
  // As an operator in place would: a graph that still needs the old values must be able to tell.
  for (const auto& param : params) param.unsafeGetTensorImpl()->bump_version();
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
    const Tensors grads = gradients(group);
    if (own_kernels(group)) return own_adam(group, grads, rule);
    std::optional<at::Tensor> grad_scale;
    if (group->max_norm > 0) {
      // The fused kernel divides the gradients by it, and writes them back.
      grad_scale = ((norms(grads).norm() + 1e-6) / group->max_norm).clamp_min(1.0).to(at::kFloat);
    }
    count(group);
    each_part(group, ALL, [&](const Part& part) {
      auto kernel = rule->decoupled ? at::_ops::_fused_adamw__tensor_lr::call : at::_ops::_fused_adam__tensor_lr::call;
      kernel(part.params, part.grads, part.slots[0], part.slots[1], {}, part.steps, part.lr, rule->beta1, rule->beta2,
             rule->weight_decay, rule->eps, /*amsgrad=*/false, /*maximize=*/false, grad_scale, part.found_inf);
    });
  });
}

char* rl_sgd(const Group* group, const SgdRule* rule) {
  return rl::guarded([&] {
    TORCH_CHECK(rule->momentum == 0 || group->slots[0] != nullptr, "momentum needs its state");
    each_part(group, ALL, [&](const Part& part) {
      at::_fused_sgd_(part.params, part.grads, part.slots[0], rule->weight_decay, rule->momentum, part.lr,
                      rule->dampening, rule->nesterov, /*maximize=*/false, rule->first, /*grad_scale=*/{},
                      part.found_inf);
    });
  });
}

char* rl_rmsprop(const Group* group, const RmsPropRule* rule) {
  return rl::guarded([&] {
    const at::Tensor& first = group->params->tensors.front();
    // Not when centered: libtorch's √ is not always the nearest f32, and where centering leaves little of v, one that is ends further from PyTorch
    // than 1e-6.
    const bool centered = group->slots[1] != nullptr;
    if (!centered && first.is_cpu() && first.scalar_type() == at::kFloat) return fused_rmsprop(group, rule);
    each_part(group, CACHED, [&](const Part& whole) { unless_found(whole, [&](const Part& part) {
      auto square_avg = part.slots[0], grad_avg = part.slots[1], buffer = part.slots[2];
      Tensors decayed, denominator;
      auto g = part.grads;
      if (rule->weight_decay != 0) g = decayed = at::_foreach_add(g, part.params, rule->weight_decay);
      at::_foreach_mul_(square_avg, rule->alpha);
      at::_foreach_addcmul_(square_avg, g, g, 1 - rule->alpha);
      if (!grad_avg.empty()) {
        at::_foreach_lerp_(grad_avg, g, 1 - rule->alpha);
        denominator = at::_foreach_addcmul(square_avg, grad_avg, grad_avg, -1);
        at::_foreach_sqrt_(denominator);
      } else {
        denominator = at::_foreach_sqrt(square_avg);
      }
      at::_foreach_add_(denominator, rule->eps);
      auto update = at::_foreach_div(g, denominator);
      if (!buffer.empty()) {
        at::_foreach_mul_(buffer, rule->momentum);
        at::_foreach_add_(buffer, update);
        update = at::_foreach_mul(buffer, part.lr);
      } else {
        at::_foreach_mul_(update, part.lr);
      }
      at::_foreach_sub_(part.params, update);
    }); });
  });
}

char* rl_lars(const Group* group, const LarsRule* rule) {
  return rl::guarded([&] {
    each_part(group, CACHED, [&](const Part& whole) { unless_found(whole, [&](const Part& part) {
      auto p = part.params, momentum = part.slots[0];
      at::Tensor ratio;
      if (rule->adapt) {
        auto weight = norms(p), gradient = norms(part.grads);
        ratio = rule->trust_coefficient * weight / (gradient + rule->weight_decay * weight + rule->eps);
        if (rule->clip) ratio = (ratio / part.lr).clamp_max(1);
        ratio = where_positive(weight, gradient, ratio);
      }
      Tensors d = rule->weight_decay != 0 ? at::_foreach_add(part.grads, p, rule->weight_decay) : part.grads.vec();
      if (ratio.defined()) d = at::_foreach_mul(d, ratio.unbind());
      if (momentum.empty()) return descend(p, d, part.lr);
      at::_foreach_mul_(momentum, rule->momentum);
      at::_foreach_add_(momentum, d);
      if (rule->nesterov) {
        descend(p, at::_foreach_add(d, momentum, rule->momentum), part.lr);
      } else {
        descend(p, momentum, part.lr);
      }
    }); });
  });
}

char* rl_lamb(const Group* group, const LambRule* rule) {
  return rl::guarded([&] {
    count(group);
    // In f64: 1 − β₂ᵗ of the first steps would keep four digits in f32.
    auto t = group->steps->tensors.front().to(at::kDouble);
    auto params = view(group->params);
    auto first = like((1 - at::pow(rule->beta1, t)).reciprocal(), params);
    auto second = like((1 - at::pow(rule->beta2, t)).rsqrt(), params);
    each_part(group, CACHED, [&](const Part& whole) { unless_found(whole, [&](const Part& part) {
      auto p = part.params, m = part.slots[0], v = part.slots[1];
      at::_foreach_lerp_(m, part.grads, 1 - rule->beta1);
      at::_foreach_mul_(v, rule->beta2);
      at::_foreach_addcmul_(v, part.grads, part.grads, 1 - rule->beta2);
      auto denominator = at::_foreach_sqrt(v);
      if (rule->bias_correction) at::_foreach_mul_(denominator, second);
      at::_foreach_add_(denominator, rule->eps);
      auto update = at::_foreach_div(m, denominator);
      if (rule->bias_correction) at::_foreach_mul_(update, first);
      if (rule->weight_decay != 0) at::_foreach_add_(update, p, rule->weight_decay);
      if (rule->adapt) {
        auto weight = norms(p), length = norms(update);
        auto ratio = where_positive(weight, length, (weight / length).clamp_max(rule->max_ratio));
        at::_foreach_mul_(update, ratio.unbind());
      }
      at::_foreach_mul_(update, like(part.lr, p));
      at::_foreach_sub_(p, update);
    }); });
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
