#include "functions.h"

#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>

#include <memory>

#include "../guarded.h"

using rl::guarded;

struct RlCudaGraph {
  at::cuda::CUDAGraph graph;
  c10::MempoolId_t pool;
  c10::DeviceIndex device = -1;
};

struct RlCudaStream {
  c10::cuda::CUDAStream stream;
};

struct RlCudaEvent {
  cudaEvent_t event = nullptr;
};

namespace {

char* pool_new(unsigned long long pool[2]) {
  return guarded([&] {
    auto id = at::cuda::graph_pool_handle();
    pool[0] = id.first;
    pool[1] = id.second;
  });
}

char* graph_new(const unsigned long long pool[2], RlCudaGraph** out) {
  return guarded([&] { *out = new RlCudaGraph{{}, {pool[0], pool[1]}}; });
}

void graph_free(RlCudaGraph* graph) {
  // The destructor resets the graph and warns where that fails; nothing may leave a C function.
  try {
    delete graph;
  } catch (...) {
  }
}

char* capture_begin(RlCudaGraph* graph) {
  return guarded([&] {
    graph->device = c10::cuda::current_device();
    // Other threads (actors, a pinned-memory allocator) may go on using CUDA meanwhile.
    graph->graph.capture_begin(graph->pool, cudaStreamCaptureModeThreadLocal);
  });
}

char* capture_end(RlCudaGraph* graph) {
  return guarded([&] {
    try {
      graph->graph.capture_end();
    } catch (...) {
      // A capture that something made invalid ends before libtorch tells its allocator so, which would go on holding memory back.
      cudaGetLastError();
      try {
        c10::cuda::CUDACachingAllocator::endAllocateToPool(graph->device, graph->pool);
      } catch (...) {
      }
      throw;
    }
  });
}

char* graph_replay(RlCudaGraph* graph) {
  return guarded([&] { graph->graph.replay(); });
}

char* graph_reset(RlCudaGraph* graph) {
  return guarded([&] { graph->graph.reset(); });
}

char* stream_new(int device, RlCudaStream** out) {
  return guarded([&] { *out = new RlCudaStream{c10::cuda::getStreamFromPool(/*isHighPriority=*/false, device)}; });
}

char* stream_current(int device, RlCudaStream** out) {
  return guarded([&] { *out = new RlCudaStream{c10::cuda::getCurrentCUDAStream(device)}; });
}

void stream_free(RlCudaStream* stream) {
  delete stream;
}

char* stream_set(const RlCudaStream* stream) {
  return guarded([&] {
    c10::cuda::set_device(stream->stream.device_index());
    c10::cuda::setCurrentCUDAStream(stream->stream);
  });
}

char* stream_synchronize(const RlCudaStream* stream) {
  return guarded([&] { stream->stream.synchronize(); });
}

char* event_new(bool timing, RlCudaEvent** out) {
  return guarded([&] {
    auto event = std::make_unique<RlCudaEvent>();
    C10_CUDA_CHECK(cudaEventCreateWithFlags(&event->event, timing ? cudaEventDefault : cudaEventDisableTiming));
    *out = event.release();
  });
}

void event_free(RlCudaEvent* event) {
  if (event->event != nullptr) cudaEventDestroy(event->event);
  delete event;
}

char* event_record(RlCudaEvent* event, const RlCudaStream* stream) {
  return guarded([&] {
    c10::cuda::CUDAGuard device(stream->stream.device_index());
    C10_CUDA_CHECK(cudaEventRecord(event->event, stream->stream.stream()));
  });
}

char* event_wait(const RlCudaEvent* event, const RlCudaStream* stream) {
  return guarded([&] {
    c10::cuda::CUDAGuard device(stream->stream.device_index());
    C10_CUDA_CHECK(cudaStreamWaitEvent(stream->stream.stream(), event->event, 0));
  });
}

char* event_query(const RlCudaEvent* event, bool* over) {
  return guarded([&] {
    cudaError_t state = cudaEventQuery(event->event);
    if (state == cudaErrorNotReady) {
      cudaGetLastError();  // not an error, and must not be taken for one later
    } else {
      C10_CUDA_CHECK(state);
    }
    *over = state == cudaSuccess;
  });
}

char* event_synchronize(const RlCudaEvent* event) {
  return guarded([&] { C10_CUDA_CHECK(cudaEventSynchronize(event->event)); });
}

char* event_elapsed(const RlCudaEvent* from, const RlCudaEvent* to, float* milliseconds) {
  return guarded([&] { C10_CUDA_CHECK(cudaEventElapsedTime(milliseconds, from->event, to->event)); });
}

const RlCudaFunctions FUNCTIONS = {
    pool_new,     graph_new,   graph_free,   capture_begin, capture_end,       graph_replay,  graph_reset,
    stream_new,   stream_current, stream_free, stream_set,  stream_synchronize, event_new,    event_free,
    event_record, event_wait,  event_query,  event_synchronize, event_elapsed,
};

}  // namespace

extern "C" const RlCudaFunctions* rl_cuda_functions() {
  return &FUNCTIONS;
}
