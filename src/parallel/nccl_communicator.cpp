#include "parallel/nccl_communicator.h"

#include <cstring>
#include <exception>

#include "parallel/nccl.h"
#include "parallel/self_messages.h"
#include "tensor/gpu.h"
#include "tensor/lane.h"

namespace mixtune {

namespace {

ncclDataType_t data_type(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return ncclFloat32;
    case DType::kF64:
      return ncclFloat64;
    case DType::kBF16:
      return ncclBfloat16;
    case DType::kI32:
      return ncclInt32;
    case DType::kI64:
      return ncclInt64;
    default:
      return ncclUint8;
  }
}

Device current_device() {
  Device device = {DeviceType::kCuda};
  check_cuda(cudaGetDevice(&device.index), "device");
  return device;
}

// Owns one of NCCL's communicators.
class NcclHandle {
 public:
  NcclHandle(std::shared_ptr<const Nccl> nccl, ncclComm_t comm) : nccl_(std::move(nccl)), comm_(comm) {}
  ~NcclHandle() {
    // Where a rank has failed, the others never come to the end, for which destroying waits.
    if (comm_ != nullptr) std::uncaught_exceptions() > 0 ? call().comm_abort(comm_) : call().comm_destroy(comm_);
  }
  NcclHandle(NcclHandle&& other) noexcept : nccl_(other.nccl_), comm_(std::exchange(other.comm_, nullptr)) {}
  NcclHandle& operator=(NcclHandle&&) = delete;

  const NcclFunctions& call() const { return nccl_->call(); }
  ncclComm_t get() const { return comm_; }
  void check(ncclResult_t result, const char* what) const { nccl_->check(result, what); }
  int number(decltype(NcclFunctions::comm_count) function) const {
    int number = 0;
    check(function(comm_, &number), "group");
    return number;
  }
  NcclHandle split(int color) const {
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.splitShare = 1;
    ncclComm_t part = nullptr;
    check(call().comm_split(comm_, color, number(call().comm_rank), &part, &config), "making of groups");
    return {nccl_, part};
  }

 private:
  std::shared_ptr<const Nccl> nccl_;
  ncclComm_t comm_;
};

// Makes all connections. NCCL would make each, and take the memory for it, when an operation first needs it; now memory
// that a run finds free stays its own.
void rehearse(const NcclHandle& nccl, int size) {
  constexpr const char* kWhat = "connecting the ranks";
  constexpr size_t kSmall = 1 << 10, kLarge = 64 << 20;  // bytes: NCCL goes other ways for each
  const Memory memory("rehearsal of NCCL", current_device(), 2 * kLarge);
  const CudaStream stream = make_stream();
  const cudaStream_t s = stream.handle;
  char *from = memory.data(), *to = from + kLarge;
  for (const size_t bytes : {kSmall, kLarge}) {
    const size_t piece = bytes / size / sizeof(float) * sizeof(float);
    nccl.check(nccl.call().group_start(), kWhat);
    for (int peer = 0; peer < size; ++peer) {
      nccl.check(nccl.call().send(from + peer * piece, piece, ncclUint8, peer, nccl.get(), s), kWhat);
      nccl.check(nccl.call().receive(to + peer * piece, piece, ncclUint8, peer, nccl.get(), s), kWhat);
    }
    nccl.check(nccl.call().group_end(), kWhat);
    nccl.check(nccl.call().all_reduce(from, from, bytes / sizeof(float), ncclFloat32, ncclSum, nccl.get(), s), kWhat);
    nccl.check(nccl.call().all_gather(from, to, piece, ncclUint8, nccl.get(), s), kWhat);
    nccl.check(nccl.call().reduce_scatter(from, to, piece / sizeof(float), ncclFloat32, ncclSum, nccl.get(), s), kWhat);
  }
  check_cuda(cudaStreamSynchronize(s), kWhat);
}

class NcclCommunicator final : public Communicator {
 public:
  explicit NcclCommunicator(NcclHandle handle)
      : Communicator(handle.number(handle.call().comm_rank), handle.number(handle.call().comm_count)),
        handle_(std::move(handle)) {
    rehearse(handle_, size());
  }

