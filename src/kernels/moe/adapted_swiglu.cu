// The host's half of adapted_swiglu.cuh.
#include "kernels/moe/adapted_swiglu.cuh"

namespace mixtune::cuda {

int Chunks::all() const {
  int sum = 0;
  for (int e = 0; e < groups; ++e) sum += of_group(e);
  return sum;
}

Chunks chunks_of(const RowGroups& groups, int64_t rows_of_chunk) {
  MT_CHECK(groups.groups <= kMostSwigluGroups);
  Chunks chunks = {static_cast<int>(groups.groups), static_cast<int>(rows_of_chunk), {}, {}};
  for (int64_t e = 0; e < groups.groups; ++e) {
    if (groups.count[e] == 0) continue;
    chunks.begin[e] = groups.begin[e];
    chunks.end[e] = static_cast<int>(groups.begin[e] + align_rows(groups.count[e]));
  }
  return chunks;
}
void zero_rest(Ctx& ctx, const Tensor& x, const Chunks& chunks) {
  if (!x) return;
  const auto zero_rows = [&](int64_t from, int64_t to) {
    if (to <= from) return;
    const Tensor rest = x.slice(from, to - from);
    check_cuda(cudaMemsetAsync(rest.data, 0, rest.bytes(), ctx.gpu->stream()), "adapted_swiglu");
  };
  int64_t end = 0;
  for (int e = 0; e < chunks.groups; ++e) {
    if (chunks.begin[e] == chunks.end[e]) continue;
    zero_rows(end, chunks.begin[e]);
    end = chunks.end[e];
  }
  zero_rows(end, x.rows());
}

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

}  // namespace mixtune::cuda
