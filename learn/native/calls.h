// Counts operator calls. Conventions: see shim.h.
#pragma once
#include <cstddef>

extern "C" {
// Told once for each name that was called.
typedef void (*rl_calls_fn)(void* context, const char* name, unsigned long long calls);

// Begins counting what libtorch's dispatcher is asked for by this thread, and by the threads that run backward passes for it; one count at a time in
// a process.
char* rl_calls_begin(void** counting);

// Ends it, in the thread that began it; *syncs receives how many calls read a number back, or copied from a device to the host.
char* rl_calls_end(void* counting, rl_calls_fn tell, void* context, unsigned long long* syncs);
}
