#include "td.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/variable.h>

#include <cmath>
#include <vector>

#include "guarded.h"

namespace {

using at::Tensor;

// [B, n] with rows one after the other; a vector counts as one column.
struct Table {
  Tensor held;
  const float* at;
  int64_t rows, columns;

  Table(const Tensor& t, const char* name) : held(t.contiguous()) {
    TORCH_CHECK(t.is_cpu() && t.scalar_type() == at::kFloat && (t.dim() == 1 || t.dim() == 2), name,
                " should be f32 [B, n] on the CPU; it is ", t.toString(), " of shape ", t.sizes(), " on ", t.device());
    at = held.data_ptr<float>();
    rows = t.size(0);
    columns = t.dim() == 2 ? t.size(1) : 1;
  }
};

template <typename T>
Tensor column(const Tensor& t, int64_t rows, const char* name) {
  TORCH_CHECK(t.is_cpu() && t.scalar_type() == c10::CppTypeToScalarType<T>::value && t.dim() == 1 && t.size(0) == rows,
              name, " should be ", c10::CppTypeToScalarType<T>::value, " [", rows, "] on the CPU; it is ", t.toString(),
              " of shape ", t.sizes(), " on ", t.device());
  return t.contiguous();
}

int64_t largest(const float* row, int64_t n) {
  int64_t best = 0;
  for (int64_t j = 1; j < n; ++j) {
    if (row[j] > row[best] || (std::isnan(row[j]) && !std::isnan(row[best]))) best = j;
  }
  return best;
}

// What flows back is known in the forward pass, up to the gradient of the loss.
class TdNode : public torch::autograd::Node {
 public:
  TdNode(Tensor slope, std::vector<int64_t> action, at::DimVector shape)
      : slope_(std::move(slope)), action_(std::move(action)), shape_(std::move(shape)) {}

  std::string name() const override {
    return "TdLossBackward";
  }

  void release_variables() override {
    std::lock_guard<std::mutex> lock(mutex_);
    slope_ = Tensor();
  }

  torch::autograd::variable_list apply(torch::autograd::variable_list&& grads) override {
    std::lock_guard<std::mutex> lock(mutex_);
    TORCH_CHECK(!at::GradMode::is_enabled(), "this loss cannot be differentiated twice");
    TORCH_CHECK(slope_.defined(), "a backward pass went through this loss already, and freed what it needs");
    if (!grads[0].defined() || !task_should_compute_output(0)) return {Tensor()};
    at::AutoDispatchBelowADInplaceOrView below;
    TORCH_CHECK(grads[0].is_cpu() && grads[0].scalar_type() == at::kFloat && grads[0].numel() == 1,
                "the gradient of a loss is a number of f32");
    const float by = *grads[0].data_ptr<float>();
    const int64_t rows = slope_.size(0);
    const float* slope = slope_.data_ptr<float>();
    const int64_t columns = shape_.size() == 2 ? shape_[1] : 1;
    Tensor out = at::empty(shape_, slope_.options());
    float* to = out.data_ptr<float>();
    if (action_.empty()) {
      for (int64_t i = 0; i < rows; ++i) to[i] = by * slope[i];
    } else {
      std::memset(to, 0, out.nbytes());
      for (int64_t i = 0; i < rows; ++i) to[i * columns + action_[i]] = by * slope[i];
    }
    return {out};
  }

 private:
  Tensor slope_;
  std::vector<int64_t> action_;
  at::DimVector shape_;
};

}  // namespace

