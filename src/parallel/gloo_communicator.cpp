#include "parallel/gloo_communicator.h"

#include <fmt/format.h>

#include <numeric>

#include "parallel/gloo_mesh.h"
#include "parallel/self_messages.h"

namespace mixtune {

namespace {

constexpr size_t kGatherUpTo = 64 << 10;     // bytes of an all-reduce that is one round of whole tensors
constexpr int64_t kParallelFrom = 32 << 10;  // elements

Tensor flat(const Tensor& x) {
  return x.view({x.elements()});
}

// x as it is added up: bf16 as fp32, so that the sum is rounded once.
template <class T>
T widened(T x) {
  return x;
}
float widened(BF16 x) {
  return to_float(x);
}
template <class T>
void put(T& to, T sum) {
  to = sum;
}
void put(BF16& to, float sum) {
  to = to_bf16(sum);
}

// Adds sum = rows[0] + rows[1] + ... in this order.
template <class T>
void sum_rows_of(const Tensor& rows, const Tensor& sum) {
  const int64_t n = sum.elements(), ranks = rows.rows();
  const T* in = rows.as<T>();
  T* out = sum.as<T>();
#pragma omp parallel for simd if (n >= kParallelFrom)
  for (int64_t i = 0; i < n; ++i) {
    auto total = widened(in[i]);
    for (int64_t r = 1; r < ranks; ++r) total += widened(in[r * n + i]);
    put(out[i], total);
  }
}

using SumRows = void (*)(const Tensor& rows, const Tensor& sum);

SumRows sum_rows(DType dtype) {
  const SumRows sum = dtype == DType::kF32    ? sum_rows_of<float>
                      : dtype == DType::kF64  ? sum_rows_of<double>
                      : dtype == DType::kBF16 ? sum_rows_of<BF16>
                      : dtype == DType::kI32  ? sum_rows_of<int32_t>
                      : dtype == DType::kI64  ? sum_rows_of<int64_t>
                                              : nullptr;
  MT_CHECK(sum != nullptr);
  return sum;
}

class GlooCommunicator final : public Communicator {
 public:
  GlooCommunicator(Store& store, std::shared_ptr<gloo::transport::Device> device, GlooGroup group,
                   GlooPatience patience)
      : Communicator(group.rank, static_cast<int>(group.ranks.size())),
        store_(store),
        device_(device),
        patience_(patience),
        mesh_(store, device, std::move(group), std::move(patience)) {
    sends_.reserve(size());
    receives_.reserve(size());
  }

  void exchange(Ctx& ctx, const char* what, std::span<const Message> sends,
                std::span<const Message> receives) override {
    MT_CHECK(ctx.device.type == DeviceType::kCpu);
    copy_self_messages(ctx, rank(), sends, receives);
    mesh_.move(what, sends, receives);
  }

  void all_reduce(Ctx& ctx, const char* what, const Tensor& x) override {
    if (x.bytes() <= kGatherUpTo) return sum(ctx, what, flat(x), [&x](int) { return flat(x); });
    reduce_pieces(ctx, what, x);
    gather_pieces(ctx, what, x);
  }

  void reduce_scatter(Ctx& ctx, const char* what, const Tensor& x) override {
    MT_CHECK(x.elements() % size() == 0);
    reduce_pieces(ctx, what, x);
  }

  void all_gather(Ctx& ctx, const char* what, const Tensor& x) override {
    MT_CHECK(x.elements() % size() == 0);
    gather_pieces(ctx, what, x);
  }

  std::unique_ptr<Communicator> split(int color) override;

 private:
  void start() {
    sends_.clear();
    receives_.clear();
  }

  // Piece r of `size`. Pieces differ by an element where the elements of x do not divide.
  Tensor piece(const Tensor& x, int r) const {
    const int64_t n = x.elements(), begin = n * r / size(), end = n * (r + 1) / size();
    return flat(x).slice(begin, end - begin);
  }

  // Writes to `out` the sum, in the order of ranks, of what all send to this one, which sends `to(r)` to rank r.
  template <class To>
  void sum(Ctx& ctx, const char* what, const Tensor& out, To to) {
    const SumRows sum_dtype = sum_rows(out.dtype);
    const Stack::Frame frame(ctx.stack);
    const Tensor rows = ctx.stack.push(what, {size(), out.elements()}, out.dtype);
    start();
    for (int r = 0; r < size(); ++r) {
      sends_.push_back({r, to(r)});
      receives_.push_back({r, rows.row(r)});
    }
    exchange(ctx, what, sends_, receives_);
    sum_dtype(rows, out);
  }

  void reduce_pieces(Ctx& ctx, const char* what, const Tensor& x) {
    sum(ctx, what, piece(x, rank()), [this, &x](int r) { return piece(x, r); });
  }

  void gather_pieces(Ctx& ctx, const char* what, const Tensor& x) {
    start();
    for (int r = 0; r < size(); ++r) {
      if (r == rank()) continue;
      sends_.push_back({r, piece(x, rank())});
      receives_.push_back({r, piece(x, r)});
    }
    exchange(ctx, what, sends_, receives_);
  }

  Store& store_;
  std::shared_ptr<gloo::transport::Device> device_;
  GlooPatience patience_;
  GlooMesh mesh_;
  int splits_ = 0;
  std::vector<Message> sends_, receives_;  // of one operation; members, so as not to allocate
};

std::unique_ptr<Communicator> make_group(Store& store, std::shared_ptr<gloo::transport::Device> device, GlooGroup group,
                                         GlooPatience patience) {
  if (group.ranks.size() == 1) return make_single_communicator();
  return std::make_unique<GlooCommunicator>(store, std::move(device), std::move(group), std::move(patience));
}

std::unique_ptr<Communicator> GlooCommunicator::split(int color) {
  std::vector<int32_t> colors(size());
  start();
  for (int r = 0; r < size(); ++r) {
    if (r == rank()) continue;
    sends_.push_back({r, host_tensor(&color, {1})});
    receives_.push_back({r, host_tensor(&colors[r], {1})});
  }
  mesh_.move("splitting the ranks into groups", sends_, receives_);
  colors[rank()] = color;

  const GlooGroup& all = mesh_.group();
  GlooGroup group{.prefix = fmt::format("{}{}/{}/", all.prefix, splits_++, color), .world = all.world};
  for (int r = 0; r < size(); ++r) {
    if (r == rank()) group.rank = static_cast<int>(group.ranks.size());
    if (colors[r] == color) group.ranks.push_back(all.ranks[r]);
  }
  return make_group(store_, device_, std::move(group), patience_);
}

}  // namespace

std::unique_ptr<Communicator> make_gloo_communicator(Store& store, const GlooOptions& options) {
  MT_CHECK(options.rank >= 0 && options.rank < options.size);
  if (options.size == 1) return make_single_communicator();
  GlooGroup world{
      .prefix = "gloo/", .world = options.size, .ranks = std::vector<int>(options.size), .rank = options.rank};
  std::iota(world.ranks.begin(), world.ranks.end(), 0);
  return make_group(store, make_gloo_device(options.host), std::move(world),
                    {.timeout = options.timeout, .goes_on = options.goes_on});
}

}  // namespace mixtune
