// The one file that includes cudnn-frontend. Documents lie packed in the rows of qkv ("ragged" in cuDNN's words): a
// plan is built for a number of documents and a length, and serves every batch of no more and no longer ones.
#include "kernels/attention_cudnn.h"

#define NV_CUDNN_FRONTEND_USE_DYNAMIC_LOADING
#define CUDNN_FRONTEND_SKIP_JSON_LIB
#include <cudnn_frontend.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <iterator>
#include <memory>
#include <optional>
#include <stdexcept>
#include <unordered_map>
#include <vector>

#include "base/library.h"
#include "base/log.h"
#include "kernels/attention_offsets.h"
#include "kernels/attention_plans.h"
#include "kernels/parallel_error.h"
#include "tensor/gpu.h"

namespace cudnn_frontend {
void* cudnn_dlhandle = nullptr;  // the frontend looks cuDNN's functions up here
}  // namespace cudnn_frontend

namespace mixtune::cuda {

namespace {

namespace fe = cudnn_frontend;
using TensorPointer = std::shared_ptr<fe::graph::Tensor_attributes>;

constexpr size_t kOldestVersion = 91900;

[[noreturn]] void fail(std::string_view what, std::string_view reason) {
  throw Error("cuDNN attention", fmt::format("{}: {}", what, printable(reason, 300)),
              "install another cuDNN 9.19 or newer with its NVRTC, or set deterministic: true, which does without");
}

void check(fe::error_t status, std::string_view what) {
  if (status.is_bad()) fail(what, status.get_message());
}

// cuDNN, opened once. Nothing where there is none.
struct Cudnn {
  Library library;
  size_t version;
  cudnnStatus_t (*create)(cudnnHandle_t*);
  cudnnStatus_t (*destroy)(cudnnHandle_t);
  cudnnStatus_t (*set_stream)(cudnnHandle_t, cudaStream_t);
  const char* (*error_string)(cudnnStatus_t);

  explicit Cudnn(Library opened) : library(std::move(opened)) {
    size_t (*get_version)();
    library.load(get_version, "cudnnGetVersion");
    version = get_version();
    library.load(create, "cudnnCreate");
    library.load(destroy, "cudnnDestroy");
    library.load(set_stream, "cudnnSetStream");
    library.load(error_string, "cudnnGetErrorString");
    fe::cudnn_dlhandle = library.handle();
    // Unless told, the frontend opens every runtime of CUDA that it finds, and warns of a second one.
    setenv("CUDNN_FRONTEND_CUDART_LIB_NAME", "libcudart.so.13", 0);
  }

  void check(cudnnStatus_t status, std::string_view what) const {
    if (status != CUDNN_STATUS_SUCCESS) fail(what, error_string(status));
  }
};

const std::optional<Cudnn>& cudnn() {
  static const std::optional<Cudnn> opened = []() -> std::optional<Cudnn> {
    try {
      if (find_library(CudaLibrary::kCudnn))
        return std::optional<Cudnn>(std::in_place, open_library(CudaLibrary::kCudnn));
    } catch (const Error& error) {
      log_warning("{}", error.what());
    }
    return {};
  }();
  return opened;
}

// Names of a graph's tensors. Keys and values have offsets of their own, though equal to those of queries: so cuDNN is
// used, and tested, by everybody.
// clang-format off
enum Uid : int64_t {
  kQ = 1, kK, kV, kOut, kLse, kDout, kDq, kDk, kDv, kQLengths, kKvLengths,
  kQOffsets, kKOffsets, kVOffsets, kOutOffsets, kLseOffsets, kDkOffsets, kDvOffsets
};
// clang-format on

// Describes the tensors of one plan's graph.
class Describer {
 public:
  Describer(fe::graph::Graph& graph, const AttentionPlanKey& key) : graph_(graph), key_(key) {}

  TensorPointer lengths(Uid uid) { return list(uid, key_.documents, fe::DataType_t::INT32); }
  TensorPointer offsets(Uid uid) { return list(uid, key_.documents + 1, fe::DataType_t::INT64); }

