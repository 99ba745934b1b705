#include "conformance/conformance.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <set>

#include "base/random.h"

namespace mixtune {

namespace {

constexpr size_t kGuardBytes = 256;        // behind every operand on the GPU: NaN, and still NaN afterwards
constexpr size_t kScratchBytes = 4 << 20;  // of the GPU's stack, poisoned before a run
constexpr int64_t kSamples = 6;            // repetitions that are compared, at most

uint8_t* bytes_of(const Tensor& tensor) {
  return static_cast<uint8_t*>(tensor.data);
}

Tensor host_view(const std::vector<uint8_t>& bytes) {
  return host_tensor(bytes.data(), {static_cast<int64_t>(bytes.size())});
}

void poison(uint8_t* data, size_t bytes, DType dtype) {
  constexpr int32_t kUnset = -7;
  std::memset(data, 0xFF, bytes);
  if (dtype == DType::kI32) std::fill_n(reinterpret_cast<int32_t*>(data), bytes / sizeof(int32_t), kUnset);
}

bool is_poison(const Tensor& tensor) {
  std::vector<uint8_t> unset(tensor.bytes());
  poison(unset.data(), unset.size(), tensor.dtype);
  return std::memcmp(unset.data(), tensor.data, unset.size()) == 0;
}

// Encodes the CPU's elements in the GPU's dtype.
std::vector<uint8_t> encode(const Tensor& cpu, DType dtype) {
  std::vector<uint8_t> bits(cpu.elements() * dtype_size(dtype));
  if (cpu.dtype == dtype) {
    std::copy_n(bytes_of(cpu), bits.size(), bits.data());
    return bits;
  }
#pragma omp parallel for
  for (int64_t i = 0; i < cpu.elements(); ++i) {
    const float value = cpu.dtype == DType::kF64 ? static_cast<float>(cpu.as<double>()[i]) : cpu.as<float>()[i];
    if (dtype == DType::kBF16)
      reinterpret_cast<BF16*>(bits.data())[i] = to_bf16(value);
    else
      reinterpret_cast<float*>(bits.data())[i] = value;
  }
  return bits;
}

double element(const void* data, DType dtype, int64_t i) {
  switch (dtype) {
    case DType::kF64:
      return static_cast<const double*>(data)[i];
    case DType::kF32:
      return static_cast<const float*>(data)[i];
    case DType::kBF16:
      return to_float(static_cast<const BF16*>(data)[i]);
    case DType::kF8E4M3:
      return to_float(static_cast<const E4M3*>(data)[i]);
    case DType::kF8E8M0:
      return to_float(static_cast<const E8M0*>(data)[i]);
    case DType::kI64:
      return static_cast<double>(static_cast<const int64_t*>(data)[i]);
    default:
      MT_CHECK(dtype == DType::kI32);
      return static_cast<const int32_t*>(data)[i];
  }
}

std::vector<int64_t> sampled_repetitions(uint64_t seed, int64_t times) {
  std::set<int64_t> samples = {0, times - 1};
  const uint64_t key = random_key(seed, "repetitions");
  for (int64_t i = 0; i < kSamples - 2; ++i) samples.insert(static_cast<int64_t>(random_below(key, i, times)));
  return {samples.begin(), samples.end()};
}

}  // namespace

struct Conformance::Held {
  std::string name;
  Role role;
  Tensor cpu, gpu;               // gpu: all repetitions
  Tensor storage;                // gpu's bytes and the guard behind them
  std::vector<int64_t> samples;  // the repetitions that are compared
  bool any_order = false;        // two runs on the GPU need not give the same bits
  Bytes before;                  // one repetition on the GPU before a run
  Bytes after;                   // the sampled ones after it, and the guard
};

Conformance::Conformance(Ctx& cpu, Ctx& gpu, DType dtype, uint64_t seed)
    : cpu_(cpu), gpu_(gpu), dtype_(dtype), seed_(seed), cpu_frame_(cpu), gpu_frame_(gpu) {}

Conformance::~Conformance() = default;

Operand Conformance::add(std::string_view name, Shape shape, DType dtype, Role role,
                         const std::function<void(const Tensor&)>& fill_cpu) {
  auto held = std::make_unique<Held>();
  held->name = name;
  held->role = role;
  Stack& stack = role == Role::kHostOutput ? gpu_.host_stack : gpu_.stack;

  const bool is_float = dtype == DType::kBF16 || dtype == DType::kF32;
  held->cpu = cpu_.stack.push(held->name.c_str(), shape, !is_float ? dtype : oracle_ ? DType::kF64 : DType::kF32);
  fill_cpu(held->cpu);
  held->before = encode(held->cpu, dtype);
  if (role != Role::kInput) poison(held->before.data(), held->before.size(), dtype);

  std::vector<int64_t> dims;
  for (int i = 0; i < shape.rank(); ++i) dims.push_back(shape[i] * (i == 0 ? times_ : 1));
  const int64_t bytes = times_ * static_cast<int64_t>(held->before.size());
  held->storage = stack.push(held->name.c_str(), {bytes + static_cast<int64_t>(kGuardBytes)}, DType::kU8);
  held->gpu = {held->storage.data, Shape(dims.data(), shape.rank()), dtype, held->storage.device};
  held->samples = sampled_repetitions(seed_, times_);

  Operand operand;
  operand.cpu_ = held->cpu;
  operand.gpu_ = held->gpu;
  operand.index_ = held_.size();
  held_.push_back(std::move(held));
  return operand;
}

size_t Conformance::gpu_bytes() const {
  size_t bytes = 0;
  for (const auto& held : held_) bytes += held->storage.bytes();
  return bytes;
}

const Conformance::Held& Conformance::held(const Operand& operand) const {
  MT_CHECK(ran_);
  return *held_.at(operand.index_);
}

Operand Conformance::random(std::string_view name, Shape shape, double deviation, double mean) {
  return random(name, shape, dtype_, deviation, mean);
}

Operand Conformance::random(std::string_view name, Shape shape, DType dtype, double deviation, double mean) {
  const uint64_t key = random_key(seed_, name);
  const auto value = [&](int64_t i) {
    return mean + deviation * random_normal(key, i);
  };
  return add(name, shape, dtype, Role::kInput, [&](const Tensor& cpu) {
#pragma omp parallel for
    for (int64_t i = 0; i < cpu.elements(); ++i) {
      const auto x = static_cast<float>(value(i));
      const double rounded = dtype == DType::kF64 ? value(i) : dtype == DType::kBF16 ? to_float(to_bf16(x)) : x;
      if (cpu.dtype == DType::kF64)
        cpu.as<double>()[i] = rounded;
      else
        cpu.as<float>()[i] = static_cast<float>(rounded);
    }
  });
}

Operand Conformance::integers(std::string_view name, Shape shape, const std::function<int64_t(int64_t)>& value) {
  return add(name, shape, DType::kI32, Role::kInput, [&](const Tensor& cpu) {
    for (int64_t i = 0; i < cpu.elements(); ++i) cpu.as<int32_t>()[i] = static_cast<int32_t>(value(i));
  });
}

Operand Conformance::doubles(std::string_view name, Shape shape, const std::function<double(int64_t)>& value) {
  return add(name, shape, DType::kF64, Role::kInput, [&](const Tensor& cpu) {
    for (int64_t i = 0; i < cpu.elements(); ++i) cpu.as<double>()[i] = value(i);
  });
}

Operand Conformance::bits(std::string_view name, Shape shape, const std::function<uint16_t(int64_t)>& value) {
  return add(name, shape, DType::kBF16, Role::kInput, [&](const Tensor& cpu) {
    for (int64_t i = 0; i < cpu.elements(); ++i) cpu.as<float>()[i] = to_float(BF16{value(i)});
  });
}

Operand Conformance::output(std::string_view name, Shape shape) {
  return output(name, shape, dtype_);
}

Operand Conformance::output(std::string_view name, Shape shape, DType dtype) {
  return add(name, shape, dtype, Role::kOutput,
             [](const Tensor& cpu) { poison(bytes_of(cpu), cpu.bytes(), cpu.dtype); });
}

Operand Conformance::host_output(std::string_view name, Shape shape, DType dtype) {
  return add(name, shape, dtype, Role::kHostOutput,
             [](const Tensor& cpu) { poison(bytes_of(cpu), cpu.bytes(), cpu.dtype); });
}

void Conformance::upload(const Held& held) {
  const auto bytes = static_cast<int64_t>(held.before.size()), guard = static_cast<int64_t>(kGuardBytes);
  const int64_t end = held.storage.elements() - guard;
  copy(gpu_, host_view(held.before), held.storage.slice(0, bytes));
  for (int64_t done = bytes, more; done < end; done += more) {
    more = std::min(done, end - done);
    copy(gpu_, held.storage.slice(0, more), held.storage.slice(done, more));
  }
  copy(gpu_, host_view(Bytes(kGuardBytes, 0xFF)), held.storage.slice(end, guard));
  wait(gpu_);
}

Conformance::Bytes Conformance::download(const Held& held) {
  const auto bytes = static_cast<int64_t>(held.before.size()), guard = static_cast<int64_t>(kGuardBytes);
  Bytes bits(held.samples.size() * held.before.size() + kGuardBytes);
  uint8_t* to = bits.data();
  for (const int64_t sample : held.samples) {
    copy(gpu_, held.storage.slice(sample * bytes, bytes), host_tensor(to, {bytes}));
    to += bytes;
  }
  copy(gpu_, held.storage.slice(held.storage.elements() - guard, guard), host_tensor(to, {guard}));
  wait(gpu_);
  return bits;
}

// An op's scratch on the stack is not zeroed: no result may depend on what is there.
void Conformance::poison_scratch(uint8_t byte) {
  const Tensor rest = gpu_.stack.rest();
  const Bytes scratch(std::min(kScratchBytes, rest.bytes()), byte);
  copy(gpu_, host_view(scratch), rest.slice(0, static_cast<int64_t>(scratch.size())));
  wait(gpu_);
}

void Conformance::any_order(const Operand& operand) {
  held_.at(operand.index_)->any_order = true;
}

void Conformance::run(const std::function<void(Ctx&, Side)>& op) {
  MT_CHECK(!ran_);
  ran_ = true;
  op(cpu_, Side::kCpu);
  for (const auto& held : held_)
    if (held->role != Role::kInput && held->cpu.elements() > 0 && is_poison(held->cpu))
      ADD_FAILURE() << held->name << ": the CPU's op wrote nothing";

  poison_scratch(0xFF);
  run_on_gpu(op);
  std::vector<Bytes> first;
  for (const auto& held : held_) first.push_back(std::move(held->after));
  poison_scratch(0x3F);
  run_on_gpu(op);
  for (size_t i = 0; i < held_.size(); ++i) {
    EXPECT_TRUE(held_[i]->any_order || first[i] == held_[i]->after) << held_[i]->name << ": two runs on the GPU differ";
    check_writes(*held_[i]);
  }
}

void Conformance::run_on_gpu(const std::function<void(Ctx&, Side)>& op) {
  for (const auto& held : held_) upload(*held);
  op(gpu_, Side::kGpu);
  wait(gpu_);
  for (const auto& held : held_) held->after = download(*held);
}

void Conformance::check_writes(const Held& held) {
  const auto guard = held.after.end() - kGuardBytes;
  EXPECT_TRUE(std::all_of(guard, held.after.end(), [](uint8_t byte) { return byte == 0xFF; }))
      << held.name << ": the GPU wrote behind its end";
  if (held.role != Role::kInput || encode(held.cpu, held.gpu.dtype) != held.before) return;
  for (size_t s = 0; s < held.samples.size(); ++s)
    EXPECT_TRUE(std::equal(held.before.begin(), held.before.end(), held.after.begin() + s * held.before.size()))
        << held.name << ": the GPU wrote what the CPU only reads";
}

namespace {

// The results of one pass over the elements of both sides.
struct Comparison {
  double largest = 0;       // finite magnitude of the CPU's
  double worst = 0;         // difference
  int64_t worst_index = 0;  // counted over the compared repetitions
  double difference_squares = 0, squares = 0;
  int64_t nans = 0, first_nan = 0;

