#include "tensor/memory.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <limits>

#include "base/log.h"
#include "tensor/cuda_memory.h"
#include "tensor/device.h"
#include "tensor/out_of_memory.h"

namespace mixtune {

Memory::Memory(std::string name, Device device, size_t bytes, HostMemory host_memory)
    : name_(std::move(name)),
      device_(device),
      bytes_(align_up(std::max<size_t>(bytes, 1), 4096)),
      host_memory_(host_memory) {
  if (device.type == DeviceType::kMeta) {
    data_ = reinterpret_cast<char*>(uintptr_t{1} << 40);  // never read, but not null
    return;
  }
  if (device.type == DeviceType::kCuda || host_memory == HostMemory::kPinned) {
    data_ = static_cast<char*>(cuda::allocate(name_, device, bytes_));
    return;
  }
  void* p = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED)
    throw Error(name_, fmt::format("the system refuses {} of memory: {}", format_bytes(bytes_), std::strerror(errno)),
                "use a smaller model or a machine with more memory");
  data_ = static_cast<char*>(p);
  madvise(data_, bytes_, MADV_HUGEPAGE);
}

Memory::~Memory() {
  if (device_.type == DeviceType::kMeta) return;
  if (device_.type == DeviceType::kCuda || host_memory_ == HostMemory::kPinned)
    cuda::release(device_, data_);
  else
    munmap(data_, bytes_);
}

Tensor Arena::allocate(std::string_view name, Shape shape, DType dtype) {
  const Tensor tensor{memory_.data() + used_, shape, dtype, memory_.device()};
  const size_t bytes = align_up(tensor.bytes());
  if (bytes > memory_.bytes() - used_)
    throw Error(memory_.name(), fmt::format("no room for {} ({})", name, format_bytes(bytes)), "please report this");
  used_ += bytes;
  allocations_.push_back({std::string(name), bytes});
  return tensor;
}

bool poisons_released_memory() {
#if !defined(NDEBUG) || defined(__SANITIZE_ADDRESS__)
  return true;
#else
  static const char* const asked = std::getenv("MIXTUNE_POISON_STACK");
  return asked != nullptr && std::string_view(asked) == "1";
#endif
}

Stack::Stack(std::string name, Device device, size_t capacity, HostMemory host_memory)
    : memory_(std::move(name), device, capacity, host_memory) {
  if (device.type == DeviceType::kCpu && poisons_released_memory())
    poison_ = [](void* data, size_t bytes) {
      std::memset(data, 0xFF, bytes);
    };
}

Tensor Stack::push(const char* name, Shape shape, DType dtype) {
  const Tensor tensor{memory_.data() + used_, shape, dtype, memory_.device()};
  const size_t bytes = align_up(tensor.bytes());
  if (bytes > memory_.bytes() - used_)
    throw OutOfMemory(MemoryOf::kActivations,
                      fmt::format("{} needs {}, {} of {} are in use by activations", name, format_bytes(bytes),
                                  format_bytes(used_), format_bytes(memory_.bytes())));
  used_ += bytes;
  peak_ = std::max(peak_, used_);
  return tensor;
}

Tensor Stack::rest() const {
  return {memory_.data() + used_, {static_cast<int64_t>(memory_.bytes() - used_)}, DType::kU8, memory_.device()};
}

void Stack::release(size_t mark) {
  MT_CHECK(mark <= used_);
  if (poison_ && mark < used_) poison_(memory_.data() + mark, used_ - mark);
  used_ = mark;
}

namespace {

// The number in a file of one line; the largest size_t where it has none ("max").
size_t read_number(const char* path) {
  size_t number = 0;
  return std::ifstream(path) >> number ? number : std::numeric_limits<size_t>::max();
}

// The bytes that the control group (a container's, say) has left.
size_t available_in_group() {
  const size_t limit = read_number("/sys/fs/cgroup/memory.max"), used = read_number("/sys/fs/cgroup/memory.current");
  return limit > used ? limit - used : limit;
}

}  // namespace

size_t available_memory(Device device) {
  if (device.type == DeviceType::kMeta) return size_t{1} << 50;
  if (device.type == DeviceType::kCuda) return gpu_info(device.index).free_memory;
  std::ifstream meminfo("/proc/meminfo");
  std::string key;
  size_t kib = 0;
  for (std::string rest; meminfo >> key >> kib && std::getline(meminfo, rest);)
    if (key == "MemAvailable:") return std::min(kib * 1024, available_in_group());
  throw Error("/proc/meminfo", "no MemAvailable line", "mixtune needs Linux 3.14 or newer");
}

namespace {

// Of this process, in pages; 0 where it cannot be told. Allocates nothing.
size_t resident_pages() {
  const int file = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
  if (file < 0) return 0;
  std::array<char, 128> text = {};
  const ssize_t length = read(file, text.data(), text.size() - 1);
  close(file);
  char* end = text.data();
  std::strtoull(text.data(), &end, 10);  // the pages of the address space; those that are resident come next
  return length > 0 ? std::strtoull(end, nullptr, 10) : 0;
}

}  // namespace

double memory_gib(Device device) {
  size_t bytes = 0;
  if (device.type == DeviceType::kCuda) {
    bytes = gpu_memory_in_use(device.index);
  } else if (device.type == DeviceType::kCpu) {
    bytes = resident_pages() * static_cast<size_t>(sysconf(_SC_PAGESIZE));
  }
  return static_cast<double>(bytes) / static_cast<double>(size_t{1} << 30);
}

}  // namespace mixtune
