// mixtune's own attention kernels, whichever attention.h chooses on this GPU: forward, and backward from what it saved.
// bf16 with a head_dim of 8, 16, ... 128 runs on tensor cores, all else on CUDA cores.
#include <algorithm>
#include <cmath>

#include "conformance/cases.h"
#include "kernels/attention/attention_flash.h"

namespace mixtune {
namespace {

using Lengths = std::vector<int64_t>;  // of documents

struct Documents {
  Lengths lengths;
  int64_t dead_rows = 0;  // they follow the documents
};

struct Heads {
  int64_t q, kv, dim;
};

Lengths repeated(const Lengths& pattern, int64_t times) {
  Lengths lengths;
  for (int64_t i = 0; i < times; ++i) lengths.insert(lengths.end(), pattern.begin(), pattern.end());
  return lengths;
}

Operand offsets_of(Conformance& c, std::string_view name, const Lengths& lengths) {
  std::vector<int64_t> offsets = {0};
  for (const int64_t length : lengths) offsets.push_back(offsets.back() + length);
  return c.integers(name, {static_cast<int64_t>(offsets.size())}, [&](int64_t i) { return offsets[i]; });
}

// bf16: the result is rounded, and before that the probabilities, their gradients, and out, which dP is compared with:
// each is half an epsilon (2^-9) off at most, 0.3 epsilons in the mean square. The errors of different elements are
// independent; out has two such errors, dqkv three or four.
// fp32: scores are sums over head_dim, whose errors are relative ones of the probabilities, and results are sums over
// up to `longest` rows; both in another order. The gradients have two such sums of either kind.
void expect_results(Conformance& c, const Heads& heads, int64_t longest, const Operand& out, const Operand& lse,
                    const Operand& dqkv) {
  const bool bf16 = c.dtype() == DType::kBF16;
  const double sums = 4 + (std::sqrt(static_cast<double>(heads.dim)) + std::sqrt(static_cast<double>(longest))) / 4;
  const double out_epsilons = bf16 ? 2 : 2 * sums, dqkv_epsilons = bf16 ? 3 : 4 * sums;
  const double epsilon = bf16 ? 0x1p-8 : 0x1p-23;
  c.expect_close(out, out_epsilons);
  c.expect_close(dqkv, dqkv_epsilons);
  c.expect_close(lse, 2 * sums);
  c.expect_norm_close(out, out_epsilons / 2 * epsilon);
  c.expect_norm_close(dqkv, dqkv_epsilons / 2 * epsilon);
}

// On the GPU the documents stand `repetitions` times.
void attention_case(Conformance& c, const Heads& heads, int64_t window, const Documents& documents,
                    int64_t repetitions) {
  int64_t rows = documents.dead_rows, longest = 0;
  for (const int64_t length : documents.lengths) {
    rows += length;
    longest = std::max(longest, length);
  }
  const int64_t out_width = heads.q * heads.dim, width = out_width + 2 * heads.kv * heads.dim;
  const Operand offsets = offsets_of(c, "offsets", documents.lengths);
  const Operand gpu_offsets = offsets_of(c, "GPU's offsets", repeated(documents.lengths, repetitions));
  c.repeat(repetitions);
  const Operand qkv = c.random("qkv", {rows, width}), dout = c.random("dout", {rows, out_width});
  const Operand out = c.output("out", {rows, out_width}), dqkv = c.output("dqkv", {rows, width});
  const Operand lse = c.random("lse", {rows, heads.q}, DType::kF32);  // dead rows keep what they had
  c.run([&](Ctx& ctx, Side side) {
    const Operand& on_side = side == Side::kCpu ? offsets : gpu_offsets;
    const AttentionShape shape = {heads.q, heads.kv, heads.dim, window, on_side[side], on_side[Side::kCpu]};
    const AttentionBackward backward = {qkv[side], out[side], lse[side], dout[side], dqkv[side]};
    if (side == Side::kCpu) {
      attention_forward(ctx, shape, qkv[side], out[side], lse[side]);
      attention_backward(ctx, shape, backward);
    } else {
      cuda::flash_attention_forward(ctx, shape, qkv[side], out[side], lse[side]);
      cuda::flash_attention_backward(ctx, shape, backward);
    }
  });
  expect_results(c, heads, longest, out, lse, dqkv);
}

ConformanceCase attention(const char* name, Heads heads, int64_t window, Documents documents, int64_t repetitions = 1) {
  return {"flash_attention", name, [=](Conformance& c) {
            attention_case(c, heads, window, documents, repetitions);
          }};
}

}  // namespace

ConformanceCases attention_cases() {
  const Documents mixed = {{300, 1, 37, 128, 2, 230, 129, 64, 5}};
  const Documents tailed = {mixed.lengths, 157};
  const Documents one_token = {{1}};
  return {
      attention("head_dim_6", {4, 2, 6}, 0, tailed),
      attention("head_dim_6_window_7", {4, 1, 6}, 7, mixed),
      attention("head_dim_8", {4, 2, 8}, 0, mixed),
      attention("head_dim_16", {4, 4, 16}, 0, mixed),
      attention("head_dim_16_window_1", {8, 1, 16}, 1, tailed),
      attention("head_dim_33", {2, 1, 33}, 0, tailed),
      attention("head_dim_64", {4, 4, 64}, 0, tailed),
      attention("head_dim_64_window_7", {8, 2, 64}, 7, mixed),
      attention("head_dim_80", {4, 1, 80}, 0, tailed),
      attention("head_dim_80_window_100", {4, 2, 80}, 100, mixed),
      attention("head_dim_128", {4, 4, 128}, 0, mixed),
      attention("head_dim_128_window_1", {8, 2, 128}, 1, mixed),
      attention("head_dim_128_window_7", {8, 1, 128}, 7, tailed),
      attention("head_dim_128_window_100", {8, 2, 128}, 100, tailed),
      attention("head_dim_128_window_of_a_document", {4, 2, 128}, 230, mixed),
      attention("head_dim_128_window_beyond_documents", {4, 2, 128}, int64_t{1} << 40, mixed),
      attention("head_dim_136", {2, 1, 136}, 0, mixed),
      attention("head_dim_256", {4, 1, 256}, 0, tailed),
      attention("head_dim_256_window_100", {4, 4, 256}, 100, mixed),
      attention("mixtral_heads", {32, 8, 128}, 0, tailed),
      attention("long_document", {8, 4, 128}, 0, {{3001}}),
      attention("long_documents_window_1000", {4, 4, 64}, 1000, {{1500, 1537}, 35}),
      attention("1000_short_documents", {4, 2, 128}, 0, {repeated({1, 9, 2, 1, 17}, 200), 80}),
      attention("1000_documents_of_one_token", {4, 2, 64}, 0, {Lengths(1000, 1), 24}),
      attention("empty_documents", {4, 2, 64}, 0, {{0, 0, 70, 0, 130, 0}, 56}),
      attention("one_token", {32, 8, 128}, 0, one_token),
      attention("one_token_head_dim_6", {4, 2, 6}, 7, one_token),
      attention("one_token_dead_tail", {4, 2, 128}, 0, {{1}, 127}),
      attention("no_document", {4, 2, 128}, 0, {{}, 128}),
      // qkv has 2.2e9 elements: 15 GB of GPU memory in bf16, 30 in fp32.
      large(attention("past_2_31_elements", {32, 8, 128}, 0, {{1000, 408}}, 250)),
  };
}

}  // namespace mixtune