  // Heads of `width` side by side in rows of `stride` elements.
  TensorPointer output(const TensorPointer& tensor, Uid uid, int64_t heads, int64_t width, int64_t stride,
                       const TensorPointer& offsets) {
    tensor->set_uid(uid)
        .set_output(true)
        .set_dim({key_.documents, heads, key_.longest, width})
        .set_stride({key_.longest * stride, width, stride, 1})
        .set_data_type(uid == kLse ? fe::DataType_t::FLOAT : fe::DataType_t::BFLOAT16)
        .set_ragged_offset(offsets);
    return tensor;
  }
  TensorPointer input(Uid uid, int64_t heads, int64_t width, int64_t stride, const TensorPointer& offsets) {
    return output(graph_.tensor(fe::graph::Tensor_attributes()), uid, heads, width, stride, offsets);
  }

  // Forward's attributes, or backward's. The mask keeps keys j of query i with i - window < j <= i: cuDNN's left bound
  // counts the query's own key, too.
  template <class Attributes>
  Attributes attributes() {
    Attributes attributes;
    attributes.set_name("attention")
        .set_attn_scale(1 / std::sqrt(static_cast<float>(key_.head_dim)))
        .set_padding_mask(true)
        .set_seq_len_q(lengths(kQLengths))
        .set_seq_len_kv(lengths(kKvLengths))
        .set_diagonal_alignment(fe::DiagonalAlignment_t::TOP_LEFT)
        .set_diagonal_band_right_bound(0);
    if (key_.window > 0 && key_.window < key_.longest)
      attributes.set_diagonal_band_left_bound(static_cast<int>(key_.window));
    return attributes;
  }

 private:
  TensorPointer list(Uid uid, int64_t n, fe::DataType_t type) {
    return graph_.tensor(
        fe::graph::Tensor_attributes().set_uid(uid).set_dim({n, 1, 1, 1}).set_stride({1, 1, 1, 1}).set_data_type(type));
  }

  fe::graph::Graph& graph_;
  const AttentionPlanKey& key_;
};

void describe(fe::graph::Graph& graph, const AttentionPlanKey& key) {
  Describer d(graph, key);
  const int64_t width = key.head_dim, qkv = key.qkv_width(), out_width = key.out_width(), kv = key.kv_width();
  const TensorPointer q_offsets = d.offsets(kQOffsets), out_offsets = d.offsets(kOutOffsets),
                      lse_offsets = d.offsets(kLseOffsets);
  const TensorPointer q = d.input(kQ, key.q_heads, width, qkv, q_offsets),
                      k = d.input(kK, key.kv_heads, width, qkv, d.offsets(kKOffsets)),
                      v = d.input(kV, key.kv_heads, width, qkv, d.offsets(kVOffsets));
  if (key.pass == Pass::kForward) {
    const auto results = graph.sdpa(q, k, v, d.attributes<fe::graph::SDPA_attributes>().set_generate_stats(true));
    d.output(results[0], kOut, key.q_heads, width, out_width, out_offsets);
    d.output(results[1], kLse, key.q_heads, 1, key.q_heads, lse_offsets);
    return;
  }
  const TensorPointer out = d.input(kOut, key.q_heads, width, out_width, out_offsets),
                      dout = d.input(kDout, key.q_heads, width, out_width, out_offsets),
                      lse = d.input(kLse, key.q_heads, 1, key.q_heads, lse_offsets);
  const auto results = graph.sdpa_backward(q, k, v, out, dout, lse,
                                           d.attributes<fe::graph::SDPA_backward_attributes>()
                                               .set_max_total_seq_len_q(key.tokens)
                                               .set_max_total_seq_len_kv(key.tokens));
  d.output(results[0], kDq, key.q_heads, width, qkv, q_offsets);
  d.output(results[1], kDk, key.kv_heads, width, kv, d.offsets(kDkOffsets));
  d.output(results[2], kDv, key.kv_heads, width, kv, d.offsets(kDvOffsets));
}

struct Plan {
  AttentionPlanKey key;
  fe::graph::Graph graph;
  int64_t workspace = 0;  // bytes

  // All but finish(), which compiles the kernel and may run in another thread.
  Plan(const AttentionPlanKey& plan_key, cudnnHandle_t handle, int compute_capability) : key(plan_key) {
    graph.set_io_data_type(fe::DataType_t::BFLOAT16)
        .set_intermediate_data_type(fe::DataType_t::FLOAT)
        .set_compute_data_type(fe::DataType_t::FLOAT)
        .set_sm_version(compute_capability);
    describe(graph, key);
    check(graph.validate(), "the graph");
    check(graph.build_operation_graph(handle), "the graph's operations");
    check(graph.create_execution_plans({fe::HeurMode_t::A}), "the choice of a kernel");
  }

