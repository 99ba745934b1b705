// Devices, without any CUDA header: what is there, and moving bytes to and from it.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tensor/tensor.h"

namespace mixtune {

class Gpu;    // gpu.h
class Stack;  // memory.h
struct Ctx;

struct GpuOptions {
  bool deterministic = false;  // uses none of the libraries' kernels that add in no fixed order
  std::string plan_cache;      // folder that keeps chosen algorithms; empty: none does
  // With several ranks: the seconds that the host waits for the device at most (0: without end), and what is called
  // then. A wait for another rank's GPU never ends and its memory cannot be freed, so give_up ends the process. Where
  // another rank is still at work it returns instead, and the host waits as long again.
  double patience = 0;
  std::function<void(const std::string& message)> give_up = {};
  // With several ranks: called after each piece of work that only some of them have, such as one measured choice.
  std::function<void()> advanced = {};
};

bool built_with_cuda();

// CUDA devices of this machine; 0 without a driver, or in a build without CUDA.
int gpu_count();

struct GpuInfo {
  std::string name;  // "NVIDIA H100 80GB HBM3"
  int compute_capability = 0;
  int multiprocessors = 0;
  size_t memory = 0, free_memory = 0;  // bytes
  int driver = 0, runtime = 0;         // CUDA versions: 13000 is 13.0
};
GpuInfo gpu_info(int index);
// The same as GpuInfo's, asked of the driver: unlike gpu_info() it takes nothing of the GPU's memory.
int gpu_compute_capability(int index);
// Bytes, of all processes: the one number of these that is read in each step.
size_t gpu_memory_in_use(int index);

// Throws Error where there is no such device.
std::shared_ptr<Gpu> make_gpu(Device device, const GpuOptions& options);

// What a thread calls before it waits for a device's work beside the thread that puts it there.
void use_in_this_thread(Device device);

// Has `stack`, of the GPU's memory, poison what it releases (memory.h), in the order of the stream or lane that is
// current at the release. `gpu` outlives the releases.
void poison_released(Stack& stack, Gpu& gpu);

// Copies between any devices tensors of one dtype and element count, in the order of the ctx's stream. The host side of
// a copy must stay as it is until wait(). Pageable host memory makes the call wait.
void copy(Ctx& ctx, const Tensor& from, const Tensor& to);
void zero(Ctx& ctx, const Tensor& tensor);

// The host waits until all that was put on the ctx's stream is done. On the CPU there is nothing to wait for.
void wait(Ctx& ctx);

// How often the host waited for the device, and how many library plans were built after warm-up; 0 on the CPU.
int64_t device_waits(const Ctx& ctx);
int64_t late_plans(const Ctx& ctx);

}  // namespace mixtune
