// The one file that includes cudnn-frontend. Documents lie packed in the rows of qkv: equal ones as a batch of them,
// others with an offset and a length each ("ragged" in cuDNN's words).
#include "kernels/attention/attention_cudnn_plan.h"

#define NV_CUDNN_FRONTEND_USE_DYNAMIC_LOADING
#define CUDNN_FRONTEND_SKIP_JSON_LIB
#include <cudnn_frontend.h>
#include <fmt/format.h>

#include <cmath>
#include <cstdlib>
#include <optional>

#include "base/library.h"
#include "base/log.h"

namespace cudnn_frontend {
void* cudnn_dlhandle = nullptr;  // the frontend looks cuDNN's functions up here
}  // namespace cudnn_frontend

namespace mixtune::cuda {

namespace {

namespace fe = cudnn_frontend;
using TensorPointer = std::shared_ptr<fe::graph::Tensor_attributes>;
using Uid = AttentionTensor;

constexpr size_t kOldestVersion = 91900;

[[noreturn]] void fail(std::string_view what, std::string_view reason) {
  throw Error("cuDNN attention", fmt::format("{}: {}", what, printable(reason, 300)),
              "install another cuDNN 9.19 or newer with its NVRTC, or set deterministic: true, which does without");
}

void check(fe::error_t status, std::string_view what) {
  if (status.is_bad()) fail(what, status.get_message());
}

// cuDNN, opened once; empty where there is none.
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
    // Otherwise the frontend opens every runtime of CUDA that it finds, and warns of a second one.
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

// Describes the tensors of one plan's graph.
class Describer {
 public:
  Describer(fe::graph::Graph& graph, const AttentionPlanKey& key) : graph_(graph), key_(key) {}

  TensorPointer input() { return graph_.tensor(fe::graph::Tensor_attributes()); }

  // Where documents begin in a tensor; null for equal ones.
  TensorPointer offsets(Uid uid) { return key_.equal ? nullptr : list(uid, key_.documents + 1, fe::DataType_t::INT64); }

  // Describes heads that lie side by side in rows of `stride` elements.
  TensorPointer heads(const TensorPointer& tensor, Uid uid, int64_t n, int64_t stride, const TensorPointer& offsets) {
    tensor->set_uid(uid)
        .set_output(true)
        .set_dim({key_.documents, n, key_.longest, key_.head_dim})
        .set_stride({key_.longest * stride, key_.head_dim, stride, 1})
        .set_data_type(fe::DataType_t::BFLOAT16);
    if (offsets) tensor->set_ragged_offset(offsets);
    return tensor;
  }

  // For equal documents cuDNN's backward pass reads lse head by head, however it is described.
  TensorPointer lse(const TensorPointer& tensor, const TensorPointer& offsets) {
    const int64_t n = key_.q_heads;
    tensor->set_uid(kLse)
        .set_output(true)
        .set_dim({key_.documents, n, key_.longest, 1})
        .set_stride({n * key_.longest, key_.equal ? key_.longest : 1, key_.equal ? 1 : n, 1})
        .set_data_type(fe::DataType_t::FLOAT);
    if (offsets) tensor->set_ragged_offset(offsets);
    return tensor;
  }

