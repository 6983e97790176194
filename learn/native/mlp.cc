#include "mlp.h"

#include <ATen/Parallel.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/saved_variable.h>
#include <torch/csrc/autograd/variable.h>

#include <memory>
#include <mutex>
#include <vector>

#include "guarded.h"
#include "kernels/kernels.h"
#include "threads.h"

namespace {

using at::Tensor;
using Tensors = std::vector<Tensor>;

// What a forward pass is made of, and what it leaves for the backward pass.
struct Chain {
  Tensor x, joined;  // the latter may be undefined
  Tensors weights, biases;
  int hidden, last;
  // The input of each layer but the first; with `joined`, the second layer's has its columns at its end.
  Tensors inputs;

  size_t layers() const { return weights.size(); }
  const Tensor& input(size_t layer) const { return layer == 0 ? x : inputs[layer - 1]; }
  int after(size_t layer) const { return layer + 1 == layers() ? last : hidden; }
};

void check(const Chain& c) {
  auto kind = c.x.scalar_type();
  TORCH_CHECK(kind == at::kFloat || kind == at::kDouble, "a perceptron takes f32 or f64, not ", kind);
  TORCH_CHECK(c.x.dim() == 2, "a perceptron takes [B, inputs], not a tensor of shape ", c.x.sizes());
  int64_t width = c.x.size(1);
  auto same = [&](const Tensor& t) { return t.scalar_type() == kind && t.device() == c.x.device(); };
  for (size_t i = 0; i < c.layers(); ++i) {
    const Tensor& w = c.weights[i];
    TORCH_CHECK(w.dim() == 2 && c.biases[i].dim() == 1 && c.biases[i].size(0) == w.size(0) && same(w) && same(c.biases[i]),
                "layer ", i, " of a perceptron has a weight of shape ", w.sizes(), ", ", w.toString(), " on ", w.device(),
                ", and a bias of shape ", c.biases[i].sizes(), "; its input is ", c.x.toString(), " on ", c.x.device());
    if (i == 1 && c.joined.defined()) {
      TORCH_CHECK(c.joined.dim() == 2 && c.joined.size(0) == c.x.size(0) && same(c.joined),
                  "what joins a perceptron of ", c.x.size(0), " rows has shape ", c.joined.sizes(), ", ", c.joined.toString(),
                  " on ", c.joined.device());
      width += c.joined.size(1);
    }
    TORCH_CHECK(w.size(1) == width, "layer ", i, " of a perceptron takes ", w.size(1), " columns and is given ", width);
    width = w.size(0);
  }
  TORCH_CHECK(!c.joined.defined() || c.layers() > 1, "a perceptron of one layer has no second layer to join");
}

bool has_kernels(const Chain& c) {
  if (!c.x.is_cpu() || c.x.scalar_type() != at::kFloat || rl::kernels().product == nullptr) return false;
  for (size_t i = 0; i < c.layers(); ++i) {
    if (!c.weights[i].is_contiguous() || !c.biases[i].is_contiguous()) return false;
  }
  return true;
}

// Multiplications that a thread has to have to itself before a product is shared out.
constexpr double SHARE = 4e6;

void product(const rl::Product& of) {
  int64_t threads = at::get_num_threads();
  threads = std::min(threads, std::min(of.m / 16, int64_t(double(of.m) * double(of.n) * double(of.k) / SHARE)));
  if (threads <= 1 || at::in_parallel_region()) return rl::kernels().product(of);
  // By rows of the result, so that each number is made in the same way whatever the number of threads.
  rl::on_threads(threads, [&](int64_t i) {
    const int64_t begin = of.m * i / threads, end = of.m * (i + 1) / threads;
    rl::Product part = of;
    part.m = end - begin;
    part.a += begin * of.a_row;
    part.c += begin * of.c_row;
    if (of.where != nullptr) part.where += begin * of.where_row;
    rl::kernels().product(part);
  });
}

// Rows of memory.
struct Rows {
  float* at;
  int64_t row;
};

Rows rows_of(const Tensor& t) {
  return {t.data_ptr<float>(), t.stride(0)};
}

void layer_forward(const Chain& c, size_t i, Tensor& out) {
  const Tensor& in = c.input(i);
  int64_t outputs = c.weights[i].size(0);
  rl::Product p{};
  p.m = in.size(0), p.n = outputs, p.k = in.size(1);
  Rows a = rows_of(in), y = rows_of(out);
  p.a = a.at, p.a_row = a.row, p.a_col = 1;
  p.b = c.weights[i].data_ptr<float>(), p.b_row = 1, p.b_col = p.k;
  p.c = y.at, p.c_row = y.row;
  p.bias = c.biases[i].data_ptr<float>();
  p.relu = c.after(i) == RL_RELU;
  product(p);
}

// The values of all layers; fills `inputs`, and gives the last.
Tensor forward(Chain& c) {
  c.x = c.x.contiguous();
  const bool own = has_kernels(c);
  const int64_t rows = c.x.size(0);
  Tensor out;
  c.inputs.reserve(c.layers() - 1);
  for (size_t i = 0; i < c.layers(); ++i) {
    const int64_t outputs = c.weights[i].size(0);
    const bool joins = i == 0 && c.joined.defined();
    Tensor whole = at::empty({rows, outputs + (joins ? c.joined.size(1) : 0)}, c.x.options());
    Tensor y = joins ? whole.narrow(1, 0, outputs) : whole;
    const int after = c.after(i);
    if (own) {
      layer_forward(c, i, y);
    } else if (after == RL_RELU && c.x.is_cuda() && !joins) {
      // The addition and ReLU in the product's epilogue.
      at::_addmm_activation_out(y, c.biases[i], c.input(i), c.weights[i].t());
    } else {
      at::addmm_out(y, c.biases[i], c.input(i), c.weights[i].t());
      if (after == RL_RELU) y.relu_();
    }
    if (after == RL_TANH) y.tanh_();
    if (joins) whole.narrow(1, outputs, c.joined.size(1)).copy_(c.joined);
    if (i + 1 < c.layers()) {
      c.inputs.push_back(std::move(whole));
    } else {
      out = std::move(whole);
    }
  }
  return out;
}

struct Wanted {
  bool x, joined;
  std::vector<bool> weights, biases;
};

struct Gradients {
  Tensor x, joined;
  Tensors weights, biases;
};

// d *= f′, where y is the value of f.
void through(int activation, bool own, Tensor& d, const Tensor& y) {
  if (activation == RL_TANH && own) {
    rl::kernels().tanh_backward(d.data_ptr<float>(), d.stride(0), y.data_ptr<float>(), y.stride(0), d.size(0), d.size(1));
  } else if (activation == RL_TANH) {
    d = at::tanh_backward(d, y);
  } else if (activation == RL_RELU) {
    d = at::threshold_backward(d, y, 0);
  }
}

Gradients backward(const Chain& c, Tensor d, const Tensor& out, const Wanted& wanted) {
  const bool own = has_kernels(c);
  Gradients g;
  g.weights.resize(c.layers());
  g.biases.resize(c.layers());
  // The first layer whose gradients are needed, or whose input's are.
  size_t least = c.layers();
  for (size_t i = c.layers(); i-- > 0;) {
    if (wanted.weights[i] || wanted.biases[i]) least = i;
  }
  if (wanted.joined && least > 1) least = 1;
  if (wanted.x) least = 0;
  if (c.last != RL_NONE) {
    d = c.last == RL_TANH && own ? d.clone(at::MemoryFormat::Contiguous) : d.contiguous();
    through(c.last, own, d, out);
  }
  d = d.contiguous();
  for (size_t i = c.layers(); i-- > least;) {
    const Tensor& in = c.input(i);
    const Tensor& w = c.weights[i];
    const int64_t rows = in.size(0), inputs = w.size(1), outputs = w.size(0);
    if (wanted.weights[i]) {
      if (own) {
        g.weights[i] = at::empty(w.sizes(), w.options());
        Rows x = rows_of(in), dy = rows_of(d);
        rl::Product p{};
        p.m = outputs, p.n = inputs, p.k = rows;
        p.a = dy.at, p.a_row = 1, p.a_col = dy.row;
        p.b = x.at, p.b_row = x.row, p.b_col = 1;
        p.c = g.weights[i].data_ptr<float>(), p.c_row = inputs;
        product(p);
      } else {
        g.weights[i] = at::mm(d.t(), in);
      }
    }
    if (wanted.biases[i]) {
      if (own) {
        g.biases[i] = at::empty(c.biases[i].sizes(), d.options());
        rl::kernels().column_sums(d.data_ptr<float>(), rows, outputs, d.stride(0), g.biases[i].data_ptr<float>());
      } else {
        g.biases[i] = at::sum(d, 0);
      }
    }
    if (i == 0 && !wanted.x) break;
    const bool joins = i == 1 && c.joined.defined();
    if (i == least && i > 0 && !(joins && wanted.joined)) break;
    const int before = i == 0 ? RL_NONE : c.after(i - 1);
    const int64_t columns = joins ? inputs - c.joined.size(1) : inputs;
    Tensor whole;
    if (own) {
      whole = at::empty({rows, inputs}, d.options());
      Rows dy = rows_of(d), y = rows_of(in), to = rows_of(whole);
      // With columns that join there are two products: ReLU's derivative is for the first layer's alone.
      auto part = [&](int64_t first, int64_t n, bool masked) {
        rl::Product p{};
        p.m = rows, p.n = n, p.k = outputs;
        p.a = dy.at, p.a_row = dy.row, p.a_col = 1;
        p.b = w.data_ptr<float>() + first, p.b_row = inputs, p.b_col = 1;
        p.c = to.at + first, p.c_row = to.row;
        if (masked) p.where = y.at + first, p.where_row = y.row;
        product(p);
      };
      if (i > least || !joins) part(0, columns, before == RL_RELU);
      if (joins && wanted.joined) part(columns, inputs - columns, false);
    } else {
      whole = at::mm(d, w);
    }
    if (joins && wanted.joined) g.joined = whole.narrow(1, columns, inputs - columns).contiguous();
    if (i == least && i > 0) break;
    if (i == 0) {
      g.x = whole;
      break;
    }
    d = joins ? whole.narrow(1, 0, columns) : whole;
    if (!own || before == RL_TANH) through(before, own, d, joins ? in.narrow(1, 0, columns) : in);
  }
  return g;
}

// Inputs, as the engine numbers them: x, joined if there, then weight and bias of each layer.
class ChainNode : public torch::autograd::Node {
 public:
  ChainNode(Chain chain, const std::vector<const Tensor*>& inputs) : chain_(std::move(chain)) {
    for (const Tensor* input : inputs) saved_.emplace_back(*input, /*is_output=*/false);
  }

