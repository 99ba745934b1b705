// What balances the experts of a micro-batch by Sinkhorn's iteration, as Megatron-Core's sinkhorn() does
// (docs/router.md): numbers that are added to logits to choose by.
#pragma once

#include "tensor/ctx.h"

namespace mixtune {

// Megatron-Core's numbers. It goes on until changes are within the tolerance, which takes some 10 rounds; where logits
// are many times e apart, thousands that choose no other experts, and so here they end.
constexpr double kSinkhornEpsilon = 1e-8, kSinkhornTolerance = 1e-4;
constexpr int kSinkhornMostRounds = 100;

// offsets [E] = log c, of rows [0, live) of logits l [T, E]. From c = 1 each round computes
//   r_t = 1 / (live (sum_e c_e exp(l_te) + epsilon)),  c_e = 1 / (E (sum_t r_t exp(l_te) + epsilon)),
// until the mean change of a c is within the tolerance: then c_e exp(l_te) r_t sums to about 1 / live in each row and
// to 1 / E in each column. In a row that has the order of l_te + log c_e. None live: offsets 0.
//
// Computed are exp(l_te - m_t), m_t the largest of the row, with epsilon exp(-m_t) in r_t: which is r_t exp(m_t) then,
// so that each r_t exp(l_te) is what it was, and c of every round too. Thus offsets of finite logits have no NaN.
struct Sinkhorn {
  Tensor logits;
  int64_t live;
  Tensor offsets;  // of the logits' dtype, in which r and c are; sums are fp64
};
void sinkhorn(Ctx& ctx, const Sinkhorn& args);

}  // namespace mixtune