  void add(int64_t i, double gpu, double cpu) {
    if (std::isnan(gpu) || std::isnan(cpu)) {
      if (nans++ == 0) first_nan = i;
      return;
    }
    if (std::isfinite(cpu)) {
      largest = std::max(largest, std::abs(cpu));
      squares += cpu * cpu;
    }
    const double difference = gpu == cpu ? 0 : std::abs(gpu - cpu);
    difference_squares += difference * difference;
    if (difference > worst) {
      worst = difference;
      worst_index = i;
    }
  }
};

double epsilon(DType dtype) {
  return dtype == DType::kBF16 ? 0x1p-8 : std::numeric_limits<float>::epsilon();
}

Comparison compare(const Tensor& cpu, DType gpu_dtype, const std::vector<uint8_t>& gpu, size_t repetitions) {
  Comparison comparison;
  const int64_t n = cpu.elements();
  for (int64_t s = 0; s < static_cast<int64_t>(repetitions); ++s)
    for (int64_t i = 0; i < n; ++i)
      comparison.add(s * n + i, element(gpu.data(), gpu_dtype, s * n + i), element(cpu.data, cpu.dtype, i));
  return comparison;
}

std::string describe(int64_t index, const Tensor& cpu, DType gpu_dtype, const std::vector<uint8_t>& gpu) {
  const int64_t n = cpu.elements(), i = index % n, columns = std::max<int64_t>(cpu.row_elements(), 1);
  return fmt::format("row {}, column {} of {} (compared repetition {}): {} on the GPU, {} on the CPU", i / columns,
                     i % columns, cpu.shape.str(), index / n, element(gpu.data(), gpu_dtype, index),
                     element(cpu.data, cpu.dtype, i));
}

}  // namespace

void Conformance::expect_close(const Operand& operand, double epsilons) {
  const Held& h = held(operand);
  const Comparison found = compare(h.cpu, h.gpu.dtype, h.after, h.samples.size());
  const double unit = epsilon(h.gpu.dtype) * found.largest;
  EXPECT_EQ(found.nans, 0) << h.name << ": the first NaN is in "
                           << describe(found.first_nan, h.cpu, h.gpu.dtype, h.after);
  EXPECT_LE(found.worst, epsilons * unit)
      << h.name << ": " << found.worst / unit << " epsilons, " << epsilons << " are allowed, in "
      << describe(found.worst_index, h.cpu, h.gpu.dtype, h.after);
  ::testing::Test::RecordProperty(h.name + "_epsilons", fmt::format("{:.3g}", unit > 0 ? found.worst / unit : 0));
}

void Conformance::expect_norm_close(const Operand& operand, double relative) {
  const Held& h = held(operand);
  const Comparison found = compare(h.cpu, h.gpu.dtype, h.after, h.samples.size());
  EXPECT_EQ(found.nans, 0) << h.name << ": the first NaN is in "
                           << describe(found.first_nan, h.cpu, h.gpu.dtype, h.after);
  EXPECT_LE(std::sqrt(found.difference_squares), relative * std::sqrt(found.squares))
      << h.name << ": the largest difference is in " << describe(found.worst_index, h.cpu, h.gpu.dtype, h.after);
}

void Conformance::expect_equal(const Operand& operand) {
  const Held& h = held(operand);
  const DType dtype = h.gpu.dtype;
  const Bytes expected = encode(h.cpu, dtype);
  const auto size = static_cast<int64_t>(dtype_size(dtype)), n = h.cpu.elements();
  for (int64_t i = 0; i < static_cast<int64_t>(h.samples.size()) * n; ++i) {
    if (std::memcmp(&h.after[i * size], &expected[i % n * size], size) == 0) continue;
    if (std::isnan(element(h.after.data(), dtype, i)) && std::isnan(element(expected.data(), dtype, i % n))) continue;
    ADD_FAILURE() << h.name << ": not the same bits in " << describe(i, h.cpu, dtype, h.after);
    return;
  }
}

void Conformance::expect_same(const Operand& a, const Operand& b) {
  EXPECT_TRUE(held(a).after == held(b).after) << held(a).name << " and " << held(b).name << " differ on the GPU";
}

}  // namespace mixtune
