// CPU twins of adapted_swiglu.h.
#pragma once

#include <algorithm>
#include <vector>

#include "kernels/cpu_math.h"
#include "kernels/moe/adapted_swiglu.h"
#include "kernels/swiglu_cpu.h"

namespace mixtune::cpu {

// A module: its rows of the weight, where they begin among B's, and its first column of u.
struct PairedModule {
  AdaptedRows rows;
  int64_t b_row, u_column;
};
template <class Visit>
void for_each_pair(const GateUpPairs& pairs, const Visit& visit) {
  int64_t before = 0;
  for (int i = 0; i < pairs.modules.size; ++i) {
    const AdaptedRows& rows = pairs.modules.rows[i];
    visit(PairedModule{rows, before, i * pairs.b.shape[2]});
    before += rows.count;
  }
}

// A row of gate_up with all its parts, into `to` [2F].
template <class S>
void complete_gate_up(const Tensor& gate_up, const GateUpPairs& pairs, int64_t e, int64_t row, S* to) {
  std::copy_n(gate_up.row(row).as<S>(), gate_up.shape[1], to);
  if (!pairs.b) return;
  const int64_t rank = pairs.b.shape[2];
  for_each_pair(pairs, [&](const PairedModule& module) {
    const S* u = pairs.u.row(row).as<S>() + module.u_column;
    const S* b = pairs.b.as<S>() + (e * pairs.b.shape[1] + module.b_row) * rank;
    for (int64_t i = 0; i < module.rows.count; ++i) {
      S sum = 0;
      for (int64_t j = 0; j < rank; ++j) sum += u[j] * b[i * rank + j];
      to[module.rows.first + i] += static_cast<S>(pairs.scale) * sum;
    }
  });
}

// to [F] += v A.
template <class S>
void add_down_pair(const DownPair& pair, int64_t e, int64_t row, S* to) {
  if (!pair.a) return;
  const int64_t rank = pair.a.shape[1], f = pair.a.shape[2];
  const S *v = pair.v.row(row).as<S>(), *a = pair.a.as<S>() + e * rank * f;
  for (int64_t j = 0; j < rank; ++j)
    for (int64_t i = 0; i < f; ++i) to[i] += v[j] * a[j * f + i];
}

// Calls run(e, row) for the rows of all groups, and other(row) for the rest.
template <class Run, class Other>
void for_each_row(const RowGroups& groups, int64_t rows, const Run& run, const Other& other) {
  std::vector<int64_t> group(static_cast<size_t>(rows), -1);
  for (int64_t e = 0; e < groups.groups; ++e) std::fill_n(group.begin() + groups.begin[e], groups.count[e], e);
#pragma omp parallel for
  for (int64_t r = 0; r < rows; ++r)
    if (group[r] < 0)
      other(r);
    else
      run(group[r], r);
}

// A view of one row of x, as a matrix; empty for an empty x.
inline Tensor row_of(const Tensor& x, int64_t row) {
  return x ? x.slice(row, 1) : Tensor{};
}

template <class S>
void zero_row(const Tensor& x, int64_t row) {
  if (x) std::fill_n(x.as<S>() + row * (x.elements() / x.rows()), x.elements() / x.rows(), S(0));
}

template <class S>
void adapted_swiglu_forward(const AdaptedSwiglu& args) {
  const auto on_row = [&](int64_t e, int64_t r) {
    std::vector<S> complete(static_cast<size_t>(args.gate_up.shape[1]));
    complete_gate_up(args.gate_up, args.gate_up_pairs, e, r, complete.data());
    Tensor gate_up = row_of(args.gate_up, r);
    gate_up.data = complete.data();
    swiglu_forward<S>(gate_up, row_of(args.row_weights, r), row_of(args.act, r));
  };
  for_each_row(args.groups, args.act.rows(), on_row, [&](int64_t r) { zero_row<S>(args.act, r); });
}

// to[i, j] = (or +=) scale times the sum over the group's rows of wide[r, i] thin[r, j]; or its transpose.
template <class S>
struct ThinSum {
  const S* wide;  // of the group's first row and first column
  const S* thin;
  int64_t wide_pitch, thin_pitch, rows, count, rank;
  S scale;
  S* to;
  bool transposed, accumulate;

