// The owners of memory: Arena for what lives as long as the run, Stack for activations.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tensor/tensor.h"

namespace mixtune {

// What host memory is for. kPinned: a GPU copies from and to it, and may read and write it itself.
enum class HostMemory { kPageable, kPinned };

// One allocation on a device, zero when fresh. Pageable host memory is reserved as address space; its pages are taken
// when first touched.
class Memory {
 public:
  Memory(std::string name, Device device, size_t bytes, HostMemory host_memory = HostMemory::kPageable);
  ~Memory();
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  char* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  const std::string& name() const { return name_; }
  Device device() const { return device_; }

 private:
  std::string name_;
  Device device_;
  size_t bytes_;
  HostMemory host_memory_;
  char* data_ = nullptr;
};

constexpr size_t kAlignment = 256;  // of every tensor, in bytes
constexpr size_t align_up(size_t bytes, size_t alignment = kAlignment) {
  return (bytes + alignment - 1) / alignment * alignment;
}

// Tensors that are never freed one by one. Every allocation has a name, for the memory report.
class Arena {
 public:
  struct Allocation {
    std::string name;
    size_t bytes;
  };

  Arena(std::string name, Device device, size_t bytes, HostMemory host_memory = HostMemory::kPageable)
      : memory_(std::move(name), device, bytes, host_memory) {}

  // Zeroed. Throws Error when the arena is full.
  Tensor allocate(std::string_view name, Shape shape, DType dtype);

  size_t used() const { return used_; }
  const std::vector<Allocation>& allocations() const { return allocations_; }
  const std::string& name() const { return memory_.name(); }

 private:
  Memory memory_;
  size_t used_ = 0;
  std::vector<Allocation> allocations_;
};

// Whether a Stack poisons what it releases, with bytes of 0xFF (NaN, or -1), so that late readers are found out: in
// debug builds, under AddressSanitizer, and where MIXTUNE_POISON_STACK=1 says so.
bool poisons_released_memory();

// Memory of activations: pushed in the order of the forward pass, released by going back to a mark. It never moves and
// never grows: a push allocates nothing.
class Stack {
 public:
  Stack(std::string name, Device device, size_t capacity, HostMemory host_memory = HostMemory::kPageable);

  // Not zeroed. Throws Error when the stack is full; `name` goes into that message.
  Tensor push(const char* name, Shape shape, DType dtype);

  // All that is left, not taken: scratch for warm-up.
  Tensor rest() const;

  size_t mark() const { return used_; }
  void release(size_t mark);
  // Poisons `bytes` from `data` on, for a GPU's stack in the order of the work that used them.
  using Poison = std::function<void(void* data, size_t bytes)>;
  void poison_with(Poison poison) { poison_ = std::move(poison); }
  size_t peak() const { return peak_; }
  size_t capacity() const { return memory_.bytes(); }
  size_t left() const { return memory_.bytes() - used_; }

  // Releases at the end of a scope what was pushed in it.
  class Frame {
   public:
    explicit Frame(Stack& stack) : stack_(stack), mark_(stack.mark()) {}
    ~Frame() { stack_.release(mark_); }
    Frame(const Frame&) = delete;
    Frame& operator=(const Frame&) = delete;

   private:
    Stack& stack_;
    size_t mark_;
  };

 private:
  Memory memory_;
  size_t used_ = 0;
  size_t peak_ = 0;
  Poison poison_;  // empty: nothing is poisoned
};

// The device's memory that can still be taken, in bytes.
size_t available_memory(Device device);

// What is in use, in GiB: on a GPU by all that runs there, on a CPU what this process has of the machine's memory.
// Read in each step: allocates nothing. 0 where it cannot be told.
double memory_gib(Device device);

}  // namespace mixtune
