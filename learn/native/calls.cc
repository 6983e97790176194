// Where NDEBUG is not said, the header expects a library that was built without it.
#ifndef NDEBUG
#define NDEBUG
#endif

#include "calls.h"

#include <ATen/record_function.h>

#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "guarded.h"

namespace {

struct Counting {
  std::mutex mutex;
  std::map<std::string, unsigned long long> calls;
  unsigned long long syncs = 0;
  at::CallbackHandle handle = 0;
};

// Callbacks are plain functions, and those on the engine's threads are copies of the beginning thread's; so there is one place.
std::mutex place;
std::shared_ptr<Counting> now;

std::unique_ptr<at::ObserverContext> called(const at::RecordFunction& function) {
  // The engine tells of its nodes as well.
  if (!function.operator_name()) return nullptr;
  std::shared_ptr<Counting> counting;
  {
    std::lock_guard<std::mutex> lock(place);
    counting = now;
  }
  if (counting == nullptr) return nullptr;
  const std::string name = function.name();
  bool sync = name == "aten::_local_scalar_dense";
  if (name == "aten::copy_") {
    auto inputs = function.inputs();
    sync = inputs.size() > 1 && inputs[0].isTensor() && inputs[1].isTensor() && inputs[0].toTensor().is_cpu() &&
           !inputs[1].toTensor().is_cpu();
  }
  std::lock_guard<std::mutex> lock(counting->mutex);
  ++counting->calls[name];
  counting->syncs += sync;
  return nullptr;
}

}  // namespace

extern "C" {

char* rl_calls_begin(void** out) {
  return rl::guarded([&] {
    auto counting = std::make_shared<Counting>();
    {
      std::lock_guard<std::mutex> lock(place);
      TORCH_CHECK(now == nullptr, "operator calls are being counted already");
      now = counting;
    }
    counting->handle = at::addThreadLocalCallback(
        at::RecordFunctionCallback(called).needsInputs(true).scopes({at::RecordScope::FUNCTION}));
    *out = counting.get();
  });
}

char* rl_calls_end(void* which, rl_calls_fn tell, void* context, unsigned long long* syncs) {
  return rl::guarded([&] {
    std::shared_ptr<Counting> counting;
    {
      std::lock_guard<std::mutex> lock(place);
      TORCH_CHECK(now.get() == which, "this count has ended");
      counting = std::move(now);
      now = nullptr;
    }
    at::removeCallback(counting->handle);
    std::lock_guard<std::mutex> lock(counting->mutex);
    for (const auto& [name, calls] : counting->calls) tell(context, name.c_str(), calls);
    *syncs = counting->syncs;
  });
}

}  // extern "C"