  // After the output has become this node's.
  void save_output(const Tensor& out) {
    out_ = torch::autograd::SavedVariable(out, /*is_output=*/true);
  }

  std::string name() const override {
    return "PerceptronBackward";
  }

  void release_variables() override {
    std::lock_guard<std::mutex> lock(mutex_);
    for (auto& variable : saved_) variable.reset_data();
    out_.reset_data();
    chain_.inputs.clear();
    chain_.x = chain_.joined = Tensor();
    released_ = true;
  }

  torch::autograd::variable_list apply(torch::autograd::variable_list&& grads) override {
    std::lock_guard<std::mutex> lock(mutex_);
    TORCH_CHECK(!at::GradMode::is_enabled(), "a perceptron's backward pass cannot be differentiated again; take Mlp::composed");
    TORCH_CHECK(!released_, "a backward pass went through this perceptron already, and freed what it needs");
    torch::autograd::variable_list result(num_outputs());
    if (!grads[0].defined()) return result;
    // Unpacking checks that nobody has written into them since.
    for (auto& variable : saved_) variable.unpack(nullptr);
    Tensor out;
    if (chain_.last != RL_NONE) out = out_.unpack(shared_from_this()).detach();
    at::AutoDispatchBelowADInplaceOrView below;
    const size_t layers = chain_.layers(), first = chain_.joined.defined() ? 2 : 1;
    Wanted wanted{task_should_compute_output(0), first == 2 && task_should_compute_output(1), {}, {}};
    for (size_t i = 0; i < layers; ++i) {
      wanted.weights.push_back(task_should_compute_output(first + 2 * i));
      wanted.biases.push_back(task_should_compute_output(first + 2 * i + 1));
    }
    Gradients g = backward(chain_, grads[0], out, wanted);
    result[0] = std::move(g.x);
    if (first == 2) result[1] = std::move(g.joined);
    for (size_t i = 0; i < layers; ++i) {
      result[first + 2 * i] = std::move(g.weights[i]);
      result[first + 2 * i + 1] = std::move(g.biases[i]);
    }
    return result;
  }