  void operator()() const {
    constexpr int64_t kBlock = 64;
#pragma omp parallel for
    for (int64_t first = 0; first < count; first += kBlock) {
      const int64_t n = std::min(kBlock, count - first);
      std::vector<S> sums(static_cast<size_t>(rank * kBlock));
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t j = 0; j < rank; ++j)
          for (int64_t i = 0; i < n; ++i)
            sums[j * kBlock + i] += wide[r * wide_pitch + first + i] * thin[r * thin_pitch + j];
      for (int64_t j = 0; j < rank; ++j)
        for (int64_t i = 0; i < n; ++i) {
          S& into = transposed ? to[j * count + first + i] : to[(first + i) * rank + j];
          into = (accumulate ? into : S(0)) + scale * sums[j * kBlock + i];
        }
    }
  }
};

template <class S>
void sum_pair_gradients(const AdaptedSwigluBackward& args, const Tensor& act) {
  const GateUpPairs& up = args.gate_up_pairs;
  for (int64_t e = 0; e < args.groups.groups; ++e) {
    const int64_t begin = args.groups.begin[e], rows = args.groups.count[e];
    if (args.db)
      for_each_pair(up, [&](const PairedModule& module) {
        const int64_t rank = up.b.shape[2], width = args.dgate_up.shape[1], inner = up.u.shape[1];
        ThinSum<S>{.wide = args.dgate_up.as<S>() + begin * width + module.rows.first,
                   .thin = up.u.as<S>() + begin * inner + module.u_column,
                   .wide_pitch = width,
                   .thin_pitch = inner,
                   .rows = rows,
                   .count = module.rows.count,
                   .rank = rank,
                   .scale = static_cast<S>(up.scale),
                   .to = args.db.as<S>() + (e * up.b.shape[1] + module.b_row) * rank,
                   .transposed = false,
                   .accumulate = args.accumulate_db}();
      });
    if (args.da) {
      const int64_t rank = args.down_pair.a.shape[1], f = act.shape[1];
      ThinSum<S>{.wide = act.as<S>() + begin * f,
                 .thin = args.down_pair.v.as<S>() + begin * rank,
                 .wide_pitch = f,
                 .thin_pitch = rank,
                 .rows = rows,
                 .count = f,
                 .rank = rank,
                 .scale = 1,
                 .to = args.da.as<S>() + e * rank * f,
                 .transposed = true,
                 .accumulate = args.accumulate_da}();
    }
  }
}

template <class S>
void adapted_swiglu_backward(const AdaptedSwigluBackward& args) {
  const int64_t rows = args.dact.rows(), f = args.dact.shape[1];
  std::vector<S> own_act;  // where the caller wants none, but its gradient reads it
  Tensor act = args.act;
  if (!act && args.da) {
    own_act.resize(static_cast<size_t>(rows * f));
    act = args.dact;
    act.data = own_act.data();
  }
  const auto on_row = [&](int64_t e, int64_t r) {
    std::vector<S> complete(static_cast<size_t>(2 * f)), full(args.dact.row(r).as<S>(), args.dact.row(r).as<S>() + f);
    complete_gate_up(args.gate_up, args.gate_up_pairs, e, r, complete.data());
    add_down_pair(args.down_pair, e, r, full.data());
    Tensor gate_up = row_of(args.gate_up, r), dact = row_of(args.dact, r);
    gate_up.data = complete.data(), dact.data = full.data();
    swiglu_backward<S>({.gate_up = gate_up,
                        .row_weights = row_of(args.row_weights, r),
                        .dact = dact,
                        .dgate_up = row_of(args.dgate_up, r),
                        .drow_weights = row_of(args.drow_weights, r),
                        .act = row_of(act, r)});
  };
  for_each_row(args.groups, rows, on_row, [&](int64_t r) {
    for (const Tensor& result : {args.dgate_up, args.drow_weights, act}) zero_row<S>(result, r);
  });
  sum_pair_gradients<S>(args, act);
}

}  // namespace mixtune::cpu