  void finish() {
    check(graph.check_support(), "the kernel's support");
    check(graph.build_plans(), "the kernel's compilation");
    check(graph.get_workspace_size(workspace), "the workspace");
  }
};

class CudnnAttention : public GpuPart {
 public:
  static constexpr GpuSlot kSlot = GpuSlot::kAttention;

  explicit CudnnAttention(Gpu& gpu) : gpu_(gpu) {}

  bool works() const { return works_; }
  void give_up() { works_ = false; }

  cudnnHandle_t handle() {
    if (handle_.value == nullptr) {
      check_cuda(cudaSetDevice(gpu_.device().index), "cuDNN");
      cudnn()->check(cudnn()->create(&handle_.value), "the handle");
      cudnn()->check(cudnn()->set_stream(handle_.value, gpu_.stream()), "the stream");
    }
    return handle_.value;
  }

  // The smallest that serves.
  Plan& plan_for(const AttentionPlanKey& batch) {
    Plan* best = nullptr;
    for (const auto& plan : plans_)
      if (plan->key.serves(batch) && (best == nullptr || plan->key.rows() < best->key.rows())) best = plan.get();
    if (best != nullptr) return *best;
    gpu_.count_plan();
    build({plan_around(batch)});
    return *plans_.back();
  }

  // Builds those that are not there yet; compilers run side by side.
  void build(const std::vector<AttentionPlanKey>& keys) {
    std::vector<std::unique_ptr<Plan>> plans;
    for (const AttentionPlanKey& key : keys)
      if (!has(key)) plans.push_back(std::make_unique<Plan>(key, handle(), gpu_.compute_capability()));
    cpu::ParallelError error;
#pragma omp parallel for schedule(dynamic, 1)
    for (size_t i = 0; i < plans.size(); ++i)
      error.run([&] {
        check_cuda(cudaSetDevice(gpu_.device().index), "cuDNN");
        plans[i]->finish();
      });
    error.rethrow();
    std::move(plans.begin(), plans.end(), std::back_inserter(plans_));
  }

 private:
  bool has(const AttentionPlanKey& key) const {
    return std::any_of(plans_.begin(), plans_.end(),
                       [&](const auto& plan) { return plan->key.serves(key) && plan->key.rows() == key.rows(); });
  }

  struct Handle {
    cudnnHandle_t value = nullptr;
    ~Handle() {
      if (value != nullptr) cudnn()->destroy(value);
    }
  };