extern "C" {

char* rl_td_loss(const Tensor* q, const Tensor* action, const Tensor* target, const Tensor* weight, bool huber,
                 Tensor** loss, Tensor** chosen, Tensor** magnitude, Tensor** mean) {
  const bool wanted = at::GradMode::is_enabled() && q->requires_grad();
  return rl::guarded([&] {
    Tensor value, picked, size, average, slope;
    std::vector<int64_t> actions;  // the node's own: the batch's memory will hold others
    {
      at::AutoDispatchBelowADInplaceOrView below;
      const Table table(*q, "q");
      const int64_t rows = table.rows, columns = table.columns;
      TORCH_CHECK(rows > 0, "a loss needs a row");
      TORCH_CHECK(action != nullptr || columns == 1, "of ", columns, " values a row, actions have to choose one");
      const Tensor y = column<float>(*target, rows, "target"), w = column<float>(*weight, rows, "weight");
      if (action != nullptr) {
        const Tensor chosen_by = column<int64_t>(*action, rows, "action");
        actions.assign(chosen_by.data_ptr<int64_t>(), chosen_by.data_ptr<int64_t>() + rows);
      }
      picked = at::empty({rows}, table.held.options());
      size = at::empty({rows}, table.held.options());
      slope = at::empty({rows}, table.held.options());
      value = at::empty({}, table.held.options());
      average = at::empty({}, table.held.options());
      const int64_t* a = action == nullptr ? nullptr : actions.data();
      const float *of_y = y.data_ptr<float>(), *of_w = w.data_ptr<float>();
      float *of_picked = picked.data_ptr<float>(), *of_size = size.data_ptr<float>(), *of_slope = slope.data_ptr<float>();
      const float share = 1.0f / float(rows);
      double total = 0, sum = 0;
      for (int64_t i = 0; i < rows; ++i) {
        const int64_t j = a == nullptr ? 0 : a[i];
        TORCH_CHECK(j >= 0 && j < columns, "action ", j, " of row ", i, " is none of the ", columns, " there are");
        const float x = table.at[i * columns + j], d = x - of_y[i], m = std::fabs(d);
        const float each = !huber ? d * d : m <= 1 ? 0.5f * d * d : m - 0.5f;
        // NaN's slope is NaN.
        const float by = !huber ? 2 * d : m <= 1 ? d : m > 1 ? std::copysign(1.0f, d) : m;
        of_picked[i] = x;
        of_size[i] = m;
        of_slope[i] = of_w[i] * by * share;
        total += of_w[i] * each;
        sum += x;
      }
      *value.data_ptr<float>() = float(total / double(rows));
      *average.data_ptr<float>() = float(sum / double(rows));
    }
    if (wanted) {
      at::AutoGradMode enabled(true);
      auto node = std::shared_ptr<TdNode>(new TdNode(std::move(slope), std::move(actions), at::DimVector(q->sizes())),
                                          torch::autograd::deleteNode);
      node->set_next_edges({torch::autograd::impl::gradient_edge(*q)});
      torch::autograd::set_history(value, node);
    }
    *loss = new Tensor(std::move(value));
    *chosen = new Tensor(std::move(picked));
    *magnitude = new Tensor(std::move(size));
    *mean = new Tensor(std::move(average));
  });
}

char* rl_bootstrap(const Tensor* reward, const Tensor* discount, const Tensor* q, const Tensor* chooser, Tensor** target) {
  return rl::guarded([&] {
    at::AutoDispatchBelowADInplaceOrView below;
    const Table values(*q, "q"), by(chooser == nullptr ? *q : *chooser, "what chooses");
    const int64_t rows = values.rows, columns = values.columns;
    TORCH_CHECK(by.rows == rows && by.columns == columns && columns > 0, "what chooses has shape ", by.held.sizes(),
                " and q ", values.held.sizes());
    const Tensor r = column<float>(*reward, rows, "reward"), g = column<float>(*discount, rows, "discount");
    Tensor out = at::empty({rows}, values.held.options());
    const float *of_r = r.data_ptr<float>(), *of_g = g.data_ptr<float>();
    float* to = out.data_ptr<float>();
    for (int64_t i = 0; i < rows; ++i) {
      to[i] = of_r[i] + of_g[i] * values.at[i * columns + largest(by.at + i * columns, columns)];
    }
    *target = new Tensor(std::move(out));
  });
}

char* rl_argmax(const Tensor* q, long long* out) {
  return rl::guarded([&] {
    at::AutoDispatchBelowADInplaceOrView below;
    const Table table(*q, "q");
    TORCH_CHECK(table.columns > 0, "a row without values has no largest");
    for (int64_t i = 0; i < table.rows; ++i) out[i] = largest(table.at + i * table.columns, table.columns);
  });
}

}  // extern "C"
