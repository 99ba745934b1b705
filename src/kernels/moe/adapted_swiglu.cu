// The host's half of adapted_swiglu.cuh.
#include "kernels/moe/adapted_swiglu.cuh"

namespace mixtune::cuda {

int Chunks::all() const {
  int sum = 0;
  for (int e = 0; e < groups.size; ++e) sum += of_group(e);
  return sum;
}

void zero_rest(Ctx& ctx, const Tensor& x, const ThinGroups& groups) {
  if (!x) return;
  const auto zero_rows = [&](int64_t from, int64_t to) {
    if (to <= from) return;
    const Tensor rest = x.slice(from, to - from);
    check_cuda(cudaMemsetAsync(rest.data, 0, rest.bytes(), ctx.gpu->stream()), "adapted_swiglu");
  };
  int64_t end = 0;
  for (int e = 0; e < groups.size; ++e) {
    if (groups.begin[e] == groups.end[e]) continue;
    zero_rows(end, groups.begin[e]);
    end = groups.end[e];
  }
  zero_rows(end, x.rows());
}

namespace {

// Of the module whose rows begin at `first`; empty where it has no pair.
PairSide side_of(const GateUpPairs& pairs, int64_t first) {
  if (!pairs.b) return {};
  const int64_t rank = pairs.b.shape[2];
  int64_t before = 0;
  for (int i = 0; i < pairs.modules.size; ++i) {
    if (pairs.modules.rows[i].first == first) {
      const Matrix u = matrix_of(pairs.u);
      const Matrix inner = {u.data + i * rank, u.rows, static_cast<int>(rank), u.columns};
      return {inner, elements<bf16>(pairs.b) + before * rank, pairs.b.shape[1] * rank};
    }
    before += pairs.modules.rows[i].count;
  }
  return {};
}

}  // namespace

GateUpOperands gate_up_operands(const Tensor& gate_up, const Tensor& row_weights, const GateUpPairs& pairs) {
  const int64_t f = gate_up.shape[1] / 2;
  return {.gate_up = matrix_of(gate_up),
          .row_weights = elements<float>(row_weights),
          .gate = side_of(pairs, 0),
          .up = side_of(pairs, f),
          .columns = static_cast<int>(f),
          .rank = pairs.b ? static_cast<int>(pairs.b.shape[2]) : 0,
          .scale = static_cast<float>(pairs.scale)};
}

}  // namespace mixtune::cuda