 private:
  Chain chain_;
  // The inputs again, for the check alone.
  std::vector<torch::autograd::SavedVariable> saved_;
  torch::autograd::SavedVariable out_;
  bool released_ = false;
};

}  // namespace

extern "C" {

char* rl_perceptron(const Tensor* x, const Tensor* joined, Tensor* const* weights, Tensor* const* biases, size_t layers,
                    int hidden, int last, Tensor** result) {
  const bool graph = at::GradMode::is_enabled();
  return rl::guarded([&] {
    TORCH_CHECK(layers > 0, "a perceptron has at least one layer");
    std::vector<const Tensor*> inputs{x};
    if (joined != nullptr) inputs.push_back(joined);
    for (size_t i = 0; i < layers; ++i) {
      inputs.push_back(weights[i]);
      inputs.push_back(biases[i]);
    }
    bool wanted = false;
    for (const Tensor* input : inputs) wanted = wanted || (graph && input->requires_grad());
    Chain chain;
    chain.hidden = hidden;
    chain.last = last;
    chain.weights.reserve(layers);
    chain.biases.reserve(layers);
    Tensor out;
    {
      at::AutoDispatchBelowADInplaceOrView below;
      chain.x = *x;
      if (joined != nullptr) chain.joined = *joined;
      for (size_t i = 0; i < layers; ++i) {
        chain.weights.push_back(*weights[i]);
        chain.biases.push_back(*biases[i]);
      }
      check(chain);
      out = forward(chain);
    }
    if (wanted) {
      at::AutoGradMode enabled(true);
      auto node = std::shared_ptr<ChainNode>(new ChainNode(std::move(chain), inputs), torch::autograd::deleteNode);
      torch::autograd::edge_list edges;
      edges.reserve(inputs.size());
      for (const Tensor* input : inputs) edges.push_back(torch::autograd::impl::gradient_edge(*input));
      node->set_next_edges(std::move(edges));
      torch::autograd::set_history(out, node);
      if (last != RL_NONE) node->save_output(out);
    }
    *result = new Tensor(std::move(out));
  });
}

}  // extern "C"
