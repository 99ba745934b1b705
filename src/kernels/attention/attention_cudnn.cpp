// A plan is built for a number of documents and a length, and serves every batch with no more documents and none
// longer. Warm-up also builds one for the batch of equal documents that is likely to come, which runs faster.
#include "kernels/attention/attention_cudnn.h"

#include <algorithm>
#include <iterator>
#include <optional>
#include <stdexcept>
#include <vector>

#include "base/log.h"
#include "kernels/attention/attention_cudnn_plan.h"
#include "kernels/attention/attention_offsets.h"
#include "kernels/parallel_error.h"

namespace mixtune::cuda {

namespace {

class CudnnAttention : public GpuPart {
 public:
  static constexpr GpuSlot kSlot = GpuSlot::kAttention;

  explicit CudnnAttention(Gpu& gpu) : gpu_(gpu) {}

  bool works() const { return works_; }
  void give_up() { works_ = false; }

  const CudnnHandle& handle() {
    if (!handle_) {
      check_cuda(cudaSetDevice(gpu_.device().index), "cuDNN");
      handle_.emplace(gpu_.stream());
    }
    return *handle_;
  }

  // The plan that serves the batch: the one for just these documents, else the smallest. Null where none does.
  AttentionPlan* find(const AttentionPlanKey& batch) const {
    AttentionPlan* best = nullptr;
    for (const auto& plan : plans_) {
      if (!plan->key().serves(batch)) continue;
      if (plan->key().equal) return plan.get();
      if (best == nullptr || plan->key().rows() < best->key().rows()) best = plan.get();
    }
    return best;
  }

  AttentionPlan& plan_for(const AttentionPlanKey& batch) {
    if (AttentionPlan* plan = find(batch)) return *plan;
    gpu_.count_plan();
    build({plan_around(batch)});
    return *plans_.back();
  }

  // Builds the plans that are not there yet, all or none; compilers run side by side.
  void build(const std::vector<AttentionPlanKey>& keys) {
    std::vector<std::unique_ptr<AttentionPlan>> plans;
    for (const AttentionPlanKey& key : keys)
      if (!has(key)) plans.push_back(std::make_unique<AttentionPlan>(key, handle(), gpu_.compute_capability()));
    cpu::ParallelError error;
#pragma omp parallel for schedule(dynamic, 1)
    for (size_t i = 0; i < plans.size(); ++i)
      error.run([&] {
        check_cuda(cudaSetDevice(gpu_.device().index), "cuDNN");
        plans[i]->compile();
      });
    error.rethrow();
    std::move(plans.begin(), plans.end(), std::back_inserter(plans_));
  }

 private:
  bool has(const AttentionPlanKey& key) const {
    return std::any_of(plans_.begin(), plans_.end(), [&](const auto& plan) {
      return plan->key().serves(key) && plan->key().rows() == key.rows() && plan->key().equal == key.equal;
    });
  }

