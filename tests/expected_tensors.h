// The fp32 tensors of a fixture's safetensors file, read when they are asked for.
#pragma once

#include <map>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "checkpoint/safetensors.h"
#include "tensor/tensor.h"

namespace mixtune {

class ExpectedTensors {
 public:
  explicit ExpectedTensors(const std::string& path) : file_(path) {}

  // Throws where there is none of that name and size. Valid as long as this.
  Tensor get(const std::string& name, int64_t elements) {
    const StoredTensor* stored = file_.find(name);
    if (!stored) throw std::runtime_error("the fixture has no " + name);
    MT_CHECK(stored->shape.elements() == elements && stored->dtype == DType::kF32);
    std::vector<float>& values = read_[name];
    values.resize(elements);
    file_.file().read(stored->begin, std::as_writable_bytes(std::span(values)));
    return host_tensor(values.data(), {elements});
  }

 private:
  SafetensorsFile file_;
  std::map<std::string, std::vector<float>> read_;
};

}  // namespace mixtune
