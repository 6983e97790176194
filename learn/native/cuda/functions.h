// What the CUDA half of the shim offers: a table of functions, so that the half that every program has can open this one at run time. It knows
// CUDA's types as opaque pointers only, and needs no header of CUDA's. Each function that gives a `char*` gives null, or a message that rl_free
// frees.
#pragma once
#include <cstddef>

struct RlCudaGraph;
struct RlCudaStream;
struct RlCudaEvent;

extern "C" {

struct RlCudaFunctions {
  // A private memory pool for graphs that are replayed one after the other, and an empty graph that takes its memory from there.
  char* (*pool_new)(unsigned long long pool[2]);
  char* (*graph_new)(const unsigned long long pool[2], RlCudaGraph** out);
  void (*graph_free)(RlCudaGraph* graph);
  // Between the two what this thread launches on its current stream, which must not be the default one, is recorded and not run.
  char* (*capture_begin)(RlCudaGraph* graph);
  char* (*capture_end)(RlCudaGraph* graph);
  // Launches what was recorded on the current stream.
  char* (*graph_replay)(RlCudaGraph* graph);
  char* (*graph_reset)(RlCudaGraph* graph);

  // A stream of `device`'s pool; the stream that this thread launches on; and to launch on another.
  char* (*stream_new)(int device, RlCudaStream** out);
  char* (*stream_current)(int device, RlCudaStream** out);
  void (*stream_free)(RlCudaStream* stream);
  char* (*stream_set)(const RlCudaStream* stream);
  char* (*stream_synchronize)(const RlCudaStream* stream);

  // An event: recorded on a stream, waited for by another stream or by the host, asked whether it is over; milliseconds between two of them.
  char* (*event_new)(bool timing, RlCudaEvent** out);
  void (*event_free)(RlCudaEvent* event);
  char* (*event_record)(RlCudaEvent* event, const RlCudaStream* stream);
  char* (*event_wait)(const RlCudaEvent* event, const RlCudaStream* stream);
  char* (*event_query)(const RlCudaEvent* event, bool* over);
  char* (*event_synchronize)(const RlCudaEvent* event);
  char* (*event_elapsed)(const RlCudaEvent* from, const RlCudaEvent* to, float* milliseconds);
};

// The one symbol that is looked up.
const RlCudaFunctions* rl_cuda_functions();
}