  Gpu& gpu_;
  bool works_ = true;
  std::optional<CudnnHandle> handle_;  // outlives the plans
  std::vector<std::unique_ptr<AttentionPlan>> plans_;
};

// The rows in documents, which are the first ones. 0 where there is no document.
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

// The address of the first row's heads from `head` on.
void* head_of(const AttentionShape& shape, const Tensor& qkv, int64_t head) {
  return qkv.as<BF16>() + head * shape.head_dim;
}
void* keys_of(const AttentionShape& shape, const Tensor& qkv) {
  return head_of(shape, qkv, shape.q_heads);
}
void* values_of(const AttentionShape& shape, const Tensor& qkv) {
  return head_of(shape, qkv, shape.q_heads + shape.kv_heads);
}

void add_offsets(Ctx& ctx, const AttentionShape& shape, int64_t documents, AttentionPlan::Pointers& pointers) {
  const RaggedOffsets offsets = make_ragged_offsets(ctx, shape, documents);
  pointers.insert({{kQLengths, offsets.lengths.data},
                   {kKvLengths, offsets.lengths.data},
                   {kQOffsets, offsets.qkv.data},
                   {kKOffsets, offsets.qkv.data},
                   {kVOffsets, offsets.qkv.data},
                   {kOutOffsets, offsets.out.data},
                   {kLseOffsets, offsets.scores.data},
                   {kDkOffsets, offsets.kv.data},
                   {kDvOffsets, offsets.kv.data}});
}

// Adds what both passes read, and runs the plan.
void run(Ctx& ctx, AttentionPlan& plan, const AttentionShape& shape, const Tensor& qkv, const Tensor& out,
         const Tensor& lse, AttentionPlan::Pointers pointers) {
  pointers.insert(
      {{kQ, qkv.data}, {kK, keys_of(shape, qkv)}, {kV, values_of(shape, qkv)}, {kOut, out.data}, {kLse, lse.data}});
  if (!plan.key().equal) add_offsets(ctx, shape, plan.key().documents, pointers);
  const Tensor workspace = ctx.stack.push("cuDNN attention", {plan.workspace_bytes()}, DType::kU8);
  plan.execute(ctx.gpu->part<CudnnAttention>().handle(), pointers, workspace.data);
}

}  // namespace

bool cudnn_attention_supports(int compute_capability, const AttentionShape& shape, DType dtype) {
  // On other GPUs cuDNN's backward pass does not take packed statistics. Where head_dim is no multiple of 16, it takes
  // a workspace for documents * longest rows.
  const int generation = compute_capability / 10;
  return dtype == DType::kBF16 && shape.head_dim % 16 == 0 && shape.head_dim <= 128 &&
         (generation == 9 || generation == 10) && cudnn_is_usable();
}

void cudnn_attention_forward(Ctx& ctx, const AttentionShape& shape, const Tensor& qkv, const Tensor& out,
                             const Tensor& lse) {
  const int64_t live = live_rows(shape);
  zero_rows(ctx, out, live);
  if (live == 0) return;
  const Stack::Frame frame(ctx.stack);
  AttentionPlan& plan = ctx.gpu->part<CudnnAttention>().plan_for(key_of(Pass::kForward, shape));
  run(ctx, plan, shape, qkv, out, lse, {});
}

void cudnn_attention_backward(Ctx& ctx, const AttentionShape& shape, const AttentionBackward& args) {
  const int64_t live = live_rows(shape);
  zero_rows(ctx, args.dqkv, live);
  if (live == 0) return;
  const Stack::Frame frame(ctx.stack);
  AttentionPlan& plan = ctx.gpu->part<CudnnAttention>().plan_for(key_of(Pass::kBackward, shape));
  const auto run_into = [&](void* dk, void* dv) {
    run(ctx, plan, shape, args.qkv, args.out, args.lse,
        {{kDout, args.dout.data}, {kDq, args.dqkv.data}, {kDk, dk}, {kDv, dv}});
  };
  if (plan.key().equal) return run_into(keys_of(shape, args.dqkv), values_of(shape, args.dqkv));
  const Tensor dk = ctx.stack.push("dk", {live, plan.key().kv_width()}, DType::kBF16);
  const Tensor dv = ctx.stack.push("dv", {live, plan.key().kv_width()}, DType::kBF16);
  run_into(dk.data, dv.data);
  copy_kv_gradients(ctx, dk, dv, args.dqkv);
}

bool cudnn_attention_works(Gpu& gpu) {
  return gpu.part<CudnnAttention>().works();
}

bool cudnn_attention_has_equal_plans(Gpu& gpu, const AttentionShape& shape) {
  const AttentionPlan* plan = gpu.part<CudnnAttention>().find(key_of(Pass::kForward, shape));
  return plan != nullptr && plan->key().equal;
}

void cudnn_attention_warm_up(Ctx& ctx, const AttentionShape& shape, const BatchLimits& limits) {
  auto& attention = ctx.gpu->part<CudnnAttention>();
  try {
    attention.build(warm_up_plans(shape, limits));
  } catch (const std::runtime_error& error) {  // also the frontend's own exceptions
    log_warning("attention runs on mixtune's own kernels, which are slower: {}", error.what());
    return attention.give_up();
  }
  try {
    attention.build(warm_up_equal_plans(shape, limits));
  } catch (const std::runtime_error& error) {
    log_warning("attention takes equal documents for any others, which is slower: {}", error.what());
  }
}

}  // namespace mixtune::cuda
