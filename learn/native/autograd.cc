#include "autograd.h"

#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/saved_variable.h>
#include <torch/csrc/autograd/variable.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

// Runs `body`, turning whatever it throws into a message without libtorch's backtrace. Leaves the grad mode alone.
template <typename Body>
char* answered(Body body) {
  try {
    body();
    return nullptr;
  } catch (const c10::Error& error) {
    return rl_message(error.what_without_backtrace());
  } catch (const std::exception& error) {
    return rl_message(error.what());
  } catch (...) {
    return rl_message("an unknown C++ exception");
  }
}

// The context with the function that ends it.
class Context {
 public:
  Context(void* context, void (*drop)(void*)) : context_(context), drop_(drop) {}
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;
  ~Context() { drop_(context_); }
  void* get() const { return context_; }

 private:
  void* context_;
  void (*drop_)(void*);
};

class CallerNode : public torch::autograd::Node {
 public:
  CallerNode(std::unique_ptr<Context> context, rl_backward_fn call, at::Tensor* const* saved, size_t n_saved)
      : context_(std::move(context)), call_(call) {
    saved_.reserve(n_saved);
    for (size_t i = 0; i < n_saved; ++i) saved_.emplace_back(*saved[i], /*is_output=*/false);
  }

  std::string name() const override {
    return "CallerNode";
  }

  void release_variables() override {
    std::lock_guard<std::mutex> lock(mutex_);
    for (auto& variable : saved_) variable.reset_data();
  }

  torch::autograd::variable_list apply(torch::autograd::variable_list&& grads) override {
    std::lock_guard<std::mutex> lock(mutex_);
    if (at::GradMode::is_enabled()) throw std::runtime_error("this function cannot be differentiated twice");
    // Unpacking checks the versions, and that the graph has not been freed; it may throw, so it comes before anything is made.
    std::vector<at::Tensor> unpacked;
    for (auto& variable : saved_) unpacked.push_back(variable.unpack(nullptr).detach());
    // The callee owns what it is given.
    std::vector<at::Tensor*> given;
    for (auto& tensor : unpacked) given.push_back(new at::Tensor(std::move(tensor)));
    auto* grad = new at::Tensor(grads[0].defined() ? grads[0] : input_metadata(0).zeros_like());
    std::vector<at::Tensor*> results(num_outputs(), nullptr);
    char* message = call_(context_->get(), grad, given.data(), given.size(), results.data(), results.size());
    torch::autograd::variable_list out;
    for (auto* result : results) {
      out.push_back(result == nullptr ? at::Tensor() : std::move(*result));
      delete result;
    }
    if (message != nullptr) {
      std::string text(message);
      free(message);
      throw std::runtime_error(text);
    }
    return out;
  }

 private:
  std::unique_ptr<Context> context_;
  rl_backward_fn call_;
  std::vector<torch::autograd::SavedVariable> saved_;
};

}  // namespace

extern "C" {

char* rl_message(const char* text) {
  return strdup(text);
}

char* rl_with_backward(const at::Tensor* output, at::Tensor* const* inputs, size_t n_inputs, at::Tensor* const* saved,
                       size_t n_saved, void* context, rl_backward_fn call, void (*drop)(void*), at::Tensor** result) {
  return answered([&] {
    auto owned = std::make_unique<Context>(context, drop);
    bool wanted = false;
    for (size_t i = 0; i < n_inputs; ++i) wanted = wanted || inputs[i]->requires_grad();
    at::Tensor out = output->detach();
    if (wanted && at::GradMode::is_enabled()) {
      auto node = std::shared_ptr<CallerNode>(new CallerNode(std::move(owned), call, saved, n_saved),
                                              torch::autograd::deleteNode);
      torch::autograd::edge_list edges;
      for (size_t i = 0; i < n_inputs; ++i) edges.push_back(torch::autograd::impl::gradient_edge(*inputs[i]));
      node->set_next_edges(std::move(edges));
      torch::autograd::set_history(out, node);
    }
    *result = new at::Tensor(std::move(out));
  });
}

char* rl_backward(at::Tensor* const* outputs, at::Tensor* const* grads, size_t n_outputs, at::Tensor* const* inputs,
                  size_t n_inputs, at::Tensor** results) {
  return answered([&] {
    torch::autograd::edge_list roots, leaves;
    torch::autograd::variable_list along;
    for (size_t i = 0; i < n_outputs; ++i) {
      roots.push_back(torch::autograd::impl::gradient_edge(*outputs[i]));
      along.push_back(*grads[i]);
    }
    for (size_t i = 0; i < n_inputs; ++i) {
      if (!inputs[i]->requires_grad()) throw std::invalid_argument("a gradient is asked of a tensor that has none");
      leaves.push_back(torch::autograd::impl::gradient_edge(*inputs[i]));
    }
    auto found = torch::autograd::Engine::get_default_engine().execute(
        roots, along, /*keep_graph=*/false, /*create_graph=*/false, /*accumulate_grad=*/false, leaves);
    for (size_t i = 0; i < n_inputs; ++i) results[i] = found[i].defined() ? new at::Tensor(found[i]) : nullptr;
  });
}

}  // extern "C"
