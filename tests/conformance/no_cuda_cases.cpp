// A build without CUDA has no parts of its own to test on a GPU.
#include "conformance/cases.h"

namespace mixtune {

ConformanceCases attention_cases() {
  return {};
}

ConformanceCases attention_cudnn_cases() {
  return {};
}

}  // namespace mixtune