  Gpu& gpu_;
  bool works_ = true;
  Handle handle_;  // outlives the plans
  std::vector<std::unique_ptr<Plan>> plans_;
};

// Rows in documents: the first ones. 0 where there is no document.
int64_t live_rows(const AttentionShape& shape) {
  return shape.host_doc_offsets.as<int32_t>()[shape.host_doc_offsets.rows() - 1];
}

AttentionPlanKey key_of(Pass pass, const AttentionShape& shape) {
  const int32_t* offsets = shape.host_doc_offsets.as<int32_t>();
  BatchLimits batch = {
      .tokens = live_rows(shape), .longest_document = 0, .documents = shape.host_doc_offsets.rows() - 1};
  for (int64_t i = 0; i < batch.documents; ++i)
    batch.longest_document = std::max<int64_t>(batch.longest_document, offsets[i + 1] - offsets[i]);
  return AttentionPlanKey(pass, shape, batch);
}

void zero_rows(Ctx& ctx, const Tensor& x, int64_t begin) {
  const Tensor rows = x.slice(begin, x.rows() - begin);
  if (rows.elements() == 0) return;
  check_cuda(cudaMemsetAsync(rows.data, 0, rows.bytes(), ctx.gpu->stream()), "rows in no document");
}

using Pointers = std::unordered_map<int64_t, void*>;

// Heads from `head` on, of the first row.
void* head_of(const AttentionShape& shape, const Tensor& qkv, int64_t head) {
  return qkv.as<BF16>() + head * shape.head_dim;
}

// Adds what both passes read, and runs the plan.
void run(Ctx& ctx, Plan& plan, const AttentionShape& shape, const Tensor& qkv, const Tensor& out, const Tensor& lse,
         Pointers pointers) {
  const RaggedOffsets offsets = make_ragged_offsets(ctx, shape, plan.key.documents);
  pointers.insert({{kQ, qkv.data},
                   {kK, head_of(shape, qkv, shape.q_heads)},
                   {kV, head_of(shape, qkv, shape.q_heads + shape.kv_heads)},
                   {kOut, out.data},
                   {kLse, lse.data},
                   {kQLengths, offsets.lengths.data},
                   {kKvLengths, offsets.lengths.data},
                   {kQOffsets, offsets.qkv.data},
                   {kKOffsets, offsets.qkv.data},
                   {kVOffsets, offsets.qkv.data},
                   {kOutOffsets, offsets.out.data},
                   {kLseOffsets, offsets.scores.data},
                   {kDkOffsets, offsets.kv.data},
                   {kDvOffsets, offsets.kv.data}});
  const Tensor workspace = ctx.stack.push("cuDNN attention", {plan.workspace}, DType::kU8);
  check(plan.graph.execute(ctx.gpu->part<CudnnAttention>().handle(), pointers, workspace.data), "the kernel");
}

// Into the columns of `dqkv` from `head` on.
void copy_heads(Ctx& ctx, const AttentionShape& shape, const Tensor& heads, const Tensor& dqkv, int64_t head) {
  const size_t width = heads.row_elements() * sizeof(BF16);
  check_cuda(cudaMemcpy2DAsync(head_of(shape, dqkv, head), dqkv.row_elements() * sizeof(BF16), heads.data, width, width,
                               heads.rows(), cudaMemcpyDeviceToDevice, ctx.gpu->stream()),
             "gradients of keys and values");
}

}  // namespace

std::string cudnn_version() {
  return cudnn() ? library_version(CudaLibrary::kCudnn, cudnn()->library) : "";
}

bool cudnn_attention_supports(int compute_capability, const AttentionShape& shape, DType dtype) {
  // Elsewhere cuDNN's backward pass does not take packed statistics. Where head_dim is no multiple of 16, it takes
  // a workspace for documents * longest rows.
  const int generation = compute_capability / 10;
  return dtype == DType::kBF16 && shape.head_dim % 16 == 0 && shape.head_dim <= 128 &&
         (generation == 9 || generation == 10) && cudnn() && cudnn()->version >= kOldestVersion;
}

void cudnn_attention_forward(Ctx& ctx, const AttentionShape& shape, const Tensor& qkv, const Tensor& out,
                             const Tensor& lse) {
  const int64_t live = live_rows(shape);
  zero_rows(ctx, out, live);
  if (live == 0) return;
  const Stack::Frame frame(ctx.stack);
  Plan& plan = ctx.gpu->part<CudnnAttention>().plan_for(key_of(Pass::kForward, shape));
  run(ctx, plan, shape, qkv, out, lse, {});
}

void cudnn_attention_backward(Ctx& ctx, const AttentionShape& shape, const AttentionBackward& args) {
  const int64_t live = live_rows(shape), kv_heads = shape.kv_heads;
  zero_rows(ctx, args.dqkv, live);
  if (live == 0) return;
  const Stack::Frame frame(ctx.stack);
  Plan& plan = ctx.gpu->part<CudnnAttention>().plan_for(key_of(Pass::kBackward, shape));
  // dk and dv are apart because cuDNN's workspace has a row of theirs, as wide as it lies, for every query head.
  const Tensor dk = ctx.stack.push("dk", {live, plan.key.kv_width()}, DType::kBF16);
  const Tensor dv = ctx.stack.push("dv", {live, plan.key.kv_width()}, DType::kBF16);
  run(ctx, plan, shape, args.qkv, args.out, args.lse,
      {{kDout, args.dout.data}, {kDq, args.dqkv.data}, {kDk, dk.data}, {kDv, dv.data}});
  copy_heads(ctx, shape, dk, args.dqkv, shape.q_heads);
  copy_heads(ctx, shape, dv, args.dqkv, shape.q_heads + kv_heads);
}

bool cudnn_attention_works(Gpu& gpu) {
  return gpu.part<CudnnAttention>().works();
}

void cudnn_attention_warm_up(Ctx& ctx, const AttentionShape& shape, const BatchLimits& limits) {
  auto& attention = ctx.gpu->part<CudnnAttention>();
  try {
    attention.build(warm_up_plans(shape, limits));
  } catch (const std::runtime_error& error) {  // the frontend has some of its own
    log_warning("attention runs on mixtune's own kernels, which are slower: {}", error.what());
    attention.give_up();
  }
}

}  // namespace mixtune::cuda