  void exchange(Ctx& ctx, const char* what, std::span<const Message> sends,
                std::span<const Message> receives) override {
    const auto enqueue = [&](cudaStream_t stream) {
      check(call().group_start(), what);
      for (const Message& m : sends)
        if (is_for_other(m)) check(call().send(m.data.data, m.data.bytes(), ncclUint8, m.peer, comm(), stream), what);
      for (const Message& m : receives)
        if (is_for_other(m))
          check(call().receive(m.data.data, m.data.bytes(), ncclUint8, m.peer, comm(), stream), what);
      return call().group_end();
    };
    run(ctx, what, enqueue, [&] { copy_self_messages(ctx, rank(), sends, receives); });
  }

  void all_reduce(Ctx& ctx, const char* what, const Tensor& x) override {
    run(ctx, what, [&](cudaStream_t stream) {
      return call().all_reduce(x.data, x.data, x.elements(), sum_type(x), ncclSum, comm(), stream);
    });
  }

  void reduce_scatter(Ctx& ctx, const char* what, const Tensor& x) override {
    run(ctx, what, [&](cudaStream_t stream) {
      return call().reduce_scatter(x.data, own_piece(x), piece(x), sum_type(x), ncclSum, comm(), stream);
    });
  }

  void all_gather(Ctx& ctx, const char* what, const Tensor& x) override {
    const size_t bytes = piece(x) * dtype_size(x.dtype);
    run(ctx, what,
        [&](cudaStream_t stream) { return call().all_gather(own_piece(x), x.data, bytes, ncclUint8, comm(), stream); });
  }

  std::unique_ptr<Communicator> split(int color) override {
    NcclHandle part = handle_.split(color);
    if (part.number(part.call().comm_count) == 1) return make_single_communicator();
    return std::make_unique<NcclCommunicator>(std::move(part));
  }

 private:
  const NcclFunctions& call() const { return handle_.call(); }
  ncclComm_t comm() const { return handle_.get(); }
  void check(ncclResult_t result, const char* what) const { handle_.check(result, what); }
  bool is_for_other(const Message& message) const { return message.peer != rank() && message.data.elements() > 0; }

  // Runs enqueue(stream) in the lane, meanwhile() in the ctx's order. The ctx waits for the lane unless it is in it.
  template <class Enqueue, class Meanwhile>
  void run(Ctx& ctx, const char* what, const Enqueue& enqueue, const Meanwhile& meanwhile) const {
    MT_CHECK(ctx.gpu != nullptr);
    {
      const InLane lane(ctx);
      check(enqueue(ctx.gpu->stream()), what);
    }
    meanwhile();
    if (!in_lane(ctx)) wait_for_lane(ctx, mark_lane(ctx));
  }
  template <class Enqueue>
  void run(Ctx& ctx, const char* what, const Enqueue& enqueue) const {
    run(ctx, what, enqueue, [] {});
  }

  static ncclDataType_t sum_type(const Tensor& x) {
    MT_CHECK(data_type(x.dtype) != ncclUint8);
    return data_type(x.dtype);
  }
  size_t piece(const Tensor& x) const {
    MT_CHECK(x.elements() % size() == 0);
    return static_cast<size_t>(x.elements() / size());
  }
  void* own_piece(const Tensor& x) const {
    return static_cast<char*>(x.data) + rank() * piece(x) * dtype_size(x.dtype);
  }

  NcclHandle handle_;
};

}  // namespace

std::unique_ptr<Communicator> make_nccl_communicator(Store& store, int rank, int size, Device device) {
  if (size == 1) return make_single_communicator();
  const auto nccl = std::make_shared<const Nccl>();
  ncclUniqueId id;
  constexpr const char* kKey = "nccl/id";
  if (rank == 0) {
    nccl->check(nccl->call().unique_id(&id), "starting");
    store.set(kKey, {id.internal, sizeof id.internal});
  } else {
    const std::string bytes = store.get(0, kKey);
    MT_CHECK(bytes.size() == sizeof id.internal);
    std::memcpy(id.internal, bytes.data(), bytes.size());
  }
  check_cuda(cudaSetDevice(device.index), "device");
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  ncclComm_t comm = nullptr;
  nccl->check(nccl->call().comm_init(&comm, size, id, rank, &config), "connecting the ranks");
  return std::make_unique<NcclCommunicator>(NcclHandle(nccl, comm));
}

}  // namespace mixtune
