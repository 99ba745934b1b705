#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <numeric>

#include "conformance/cases.h"
#include "kernels/attention/attention_cudnn.h"
#include "tensor/gpu_test.h"

namespace mixtune {

namespace {

struct Packed {
  int64_t q_heads, kv_heads, head_dim, window;
  std::vector<int64_t> lengths;  // of the documents
  int64_t dead_rows = 0;         // they follow the documents
  bool warm_up = false;          // builds the plans of a run with such batches

  int64_t live_rows() const { return std::accumulate(lengths.begin(), lengths.end(), int64_t{0}); }
  bool equal() const {
    return std::adjacent_find(lengths.begin(), lengths.end(), std::not_equal_to()) == lengths.end();
  }
};

// Lengths of this pattern, over and over.
std::vector<int64_t> lengths_like(std::vector<int64_t> pattern, size_t documents) {
  std::vector<int64_t> lengths;
  while (lengths.size() < documents) lengths.push_back(pattern[lengths.size() % pattern.size()]);
  return lengths;
}

// The begins of the documents of so many repetitions, and the end of the last one.
Operand offsets_of(Conformance& c, std::string_view name, const Packed& packed, int64_t repetitions) {
  std::vector<int64_t> offsets = {0};
  for (int64_t i = 0; i < repetitions; ++i)
    for (const int64_t length : packed.lengths) offsets.push_back(offsets.back() + length);
  return c.integers(name, {static_cast<int64_t>(offsets.size())}, [&](int64_t i) { return offsets[i]; });
}

void warm_up(Ctx& ctx, const AttentionShape& shape, const Packed& packed) {
  cuda::cudnn_attention_warm_up(ctx, shape,
                                {.tokens = shape.host_doc_offsets.as<int32_t>()[shape.host_doc_offsets.rows() - 1],
                                 .longest_document = std::ranges::max(packed.lengths),
                                 .documents = shape.host_doc_offsets.rows() - 1});
}

// Turns lse of equal documents from [token][head] into [document][head][token].
void order_by_head(const Tensor& lse, int64_t heads, int64_t length) {
  const std::vector<float> by_token(lse.as<float>(), lse.as<float>() + lse.elements());
  float* by_head = lse.as<float>();
  for (int64_t begin = 0; begin < lse.rows(); begin += length)
    for (int64_t head = 0; head < heads; ++head)
      for (int64_t t = 0; t < length; ++t) *by_head++ = by_token[(begin + t) * heads + head];
}

// Beside the CPU's fp32, a GPU rounds probabilities and their gradients to bf16 before it multiplies them, dk and dv of
// each query head before it adds them, and every result: each time by half an epsilon, at most, of something no larger
// than the largest of the result's addends. The largest element of a result has few addends that matter. The same
// roundings done on a CPU (1 to 1500 keys, head_dim 16 and 128) leave at most 0.8 epsilons and a norm of 0.0021 in out,
// 1.5 and 0.0032 in dqkv; twice of that is allowed. lse is fp32: a sum of exponentials from the GPU's fast exp2.
void check_results(Conformance& c, const Packed& packed, const Operand& out, const Operand& lse, const Operand& dqkv) {
  c.expect_close(out, 2);
  c.expect_norm_close(out, 4e-3);
  c.expect_close(dqkv, 3);
  c.expect_norm_close(dqkv, 6e-3);
  if (packed.dead_rows == 0 && packed.live_rows() > 0) c.expect_close(lse, 64);
}

// The repetitions of the documents are on the GPU alone.
void packed_case(Conformance& c, const Packed& packed, int64_t repetitions = 1) {
  AttentionShape shape = {packed.q_heads, packed.kv_heads, packed.head_dim, packed.window, {}, {}};
  const int capability = gpu_info(0).compute_capability;
  if (!cuda::cudnn_attention_supports(capability, shape, c.dtype())) {
    if (required_gpus() > 0 && (capability / 10 == 9 || capability / 10 == 10)) FAIL() << "no cuDNN 9.19 or newer";
    GTEST_SKIP() << "skipped: no cuDNN 9.19 or newer, or no GPU that it runs attention on";
  }

  const int64_t rows = packed.live_rows() + packed.dead_rows, out_width = packed.q_heads * packed.head_dim,
                width = out_width + 2 * packed.kv_heads * packed.head_dim;
  const Operand offsets = offsets_of(c, "offsets", packed, 1),
                gpu_offsets = offsets_of(c, "all offsets", packed, repetitions);
  c.repeat(repetitions);
  const Operand qkv = c.random("qkv", {rows, width}), dout = c.random("dout", {rows, out_width}),
                out = c.output("out", {rows, out_width}), dqkv = c.output("dqkv", {rows, width});
  const Shape lse_shape = {rows, packed.q_heads};  // the dead rows are not written
  const Operand lse =
      packed.live_rows() > 0 ? c.output("lse", lse_shape, DType::kF32) : c.random("lse", lse_shape, DType::kF32);
  c.any_order(dqkv);
  bool equal_plans = false;
  c.run([&](Ctx& ctx, Side side) {
    const Operand& documents = side == Side::kCpu ? offsets : gpu_offsets;
    shape.doc_offsets = documents[side];
    shape.host_doc_offsets = documents[Side::kCpu];
    const AttentionBackward backward = {qkv[side], out[side], lse[side], dout[side], dqkv[side]};
    if (side == Side::kCpu) {
      attention_forward(ctx, shape, qkv[side], out[side], lse[side]);
      attention_backward(ctx, shape, backward);
    } else {
      if (packed.warm_up) warm_up(ctx, shape, packed);
      equal_plans = cuda::cudnn_attention_has_equal_plans(*ctx.gpu, shape);
      cuda::cudnn_attention_forward(ctx, shape, qkv[side], out[side], lse[side]);
      cuda::cudnn_attention_backward(ctx, shape, backward);
    }
  });
  if (packed.warm_up) {
    EXPECT_EQ(equal_plans, packed.equal());
  }
  if (equal_plans && packed.dead_rows == 0) order_by_head(lse[Side::kCpu], packed.q_heads, packed.lengths.front());
  check_results(c, packed, out, lse, dqkv);
}

ConformanceCase packed(const char* shape, Packed packed, int64_t repetitions = 1) {
  return {"attention_cudnn", shape, [=](Conformance& c) { packed_case(c, packed, repetitions); }, /*fp32=*/false};
}

// Runs after warm-up, so that there are plans for just these documents.
ConformanceCase equal(const char* shape, size_t documents, int64_t length, Packed heads, int64_t repetitions = 1) {
  heads.lengths.assign(documents, length);
  heads.warm_up = true;
  return {"attention_cudnn_equal", shape, [=](Conformance& c) { packed_case(c, heads, repetitions); }, /*fp32=*/false};
}

}  // namespace

ConformanceCases attention_cudnn_cases() {
  const std::vector<int64_t> mixed = {700, 1, 37, 128, 2, 530, 129, 64, 300};
  return {
      packed("mixtral_heads", {32, 8, 128, 0, mixed}),
      packed("mixtral_heads_dead_tail", {32, 8, 128, 0, mixed, 157}),
      packed("one_document", {32, 8, 128, 0, {2048}}),
      packed("long_document", {4, 2, 128, 0, {7001}}),
      packed("heads_not_grouped", {4, 4, 128, 0, mixed}),
      packed("one_kv_head", {8, 1, 64, 0, mixed}),
      packed("head_dim_64", {6, 2, 64, 0, mixed, 29}),
      packed("head_dim_16", {4, 2, 16, 0, mixed}),
      packed("head_dim_112", {4, 2, 112, 0, mixed}),
      packed("window_256", {8, 2, 128, 256, mixed, 21}),
      packed("window_100", {4, 2, 64, 100, mixed}),
      packed("window_1", {4, 2, 128, 1, {1, 2, 130, 300}}),
      packed("window_of_the_document", {4, 2, 128, 300, {300, 301, 299}}),
      packed("window_beyond_documents", {4, 2, 128, 5000, mixed}),
      packed("300_short_documents", {8, 2, 128, 0, lengths_like({1, 9, 2, 30, 17}, 300), 60}),
      packed("one_token", {32, 8, 128, 0, {1}}),
      packed("one_token_dead_tail", {4, 2, 128, 0, {1}, 127}),
      packed("no_document", {4, 2, 128, 0, {}, 128}),
      equal("1_of_128", 1, 128, {8, 2, 128, 0}),
      equal("1_of_500", 1, 500, {6, 2, 112, 0}),
      equal("3_of_500", 3, 500, {32, 8, 128, 0}),
      equal("3_of_500_dead_tail", 3, 500, {8, 2, 128, 0, {}, 36}),
      equal("8_of_500_window_100", 8, 500, {4, 4, 64, 100}),
      equal("8_of_1024", 8, 1024, {8, 2, 128, 0}),
      equal("3_of_1024_window_256", 3, 1024, {8, 2, 128, 256}),
      equal("8_of_129_window_1", 8, 129, {4, 2, 16, 1}),
      packed("last_document_shorter", {8, 2, 128, 0, {1024, 1024, 500}, 12, /*warm_up=*/true}),
      packed("last_document_longer", {8, 2, 128, 0, {500, 500, 501}, 0, /*warm_up=*/true}),
      // qkv has 2.2e9 elements. The case takes 39 GB of GPU memory, 23 of them for cuDNN's workspace.
      large(packed("past_2_31_elements", {32, 8, 128, 0, {1000, 408}}, 250)),
      // qkv is as large; 26 GB.
      large(equal("250_of_1408", 1, 1408, {32, 8, 128, 0}, 250)),
  };
}

}  // namespace mixtune
