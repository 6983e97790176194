// Temporal-difference errors of f32 values in the CPU's memory, each in one pass. Conventions: see shim.h.
#pragma once
#include <cstddef>

namespace at {
class Tensor;
}

extern "C" {
// q [B, n] or [B]; action i64 [B], or null where q has one column; target and weight [B]. With q_i = q(i, action_i) and d_i = target_i − q_i:
// *loss receives mean(weight · l(d)), a scalar in q's graph, where l is Huber's function with threshold 1 or the square; *chosen the q_i,
// *magnitude the |d_i| and *mean the mean of q_i, outside the graph. Nothing flows back into target and weight.
char* rl_td_loss(const at::Tensor* q, const at::Tensor* action, const at::Tensor* target, const at::Tensor* weight,
                 bool huber, at::Tensor** loss, at::Tensor** chosen, at::Tensor** magnitude, at::Tensor** mean);

// *target receives reward + discount · q(i, a_i), where a_i is the first of the largest of chooser's row i, or of q's own if that is null. q and
// chooser [B, n], or [B] for one column. Outside any graph.
char* rl_bootstrap(const at::Tensor* reward, const at::Tensor* discount, const at::Tensor* q, const at::Tensor* chooser,
                   at::Tensor** target);

// out[i] = the first of the largest of row i of q, f32 [B, n] on the CPU; NaN is larger than all.
char* rl_argmax(const at::Tensor* q, long long* out);
}