  // The attributes of the forward or the backward pass. The mask keeps keys j of query i with i - window < j <= i:
  // cuDNN's left bound counts the query's own key, too.
  template <class Attributes>
  Attributes attributes() {
    Attributes attributes;
    attributes.set_name("attention")
        .set_attn_scale(1 / std::sqrt(static_cast<float>(key_.head_dim)))
        .set_diagonal_alignment(fe::DiagonalAlignment_t::TOP_LEFT)
        .set_diagonal_band_right_bound(0);
    if (key_.window > 0 && key_.window < key_.longest)
      attributes.set_diagonal_band_left_bound(static_cast<int>(key_.window));
    if (!key_.equal)
      attributes.set_padding_mask(true)
          .set_seq_len_q(list(kQLengths, key_.documents, fe::DataType_t::INT32))
          .set_seq_len_kv(list(kKvLengths, key_.documents, fe::DataType_t::INT32));
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
  const int64_t q_heads = key.q_heads, kv_heads = key.kv_heads, width = key.qkv_width(), out_width = key.out_width();
  const TensorPointer q_offsets = d.offsets(kQOffsets), out_offsets = d.offsets(kOutOffsets),
                      lse_offsets = d.offsets(kLseOffsets);
  const TensorPointer q = d.heads(d.input(), kQ, q_heads, width, q_offsets),
                      k = d.heads(d.input(), kK, kv_heads, width, d.offsets(kKOffsets)),
                      v = d.heads(d.input(), kV, kv_heads, width, d.offsets(kVOffsets));
  if (key.pass == Pass::kForward) {
    const auto results = graph.sdpa(q, k, v, d.attributes<fe::graph::SDPA_attributes>().set_generate_stats(true));
    d.heads(results[0], kOut, q_heads, out_width, out_offsets);
    d.lse(results[1], lse_offsets);
    return;
  }
  const TensorPointer out = d.heads(d.input(), kOut, q_heads, out_width, out_offsets),
                      dout = d.heads(d.input(), kDout, q_heads, out_width, out_offsets),
                      lse = d.lse(d.input(), lse_offsets);
  auto attributes = d.attributes<fe::graph::SDPA_backward_attributes>();
  if (!key.equal) attributes.set_max_total_seq_len_q(key.tokens).set_max_total_seq_len_kv(key.tokens);
  const auto results = graph.sdpa_backward(q, k, v, out, dout, lse, attributes);
  // For documents of any length cuDNN's workspace has rows of dk and dv, as wide as they lie, for every query head.
  const int64_t kv_stride = key.equal ? width : key.kv_width();
  d.heads(results[0], kDq, q_heads, width, q_offsets);
  d.heads(results[1], kDk, kv_heads, kv_stride, d.offsets(kDkOffsets));
  d.heads(results[2], kDv, kv_heads, kv_stride, d.offsets(kDvOffsets));
}

}  // namespace

std::string cudnn_version() {
  return cudnn() ? library_version(CudaLibrary::kCudnn, cudnn()->library) : "";
}

bool cudnn_is_usable() {
  return cudnn() && cudnn()->version >= kOldestVersion;
}

CudnnHandle::CudnnHandle(cudaStream_t stream) : CudnnHandle() {
  cudnn()->check(cudnn()->create(&handle_), "the handle");
  cudnn()->check(cudnn()->set_stream(handle_, stream), "the stream");
}

CudnnHandle::~CudnnHandle() {
  if (handle_ != nullptr) cudnn()->destroy(handle_);
}

struct AttentionPlan::Graph : fe::graph::Graph {};

AttentionPlan::AttentionPlan(const AttentionPlanKey& key, const CudnnHandle& handle, int compute_capability)
    : key_(key), graph_(std::make_unique<Graph>()) {
  graph_->set_io_data_type(fe::DataType_t::BFLOAT16)
      .set_intermediate_data_type(fe::DataType_t::FLOAT)
      .set_compute_data_type(fe::DataType_t::FLOAT)
      .set_sm_version(compute_capability);
  describe(*graph_, key_);
  check(graph_->validate(), "the graph");
  check(graph_->build_operation_graph(handle.get()), "the graph's operations");
  // A Hopper has one kernel for each pass, and several for older GPUs behind it: there is nothing to measure.
  check(graph_->create_execution_plans({fe::HeurMode_t::A}), "the choice of a kernel");
}

AttentionPlan::~AttentionPlan() = default;

void AttentionPlan::compile() {
  check(graph_->check_support(), "the kernel's support");
  check(graph_->build_plans(), "the kernel's compilation");
  check(graph_->get_workspace_size(workspace_bytes_), "the workspace");
}

void AttentionPlan::execute(const CudnnHandle& handle, Pointers& pointers, void* workspace) {
  check(graph_->execute(handle.get(), pointers, workspace), "the kernel");
}

}  // namespace mixtune::cuda
